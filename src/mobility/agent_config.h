/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the configuration server asks of this machine (GET /v1/agent/config), and the agent's own settings file.
 * The last answer is kept in the state folder, so that protection goes on while the configuration server is away.
 * Plain values; nothing is shared between threads.
 */
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/env.h"
#include "base/text.h"
#include "capture/abi.h"
#include "mobility/group.h"
#include "mobility/mend_order.h"
#include "wire/policy.h"

#define LB_AGENT_TEXT_BYTES 256
#define LB_AGENT_CONFIG_BYTES_MAX (64u << 10)
#define LB_AGENT_CONFIG_NAME "agent.json" /* the last answer, in the state folder */

struct lb_agent_disk {
	uint16_t id; /* in the machine's catalog entry: what segments carry */
	char name[64];
	char path[LB_AGENT_TEXT_BYTES];
	char serial[LB_AGENT_TEXT_BYTES]; /* empty: the disk has none */
	uint64_t size_bytes;              /* 0: not known yet */
};

struct lb_agent_config {
	struct lb_uuid machine;
	struct lb_uuid vault;
	bool enabled;
	char process_url[LB_AGENT_TEXT_BYTES]; /* without a slash at its end */
	struct lb_agent_disk disks[LB_CAPTURE_DISKS_MAX];
	unsigned int n_disks;
	struct lb_policy policy;
	uint64_t resync_generation;   /* a rise asks for a resync */
	uint64_t point_generation;    /* a point is asked for; 0: none is */
	bool point_app;               /* ... an application-consistent one */
	int64_t check_ns;             /* another value asks for the readiness to be looked at now */
	struct lb_mend_order mend;    /* what is to be mended here */
	struct lb_group_roster group; /* all zeroes: in none */
};

/* -EBADMSG or -EINVAL with a text that names the member. */
int lb_agent_config_parse(const json_t *object, struct lb_agent_config *ret_config);
/* The last answer as it was kept; -ENOENT when none was. */
int lb_agent_config_load(struct lb_env *env, const char *state_folder, struct lb_agent_config *ret_config);
/* Keeps `object` when it differs from what is kept. */
int lb_agent_config_save(struct lb_env *env, const char *state_folder, const json_t *object);

/* mobility.conf. Free with lb_agent_settings_free(). */
struct lb_agent_settings {
	char *config_url;      /* without a slash at its end */
	char *identity_folder; /* key.pem, cert.pem, ca.pem */
	char *capture_socket;
	char *state_folder;
	char *run_folder;    /* on tmpfs: what outlives the agent but not the boot */
	char *mend_folder;   /* root's: the outcomes of mend_order.h */
	char *name;          /* NULL: the host's */
	char *group_address; /* on which members of a replication group are heard */
	char *group_host;    /* where they reach this machine; NULL: where it speaks to the configuration server from */
	uint64_t group_port;
};

#define LB_AGENT_SETTINGS_PATH "/etc/lifeboat/mobility.conf"

int lb_agent_settings_read(struct lb_env *env, const char *path, struct lb_agent_settings *ret_settings);
void lb_agent_settings_free(struct lb_agent_settings *settings);
