/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What is made here by root, and belongs to the service's user, under which the units run the servers. Nothing is done
 * where this isn't root or there is no such user (the package makes it).
 */
#include <stdbool.h>

#include "base/env.h"

#define CLI_ETC_FOLDER "/etc/lifeboat" /* where the units look */
#define CLI_ADMIN_FOLDER CLI_ETC_FOLDER "/admin"
#define CLI_PROCESS_FOLDER "/var/lib/lifeboat/process"
#define CLI_PROCESS_CONF CLI_ETC_FOLDER "/process.conf"

/* Gives the user what root owns of a folder and below it; no link is followed. -ENOENT is fine. */
int cli_service_give(const char *folder);
/* The same with a vault, if it is a folder; one that is the user's already isn't gone through. */
int cli_service_give_vault(const char *url);
/*
 * Has systemd hand the file over to lifeboat-config as a credential: the user can't read what only root may. A drop-in
 * that is there stays.
 */
int cli_service_passphrase(struct lb_env *env, const char *file);
