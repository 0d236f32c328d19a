/* SPDX-License-Identifier: Apache-2.0 */
#include "base/env.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define UNUSED __attribute__((unused))

static int or_errno(int r)
{
	return r < 0 ? -errno : r;
}

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * LB_NS_PER_S + ts.tv_nsec;
}

static int64_t real_now_ns(UNUSED struct lb_env *env)
{
	return clock_ns(CLOCK_REALTIME);
}

static int64_t real_mono_ns(UNUSED struct lb_env *env)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static int real_wait_until(UNUSED struct lb_env *env, int64_t mono_ns, int wake_fd)
{
	struct pollfd p = {.fd = wake_fd, .events = POLLIN};
	int64_t left_ns = mono_ns - clock_ns(CLOCK_MONOTONIC);
	struct timespec ts;

	if (left_ns < 0)
		left_ns = 0;
	ts.tv_sec = left_ns / LB_NS_PER_S;
	ts.tv_nsec = left_ns % LB_NS_PER_S;
	if (ppoll(&p, wake_fd >= 0 ? 1 : 0, &ts, NULL) < 0 && errno != EINTR)
		return -errno;
	return 0;
}

static int real_random(UNUSED struct lb_env *env, void *buf, size_t size_bytes)
{
	uint8_t *p = buf;

	while (size_bytes > 0) {
		ssize_t n = getrandom(p, size_bytes, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		size_bytes -= (size_t)n;
	}
	return 0;
}

static int real_open(UNUSED struct lb_env *env, const char *path, int flags, mode_t mode)
{
	return or_errno(open(path, flags | O_CLOEXEC, mode));
}

static int real_close(UNUSED struct lb_env *env, int fd)
{
	return or_errno(close(fd));
}

static ssize_t real_pread(UNUSED struct lb_env *env, int fd, void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	ssize_t n;

	do {
		n = pread(fd, buf, size_bytes, (off_t)offset_bytes);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static ssize_t real_pwrite(UNUSED struct lb_env *env, int fd, const void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	ssize_t n;

	do {
		n = pwrite(fd, buf, size_bytes, (off_t)offset_bytes);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int real_fsync(UNUSED struct lb_env *env, int fd)
{
	return or_errno(fsync(fd));
}

static int real_ftruncate(UNUSED struct lb_env *env, int fd, uint64_t size_bytes)
{
	return or_errno(ftruncate(fd, (off_t)size_bytes));
}

static int real_size(UNUSED struct lb_env *env, int fd, uint64_t *ret_size_bytes)
{
	/* seeking tells the size of files and of block devices alike */
	off_t end = lseek(fd, 0, SEEK_END);

	if (end < 0)
		return -errno;
	*ret_size_bytes = (uint64_t)end;
	return 0;
}

static int real_rename(UNUSED struct lb_env *env, const char *from, const char *to)
{
	return or_errno(rename(from, to));
}

static int real_link(UNUSED struct lb_env *env, const char *from, const char *to)
{
	int r = or_errno(link(from, to));

	/* FAT, on sticks, has no links */
	return r == -EPERM || r == -EOPNOTSUPP ? or_errno(renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE))
					       : r;
}

static int real_unlink(UNUSED struct lb_env *env, const char *path)
{
	return or_errno(unlink(path));
}

static int real_mkdir(UNUSED struct lb_env *env, const char *path, mode_t mode)
{
	return or_errno(mkdir(path, mode));
}

static void closedirp(DIR **dir)
{
	if (*dir != NULL)
		closedir(*dir);
}

static int real_list(UNUSED struct lb_env *env, const char *path, lb_dir_entry_fn fn, void *arg)
{
	_cleanup_(closedirp) DIR *dir = opendir(path);
	struct dirent *entry;
	struct stat st;
	int r;

	if (dir == NULL)
		return -errno;
	while (errno = 0, (entry = readdir(dir)) != NULL) {
		bool is_dir = entry->d_type == DT_DIR;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (entry->d_type == DT_UNKNOWN && fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			is_dir = S_ISDIR(st.st_mode);
		r = fn(arg, entry->d_name, is_dir);
		if (r != 0)
			return r;
	}
	return -errno;
}

static int real_room(UNUSED struct lb_env *env, const char *path, uint64_t *ret_free_bytes, uint64_t *ret_size_bytes)
{
	struct statvfs v;

	if (statvfs(path, &v) < 0)
		return -errno;
	*ret_free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
	*ret_size_bytes = (uint64_t)v.f_blocks * v.f_frsize;
	return 0;
}

static int real_lock(UNUSED struct lb_env *env, int fd)
{
	return or_errno(flock(fd, LOCK_EX | LOCK_NB));
}

static const struct lb_env_ops real_ops = {
	.now_ns = real_now_ns,
	.mono_ns = real_mono_ns,
	.wait_until = real_wait_until,
	.random = real_random,
	.open = real_open,
	.close = real_close,
	.pread = real_pread,
	.pwrite = real_pwrite,
	.fsync = real_fsync,
	.ftruncate = real_ftruncate,
	.size = real_size,
	.rename = real_rename,
	.link = real_link,
	.unlink = real_unlink,
	.mkdir = real_mkdir,
	.list = real_list,
	.room = real_room,
	.lock = real_lock,
};

struct lb_env *lb_env_real(void)
{
	static struct lb_env env = {.ops = &real_ops};

	return &env;
}
