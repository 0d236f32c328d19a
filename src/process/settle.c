/* SPDX-License-Identifier: Apache-2.0 */
#include "process/settle.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/map.h"

#define SECTOR LB_HRL_SECTOR_BYTES
#define UNIT_SECTORS (LB_BATCH_UNIT_BYTES / SECTOR)

_Static_assert(UNIT_SECTORS == 8, "the sectors of a unit are the bits of a byte");
#define HOPELESS_ENTRIES 8 /* a batch of so many of which three quarters differ is sent without a closer look */

struct differing {
	uint64_t start_bytes, end_bytes;
	uint16_t disk;
};

struct lb_settle {
	pthread_mutex_t lock;
	struct lb_env *env;
	const struct lb_map *map;
	struct lb_process_disks disks;
	uint8_t session[LB_SETTLE_SESSION_BYTES];
	uint64_t (*same)[LB_SETTLE_FRAMES_MAX / 64]; /* by segment: what isn't in `differing` is the same */
	uint64_t *asked;                             /* segments; of the open one not all */
	uint32_t n_segments;
	struct lb_batch_source source;
	struct lb_batch batch, spare; /* the one that is out, if it has entries */
	uint64_t batch_id;
	struct differing *differing;
	size_t n_differing, differing_max;
	bool sorted;
	uint64_t disks_ended;                       /* a bit for each whose end was settled */
	uint64_t forgotten_bytes[LB_HRL_DISKS_MAX]; /* of each disk: what differs before it isn't known any more */
	struct lb_settle_stats stats;
};

int lb_settle_new(struct lb_env *env, struct lb_image *image, const struct lb_process_disks *disks,
		  const uint8_t session[LB_SETTLE_SESSION_BYTES], size_t differing_max, struct lb_settle **ret_settle)
{
	_cleanup_(lb_settle_freep) struct lb_settle *s = calloc(1, sizeof(*s));
	int r;

	if (s == NULL)
		return lb_fail(-ENOMEM, "out of memory for a comparison");
	pthread_mutex_init(&s->lock, NULL);
	s->env = env;
	s->map = lb_image_map(image);
	s->disks = *disks;
	memcpy(s->session, session, sizeof(s->session));
	s->n_segments = lb_map_segments(s->map);
	s->same = calloc((size_t)s->n_segments + 1, sizeof(*s->same));
	s->asked = calloc((size_t)s->n_segments / 64 + 1, sizeof(*s->asked));
	s->differing_max = differing_max;
	s->differing = calloc(differing_max, sizeof(*s->differing));
	if (s->same == NULL || s->asked == NULL || s->differing == NULL)
		return lb_fail(-ENOMEM, "out of memory for a comparison");
	r = lb_image_load_losses(image);
	if (r == -EBADMSG)
		lb_err_clear(); /* `vault verify` tells of it; a resync doesn't wait for that */
	if (r == 0 || r == -EBADMSG)
		r = lb_batch_init(&s->batch);
	if (r == 0)
		r = lb_batch_init(&s->spare);
	if (r == 0)
		r = lb_batch_source_init(&s->source, image, &s->disks);
	if (r == 0)
		r = env->ops->random(env, &s->batch_id, sizeof(s->batch_id));
	if (r < 0)
		return r;
	s->batch_id = s->batch_id >> 2 | 1; /* never 0, and a JSON integer for as long as it lives */
	*ret_settle = lb_steal_ptr(s);
	return 0;
}

