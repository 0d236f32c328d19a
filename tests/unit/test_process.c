/* SPDX-License-Identifier: Apache-2.0 */
/* Taking segments in: what is acknowledged, what is refused, and what a restart finds. test_process_vault.c has the
 * rest. */
#include "process_help.h"

struct counting {
	const char *end;
	unsigned int n;
};

static int count_one(void *arg, const char *name, bool is_dir)
{
	struct counting *c = arg;
	size_t a = strlen(name), b = strlen(c->end);

	c->n += !is_dir && a >= b && strcmp(name + a - b, c->end) == 0;
	return 0;
}

/* Files of machine a's cache that end so. */
static void count_matching(const char *end, unsigned int *ret_n)
{
	struct counting c = {.end = end};
	char path[256], id[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&site.a.id, id);
	snprintf(path, sizeof(path), "%s/%s", cache_folder, id);
	assert_int_equal(world.ops->list(&world, path, count_one, &c), 0);
	*ret_n = c.n;
}

static unsigned int files(const char *end)
{
	unsigned int n;

	count_matching(end, &n);
	return n;
}

static void cache_path(const char *name, char path[256])
{
	char id[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&site.a.id, id);
	snprintf(path, 256, "%s/%s/%s", cache_folder, id, name);
}

static void what_is_acknowledged_survives_a_kill(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 8192, 1);
	send(&site.a, 4096, 8192, 2);
	site_restart();
	assert_durable(&site.a, 1, 2);
	assert_true(lb_equal_ct(&machine_of(&site.a)->durable.digest, &site.a.prev, sizeof(site.a.prev)));
	assert_int_equal(machine_of(&site.a)->durable.ring_cut, 2000);
	assert_int_equal(machine_of(&site.a)->durable.scan_cursor, 1);
	send(&site.a, 0, 512, 3);
	site_pass_time();
	assert_in_vault(&site.a, 1, 2);
	assert_image(&site.a, 1, 2);
}

static void what_is_acknowledged_survives_a_power_cut(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	assert_false(bytes_at_risk || names_at_risk);
	send(&site.a, 0, 8192, 1);
	assert_false(bytes_at_risk || names_at_risk);
}

static void a_disk_that_does_not_take_it_for_good_acknowledges_nothing(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	fsync_fails = true;
	assert_int_equal(try_send(&site.a, 0, 8192, 1), -EIO);
	assert_int_equal(try_epoch(&site.a, 2), -EIO);
	assert_durable(&site.a, 1, 0);
	fsync_fails = false;
	send(&site.a, 0, 8192, 1);
}

static void a_resend_of_the_same_segment_is_acknowledged_again(void **state)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);

	(void)state;
	begin_epoch(&site.a);
	make_segment(&site.a, 0, 4096, 1, &plain);
	assert_int_equal(send_bytes(&site.a, &plain), 0);
	assert_int_equal(send_bytes(&site.a, &plain), 0);
	assert_durable(&site.a, 1, 1);
	assert_int_equal(files(".hrl"), 1);
	/* and when only the vault has it */
	site_pass_time();
	assert_int_equal(files(".hrl"), 0);
	assert_int_equal(send_bytes(&site.a, &plain), 0);
	assert_durable(&site.a, 1, 1);
}

static void what_was_durable_but_not_acknowledged_is_acknowledged_after_a_restart(void **state)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_digest digest;

	(void)state;
	begin_epoch(&site.a);
	digest = make_segment(&site.a, 0, 4096, 1, &plain);
	assert_int_equal(send_bytes(&site.a, &plain), 0); /* the answer is lost with the server */
	site_restart();
	assert_int_equal(send_bytes(&site.a, &plain), 0);
	acknowledged(&site.a, &digest);
	send(&site.a, 4096, 4096, 2);
	assert_durable(&site.a, 1, 2);
}

static void another_segment_with_an_acknowledged_number_is_refused(void **state)
{
	_cleanup_buf_ struct lb_buf one = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX), other = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);

	(void)state;
	begin_epoch(&site.a);
	make_segment(&site.a, 0, 4096, 1, &one);
	make_segment(&site.a, 0, 4096, 2, &other);
	assert_int_equal(send_bytes(&site.a, &one), 0);
	assert_int_equal(send_bytes(&site.a, &other), -EEXIST);
	site_restart();
	assert_int_equal(send_bytes(&site.a, &other), -EEXIST);
	assert_durable(&site.a, 1, 1);
}

