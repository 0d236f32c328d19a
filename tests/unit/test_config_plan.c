/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery plans as jobs: order, failures, people, conflicts, kills. The machines' own jobs are the test's: what is
 * asked here is when they are begun and what becomes of the plan. Doubles that run are tests/e2e/test_plan.py.
 */
#include "config_site.h"

#include "config/plans.h"
#include "hrl/hrl.h"
#include "vault/journal.h"

#define GROUPS 8
#define PER_GROUP 13 /* 104 machines */

static pthread_mutex_t told_lock = PTHREAD_MUTEX_INITIALIZER;
static char begun[256][16];
static unsigned int n_begun, now_running, most_running;
static atomic_uint left_of_group[GROUPS];
static atomic_bool out_of_order;
static char failing[16], endless[16], asked_point[64];

static bool together;

static unsigned int seen_running(void)
{
	LB_LOCK_SCOPE(&told_lock);
	return most_running;
}

/* What stands for the failover of one machine, whose name tells its group: "m<group>-<n>". */
static int run_machine(struct lb_job *job)
{
	const char *name = json_string_value(json_object_get(job->request, "machine"));
	unsigned int group = (unsigned int)(name[1] - '0');
	int r;

	pthread_mutex_lock(&told_lock);
	if (n_begun < 256)
		snprintf(begun[n_begun++], sizeof(begun[0]), "%s", name);
	snprintf(asked_point, sizeof(asked_point), "%s", json_string_value(json_object_get(job->request, "point")));
	now_running++;
	most_running = LB_MAX(most_running, now_running);
	pthread_mutex_unlock(&told_lock);
	for (unsigned int g = 0; g < group && g < GROUPS; g++)
		if (atomic_load(&left_of_group[g]) > 0)
			atomic_store(&out_of_order, true);
	r = lb_job_step(job, "start");
	/* of the first group none ends before it has seen another */
	while (r == 0 && together && group == 0 && seen_running() < 2)
		r = lb_job_step(job, "meet");
	while (r == 0 && strcmp(name, endless) == 0)
		r = lb_job_step(job, "go on");
	pthread_mutex_lock(&told_lock);
	now_running--;
	pthread_mutex_unlock(&told_lock);
	if (group < GROUPS)
		atomic_fetch_sub(&left_of_group[group], 1);
	if (r == 0 && strcmp(name, failing) == 0)
		return lb_fail(-EIO, "the disk of %s is torn", name);
	return r;
}

static const struct lb_job_kind kinds[] = {
	{"failover", run_machine},
	{"plan-test", lb_plan_run_test},
	{"plan-failover", lb_plan_run_failover},
	{NULL, NULL},
};

/* A machine in the vault, with one recovery point. */
static void make_machine(const char *name, unsigned int n)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX), sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *segment = NULL;
	struct lb_catalog_item *item = calloc(1, sizeof(*item));
	struct lb_journal_writer *writer;
	struct lb_hrl_builder *builder;
	struct lb_sealed_segment one;
	struct lb_hrl_header header = {.vault = *lb_vault_id(site->vault), .epoch = 1, .flags = LB_HRL_POINT};
	uint8_t salt[LB_SALT_BYTES];
	struct lb_digest digest;
	struct lb_key key;

	assert_non_null(item);
	memset(item->machine.bytes, 0x4d, sizeof(item->machine.bytes));
	item->machine.bytes[15] = (uint8_t)n;
	header.machine = item->machine;
	header.time_first_ns = header.time_last_ns = lb_now_ns(env);
	memset(header.instance.bytes, 1, sizeof(header.instance.bytes));
	snprintf(item->name, sizeof(item->name), "%s", name);
	snprintf(item->firmware, sizeof(item->firmware), "bios");
	item->n_disks = 1;
	item->disks[0] =
		(struct lb_catalog_disk){.name = "vda", .size_bytes = 1 << 20, .sector_bytes = 512, .boot = true};
	assert_int_equal(lb_vault_machine_key(site->vault, &item->machine, true, &key), 0);
	assert_int_equal(lb_catalog_put(site->vault, item), 0);
	assert_int_equal(lb_journal_writer_open(site->vault, &item->machine, &writer), 0);
	assert_int_equal(lb_journal_epoch_begin(writer, 1), 0);
	assert_int_equal(lb_hrl_builder_new(LB_HRL_DATA_BYTES_NOMINAL, &builder), 0);
	assert_int_equal(lb_hrl_builder_finish(builder, &header, &plain, &digest), 0);
	assert_int_equal(lb_hrl_open_plain(plain.data, plain.size_bytes, &segment), 0);
	assert_int_equal(env->ops->random(env, salt, sizeof(salt)), 0);
	lb_salt_mark(salt, 0);
	assert_int_equal(lb_hrl_seal(segment, &key, lb_now_ns(env), salt, 1, &sealed), 0);
	one = (struct lb_sealed_segment){.data = sealed.data, .size_bytes = sealed.size_bytes};
	assert_int_equal(lb_journal_append(writer, &one, 1), 0);
	lb_journal_writer_free(writer);
	lb_hrl_builder_free(builder);
	free(item);
}