void lb_settle_free(struct lb_settle *s)
{
	lb_batch_source_destroy(&s->source);
	lb_batch_destroy(&s->batch);
	lb_batch_destroy(&s->spare);
	free(s->same);
	free(s->asked);
	free(s->differing);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

bool lb_settle_is_of(const struct lb_settle *s, const uint8_t session[LB_SETTLE_SESSION_BYTES])
{
	return memcmp(s->session, session, sizeof(s->session)) == 0;
}

void lb_settle_stats(struct lb_settle *s, struct lb_settle_stats *ret_stats)
{
	LB_LOCK_SCOPE(&s->lock);

	*ret_stats = s->stats;
	ret_stats->to_the_end = s->disks_ended == (s->disks.n < 64 ? (UINT64_C(1) << s->disks.n) - 1 : UINT64_MAX);
}

static void start_over(struct lb_settle *s)
{
	lb_batch_source_close(&s->source);
	lb_batch_clear(&s->batch);
	s->batch_id++;
	memset(s->same, 0, (size_t)s->n_segments * sizeof(*s->same));
	memset(s->asked, 0, ((size_t)s->n_segments / 64 + 1) * sizeof(*s->asked));
	memset(s->forgotten_bytes, 0, sizeof(s->forgotten_bytes));
	s->n_differing = 0;
	s->disks_ended = 0;
}

/* ---- what is known ------------------------------------------------------------------------------------- */

static uint32_t disk_index(const struct lb_settle *s, uint16_t disk)
{
	uint32_t i = 0;

	while (i < s->disks.n && s->disks.disk[i].id != disk)
		i++;
	return i;
}

static bool is_same(const struct lb_settle *s, uint32_t segment, uint32_t frame)
{
	return frame < LB_SETTLE_FRAMES_MAX && (s->same[segment][frame / 64] >> frame % 64 & 1) != 0;
}

/* A frame past the limit stays unsettled. */
static void set_same(struct lb_settle *s, uint32_t frame)
{
	if (frame >= LB_SETTLE_FRAMES_MAX)
		return;
	s->same[s->source.segment][frame / 64] |= UINT64_C(1) << frame % 64;
	s->stats.same_frames++;
}

/* The agent has gone on past what lies before its question: that room can be used again. */
static void forget_behind(struct lb_settle *s, const struct lb_settle_question *q)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_differing; i++)
		if (s->differing[i].disk != q->disk || s->differing[i].end_bytes > q->offset_bytes)
			s->differing[n++] = s->differing[i];
	if (n < s->n_differing)
		s->forgotten_bytes[disk_index(s, q->disk)] = q->offset_bytes;
	s->n_differing = n;
}

static bool differs(struct lb_settle *s, const struct lb_piece *piece)
{
	if (s->n_differing == s->differing_max)
		return false;
	s->differing[s->n_differing++] = (struct differing){.start_bytes = piece->offset_bytes,
							    .end_bytes = piece->offset_bytes + piece->length_bytes,
							    .disk = piece->disk};
	s->sorted = false;
	return true;
}

/* ---- the agent's hashes -------------------------------------------------------------------------------- */

static bool entry_is(const struct lb_batch_entry *e, const uint8_t *hash)
{
	static const uint8_t unread[LB_HRL_HASH_BYTES];

	return memcmp(e->hash, hash, LB_HRL_HASH_BYTES) == 0 && memcmp(hash, unread, LB_HRL_HASH_BYTES) != 0;
}

/* Of frames that were not the same, unit by unit: with what differs noted, the rest is. */
static void take_fine(struct lb_settle *s, const uint8_t *hashes)
{
	const struct lb_batch *b = &s->batch;

	for (uint32_t from = 0, to; from < b->n_entries; from = to) {
		bool noted = true;

		for (to = from; to < b->n_entries && b->entries[to].frame == b->entries[from].frame; to++)
			if (noted && !entry_is(&b->entries[to], hashes + (size_t)to * LB_HRL_HASH_BYTES))
				noted = differs(s, &b->pieces[b->entries[to].first]);
		if (noted)
			set_same(s, b->entries[from].frame);
	}
}

static bool is_hopeless(const struct lb_batch *b, const uint8_t *hashes)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n_entries; i++)
		n += !entry_is(&b->entries[i], hashes + (size_t)i * LB_HRL_HASH_BYTES);
	return b->n_entries >= HOPELESS_ENTRIES && n > b->n_entries / 4 * 3;
}

static int take_coarse(struct lb_settle *s, const uint8_t *hashes)
{
	const struct lb_batch *b = &s->batch;
	const bool closer = !is_hopeless(b, hashes);
	int r;

	lb_batch_clear(&s->spare);
	for (uint32_t i = 0; closer && i < b->n_entries; i++) {
		if (entry_is(&b->entries[i], hashes + (size_t)i * LB_HRL_HASH_BYTES) ||
		    b->entries[i].frame >= LB_SETTLE_FRAMES_MAX)
			continue;
		r = lb_batch_fine(&s->spare, &s->source, b, i);
		if (r < 0)
			return r; /* the same hashes come again */
	}
	for (uint32_t i = 0; i < b->n_entries; i++)
		if (entry_is(&b->entries[i], hashes + (size_t)i * LB_HRL_HASH_BYTES))
			set_same(s, b->entries[i].frame);
	s->stats.asked_frames += b->n_entries;
	return 0;
}

