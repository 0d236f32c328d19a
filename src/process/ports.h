/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The ports on which agents are served: one, or two while they follow a change. The configuration server names them;
 * what it named first is remembered beside the identity for the next start. Used by one thread at a time.
 */
#include <jansson.h>

#include "base/err.h"
#include "wire/server.h"

#define LB_PORTS_MAX 2

struct lb_ports {
	struct lb_http_server_options options; /* the port is the settings' one */
	struct lb_env *env;
	struct lb_http_server *servers[LB_PORTS_MAX];
	unsigned int n;
	char error[LB_ERR_TEXT_BYTES_MAX]; /* why a port that was asked for isn't open, or empty */
};

/* Opens the port that was remembered for these settings, else the settings' own. */
int lb_ports_start(struct lb_env *env, const struct lb_http_server_options *options, struct lb_ports *ret_ports);
/* "ports" of a configuration, the one for agents first: opens what is missing, then closes what isn't named. */
void lb_ports_follow(struct lb_ports *ports, const json_t *config);
/* Sets "ports" and "port_error" in a report. */
int lb_ports_report(const struct lb_ports *ports, json_t *report);
/* A new certificate is in the identity folder. */
int lb_ports_reload(struct lb_ports *ports);
void lb_ports_stop(struct lb_ports *ports);
