/* SPDX-License-Identifier: Apache-2.0 */
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

static const char *in(const char *name)
{
	static char paths[4][256];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void write_text(const char *name, const char *text, mode_t mode)
{
	assert_int_equal(lb_file_write(env, in(name), text, strlen(text), mode), 0);
}

static struct lb_site *open_site(void)
{
	struct lb_settings settings = {0};
	struct lb_site *s = NULL;

	assert_int_equal(lb_settings_read(env, in("config.conf"), &settings), 0);
	assert_int_equal(lb_site_open(env, &settings, &s), 0);
	lb_settings_free(&settings);
	return s;
}

static int setup(void **state)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	char text[1024];
	struct lb_uuid id;

	(void)state;
	env = lb_env_real();
	lb_log_init("test_config", 0);
	strcpy(folder, "/tmp/lb-test-config.XXXXXX");
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

static int teardown(void **state)
{
	(void)state;
	if (site != NULL)
		lb_site_free(site);
	site = NULL;
	return nftw(folder, remove_entry, 32, FTW_DEPTH | FTW_PHYS);
}

/* --- calling the API without a network --- */

static int call(lb_http_handler handler, const char *peer, enum lb_role role, const char *param, const json_t *body,
		json_t **ret_reply)
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

static void make_token(const char *kind, const char *name, bool replaces, int64_t valid_ns,
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
static int enrol(const char *token, const char *kind, const char *name, const char *hardware, const char *identity,
		 json_t **ret_reply)
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

static void enrol_machine(const char *name, const char *hardware, const char *identity, bool replaces,
			  char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_json_ json_t *reply = NULL;
	char token[LB_TOKEN_TEXT_BYTES];

	make_token("machine", "", replaces, LB_NS_PER_S * 60, token);
	assert_int_equal(enrol(token, "machine", name, hardware, identity, &reply), 0);
	snprintf(id, LB_UUID_TEXT_BYTES, "%s", json_string_value(json_object_get(reply, "id")));
}

/* --- enrolment --- */

static void a_token_enrols_once(void **state)
{
	_cleanup_json_ json_t *reply = NULL;
	char token[LB_TOKEN_TEXT_BYTES];

	(void)state;
	make_token("machine", "", false, LB_NS_PER_S * 60, token);
	assert_int_equal(enrol(token, "machine", "web1", HARDWARE_A, "a", &reply), 0);
	assert_int_equal(enrol(token, "machine", "web2", HARDWARE_B, "b", NULL), -EACCES);
	assert_non_null(strstr(lb_err_text(), "used already"));
}

static void the_same_key_may_ask_again_when_the_answer_was_lost(void **state)
{
	_cleanup_json_ json_t *first = NULL, *second = NULL;
	char token[LB_TOKEN_TEXT_BYTES];

	(void)state;
	make_token("machine", "", false, LB_NS_PER_S * 60, token);
	assert_int_equal(enrol(token, "machine", "web1", HARDWARE_A, "a", &first), 0);
	assert_int_equal(enrol(token, "machine", "web1", HARDWARE_A, "a", &second), 0);
	assert_string_equal(json_string_value(json_object_get(first, "id")),
			    json_string_value(json_object_get(second, "id")));
}

static void an_expired_or_unknown_token_enrols_nobody(void **state)
{
	char token[LB_TOKEN_TEXT_BYTES];
	int64_t n;

	(void)state;
	make_token("machine", "", false, -1, token);
	assert_int_equal(enrol(token, "machine", "web1", HARDWARE_A, "a", NULL), -EACCES);
	assert_non_null(strstr(lb_err_text(), "expired"));
	token[0] = token[0] == '0' ? '1' : '0';
	assert_int_equal(enrol(token, "machine", "web1", HARDWARE_A, "a", NULL), -EACCES);
	assert_int_equal(lb_db_get_int(site->db, &n, "SELECT count(*) FROM machine", ""), 0);
	assert_int_equal(n, 0);
}

static void a_token_is_good_for_its_kind_and_name_only(void **state)
{
	_cleanup_json_ json_t *reply = NULL;
	char token[LB_TOKEN_TEXT_BYTES];

	(void)state;
	make_token("machine", "web1", false, LB_NS_PER_S * 60, token);
	assert_int_equal(enrol(token, "user", "web1", NULL, "a", NULL), -EACCES);
	assert_int_equal(enrol(token, "machine", "db1", HARDWARE_A, "a", NULL), -EACCES);
	assert_int_equal(enrol(token, "machine", "web1", HARDWARE_A, "a", &reply), 0);
}

static void a_users_role_is_the_tokens_and_not_of_its_choice(void **state)
{
	_cleanup_json_ json_t *reply = NULL;
	struct lb_cert_info info;
	char token[LB_TOKEN_TEXT_BYTES];

	(void)state;
	make_token("user", "", false, LB_NS_PER_S * 60, token);
	assert_int_equal(enrol(token, "user", "ann", NULL, "a", &reply), 0);
	assert_int_equal(lb_cert_read(env, json_string_value(json_object_get(reply, "cert_pem")), &info), 0);
	assert_int_equal(info.role, LB_ROLE_OPERATOR);
	assert_string_equal(info.common_name, "ann");
}

static int look_into_file(const char *name, const char *needle)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t size_bytes;

	if (lb_file_read(env, in(name), 64u << 20, &data, &size_bytes) < 0)
		return 0;
	return memmem(data, size_bytes, needle, strlen(needle)) != NULL;
}

static void tokens_and_passphrase_are_nowhere_in_the_database(void **state)
{
	char token[LB_TOKEN_TEXT_BYTES], upper[LB_TOKEN_TEXT_BYTES];
	uint8_t raw[LB_TOKEN_BYTES];

	(void)state;
	make_token("machine", "needle", false, LB_NS_PER_S * 60, token);
	/* the name is there: we look in the right place */
	assert_true(look_into_file("state/config.db-wal", "needle") || look_into_file("state/config.db", "needle"));
	assert_int_equal(lb_hex_decode(token, sizeof(raw), raw), 0);
	lb_hex_encode(raw, sizeof(raw), upper);
	assert_false(look_into_file("state/config.db-wal", token) || look_into_file("state/config.db", token));
	assert_false(look_into_file("state/config.db-wal", PASSPHRASE) ||
		     look_into_file("state/config.db", PASSPHRASE));
}

static void the_same_hardware_keeps_its_id_and_its_old_certificate_is_revoked(void **state)
{
	char first[LB_UUID_TEXT_BYTES], second[LB_UUID_TEXT_BYTES], before[LB_REG_HEX_BYTES];
	struct lb_digest fingerprint;

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, first);
	assert_int_equal(lb_reg_cert_current(site->db, first, before), 0);
	assert_int_equal(lb_hex_decode(before, LB_DIGEST_BYTES, fingerprint.bytes), 0);
	assert_int_equal(lb_reg_cert_check(site->db, &fingerprint, first, lb_now_ns(env)), 0);
	enrol_machine("web1-renamed", HARDWARE_A, "b", false, second);
	assert_string_equal(first, second);
	assert_int_equal(lb_reg_cert_check(site->db, &fingerprint, first, lb_now_ns(env)), -EACCES);
	assert_non_null(strstr(lb_err_text(), "revoked"));
}