static json_t *group_of(unsigned int g, unsigned int n)
{
	json_t *machines = json_array();
	char name[16];

	for (unsigned int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "m%u-%u", g, i);
		json_array_append_new(machines, json_string(name));
	}
	atomic_store(&left_of_group[g], n);
	return json_pack("{s:o}", "machines", machines);
}

static json_t *plan_of(unsigned int groups, unsigned int n, bool make)
{
	json_t *list = json_array();
	char name[16];

	for (unsigned int g = 0; g < groups; g++) {
		for (unsigned int i = 0; make && i < n; i++) {
			snprintf(name, sizeof(name), "m%u-%u", g, i);
			make_machine(name, g * n + i);
		}
		json_array_append_new(list, group_of(g, n));
	}
	return json_pack("{s:s,s:o}", "name", "shop", "groups", list);
}

static json_t *group(json_t *plan, size_t n)
{
	return json_array_get(json_object_get(plan, "groups"), n);
}

static int make_plan(json_t *plan)
{
	_cleanup_json_ json_t *reply = NULL;

	return call(lb_api_plan_create, "ann", LB_ROLE_ADMIN, NULL, plan, &reply);
}

static void order(const char *who, lb_http_handler handler, char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_json_ json_t *reply = NULL;

	if (call(handler, who, LB_ROLE_OPERATOR, "shop", NULL, &reply) < 0)
		fail_msg("%s", lb_err_text());
	snprintf(id, LB_UUID_TEXT_BYTES, "%s", json_string_value(json_object_get(reply, "job")));
}

static json_t *job_in_state(const char *id, const char *state)
{
	for (;;) {
		json_t *job;
		const char *is;

		assert_int_equal(lb_job_json(site, id, &job), 0);
		is = json_string_value(json_object_get(job, "state"));
		if (strcmp(is, state) == 0)
			return job;
		if (json_integer_value(json_object_get(job, "ended_ns")) != 0)
			fail_msg("job is %s: %s", is, json_string_value(json_object_get(job, "error")));
		json_decref(job);
		sched_yield();
	}
}

static int setup_plan(void **state)
{
	n_begun = now_running = most_running = 0;
	failing[0] = endless[0] = '\0';
	together = false;
	atomic_store(&out_of_order, false);
	return setup(state);
}

#define P(f) cmocka_unit_test_setup_teardown(f, setup_plan, teardown)

static void groups_come_one_after_another_and_their_machines_together(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(GROUPS, PER_GROUP, true), *job = NULL;
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	together = true;
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	order("ann", lb_api_plan_failover, id);
	job = job_in_state(id, "done");
	assert_int_equal(n_begun, GROUPS * PER_GROUP);
	assert_false(atomic_load(&out_of_order));
	assert_true(most_running > 1 && most_running <= LB_JOBS_RUNNING_MAX);
	assert_int_equal(json_object_size(json_object_get(json_object_get(job, "result"), "machines")),
			 GROUPS * PER_GROUP);
	lb_jobs_stop(jobs);
}

static void a_machine_that_fails_ends_the_plan_after_its_group(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(3, 2, true), *job = NULL;
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	strcpy(failing, "m1-0");
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	order("ann", lb_api_plan_failover, id);
	job = job_in_state(id, "failed");
	assert_non_null(strstr(json_string_value(json_object_get(job, "error")), "the disk of m1-0 is torn"));
	assert_int_equal(n_begun, 4); /* its neighbour was not stopped, the third group never begun */
	lb_jobs_stop(jobs);
}