static void a_gap_is_refused_and_the_answer_tells_what_is_durable(void **state)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_http_call c = {.params = {"1", "7"}};
	struct lb_http_reply reply;
	json_t *journal;

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	site.a.seq = 7;
	make_segment(&site.a, 0, 4096, 2, &plain);
	c.body = plain.data;
	c.body_bytes = plain.size_bytes;
	assert_int_equal(call(&site.a, "PUT", "/v1/journal/{}/{}", &c, &reply), 0);
	assert_int_equal(reply.status, 409);
	journal = json_object_get(reply.json, "journal");
	assert_int_equal(json_integer_value(json_object_get(journal, "epoch")), 1);
	assert_int_equal(json_integer_value(json_object_get(journal, "seq")), 0);
	assert_int_equal(json_integer_value(json_object_get(journal, "next_seq")), 1);
	json_decref(reply.json);
	assert_durable(&site.a, 1, 1);
}

static void a_segment_that_continues_another_one_is_refused(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	site.a.prev.bytes[0] ^= 1;
	assert_int_equal(try_send(&site.a, 0, 4096, 2), -EEXIST);
	assert_durable(&site.a, 1, 1);
}

static void an_altered_or_truncated_segment_is_refused(void **state)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);

	(void)state;
	begin_epoch(&site.a);
	make_segment(&site.a, 0, 4096, 1, &plain);
	plain.data[plain.size_bytes - 1] ^= 1;
	assert_int_equal(send_bytes(&site.a, &plain), -EBADMSG);
	assert_non_null(strstr(lb_err_text(), machine_of(&site.a)->id_text));
	plain.data[plain.size_bytes - 1] ^= 1;
	plain.size_bytes--;
	assert_int_equal(send_bytes(&site.a, &plain), -EBADMSG);
	plain.size_bytes++;
	assert_int_equal(send_bytes(&site.a, &plain), 0);
}

static void a_segment_of_another_machine_is_refused(void **state)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);

	(void)state;
	agent_begin(&site.b);
	site_configure();
	site_work();
	begin_epoch(&site.a);
	begin_epoch(&site.b);
	make_segment(&site.a, 0, 4096, 1, &plain);
	assert_int_equal(send_bytes(&site.b, &plain), -EACCES);
}

static void a_write_past_the_end_of_the_disk_is_refused_by_name(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	assert_int_equal(try_send(&site.a, DISK_BYTES - 512, 1024, 1), -EBADMSG);
	assert_non_null(strstr(lb_err_text(), "disk vda"));
	assert_durable(&site.a, 1, 0);
}

static void a_disk_of_another_size_begins_no_epoch(void **state)
{
	_cleanup_json_ json_t *request = epoch_request(&site.a, 1, 2 * DISK_BYTES);

	(void)state;
	assert_int_equal(lb_epoch_begin(machine_of(&site.a), request), -EINVAL);
	assert_non_null(strstr(lb_err_text(), "disk vda"));
	assert_durable(&site.a, 0, 0);
}

static void an_epoch_begins_once_in_order_and_again_for_whoever_lost_the_answer(void **state)
{
	(void)state;
	assert_int_equal(try_epoch(&site.a, 2), -ESTALE);
	begin_epoch(&site.a);
	assert_int_equal(try_epoch(&site.a, 1), 0);
	send(&site.a, 0, 4096, 1);
	begin_epoch(&site.a);
	site_restart();
	assert_durable(&site.a, 2, 0);
	assert_int_equal(try_epoch(&site.a, 2), 0);
	assert_int_equal(try_epoch(&site.a, 1), -ESTALE);
	site.a.prev.bytes[3] ^= 1;
	assert_int_equal(try_epoch(&site.a, 3), -ESTALE);
	assert_non_null(strstr(lb_err_text(), "does not continue"));
}

static void an_epoch_without_a_segment_has_no_seq(void **state)
{
	const struct lb_http_call c = {0};
	struct lb_http_reply reply;

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	begin_epoch(&site.a);
	assert_int_equal(call(&site.a, "GET", "/v1/journal", &c, &reply), 0);
	assert_true(json_is_null(json_object_get(reply.json, "seq")));
	assert_int_equal(json_integer_value(json_object_get(reply.json, "epoch")), 2);
	assert_int_equal(json_integer_value(json_object_get(reply.json, "last_epoch")), 1);
	json_decref(reply.json);
}