static void other_hardware_takes_a_name_over_only_if_the_token_says_so(void **state)
{
	char id[LB_UUID_TEXT_BYTES], replacement[LB_UUID_TEXT_BYTES], token[LB_TOKEN_TEXT_BYTES];
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	make_token("machine", "", false, LB_NS_PER_S * 60, token);
	assert_int_equal(enrol(token, "machine", "web1", HARDWARE_B, "b", NULL), -EEXIST);
	enrol_machine("web1", HARDWARE_B, "b", true, replacement);
	assert_string_equal(id, replacement);
	assert_int_equal(lb_reg_machine_find(site->db, "web1", &m), 0);
	assert_string_equal(m.hardware, HARDWARE_B);
	assert_int_equal(m.resync_generation, 1);
}

static void a_process_server_can_not_take_this_servers_name(void **state)
{
	char token[LB_TOKEN_TEXT_BYTES];

	(void)state;
	make_token("process", "", false, LB_NS_PER_S * 60, token);
	assert_int_equal(enrol(token, "process", "backup.example", NULL, "a", NULL), -EACCES);
}

static void a_certificate_counts_as_the_current_one_once_it_was_used(void **state)
{
	struct lb_cert_info old = {.role = LB_ROLE_MACHINE, .fingerprint = {{1}}},
			    fresh = {.role = LB_ROLE_MACHINE, .fingerprint = {{2}}};
	char current[LB_REG_HEX_BYTES];

	(void)state;
	assert_int_equal(lb_reg_cert_put(site->db, &old, "m", 1), 0);
	assert_int_equal(lb_reg_cert_check(site->db, &old.fingerprint, "m", 2), 0);
	assert_int_equal(lb_reg_cert_put(site->db, &fresh, "m", 3), 0);
	assert_int_equal(lb_reg_cert_current(site->db, "m", current), 0);
	assert_memory_equal(current, "01", 2);
	assert_int_equal(lb_reg_cert_check(site->db, &fresh.fingerprint, "m", 4), 0);
	assert_int_equal(lb_reg_cert_current(site->db, "m", current), 0);
	assert_memory_equal(current, "02", 2);
	assert_int_equal(lb_reg_cert_check(site->db, &fresh.fingerprint, "other", 5), -EACCES);
}

/* --- machines --- */

static void add_process(const char *name, int64_t seen_ns, char id[LB_UUID_TEXT_BYTES])
{
	struct lb_reg_process p = {.hosts = "ps.example", .port = 9443, .seen_ns = seen_ns};

	assert_int_equal(lb_site_uuid(site, p.id), 0);
	snprintf(p.name, sizeof(p.name), "%s", name);
	assert_int_equal(lb_reg_process_put(site->db, &p), 0);
	memcpy(id, p.id, LB_UUID_TEXT_BYTES);
}

static void report(const char *machine, const char *hardware, const char *state_name)
{
	_cleanup_json_ json_t *body = json_pack("{s:s,s:s,s:[{s:s,s:s,s:s,s:I,s:b}]}", "hardware", hardware, "state",
						state_name, "disks", "name", "sda", "path", "/dev/sda", "serial", "S1",
						"size_bytes", (json_int_t)1 << 30, "fixed", 1);

	assert_int_equal(call(lb_api_agent_report, machine, LB_ROLE_MACHINE, NULL, body, NULL), 0);
}

