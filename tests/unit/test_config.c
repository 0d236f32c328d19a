/* SPDX-License-Identifier: Apache-2.0 */
#include "config_site.h"

#include "config/target.h"

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

static json_t *policy_of(const char *name)
{
	json_t *policy = NULL;

	assert_int_equal(call(lb_api_policy_get, "r", LB_ROLE_READER, name, NULL, &policy), 0);
	return policy;
}

static void two_operators_at_once_do_not_undo_each_other(void **state)
{
	_cleanup_json_ json_t *seen = policy_of("default"),
			      *first = json_pack("{s:i,s:O}", "zstd_level", 5, "version",
						 json_object_get(seen, "version")),
			      *second = json_pack("{s:i,s:O}", "zstd_level", 2, "version",
						  json_object_get(seen, "version")),
			      *nonsense = json_pack("{s:s}", "version", "new");
	_cleanup_json_ json_t *after = NULL;

	(void)state;
	assert_int_equal(call(lb_api_policy_put, "ann", LB_ROLE_ADMIN, "default", first, NULL), 0);
	assert_int_equal(call(lb_api_policy_put, "bob", LB_ROLE_ADMIN, "default", second, NULL), -ESTALE);
	assert_int_equal(call(lb_api_policy_put, "bob", LB_ROLE_ADMIN, "default", nonsense, NULL), -EINVAL);
	after = policy_of("default");
	assert_int_equal(json_integer_value(json_object_get(after, "zstd_level")), 5);
	assert_int_equal(json_integer_value(json_object_get(after, "version")),
			 json_integer_value(json_object_get(seen, "version")) + 1);
	/* a policy that must be new is at version 0 */
	json_object_set_new(first, "version", json_integer(0));
	assert_int_equal(call(lb_api_policy_put, "ann", LB_ROLE_ADMIN, "fresh", first, NULL), 0);
	assert_int_equal(call(lb_api_policy_put, "bob", LB_ROLE_ADMIN, "fresh", first, NULL), -ESTALE);
}

static void each_policy_has_one_for_the_way_back(void **state)
{
	_cleanup_json_ json_t *gold = json_pack("{s:i}", "rpo_threshold_s", 77),
			      *other = json_pack("{s:i}", "zstd_level", 9);
	_cleanup_json_ json_t *made = NULL, *back = NULL, *after = NULL, *untouched = NULL;

	(void)state;
	assert_int_equal(call(lb_api_policy_put, "admin", LB_ROLE_ADMIN, "gold", gold, NULL), 0);
	made = policy_of("gold");
	assert_string_equal(json_string_value(json_object_get(made, "failback_policy")), "gold-failback");
	back = policy_of("gold-failback");
	assert_int_equal(json_integer_value(json_object_get(back, "rpo_threshold_s")), 77);
	assert_true(json_is_null(json_object_get(back, "failback_policy")));
	/* each is changed by itself */
	assert_int_equal(call(lb_api_policy_put, "admin", LB_ROLE_ADMIN, "gold-failback", other, NULL), 0);
	assert_int_equal(call(lb_api_policy_put, "admin", LB_ROLE_ADMIN, "gold", gold, NULL), 0);
	after = policy_of("gold-failback");
	assert_int_equal(json_integer_value(json_object_get(after, "zstd_level")), 9);
	untouched = policy_of("gold");
	assert_int_equal(json_integer_value(json_object_get(untouched, "zstd_level")), lb_policy_default.zstd_level);
	assert_int_equal(call(lb_api_policy_get, "r", LB_ROLE_READER, "gold-failback-failback", NULL, NULL), -ENOENT);
	assert_int_equal(call(lb_api_policy_put, "admin", LB_ROLE_ADMIN,
			      "a-name-that-leaves-no-room-for-the-policy-of-its-own-way-back", gold, NULL),
			 -EINVAL);
}