static void a_group_may_let_the_plan_go_on(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(3, 2, true), *job = NULL;
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	strcpy(failing, "m1-0");
	json_object_set_new(group(plan, 1), "on_failure", json_string("continue"));
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	order("ann", lb_api_plan_failover, id);
	job = job_in_state(id, "done");
	assert_int_equal(n_begun, 6);
	assert_int_equal(json_array_size(json_object_get(json_object_get(job, "result"), "warnings")), 1);
	lb_jobs_stop(jobs);
}

static void every_group_has_the_point_that_the_first_one_had(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(2, 1, true), *body = json_pack("{s:s}", "point", "2100-01-01T00:00:00Z");
	_cleanup_json_ json_t *reply = NULL;
	struct lb_jobs *jobs;

	(void)state;
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	assert_int_equal(call(lb_api_plan_failover, "ann", LB_ROLE_OPERATOR, "shop", body, &reply), 0);
	json_decref(job_in_state(json_string_value(json_object_get(reply, "job")), "done"));
	assert_string_equal(asked_point, "1:0"); /* a position, whatever becomes newer meanwhile */
	lb_jobs_stop(jobs);
}

static int find_pin(const char *machine, const char *name)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	struct lb_point point;

	assert_non_null(item);
	assert_int_equal(lb_catalog_find(site->vault, machine, item), 0);
	return lb_point_find(site->vault, &item->machine, name, &point);
}

/* A plan that waits for a person before its second group has pinned the points of both; at its end they are let go. */
static void hold_points(bool cancel)
{
	_cleanup_json_ json_t *plan = plan_of(2, 1, true), *body = json_pack("{s:s}", "point", "2100-01-01T00:00:00Z");
	_cleanup_json_ json_t *reply = NULL, *none = json_pack("{s:s}", "action", "none");
	const char *id;
	struct lb_jobs *jobs;
	char pin[64];

	json_object_set_new(group(plan, 1), "before", json_pack("[{s:s}]", "manual", "Move the cable"));
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	assert_int_equal(call(lb_api_plan_failover, "ann", LB_ROLE_OPERATOR, "shop", body, &reply), 0);
	id = json_string_value(json_object_get(reply, "job"));
	snprintf(pin, sizeof(pin), "plan-%s", id);
	while (call(lb_api_plan_confirm, "bob", LB_ROLE_OPERATOR, "shop", none, NULL) !=
	       -ESTALE) /* it waits for another */
		sched_yield();
	assert_int_equal(find_pin("m0-0", pin), 0);
	assert_int_equal(find_pin("m1-0", pin), 0);
	if (cancel)
		assert_int_equal(lb_job_cancel(site, id), 0);
	else
		assert_int_equal(call(lb_api_plan_confirm, "bob", LB_ROLE_OPERATOR, "shop", NULL, NULL), 0);
	json_decref(job_in_state(id, cancel ? "cancelled" : "done"));
	assert_int_equal(find_pin("m0-0", pin), -ENOENT);
	assert_int_equal(find_pin("m1-0", pin), -ENOENT);
	lb_jobs_stop(jobs);
}

static void the_points_of_groups_that_wait_are_held_until_the_plan_is_done(void **state)
{
	(void)state;
	hold_points(false);
}

static void the_points_of_a_plan_that_is_cancelled_are_let_go(void **state)
{
	(void)state;
	hold_points(true);
}

