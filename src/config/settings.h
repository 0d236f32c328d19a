/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* config.conf: what the configuration server is told at its start. Plain values, read once. */
#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"

#define LB_SETTINGS_PATH "/etc/lifeboat/config.conf"
#define LB_PUBLIC_HOSTS_MAX 16

#define LB_PROCESS_LOST_S_DEFAULT 120
#define LB_PROCESS_LOST_S_MIN 15 /* three of its reports */
#define LB_TEMPORARY_PORT_DEFAULT 9444
#define LB_DOUBLE_HOST_DEFAULT "10.0.2.2" /* this host, for guests on user-mode networking */

struct lb_settings {
	char *address; /* to listen on, of both servers */
	uint64_t port;
	char *state_folder;    /* certificates, database */
	char *public_host;     /* names and addresses by which machines reach this host, by comma */
	char *vault;           /* store URL */
	char *passphrase_file; /* NULL: $CREDENTIALS_DIRECTORY/vault-passphrase */
	bool process_server;   /* start one here */
	bool target_server;    /* likewise */
	char *target_program;  /* as process_program */
	uint64_t process_port;
	char *process_cache_folder;
	uint64_t process_cache_bytes_max;
	uint64_t process_lost_s; /* a process server that is silent for so long loses its machines to others */
	char *process_program;   /* NULL: beside this program, or on the path */
	char *agent_package;     /* of push installs; NULL: the process server's default */
	char *vm_folder;
	char *fabric;
	char *double_host;       /* by which doubles reach this host; NULL: public_host, or user-mode networking's */
	uint64_t temporary_port; /* of the process server that doubles replicate back through; 0: a free one */
	char *hook_folder;       /* scripts of the administrator (fabric/hook.h) */
	uint64_t hook_timeout_s; /* of those that a live failover runs */
	char *hosts[LB_PUBLIC_HOSTS_MAX]; /* of public_host */
	unsigned int n_hosts;
};

/* Free with lb_settings_free(), also after a failure. */
int lb_settings_read(struct lb_env *env, const char *path, struct lb_settings *ret_settings);
void lb_settings_free(struct lb_settings *s); /* for _cleanup_() */
/* Splits and checks a list of host names and addresses. */
int lb_hosts_split(const char *list, char *hosts[LB_PUBLIC_HOSTS_MAX], unsigned int *ret_n);
bool lb_host_is_address(const char *host);
/* By which a double on user-mode networking reaches this host. */
const char *lb_double_host(const struct lb_settings *s);
