/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* /etc/lifeboat/process.conf */
#include <stdint.h>

#include "base/env.h"

struct lb_settings {
	char *address;             /* default 0.0.0.0 */
	uint64_t port;             /* 9443; 0: any free one */
	char *config_url;          /* required: https://host */
	char *identity_folder;     /* default /var/lib/lifeboat/process */
	char *cache_folder;        /* default /var/lib/lifeboat/process/cache */
	uint64_t cache_bytes_max;  /* default 16G */
	char *vault;               /* instead of what the configuration server says */
	uint64_t uploads_max;      /* workers; default 4 */
	char *agent_package;       /* of push installs; default /usr/share/lifeboat/lifeboat-mobility.deb */
	uint64_t memory_bytes_max; /* for segments that are being taken in; default 256M */
};

#define LB_AGENT_PACKAGE_DEFAULT "/usr/share/lifeboat/lifeboat-mobility.deb"
#define LB_SETTINGS_PATH "/etc/lifeboat/process.conf"

int lb_settings_read(struct lb_env *env, const char *path, struct lb_settings *ret_settings);
void lb_settings_free(struct lb_settings *s); /* for _cleanup_() */