static int take_report(struct lb_settle *s, const struct lb_settle_question *q)
{
	struct lb_batch done = s->batch;
	int r = 0;

	if (done.fine) {
		if (s->n_differing > s->differing_max / 2)
			forget_behind(s, q);
		take_fine(s, q->hashes);
		lb_batch_clear(&s->spare);
	} else {
		r = take_coarse(s, q->hashes);
	}
	if (r < 0)
		return r;
	s->batch = s->spare;
	s->spare = done;
	s->batch_id++;
	return 0;
}

/* ---- the next batch ------------------------------------------------------------------------------------ */

static int find_unasked(void *arg, const struct lb_map_extent *x)
{
	const struct lb_settle *s = arg;

	return lb_hrl_kind_has_data(x->kind) && (s->asked[x->segment / 64] >> x->segment % 64 & 1) == 0
		       ? (int)x->segment + 1
		       : 0;
}

/* The next segment of the range: 1; 0: all were asked about. */
static int open_next(struct lb_settle *s, const struct lb_settle_question *q)
{
	int found, r;

	found = lb_map_walk(s->map, q->disk, q->offset_bytes / SECTOR, (q->length_bytes + SECTOR - 1) / SECTOR,
			    find_unasked, s);
	if (found <= 0)
		return found;
	r = lb_batch_source_open(&s->source, (uint32_t)found - 1);
	if (r < 0 && r != -EBADMSG)
		return r;
	if (r < 0)
		lb_err_clear(); /* lost: what is live of it is sent */
	s->asked[(uint32_t)(found - 1) / 64] |= UINT64_C(1) << (uint32_t)(found - 1) % 64;
	return 1;
}

/* Fills the batch: 1 it has something, 0 all is settled, -ETIME all in good time. */
static int fill(struct lb_settle *s, const struct lb_settle_question *q)
{
	const int64_t until = lb_mono_ns(s->env) + LB_SETTLE_STEP_MS * LB_NS_PER_MS;
	int r;

	while (s->batch.n_entries == 0) {
		if (s->source.head == NULL) {
			r = open_next(s, q);
			if (r <= 0)
				return r;
		}
		do
			r = s->source.head != NULL ? lb_batch_coarse(&s->batch, &s->source) : 0;
		while (r == 1 && lb_mono_ns(s->env) < until);
		if (r < 0)
			return r;
		if (s->batch.n_entries == 0)
			lb_batch_source_close(&s->source);
		if (s->batch.n_entries == 0 && lb_mono_ns(s->env) >= until)
			return -ETIME;
	}
	return 1;
}

/* ---- the answer ---------------------------------------------------------------------------------------- */

struct telling {
	struct lb_settle *s;
	struct lb_settle_answer *answer;
	uint64_t begin, at, end; /* sectors */
};

static void send(struct telling *t, uint64_t from, uint64_t to)
{
	for (; from < to; from += UNIT_SECTORS - from % UNIT_SECTORS) {
		uint64_t unit = (from - t->begin) / UNIT_SECTORS;

		t->answer->send[unit / 8] |= (uint8_t)(1u << unit % 8);
	}
}

static void zeroes(struct telling *t, uint64_t from, uint64_t to)
{
	while (from < to) {
		uint64_t end = LB_MIN(to, from - from % UNIT_SECTORS + UNIT_SECTORS);
		uint64_t first = from % UNIT_SECTORS;

		t->answer->zeroes[(from - t->begin) / UNIT_SECTORS] |= (uint8_t)(((1u << (end - from)) - 1) << first);
		from = end;
	}
}

static int tell(void *arg, const struct lb_map_extent *x)
{
	const uint64_t end = x->start + x->sectors;
	struct telling *t = arg;

	zeroes(t, t->at, x->start);
	if (x->kind == LB_MAP_LOST || (lb_hrl_kind_has_data(x->kind) && !is_same(t->s, x->segment, x->frame)))
		send(t, x->start, end);
	else if (!lb_hrl_kind_has_data(x->kind))
		zeroes(t, x->start, end);
	t->at = end;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct differing *x = a, *y = b;

	if (x->disk != y->disk)
		return x->disk < y->disk ? -1 : 1;
	return x->start_bytes < y->start_bytes ? -1 : x->start_bytes > y->start_bytes;
}

