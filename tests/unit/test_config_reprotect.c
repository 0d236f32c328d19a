/* SPDX-License-Identifier: Apache-2.0 */
/* Doubles that ask to be machines of their own: known by their secrets, waiting until that is allowed. */
#include "config_site.h"

#include "config/doubles.h"
#include "config/failovers.h"
#include "config/reprotect.h"
#include "config/targets.h"
#include "wire/told.h"

#define URL "https://10.0.2.2:443"
#define PROCESS "00000000-0000-4000-8000-000000000001"

static struct lb_told told;

static void make_double(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "vm/%s", name);
	assert_int_equal(lb_folder_make(env, in(path), 0700), 0);
	snprintf(path, sizeof(path), "vm/%s/" LB_TOLD_FILE, name);
	unlink(in(path));
	assert_int_equal(lb_told_make(env, URL, site->ca_fingerprint, &told), 0);
	assert_int_equal(lb_told_write(env, in(path), &told), 0);
}

static int ask(const char *secret, const char *identity, const char *hardware, json_t **ret_reply)
{
	_cleanup_free_ char *csr = NULL;
	_cleanup_json_ json_t *body = NULL;

	assert_int_equal(lb_pki_request(env, in(identity), "double", &csr), 0);
	body = json_pack("{s:s,s:s,s:s,s:[{s:s,s:s,s:s,s:I}]}", "secret", secret, "csr_pem", csr, "hardware", hardware,
			 "disks", "name", "vda", "path", "/dev/vda", "serial", "S1", "size_bytes", (json_int_t)1 << 30);
	return call(lb_api_enrol_double, "", LB_ROLE_NONE, NULL, body, ret_reply);
}

static void allow(const char *source, const char *state)
{
	_cleanup_json_ json_t *request = json_object();
	struct lb_reprotect p = {
		.double_name = "web1-double", .name = "web1", .back_name = "web1-back", .request = request};

	snprintf(p.machine, sizeof(p.machine), "%s", source);
	snprintf(p.state, sizeof(p.state), "%s", state);
	assert_int_equal(lb_reprotect_put(site->db, &p), 0);
}

static bool waits(const json_t *reply)
{
	return json_is_string(json_object_get(reply, "wait"));
}

static void a_double_waits_until_reprotect_allows_it_and_keeps_its_machine_when_an_answer_is_lost(void **state)
{
	_cleanup_json_ json_t *early = NULL, *first = NULL, *again = NULL, *late = NULL;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	char source[LB_UUID_TEXT_BYTES];
	int64_t n;

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, source);
	make_double("web1-double");
	assert_int_equal(lb_doubles_asked_ns(site, "web1-double"), 0);
	assert_int_equal(ask(told.secret, "b", HARDWARE_B, &early), 0);
	assert_true(waits(early));
	assert_true(lb_doubles_asked_ns(site, "web1-double") > 0);
	assert_int_equal(lb_db_get_int(site->db, &n, "SELECT count(*) FROM audit", ""), 0);
	assert_int_equal(n, 0);
	allow(source, LB_REPROTECT_ENROLLING);
	assert_int_equal(ask(told.secret, "b", HARDWARE_B, &first), 0);
	assert_int_equal(ask(told.secret, "b", HARDWARE_B, &again), 0);
	assert_string_equal(json_string_value(json_object_get(first, "id")),
			    json_string_value(json_object_get(again, "id")));
	assert_int_equal(lb_reg_machine_find(site->db, "web1-back", &m), 0);
	assert_string_not_equal(m.id, source);
	assert_string_equal(m.policy, "default-failback");
	assert_int_equal(lb_reprotect_find(site->db, "web1-double", &p), 0);
	assert_string_equal(p.state, LB_REPROTECT_ENABLING);
	assert_string_equal(p.back, m.id);
	/* somebody else who got hold of the secret comes too late, and to a machine that goes home nobody is added */
	assert_int_equal(ask(told.secret, "c", HARDWARE_B, NULL), -EACCES);
	assert_non_null(strstr(lb_err_text(), "another key"));
	snprintf(p.state, sizeof(p.state), LB_REPROTECT_HOME);
	assert_int_equal(lb_reprotect_put(site->db, &p), 0);
	assert_int_equal(ask(told.secret, "b", HARDWARE_B, &late), 0);
	assert_true(waits(late));
}

