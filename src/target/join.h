/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How a target server joins a site: by one command and a one-time token. Asked again with the same key, it is the same.
 */
#include "base/env.h"

struct lb_target_join {
	const char *name, *server_url, *ca_fingerprint, *token_file;
	const char *settings_path, *identity_folder, *state_folder; /* the last may be NULL */
};
/* Writes identity and settings. */
int lb_target_join(struct lb_env *env, const struct lb_target_join *join);
