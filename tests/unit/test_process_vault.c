/* SPDX-License-Identifier: Apache-2.0 */
/* Bringing segments into the vault: order, failures, fences, comparing, heartbeats and reports. */
#include "process_help.h"

static void segments_go_into_the_vault_in_order_and_leave_the_cache(void **state)
{
	uint64_t record_bytes;

	(void)state;
	begin_epoch(&site.a);
	site_work();
	record_bytes = lb_process_cache_bytes(&site.p->cache);
	for (unsigned int i = 0; i < 40; i++)
		send(&site.a, 4096u * (i * 7 % 200), 8192, (uint8_t)i);
	site_pass_time();
	assert_in_vault(&site.a, 1, 39);
	assert_int_equal(machine_of(&site.a)->cached_bytes, 0);
	assert_int_equal(lb_process_cache_bytes(&site.p->cache), record_bytes);
	assert_image(&site.a, 1, 39);
}

static void nothing_is_uploaded_before_the_interval_and_at_once_when_an_object_is_full(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	site_work();
	send(&site.a, 0, 4096, 1);
	site_work();
	assert_in_vault(&site.a, 0, 0);
	for (uint8_t i = 0; i < 17; i++)
		send(&site.a, 0, 512 << 10, i);
	site_work();
	assert_in_vault(&site.a, 1, 17);
}

static json_int_t flushed_ns(void)
{
	_cleanup_json_ json_t *report = NULL;
	uint32_t cursor = 0;

	assert_int_equal(lb_report(site.p, &cursor, &report), 0);
	return json_integer_value(
		json_object_get(json_array_get(json_object_get(report, "machines"), 0), "flushed_ns"));
}

static void an_order_to_flush_brings_all_that_is_here_into_the_vault_at_once(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	site_work();
	send(&site.a, 0, 4096, 1);
	send(&site.a, 4096, 4096, 2);
	site_work();
	assert_in_vault(&site.a, 0, 0);
	site.flush_ns = 7;
	site_configure();
	assert_int_equal(flushed_ns(), 0);
	site_work();
	assert_in_vault(&site.a, 1, 1);
	assert_int_equal(flushed_ns(), 7);
	/* carried out once: what comes afterwards waits for its interval, and does not take the answer back */
	send(&site.a, 0, 4096, 3);
	site_configure();
	site_work();
	assert_in_vault(&site.a, 1, 1);
	assert_int_equal(flushed_ns(), 7);
	/* an order when all is there already is answered, too */
	site_pass_time();
	site.flush_ns = 8;
	site_configure();
	site_work();
	assert_int_equal(flushed_ns(), 8);
}

static void a_flush_that_the_vault_does_not_take_is_not_said_to_be_done(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	site_work();
	send(&site.a, 0, 4096, 1);
	vault_read_only = true;
	site.flush_ns = 7;
	site_configure();
	site_work();
	assert_int_equal(flushed_ns(), 0);
	vault_read_only = false;
	site_pass_time();
	assert_int_equal(flushed_ns(), 7);
}

/* Within its limit an object of half a MiB is 512 s' worth. */
static void limited_with_one_object_ahead(void)
{
	site.bandwidth_bytes_per_s = LB_BANDWIDTH_BYTES_PER_S_MIN;
	site_configure();
	begin_epoch(&site.a);
	send(&site.a, 0, DISK_BYTES / 2, 1);
	site_pass_time();
	assert_in_vault(&site.a, 1, 0);
	send(&site.a, 4096, 4096, 2);
	site_pass_time();
	assert_in_vault(&site.a, 1, 0);
}

static void the_policys_bandwidth_holds_the_next_object_back_until_it_is_paid_for(void **state)
{
	(void)state;
	limited_with_one_object_ahead();
	for (int i = 0; i < 6; i++)
		site_pass_time();
	assert_in_vault(&site.a, 1, 0);
	for (int i = 0; i < 3; i++)
		site_pass_time();
	assert_in_vault(&site.a, 1, 1);
	assert_image(&site.a, 1, 1);
}

