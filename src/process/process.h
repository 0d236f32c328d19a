/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The process server without its sockets: machines, cache, vault and schedule. Handlers (api.h), workers (upload.h)
 * and the link to the configuration server (link.h) all work on one of these.
 */
#include "process/cache.h"
#include "process/compare.h"
#include "process/gate.h"
#include "process/machine.h"
#include "store/store.h"
#include "vault/vault.h"

#define LB_PROCESS_MACHINES_MAX 4096
#define LB_PROCESS_CONFIG_BYTES_MAX (16u << 20)

struct lb_process_options {
	const char *cache_folder;
	uint64_t cache_bytes_max;
	const char *vault_url;   /* instead of what the configuration server says; NULL or empty: as it says */
	uint64_t seal_bytes_max; /* plain bytes that are being sealed at once, at least one segment */
};

struct lb_process {
	struct lb_env *env;
	struct lb_process_cache cache;
	struct lb_gate gate;
	struct lb_compare compare;
	char *vault_url; /* override, or NULL */

	pthread_mutex_t lock; /* what follows */
	struct lb_machine *machines[LB_PROCESS_MACHINES_MAX];
	uint32_t n_machines;
	struct lb_uuid id; /* from the configuration server */
	/* both are set once, by lb_process_configure(), and then stay */
	struct lb_store *store;
	struct lb_vault *vault;
	struct lb_uuid *released; /* machines that moved to another process server */
	size_t n_released;
	bool configured; /* all machines of a configuration are here: who is not among them is a stranger */
	int wake_fd;     /* of the workers */
	bool stopping;
	int64_t beats_due_mono_ns;
	bool beats_busy;
	bool beats_failing; /* of the one worker that has them */
};

int lb_process_new(struct lb_env *env, const struct lb_process_options *options, struct lb_process **ret_process);
/* Nothing may run in it any more. */
void lb_process_free(struct lb_process *p);
LB_DEFINE_CLEANUP(struct lb_process *, lb_process_free);

/*
 * Takes what GET /v1/process/config answered. An entry that can't be understood leaves its machine as it was and is
 * logged; keys are wiped from `config` and from machines that are no longer assigned. On failure all stays as it was.
 */
int lb_process_configure(struct lb_process *p, json_t *config);

/* Before the first configuration there is no vault (NULL), and who is ours is unknown. */
struct lb_vault *lb_process_vault(struct lb_process *p);
bool lb_process_configured(struct lb_process *p);