static void a_stale_instance_is_told_who_continued(void **state)
{
	struct agent old;
	char text[LB_UUID_TEXT_BYTES];

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	old = site.a;
	random_uuid(&site.a.instance);
	begin_epoch(&site.a);
	lb_uuid_format(&site.a.instance, text);
	assert_int_equal(try_send(&old, 0, 4096, 2), -ESTALE);
	assert_non_null(strstr(lb_err_text(), text));
	/* nor does it get back in by the same number */
	assert_int_equal(try_epoch(&old, 2), -ESTALE);
	assert_non_null(strstr(lb_err_text(), text));
	send(&site.a, 0, 4096, 3);
}

static void a_copy_of_the_machine_is_refused_and_both_are_named(void **state)
{
	struct agent copy;

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	copy = site.a;
	random_uuid(&copy.instance);
	memset(copy.hardware, 'c', 2 * LB_DIGEST_BYTES);
	assert_int_equal(try_epoch(&copy, 2), -EACCES);
	assert_non_null(strstr(lb_err_text(), "cccccccccccccccc"));
	site.a.hardware[16] = '\0';
	assert_non_null(strstr(lb_err_text(), site.a.hardware));
	assert_durable(&site.a, 1, 1);
}

static void an_unknown_machine_and_an_old_certificate_are_refused(void **state)
{
	const struct lb_http_call c = {0};
	struct lb_http_reply reply;
	struct agent stranger = site.a;

	(void)state;
	random_uuid(&stranger.id);
	assert_int_equal(call(&stranger, "GET", "/v1/journal", &c, &reply), -EACCES);
	assert_non_null(strstr(lb_err_text(), "not assigned"));
	stranger = site.a;
	stranger.fingerprint.bytes[0] ^= 1;
	assert_int_equal(call(&stranger, "GET", "/v1/journal", &c, &reply), -EACCES);
	assert_non_null(strstr(lb_err_text(), "certificate"));
	assert_int_equal(call(&site.a, "GET", "/v1/journal", &c, &reply), 0);
	json_decref(reply.json);
}

static void a_disabled_machine_is_refused_until_it_is_enabled(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	site.disabled = true;
	site_configure();
	assert_int_equal(try_send(&site.a, 0, 4096, 1), -EACCES);
	site.disabled = false;
	site_configure();
	send(&site.a, 0, 4096, 1);
}

static void a_removed_machine_leaves_no_key_behind(void **state)
{
	struct lb_key key;
	struct lb_machine *m;

	(void)state;
	begin_epoch(&site.a);
	site.unassigned = true;
	site_configure();
	assert_int_equal(lb_machine_find(site.p, &site.a.id, &m), -EACCES);
	assert_int_equal(lb_vault_machine_key(site.p->vault, &site.a.id, false, &key), -ENOKEY);
	/* and back again */
	site.unassigned = false;
	site_configure();
	site_work();
	assert_durable(&site.a, 1, 0);
}

static void an_entry_that_makes_no_sense_leaves_its_machine_as_it_was(void **state)
{
	_cleanup_json_ json_t *config = site_config();
	json_t *machine = json_array_get(json_object_get(config, "machines"), 0);

	(void)state;
	begin_epoch(&site.a);
	json_object_set_new(machine, "policy", json_pack("{s:i}", "upload_interval_s", 0));
	assert_int_equal(lb_process_configure(site.p, config), 0);
	send(&site.a, 0, 4096, 1);
	/* the key's text is wiped whatever became of it */
	assert_string_equal(json_string_value(json_object_get(machine, "key")), "");
}

static void a_full_disk_acknowledges_nothing_and_goes_on_when_there_is_room(void **state)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_http_call c = {.params = {"1", "0"}};
	struct lb_http_reply reply;
	uint64_t before;
	int r;

	(void)state;
	begin_epoch(&site.a);
	make_segment(&site.a, 0, 4096, 1, &plain);
	c.body = plain.data;
	c.body_bytes = plain.size_bytes;
	before = lb_process_cache_bytes(&site.p->cache);
	disk_full = true;
	r = call(&site.a, "PUT", "/v1/journal/{}/{}", &c, &reply);
	assert_int_equal(lb_http_status_of(r), 507);
	assert_non_null(strstr(lb_err_text(), cache_folder));
	assert_true(reply.retry_after_s > 0);
	assert_durable(&site.a, 1, 0);
	assert_int_equal(files(".hrl"), 0);
	assert_int_equal(files(".tmp"), 0);
	assert_int_equal(lb_process_cache_bytes(&site.p->cache), before);
	disk_full = false;
	assert_int_equal(send_bytes(&site.a, &plain), 0);
}

