/* SPDX-License-Identifier: Apache-2.0 */
#include "target/match.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"

#define DEVICES_MAX 256
#define TEXT_BYTES 900
#define SMALL_FILE_BYTES 256
#define SYS_SECTOR_BYTES 512

struct device {
	char name[32], serial[LB_DISK_NAME_BYTES];
	uint64_t size_bytes;
	bool taken, busy, removable;
};

struct devices {
	struct lb_env *env;
	const char *root;
	struct device d[DEVICES_MAX];
	uint32_t n;
};

static bool read_small(const struct devices *all, const char *name, const char *file, char *text, size_t size_bytes)
{
	_cleanup_free_ uint8_t *data = NULL;
	char path[PATH_MAX];
	size_t n;

	snprintf(path, sizeof(path), "%s/sys/block/%s/%s", all->root, name, file);
	if (lb_file_read(all->env, path, SMALL_FILE_BYTES, &data, &n) < 0)
		return false;
	snprintf(text, size_bytes, "%.*s", (int)strcspn((char *)data, " \n"), (char *)data);
	return text[0] != '\0';
}

/* What is made of other devices, or of memory, is no disk of a machine's. */
static bool is_disk(const char *name)
{
	static const char *const not [] = {"loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"};

	for (size_t i = 0; i < LB_ARRAY_LEN(not ); i++)
		if (strncmp(name, not [i], strlen(not [i])) == 0)
			return false;
	return true;
}

/* The medium that we started from, a stick with the settings: the kernel uses them itself. */
static bool is_busy(const struct devices *all, const char *name)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/dev/%s", all->root, name);
	fd = all->env->ops->open(all->env, path, O_RDONLY | O_EXCL | O_CLOEXEC, 0);
	if (fd >= 0)
		all->env->ops->close(all->env, fd);
	return fd == -EBUSY;
}

static int look(void *arg, const char *name, bool is_dir)
{
	struct devices *all = arg;
	struct device *d = &all->d[all->n];
	char text[SMALL_FILE_BYTES];
	uint64_t sectors;

	(void)is_dir;
	if (!is_disk(name) || strlen(name) >= sizeof(d->name) || all->n == DEVICES_MAX)
		return 0;
	if (read_small(all, name, "ro", text, sizeof(text)) && text[0] == '1')
		return 0;
	if (!read_small(all, name, "size", text, sizeof(text)) || lb_u64_parse(text, UINT64_MAX / 512, &sectors) < 0 ||
	    sectors == 0)
		return 0;
	*d = (struct device){.size_bytes = sectors * SYS_SECTOR_BYTES};
	memcpy(d->name, name, strlen(name));
	if (!read_small(all, name, "serial", d->serial, sizeof(d->serial)))
		read_small(all, name, "device/serial", d->serial, sizeof(d->serial));
	d->removable = read_small(all, name, "removable", text, sizeof(text)) && text[0] == '1';
	d->busy = is_busy(all, name);
	all->n++;
	return 0;
}

static void take(const struct devices *all, struct device *d, char path[LB_TARGET_DEVICE_BYTES])
{
	d->taken = true;
	snprintf(path, LB_TARGET_DEVICE_BYTES, "%.8s/dev/%s", all->root, d->name);
}

/* The only free device that suits; NULL when there is none, or more. */
static struct device *only(struct devices *all, const struct lb_catalog_disk *disk, bool exact)
{
	struct device *found = NULL;

	for (uint32_t i = 0; i < all->n; i++) {
		struct device *d = &all->d[i];

		if (d->taken || d->busy || d->removable ||
		    (exact ? d->size_bytes != disk->size_bytes : d->size_bytes < disk->size_bytes))
			continue;
		if (found != NULL)
			return NULL;
		found = d;
	}
	return found;
}

static int unclear(const struct devices *all, const struct lb_catalog_disk *disk)
{
	char there[TEXT_BYTES] = "", size[LB_SIZE_TEXT_BYTES];

	for (uint32_t i = 0; i < all->n; i++)
		snprintf(there + strlen(there), sizeof(there) - strlen(there), "%s/dev/%s (%s%s%s%s)",
			 i > 0 ? ", " : "", all->d[i].name, lb_size_format(all->d[i].size_bytes, size),
			 all->d[i].serial[0] != '\0' ? ", serial " : "", all->d[i].serial,
			 all->d[i].busy ? ", in use" : (all->d[i].removable ? ", removable" : ""));
	return lb_fail(-ENOENT, "which device is disk %s (%s%s%s)? Say so with --to. There are: %s", disk->name,
		       lb_size_format(disk->size_bytes, size), disk->serial[0] != '\0' ? ", serial " : "", disk->serial,
		       there[0] != '\0' ? there : "none");
}

static int match(struct devices *all, const struct lb_catalog_item *item, struct lb_target_match *m)
{
	uint32_t left = item->n_disks;

	for (uint32_t i = 0; i < item->n_disks; i++)
		for (uint32_t k = 0; item->disks[i].serial[0] != '\0' && k < all->n; k++)
			if (!all->d[k].taken && m->path[i][0] == '\0' &&
			    strcmp(all->d[k].serial, item->disks[i].serial) == 0) {
				take(all, &all->d[k], m->path[i]);
				left--;
			}
	for (uint32_t i = 0; i < item->n_disks; i++) {
		struct device *d;

		if (m->path[i][0] != '\0')
			continue;
		d = only(all, &item->disks[i], true);
		if (d == NULL && left == 1)
			d = only(all, &item->disks[i], false);
		if (d == NULL)
			return unclear(all, &item->disks[i]);
		take(all, d, m->path[i]);
		left--;
	}
	return 0;
}

int lb_target_match(struct lb_env *env, const char *root, const struct lb_catalog_item *item,
		    struct lb_target_match *ret_match)
{
	_cleanup_free_ struct devices *all = calloc(1, sizeof(*all));
	_cleanup_free_ struct lb_target_match *m = calloc(1, sizeof(*m));
	char path[PATH_MAX];
	int r;

	if (all == NULL || m == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	all->env = env;
	all->root = root;
	snprintf(path, sizeof(path), "%s/sys/block", root);
	r = env->ops->list(env, path, look, all);
	r = r < 0 ? lb_fail(r, "can't list %s: %s", path, strerror(-r)) : match(all, item, m);
	if (r == 0)
		*ret_match = *m;
	return r;
}
