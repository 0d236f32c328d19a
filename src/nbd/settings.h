/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the plugin is told on nbdkit's command line, and the disk that it means. */
#include "fabric/secret.h"
#include "vault/image.h"

#define LB_NBD_CACHE_BYTES_MIN (1u << 20)
#define LB_NBD_CACHE_BYTES_MAX (4096u << 20)

struct lb_nbd_settings {
	char *vault_url, *passphrase_file, *key_file, *machine, *point, *disk;
	bool lost_as_zeroes; /* what a damaged point lost */
	int disk_id;         /* -1: by `disk`, or the one that boots */
	uint64_t cache_bytes;
};

/* -EINVAL with a text for an unknown key or value. */
int lb_nbd_setting(struct lb_nbd_settings *s, const char *key, const char *value);
int lb_nbd_settings_complete(const struct lb_nbd_settings *s);
void lb_nbd_settings_clear(struct lb_nbd_settings *s);

struct lb_nbd_disk {
	struct lb_store *store;
	struct lb_vault *vault;
	struct lb_image *image;
	struct lb_catalog_disk disk;
	struct lb_point point;
	char machine_name[LB_MACHINE_NAME_BYTES];
};

/* Everything that can be wrong is found here: secret, machine, point, disk. */
int lb_nbd_disk_open(struct lb_env *env, const struct lb_nbd_settings *s, struct lb_nbd_disk *ret_disk);
void lb_nbd_disk_close(struct lb_nbd_disk *d);
