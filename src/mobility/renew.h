/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A new certificate for the same key before the old one ends. One thread. */
#include <stdbool.h>

#include "base/env.h"
#include "mobility/agent_config.h"
#include "wire/renew.h"

/* 0, also when it isn't due; `ret_renewed` tells. Clients made before go on with the old one until they are made anew.
 */
int lb_renew_if_due(struct lb_env *env, struct lb_http_client *client, const struct lb_agent_settings *settings,
		    const char *hardware, bool *ret_renewed);