static void a_manual_action_waits_for_a_person_over_restarts_and_holds_no_thread(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(2, 1, true), *wrong = json_pack("{s:s}", "action", "1-after-1");
	_cleanup_json_ json_t *reply = NULL, *again = NULL;
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	json_object_set_new(group(plan, 1), "before",
			    json_pack("[{s:s,s:s}]", "manual", "Move the cable", "for", "test"));
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	assert_int_equal(call(lb_api_plan_confirm, "ann", LB_ROLE_OPERATOR, "shop", NULL, NULL), -ENOENT);
	order("ann", lb_api_plan_test, id);
	json_decref(job_in_state(id, "waiting"));
	/* the first group's machine may still be under way: a waiting job waits for either */
	for (;;) {
		_cleanup_json_ json_t *job = NULL;

		assert_int_equal(lb_job_json(site, id, &job), 0);
		if (json_is_object(json_object_get(json_object_get(job, "result"), "waiting")))
			break;
		sched_yield();
	}
	lb_jobs_stop(jobs);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	assert_int_equal(n_begun, 1);
	assert_int_equal(call(lb_api_plan_confirm, "bob", LB_ROLE_OPERATOR, "shop", wrong, NULL), -ESTALE);
	assert_int_equal(call(lb_api_plan_confirm, "bob", LB_ROLE_OPERATOR, "shop", NULL, &reply), 0);
	json_decref(job_in_state(id, "done"));
	assert_int_equal(n_begun, 2);
	lb_jobs_stop(jobs);
}

static void of_two_operators_the_second_learns_who_was_first(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(1, 1, true);
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	strcpy(endless, "m0-0");
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	order("ann", lb_api_plan_failover, id);
	assert_int_equal(call(lb_api_plan_test, "bob", LB_ROLE_OPERATOR, "shop", NULL, NULL), -EEXIST);
	assert_non_null(strstr(lb_err_text(), "ordered by ann"));
	assert_non_null(strstr(lb_err_text(), id));
	assert_int_equal(call(lb_api_plan_remove, "bob", LB_ROLE_OPERATOR, "shop", NULL, NULL), -EEXIST);
	assert_int_equal(lb_job_cancel(site, id), 0);
	json_decref(job_in_state(id, "cancelled"));
	lb_jobs_stop(jobs);
}

static void a_cancelled_plan_ends_when_its_machines_have(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(2, 2, true), *job = NULL;
	const json_t *one;
	const char *name;
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	strcpy(endless, "m0-1");
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	order("ann", lb_api_plan_test, id);
	json_decref(job_in_state(id, "waiting"));
	assert_int_equal(lb_job_cancel(site, id), 0);
	job = job_in_state(id, "cancelled");
	json_object_foreach(json_object_get(json_object_get(job, "result"), "machines"), name, one)
	{
		const char *is = json_string_value(json_object_get(one, "state"));

		assert_true(strcmp(is, "done") == 0 || strcmp(is, "cancelled") == 0);
	}
	assert_true(n_begun <= 2);
	lb_jobs_stop(jobs);
}

static void a_plan_goes_on_after_its_server_was_stopped_in_its_midst(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(3, 2, true);
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	strcpy(endless, "m1-1");
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	order("ann", lb_api_plan_failover, id);
	for (bool there = false; !there;) {
		pthread_mutex_lock(&told_lock);
		there = n_begun == 4;
		pthread_mutex_unlock(&told_lock);
		sched_yield();
	}
	lb_jobs_stop(jobs);
	endless[0] = '\0';
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	json_decref(job_in_state(id, "done"));
	assert_true(n_begun == 7 || n_begun == 8); /* what was in its midst began again, and nothing else */
	lb_jobs_stop(jobs);
}

static void a_point_or_machine_that_is_not_there_is_found_before_anything_begins(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(2, 2, true), *reply = NULL, *job = NULL;
	_cleanup_json_ json_t *stranger = plan_of(1, 1, false), *body = json_pack("{s:s}", "point", "3:77");
	struct lb_jobs *jobs;

	(void)state;
	json_array_append_new(json_object_get(group(stranger, 0), "machines"), json_string("nobody"));
	assert_int_equal(make_plan(stranger), -ENOENT);
	assert_non_null(strstr(lb_err_text(), "nobody"));
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(make_plan(plan), -EEXIST);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	assert_int_equal(call(lb_api_plan_failover, "ann", LB_ROLE_OPERATOR, "shop", body, &reply), 0);
	job = job_in_state(json_string_value(json_object_get(reply, "job")), "failed");
	assert_non_null(strstr(json_string_value(json_object_get(job, "error")), "nothing was begun"));
	assert_int_equal(n_begun, 0);
	lb_jobs_stop(jobs);
}

static void refused(const char *text, const char *part)
{
	_cleanup_json_ json_t *body = json_loads(text, 0, NULL);
	json_t *plan;

	assert_non_null(body);
	assert_int_equal(lb_plan_read(body, &plan), -EINVAL);
	if (strstr(lb_err_text(), part) == NULL)
		fail_msg("%s", lb_err_text());
}

