/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A site in a folder of its own, with its vault, for the tests of the configuration server; and its API without a
 * network. */
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "config/anchors.h"
#include "config/api.h"
#include "config/jobs.h"
#include "config/live.h"
#include "config/secrets.h"
#include "config/status.h"
#include "vault/catalog.h"

#define HARDWARE_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HARDWARE_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define PASSPHRASE "correct horse battery staple"

static char folder[64];
static struct lb_env *env;
static struct lb_site *site;

static __attribute__((unused)) const char *in(const char *name)
{
	static char paths[4][256];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static __attribute__((unused)) int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static __attribute__((unused)) void write_text(const char *name, const char *text, mode_t mode)
{
	assert_int_equal(lb_file_write(env, in(name), text, strlen(text), mode), 0);
}

static __attribute__((unused)) struct lb_site *open_site(void)
{
	struct lb_settings settings = {0};
	struct lb_site *s = NULL;

	assert_int_equal(lb_settings_read(env, in("config.conf"), &settings), 0);
	assert_int_equal(lb_site_open(env, &settings, &s), 0);
	lb_settings_free(&settings);
	return s;
}

static __attribute__((unused)) int setup(void **state)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	char text[1024];
	struct lb_uuid id;

	(void)state;
	env = lb_env_real();
	lb_log_init("test_config", 0);
	/* memory where there is some: the database and the vault wait for the disk at each step */
	snprintf(folder, sizeof(folder), "%s/lb-test-config.XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (mkdtemp(folder) == NULL)
		return -1;
	snprintf(text, sizeof(text),
		 "vault = dir:%s/vault\nstate_folder = %s/state\nvm_folder = %s/vm\npassphrase_file = %s/passphrase\n"
		 "public_host = backup.example,10.0.0.5\n",
		 folder, folder, folder, folder);
	write_text("config.conf", text, 0600);
	write_text("passphrase", PASSPHRASE "\n", 0600);
	snprintf(text, sizeof(text), "dir:%s/vault", folder);
	assert_int_equal(lb_store_open(env, text, true, &store), 0);
	assert_int_equal(lb_vault_create(store, PASSPHRASE, &id), 0);
	site = open_site();
	assert_int_equal(lb_reg_policy_init(site->db, lb_now_ns(env)), 0);
	return 0;
}

static __attribute__((unused)) int teardown(void **state)
{
	(void)state;
	if (site != NULL)
		lb_site_free(site);
	site = NULL;
	return nftw(folder, remove_entry, 32, FTW_DEPTH | FTW_PHYS);
}

/* --- calling the API without a network --- */

static __attribute__((unused)) int call(lb_http_handler handler, const char *peer, enum lb_role role, const char *param,
					const json_t *body, json_t **ret_reply)
{
	_cleanup_free_ char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
	struct lb_http_call c = {.peer = {.role = role},
				 .method = "POST",
				 .path = "/",
				 .body = text,
				 .body_bytes = text != NULL ? strlen(text) : 0};
	struct lb_http_reply reply = {0};
	int r;

	snprintf(c.peer.name, sizeof(c.peer.name), "%s", peer);
	snprintf(c.peer.address, sizeof(c.peer.address), "192.0.2.7");
	if (param != NULL)
		snprintf(c.params[0], sizeof(c.params[0]), "%s", param);
	r = handler(site, &c, &reply);
	if (r == 0 && ret_reply != NULL)
		*ret_reply = reply.json;
	else
		json_decref(reply.json);
	return r;
}

static __attribute__((unused)) void make_token(const char *kind, const char *name, bool replaces, int64_t valid_ns,
					       char text[LB_TOKEN_TEXT_BYTES])
{
	struct lb_reg_token t = {.replaces = replaces, .expires_ns = lb_now_ns(env) + valid_ns};

	snprintf(t.kind, sizeof(t.kind), "%s", kind);
	snprintf(t.name, sizeof(t.name), "%s", name);
	t.role = strcmp(kind, "user") == 0      ? LB_ROLE_OPERATOR
		 : strcmp(kind, "machine") == 0 ? LB_ROLE_MACHINE
						: LB_ROLE_PROCESS;
	assert_int_equal(lb_reg_token_make(site, &t, "tester", text), 0);
}

/* `identity` names the folder of the key that asks. */
static __attribute__((unused)) int enrol(const char *token, const char *kind, const char *name, const char *hardware,
					 const char *identity, json_t **ret_reply)
{
	_cleanup_free_ char *csr = NULL;
	_cleanup_json_ json_t *body = NULL;

	assert_int_equal(lb_pki_request(env, in(identity), "x", &csr), 0);
	body = json_pack("{s:s,s:s,s:s,s:s,s:[{s:s,s:s,s:s,s:I,s:b,s:b},{s:s,s:s,s:s,s:I,s:b,s:b}]}", "token", token,
			 "kind", kind, "csr_pem", csr, "name", name, "disks", "name", "sda", "path", "/dev/sda",
			 "serial", "S1", "size_bytes", (json_int_t)1 << 30, "fixed", 1, "boot", 1, "name", "sdb",
			 "path", "/dev/sdb", "serial", "S2", "size_bytes", (json_int_t)2 << 30, "fixed", 1, "boot", 0);
	if (hardware != NULL)
		json_object_set_new(body, "hardware", json_string(hardware));
	return call(lb_api_enrol, "", LB_ROLE_NONE, NULL, body, ret_reply);
}

static __attribute__((unused)) void enrol_machine(const char *name, const char *hardware, const char *identity,
						  bool replaces, char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_json_ json_t *reply = NULL;
	char token[LB_TOKEN_TEXT_BYTES];

	make_token("machine", "", replaces, LB_NS_PER_S * 60, token);
	assert_int_equal(enrol(token, "machine", name, hardware, identity, &reply), 0);
	snprintf(id, LB_UUID_TEXT_BYTES, "%s", json_string_value(json_object_get(reply, "id")));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
