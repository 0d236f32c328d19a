/* SPDX-License-Identifier: Apache-2.0 */
/* Disks held against an image by hashes: an agent in memory answers, and what it would send must make the image its
 * disks, whatever differs and whatever gets lost on the way. */
#include <errno.h>

#include "cheap_scrypt.h"
#include "fold_site.h"

#include "process/settle.h"
#include "vault/repair.h"

#define UNIT LB_BATCH_UNIT_BYTES
#define DISKS 2
#define SIZE_BYTES ((1u << 20) + 3 * 512) /* no whole units */
#define UNITS ((SIZE_BYTES + UNIT - 1) / UNIT)

static const struct lb_process_disks two_disks = {
	.n = DISKS, .disk = {{.id = 0, .size_bytes = SIZE_BYTES}, {.id = 1, .size_bytes = SIZE_BYTES}}};
static const uint8_t session[LB_SETTLE_SESSION_BYTES] = {1, 2, 3};

struct peer {
	struct lb_settle *settle;
	const struct lb_process_disks *disks;
	const uint8_t *disk[DISKS], *in_vault[DISKS];
	uint8_t *replica[DISKS];
	unsigned int seed, troubles; /* of 1024: an answer is lost, a place can't be read, the agent goes back */
	uint64_t sent_bytes, wire_bytes, batches;
	uint64_t batch; /* that is answered by */
	uint8_t hashes[LB_BATCH_PIECES_MAX * LB_HRL_HASH_BYTES];
	size_t n;
};

static uint32_t below(unsigned int *seed, uint32_t n)
{
	return (uint32_t)rand_r(seed) % n;
}

static bool trouble(struct peer *p)
{
	return below(&p->seed, 1024) < p->troubles;
}

static bool is_zero(const uint8_t *data, size_t n)
{
	return data[0] == 0 && memcmp(data, data + 1, n - 1) == 0;
}

static void hash_entries(struct peer *p, const struct lb_settle_answer *a)
{
	static uint8_t joined[LB_HRL_FRAME_BYTES_MAX];
	const uint8_t *at = a->entries.data, *end = at + a->entries.size_bytes;

	p->batch = a->batch;
	p->batches++;
	p->wire_bytes += a->entries.size_bytes;
	for (p->n = 0; at < end; p->n++) {
		unsigned int n = lb_get_le16(at);
		size_t joined_bytes = 0;

		assert_true(p->n < LB_BATCH_PIECES_MAX && n > 0);
		for (at += 2; n > 0; n--, at += 14) {
			uint16_t disk = lb_get_le16(at);
			uint64_t offset = lb_get_le64(at + 2);
			uint32_t length = lb_get_le32(at + 10);

			assert_true(disk < p->disks->n && offset + length <= p->disks->disk[disk].size_bytes);
			assert_true(joined_bytes + length <= sizeof(joined));
			memcpy(joined + joined_bytes, p->disk[disk] + offset, length);
			joined_bytes += length;
		}
		lb_hrl_frame_hash(joined, joined_bytes, p->hashes + p->n * LB_HRL_HASH_BYTES);
		if (trouble(p))
			memset(p->hashes + p->n * LB_HRL_HASH_BYTES, 0, LB_HRL_HASH_BYTES);
	}
	p->wire_bytes += p->n * LB_HRL_HASH_BYTES;
	assert_ptr_equal(at, end);
}

static void send_units(struct peer *p, uint16_t disk, uint64_t offset, uint64_t length,
		       const struct lb_settle_answer *a)
{
	assert_int_equal(a->units, (length + UNIT - 1) / UNIT);
	p->wire_bytes += a->units / 8;
	for (size_t i = 0; i < a->units; i++) {
		uint64_t at = offset + i * UNIT, n = LB_MIN((uint64_t)UNIT, offset + length - at);
		bool send = a->send[i / 8] >> i % 8 & 1, written = false;

		for (unsigned int k = 0; !send && k * 512 < n; k++) {
			if ((a->zeroes[i] >> k & 1) == 0)
				continue;
			assert_true(p->troubles > 0 || is_zero(p->replica[disk] + at + k * 512, 512));
			written |= !is_zero(p->disk[disk] + at + k * 512, 512);
		}
		if (!send && !written)
			continue;
		memcpy(p->replica[disk] + at, p->disk[disk] + at, n);
		p->sent_bytes += n;
	}
}

