/* SPDX-License-Identifier: Apache-2.0 */
#include "target/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"

#define HOLDER_BYTES 128

static int read_at(struct lb_target_disk *d, void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	int r = lb_pread_full(d->env, d->fd, buf, size_bytes, offset_bytes);

	return r < 0 ? lb_fail(r, "can't read %s at byte %llu: %s", d->path, (unsigned long long)offset_bytes,
			       strerror(-r))
		     : 0;
}

static int write_failed(const struct lb_target_disk *d, int r, uint64_t offset_bytes)
{
	if (r == -ENOSPC)
		return lb_fail(r, "no space left for %s; make room and run the same again: it goes on where it was",
			       d->path);
	return lb_fail(r, "can't write %s at byte %llu: %s", d->path, (unsigned long long)offset_bytes, strerror(-r));
}

static int write_at(struct lb_target_disk *d, const void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	int r = lb_pwrite_full(d->env, d->fd, buf, size_bytes, offset_bytes);

	return r < 0 ? write_failed(d, r, offset_bytes) : 0;
}

static int zero_by_writing(struct lb_target_disk *d, uint64_t size_bytes, uint64_t offset_bytes)
{
	static const uint8_t zeroes[64u << 10];
	int r = 0;

	while (r == 0 && size_bytes > 0) {
		size_t n = LB_MIN(size_bytes, (uint64_t)sizeof(zeroes));

		r = write_at(d, zeroes, n, offset_bytes);
		offset_bytes += n;
		size_bytes -= n;
	}
	return r;
}

static int zero_at(struct lb_target_disk *d, uint64_t size_bytes, uint64_t offset_bytes)
{
	uint64_t range[2] = {offset_bytes, size_bytes};

	if (d->kind == LB_TARGET_DEVICE) {
		if (ioctl(d->fd, BLKZEROOUT, range) == 0)
			return 0;
	} else if (fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset_bytes,
			     (off_t)size_bytes) == 0) {
		return 0;
	}
	return zero_by_writing(d, size_bytes, offset_bytes);
}

static int next_data(struct lb_target_disk *d, uint64_t offset_bytes, uint64_t *ret_offset_bytes)
{
	off_t at = d->kind == LB_TARGET_RAW ? lseek(d->fd, (off_t)offset_bytes, SEEK_DATA) : (off_t)offset_bytes;

	if (at < 0)
		at = errno == ENXIO ? (off_t)d->size_bytes : (off_t)offset_bytes;
	*ret_offset_bytes = (uint64_t)at;
	return 0;
}

static int flush(struct lb_target_disk *d)
{
	int r = d->env->ops->fsync(d->env, d->fd);

	return r < 0 ? lb_fail(r, "can't make %s durable: %s", d->path, strerror(-r)) : 0;
}

static void close_fd(struct lb_target_disk *d)
{
	/* the kernel's view of the partitions may be an older one; if it won't now, it does at the next start */
	if (d->fd >= 0 && d->kind == LB_TARGET_DEVICE)
		(void)ioctl(d->fd, BLKRRPART);
	if (d->fd >= 0)
		d->env->ops->close(d->env, d->fd);
}

static const struct lb_target_disk_ops file_ops = {.pread = read_at,
						   .pwrite = write_at,
						   .zero = zero_at,
						   .next_data = next_data,
						   .flush = flush,
						   .close = close_fd};

/* ---- who uses it ------------------------------------------------------------------------------------------ */

struct looking {
	const char *path, *name;
	char found[HOLDER_BYTES];
};

static int look_at_loop(void *arg, const char *name, bool is_dir)
{
	struct looking *l = arg;
	char path[256], backing[LB_TARGET_PATH_BYTES + 16] = "";
	_cleanup_close_ int fd = -1;
	ssize_t n;

	(void)is_dir;
	if (strncmp(name, "loop", 4) != 0)
		return 0;
	snprintf(path, sizeof(path), "/sys/block/%.32s/loop/backing_file", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, backing, sizeof(backing) - 1);
	if (n <= 0)
		return 0;
	backing[strcspn(backing, "\n")] = '\0';
	if (strcmp(backing, l->path) == 0)
		snprintf(l->found, sizeof(l->found), "loop device /dev/%.32s", name);
	return 0;
}

/* Nobody else has the file: QEMU keeps locks in its images, a loop device is found by its backing file. */
static int check_file_free(struct lb_target_disk *d)
{
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	_cleanup_free_ char *real = realpath(d->path, NULL);
	struct looking l = {.path = real != NULL ? real : d->path};

	if (fcntl(d->fd, F_OFD_SETLK, &all) < 0)
		return lb_fail(-EBUSY, "%s is in use by another program (a virtual machine?); stop it first", d->path);
	d->env->ops->list(d->env, "/sys/block", look_at_loop, &l);
	if (l.found[0] != '\0')
		return lb_fail(-EBUSY, "%s is in use as %s; detach it first, or name the device", d->path, l.found);
	return 0;
}

