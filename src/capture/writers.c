/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes have a disk open for writing as a device: a freeze of filesystems doesn't stop them. Swap and what
 * the kernel itself stacks on a disk have no open file in any process.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/err.h"
#include "base/text.h"
#include "capture/internal.h"
#include "capture/runner.h"

#define PATH_BYTES 512
#define DEPTH_MAX 8 /* of partitions, volumes and arrays on top of one another */

static bool names_disk(const char *name, const char *const *disks, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(name, disks[i]) == 0)
			return true;
	return false;
}

/* Whether the block device of that folder in /sys is one of the disks or rests on one. */
static bool rests_on(const char *folder, const char *const *disks, size_t n, unsigned int depth)
{
	_cleanup_free_ char *real = realpath(folder, NULL);
	char path[PATH_BYTES];
	struct dirent *e;
	struct stat st;
	bool found = false;
	char *slash;
	DIR *d;

	if (real == NULL || depth > DEPTH_MAX)
		return false;
	slash = strrchr(real, '/');
	snprintf(path, sizeof(path), "%.480s/partition", real);
	if (stat(path, &st) == 0) {
		*slash = '\0';
		slash = strrchr(real, '/');
	}
	if (slash != NULL && names_disk(slash + 1, disks, n))
		return true;
	snprintf(path, sizeof(path), "%.480s/slaves", folder);
	d = opendir(path);
	while (d != NULL && !found && (e = readdir(d)) != NULL) {
		char below[PATH_BYTES];

		if (e->d_name[0] == '.')
			continue;
		if ((size_t)snprintf(below, sizeof(below), "%.300s/%.200s", path, e->d_name) < sizeof(below))
			found = rests_on(below, disks, n, depth + 1);
	}
	if (d != NULL)
		closedir(d);
	return found;
}

static bool open_for_writing(int proc, const char *pid, const char *fd)
{
	char path[PATH_BYTES], text[256];
	const char *flags;
	ssize_t n;
	int f;

	snprintf(path, sizeof(path), "%s/fdinfo/%s", pid, fd);
	f = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (f < 0)
		return false;
	n = read(f, text, sizeof(text) - 1);
	close(f);
	text[n > 0 ? n : 0] = '\0';
	flags = strstr(text, "flags:");
	return flags != NULL && (strtoul(flags + strlen("flags:"), NULL, 8) & O_ACCMODE) != O_RDONLY;
}

static void name_of(int proc, const char *pid, char name[32])
{
	char path[64];
	ssize_t n = 0;
	int f;

	snprintf(path, sizeof(path), "%.20s/comm", pid);
	f = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (f >= 0) {
		n = read(f, name, 31);
		close(f);
	}
	name[n > 0 ? n : 0] = '\0';
	name[strcspn(name, "\n")] = '\0';
}

static int look_at(int proc, const char *pid, const char *const *disks, size_t n)
{
	char path[PATH_BYTES], folder[PATH_BYTES], link[PATH_BYTES], name[32];
	struct dirent *e;
	struct stat st;
	int fd, r = 0;
	ssize_t length;
	DIR *d;

	snprintf(path, sizeof(path), "%.20s/fd", pid);
	fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd >= 0 ? fdopendir(fd) : NULL;
	if (d == NULL)
		return 0; /* it has ended */
	while (r == 0 && (e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.' || fstatat(fd, e->d_name, &st, 0) < 0 || !S_ISBLK(st.st_mode) ||
		    !open_for_writing(proc, pid, e->d_name))
			continue;
		snprintf(folder, sizeof(folder), "/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
		if (!rests_on(folder, disks, n, 0))
			continue;
		length = readlinkat(fd, e->d_name, link, sizeof(link) - 1);
		link[length > 0 ? length : 0] = '\0';
		name_of(proc, pid, name);
		r = lb_fail(
			-EBUSY,
			"process %s (%s) writes to %s as a device, past every filesystem: a freeze does not stop it",
			name, pid, link);
	}
	closedir(d);
	return r;
}

int lb_raw_writers_find(const char *const *disks, size_t disk_count)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	int r = 0;

	if (d == NULL)
		return lb_fail(-errno, "/proc: %s", strerror(errno));
	while (r == 0 && (e = readdir(d)) != NULL)
		if (isdigit((unsigned char)e->d_name[0]))
			r = look_at(dirfd(d), e->d_name, disks, disk_count);
	closedir(d);
	return r;
}