static void a_limit_that_is_taken_away_lets_what_waits_go_at_once(void **state)
{
	(void)state;
	limited_with_one_object_ahead();
	site.bandwidth_bytes_per_s = 0;
	site_configure();
	site_work();
	assert_in_vault(&site.a, 1, 1);
}

static void a_failover_waits_for_no_limit(void **state)
{
	(void)state;
	limited_with_one_object_ahead();
	site.fenced = true;
	site_configure();
	site_work();
	assert_in_vault(&site.a, 1, 1);
}

static void epochs_follow_one_another_into_the_vault_an_empty_one_too(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	begin_epoch(&site.a);
	begin_epoch(&site.a); /* nothing came of epoch 2 */
	send(&site.a, 4096, 4096, 2);
	site_restart();
	assert_durable(&site.a, 3, 1);
	site_pass_time();
	assert_in_vault(&site.a, 3, 0);
	assert_image(&site.a, 3, 0);
	begin_epoch(&site.a);
	site_pass_time();
	site_restart();
	assert_durable(&site.a, 4, 0);
	send(&site.a, 0, 4096, 3);
	site_pass_time();
	assert_in_vault(&site.a, 4, 0);
	assert_image(&site.a, 4, 0);
	assert_int_equal(machine_of(&site.a)->n_epochs, 1);
}

static void a_vault_that_cannot_be_written_loses_nothing_and_catches_up(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	vault_read_only = true;
	send(&site.a, 0, 4096, 1);
	site_pass_time();
	assert_true(machine_of(&site.a)->failures > 0);
	assert_true(machine_of(&site.a)->error[0] != '\0');
	send(&site.a, 4096, 4096, 2); /* agents notice nothing */
	site_pass_time();
	assert_in_vault(&site.a, 0, 0);
	vault_read_only = false;
	site_pass_time();
	assert_in_vault(&site.a, 1, 1);
	assert_string_equal(machine_of(&site.a)->error, "");
	assert_image(&site.a, 1, 1);
}

static void failures_are_tried_again_later_and_later(void **state)
{
	int64_t next, now;

	(void)state;
	begin_epoch(&site.a);
	site_work();
	vault_read_only = true;
	send(&site.a, 0, 4096, 1);
	for (unsigned int i = 0; i < 12; i++)
		site_pass_time();
	now = lb_mono_ns(&world);
	assert_false(lb_upload_next(site.p, &next));
	mono_shift_ns += LB_UPLOAD_BACKOFF_MS_MAX / 2 * LB_NS_PER_MS - LB_NS_PER_S;
	send(&site.a, 0, 4096, 2); /* doesn't shorten the wait */
	next = machine_of(&site.a)->due_mono_ns;
	assert_in_range(next - now,
			LB_UPLOAD_BACKOFF_MS_MAX / 4 * LB_NS_PER_MS, /* this process may have been held up */
			LB_UPLOAD_BACKOFF_MS_MAX * LB_NS_PER_MS);
}

static void what_the_vault_took_before_a_kill_is_not_sent_twice(void **state)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_position first = {.epoch = 1, .seq = 0};

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	assert_int_equal(lb_process_cache_segment_get(&site.p->cache, machine_of(&site.a), &first, &sealed), 0);
	site_pass_time();
	assert_in_vault(&site.a, 1, 0);
	/* killed between the vault's answer and the removal from the cache */
	assert_int_equal(lb_process_cache_segment_put(&site.p->cache, machine_of(&site.a), &first, sealed.data,
						      sealed.size_bytes),
			 0);
	site_restart();
	assert_durable(&site.a, 1, 1);
	assert_int_equal(machine_of(&site.a)->cached_bytes, 0);
	send(&site.a, 4096, 4096, 2);
	site_pass_time();
	assert_image(&site.a, 1, 1);
}

static void a_lost_cache_goes_on_from_the_vault(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	site_pass_time();
	snprintf(cache_folder, sizeof(cache_folder), "%s/cache%u", folder, n_caches++);
	site_restart();
	assert_durable(&site.a, 1, 1);
	send(&site.a, 4096, 4096, 2);
	begin_epoch(&site.a);
	send(&site.a, 0, 512, 3);
	site_pass_time();
	assert_in_vault(&site.a, 2, 0);
	assert_image(&site.a, 2, 0);
}

