/* SPDX-License-Identifier: Apache-2.0 */
#include "config/site.h"

#include <errno.h>
#include <string.h>

#include "base/crypto.h"
#include "base/err.h"
#include "base/io.h"
#include "config/doubles.h"
#include "config/installs.h"
#include "config/live.h"
#include "config/secrets.h"
#include "wire/pki.h"

int lb_site_path(char *path, const char *folder, const char *name)
{
	if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
		return lb_fail(-ENAMETOOLONG, "a path below %.80s... is too long", folder);
	return 0;
}

int lb_site_uuid(struct lb_site *site, char id[LB_UUID_TEXT_BYTES])
{
	struct lb_uuid uuid;
	int r;

	r = site->env->ops->random(site->env, uuid.bytes, sizeof(uuid.bytes));
	if (r < 0)
		return lb_fail(r, "no random bytes: %s", strerror(-r));
	uuid.bytes[6] = (uuid.bytes[6] & 0x0f) | 0x40; /* RFC 9562 version 4 */
	uuid.bytes[8] = (uuid.bytes[8] & 0x3f) | 0x80;
	lb_uuid_format(&uuid, id);
	return 0;
}

static int open_vault(struct lb_site *site)
{
	_cleanup_(lb_secret_free) char *passphrase = NULL;
	int r;

	r = lb_passphrase_load(site->env, site->settings.passphrase_file, site->passphrase_path, &passphrase);
	if (r == 0)
		r = lb_store_open(site->env, site->settings.vault, false, &site->store);
	if (r < 0)
		return r;
	return lb_vault_open(site->store, passphrase, &site->vault);
}

static int open_authority(struct lb_site *site)
{
	struct lb_digest fingerprint;
	char path[PATH_MAX];
	size_t size_bytes;
	int r;

	r = lb_ca_open(site->env, site->ca_folder, lb_now_ns(site->env));
	if (r == 0)
		r = lb_site_path(path, site->ca_folder, "ca.pem");
	if (r == 0)
		r = lb_file_read(site->env, path, LB_PEM_BYTES_MAX, (uint8_t **)&site->ca_pem, &size_bytes);
	if (r == 0)
		r = lb_cert_fingerprint(site->ca_pem, &fingerprint);
	if (r < 0)
		return r;
	lb_hex_encode(fingerprint.bytes, LB_DIGEST_BYTES, site->ca_fingerprint);
	return 0;
}

static int set_paths(struct lb_site *site)
{
	const char *folder = site->settings.state_folder;
	int r;

	r = lb_site_path(site->ca_folder, folder, "ca");
	if (r == 0)
		r = lb_site_path(site->identity_folder, folder, "identity");
	if (r == 0)
		r = lb_site_path(site->process_folder, folder, "process");
	return r;
}

int lb_site_open(struct lb_env *env, struct lb_settings *settings, struct lb_site **ret_site)
{
	_cleanup_(lb_site_freep) struct lb_site *site = calloc(1, sizeof(*site));
	char path[PATH_MAX];
	int r;

	if (site == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&site->vault_copy_lock, NULL);
	pthread_mutex_init(&site->temporary_lock, NULL);
	site->env = env;
	site->started_ns = lb_now_ns(env);
	site->settings = *settings;
	memset(settings, 0, sizeof(*settings));
	r = set_paths(site);
	if (r == 0)
		r = lb_folder_make(env, site->settings.state_folder, 0700);
	if (r == 0)
		r = lb_site_path(path, site->settings.state_folder, "config.db");
	if (r == 0)
		r = lb_db_open(path, &site->db);
	if (r == 0)
		r = open_authority(site);
	if (r == 0)
		r = open_vault(site);
	if (r == 0)
		r = lb_live_new(&site->live);
	if (r == 0)
		r = lb_installs_new(&site->installs);
	if (r == 0)
		r = lb_doubles_new(&site->doubles);
	if (r < 0)
		return r;
	*ret_site = lb_steal_ptr(site);
	return 0;
}

void lb_site_free(struct lb_site *site)
{
	if (site->doubles != NULL)
		lb_doubles_free(site->doubles);
	if (site->installs != NULL)
		lb_installs_free(site->installs);
	if (site->live != NULL)
		lb_live_free(site->live);
	if (site->vault != NULL)
		lb_vault_free(site->vault);
	if (site->store != NULL)
		lb_store_free(site->store);
	if (site->db != NULL)
		lb_db_free(site->db);
	free(site->ca_pem);
	lb_settings_free(&site->settings);
	pthread_mutex_destroy(&site->vault_copy_lock);
	pthread_mutex_destroy(&site->temporary_lock);
	free(site);
}