static void past_80_percent_agents_wait_but_none_is_starved(void **state)
{
	int r = 0;

	(void)state;
	agent_begin(&site.b);
	site.cache_bytes_max = 20u << 20;
	site_restart();
	begin_epoch(&site.a);
	begin_epoch(&site.b);
	vault_read_only = true;
	while (r == 0)
		r = try_send(&site.a, 0, 512 << 10, (uint8_t)site.a.seq);
	assert_int_equal(lb_http_status_of(r), 429);
	assert_non_null(strstr(lb_err_text(), "the vault is behind"));
	assert_in_range(lb_process_cache_bytes(&site.p->cache), 15u << 20, 16u << 20);
	/* the other machine has its share of the last fifth, and no more */
	send(&site.b, 0, 512 << 10, 1);
	for (r = 0; r == 0;)
		r = try_send(&site.b, 0, 512 << 10, (uint8_t)site.b.seq);
	assert_int_equal(r, -EAGAIN);
	assert_in_range(lb_process_cache_bytes(&site.p->cache), 17u << 20, 18u << 20);
	vault_read_only = false;
	site_pass_time();
	send(&site.a, 0, 512 << 10, 9);
	send(&site.b, 0, 512 << 10, 9);
}

static void leftovers_of_a_write_cut_short_are_removed(void **state)
{
	char path[256];

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	cache_path("00000001-0000000001.hrl.0011223344556677.tmp", path);
	assert_int_equal(lb_file_write(&world, path, "half", 4, 0600), 0);
	site_restart();
	assert_int_equal(files(".tmp"), 0);
	assert_durable(&site.a, 1, 1);
	/* the segment went on to the vault: only the epoch's record is counted */
	assert_int_equal(lb_process_cache_bytes(&site.p->cache), LB_CACHE_BLOCK_BYTES);
	send(&site.a, 0, 4096, 2);
}

static void a_second_process_server_is_kept_out_of_the_cache(void **state)
{
	const struct lb_process_options options = {
		.cache_folder = cache_folder, .cache_bytes_max = site.cache_bytes_max, .seal_bytes_max = 16u << 20};
	struct lb_process *second;
	char path[256];

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	cache_path("00000001-0000000001.hrl.0011223344556677.tmp", path);
	assert_int_equal(lb_file_write(&world, path, "half", 4, 0600), 0);
	assert_int_equal(lb_process_new(&world, &options, &second), -EBUSY);
	assert_non_null(strstr(lb_err_text(), cache_folder));
	assert_int_equal(files(".tmp"), 1); /* what the first is writing is left alone */
	site_restart();
	assert_durable(&site.a, 1, 1);
}

static void a_damaged_file_ends_the_journal_before_it_and_is_kept_for_a_look(void **state)
{
	char path[256];
	uint8_t *data;
	size_t size_bytes;

	(void)state;
	begin_epoch(&site.a);
	for (uint8_t i = 0; i < 4; i++)
		send(&site.a, 4096u * i, 4096, i);
	cache_path("00000001-0000000002.hrl", path);
	assert_int_equal(lb_file_read(&world, path, 1u << 20, &data, &size_bytes), 0);
	data[LB_HRL_HEADER_BYTES + 3] ^= 1;
	assert_int_equal(lb_file_write(&world, path, data, size_bytes, 0600), 0);
	free(data);
	site_restart();
	assert_durable(&site.a, 1, 2);
	assert_int_equal(files(".bad"), 2);
	assert_non_null(strstr(machine_of(&site.a)->damage, "lost acknowledged data from epoch 1, segment 2"));
	site_pass_time();
	assert_in_vault(&site.a, 1, 1);
}

static void a_truncated_file_ends_the_journal_before_it(void **state)
{
	char path[256];

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	send(&site.a, 0, 4096, 2);
	cache_path("00000001-0000000001.hrl", path);
	assert_int_equal(truncate(path, 700), 0);
	site_restart();
	assert_durable(&site.a, 1, 1);
	assert_int_equal(files(".bad"), 1);
}