static void a_plan_that_makes_no_sense_is_refused_with_the_place(void **state)
{
	(void)state;
	refused("{\"name\": \"shop\"}", "groups");
	refused("{\"name\": \"../up\", \"groups\": [{\"machines\": [\"a\"]}]}", "plan");
	refused("{\"name\": \"s\", \"groups\": [{\"machines\": []}]}", "no machine");
	refused("{\"name\": \"s\", \"groups\": [{\"machines\": [\"a\"]}, {\"machines\": [\"a\"]}]}", "group 2");
	refused("{\"name\": \"s\", \"groups\": [{\"machine\": [\"a\"]}]}", "\"machine\"");
	refused("{\"name\": \"s\", \"groups\": [{\"machines\": [{\"machine\": \"a\", \"memroy\": 1}]}]}", "memroy");
	refused("{\"name\": \"s\", \"groups\": [{\"machines\": [\"a\"], \"after\": [{\"script\": \"/bin/rm\"}]}]}",
		"after 1");
	refused("{\"name\": \"s\", \"groups\": [{\"machines\": [\"a\"], \"after\": [{\"script\": \"x\", \"timeout_s\": "
		"0}]}]}",
		"timeout_s");
	refused("{\"name\": \"s\", \"groups\": [{\"machines\": [\"a\"], \"before\": [{\"manual\": \"\"}]}]}", "manual");
}

static void a_way_home_that_makes_no_sense_is_refused_with_the_machine(void **state)
{
	static const char *const homes[][2] = {
		{"3", "\"home\" is an object"},
		{"{\"tagret\": \"away\"}", "tagret"},
		{"{\"target\": \"away\"}", "go together"},
		{"{\"to\": \"auto\"}", "go together"},
		{"{\"target\": 1, \"to\": \"auto\"}", "target"},
		{"{\"target\": \"away\", \"to\": {}}", "\"to\""},
		{"{\"target\": \"away\", \"to\": {\"vda\": \"dev\"}}", "\"to\""},
		{"{\"target\": \"away\", \"to\": \"somewhere\"}", "\"to\""},
		{"{\"undo_points\": -1}", "undo_points"},
		{"{\"wait_s\": 86401}", "wait_s"},
		{"{\"boot\": {}}", "boot"},
		{"{\"boot\": {\"hook\": \"on\", \"domain\": \"a\"}}", "boot"},
		{"{\"boot\": {\"hook\": \"on\", \"after\": 3}}", "after"},
	};
	char text[300];

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(homes); i++) {
		snprintf(text, sizeof(text),
			 "{\"name\": \"s\", \"groups\": [{\"machines\": [{\"machine\": \"a\", \"home\": %s}]}]}",
			 homes[i][0]);
		refused(text, homes[i][1]);
		assert_non_null(strstr(lb_err_text(), "machine a"));
	}
	refused("{\"name\": \"s\", \"groups\": [{\"machines\": [{\"machine\": \"a\", \"home\": {\"target\": \"t\", "
		"\"to\":"
		" {\"vda\": \"/dev/sda\"}}}]}, {\"machines\": [{\"machine\": \"b\", \"home\": {\"target\": \"t\", "
		"\"to\":"
		" {\"vdb\": \"/dev/sda\"}}}]}]}",
		"machines a and b would both be written onto /dev/sda");
}

