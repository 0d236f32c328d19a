/* SPDX-License-Identifier: Apache-2.0 */
#include "files/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/err.h"
#include "files/restore_parts.h"

#define PERMISSIONS 01777
#define ZERO_STEP_BYTES 4096

static int put(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name, struct lb_restore *r,
	       unsigned int depth);

int lb_restore_failed(const char *act, const char *name)
{
	int code = -errno;

	if (code == -EEXIST)
		return lb_fail(code, "%s is there already; nothing is overwritten without --force", name);
	return lb_fail(code, "can't %s %s: %s", act, name, strerror(-code));
}

int lb_restore_attributes(int fd, const struct lb_ext_file *file, const char *name)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = file->mtime_s, .tv_nsec = file->mtime_ns}};

	if (geteuid() == 0 && fchown(fd, file->uid, file->gid) < 0)
		return lb_restore_failed("give its owner to", name);
	if (fchmod(fd, file->mode & PERMISSIONS) < 0)
		return lb_restore_failed("give its permissions to", name);
	if (futimens(fd, times) < 0)
		return lb_restore_failed("give its time to", name);
	return 0;
}

/* ---- files ---- */

static bool is_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

int lb_restore_file_write(int fd, const void *data, size_t size_bytes, uint64_t offset_bytes)
{
	const uint8_t *p = data;

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

static int write_piece(void *arg, const void *data, size_t size_bytes, uint64_t offset_bytes)
{
	return lb_restore_file_write(*(int *)arg, data, size_bytes, offset_bytes);
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
		return lb_restore_failed("make", name);
	temporary_name(other);
	if (linkat(AT_FDCWD, path, folder_fd, other, AT_SYMLINK_FOLLOW) < 0)
		return lb_restore_failed("make", other);
	if (renameat(folder_fd, other, folder_fd, name) < 0) {
		int r = lb_restore_failed("replace", name);

		unlinkat(folder_fd, other, 0);
		return r;
	}
	return 0;
}

int lb_restore_file_open(int folder_fd, const char *name, const struct lb_restore *r, int *ret_fd)
{
	_cleanup_close_ int fd = openat(folder_fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	struct stat st;

	if (fd < 0)
		return lb_fail(-errno,
			       "can't make a file for %s: %s (its filesystem needs O_TMPFILE, as ext4, xfs, btrfs "
			       "and tmpfs have it)",
			       name, strerror(errno));
	if (!r->force && fstatat(folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) { /* before all the reading */
		errno = EEXIST;
		return lb_restore_failed("make", name);
	}
	*ret_fd = lb_steal_fd(fd);
	return 0;
}

int lb_restore_file_finish(int fd, const struct lb_ext_file *file, int folder_fd, const char *name,
			   struct lb_restore *r)
{
	int code;

	if (ftruncate(fd, (off_t)file->size_bytes) < 0)
		return lb_restore_failed("give its size to", name);
	code = lb_restore_attributes(fd, file, name);
	if (code == 0 && fsync(fd) < 0)
		code = lb_restore_failed("write", name);
	if (code == 0)
		code = link_file(fd, folder_fd, name, r->force);
	if (code < 0)
		return code;
	r->files++;
	r->bytes += file->size_bytes;
	return 0;
}

static int put_file(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name,
		    struct lb_restore *r)
{
	_cleanup_close_ int fd = -1;
	int code;

	code = lb_restore_file_open(folder_fd, name, r, &fd);
	if (code < 0)
		return code;
	code = lb_ext_read(e, file, write_piece, &fd);
	if (code < 0)
		return lb_wrap(code, "%s", name);
	return lb_restore_file_finish(fd, file, folder_fd, name, r);
}

/* ---- links ---- */

/* What was made under another name takes the place of what is there. */
static int replace(int folder_fd, const char *other, const char *name)
{
	int code = 0;

	if (renameat(folder_fd, other, folder_fd, name) < 0) {
		code = lb_restore_failed("replace", name);
		unlinkat(folder_fd, other, 0);
	}
	return code;
}

int lb_restore_symlink(const char *target, const struct lb_ext_file *file, int folder_fd, const char *name,
		       struct lb_restore *r)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = file->mtime_s, .tv_nsec = file->mtime_ns}};
	char other[64];
	int code;

	temporary_name(other);
	if (symlinkat(target, folder_fd, r->force ? other : name) < 0)
		return lb_restore_failed("make", name);
	code = r->force ? replace(folder_fd, other, name) : 0;
	if (code < 0)
		return code;
	if (geteuid() == 0 && fchownat(folder_fd, name, file->uid, file->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return lb_restore_failed("give its owner to", name);
	if (utimensat(folder_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return lb_restore_failed("give its time to", name);
	r->files++;
	return 0;
}

int lb_restore_hard_link(int from_fd, const char *from, int folder_fd, const char *name, struct lb_restore *r)
{
	char other[64];
	int code = 0;

	temporary_name(other);
	if (linkat(from_fd, from, folder_fd, r->force ? other : name, 0) < 0)
		return lb_restore_failed("make", name);
	if (r->force)
		code = replace(folder_fd, other, name);
	r->files += code == 0;
	return code;
}

static int put_link(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name,
		    struct lb_restore *r)
{
	char target[LB_EXT_LINK_BYTES];
	int code = lb_ext_readlink(e, file, target);

	return code < 0 ? lb_wrap(code, "%s", name) : lb_restore_symlink(target, file, folder_fd, name, r);
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

int lb_restore_folder_open(int folder_fd, const char *name, const struct lb_restore *r, int *ret_fd)
{
	int fd;

	if (mkdirat(folder_fd, name, 0700) < 0 && (errno != EEXIST || !r->force))
		return lb_restore_failed("make", name);
	fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return lb_restore_failed("open", name);
	*ret_fd = fd;
	return 0;
}

int lb_restore_check(const struct lb_restore *r, const char *name, unsigned int depth)
{
	if (depth > LB_RESTORE_DEPTH_MAX)
		return lb_fail(-ELOOP, "folders are nested deeper than %d at %s", LB_RESTORE_DEPTH_MAX, name);
	if (r->files + r->folders + r->left_out >= LB_RESTORE_FILES_MAX)
		return lb_fail(-EOVERFLOW, "more than %u files; export the disk instead", LB_RESTORE_FILES_MAX);
	return 0;
}

static int put_folder(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name,
		      struct lb_restore *r, unsigned int depth)
{
	struct filling f = {.e = e, .fd = -1, .r = r, .depth = depth + 1};
	_cleanup_close_ int fd = -1;
	int code;

	code = lb_restore_folder_open(folder_fd, name, r, &fd);
	if (code < 0)
		return code;
	f.fd = fd;
	code = lb_ext_list(e, file, put_entry, &f);
	if (code < 0)
		return lb_wrap(code, "in %s", name);
	r->folders++;
	return lb_restore_attributes(fd, file, name);
}

static int put(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name, struct lb_restore *r,
	       unsigned int depth)
{
	int code = lb_restore_check(r, name, depth);

	if (code < 0)
		return code;
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
