/* SPDX-License-Identifier: Apache-2.0 */
#include "files/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/err.h"

#define DEPTH_MAX 256
#define FILES_MAX (16u << 20)
#define PERMISSIONS 01777
#define ZERO_STEP_BYTES 4096

static int put(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name, struct lb_restore *r,
	       unsigned int depth);

static int failed(const char *act, const char *name)
{
	int code = -errno;

	if (code == -EEXIST)
		return lb_fail(code, "%s is there already; nothing is overwritten without --force", name);
	return lb_fail(code, "can't %s %s: %s", act, name, strerror(-code));
}

static int set_owner_mode_time(int fd, const struct lb_ext_file *file, const char *name)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = file->mtime_s, .tv_nsec = file->mtime_ns}};

	if (geteuid() == 0 && fchown(fd, file->uid, file->gid) < 0)
		return failed("give its owner to", name);
	if (fchmod(fd, file->mode & PERMISSIONS) < 0)
		return failed("give its permissions to", name);
	if (futimens(fd, times) < 0)
		return failed("give its time to", name);
	return 0;
}

/* ---- files ---- */

static bool is_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Holes stay holes. */
static int write_piece(void *arg, const void *data, size_t size_bytes, uint64_t offset_bytes)
{
	const uint8_t *p = data;
	int fd = *(int *)arg;

	for (size_t at = 0; at < size_bytes;) {
		size_t step = LB_MIN(size_bytes - at, (size_t)ZERO_STEP_BYTES);
		ssize_t n = (ssize_t)step;

		if (!is_zero(p + at, step))
			n = pwrite(fd, p + at, step, (off_t)(offset_bytes + at));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return lb_fail(-errno, "can't write: %s", strerror(errno));
		at += (size_t)n;
	}
	return 0;
}

static int fill(struct lb_ext *e, const struct lb_ext_file *file, int fd, const char *name)
{
	int r;

	r = lb_ext_read(e, file, write_piece, &fd);
	if (r < 0)
		return lb_wrap(r, "%s", name);
	if (ftruncate(fd, (off_t)file->size_bytes) < 0)
		return failed("give its size to", name);
	r = set_owner_mode_time(fd, file, name);
	return r == 0 && fsync(fd) < 0 ? failed("write", name) : r;
}

static void temporary_name(char name[64])
{
	static unsigned int n;

	snprintf(name, 64, ".lifeboat-%d-%u", (int)getpid(), n++);
}

/* A file without a name becomes `name`; with force by way of a second name, so that the old one is there until then. */
static int link_file(int fd, int folder_fd, const char *name, bool force)
{
	char path[64], other[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, path, folder_fd, name, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	if (errno != EEXIST || !force)
		return failed("make", name);
	temporary_name(other);
	if (linkat(AT_FDCWD, path, folder_fd, other, AT_SYMLINK_FOLLOW) < 0)
		return failed("make", other);
	if (renameat(folder_fd, other, folder_fd, name) < 0) {
		int r = failed("replace", name);

		unlinkat(folder_fd, other, 0);
		return r;
	}
	return 0;
}

static int put_file(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name,
		    struct lb_restore *r)
{
	_cleanup_close_ int fd = openat(folder_fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	struct stat st;
	int code;

	if (fd < 0)
		return lb_fail(-errno,
			       "can't make a file for %s: %s (its filesystem needs O_TMPFILE, as ext4, xfs, btrfs "
			       "and tmpfs have it)",
			       name, strerror(errno));
	if (!r->force && fstatat(folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) { /* before all the reading */
		errno = EEXIST;
		return failed("make", name);
	}
	code = fill(e, file, fd, name);
	if (code == 0)
		code = link_file(fd, folder_fd, name, r->force);
	if (code < 0)
		return code;
	r->files++;
	r->bytes += file->size_bytes;
	return 0;
}

/* ---- links ---- */

static int put_link(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name,
		    struct lb_restore *r)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = file->mtime_s, .tv_nsec = file->mtime_ns}};
	char target[LB_EXT_LINK_BYTES], other[64];
	int code;

	code = lb_ext_readlink(e, file, target);
	if (code < 0)
		return lb_wrap(code, "%s", name);
	temporary_name(other);
	if (symlinkat(target, folder_fd, r->force ? other : name) < 0)
		return failed("make", name);
	if (r->force && renameat(folder_fd, other, folder_fd, name) < 0) {
		code = failed("replace", name);
		unlinkat(folder_fd, other, 0);
		return code;
	}
	if (geteuid() == 0 && fchownat(folder_fd, name, file->uid, file->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return failed("give its owner to", name);
	if (utimensat(folder_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return failed("give its time to", name);
	r->files++;
	return 0;
}

/* ---- folders ---- */

struct filling {
	struct lb_ext *e;
	int fd;
	struct lb_restore *r;
	unsigned int depth;
};

static int put_entry(void *arg, const char *name, const struct lb_ext_file *file)
{
	struct filling *f = arg;

	return put(f->e, file, f->fd, name, f->r, f->depth);
}

static int put_folder(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name,
		      struct lb_restore *r, unsigned int depth)
{
	struct filling f = {.e = e, .fd = -1, .r = r, .depth = depth + 1};
	_cleanup_close_ int fd = -1;
	int code;

	if (mkdirat(folder_fd, name, 0700) < 0 && (errno != EEXIST || !r->force))
		return failed("make", name);
	fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return failed("open", name);
	f.fd = fd;
	code = lb_ext_list(e, file, put_entry, &f);
	if (code < 0)
		return lb_wrap(code, "in %s", name);
	r->folders++;
	return set_owner_mode_time(fd, file, name);
}

static int put(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name, struct lb_restore *r,
	       unsigned int depth)
{
	if (depth > DEPTH_MAX)
		return lb_fail(-ELOOP, "folders are nested deeper than %d at %s", DEPTH_MAX, name);
	if (r->files + r->folders + r->left_out >= FILES_MAX)
		return lb_fail(-EOVERFLOW, "more than %u files; export the disk instead", FILES_MAX);
	if (S_ISREG(file->mode))
		return put_file(e, file, folder_fd, name, r);
	if (S_ISLNK(file->mode))
		return put_link(e, file, folder_fd, name, r);
	if (S_ISDIR(file->mode))
		return put_folder(e, file, folder_fd, name, r, depth);
	r->left_out++;
	return 0;
}

int lb_restore(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name, struct lb_restore *r)
{
	if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strchr(name, '/') != NULL)
		return lb_fail(-EINVAL, "\"%.60s\" is no name for a file", name);
	return put(e, file, folder_fd, name, r, 0);
}