static void enabling_puts_all_that_recovery_needs_into_the_vault(void **state)
{
	struct lb_catalog_item *item = malloc(sizeof(*item));
	char id[LB_UUID_TEXT_BYTES], process[LB_UUID_TEXT_BYTES];
	_cleanup_json_ json_t *config = NULL;
	struct lb_key key;
	struct lb_uuid uuid;

	(void)state;
	add_process("ps1", lb_now_ns(env), process);
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(call(lb_api_machine_enable, "admin", LB_ROLE_ADMIN, "web1", NULL, NULL), 0);
	assert_int_equal(lb_uuid_parse(id, &uuid), 0);
	assert_int_equal(lb_vault_machine_key(site->vault, &uuid, false, &key), 0);
	assert_int_equal(lb_catalog_find(site->vault, "web1", item), 0);
	assert_int_equal(item->n_disks, 2);
	assert_true(item->disks[0].boot);
	assert_string_equal(item->hardware, HARDWARE_A);
	free(item);
	/* its process server is told, with the key */
	assert_int_equal(call(lb_api_process_config, process, LB_ROLE_PROCESS, NULL, NULL, &config), 0);
	assert_int_equal(json_array_size(json_object_get(config, "machines")), 1);
}

static void a_process_server_gets_the_keys_of_its_own_machines_only(void **state)
{
	char id[LB_UUID_TEXT_BYTES], process[LB_UUID_TEXT_BYTES], other[LB_UUID_TEXT_BYTES];
	_cleanup_json_ json_t *config = NULL;

	(void)state;
	add_process("ps1", lb_now_ns(env), process);
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(call(lb_api_machine_enable, "admin", LB_ROLE_ADMIN, "web1", NULL, NULL), 0);
	add_process("ps2", lb_now_ns(env), other);
	assert_int_equal(call(lb_api_process_config, other, LB_ROLE_PROCESS, NULL, NULL, &config), 0);
	assert_int_equal(json_array_size(json_object_get(config, "machines")), 0);
}

static void machines_are_spread_over_process_servers_that_answer(void **state)
{
	char id[LB_UUID_TEXT_BYTES], dead[LB_UUID_TEXT_BYTES], first[LB_UUID_TEXT_BYTES], second[LB_UUID_TEXT_BYTES];
	static const char *const names[] = {"m1", "m2"};
	static const char *const hardware[] = {HARDWARE_A, HARDWARE_B};
	struct lb_reg_process p;

	(void)state;
	add_process("a-dead", 1, dead);
	add_process("b-alive", lb_now_ns(env), first);
	add_process("c-alive", lb_now_ns(env), second);
	for (int i = 0; i < 2; i++) {
		enrol_machine(names[i], hardware[i], names[i], false, id);
		assert_int_equal(call(lb_api_machine_enable, "admin", LB_ROLE_ADMIN, names[i], NULL, NULL), 0);
	}
	assert_int_equal(lb_reg_process_find(site->db, dead, &p), 0);
	assert_int_equal(p.machines, 0);
	assert_int_equal(lb_reg_process_find(site->db, first, &p), 0);
	assert_int_equal(p.machines, 1);
	assert_int_equal(lb_reg_process_find(site->db, second, &p), 0);
	assert_int_equal(p.machines, 1);
}

static json_int_t disk_id(const struct lb_reg_machine *m, const char *name)
{
	const json_t *d;
	size_t i;

	json_array_foreach(m->disks, i, d) if (strcmp(json_string_value(json_object_get(d, "name")), name) ==
					       0) return json_integer_value(json_object_get(d, "id"));
	return -1;
}

static void a_disk_keeps_its_number_and_no_other_disk_ever_gets_it(void **state)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {.name = "web1", .disks = json_array()};

	(void)state;
	m.inventory = json_pack("{s:[{s:s,s:s,s:i},{s:s,s:s,s:i}]}", "disks", "name", "sda", "serial", "S1",
				"size_bytes", 4096, "name", "sdb", "serial", "S2", "size_bytes", 4096);
	assert_int_equal(lb_disks_choose(&m, NULL), 0);
	assert_int_equal(disk_id(&m, "sda"), 0);
	assert_int_equal(disk_id(&m, "sdb"), 1);
	json_decref(m.inventory);
	/* the first is gone, the second has its name now, a third has come */
	m.inventory = json_pack("{s:[{s:s,s:s,s:i},{s:s,s:s,s:i}]}", "disks", "name", "sdx", "serial", "S2",
				"size_bytes", 4096, "name", "sdy", "serial", "S3", "size_bytes", 4096);
	assert_int_equal(lb_disks_choose(&m, NULL), 0);
	assert_int_equal(disk_id(&m, "sdx"), 1);
	assert_int_equal(disk_id(&m, "sdy"), 2);
	assert_int_equal(disk_id(&m, "sda"), 0);
	assert_int_equal(json_array_size(m.disks), 3);
}