static int refuse_busy_device(struct lb_env *env, const char *path)
{
	_cleanup_free_ uint8_t *mounts = NULL;
	_cleanup_free_ char *real = realpath(path, NULL);
	size_t size_bytes;
	char *line, *rest;

	if (real != NULL && lb_file_read(env, "/proc/self/mounts", 1u << 20, &mounts, &size_bytes) == 0) {
		for (rest = (char *)mounts; (line = strsep(&rest, "\n")) != NULL;) {
			char *device = strsep(&line, " "), *where = strsep(&line, " ");

			if (where != NULL && strncmp(device, real, strlen(real)) == 0)
				return lb_fail(-EBUSY, "%s is in use: %s is mounted at %s; unmount it first", path,
					       device, where);
		}
	}
	return lb_fail(-EBUSY, "%s is in use (mounted, swap, part of LVM or RAID, or another program's); free it first",
		       path);
}

static void read_serial(struct lb_target_disk *d, const struct stat *st)
{
	static const char *const places[] = {"serial", "device/serial"};

	for (size_t i = 0; i < LB_ARRAY_LEN(places); i++) {
		char path[128];
		_cleanup_close_ int fd = -1;
		ssize_t n;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(st->st_rdev), minor(st->st_rdev),
			 places[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? 0 : read(fd, d->serial, sizeof(d->serial) - 1);
		d->serial[n > 0 ? n : 0] = '\0';
		d->serial[strcspn(d->serial, " \n")] = '\0';
		if (d->serial[0] != '\0')
			return;
	}
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

static int open_device(struct lb_target_disk *d, const struct stat *st)
{
	d->kind = LB_TARGET_DEVICE;
	/* exclusive: the kernel refuses a disk of which it uses any part itself */
	d->fd = d->env->ops->open(d->env, d->path, O_RDWR | O_EXCL | O_CLOEXEC, 0);
	if (d->fd == -EBUSY)
		return refuse_busy_device(d->env, d->path);
	if (d->fd < 0)
		return lb_fail(d->fd, "can't open %s: %s", d->path, strerror(-d->fd));
	if (ioctl(d->fd, BLKGETSIZE64, &d->size_bytes) < 0)
		return lb_fail(-errno, "can't tell the size of %s: %s", d->path, strerror(errno));
	read_serial(d, st);
	return 0;
}

static bool is_qcow2(const struct lb_target_disk *d)
{
	static const uint8_t magic[4] = {'Q', 'F', 'I', 0xfb};
	uint8_t head[sizeof(magic)];

	return lb_pread_full(d->env, d->fd, head, sizeof(head), 0) == 0 && memcmp(head, magic, sizeof(magic)) == 0;
}

static int open_file(struct lb_target_disk *d, uint64_t size_bytes)
{
	int r;

	d->kind = LB_TARGET_RAW;
	d->fd = d->env->ops->open(d->env, d->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->fd < 0)
		return lb_fail(d->fd, "can't open %s: %s", d->path, strerror(-d->fd));
	r = check_file_free(d);
	if (r < 0)
		return r;
	if (is_qcow2(d))
		return lb_target_qcow2_open(d);
	r = d->env->ops->size(d->env, d->fd, &d->size_bytes);
	if (r == 0 && d->size_bytes == 0) {
		r = d->env->ops->ftruncate(d->env, d->fd, size_bytes);
		d->size_bytes = size_bytes;
	}
	return r < 0 ? lb_fail(r, "can't size %s: %s", d->path, strerror(-r)) : 0;
}

static bool ends_in(const char *path, const char *end)
{
	return strlen(path) > strlen(end) && strcmp(path + strlen(path) - strlen(end), end) == 0;
}

static int open_any(struct lb_target_disk *d, uint64_t size_bytes)
{
	struct stat st = {0};
	bool there = stat(d->path, &st) == 0;
	int r;

	if (there && S_ISBLK(st.st_mode))
		return open_device(d, &st);
	if (there && !S_ISREG(st.st_mode))
		return lb_fail(-EINVAL, "%s is neither a block device nor a file", d->path);
	if (!there && strncmp(d->path, "/dev/", 5) == 0)
		return lb_fail(-ENOENT, "there is no device %s", d->path);
	if (!there && ends_in(d->path, ".qcow2")) {
		r = lb_target_qcow2_make(d->env, d->path, size_bytes);
		if (r < 0)
			return r;
	}
	return open_file(d, size_bytes);
}

int lb_target_disk_open(struct lb_env *env, const char *path, uint64_t size_bytes, struct lb_target_disk *ret_disk)
{
	_cleanup_(lb_target_disk_close) struct lb_target_disk d = {.env = env, .ops = &file_ops, .fd = -1};
	int r;

	if (path[0] != '/')
		return lb_fail(-EINVAL, "a target is an absolute path, not \"%.60s\"", path);
	if ((size_t)snprintf(d.path, sizeof(d.path), "%s", path) >= sizeof(d.path))
		return lb_fail(-ENAMETOOLONG, "the path %.60s... is too long", path);
	r = open_any(&d, size_bytes);
	if (r < 0)
		return r;
	if (d.size_bytes < size_bytes)
		return lb_fail(-EINVAL, "%s is too small: it has %llu bytes, the disk needs %llu", d.path,
			       (unsigned long long)d.size_bytes, (unsigned long long)size_bytes);
	*ret_disk = d;
	d.ops = NULL;
	return 0;
}

void lb_target_disk_close(struct lb_target_disk *d)
{
	if (d->ops != NULL)
		d->ops->close(d);
	d->ops = NULL;
}