static void a_secret_that_no_double_has_any_more_is_refused(void **state)
{
	_cleanup_json_ json_t *reply = NULL;
	char old[LB_TOLD_HEX_BYTES];

	(void)state;
	make_double("web1-double");
	memcpy(old, told.secret, sizeof(old));
	assert_int_equal(ask(old, "b", HARDWARE_B, &reply), 0);
	make_double("web1-double");
	assert_int_equal(ask(old, "b", HARDWARE_B, NULL), -EACCES);
	site->env->ops->wait_until(env, lb_mono_ns(env) + (LB_DOUBLES_LOOK_MS + 100) * LB_NS_PER_MS, -1);
	assert_int_equal(ask(told.secret, "b", HARDWARE_B, NULL), 0);
	assert_int_equal(ask(old, "b", HARDWARE_B, NULL), -EACCES);
	assert_int_equal(ask("", "b", HARDWARE_B, NULL), -EINVAL);
	unlink(in("vm/web1-double/" LB_TOLD_FILE));
	assert_int_equal(ask(told.secret, "b", HARDWARE_B, NULL), -EACCES);
}

static void a_double_that_is_another_machine_already_is_told_so(void **state)
{
	char source[LB_UUID_TEXT_BYTES], other[LB_UUID_TEXT_BYTES];

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, source);
	enrol_machine("byhand", HARDWARE_B, "b", false, other);
	make_double("web1-double");
	allow(source, LB_REPROTECT_ENROLLING);
	assert_int_equal(ask(told.secret, "c", HARDWARE_B, NULL), -EEXIST);
	assert_non_null(strstr(lb_err_text(), "byhand"));
}

static bool is_silent(const char *machine)
{
	bool silent = false;

	assert_false(lb_job_drained(site, machine, 0, &silent));
	return silent;
}

/* A job that goes on right after a restart must not leave in its cache what was acknowledged. */
static void a_process_server_is_waited_for_that_was_not_heard_since_our_start(void **state)
{
	static const char text[] = "{\"machines\": [{\"id\": \"%s\", \"state\": \"fenced\", \"backlog_bytes\": %d}]}";
	_cleanup_json_ json_t *holds = NULL, *empty = NULL;
	const struct lb_reg_process process = {.id = PROCESS, .name = "process", .port = 9443};
	char machine[LB_UUID_TEXT_BYTES], json[256];
	bool silent = true;

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, machine);
	assert_int_equal(lb_reg_process_put(site->db, &process), 0);
	assert_true(is_silent(machine)); /* it was never given to one */
	assert_int_equal(lb_db_run(site->db, "UPDATE machine SET process = ? WHERE id = ?", "ss", PROCESS, machine), 0);
	assert_false(is_silent(machine));
	site->started_ns -= (LB_DRAIN_HEARD_S + 1) * LB_NS_PER_S;
	assert_true(is_silent(machine));
	snprintf(json, sizeof(json), text, machine, 4096);
	holds = json_loads(json, 0, NULL);
	assert_int_equal(lb_live_process_put(site->live, PROCESS, holds, lb_now_ns(env)), 0);
	assert_false(is_silent(machine));
	snprintf(json, sizeof(json), text, machine, 0);
	empty = json_loads(json, 0, NULL);
	assert_int_equal(lb_live_process_put(site->live, PROCESS, empty, lb_now_ns(env)), 0);
	assert_true(lb_job_drained(site, machine, 0, &silent));
}

static uint64_t ring_of(const char *machine)
{
	_cleanup_json_ json_t *reply = NULL;

	assert_int_equal(call(lb_api_agent_config, machine, LB_ROLE_MACHINE, NULL, NULL, &reply), 0);
	return (uint64_t)json_integer_value(json_object_get(json_object_get(reply, "policy"), "ring_bytes"));
}

