/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A new certificate for the same key before the old one ends. Clients and servers made before keep the old one. */
#include <jansson.h>

#include "base/env.h"
#include "wire/client.h"

#define LB_RENEW_RETRY_S 3600

/*
 * Asks `url` for a new certificate when two thirds of the life of the one in `identity_folder` are over; NULL is
 * returned before that. `hardware`: what a machine's certificate is bound to, or NULL.
 */
int lb_renew_ask(struct lb_env *env, struct lb_http_client *client, const char *identity_folder, const char *url,
		 const char *hardware, json_t **ret_reply);
/* Proves that what came is ours, for our key, from the CA that we know, and writes it. */
int lb_renew_keep(struct lb_env *env, const char *identity_folder, const json_t *reply);
