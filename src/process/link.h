/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The link to the configuration server: every LB_LINK_INTERVAL_S the configuration is read and a report is sent. While
 * it is away the last good configuration stands, in memory only: keys never rest here. Our certificate is renewed when
 * two thirds of its life are over, looked at every LB_RENEW_RETRY_S.
 */
#include "process/ports.h"
#include "process/process.h"
#include "process/pushes.h"
#include "wire/renew.h"

#define LB_LINK_INTERVAL_S 2
#define LB_LINK_TIMEOUT_S 20

struct lb_link {
	struct lb_process *process;
	struct lb_pushes *pushes; /* the caller's, or NULL: orders of push installs are left */
	struct lb_http_client *client;
	char *url;
	char *identity_folder;
	int64_t renew_due_ns;         /* monotonic */
	bool down, refused, outdated; /* said already */
	int stop_fd;
	pthread_t thread;
	bool running;
	struct lb_ports *ports; /* the caller's; NULL: they never change */
};

/* One round: 0 when a configuration was taken. */
int lb_link_round(struct lb_link *link);
int lb_link_start(struct lb_process *p, const char *config_url, const char *identity_folder, struct lb_ports *ports,
		  struct lb_pushes *pushes, struct lb_link *ret_link);
void lb_link_stop(struct lb_link *link);