/* ---- other writers --------------------------------------------------------------------------------------- */

static void a_fenced_writer_stops_and_says_so_until_an_operator_lets_it_go_on(void **state)
{
	static uint8_t at_fence[DISK_BYTES];

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	site_pass_time();
	memcpy(at_fence, site.a.disk, sizeof(at_fence));
	assert_int_equal(lb_journal_fence(site.owner, &site.a.id, "failover"), 0);
	send(&site.a, 4096, 4096, 2); /* acknowledged: nobody told us yet */
	site_pass_time();
	assert_int_equal(machine_of(&site.a)->state, LB_MACHINE_FENCED);
	assert_int_equal(try_send(&site.a, 8192, 4096, 3), -EACCES);
	assert_non_null(strstr(lb_err_text(), "sealed by another writer"));
	/* a restart doesn't forget it */
	site_restart();
	assert_int_equal(machine_of(&site.a)->state, LB_MACHINE_FENCED);
	assert_int_equal(try_epoch(&site.a, 2), -EACCES);
	/* the operator's resync does */
	site.resync_generation = 1;
	site_configure();
	site_work();
	assert_int_equal(machine_of(&site.a)->state, LB_MACHINE_READY);
	site.a.prev = machine_of(&site.a)->durable.digest;
	memcpy(site.a.disk, at_fence, sizeof(at_fence));
	begin_epoch(&site.a);
	send(&site.a, 0, 512, 4);
	site_pass_time();
	assert_in_vault(&site.a, 2, 0);
	assert_image(&site.a, 2, 0);
}

static void a_fence_while_everything_is_in_the_vault_is_seen_after_a_restart(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	site_pass_time();
	assert_int_equal(lb_journal_fence(site.owner, &site.a.id, "failover"), 0);
	site_restart();
	assert_int_equal(machine_of(&site.a)->state, LB_MACHINE_FENCED);
	assert_int_equal(try_send(&site.a, 0, 4096, 2), -EACCES);
}

static void a_machine_that_was_failed_over_is_refused(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	site.fenced = true;
	site_configure();
	assert_int_equal(try_send(&site.a, 0, 4096, 1), -EACCES);
	assert_non_null(strstr(lb_err_text(), "failed over"));
}

/* What lb_job_drained() of the configuration server relies on. */
static void assert_drained(bool drained)
{
	_cleanup_json_ json_t *report = NULL;
	uint32_t cursor = 0;
	json_t *m;

	assert_int_equal(lb_report(site.p, &cursor, &report), 0);
	m = json_array_get(json_object_get(report, "machines"), 0);
	assert_int_equal(strcmp(json_string_value(json_object_get(m, "state")), "fenced") == 0 &&
				 json_integer_value(json_object_get(m, "backlog_bytes")) == 0,
			 drained);
}

static void a_failover_finds_everything_acknowledged_in_the_vault(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	site_work();
	send(&site.a, 0, 4096, 1);
	site.fenced = true;
	site_configure();
	site_work(); /* at once, not at the end of the interval */
	assert_in_vault(&site.a, 1, 0);
	assert_drained(true);
}

/* Killed while a failover waits for it: what its cache holds isn't known before the journal is open again. */
static void a_process_server_that_has_not_looked_into_its_cache_does_not_promise_that_all_is_in_the_vault(void **state)
{
	const struct lb_process_options options = {
		.cache_folder = cache_folder, .cache_bytes_max = site.cache_bytes_max, .seal_bytes_max = 16u << 20};

	(void)state;
	begin_epoch(&site.a);
	site_work();
	send(&site.a, 0, 4096, 1);
	site.fenced = true;
	lb_process_free(site.p);
	assert_int_equal(lb_process_new(&world, &options, &site.p), 0);
	site_configure();
	assert_drained(false);
	site_work();
	assert_in_vault(&site.a, 1, 0);
	assert_drained(true);
}

