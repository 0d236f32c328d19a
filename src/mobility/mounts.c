/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/mounts.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"

#define LINE_BYTES 4096
#define PATH_BYTES 512

/* The device number of what is mounted at `where`; filesystems with numbers of their own (btrfs) are asked by source.
 */
static bool device_of(const char *root, const char *where, unsigned int *ret_major, unsigned int *ret_minor)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[PATH_BYTES], line[LINE_BYTES];
	bool found = false;

	snprintf(path, sizeof(path), "%s/proc/self/mountinfo", root);
	f = fopen(path, "re");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		char point[LINE_BYTES], source[LINE_BYTES] = "";
		unsigned int major_nr, minor_nr;
		const char *rest = strstr(line, " - ");
		struct stat st;

		if (rest == NULL || sscanf(line, "%*u %*u %u:%u %*s %4095s", &major_nr, &minor_nr, point) != 3 ||
		    strcmp(point, where) != 0)
			continue;
		if (major_nr == 0 && sscanf(rest, " - %*s %4095s", source) == 1 && source[0] == '/' &&
		    stat(source, &st) == 0 && S_ISBLK(st.st_mode)) {
			major_nr = major(st.st_rdev);
			minor_nr = minor(st.st_rdev);
		}
		/* the last one mounted there is what one sees */
		found = major_nr != 0;
		*ret_major = major_nr;
		*ret_minor = minor_nr;
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