static void a_point_bears_the_time_of_its_cut_and_never_a_later_one_than_now(void **state)
{
	int64_t now, cut;

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	now = lb_now_ns(&world);
	cut = receipt_of(&site.a) + 1;
	next_cut_ns = cut;
	send(&site.a, 0, 4096, 2);
	assert_int_equal(receipt_of(&site.a), cut);
	next_cut_ns = now + DAY_NS;
	send(&site.a, 0, 4096, 3);
	assert_true(receipt_of(&site.a) < now + DAY_NS / 2);
	next_cut_ns = 1;
	send(&site.a, 0, 4096, 4);
	assert_true(receipt_of(&site.a) > cut);
	next_cut_ns = 0;
}

static void receipts_never_go_back_when_the_clock_jumps_a_day(void **state)
{
	int64_t before, last;

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	before = receipt_of(&site.a);
	now_shift_ns = DAY_NS;
	send(&site.a, 0, 4096, 2);
	last = receipt_of(&site.a);
	assert_true(last >= before + DAY_NS);
	now_shift_ns = -DAY_NS;
	send(&site.a, 0, 4096, 3);
	assert_true(receipt_of(&site.a) > last);
	last = receipt_of(&site.a);
	/* the floor is as durable as the segments are, in the cache as in the vault */
	site_restart();
	send(&site.a, 0, 4096, 4);
	assert_true(receipt_of(&site.a) > last);
	site_pass_time();
	assert_in_vault(&site.a, 1, 3);
	last = receipt_of(&site.a);
	site_restart();
	send(&site.a, 0, 4096, 5);
	assert_true(receipt_of(&site.a) > last);
	site_pass_time();
	assert_image(&site.a, 1, 4);
}

static void the_gate_lets_a_large_one_in_alone_and_keeps_the_order(void **state)
{
	struct lb_gate g;

	(void)state;
	lb_gate_init(&g, 100);
	lb_gate_enter(&g, 1000);
	lb_gate_leave(&g, 1000);
	lb_gate_enter(&g, 60);
	lb_gate_enter(&g, 40);
	assert_int_equal(g.bytes, 100);
	lb_gate_leave(&g, 60);
	lb_gate_leave(&g, 40);
	lb_gate_destroy(&g);
}

#define T(name) cmocka_unit_test_setup_teardown(name, site_begin, site_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_acknowledged_survives_a_kill),
		T(what_is_acknowledged_survives_a_power_cut),
		T(a_disk_that_does_not_take_it_for_good_acknowledges_nothing),
		T(a_resend_of_the_same_segment_is_acknowledged_again),
		T(what_was_durable_but_not_acknowledged_is_acknowledged_after_a_restart),
		T(another_segment_with_an_acknowledged_number_is_refused),
		T(a_gap_is_refused_and_the_answer_tells_what_is_durable),
		T(a_segment_that_continues_another_one_is_refused),
		T(an_altered_or_truncated_segment_is_refused),
		T(a_segment_of_another_machine_is_refused),
		T(a_write_past_the_end_of_the_disk_is_refused_by_name),
		T(a_disk_of_another_size_begins_no_epoch),
		T(an_epoch_begins_once_in_order_and_again_for_whoever_lost_the_answer),
		T(an_epoch_without_a_segment_has_no_seq),
		T(a_stale_instance_is_told_who_continued),
		T(a_copy_of_the_machine_is_refused_and_both_are_named),
		T(an_unknown_machine_and_an_old_certificate_are_refused),
		T(a_disabled_machine_is_refused_until_it_is_enabled),
		T(a_removed_machine_leaves_no_key_behind),
		T(an_entry_that_makes_no_sense_leaves_its_machine_as_it_was),
		T(a_full_disk_acknowledges_nothing_and_goes_on_when_there_is_room),
		T(past_80_percent_agents_wait_but_none_is_starved),
		T(leftovers_of_a_write_cut_short_are_removed),
		T(a_second_process_server_is_kept_out_of_the_cache),
		T(a_damaged_file_ends_the_journal_before_it_and_is_kept_for_a_look),
		T(a_truncated_file_ends_the_journal_before_it),
		T(a_point_bears_the_time_of_its_cut_and_never_a_later_one_than_now),
		T(receipts_never_go_back_when_the_clock_jumps_a_day),
		T(the_gate_lets_a_large_one_in_alone_and_keeps_the_order),
	};

	return cmocka_run_group_tests_name("process", tests, world_begin, world_end);
}