/* Until the range is settled. */
static void settle_range(struct peer *p, uint16_t disk, uint64_t offset, uint64_t length)
{
	struct lb_settle_answer a = {0};

	for (unsigned int i = 0; !a.settled; i++) {
		struct lb_settle_question q = {.disk = disk, .offset_bytes = offset, .length_bytes = length};

		assert_true(i < 10000);
		if (!trouble(p)) {
			q.batch = p->batch;
			q.hashes = p->hashes;
			q.n = p->n;
		}
		a.entries = LB_BUF(LB_BATCH_ENTRIES_BYTES_MAX);
		ok(lb_settle_ask(p->settle, &q, &a));
		if (a.batch != 0 && !trouble(p))
			hash_entries(p, &a);
		lb_buf_free(&a.entries);
	}
	send_units(p, disk, offset, length, &a);
}

static void resync(struct peer *p, uint64_t step_bytes)
{
	for (uint16_t d = 0; d < p->disks->n; d++) {
		uint64_t size_bytes = p->disks->disk[d].size_bytes;

		for (uint64_t at = 0; at < size_bytes; at += step_bytes) {
			if (trouble(p)) { /* it takes up its last acknowledged segment again: what it sent since is lost
					   */
				at = below(&p->seed, (uint32_t)(at / step_bytes + 1)) * step_bytes;
				memcpy(p->replica[d] + at, p->in_vault[d] + at, size_bytes - at);
			}
			settle_range(p, d, at, LB_MIN(step_bytes, size_bytes - at));
		}
		assert_memory_equal(p->replica[d], p->disk[d], size_bytes);
	}
}

/* ---- random journals ----------------------------------------------------------------------------------- */

struct world {
	struct site s;
	struct lb_image *image;
	uint8_t *in_vault[DISKS], *disk[DISKS], *replica[DISKS];
	unsigned int seed;
};

static void world_new(struct world *w, unsigned int seed)
{
	*w = (struct world){.seed = seed};
	site_new(&w->s);
	for (int d = 0; d < DISKS; d++) {
		w->in_vault[d] = calloc(1, SIZE_BYTES);
		w->disk[d] = calloc(1, SIZE_BYTES);
		w->replica[d] = calloc(1, SIZE_BYTES);
	}
}

static void world_free(struct world *w)
{
	if (w->image != NULL)
		lb_image_free(w->image);
	for (int d = 0; d < DISKS; d++) {
		free(w->in_vault[d]);
		free(w->disk[d]);
		free(w->replica[d]);
	}
	site_free(&w->s);
}

/* Of a grain of bytes, so that frames and units fit or don't. */
static void random_segment(struct world *w, uint32_t grain, uint32_t writes)
{
	static uint8_t data[48][96 << 10];

	for (uint32_t i = 0; i < writes; i++) {
		uint32_t grains = 1 + below(&w->seed, (below(&w->seed, 4) == 0 ? sizeof(data[i]) : 16384) / grain);
		uint32_t at = below(&w->seed, SIZE_BYTES / grain - grains);
		bool zero = below(&w->seed, 7) == 0;
		uint16_t disk = (uint16_t)below(&w->seed, DISKS);

		for (size_t k = 0; k < (size_t)grains * grain; k += 4)
			*(int *)(data[i] + k) = zero ? 0 : rand_r(&w->seed);
		ok(lb_hrl_builder_add(w->s.builder, disk, zero ? LB_HRL_CAPTURED_ZERO : LB_HRL_CAPTURED,
				      (uint64_t)at * grain, (uint64_t)grains * grain, zero ? NULL : data[i]));
		memcpy(w->in_vault[disk] + (size_t)at * grain, data[i], (size_t)grains * grain);
	}
	site_write(&w->s, LB_HRL_POINT);
}

static void random_journal(struct world *w, uint32_t grain, uint32_t segments)
{
	struct lb_position end;

	site_begin(&w->s, w->s.epoch + 1);
	for (uint32_t i = 0; i < segments; i++)
		random_segment(w, grain, 1 + below(&w->seed, 48));
	end = (struct lb_position){.epoch = w->s.epoch, .seq = w->s.seq - 1};
	ok(lb_image_open(w->s.vault, &w->s.machine, &end, 0, &w->image));
	for (int d = 0; d < DISKS; d++) {
		memcpy(w->disk[d], w->in_vault[d], SIZE_BYTES);
		memcpy(w->replica[d], w->in_vault[d], SIZE_BYTES);
	}
}