static void a_failover_that_is_taken_back_costs_nothing_acknowledged(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	site_work();
	vault_read_only = true;
	send(&site.a, 0, 4096, 1);
	site.fenced = true;
	site_configure();
	site_pass_time();
	vault_read_only = site.fenced = false;
	site_configure();
	site_pass_time();
	send(&site.a, 4096, 4096, 2);
	site_pass_time();
	assert_in_vault(&site.a, 1, 1);
	assert_image(&site.a, 1, 1);
}

static void after_a_failover_the_machine_goes_on_in_a_new_epoch(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	site.fenced = true;
	site_configure();
	site_pass_time();
	assert_int_equal(lb_journal_fence(site.owner, &site.a.id, "failover"), 0);
	site.fenced = false;
	site_configure();
	site_pass_time();
	assert_int_equal(try_send(&site.a, 4096, 4096, 2), -ESTALE);
	assert_int_equal(machine_of(&site.a)->state, LB_MACHINE_READY);
	begin_epoch(&site.a);
	send(&site.a, 4096, 4096, 2);
	site_pass_time();
	assert_in_vault(&site.a, 2, 0);
	assert_image(&site.a, 2, 0);
}

static void two_process_servers_never_extend_one_epoch(void **state)
{
	_cleanup_(lb_journal_writer_freep) struct lb_journal_writer *other = NULL;
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX), sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_sealed_segment theirs;
	struct agent twin;

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	site_pass_time();
	twin = site.a;
	make_segment(&twin, 0, 4096, 77, &plain);
	assert_int_equal(lb_hrl_open_plain(plain.data, plain.size_bytes, &s), 0);
	assert_int_equal(lb_hrl_seal(s, &twin.key, shifted_now(&world), (const uint8_t *)"0123456789abcde", 1, &sealed),
			 0);
	theirs = (struct lb_sealed_segment){sealed.data, sealed.size_bytes};
	assert_int_equal(lb_journal_writer_open(site.owner, &twin.id, &other), 0);
	assert_int_equal(lb_journal_append(other, &theirs, 1), 0);
	send(&site.a, 0, 4096, 2);
	for (unsigned int i = 0; i <= LB_UPLOAD_CONFLICTS_MAX; i++)
		site_pass_time();
	assert_int_equal(machine_of(&site.a)->state, LB_MACHINE_DIVERGED);
	assert_int_equal(try_send(&site.a, 0, 4096, 3), -EACCES);
	acknowledged(&twin, lb_hrl_digest(s));
	assert_image(&twin, 1, 1);
}

/* ---- comparing ------------------------------------------------------------------------------------------- */

#define BLOCK 4096u
#define BLOCKS (DISK_BYTES / BLOCK)

static void hash_blocks(const struct agent *a, const struct lb_key *key, struct lb_digest hashes[BLOCKS])
{
	for (unsigned int i = 0; i < BLOCKS; i++)
		assert_int_equal(lb_hmac_sha256(key, a->disk + i * BLOCK, BLOCK, &hashes[i]), 0);
}

static void comparing_tells_exactly_the_blocks_that_differ(void **state)
{
	static struct lb_digest hashes[BLOCKS];
	struct lb_compare_request q = {.epoch = 2, .block_bytes = BLOCK, .n = BLOCKS, .key = {{7}}};
	uint8_t differ[BLOCKS / 8];

	(void)state;
	begin_epoch(&site.a);
	for (unsigned int i = 0; i < 30; i++)
		send(&site.a, BLOCK * (3 * i), BLOCK, (uint8_t)i);
	begin_epoch(&site.a);
	site.a.disk[5 * BLOCK + 17] ^= 1;
	site.a.disk[DISK_BYTES - 1] ^= 1;
	hash_blocks(&site.a, &q.key, hashes);
	q.hashes = hashes[0].bytes;
	assert_int_equal(lb_compare_blocks(machine_of(&site.a), &q, differ), -EAGAIN); /* epoch 1 isn't in the vault */
	site_work();
	assert_int_equal(lb_compare_blocks(machine_of(&site.a), &q, differ), 0);
	for (unsigned int i = 0; i < BLOCKS; i++)
		assert_int_equal(differ[i / 8] >> i % 8 & 1, i == 5 || i == BLOCKS - 1);
	/* the image is frozen: what the new epoch writes doesn't count */
	send(&site.a, 0, BLOCK, 200);
	site_pass_time();
	assert_int_equal(lb_compare_blocks(machine_of(&site.a), &q, differ), 0);
	assert_int_equal(differ[0] & 1, 0);
	q.epoch = 1;
	assert_int_equal(lb_compare_blocks(machine_of(&site.a), &q, differ), -ESTALE);
}