static void a_small_doubles_ring_is_a_quarter_of_its_memory_at_most(void **state)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	char source[LB_UUID_TEXT_BYTES];

	(void)state;
	enrol_machine("web1", HARDWARE_A, "a", false, source);
	make_double("web1-double");
	allow(source, LB_REPROTECT_ENROLLING);
	assert_int_equal(ask(told.secret, "b", HARDWARE_B, NULL), 0);
	assert_int_equal(lb_reg_machine_find(site->db, "web1-back", &m), 0);
	json_object_set_new(m.inventory, "memory_bytes", json_integer(160 << 20));
	assert_int_equal(lb_reg_machine_put(site->db, &m), 0);
	assert_int_equal(ring_of(m.id), 32 << 20);
	json_object_set_new(m.inventory, "memory_bytes", json_integer(16 << 20));
	assert_int_equal(lb_reg_machine_put(site->db, &m), 0);
	assert_int_equal(ring_of(m.id), LB_POLICY_RING_BYTES_MIN);
	assert_int_equal(ring_of(source), lb_policy_default.ring_bytes);
}

/* ---- its disks ---- */

static void publish(struct lb_catalog_item *item, const char *id)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};

	snprintf(item->name, sizeof(item->name), "web1");
	assert_int_equal(lb_uuid_parse(id, &item->machine), 0);
	assert_int_equal(lb_vault_keyring(site->vault, &item->machine, true, &ring), 0);
	assert_int_equal(lb_catalog_put(site->vault, item), 0);
}

static void set_disk(struct lb_catalog_disk *d, uint16_t id, const char *name, const char *serial, uint64_t size_bytes)
{
	*d = (struct lb_catalog_disk){.id = id, .size_bytes = size_bytes, .sector_bytes = 512, .boot = id == 0};
	snprintf(d->name, sizeof(d->name), "%s", name);
	snprintf(d->serial, sizeof(d->serial), "%s", serial);
}

static const json_t *disk_of(const struct lb_reg_machine *m, size_t n)
{
	return json_array_get(m->disks, n);
}

static void a_doubles_disks_keep_their_numbers_and_names_by_serial_or_else_by_size_and_order(void **state)
{
	static struct lb_catalog_item item = {.n_disks = 4};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine back = {0};
	struct lb_reprotect p = {.double_name = "web1-double"};

	(void)state;
	assert_int_equal(lb_site_uuid(site, p.machine), 0);
	set_disk(&item.disks[0], 0, "sda", "A-LONG-SERIAL-OF-MORE-THAN-20", 100);
	set_disk(&item.disks[1], 3, "sdb", "", 200);
	set_disk(&item.disks[2], 4, "sdc", "no serial of a VM", 200);
	set_disk(&item.disks[3], 7, "sdd", "S9", 200);
	publish(&item, p.machine);
	back.disks = json_array();
	back.inventory =
		json_pack("{s:[{s:s,s:s,s:I},{s:s,s:s,s:I},{s:s,s:s,s:I},{s:s,s:s,s:I}]}", "disks", "name", "vda",
			  "serial", "S9", "size_bytes", (json_int_t)200, "name", "vdb", "serial", "", "size_bytes",
			  (json_int_t)200, "name", "vdc", "serial", "", "size_bytes", (json_int_t)200, "name", "vdd",
			  "serial", "A-LONG-SERIAL-OF-MOR", "size_bytes", (json_int_t)100);
	assert_int_equal(lb_reprotect_disks(site, &p, &back), 0);
	assert_int_equal(json_array_size(back.disks), 4);
	assert_string_equal(json_string_value(json_object_get(disk_of(&back, 0), "serial")), "A-LONG-SERIAL-OF-MOR");
	assert_string_equal(json_string_value(json_object_get(disk_of(&back, 0), "name")), "sda");
	assert_true(json_is_true(json_object_get(disk_of(&back, 0), "boot")));
	assert_int_equal(json_integer_value(json_object_get(disk_of(&back, 1), "id")), 3);
	assert_string_equal(json_string_value(json_object_get(disk_of(&back, 3), "serial")), "S9");
	assert_int_equal(json_integer_value(json_object_get(disk_of(&back, 3), "id")), 7);
	/* one more of the same size: which of them it is can't be told */
	json_array_append_new(json_object_get(back.inventory, "disks"),
			      json_pack("{s:s,s:s,s:I}", "name", "vde", "serial", "", "size_bytes", (json_int_t)200));
	assert_int_equal(lb_reprotect_disks(site, &p, &back), -ENODEV);
	assert_non_null(strstr(lb_err_text(), "sdb"));
}

