/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/mounts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/err.h"

#define LINE_BYTES 4096
#define PATH_BYTES 512

/* Blanks and backslashes of paths stand as \\040 and the like. */
static void unescape(char *path)
{
	char *out = path;

	for (const char *in = path; *in != '\0'; in++) {
		if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' && in[3] >= '0' &&
		    in[3] <= '7') {
			*out++ = (char)((in[1] - '0') << 6 | (in[2] - '0') << 3 | (in[3] - '0'));
			in += 3;
		} else {
			*out++ = *in;
		}
	}
	*out = '\0';
}

/* A line of mountinfo; filesystems with device numbers of their own (btrfs) are asked by their source. */
static bool parse_line(const char *line, struct lb_mount *ret_mount, bool *ret_writable)
{
	char point[LINE_BYTES], source[LINE_BYTES] = "", super[LINE_BYTES] = "";
	const char *rest = strstr(line, " - ");
	struct lb_mount m = {0};
	struct stat st;

	if (rest == NULL || sscanf(line, "%*u %*u %u:%u %*s %4095s", &m.major, &m.minor, point) != 3 ||
	    sscanf(rest, " - %31s %4095s %4095s", m.type, source, super) < 2)
		return false;
	if (m.major == 0 && source[0] == '/' && stat(source, &st) == 0 && S_ISBLK(st.st_mode)) {
		m.major = major(st.st_rdev);
		m.minor = minor(st.st_rdev);
	}
	unescape(point);
	if (m.major == 0 || (size_t)snprintf(m.path, sizeof(m.path), "%s", point) >= sizeof(m.path))
		return false;
	*ret_mount = m;
	*ret_writable = strncmp(super, "ro", 2) != 0 || (super[2] != ',' && super[2] != '\0');
	return true;
}

static FILE *open_mountinfo(const char *root)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/proc/self/mountinfo", root);
	return fopen(path, "re");
}

/* The device number of what is mounted at `where`. */
static bool device_of(const char *root, const char *where, unsigned int *ret_major, unsigned int *ret_minor)
{
	_cleanup_fclose_ FILE *f = open_mountinfo(root);
	char line[LINE_BYTES];
	bool found = false;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		struct lb_mount m;
		bool writable;

		if (!parse_line(line, &m, &writable) || strcmp(m.path, where) != 0)
			continue;
		/* the last one mounted there is what one sees */
		found = true;
		*ret_major = m.major;
		*ret_minor = m.minor;
	}
	return found;
}

struct slaves {
	struct lb_env *env;
	const char *disk;
	char path[PATH_BYTES];
	unsigned int depth;
};

static bool rests_on(struct slaves *s);

static int look_at_slave(void *arg, const char *name, bool is_dir)
{
	const struct slaves *above = arg;
	struct slaves below = {.env = above->env, .disk = above->disk, .depth = above->depth + 1};

	(void)is_dir;
	if ((size_t)snprintf(below.path, sizeof(below.path), "%s/slaves/%s", above->path, name) >= sizeof(below.path))
		return 0;
	return rests_on(&below);
}

/* `path` is the folder of a block device in /sys, by whatever links. */
static bool rests_on(struct slaves *s)
{
	_cleanup_free_ char *real = realpath(s->path, NULL);
	char *slash = real != NULL ? strrchr(real, '/') : NULL;
	char partition[PATH_BYTES];
	struct stat st;

	if (slash == NULL || s->depth > LB_MOUNTS_DEPTH_MAX)
		return false;
	snprintf(partition, sizeof(partition), "%.500s/partition", real);
	if (stat(partition, &st) == 0) {
		*slash = '\0';
		slash = strrchr(real, '/');
	}
	if (slash != NULL && strcmp(slash + 1, s->disk) == 0)
		return true;
	return s->env->ops->list(s->env, (snprintf(partition, sizeof(partition), "%.500s/slaves", s->path), partition),
				 look_at_slave, s) == 1;
}

bool lb_mounts_on_disk(struct lb_env *env, const char *root, const char *disk, const char *where)
{
	struct slaves s = {.env = env, .disk = disk};
	unsigned int major_nr, minor_nr;

	if (!device_of(root, where, &major_nr, &minor_nr))
		return false;
	snprintf(s.path, sizeof(s.path), "%s/sys/dev/block/%u:%u", root, major_nr, minor_nr);
	return rests_on(&s);
}

static bool on_any(struct lb_env *env, const char *root, const struct lb_mount *m, const char *const *disks, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct slaves s = {.env = env, .disk = disks[i]};

		snprintf(s.path, sizeof(s.path), "%s/sys/dev/block/%u:%u", root, m->major, m->minor);
		if (rests_on(&s))
			return true;
	}
	return false;
}

static bool is_known(const struct lb_mount *mounts, size_t n, const struct lb_mount *m)
{
	for (size_t i = 0; i < n; i++)
		if (mounts[i].major == m->major && mounts[i].minor == m->minor)
			return true;
	return false;
}

static void reverse(struct lb_mount *mounts, size_t n)
{
	for (size_t i = 0; i < n / 2; i++) {
		struct lb_mount m = mounts[i];

		mounts[i] = mounts[n - 1 - i];
		mounts[n - 1 - i] = m;
	}
}

int lb_mounts_of_disks(struct lb_env *env, const char *root, const char *const *disks, size_t n_disks,
		       struct lb_mount *ret_mounts, size_t max, size_t *ret_n)
{
	_cleanup_fclose_ FILE *f = open_mountinfo(root);
	char line[LINE_BYTES];
	size_t n = 0;

	if (f == NULL)
		return lb_fail(-errno, "%s/proc/self/mountinfo: %s", root, strerror(errno));
	while (fgets(line, sizeof(line), f) != NULL) {
		struct lb_mount m;
		bool writable;

		if (!parse_line(line, &m, &writable) || !writable || is_known(ret_mounts, n, &m) ||
		    !on_any(env, root, &m, disks, n_disks))
			continue;
		if (n == max)
			return lb_fail(-E2BIG, "more than %zu filesystems rest on the protected disks", max);
		ret_mounts[n++] = m;
	}
	reverse(ret_mounts, n);
	*ret_n = n;
	return 0;
}