static void what_an_order_says_of_a_way_home_counts_before_what_the_plan_says(void **state)
{
	_cleanup_json_ json_t *body =
		json_pack("{s:s,s:[{s:[s,{s:s,s:{s:s,s:{s:s},s:b}}]}]}", "name", "s", "groups", "machines", "a",
			  "machine", "b", "home", "target", "t", "to", "vda", "/dev/sda", "overwrite", 1);
	_cleanup_json_ json_t *homes = json_pack("{s:{s:{s:s}},s:{s:{s:s},s:i}}", "b", "to", "vda", "/dev/sdb", "a",
						 "boot", "hook", "on", "wait_s", 7);
	_cleanup_json_ json_t *unknown = json_pack("{s:{}}", "nobody"), *plan = NULL, *there = NULL, *back = NULL;
	const json_t *machines;

	(void)state;
	assert_int_equal(lb_plan_read(body, &plan), 0);
	assert_int_equal(lb_plan_homes_set(plan, unknown), -ENOENT);
	assert_int_equal(lb_plan_homes_set(plan, homes), 0);
	machines = json_object_get(lb_plan_group(plan, 0), "machines");
	assert_int_equal(lb_plan_reprotect_order(json_array_get(machines, 1), &there), 0);
	assert_string_equal(json_string_value(json_object_get(there, "target")), "t");
	assert_string_equal(json_string_value(json_object_get(json_object_get(there, "to"), "vda")), "/dev/sdb");
	assert_true(json_is_true(json_object_get(there, "overwrite")));
	assert_int_equal(lb_plan_failback_order(json_array_get(machines, 0), &back), 0);
	assert_int_equal(json_integer_value(json_object_get(back, "wait_s")), 7);
	assert_int_equal(json_object_size(back), 2);
}

static void no_action_that_is_for_the_way_there_is_done_on_the_way_home(void **state)
{
	_cleanup_json_ json_t *both = json_pack("{s:s}", "for", "both"), *plain = json_object(),
			      *back = json_pack("{s:s}", "for", "failback"), *test = json_pack("{s:s}", "for", "test");

	(void)state;
	assert_true(lb_plan_action_applies(both, "test") && lb_plan_action_applies(both, "failover"));
	assert_true(lb_plan_action_applies(plain, "test") && lb_plan_action_applies(test, "test"));
	assert_false(lb_plan_action_applies(both, "failback") || lb_plan_action_applies(plain, "failback"));
	assert_false(lb_plan_action_applies(back, "failover") || lb_plan_action_applies(back, "test"));
	assert_true(lb_plan_action_applies(back, "failback"));
}

/* ---- scripts ---------------------------------------------------------------------------------------------------- */

static void write_hook(const char *name, const char *text, mode_t mode)
{
	char path[64];

	mkdir(in("hooks"), 0755);
	snprintf(path, sizeof(path), "hooks/%s", name);
	write_text(path, text, mode);
	assert_int_equal(chmod(in(path), mode), 0);
	free(site->settings.hook_folder);
	site->settings.hook_folder = strdup(in("hooks"));
}

static void scripts_run_where_the_plan_says_and_know_what_it_does(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(2, 1, true);
	_cleanup_free_ uint8_t *text = NULL;
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES], script[400];
	size_t size_bytes;

	(void)state;
	snprintf(script, sizeof(script),
		 "#!/bin/sh\necho \"$LIFEBOAT_PLAN $LIFEBOAT_GROUP $LIFEBOAT_KIND $LIFEBOAT_PHASE\" >> %s\n",
		 in("said"));
	write_hook("note", script, 0755);
	write_hook("fails", "#!/bin/sh\necho no such switch\nexit 3\n", 0755);
	json_object_set_new(group(plan, 0), "name", json_string("databases"));
	json_object_set_new(
		group(plan, 0), "after",
		json_pack("[{s:s},{s:s,s:s}]", "script", "note", "script", "fails", "on_failure", "continue"));
	json_object_set_new(group(plan, 1), "before",
			    json_pack("[{s:s},{s:s,s:s}]", "script", "note", "script", "note", "for", "failover"));
	assert_int_equal(make_plan(plan), 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	order("ann", lb_api_plan_test, id);
	json_decref(job_in_state(id, "done"));
	assert_int_equal(lb_file_read(env, in("said"), 4096, &text, &size_bytes), 0);
	assert_string_equal((char *)text, "shop databases test after\nshop group 2 test before\n");
	lb_jobs_stop(jobs);
}

/* A plan whose first group's script hangs, with its time limit. */
static void hang(int timeout_s)
{
	_cleanup_json_ json_t *plan = plan_of(2, 1, n_begun == 0), *job = NULL;
	char id[LB_UUID_TEXT_BYTES], said[64];

	json_object_set_new(group(plan, 0), "after",
			    json_pack("[{s:s,s:i}]", "script", "hangs", "timeout_s", timeout_s));
	assert_int_equal(make_plan(plan), 0);
	order("ann", lb_api_plan_test, id);
	job = job_in_state(id, "failed");
	snprintf(said, sizeof(said), "has not ended within %d s", timeout_s);
	assert_non_null(strstr(json_string_value(json_object_get(job, "error")), said));
	assert_int_equal(lb_reg_plan_remove(site->db, "shop"), 0);
}