/* They don't overlap: each is of a piece that is live. */
static void tell_differing(struct telling *t, uint16_t disk)
{
	struct lb_settle *s = t->s;
	size_t low = 0, high = s->n_differing;

	if (!s->sorted && s->n_differing > 0)
		qsort(s->differing, s->n_differing, sizeof(*s->differing), by_place);
	s->sorted = true;
	while (low < high) {
		size_t mid = (low + high) / 2;
		const struct differing *d = &s->differing[mid];

		if (d->disk < disk || (d->disk == disk && d->end_bytes <= t->begin * SECTOR))
			low = mid + 1;
		else
			high = mid;
	}
	for (;
	     low < s->n_differing && s->differing[low].disk == disk && s->differing[low].start_bytes < t->end * SECTOR;
	     low++)
		send(t, LB_MAX(s->differing[low].start_bytes / SECTOR, t->begin),
		     LB_MIN(s->differing[low].end_bytes / SECTOR, t->end));
}

static int answer_units(struct lb_settle *s, const struct lb_settle_question *q, struct lb_settle_answer *answer)
{
	struct telling t = {
		.s = s, .answer = answer, .begin = q->offset_bytes / SECTOR, .at = q->offset_bytes / SECTOR};
	const uint32_t disk = disk_index(s, q->disk);
	int r;

	t.end = t.begin + (q->length_bytes + SECTOR - 1) / SECTOR;
	memset(answer->send, 0, sizeof(answer->send));
	memset(answer->zeroes, 0, sizeof(answer->zeroes));
	r = lb_map_walk(s->map, q->disk, t.begin, t.end - t.begin, tell, &t);
	if (r < 0)
		return r;
	zeroes(&t, t.at, t.end);
	tell_differing(&t, q->disk);
	if (q->offset_bytes + q->length_bytes == s->disks.disk[disk].size_bytes)
		s->disks_ended |= UINT64_C(1) << disk;
	answer->settled = true;
	answer->units = (q->length_bytes + LB_BATCH_UNIT_BYTES - 1) / LB_BATCH_UNIT_BYTES;
	for (size_t i = 0; i < answer->units; i++)
		s->stats.sent_units += answer->send[i / 8] >> i % 8 & 1;
	return 0;
}

static int check(const struct lb_settle *s, const struct lb_settle_question *q)
{
	uint32_t i = disk_index(s, q->disk);
	uint64_t size_bytes;

	if (i == s->disks.n)
		return lb_fail(-EINVAL, "there is no disk with id %u", q->disk);
	size_bytes = s->disks.disk[i].size_bytes;
	if (q->length_bytes == 0 || q->length_bytes > LB_SETTLE_RANGE_BYTES_MAX || q->offset_bytes >= size_bytes ||
	    q->length_bytes > size_bytes - q->offset_bytes || q->offset_bytes % LB_BATCH_UNIT_BYTES != 0 ||
	    (q->length_bytes % LB_BATCH_UNIT_BYTES != 0 && q->offset_bytes + q->length_bytes != size_bytes))
		return lb_fail(-EINVAL,
			       "disk %s can't be asked about %" PRIu64 " bytes at %" PRIu64
			       ": units of %u bytes, at most %u bytes of them",
			       s->disks.disk[i].name, q->length_bytes, q->offset_bytes, LB_BATCH_UNIT_BYTES,
			       LB_SETTLE_RANGE_BYTES_MAX);
	return 0;
}

int lb_settle_ask(struct lb_settle *s, const struct lb_settle_question *question, struct lb_settle_answer *answer)
{
	LB_LOCK_SCOPE(&s->lock);
	int r;

	r = check(s, question);
	if (r < 0)
		return r;
	if (question->offset_bytes < s->forgotten_bytes[disk_index(s, question->disk)])
		start_over(s);
	answer->batch = 0;
	answer->settled = false;
	if (s->batch.n_entries > 0 && question->batch == s->batch_id && question->n == s->batch.n_entries)
		r = take_report(s, question);
	if (r == 0)
		r = fill(s, question); /* a batch that is out and was not answered is given out again */
	if (r == -ETIME)
		return 0;
	if (r < 0)
		return r;
	if (r == 0)
		return answer_units(s, question, answer);
	answer->batch = s->batch_id;
	return lb_batch_print(&s->batch, &answer->entries);
}
