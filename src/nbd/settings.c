/* SPDX-License-Identifier: Apache-2.0 */
#include "nbd/settings.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"

#define DISKS_TEXT_BYTES 512

static int set_text(char **text, const char *value)
{
	free(*text);
	*text = strdup(value);
	return *text != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
}

/* nbdkit changes its folder later */
static int set_path(char **text, const char *value)
{
	if (value[0] == '/')
		return set_text(text, value);
	free(*text);
	*text = realpath(value, NULL);
	return *text != NULL ? 0 : lb_fail(-errno, "can't open %s: %s", value, strerror(errno));
}

static int set_cache(struct lb_nbd_settings *s, const char *value)
{
	uint64_t v;

	if (lb_size_parse(value, &v) < 0 || v < LB_NBD_CACHE_BYTES_MIN || v > LB_NBD_CACHE_BYTES_MAX)
		return lb_fail(-EINVAL, "cache must be a size from 1M to 4G, not \"%.40s\"", value);
	s->cache_bytes = v;
	return 0;
}

static int set_disk_id(struct lb_nbd_settings *s, const char *value)
{
	uint64_t v;

	if (lb_u64_parse(value, UINT16_MAX, &v) < 0)
		return lb_fail(-EINVAL, "disk-id must be a number, not \"%.40s\"", value);
	s->disk_id = (int)v;
	return 0;
}

int lb_nbd_setting(struct lb_nbd_settings *s, const char *key, const char *value)
{
	if (strcmp(key, "vault") == 0)
		return set_text(&s->vault_url, value);
	if (strcmp(key, "passphrase-file") == 0)
		return set_path(&s->passphrase_file, value);
	if (strcmp(key, "key-file") == 0)
		return set_path(&s->key_file, value);
	if (strcmp(key, "machine") == 0)
		return set_text(&s->machine, value);
	if (strcmp(key, "point") == 0)
		return set_text(&s->point, value);
	if (strcmp(key, "disk") == 0)
		return set_text(&s->disk, value);
	if (strcmp(key, "disk-id") == 0)
		return set_disk_id(s, value);
	if (strcmp(key, "cache") == 0)
		return set_cache(s, value);
	if (strcmp(key, "lost") == 0 && (strcmp(value, "zeroes") == 0 || strcmp(value, "refuse") == 0)) {
		s->lost_as_zeroes = value[0] == 'z';
		return 0;
	}
	return lb_fail(
		-EINVAL,
		"unknown parameter \"%.40s\"; there are: vault, passphrase-file, key-file, machine, point, disk, "
		"disk-id, cache, lost",
		key);
}

int lb_nbd_settings_complete(const struct lb_nbd_settings *s)
{
	if (s->vault_url == NULL)
		return lb_fail(-EINVAL,
			       "which vault? Give vault=dir:/path, vault=azure:ACCOUNT/CONTAINER or vault=s3:BUCKET");
	if (s->machine == NULL)
		return lb_fail(-EINVAL, "which machine? Give machine=NAME or machine=UUID");
	if ((s->passphrase_file == NULL) == (s->key_file == NULL))
		return lb_fail(-EINVAL, "give passphrase-file=FILE, or key-file=FILE with the machine's key");
	return 0;
}

void lb_nbd_settings_clear(struct lb_nbd_settings *s)
{
	free(s->vault_url);
	free(s->passphrase_file);
	free(s->key_file);
	free(s->machine);
	free(s->point);
	free(s->disk);
	*s = (struct lb_nbd_settings){.disk_id = -1};
}

/* ---- the disk that they mean ------------------------------------------------------------------------------ */

static bool is_meant(const struct lb_nbd_settings *s, const struct lb_catalog_disk *disk, bool by_name)
{
	uint64_t id;

	if (s->disk_id >= 0)
		return disk->id == s->disk_id;
	if (s->disk == NULL)
		return disk->boot;
	if (by_name)
		return strcmp(disk->name, s->disk) == 0;
	return lb_u64_parse(s->disk, UINT16_MAX, &id) == 0 && disk->id == id;
}

static int find_disk(const struct lb_nbd_settings *s, const struct lb_catalog_item *item,
		     struct lb_catalog_disk *ret_disk)
{
	char there[DISKS_TEXT_BYTES] = "";

	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i < item->n_disks; i++) {
			if (!is_meant(s, &item->disks[i], pass == 0))
				continue;
			*ret_disk = item->disks[i];
			return 0;
		}
	}
	if (s->disk == NULL && s->disk_id < 0 && item->n_disks == 1) {
		*ret_disk = item->disks[0];
		return 0;
	}
	for (uint32_t i = 0; i < item->n_disks; i++)
		snprintf(there + strlen(there), sizeof(there) - strlen(there), "%s%s (%u)", i > 0 ? ", " : "",
			 item->disks[i].name, item->disks[i].id);
	return lb_fail(-ENOENT, "which disk? Machine %s has: %s; give disk=NAME", item->name, there);
}

void lb_nbd_disk_close(struct lb_nbd_disk *d)
{
	if (d->image != NULL)
		lb_image_free(d->image);
	if (d->vault != NULL)
		lb_vault_free(d->vault);
	if (d->store != NULL)
		lb_store_free(d->store);
	*d = (struct lb_nbd_disk){0};
}

int lb_nbd_disk_open(struct lb_env *env, const struct lb_nbd_settings *s, struct lb_nbd_disk *ret_disk)
{
	struct lb_vault_secret secret = {.passphrase_file = s->passphrase_file, .key_file = s->key_file};
	_cleanup_(lb_nbd_disk_close) struct lb_nbd_disk d = {0};
	struct lb_catalog_item item;
	int r;

	r = lb_recovery_vault_open(env, s->vault_url, &secret, s->machine, &d.store, &d.vault);
	if (r == 0 && s->lost_as_zeroes)
		lb_vault_lost_as_zeroes(d.vault);
	r = r < 0 ? r : lb_catalog_find(d.vault, s->machine, &item);
	r = r < 0 ? r : find_disk(s, &item, &d.disk);
	r = r < 0 ? r : lb_point_find(d.vault, &item.machine, s->point != NULL ? s->point : "latest", &d.point);
	r = r < 0 ? r : lb_image_open(d.vault, &item.machine, &d.point.position, s->cache_bytes, &d.image);
	if (r < 0)
		return r;
	snprintf(d.machine_name, sizeof(d.machine_name), "%s", item.name);
	*ret_disk = d;
	d = (struct lb_nbd_disk){0};
	return 0;
}