static void a_report_from_other_hardware_is_refused(void **state)
{
	_cleanup_json_ json_t *body = json_pack("{s:s,s:s}", "hardware", HARDWARE_B, "state", "protected");
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(call(lb_api_agent_report, id, LB_ROLE_MACHINE, NULL, body, NULL), -EACCES);
	assert_non_null(strstr(lb_err_text(), "hardware"));
	report(id, HARDWARE_A, "protected");
}

static void a_renewal_from_other_hardware_is_refused(void **state)
{
	_cleanup_free_ char *csr = NULL;
	_cleanup_json_ json_t *body = NULL, *reply = NULL;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(lb_pki_request(env, in("a"), "x", &csr), 0);
	body = json_pack("{s:s,s:s}", "csr_pem", csr, "hardware", HARDWARE_B);
	assert_int_equal(call(lb_api_renew, id, LB_ROLE_MACHINE, NULL, body, NULL), -EACCES);
	json_object_set_new(body, "hardware", json_string(HARDWARE_A));
	assert_int_equal(call(lb_api_renew, id, LB_ROLE_MACHINE, NULL, body, &reply), 0);
}

static void a_removed_machines_certificate_counts_no_more(void **state)
{
	char id[LB_UUID_TEXT_BYTES], current[LB_REG_HEX_BYTES];
	struct lb_http_peer peer = {.role = LB_ROLE_MACHINE};

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(lb_reg_cert_current(site->db, id, current), 0);
	assert_int_equal(lb_hex_decode(current, LB_DIGEST_BYTES, peer.fingerprint.bytes), 0);
	snprintf(peer.name, sizeof(peer.name), "%s", id);
	assert_true(lb_api_peer_allowed(site, &peer));
	assert_int_equal(call(lb_api_machine_remove, "admin", LB_ROLE_ADMIN, "web1", NULL, NULL), 0);
	assert_false(lb_api_peer_allowed(site, &peer));
}

static void only_what_a_policy_names_changes(void **state)
{
	_cleanup_json_ json_t *body = json_pack("{s:i}", "consistency_interval_s", 2),
			      *bad = json_pack("{s:i}", "zstd_level", 12);
	struct lb_policy policy;

	(void)state;
	assert_int_equal(call(lb_api_policy_put, "admin", LB_ROLE_ADMIN, "default", body, NULL), 0);
	assert_int_equal(call(lb_api_policy_put, "admin", LB_ROLE_ADMIN, "default", bad, NULL), -EINVAL);
	assert_int_equal(lb_reg_policy_get(site->db, "default", &policy), 0);
	assert_int_equal(policy.consistency_interval_s, 2);
	assert_int_equal(policy.upload_interval_s, lb_policy_default.upload_interval_s);
}

static void a_lost_registry_comes_back_from_the_vault(void **state)
{
	_cleanup_json_ json_t *body = json_pack("{s:i}", "rpo_threshold_s", 77);
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	char id[LB_UUID_TEXT_BYTES], again[LB_UUID_TEXT_BYTES], process[LB_UUID_TEXT_BYTES];
	struct lb_policy policy;
	unsigned int n;

	(void)state;
	add_process("ps1", lb_now_ns(env), process);
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(call(lb_api_policy_put, "admin", LB_ROLE_ADMIN, "gold", body, NULL), 0);
	assert_int_equal(call(lb_api_machine_enable, "admin", LB_ROLE_ADMIN, "web1", NULL, NULL), 0);
	lb_site_free(site);
	assert_int_equal(nftw(in("state"), remove_entry, 32, FTW_DEPTH | FTW_PHYS), 0);
	site = open_site();
	assert_int_equal(lb_vault_copy_restore(site, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(lb_reg_policy_get(site->db, "gold", &policy), 0);
	assert_int_equal(policy.rpo_threshold_s, 77);
	assert_int_equal(lb_reg_machine_find(site->db, "web1", &m), 0);
	assert_string_equal(m.id, id);
	assert_true(m.enabled);
	/* it enrols anew and is the same machine */
	enrol_machine("web1", HARDWARE_A, "c", false, again);
	assert_string_equal(again, id);
}

/* --- status --- */

static void status_says_what_is_in_the_way_and_what_mends_it(void **state)
{
	_cleanup_json_ json_t *status = NULL;
	const json_t *m, *reason;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(call(lb_api_status, "r", LB_ROLE_READER, NULL, NULL, &status), 0);
	m = json_array_get(json_object_get(status, "machines"), 0);
	assert_string_equal(json_string_value(json_object_get(m, "health")), "warning");
	assert_true(json_is_false(json_object_get(m, "recoverable")));
	assert_true(json_is_null(json_object_get(m, "point_ns")));
	reason = json_array_get(json_object_get(m, "reasons"), 0);
	assert_string_equal(json_string_value(json_object_get(reason, "cure")), "lifeboat machine protect web1");
}

static void the_worst_machine_is_told_first(void **state)
{
	_cleanup_json_ json_t *status = NULL;
	char id[LB_UUID_TEXT_BYTES], process[LB_UUID_TEXT_BYTES];
	const json_t *list;

	(void)state;
	add_process("ps1", lb_now_ns(env), process);
	enrol_machine("aaa", HARDWARE_A, "a", false, id);
	enrol_machine("zzz", HARDWARE_B, "b", false, id);
	assert_int_equal(call(lb_api_machine_enable, "admin", LB_ROLE_ADMIN, "zzz", NULL, NULL), 0);
	assert_int_equal(call(lb_api_status, "r", LB_ROLE_READER, NULL, NULL, &status), 0);
	list = json_object_get(status, "machines");
	/* protected, but without a point: that is worse than not being protected yet */
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "name")), "zzz");
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "health")), "critical");
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "name")), "aaa");
}

