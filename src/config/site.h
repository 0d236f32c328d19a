/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the configuration server's parts stand on: settings, database, vault, identities, live figures, jobs. Made by
 * main, handed to every handler; all of it may be used from any thread.
 */
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "config/db.h"
#include "config/settings.h"
#include "vault/vault.h"
#include "wire/server.h"

struct lb_doubles;
struct lb_installs;
struct lb_jobs;
struct lb_live;
struct lb_process_child;

struct lb_site {
	struct lb_env *env;
	struct lb_settings settings;
	struct lb_db *db;
	struct lb_store *store;
	struct lb_vault *vault;
	struct lb_live *live;
	struct lb_installs *installs;
	struct lb_jobs *jobs;
	struct lb_http_server *server;
	struct lb_process_child *child;
	struct lb_process_child *target_child;
	pthread_mutex_t temporary_lock; /* of the process server for doubles on their way back (temporary.h) */
	struct lb_process_child *temporary;
	struct lb_doubles *doubles;
	char ca_folder[PATH_MAX], identity_folder[PATH_MAX], process_folder[PATH_MAX];
	char passphrase_path[PATH_MAX]; /* the file it was read from: what opens the vault for a double's servers */
	char ca_fingerprint[2 * LB_DIGEST_BYTES + 1];
	char *ca_pem;
	char local_process[LB_UUID_TEXT_BYTES]; /* empty: none here */
	int64_t started_ns;                     /* wall clock: before it nobody was heard */
	pthread_mutex_t vault_copy_lock;
};

/* `path` takes PATH_MAX bytes. */
int lb_site_path(char *path, const char *folder, const char *name);
/* A random UUID, as text. */
int lb_site_uuid(struct lb_site *site, char id[LB_UUID_TEXT_BYTES]);

/* Settings are taken over. Opens database, authority and vault; the passphrase is read, used and wiped. */
int lb_site_open(struct lb_env *env, struct lb_settings *settings, struct lb_site **ret_site);
void lb_site_free(struct lb_site *site);
LB_DEFINE_CLEANUP(struct lb_site *, lb_site_free);

/* identities.c: certificates of this server, of the process server here; made and renewed as needed. */
int lb_site_identity_renew(struct lb_site *site, bool *ret_renewed);
int lb_site_process_identity_renew(struct lb_site *site, bool *ret_renewed);
int lb_site_target_identity_renew(struct lb_site *site, bool *ret_renewed);
/* Of another process server of this host (its id), in its identity folder. */
int lb_site_identity_of(struct lb_site *site, const char *folder, const char *process, bool *ret_renewed);