/* Writes, zeroes and single bits that nobody captured. */
static void change(struct world *w, uint32_t changes)
{
	for (uint32_t i = 0; i < changes; i++) {
		uint8_t *disk = w->disk[below(&w->seed, DISKS)];
		uint32_t n = 1 + below(&w->seed, 9000), at = below(&w->seed, SIZE_BYTES - n);

		switch (below(&w->seed, 3)) {
		case 0:
			disk[at] ^= (uint8_t)(1u << below(&w->seed, 8));
			break;
		case 1:
			memset(disk + at, 0, n);
			break;
		default:
			for (uint32_t k = 0; k < n; k++)
				disk[at + k] = (uint8_t)rand_r(&w->seed);
		}
	}
}

static uint64_t differing_bytes(const struct world *w)
{
	uint64_t n = 0;

	for (int d = 0; d < DISKS; d++)
		for (size_t at = 0; at < SIZE_BYTES; at += UNIT)
			n += memcmp(w->disk[d] + at, w->in_vault[d] + at, LB_MIN((size_t)UNIT, SIZE_BYTES - at)) != 0
				     ? LB_MIN((size_t)UNIT, SIZE_BYTES - at)
				     : 0;
	return n;
}

static uint64_t journal_bytes(struct world *w)
{
	static struct site_names names;
	uint64_t n = 0;

	site_names(&w->s, "/e/", &names);
	for (size_t i = 0; i < names.n; i++)
		n += names.size_bytes[i];
	return n;
}

static struct peer *peer_new(struct world *w, size_t differing_max)
{
	struct peer *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	*p = (struct peer){.disks = &two_disks, .seed = w->seed};
	for (int d = 0; d < DISKS; d++) {
		p->disk[d] = w->disk[d];
		p->in_vault[d] = w->in_vault[d];
		p->replica[d] = w->replica[d];
	}
	ok(lb_settle_new(lb_env_real(), w->image, &two_disks, session, differing_max, &p->settle));
	return p;
}

static void peer_free(struct peer *p)
{
	lb_settle_free(p->settle);
	free(p);
}

static void whatever_differs_is_sent_of_random_disks_over_random_journals(void **state)
{
	static const uint32_t changes[] = {0, 1, 3, 40, 2000};

	(void)state;
	for (unsigned int round = 0; round < 20; round++) {
		struct world w;
		struct peer *p;

		world_new(&w, 7000 + round);
		random_journal(&w, round % 2 == 0 ? 512 : UNIT, 1 + below(&w.seed, 30));
		change(&w, changes[round % LB_ARRAY_LEN(changes)]);
		p = peer_new(&w, round % 3 == 0 ? 5 : LB_SETTLE_DIFFER_MAX);
		resync(p, (uint64_t)UNIT << below(&w.seed, 9));
		peer_free(p);
		world_free(&w);
	}
}

static void whatever_gets_lost_on_the_way_nothing_that_differs_is_missed(void **state)
{
	(void)state;
	for (unsigned int round = 0; round < 20; round++) {
		struct world w;
		struct peer *p;

		world_new(&w, 8000 + round);
		random_journal(&w, round % 2 == 0 ? 512 : UNIT, 1 + below(&w.seed, 20));
		change(&w, 30);
		p = peer_new(&w, round % 2 == 0 ? 7 : LB_SETTLE_DIFFER_MAX);
		p->troubles = 150;
		resync(p, (uint64_t)UNIT << (3 + below(&w.seed, 5)));
		peer_free(p);
		world_free(&w);
	}
}

static void exactly_the_units_that_differ_are_sent_and_each_worn_frame_is_read_once(void **state)
{
	(void)state;
	for (unsigned int round = 0; round < 6; round++) {
		struct lb_image_stats stats;
		uint64_t opened_bytes;
		struct world w;
		struct peer *p;

		world_new(&w, 9000 + round);
		random_journal(&w, round % 2 == 0 ? UNIT : 512, 20);
		change(&w, round / 2);
		opened_bytes = lb_image_bytes_read(w.image);
		p = peer_new(&w, LB_SETTLE_DIFFER_MAX);
		resync(p, 64 << 10);
		assert_int_equal(p->sent_bytes, differing_bytes(&w));
		lb_image_stats(w.image, &stats);
		assert_true(stats.heads_read <= 20);
		/* each frame once, and once more where something differs: no more than the whole journal holds */
		assert_true(lb_image_bytes_read(w.image) - opened_bytes <= journal_bytes(&w) * (round > 1 ? 2 : 1));
		peer_free(p);
		world_free(&w);
	}
}