/* Asks about the whole disk as an agent does until it is settled; `sent` and `zero` are bitmaps. */
static int settle(struct agent *a, uint64_t epoch, uint8_t session, struct lb_settle_answer *answer)
{
	static uint8_t hashes[LB_BATCH_PIECES_MAX * LB_HRL_HASH_BYTES];
	struct lb_settle_question q = {.session = {session}, .length_bytes = DISK_BYTES, .hashes = hashes};
	int r;

	do {
		answer->entries = LB_BUF(LB_BATCH_ENTRIES_BYTES_MAX);
		r = lb_compare_settle(machine_of(a), epoch, &q, answer);
		q.n = 0;
		for (size_t at = 0; r == 0 && at < answer->entries.size_bytes; at += 16) {
			const uint8_t *e = answer->entries.data + at;

			assert_int_equal(lb_get_le16(e), 1); /* each write of these tests is one piece */
			lb_hrl_frame_hash(a->disk + lb_get_le64(e + 4), lb_get_le32(e + 12),
					  hashes + q.n++ * LB_HRL_HASH_BYTES);
		}
		q.batch = answer->batch;
		lb_buf_free(&answer->entries);
	} while (r == 0 && !answer->settled);
	return r;
}

static bool is_sent(const struct lb_settle_answer *answer, unsigned int unit)
{
	return answer->send[unit / 8] >> unit % 8 & 1;
}

static void settling_tells_exactly_the_units_that_differ_and_each_session_anew(void **state)
{
	static struct lb_settle_answer answer;

	(void)state;
	begin_epoch(&site.a);
	for (unsigned int i = 0; i < 30; i++)
		send(&site.a, BLOCK * (3 * i), BLOCK, (uint8_t)i);
	begin_epoch(&site.a);
	site.a.disk[6 * BLOCK + 17] ^= 1;
	assert_int_equal(settle(&site.a, 2, 1, &answer), -EAGAIN); /* epoch 1 isn't in the vault */
	site_work();
	assert_int_equal(settle(&site.a, 2, 1, &answer), 0);
	assert_int_equal(answer.units, DISK_BYTES / 4096);
	for (unsigned int i = 0; i < answer.units; i++)
		assert_int_equal(is_sent(&answer, i), i == 6 * BLOCK / 4096);
	/* what was settled holds for the session and no longer: the next one's disk may be another */
	site.a.disk[9 * BLOCK] ^= 1;
	assert_int_equal(settle(&site.a, 2, 1, &answer), 0);
	assert_false(is_sent(&answer, 9 * BLOCK / 4096));
	assert_int_equal(settle(&site.a, 2, 2, &answer), 0);
	assert_true(is_sent(&answer, 9 * BLOCK / 4096));
	assert_int_equal(settle(&site.a, 1, 2, &answer), -ESTALE);
	/* nor for another epoch, though it begins at the same place */
	begin_epoch(&site.a);
	site.a.disk[12 * BLOCK] ^= 1;
	assert_int_equal(settle(&site.a, 3, 2, &answer), 0);
	assert_true(is_sent(&answer, 12 * BLOCK / 4096));
}