static void a_change_of_health_is_told_once(void **state)
{
	char id[LB_UUID_TEXT_BYTES];
	int64_t before, after;

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(lb_status_watch(site), 0);
	assert_int_equal(lb_db_get_int(site->db, &before, "SELECT count(*) FROM event WHERE subject = 'web1'", ""), 0);
	assert_int_equal(lb_status_watch(site), 0);
	assert_int_equal(lb_db_get_int(site->db, &after, "SELECT count(*) FROM event WHERE subject = 'web1'", ""), 0);
	assert_int_equal(before, after);
	assert_true(before >= 2); /* enrolled; warning */
}

static void a_process_server_speaks_for_its_own_machines_only(void **state)
{
	char id[LB_UUID_TEXT_BYTES], own[LB_UUID_TEXT_BYTES], other[LB_UUID_TEXT_BYTES];
	_cleanup_json_ json_t *body = NULL;
	struct lb_live_machine live;

	(void)state;
	add_process("ps1", lb_now_ns(env), own);
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(call(lb_api_machine_enable, "admin", LB_ROLE_ADMIN, "web1", NULL, NULL), 0);
	add_process("ps2", lb_now_ns(env), other);
	body = json_pack("{s:[{s:s,s:s}]}", "machines", "id", id, "state", "ready");
	assert_int_equal(call(lb_api_process_report, other, LB_ROLE_PROCESS, NULL, body, NULL), 0);
	assert_int_equal(lb_live_get(site->live, id, &live), 0);
	assert_null(live.process);
	lb_live_machine_clear(&live);
	assert_int_equal(call(lb_api_process_report, own, LB_ROLE_PROCESS, NULL, body, NULL), 0);
	assert_int_equal(lb_live_get(site->live, id, &live), 0);
	assert_non_null(live.process);
	lb_live_machine_clear(&live);
}

/* --- jobs --- */

static atomic_int job_runs, at_once, at_once_max;
static int hold_fd = -1; /* a job of kind "hold" waits for a byte, or for ever */
static int told_fd = -1;

static int run_three_steps(struct lb_job *job)
{
	int r;

	atomic_fetch_add(&job_runs, 1);
	for (int i = 0; i < 3; i++) {
		r = lb_job_step(job, i == 0 ? "first" : i == 1 ? "second" : "third");
		if (r < 0)
			return r;
		if (i == 1 && told_fd >= 0) {
			char byte = 'x';

			/* in the second step: say so, and wait for what may never come */
			assert_int_equal(write(told_fd, &byte, 1), 1);
			if (read(hold_fd, &byte, 1) < 0)
				return -errno;
		}
	}
	return json_object_set_new(job->result, "answer", json_integer(42));
}

static int run_counting(struct lb_job *job)
{
	int n = atomic_fetch_add(&at_once, 1) + 1;

	if (n > atomic_load(&at_once_max))
		atomic_store(&at_once_max, n);
	for (int i = 0; i < 20; i++) {
		int r = lb_job_step(job, "count");

		if (r < 0)
			return r;
	}
	atomic_fetch_sub(&at_once, 1);
	return 0;
}

static int run_until_cancelled(struct lb_job *job)
{
	int r = 0;

	atomic_fetch_add(&job_runs, 1);
	while (r == 0)
		r = lb_job_step(job, "work");
	return r;
}

static int run_failing(struct lb_job *job)
{
	int r = lb_job_step(job, "try");

	return r < 0 ? r : lb_fail(-EIO, "the disk vda of web1 can't be read; look at its cable");
}

static const struct lb_job_kind kinds[] = {{"steps", run_three_steps},
					   {"count", run_counting},
					   {"endless", run_until_cancelled},
					   {"fail", run_failing},
					   {NULL, NULL}};

/* Waits for a state that the job must come to; the test's own time limit ends a wait that is in vain. */
static json_t *job_in_state(const char *id, const char *wanted)
{
	for (;;) {
		json_t *job = NULL;

		assert_int_equal(lb_job_json(site, id, &job), 0);
		if (strcmp(json_string_value(json_object_get(job, "state")), wanted) == 0)
			return job;
		json_decref(job);
		env->ops->wait_until(env, lb_mono_ns(env) + 5 * LB_NS_PER_MS, -1);
	}
}

static void submit(const char *kind, const char *target, char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_json_ json_t *request = json_object();

	assert_int_equal(lb_job_submit(site, kind, target, request, "tester", id), 0);
}

static const char *step_state(const json_t *job, size_t n)
{
	return json_string_value(json_object_get(json_array_get(json_object_get(job, "steps"), n), "state"));
}