static void windows_in_a_zone_that_is_none_are_refused(void **state)
{
	_cleanup_json_ json_t *zone = json_pack("{s:s}", "time_zone", "Europe/Atlantis"),
			      *window = json_pack("{s:[{s:[s],s:s,s:s,s:i}]}", "bandwidth_windows", "days", "mon",
						  "from", "18:00", "to", "18:00", "bytes_per_s", 4096);

	(void)state;
	assert_int_equal(call(lb_api_policy_put, "admin", LB_ROLE_ADMIN, "default", zone, NULL), -EINVAL);
	assert_int_equal(call(lb_api_policy_put, "admin", LB_ROLE_ADMIN, "default", window, NULL), -EINVAL);
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

static void what_was_not_well_with_the_double_that_proved_a_machine_is_told_until_another_did(void **state)
{
	static const char *const text = "it is not mended: there is no mender";
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *status = NULL, *later = NULL;
	char id[LB_UUID_TEXT_BYTES];
	const json_t *one;

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(lb_reg_machine_proven(site->db, id, lb_now_ns(env), 7, text), 0);
	assert_int_equal(call(lb_api_status, "r", LB_ROLE_READER, NULL, NULL, &status), 0);
	one = json_array_get(json_object_get(status, "machines"), 0);
	assert_string_equal(json_string_value(json_object_get(one, "proven_warning")), text);
	/* what writes the machine's other members leaves it */
	assert_int_equal(lb_reg_machine_find(site->db, "web1", &m), 0);
	assert_int_equal(lb_reg_machine_put(site->db, &m), 0);
	lb_reg_machine_clear(&m);
	assert_int_equal(lb_reg_machine_find(site->db, "web1", &m), 0);
	assert_string_equal(m.proven_warning, text);
	assert_int_equal(lb_reg_machine_proven(site->db, id, lb_now_ns(env), 8, ""), 0);
	assert_int_equal(call(lb_api_status, "r", LB_ROLE_READER, NULL, NULL, &later), 0);
	one = json_array_get(json_object_get(later, "machines"), 0);
	assert_string_equal(json_string_value(json_object_get(one, "proven_warning")), "");
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

static json_t *report_with(const char *level, const char *text)
{
	return json_pack("{s:s,s:[{s:s,s:I}],s:{s:I,s:[{s:s,s:s,s:s,s:s,s:s,s:s}]}}", "hardware", HARDWARE_A, "disks",
			 "name", "sda", "size_bytes", (json_int_t)(1 << 20), "readiness", "checked_ns",
			 (json_int_t)lb_now_ns(env), "findings", "check", "drivers", "level", level, "text", text,
			 "effect", "it stops", "cure", "mend it", "mend", "");
}

static void a_target_fills_what_an_order_does_not_say(void **state)
{
	_cleanup_json_ json_t *target = json_pack("{s:i,s:I,s:s,s:s}", "cpus", 3, "memory_bytes", (json_int_t)(1 << 30),
						  "address", "192.0.2.7/24", "bus", "scsi"),
			      *less = json_pack("{s:n}", "bus"),
			      *test = json_pack("{s:s,s:s,s:i}", "machine", "web1", "kind", "test", "cpus", 1),
			      *live = json_pack("{s:s,s:s}", "machine", "web1", "kind", "live"),
			      *other = json_pack("{s:s,s:s}", "machine", "nobody", "kind", "live");
	static const char *const bad[] = {"{\"cpus\":0}",
					  "{\"cpus\":257}",
					  "{\"memory_bytes\":1}",
					  "{\"bus\":\"usb\"}",
					  "{\"network\":\"a b\"}",
					  "{\"network\":7}",
					  "{\"mac\":\"01:00:00:00:00:01\"}",
					  "{\"test_address\":\"x\"}",
					  "{\"speed\":1}"};
	char id[LB_UUID_TEXT_BYTES];
	int64_t next_ns;
	unsigned int n;

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(call(lb_api_machine_target, "op", LB_ROLE_OPERATOR, "web1", target, NULL), 0);
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++) {
		_cleanup_json_ json_t *body = json_loads(bad[i], 0, NULL);

		assert_int_equal(call(lb_api_machine_target, "op", LB_ROLE_OPERATOR, "web1", body, NULL), -EINVAL);
	}
	assert_int_equal(call(lb_api_machine_target, "op", LB_ROLE_OPERATOR, "nobody", target, NULL), -ENOENT);
	assert_int_equal(lb_target_fill(site, test), 0);
	assert_int_equal(json_integer_value(json_object_get(test, "cpus")), 1);
	assert_int_equal(json_integer_value(json_object_get(test, "memory_bytes")), 1 << 30);
	assert_null(json_object_get(test, "address")); /* tests have their own */
	assert_int_equal(lb_target_fill(site, live), 0);
	assert_string_equal(json_string_value(json_object_get(live, "address")), "192.0.2.7/24");
	assert_string_equal(json_string_value(json_object_get(live, "bus")), "scsi");
	assert_int_equal(lb_target_fill(site, other), 0);
	assert_int_equal(json_object_size(other), 2);
	/* without a wish the bus is what its initramfs has drivers for */
	assert_int_equal(call(lb_api_machine_target, "op", LB_ROLE_OPERATOR, "web1", less, NULL), 0);
	{
		_cleanup_json_ json_t *report = report_with("warning", "no virtio");
		json_t *finding = json_array_get(json_object_get(json_object_get(report, "readiness"), "findings"), 0);

		json_object_set_new(finding, "mend", json_string("sata"));
		assert_int_equal(call(lb_api_agent_report, id, LB_ROLE_MACHINE, NULL, report, NULL), 0);
	}
	json_object_del(live, "bus");
	assert_int_equal(lb_target_fill(site, live), 0);
	assert_string_equal(json_string_value(json_object_get(live, "bus")), "sata");
	/* it comes back with the registry, as the drills do that were to come by themselves */
	assert_int_equal(
		lb_db_run(site->db,
			  "INSERT INTO drill_schedule (target, body, next_ns, made_by) VALUES ('machine:web1', "
			  "'{\"every_s\":60}', 7, 'op')",
			  ""),
		0);
	assert_int_equal(lb_vault_copy_write(site), 0);
	lb_site_free(site);
	assert_int_equal(nftw(in("state"), remove_entry, 32, FTW_DEPTH | FTW_PHYS), 0);
	site = open_site();
	assert_int_equal(lb_vault_copy_restore(site, &n), 0);
	assert_int_equal(lb_db_get_int(site->db, &next_ns,
				       "SELECT next_ns FROM drill_schedule WHERE target = 'machine:web1'", ""),
			 0);
	assert_int_equal(next_ns, 7);
	json_object_del(live, "cpus");
	assert_int_equal(lb_target_fill(site, live), 0);
	assert_int_equal(json_integer_value(json_object_get(live, "cpus")), 3);
}

static void report_readiness(const char *id, const char *level, const char *text)
{
	_cleanup_json_ json_t *report = report_with(level, text);

	assert_int_equal(call(lb_api_agent_report, id, LB_ROLE_MACHINE, NULL, report, NULL), 0);
}

static int64_t readiness_events(void)
{
	int64_t n;

	assert_int_equal(lb_db_get_int(site->db, &n, "SELECT count(*) FROM event WHERE text LIKE 'readiness:%'", ""),
			 0);
	return n;
}

static void a_machine_whose_double_would_not_come_up_is_protected_only_by_force(void **state)
{
	char id[LB_UUID_TEXT_BYTES], process[LB_UUID_TEXT_BYTES];
	_cleanup_json_ json_t *force = json_pack("{s:b}", "force", 1), *nonsense = json_pack("{s:s}", "force", "yes");
	_cleanup_json_ json_t *machine = NULL;

	(void)state;
	add_process("ps1", lb_now_ns(env), process);
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	report_readiness(id, "error", "no virtio");
	assert_int_equal(call(lb_api_machine_enable, "op", LB_ROLE_OPERATOR, "web1", NULL, NULL), -EPERM);
	assert_non_null(strstr(lb_err_text(), "no virtio (it stops; mend it)"));
	assert_int_equal(call(lb_api_machine_enable, "op", LB_ROLE_OPERATOR, "web1", nonsense, NULL), -EINVAL);
	assert_int_equal(call(lb_api_machine_enable, "op", LB_ROLE_OPERATOR, "web1", force, NULL), 0);
	/* it is protected: another order on it is no question of readiness */
	assert_int_equal(call(lb_api_machine_enable, "op", LB_ROLE_OPERATOR, "web1", NULL, NULL), 0);
	assert_int_equal(call(lb_api_machine_get, "r", LB_ROLE_READER, "web1", NULL, &machine), 0);
	assert_string_equal(json_string_value(json_object_get(json_object_get(machine, "readiness"), "verdict")),
			    "blocked");
}

static void readiness_that_gets_worse_is_told_once(void **state)
{
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	report_readiness(id, "warning", "a name");
	assert_int_equal(readiness_events(), 0);
	report_readiness(id, "error", "no virtio");
	assert_int_equal(readiness_events(), 1);
	report_readiness(id, "error", "no virtio");
	assert_int_equal(readiness_events(), 1);
	report_readiness(id, "ok", "virtio");
	assert_int_equal(readiness_events(), 1);
	report_readiness(id, "warning", "another name");
	assert_int_equal(readiness_events(), 2);
}

static void a_report_with_a_readiness_that_makes_no_sense_is_refused(void **state)
{
	char id[LB_UUID_TEXT_BYTES];
	_cleanup_json_ json_t *many = report_with("ok", "x"), *half = report_with("ok", "x");
	json_t *findings = json_object_get(json_object_get(many, "readiness"), "findings");

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	for (int i = 0; i < 100; i++)
		json_array_append(findings, json_array_get(findings, 0));
	assert_int_equal(call(lb_api_agent_report, id, LB_ROLE_MACHINE, NULL, many, NULL), -EBADMSG);
	json_object_del(json_array_get(json_object_get(json_object_get(half, "readiness"), "findings"), 0), "cure");
	assert_int_equal(call(lb_api_agent_report, id, LB_ROLE_MACHINE, NULL, half, NULL), -EBADMSG);
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

static int64_t critical_events(void)
{
	int64_t n;

	assert_int_equal(lb_db_get_int(site->db, &n, "SELECT count(*) FROM event WHERE level = 'critical'", ""), 0);
	return n;
}

static void report_vault(const char *process, const char *id, int64_t seq, char digest)
{
	char hex[2 * LB_DIGEST_BYTES + 1];
	_cleanup_json_ json_t *body = NULL;

	memset(hex, digest, sizeof(hex) - 1);
	hex[sizeof(hex) - 1] = '\0';
	body = json_pack("{s:[{s:s,s:i,s:I,s:s,s:I}]}", "machines", "id", id, "vault_epoch", 1, "vault_seq", seq,
			 "vault_digest", hex, "rpo_vault_ns", (json_int_t)(1000 + seq));
	assert_int_equal(call(lb_api_process_report, process, LB_ROLE_PROCESS, NULL, body, NULL), 0);
}

static void a_position_that_was_in_the_vault_is_remembered_and_one_that_went_back_is_an_event(void **state)
{
	char id[LB_UUID_TEXT_BYTES], process[LB_UUID_TEXT_BYTES];
	_cleanup_json_ json_t *anchors = NULL, *freshness = NULL;
	struct lb_anchor anchor;
	struct lb_uuid uuid;
	int64_t before;

	(void)state;
	add_process("ps1", lb_now_ns(env), process);
	enrol_machine("web1", HARDWARE_A, "a", false, id);
	assert_int_equal(call(lb_api_machine_enable, "admin", LB_ROLE_ADMIN, "web1", NULL, NULL), 0);
	assert_int_equal(lb_uuid_parse(id, &uuid), 0);
	assert_int_equal(lb_anchor_get(site, &uuid, &anchor), -ENOENT);
	report_vault(process, id, 7, 'a');
	assert_int_equal(lb_anchor_get(site, &uuid, &anchor), 0);
	assert_true(anchor.position.epoch == 1 && anchor.position.seq == 7 && anchor.digest.bytes[0] == 0xaa);
	assert_int_equal(call(lb_api_anchor_list, "r", LB_ROLE_READER, NULL, NULL, &anchors), 0);
	assert_int_equal(json_array_size(json_object_get(anchors, "anchors")), 1);
	/* the machine's journal in this vault is empty: it was there before */
	assert_int_equal(lb_anchor_freshness(site, &uuid, &freshness), 0);
	assert_string_equal(json_string_value(json_object_get(freshness, "state")), "older");
	before = critical_events();
	assert_int_equal(lb_db_run(site->db,
				   "UPDATE meta SET value = json_set(value, '$.noted_ns', 0) WHERE key LIKE "
				   "'anchor/%'",
				   ""),
			 0);
	report_vault(process, id, 3, 'b');
	assert_int_equal(critical_events(), before + 1);
	assert_int_equal(lb_anchor_get(site, &uuid, &anchor), 0);
	assert_int_equal(anchor.position.seq, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_token_enrols_once),
		T(a_position_that_was_in_the_vault_is_remembered_and_one_that_went_back_is_an_event),
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
		T(two_operators_at_once_do_not_undo_each_other),
		T(each_policy_has_one_for_the_way_back),
		T(windows_in_a_zone_that_is_none_are_refused),
		T(a_lost_registry_comes_back_from_the_vault),
		T(status_says_what_is_in_the_way_and_what_mends_it),
		T(what_was_not_well_with_the_double_that_proved_a_machine_is_told_until_another_did),
		T(the_worst_machine_is_told_first),
		T(a_change_of_health_is_told_once),
		T(a_machine_whose_double_would_not_come_up_is_protected_only_by_force),
		T(readiness_that_gets_worse_is_told_once),
		T(a_report_with_a_readiness_that_makes_no_sense_is_refused),
		T(a_target_fills_what_an_order_does_not_say),
		T(a_process_server_speaks_for_its_own_machines_only),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