static void agents_settle_over_the_wire_and_nonsense_is_refused(void **state)
{
	static const char *const bad[] = {
		"{}",
		"{\"epoch\":2,\"session\":\"00\",\"disk\":0,\"offset\":0,\"length\":4096}",
		"{\"epoch\":2,\"session\":\"000102030405060708090a0b0c0d0e0f\",\"disk\":70000,\"offset\":0,\"length\":"
		"4096}",
		"{\"epoch\":2,\"session\":\"000102030405060708090a0b0c0d0e0f\",\"disk\":0,\"offset\":7,\"length\":"
		"4096}",
		"{\"epoch\":2,\"session\":\"000102030405060708090a0b0c0d0e0f\",\"disk\":0,\"offset\":0,\"length\":4096,"
		"\"batch\":1,\"hashes\":\"AAAA\"}",
	};
	static const char good[] = "{\"epoch\":2,\"session\":\"000102030405060708090a0b0c0d0e0f\",\"disk\":0,"
				   "\"offset\":0,\"length\":65536}";
	struct lb_http_reply reply;
	struct lb_http_call c = {0};

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, BLOCK, 1);
	begin_epoch(&site.a);
	site_work();
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++) {
		c.body = bad[i];
		c.body_bytes = strlen(bad[i]);
		assert_true(call(&site.a, "POST", "/v1/settle", &c, &reply) < 0);
	}
	c.body = good;
	c.body_bytes = strlen(good);
	assert_int_equal(call(&site.a, "POST", "/v1/settle", &c, &reply), 0);
	assert_non_null(json_object_get(reply.json, "entries"));
	assert_true(json_integer_value(json_object_get(reply.json, "batch")) > 0);
	json_decref(reply.json);
}

static void the_first_epoch_compares_with_zeroes_and_a_short_last_block(void **state)
{
	static struct lb_digest hashes[2];
	struct lb_compare_request q = {
		.epoch = 1, .block_bytes = 3 * BLOCK, .n = 2, .offset_bytes = DISK_BYTES - 4 * BLOCK};
	static const uint8_t zeroes[3 * BLOCK];
	uint8_t differ[1];

	(void)state;
	begin_epoch(&site.a);
	assert_int_equal(lb_hmac_sha256(&q.key, zeroes, 3 * BLOCK, &hashes[0]), 0);
	assert_int_equal(lb_hmac_sha256(&q.key, zeroes, BLOCK, &hashes[1]), 0);
	q.hashes = hashes[0].bytes;
	assert_int_equal(lb_compare_blocks(machine_of(&site.a), &q, differ), 0);
	assert_int_equal(differ[0], 0);
	hashes[1].bytes[0] ^= 1;
	assert_int_equal(lb_compare_blocks(machine_of(&site.a), &q, differ), 0);
	assert_int_equal(differ[0], 2);
	q.n = 3;
	assert_int_equal(lb_compare_blocks(machine_of(&site.a), &q, differ), -EINVAL);
}

/* ---- heartbeats and reports ------------------------------------------------------------------------------ */

static void beat(struct agent *a, bool idle)
{
	_cleanup_json_ json_t *body = json_pack("{s:I,s:I,s:b,s:s,s:s}", "epoch", (json_int_t)a->epoch, "seq",
						(json_int_t)(a->seq > 0 ? a->seq - 1 : 0), "idle", idle, "mode",
						"protected", "hardware", a->hardware);
	_cleanup_free_ char *text = json_dumps(body, 0);
	const struct lb_http_call c = {.body = text, .body_bytes = strlen(text)};
	struct lb_http_reply reply;

	assert_int_equal(call(a, "POST", "/v1/heartbeat", &c, &reply), 0);
	assert_non_null(json_object_get(reply.json, "policy"));
	json_decref(reply.json);
}

static void an_idle_machine_stays_recoverable_to_its_last_heartbeat(void **state)
{
	struct lb_position at;
	int64_t time_ns, point_ns;

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	site_pass_time();
	point_ns = receipt_of(&site.a);
	at = machine_of(&site.a)->vault;
	now_shift_ns = 100 * LB_NS_PER_S;
	beat(&site.a, true);
	site_pass_time();
	assert_int_equal(lb_heartbeat_get(site.owner, &site.a.id, &at, &time_ns), 0);
	assert_true(time_ns >= point_ns + 99 * LB_NS_PER_S);
	/* a later segment is never received before it */
	now_shift_ns = 0;
	site_restart();
	send(&site.a, 0, 4096, 2);
	assert_true(receipt_of(&site.a) > time_ns);
}

