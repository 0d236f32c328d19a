/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* /etc/lifeboat/target.conf */
#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"

#define LB_TARGET_SETTINGS_PATH "/etc/lifeboat/target.conf"
#define LB_TARGET_MACHINES_MAX 32 /* at once, at most; each takes some 200 MiB */

struct lb_target_settings {
	char *config_url;        /* required: https://host */
	char *identity_folder;   /* default /var/lib/lifeboat/target/identity */
	char *state_folder;      /* records and undo files; default /var/lib/lifeboat/target */
	char *vault;             /* instead of what the configuration server says */
	char *allow;             /* paths that may be written, by comma, with * and ?; NULL: any */
	char *hook_folder;       /* scripts of the administrator; default /etc/lifeboat/hooks */
	uint64_t machines_max;   /* at once; default 4 */
	uint64_t undo_bytes_max; /* of points of its own, whatever orders say; 0: none are kept */
};

int lb_target_settings_read(struct lb_env *env, const char *path, struct lb_target_settings *ret_settings);
void lb_target_settings_free(struct lb_target_settings *s); /* for _cleanup_() */
/* -EPERM when `allow` has no pattern for it. */
int lb_target_settings_allow(const struct lb_target_settings *s, const char *path);