static void a_job_that_was_killed_goes_on_at_the_next_start(void **state)
{
	_cleanup_json_ json_t *job = NULL;
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES], byte;
	int told[2], status;
	pid_t child;

	(void)state;
	lb_site_free(site);
	site = NULL;
	assert_int_equal(pipe(told), 0);
	child = fork();
	if (child == 0) {
		int never[2];

		told_fd = told[1];
		if (pipe(never) < 0)
			_exit(1);
		hold_fd = never[0];
		site = open_site();
		assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
		submit("steps", "web1", id);
		(void)!write(told[1], id, sizeof(id));
		pause();
		_exit(1);
	}
	/* its id and the word from its second step come in any order of their own: the id is longer */
	for (size_t got = 0, seen = 0; got < sizeof(id) || seen == 0;) {
		assert_int_equal(read(told[0], &byte, 1), 1);
		if (byte == 'x')
			seen = 1;
		else
			id[got++] = byte;
	}
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	close(told[0]);
	close(told[1]);

	site = open_site();
	job = job_in_state(id, "running"); /* nobody works on it, and it is not forgotten */
	assert_string_equal(step_state(job, 0), "done");
	assert_string_equal(step_state(job, 1), "running");
	json_decref(job);
	atomic_store(&job_runs, 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	job = job_in_state(id, "done");
	assert_int_equal(atomic_load(&job_runs), 1);
	assert_string_equal(step_state(job, 0), "done");
	assert_string_equal(step_state(job, 1), "interrupted");
	assert_int_equal(json_array_size(json_object_get(job, "steps")), 5);
	assert_string_equal(step_state(job, 4), "done");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(job, "result"), "answer")), 42);
	lb_jobs_stop(jobs);
}