static void a_busy_machine_s_heartbeat_claims_nothing(void **state)
{
	struct lb_position at;
	int64_t time_ns;

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 4096, 1);
	site_pass_time();
	at = machine_of(&site.a)->vault;
	beat(&site.a, false);
	site_pass_time();
	assert_int_equal(lb_heartbeat_get(site.owner, &site.a.id, &at, &time_ns), -ENOENT);
}

static void a_report_tells_how_a_machine_stands(void **state)
{
	_cleanup_json_ json_t *report = NULL, *end = NULL;
	uint32_t cursor = 0;
	json_t *m;

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 64 << 10, 1);
	site_pass_time();
	send(&site.a, 0, 64 << 10, 2);
	beat(&site.a, false);
	assert_int_equal(lb_report(site.p, &cursor, &report), 0);
	assert_int_equal(lb_report(site.p, &cursor, &end), 0);
	assert_null(end);
	m = json_array_get(json_object_get(report, "machines"), 0);
	assert_string_equal(json_string_value(json_object_get(m, "state")), "replicating");
	assert_string_equal(json_string_value(json_object_get(m, "mode")), "protected");
	assert_int_equal(json_integer_value(json_object_get(m, "seq")), 1);
	assert_int_equal(json_integer_value(json_object_get(m, "vault_seq")), 0);
	assert_int_equal(json_string_length(json_object_get(m, "vault_digest")), 2 * LB_DIGEST_BYTES);
	assert_true(json_integer_value(json_object_get(m, "backlog_bytes")) >= 4096);
	assert_int_equal(json_integer_value(json_object_get(m, "newest_point_ns")), receipt_of(&site.a));
	assert_in_range(json_integer_value(json_object_get(m, "rpo_vault_ns")), 1, receipt_of(&site.a) - 1);
	assert_true(json_is_null(json_object_get(m, "error")));
}

#define T(name) cmocka_unit_test_setup_teardown(name, site_begin, site_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(segments_go_into_the_vault_in_order_and_leave_the_cache),
		T(nothing_is_uploaded_before_the_interval_and_at_once_when_an_object_is_full),
		T(an_order_to_flush_brings_all_that_is_here_into_the_vault_at_once),
		T(a_flush_that_the_vault_does_not_take_is_not_said_to_be_done),
		T(the_policys_bandwidth_holds_the_next_object_back_until_it_is_paid_for),
		T(a_limit_that_is_taken_away_lets_what_waits_go_at_once),
		T(a_failover_waits_for_no_limit),
		T(epochs_follow_one_another_into_the_vault_an_empty_one_too),
		T(a_vault_that_cannot_be_written_loses_nothing_and_catches_up),
		T(failures_are_tried_again_later_and_later),
		T(what_the_vault_took_before_a_kill_is_not_sent_twice),
		T(a_lost_cache_goes_on_from_the_vault),
		T(a_fenced_writer_stops_and_says_so_until_an_operator_lets_it_go_on),
		T(a_fence_while_everything_is_in_the_vault_is_seen_after_a_restart),
		T(a_machine_that_was_failed_over_is_refused),
		T(a_failover_finds_everything_acknowledged_in_the_vault),
		T(a_process_server_that_has_not_looked_into_its_cache_does_not_promise_that_all_is_in_the_vault),
		T(a_failover_that_is_taken_back_costs_nothing_acknowledged),
		T(after_a_failover_the_machine_goes_on_in_a_new_epoch),
		T(two_process_servers_never_extend_one_epoch),
		T(comparing_tells_exactly_the_blocks_that_differ),
		T(settling_tells_exactly_the_units_that_differ_and_each_session_anew),
		T(agents_settle_over_the_wire_and_nonsense_is_refused),
		T(the_first_epoch_compares_with_zeroes_and_a_short_last_block),
		T(an_idle_machine_stays_recoverable_to_its_last_heartbeat),
		T(a_busy_machine_s_heartbeat_claims_nothing),
		T(a_report_tells_how_a_machine_stands),
	};

	return cmocka_run_group_tests_name("process_vault", tests, world_begin, world_end);
}