static void of_an_unchanged_disk_whose_frames_are_whole_no_frame_is_read(void **state)
{
	static uint8_t data[SIZE_BYTES];
	uint64_t opened_bytes;
	struct world w;
	struct peer *p;

	(void)state;
	world_new(&w, 1);
	site_begin(&w.s, 1);
	for (uint16_t d = 0; d < DISKS; d++) {
		for (size_t i = 0; i < SIZE_BYTES; i++)
			data[i] = (uint8_t)rand_r(&w.seed);
		memset(data + 5 * UNIT, 0, 3 * UNIT); /* frames that lie across the ranges that are asked about */
		ok(lb_hrl_builder_add(w.s.builder, d, LB_HRL_SCANNED, 0, SIZE_BYTES, data));
		memcpy(w.in_vault[d], data, SIZE_BYTES);
		site_write(&w.s, LB_HRL_POINT);
	}
	ok(lb_image_open(w.s.vault, &w.s.machine, &(struct lb_position){.epoch = 1, .seq = 1}, 0, &w.image));
	for (int d = 0; d < DISKS; d++) {
		memcpy(w.disk[d], w.in_vault[d], SIZE_BYTES);
		memcpy(w.replica[d], w.in_vault[d], SIZE_BYTES);
	}
	opened_bytes = lb_image_bytes_read(w.image);
	p = peer_new(&w, LB_SETTLE_DIFFER_MAX);
	resync(p, 64 << 10);
	assert_int_equal(p->sent_bytes, 0);
	assert_true(lb_image_bytes_read(w.image) - opened_bytes < 4096);
	assert_true(p->wire_bytes < 2048);
	/* one bit: its frame, and of that its unit */
	w.disk[1][300 * 1000] ^= 4;
	peer_free(p);
	opened_bytes = lb_image_bytes_read(w.image);
	p = peer_new(&w, LB_SETTLE_DIFFER_MAX);
	resync(p, 64 << 10);
	assert_int_equal(p->sent_bytes, UNIT);
	assert_in_range(lb_image_bytes_read(w.image) - opened_bytes, 200 << 10, 260 << 10);
	peer_free(p);
	world_free(&w);
}

static void what_the_vault_lost_is_sent(void **state)
{
	static struct site_names names;
	struct world w;
	struct peer *p;

	(void)state;
	world_new(&w, 77);
	random_journal(&w, UNIT, 12);
	site_names(&w.s, "/e/", &names);
	assert_true(names.n > 4);
	for (size_t i = 0; i < names.n; i += 3)
		site_flip(&w.s, names.name[i], names.size_bytes[i] / 2);
	for (size_t i = 1; i < names.n; i += 3)
		site_flip(&w.s, names.name[i], 300); /* the head */
	/* nobody knows what is there: as if it were something else */
	p = peer_new(&w, LB_SETTLE_DIFFER_MAX);
	resync(p, 32 << 10);
	assert_true(p->sent_bytes > 0);
	peer_free(p);
	world_free(&w);
}

static void told_damage(void *arg, const struct lb_repair_told *told)
{
	(void)arg;
	(void)told;
}

/* The hash is in the index still: only the repair's record tells that there is nothing behind it. */
static void what_a_repair_found_lost_is_sent_though_its_hash_is_there(void **state)
{
	struct lb_repair_report report;
	static struct site_names names;
	struct lb_position end;
	struct world w;
	struct peer *p;

	(void)state;
	world_new(&w, 78);
	random_journal(&w, UNIT, 8);
	end = (struct lb_position){.epoch = w.s.epoch, .seq = w.s.seq - 1};
	site_names(&w.s, "/e/", &names);
	site_flip(&w.s, names.name[names.n - 1], names.size_bytes[names.n - 1] - 100); /* in the newest's last frame */
	p = peer_new(&w, LB_SETTLE_DIFFER_MAX);
	resync(p, 64 << 10);
	assert_int_equal(p->sent_bytes, 0); /* nobody looked */
	peer_free(p);
	lb_image_free(w.image);
	w.image = NULL;
	ok(lb_vault_repair(w.s.vault, NULL, true, false, told_damage, NULL, &report));
	ok(lb_image_open(w.s.vault, &w.s.machine, &end, 0, &w.image));
	p = peer_new(&w, LB_SETTLE_DIFFER_MAX);
	resync(p, 64 << 10);
	assert_true(p->sent_bytes >= UNIT);
	peer_free(p);
	world_free(&w);
}

/* ---- the edges of the questions -------------------------------------------------------------------------- */