static void a_script_that_hangs_is_ended_with_what_it_started(void **state)
{
	struct lb_jobs *jobs;
	char script[600];
	_cleanup_free_ uint8_t *pid = NULL;
	size_t size_bytes;
	int ordered = 0;

	(void)state;
	snprintf(script, sizeof(script), "#!/bin/sh\nsleep 1000 &\necho $! > %s\nmv %s %s\nwait\n", in("pid.new"),
		 in("pid.new"), in("pid"));
	write_hook("hangs", script, 0755);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	/* on a busy machine it may be ended before it has started anything */
	for (int timeout_s = 1; access(in("pid"), F_OK) != 0; timeout_s *= 4, ordered++)
		hang(timeout_s);
	assert_int_equal(n_begun, ordered);
	assert_int_equal(lb_file_read(env, in("pid"), 64, &pid, &size_bytes), 0);
	while (kill(atoi((char *)pid), 0) == 0) { /* dead, and reaped by whoever adopts orphans */
		char path[64], line[512] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/stat", atoi((char *)pid));
		f = fopen(path, "r");
		if (f == NULL || fgets(line, sizeof(line), f) == NULL || strstr(line, ") Z ") != NULL) {
			if (f != NULL)
				fclose(f);
			break;
		}
		fclose(f);
		sched_yield();
	}
	lb_jobs_stop(jobs);
}

static void a_script_that_others_could_change_is_not_run(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(1, 1, true);

	(void)state;
	write_hook("open", "#!/bin/sh\n", 0777);
	json_object_set_new(group(plan, 0), "after", json_pack("[{s:s}]", "script", "open"));
	assert_int_equal(make_plan(plan), -EACCES);
	json_object_set_new(group(plan, 0), "after", json_pack("[{s:s}]", "script", "missing"));
	assert_int_equal(make_plan(plan), -ENOENT);
	assert_non_null(strstr(lb_err_text(), "missing"));
}

static void plans_come_back_from_the_vault(void **state)
{
	_cleanup_json_ json_t *plan = plan_of(2, 1, true), *again = NULL;
	struct lb_site *other;
	unsigned int n;
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(make_plan(plan), 0);
	lb_site_free(site);
	snprintf(path, sizeof(path), "%s", in("state/config.db"));
	assert_int_equal(unlink(path), 0);
	other = open_site();
	site = other;
	assert_int_equal(lb_vault_copy_restore(site, &n), 0);
	assert_int_equal(lb_reg_plan_get(site->db, "shop", &again), 0);
	assert_int_equal(lb_plan_groups(again), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		P(groups_come_one_after_another_and_their_machines_together),
		P(a_machine_that_fails_ends_the_plan_after_its_group),
		P(a_group_may_let_the_plan_go_on),
		P(every_group_has_the_point_that_the_first_one_had),
		P(the_points_of_groups_that_wait_are_held_until_the_plan_is_done),
		P(the_points_of_a_plan_that_is_cancelled_are_let_go),
		P(a_manual_action_waits_for_a_person_over_restarts_and_holds_no_thread),
		P(of_two_operators_the_second_learns_who_was_first),
		P(a_cancelled_plan_ends_when_its_machines_have),
		P(a_plan_goes_on_after_its_server_was_stopped_in_its_midst),
		P(a_point_or_machine_that_is_not_there_is_found_before_anything_begins),
		P(a_plan_that_makes_no_sense_is_refused_with_the_place),
		P(a_way_home_that_makes_no_sense_is_refused_with_the_machine),
		P(what_an_order_says_of_a_way_home_counts_before_what_the_plan_says),
		P(no_action_that_is_for_the_way_there_is_done_on_the_way_home),
		P(scripts_run_where_the_plan_says_and_know_what_it_does),
		P(a_script_that_hangs_is_ended_with_what_it_started),
		P(a_script_that_others_could_change_is_not_run),
		P(plans_come_back_from_the_vault),
	};

	return cmocka_run_group_tests_name("config_plan", tests, NULL, NULL);
}