/* ---- orders ---- */

static void an_order_that_makes_no_sense_is_refused_before_there_is_a_job(void **state)
{
	_cleanup_json_ json_t *strange = json_pack("{s:b}", "strange", 1), *half = json_pack("{s:s}", "target", "t"),
			      *unknown = json_pack("{s:s,s:s}", "target", "t", "to", "auto"), *none = json_object();
	char job[LB_UUID_TEXT_BYTES];
	int64_t n;

	(void)state;
	assert_int_equal(lb_reprotect_order(site, "", "web1-double", none, "tester", job), -ENOENT);
	make_double("web1-double");
	assert_int_equal(lb_reprotect_order(site, "", "web1-double", strange, "tester", job), -EINVAL);
	assert_int_equal(lb_reprotect_order(site, "", "web1-double", half, "tester", job), -EINVAL);
	assert_int_equal(lb_reprotect_order(site, "", "web1-double", unknown, "tester", job), -ENOENT);
	assert_int_equal(lb_db_get_int(site->db, &n, "SELECT count(*) FROM job", ""), 0);
	assert_int_equal(n, 0);
}

static void what_a_double_is_told_comes_back_whole_or_is_refused(void **state)
{
	static const char *const wrong[] = {
		"", "{}", "{\"version\":2}",
		"{\"version\":1,\"config_url\":\"http://a\",\"ca_fingerprint\":\"00\",\"secret\":\"00\"}"};
	struct lb_told read = {0};

	(void)state;
	make_double("web1-double");
	assert_int_equal(lb_told_read(env, in("vm/web1-double/" LB_TOLD_FILE), &read), 0);
	assert_memory_equal(&read, &told, sizeof(told));
	assert_int_equal(lb_told_write(env, in("vm/web1-double/" LB_TOLD_FILE), &told), -EEXIST);
	for (size_t i = 0; i < LB_ARRAY_LEN(wrong); i++)
		assert_true(lb_told_parse(wrong[i], strlen(wrong[i]), &read) < 0);
	assert_true(lb_told_make(env, "https://a/", site->ca_fingerprint, &read) < 0);
	assert_true(lb_told_make(env, "https://a,b", site->ca_fingerprint, &read) < 0);
}

static void a_target_server_that_has_just_joined_is_waited_for_and_one_that_is_silent_is_not(void **state)
{
	struct lb_targets_server server = {.name = "metal"};
	int64_t now_ns = lb_now_ns(env), began_ns = site->started_ns;
	int64_t lost_ns = now_ns - (LB_TARGETS_LOST_S + 1) * LB_NS_PER_S;

	(void)state;
	site->started_ns = lost_ns;
	server.created_ns = now_ns;
	assert_int_equal(lb_targets_speaks(site, &server), -EAGAIN);
	server.seen_ns = now_ns;
	assert_int_equal(lb_targets_speaks(site, &server), 0);
	server.created_ns = server.seen_ns = lost_ns;
	assert_int_equal(lb_targets_speaks(site, &server), -EHOSTDOWN);
	assert_non_null(strstr(lb_err_text(), "metal has not spoken"));
	/* nobody was heard while this server was down */
	site->started_ns = now_ns;
	assert_int_equal(lb_targets_speaks(site, &server), -EAGAIN);
	site->started_ns = began_ns;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_double_waits_until_reprotect_allows_it_and_keeps_its_machine_when_an_answer_is_lost),
		T(a_secret_that_no_double_has_any_more_is_refused),
		T(a_double_that_is_another_machine_already_is_told_so),
		T(a_process_server_is_waited_for_that_was_not_heard_since_our_start),
		T(a_small_doubles_ring_is_a_quarter_of_its_memory_at_most),
		T(a_doubles_disks_keep_their_numbers_and_names_by_serial_or_else_by_size_and_order),
		T(a_target_server_that_has_just_joined_is_waited_for_and_one_that_is_silent_is_not),
		T(an_order_that_makes_no_sense_is_refused_before_there_is_a_job),
		T(what_a_double_is_told_comes_back_whole_or_is_refused),
	};

	return cmocka_run_group_tests_name("config_reprotect", tests, NULL, NULL);
}