static void a_question_past_its_limits_is_refused(void **state)
{
	static const struct lb_settle_question bad[] = {
		{.disk = 2, .length_bytes = UNIT},
		{.length_bytes = 0},
		{.length_bytes = UNIT + 512},
		{.offset_bytes = 512, .length_bytes = UNIT},
		{.offset_bytes = 1 << 20, .length_bytes = UNIT},
		{.offset_bytes = UINT64_MAX - UNIT + 1, .length_bytes = UNIT},
		{.length_bytes = UINT64_MAX - UNIT + 1},
	};
	struct lb_settle_answer a;
	struct world w;
	struct peer *p;

	(void)state;
	world_new(&w, 5);
	random_journal(&w, UNIT, 3);
	p = peer_new(&w, LB_SETTLE_DIFFER_MAX);
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++) {
		a.entries = LB_BUF(LB_BATCH_ENTRIES_BYTES_MAX);
		assert_int_equal(lb_settle_ask(p->settle, &bad[i], &a), -EINVAL);
	}
	peer_free(p);
	world_free(&w);
}

static void hashes_of_another_batch_are_no_answer(void **state)
{
	static const uint8_t hashes[LB_BATCH_PIECES_MAX * LB_HRL_HASH_BYTES] = {1};
	struct lb_settle_question q = {.length_bytes = 1 << 20};
	struct lb_settle_answer a;
	uint64_t first = 0;
	struct world w;
	struct peer *p;

	(void)state;
	world_new(&w, 6);
	random_journal(&w, UNIT, 6);
	p = peer_new(&w, LB_SETTLE_DIFFER_MAX);
	for (unsigned int i = 0; i < 4; i++) {
		a.entries = LB_BUF(LB_BATCH_ENTRIES_BYTES_MAX);
		ok(lb_settle_ask(p->settle, &q, &a));
		assert_false(a.settled);
		assert_true(first == 0 || a.batch == first);
		first = a.batch;
		lb_buf_free(&a.entries);
		q.hashes = hashes;
		q.batch = i == 0 ? first + 1 : first; /* another's, or not as many as were asked for */
		q.n = i == 0 ? 1 : LB_BATCH_PIECES_MAX;
	}
	assert_true(lb_settle_is_of(p->settle, session));
	peer_free(p);
	world_free(&w);
}

/* ---- folded journals ------------------------------------------------------------------------------------- */

static void a_folded_journal_settles_like_any_other(void **state)
{
	static const struct lb_process_disks one_disk = {.n = 1, .disk = {{.id = 0, .size_bytes = DISK_BYTES}}};
	static uint8_t replica[DISK_BYTES], disk[DISK_BYTES];
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	struct machine *m = machine_new("all:2h 1h:12h 4h:3d");
	struct peer *p = calloc(1, sizeof(*p));

	(void)state;
	m->options.live_percent = 60;
	m->options.retention.delete_delay_s = 3600;
	for (int round = 0; round < 6; round++) {
		machine_run(m, 12, 600 * LB_NS_PER_S);
		assert_true(machine_fold(m).objects_folded > 0);
	}
	ok(lb_image_open(m->s.vault, &m->s.machine, &m->models[m->n_models - 1].position, 0, &image));
	memcpy(replica, m->models[m->n_models - 1].disk, DISK_BYTES);
	memcpy(disk, replica, DISK_BYTES);
	disk[DISK_BYTES / 2] ^= 1;
	*p = (struct peer){.disks = &one_disk, .disk = {disk}, .replica = {replica}};
	ok(lb_settle_new(lb_env_real(), image, &one_disk, session, LB_SETTLE_DIFFER_MAX, &p->settle));
	resync(p, 16 << 10);
	assert_in_range(p->sent_bytes, UNIT, 4 * UNIT);
	peer_free(p);
	lb_image_freep(&image);
	image = NULL;
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whatever_differs_is_sent_of_random_disks_over_random_journals),
		cmocka_unit_test(whatever_gets_lost_on_the_way_nothing_that_differs_is_missed),
		cmocka_unit_test(exactly_the_units_that_differ_are_sent_and_each_worn_frame_is_read_once),
		cmocka_unit_test(of_an_unchanged_disk_whose_frames_are_whole_no_frame_is_read),
		cmocka_unit_test(what_the_vault_lost_is_sent),
		cmocka_unit_test(what_a_repair_found_lost_is_sent_though_its_hash_is_there),
		cmocka_unit_test(a_question_past_its_limits_is_refused),
		cmocka_unit_test(hashes_of_another_batch_are_no_answer),
		cmocka_unit_test(a_folded_journal_settles_like_any_other),
	};

	is_cheap = true;
	return cmocka_run_group_tests_name("settle", tests, NULL, NULL);
}