static void a_stopped_server_takes_its_jobs_up_again(void **state)
{
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	atomic_store(&job_runs, 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	submit("endless", "web1", id);
	json_decref(job_in_state(id, "running"));
	lb_jobs_stop(jobs);
	json_decref(job_in_state(id, "running"));
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	while (atomic_load(&job_runs) < 2)
		sched_yield();
	assert_int_equal(lb_job_cancel(site, id), 0);
	json_decref(job_in_state(id, "cancelled"));
	lb_jobs_stop(jobs);
}

static void a_cancelled_job_ends_at_its_next_step(void **state)
{
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	submit("endless", "web1", id);
	json_decref(job_in_state(id, "running"));
	assert_int_equal(lb_job_cancel(site, id), 0);
	json_decref(job_in_state(id, "cancelled"));
	assert_int_equal(lb_job_cancel(site, id), -EINVAL);
	assert_int_equal(lb_job_cancel(site, "nothing"), -ENOENT);
	lb_jobs_stop(jobs);
}

static void jobs_on_one_target_run_one_after_another(void **state)
{
	struct lb_jobs *jobs;
	char ids[6][LB_UUID_TEXT_BYTES];

	(void)state;
	atomic_store(&at_once_max, 0);
	atomic_store(&at_once, 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	for (int i = 0; i < 6; i++)
		submit("count", "web1", ids[i]);
	for (int i = 0; i < 6; i++)
		json_decref(job_in_state(ids[i], "done"));
	assert_int_equal(atomic_load(&at_once_max), 1);
	lb_jobs_stop(jobs);
}

static void a_failed_job_tells_why(void **state)
{
	_cleanup_json_ json_t *job = NULL;
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	submit("fail", "web1", id);
	job = job_in_state(id, "failed");
	assert_string_equal(json_string_value(json_object_get(job, "error")),
			    "the disk vda of web1 can't be read; look at its cable");
	assert_string_equal(step_state(job, 0), "failed");
	lb_jobs_stop(jobs);
}

/* --- who may, and what is described --- */

static void without_a_certificate_only_enrolment_is_reached(void **state)
{
	(void)state;
	for (size_t i = 0; i < lb_config_routes_n; i++)
		if (lb_config_routes[i].roles & LB_ROLE_BIT(LB_ROLE_NONE))
			assert_string_equal(lb_config_routes[i].pattern, "/v1/enrol");
}

static void machines_and_process_servers_reach_their_own_paths_only(void **state)
{
	(void)state;
	for (size_t i = 0; i < lb_config_routes_n; i++) {
		const struct lb_http_route *route = &lb_config_routes[i];

		if (strcmp(route->pattern, "/v1/enrol") == 0)
			continue;
		assert_int_equal(!!(route->roles & LB_ROLE_BIT(LB_ROLE_MACHINE)),
				 strncmp(route->pattern, "/v1/agent/", 10) == 0);
		assert_int_equal(!!(route->roles & LB_ROLE_BIT(LB_ROLE_PROCESS)),
				 strncmp(route->pattern, "/v1/process/", 12) == 0);
	}
}

static void readers_change_nothing(void **state)
{
	(void)state;
	for (size_t i = 0; i < lb_config_routes_n; i++) {
		const struct lb_http_route *route = &lb_config_routes[i];

		if (strcmp(route->method, "GET") == 0 || strcmp(route->pattern, "/v1/enrol") == 0 ||
		    strcmp(route->pattern, "/v1/user/renew") == 0)
			continue;
		assert_false(route->roles & LB_ROLE_BIT(LB_ROLE_READER));
	}
}

static void only_administrators_give_access(void **state)
{
	static const char *const patterns[] = {"/v1/token", "/v1/certificate", "/v1/certificate/{}/revoke",
					       "/v1/audit"};
	size_t found = 0;

	(void)state;
	for (size_t i = 0; i < lb_config_routes_n; i++)
		for (size_t k = 0; k < LB_ARRAY_LEN(patterns); k++)
			if (strcmp(lb_config_routes[i].pattern, patterns[k]) == 0) {
				assert_int_equal(lb_config_routes[i].roles, LB_ROLE_BIT(LB_ROLE_ADMIN));
				found++;
			}
	assert_int_equal(found, LB_ARRAY_LEN(patterns));
}

/* "/v1/machine/{machine}" as the route table writes it: "/v1/machine/{}" */
static void plain_path(const char *line, char path[200])
{
	size_t n = 0;

	for (line += 2; *line != ':' && *line != '\0' && n < 199; line++) {
		path[n++] = *line;
		if (*line == '{')
			line += strcspn(line, "}") - 1;
	}
	path[n] = '\0';
}

static size_t look_up(const char *method, const char *path)
{
	size_t n = 0;

	for (size_t i = 0; i < lb_config_routes_n; i++)
		n += strcasecmp(lb_config_routes[i].method, method) == 0 &&
		     strcmp(lb_config_routes[i].pattern, path) == 0;
	return n;
}

/* "      x-roles: [reader, operator]" says the same as the table. */
static void check_roles(const char *line, const char *method, const char *path)
{
	uint32_t roles = 0;

	for (int role = LB_ROLE_NONE; role <= LB_ROLE_ADMIN; role++) {
		const char *at = strstr(line, lb_role_name((enum lb_role)role));

		if (at != NULL)
			roles |= LB_ROLE_BIT(role);
	}
	for (size_t i = 0; i < lb_config_routes_n; i++)
		if (strcasecmp(lb_config_routes[i].method, method) == 0 &&
		    strcmp(lb_config_routes[i].pattern, path) == 0)
			assert_int_equal(lb_config_routes[i].roles, roles);
}

static void the_description_has_every_path_and_role_and_no_other(void **state)
{
	static const char *const methods[] = {"get", "put", "post", "delete"};
	char path[200] = "", method[16] = "";
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes, operations = 0, roles = 0;
	char *rest, *line;

	(void)state;
	assert_int_equal(lb_file_read(env, LB_OPENAPI, 1u << 20, &text, &size_bytes), 0);
	rest = (char *)text;
	while ((line = strsep(&rest, "\n")) != NULL && strcmp(line, "components:") != 0) {
		if (strncmp(line, "  /", 3) == 0)
			plain_path(line, path);
		for (size_t i = 0; i < LB_ARRAY_LEN(methods); i++)
			if (strncmp(line, "    ", 4) == 0 && strncmp(line + 4, methods[i], strlen(methods[i])) == 0 &&
			    line[4 + strlen(methods[i])] == ':') {
				snprintf(method, sizeof(method), "%s", methods[i]);
				assert_int_equal(look_up(method, path), 1);
				operations++;
			}
		if (strncmp(line, "      x-roles:", 14) == 0) {
			check_roles(line, method, path);
			roles++;
		}
	}
	assert_int_equal(operations, lb_config_routes_n);
	assert_int_equal(roles, operations);
}

/* --- settings, secrets, database --- */

static void a_passphrase_file_that_others_may_read_is_refused(void **state)
{
	_cleanup_(lb_secret_free) char *passphrase = NULL;
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(chmod(in("passphrase"), 0644), 0);
	assert_int_equal(lb_passphrase_load(env, in("passphrase"), path, &passphrase), -EPERM);
	assert_int_equal(chmod(in("passphrase"), 0600), 0);
	assert_int_equal(lb_passphrase_load(env, in("passphrase"), path, &passphrase), 0);
	assert_string_equal(passphrase, PASSPHRASE);
}

static void a_passphrase_comes_from_the_service_managers_credentials(void **state)
{
	_cleanup_(lb_secret_free) char *passphrase = NULL;
	char path[PATH_MAX];

	(void)state;
	unsetenv("CREDENTIALS_DIRECTORY");
	assert_int_equal(lb_passphrase_load(env, NULL, path, &passphrase), -ENOKEY);
	write_text("vault-passphrase", "from the credentials", 0400);
	setenv("CREDENTIALS_DIRECTORY", folder, 1);
	assert_int_equal(lb_passphrase_load(env, NULL, path, &passphrase), 0);
	unsetenv("CREDENTIALS_DIRECTORY");
	assert_string_equal(passphrase, "from the credentials");
}

static void a_wrong_passphrase_opens_no_site(void **state)
{
	struct lb_settings settings = {0};
	struct lb_site *other = NULL;

	(void)state;
	write_text("passphrase", "another passphrase", 0600);
	assert_int_equal(lb_settings_read(env, in("config.conf"), &settings), 0);
	assert_int_equal(lb_site_open(env, &settings, &other), -EKEYREJECTED);
	lb_settings_free(&settings);
}

static void settings_that_make_no_sense_are_refused(void **state)
{
	static const char *const bad[] = {
		"state_folder = /x\n",
		"vault = dir:/v\nfabric = cloud\n",
		"vault = dir:/v\nport = 70000\n",
		"vault = dir:/v\nprot = 1\n",
		"vault = dir:/v\nstate_folder = relative\n",
		"vault = dir:/v\npublic_host = a b;c\n",
	};

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++) {
		struct lb_settings settings = {0};

		write_text("bad.conf", bad[i], 0600);
		assert_true(lb_settings_read(env, in("bad.conf"), &settings) < 0);
		lb_settings_free(&settings);
	}
}

static void a_newer_database_is_left_alone(void **state)
{
	struct lb_db *db = NULL;

	(void)state;
	assert_int_equal(lb_db_run(site->db, "INSERT INTO migration (version, done_ns) VALUES (?, 0)", "i",
				   (int64_t)LB_DB_SCHEMA_VERSION + 1),
			 0);
	assert_int_equal(lb_db_open(in("state/config.db"), &db), -EPROTONOSUPPORT);
}

static void a_transaction_that_is_not_committed_leaves_nothing(void **state)
{
	int64_t n;

	(void)state;
	{
		_cleanup_(lb_db_endp) struct lb_db_txn outer = {0};
		_cleanup_(lb_db_endp) struct lb_db_txn inner = {0};

		assert_int_equal(lb_db_begin(site->db, &outer), 0);
		assert_int_equal(lb_db_begin(site->db, &inner), 0);
		assert_int_equal(lb_db_run(site->db, "INSERT INTO meta (key, value) VALUES ('a', 'b')", ""), 0);
		assert_int_equal(lb_db_commit(&inner), 0);
	}
	assert_int_equal(lb_db_get_int(site->db, &n, "SELECT count(*) FROM meta", ""), 0);
	assert_int_equal(n, 0);
}

static void orders_leave_a_trace(void **state)
{
	_cleanup_json_ json_t *audits = NULL;
	struct lb_http_call c = {.peer = {.role = LB_ROLE_ADMIN, .name = "ann", .address = "192.0.2.7"},
				 .method = "DELETE",
				 .path = "/v1/machine/web1"};
	const json_t *first;

	(void)state;
	lb_fail(-ENOENT, "there is no machine web1");
	lb_audit(site, &c, -ENOENT);
	assert_string_equal(lb_err_text(), "there is no machine web1");
	assert_int_equal(call(lb_api_audit_list, "ann", LB_ROLE_ADMIN, NULL, NULL, &audits), 0);
	first = json_array_get(json_object_get(audits, "audits"), 0);
	assert_string_equal(json_string_value(json_object_get(first, "who")), "ann");
	assert_string_equal(json_string_value(json_object_get(first, "result")), "there is no machine web1");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_token_enrols_once),
		T(the_same_key_may_ask_again_when_the_answer_was_lost),
		T(an_expired_or_unknown_token_enrols_nobody),
		T(a_token_is_good_for_its_kind_and_name_only),
		T(a_users_role_is_the_tokens_and_not_of_its_choice),
		T(tokens_and_passphrase_are_nowhere_in_the_database),
		T(the_same_hardware_keeps_its_id_and_its_old_certificate_is_revoked),
		T(other_hardware_takes_a_name_over_only_if_the_token_says_so),
		T(a_process_server_can_not_take_this_servers_name),
		T(a_certificate_counts_as_the_current_one_once_it_was_used),
		T(enabling_puts_all_that_recovery_needs_into_the_vault),
		T(a_process_server_gets_the_keys_of_its_own_machines_only),
		T(machines_are_spread_over_process_servers_that_answer),
		T(a_disk_keeps_its_number_and_no_other_disk_ever_gets_it),
		T(a_report_from_other_hardware_is_refused),
		T(a_renewal_from_other_hardware_is_refused),
		T(a_removed_machines_certificate_counts_no_more),
		T(only_what_a_policy_names_changes),
		T(a_lost_registry_comes_back_from_the_vault),
		T(status_says_what_is_in_the_way_and_what_mends_it),
		T(the_worst_machine_is_told_first),
		T(a_change_of_health_is_told_once),
		T(a_process_server_speaks_for_its_own_machines_only),
		T(a_job_that_was_killed_goes_on_at_the_next_start),
		T(a_stopped_server_takes_its_jobs_up_again),
		T(a_cancelled_job_ends_at_its_next_step),
		T(jobs_on_one_target_run_one_after_another),
		T(a_failed_job_tells_why),
		T(without_a_certificate_only_enrolment_is_reached),
		T(machines_and_process_servers_reach_their_own_paths_only),
		T(readers_change_nothing),
		T(only_administrators_give_access),
		T(the_description_has_every_path_and_role_and_no_other),
		T(a_passphrase_file_that_others_may_read_is_refused),
		T(a_passphrase_comes_from_the_service_managers_credentials),
		T(a_wrong_passphrase_opens_no_site),
		T(settings_that_make_no_sense_are_refused),
		T(a_newer_database_is_left_alone),
		T(a_transaction_that_is_not_committed_leaves_nothing),
		T(orders_leave_a_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
