/* SPDX-License-Identifier: Apache-2.0 */
/* The writing side of a journal: append, seal, begin, fence. Every object is put if absent, at the next number. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "vault/chain.h"

#define FENCE_ATTEMPTS_MAX 256 /* objects that a live writer may put between our reads and our seal */

struct lb_journal_writer {
	struct lb_chain chain;
	struct lb_uuid writer;
	struct lb_journal_tail tail;
	bool fenced;
};

void lb_journal_writer_free(struct lb_journal_writer *w)
{
	free(w);
}

const struct lb_journal_tail *lb_journal_writer_tail(const struct lb_journal_writer *w)
{
	return &w->tail;
}

/*
 * Puts the newest object once more: who put it may have died before it was durable, and others now take it for
 * that. The store's -EEXIST promises it.
 */
static int settle(struct lb_journal_writer *w)
{
	_cleanup_buf_ struct lb_buf object = LB_BUF(LB_PACK_BYTES_MAX);
	struct lb_store *store = w->chain.v->store;
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	if (w->chain.last.epoch == 0)
		return 0;
	r = lb_pack_name(name, &w->chain.machine, &w->chain.last);
	if (r < 0)
		return r;
	r = lb_store_get_all(store, name, LB_PACK_BYTES_MAX, &object);
	if (r < 0)
		return r;
	r = lb_store_put_new(store, name, object.data, object.size_bytes);
	return r == -EEXIST ? 0 : r;
}

static int take_up(struct lb_journal_writer *w, struct lb_vault *v, const struct lb_uuid *machine)
{
	int r;

	r = lb_vault_random(v, &w->writer, sizeof(w->writer));
	if (r < 0)
		return r;
	r = lb_chain_newest(&w->chain, v, machine);
	if (r < 0)
		return r;
	r = lb_chain_finish(&w->chain);
	if (r < 0)
		return r;
	lb_chain_tail(&w->chain, &w->tail);
	return 0;
}

int lb_journal_writer_open(struct lb_vault *v, const struct lb_uuid *machine, struct lb_journal_writer **ret_writer)
{
	_cleanup_(lb_journal_writer_freep) struct lb_journal_writer *w = calloc(1, sizeof(*w));
	int r;

	if (w == NULL)
		return lb_fail(-ENOMEM, "out of memory for a journal writer");
	r = lb_vault_prove(v);
	if (r < 0)
		return r;
	r = take_up(w, v, machine);
	if (r < 0)
		return r;
	r = settle(w);
	if (r < 0)
		return r;
	lb_err_clear();
	*ret_writer = lb_steal_ptr(w);
	return 0;
}

/* Where the next object goes. */
static struct lb_place next_place(const struct lb_journal_writer *w)
{
	return (struct lb_place){.epoch = w->tail.epoch_open, .number = w->tail.next_object};
}

static int fenced(struct lb_journal_writer *w, const struct lb_pack *seal)
{
	char uuid[LB_UUID_TEXT_BYTES];

	w->fenced = true;
	lb_uuid_format(&w->chain.machine, uuid);
	return lb_fail(-ESTALE,
		       "epoch %llu of machine %s was sealed by another writer (%s): this one is fenced and writes no "
		       "more; the machine "
		       "goes on in a new epoch with whoever took over",
		       (unsigned long long)w->tail.epoch_open, uuid, seal == NULL ? "see the vault" : seal->reason);
}

static bool same_segments(const struct lb_pack *a, const struct lb_pack *b)
{
	if (a->kind != b->kind || a->n != b->n || a->prev.epoch != b->prev.epoch || a->prev.number != b->prev.number ||
	    !lb_equal_ct(&a->prev_digest, &b->prev_digest, sizeof(a->prev_digest)))
		return false;
	for (uint32_t i = 0; i < a->n; i++)
		if (a->entries[i].seq != b->entries[i].seq ||
		    !lb_equal_ct(&a->entries[i].digest, &b->entries[i].digest, sizeof(struct lb_digest)))
			return false;
	return true;
}

/* The name is taken: by ourselves before a lost answer, by a seal, or by another writer. */
static int taken(struct lb_journal_writer *w, const struct lb_pack *ours, struct lb_pack **ret_theirs)
{
	_cleanup_(lb_pack_freep) struct lb_pack *theirs = NULL;
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_pack_read(w->chain.v, &w->chain.machine, &ours->place, &theirs);
	if (r < 0)
		return r == -ENOENT ? lb_wrap(-EIO, "an object that was taken is gone") : r;
	if (theirs->kind == LB_PACK_SEAL && memcmp(&theirs->writer, &w->writer, sizeof(w->writer)) != 0)
		return fenced(w, theirs);
	if (!same_segments(ours, theirs)) {
		r = lb_pack_name(name, &w->chain.machine, &ours->place);
		return r < 0 ? r
			     : lb_fail(-EEXIST,
				       "%s: object %s was written by another process server meanwhile; two of them "
				       "serve this machine: "
				       "stop one, or fence it",
				       w->chain.v->store->url, name);
	}
	*ret_theirs = lb_steal_ptr(theirs);
	return 0;
}

static void advance(struct lb_journal_writer *w, const struct lb_pack *p)
{
	lb_chain_step(&w->chain, p);
	lb_chain_tail(&w->chain, &w->tail);
}

/* Encodes the head of `p`, puts head and segments, and moves the tail. */
static int put(struct lb_journal_writer *w, struct lb_pack *p, const struct lb_sealed_segment *segments)
{
	_cleanup_buf_ struct lb_buf object = LB_BUF(LB_PACK_BYTES_MAX);
	_cleanup_(lb_pack_freep) struct lb_pack *theirs = NULL;
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	struct lb_vault *v = w->chain.v;
	char name[LB_OBJECT_NAME_BYTES];
	uint8_t salt[LB_SALT_BYTES];
	int r;

	p->prev = w->chain.last;
	p->prev_digest = w->chain.last_digest;
	p->writer = w->writer;
	p->time_ns = lb_now_ns(v->store->env);
	if ((r = lb_vault_key_to_seal(v, &w->chain.machine, salt, &key)) < 0 ||
	    (r = lb_pack_name(name, &w->chain.machine, &p->place)) < 0 ||
	    (r = lb_pack_encode(&v->id, &w->chain.machine, &key, salt, p, &object)) < 0)
		return r;
	for (uint32_t i = 0; i < p->n; i++) {
		assert(segments != NULL);
		r = lb_buf_append(&object, segments[i].data, segments[i].size_bytes);
		if (r < 0)
			return r;
	}
	r = lb_store_put_new(v->store, name, object.data, object.size_bytes);
	if (r == -EEXIST)
		r = taken(w, p, &theirs);
	if (r < 0)
		return r;
	lb_err_clear();
	advance(w, theirs != NULL ? theirs : p);
	return 0;
}

static int check_live(struct lb_journal_writer *w)
{
	char uuid[LB_UUID_TEXT_BYTES];

	if (w->fenced)
		return fenced(w, NULL);
	lb_uuid_format(&w->chain.machine, uuid);
	return w->tail.epoch_open == 0 ? lb_fail(-EINVAL, "machine %s has no open epoch in the vault; begin one", uuid)
				       : 0;
}

/* Authenticates one sealed segment and makes its entry; `after` is the journal's end before it and becomes that after
 * it. */
static int admit(struct lb_journal_writer *w, const struct lb_sealed_segment *in, struct lb_pack_after *after,
		 struct lb_pack_entry *entry)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_hrl_header expect = {
		.vault = w->chain.v->id, .machine = w->chain.machine, .epoch = w->tail.epoch_open};
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	const struct lb_hrl_header *h;
	uint64_t head_bytes, total_bytes;
	int r;

	expect.seq = after->position.epoch == expect.epoch ? after->position.seq + 1 : 0;
	if (in->size_bytes < LB_HRL_HEADER_BYTES || in->size_bytes > LB_HRL_SEGMENT_BYTES_MAX)
		return lb_fail(-EBADMSG, "%zu bytes are no segment", in->size_bytes);
	r = lb_hrl_sealed_sizes(in->data, &head_bytes, &total_bytes);
	if (r < 0)
		return r;
	if (total_bytes != in->size_bytes || head_bytes > total_bytes)
		return lb_fail(-EBADMSG, "it has %zu bytes and its header says %llu: truncated", in->size_bytes,
			       (unsigned long long)total_bytes);
	r = lb_vault_key_to_open(w->chain.v, &w->chain.machine, lb_hrl_sealed_salt(in->data), &key);
	if (r == 0)
		r = lb_hrl_open_sealed(&key, &expect, in->data, (size_t)head_bytes, &s);
	if (r < 0)
		return r;
	h = lb_hrl_header(s);
	if (!lb_equal_ct(&h->prev_digest, &after->digest, sizeof(after->digest)))
		return lb_fail(-EBADMSG, "it does not follow the segment before it: their digests differ");
	after->position = (struct lb_position){.epoch = h->epoch, .seq = h->seq};
	after->digest = *lb_hrl_digest(s);
	after->instance = h->instance;
	after->ring_cut = h->ring_cut;
	after->scan_cursor = h->scan_cursor;
	after->receipt_ns = h->receipt_ns > after->receipt_ns ? h->receipt_ns : after->receipt_ns;
	after->flags = h->flags;
	*entry = (struct lb_pack_entry){.seq = h->seq,
					.size_bytes = (uint32_t)in->size_bytes,
					.head_bytes = (uint32_t)head_bytes,
					.flags = h->flags,
					.receipt_ns = after->receipt_ns,
					.digest = after->digest};
	lb_hrl_extents(s, &entry->extents);
	return 0;
}

int lb_journal_append(struct lb_journal_writer *w, const struct lb_sealed_segment *segments, size_t n)
{
	_cleanup_free_ struct lb_pack_entry *entries = NULL;
	struct lb_pack p = {.kind = LB_PACK_SEGMENTS, .after = w->chain.after};
	char uuid[LB_UUID_TEXT_BYTES];
	int r;

	r = check_live(w);
	if (r < 0)
		return r;
	if (n < 1 || n > LB_PACK_SEGMENTS_MAX)
		return lb_fail(-EINVAL, "%zu segments are not the 1 to %d of an object", n, LB_PACK_SEGMENTS_MAX);
	entries = calloc(n, sizeof(*entries));
	if (entries == NULL)
		return lb_fail(-ENOMEM, "out of memory for a table of segments");
	lb_uuid_format(&w->chain.machine, uuid);
	for (size_t i = 0; i < n; i++) {
		r = admit(w, &segments[i], &p.after, &entries[i]);
		if (r < 0)
			return lb_wrap(r, "a segment of machine %s, to follow segment %llu of epoch %llu, is refused",
				       uuid, (unsigned long long)p.after.position.seq,
				       (unsigned long long)p.after.position.epoch);
	}
	p.place = next_place(w);
	p.n = (uint32_t)n;
	p.entries = entries;
	return put(w, &p, segments);
}

static int put_seal(struct lb_journal_writer *w, struct lb_place place, const char *reason)
{
	struct lb_pack p = {.kind = LB_PACK_SEAL, .place = place, .after = w->chain.after};

	snprintf(p.reason, sizeof(p.reason), "%s", reason);
	return put(w, &p, NULL);
}

int lb_journal_seal_at(struct lb_chain *c, const char *reason)
{
	_cleanup_(lb_journal_writer_freep) struct lb_journal_writer *w = calloc(1, sizeof(*w));
	int r;

	if (w == NULL)
		return lb_fail(-ENOMEM, "out of memory for a journal writer");
	w->chain = *c;
	w->chain.crossed = NULL;
	r = lb_vault_random(c->v, &w->writer, sizeof(w->writer));
	if (r < 0)
		return r;
	lb_chain_tail(&w->chain, &w->tail);
	return put_seal(w, lb_chain_next_place(&w->chain), reason);
}

int lb_journal_seal(struct lb_journal_writer *w, const char *reason)
{
	int r;

	r = check_live(w);
	if (r < 0)
		return r;
	return put_seal(w, next_place(w), reason);
}

int lb_journal_epoch_begin(struct lb_journal_writer *w, uint64_t epoch)
{
	uint64_t newest = w->tail.epoch_open > w->tail.epoch_newest ? w->tail.epoch_open : w->tail.epoch_newest;
	char uuid[LB_UUID_TEXT_BYTES];
	int r;

	if (w->fenced)
		return fenced(w, NULL);
	lb_uuid_format(&w->chain.machine, uuid);
	if (epoch != 0 && epoch == w->tail.epoch_open)
		return 0;
	if (epoch <= newest)
		return lb_fail(-ESTALE,
			       "epoch %llu of machine %s is over in the vault; the newest is %llu, begin one above it",
			       (unsigned long long)epoch, uuid, (unsigned long long)newest);
	if (epoch - newest > LB_JOURNAL_EPOCH_GAP_MAX)
		return lb_fail(-EINVAL, "epoch %llu of machine %s is more than %d above the newest, %llu",
			       (unsigned long long)epoch, uuid, LB_JOURNAL_EPOCH_GAP_MAX, (unsigned long long)newest);
	r = w->tail.epoch_open != 0 ? put_seal(w, next_place(w), "the next epoch begins") : 0;
	for (uint64_t e = w->tail.epoch_newest + 1; r == 0 && e < epoch; e++)
		r = put_seal(w, (struct lb_place){.epoch = e}, "nothing of this epoch came to the vault");
	if (r < 0)
		return r;
	w->tail.epoch_open = epoch;
	w->tail.next_object = 0;
	return 0;
}

/* One attempt: -EAGAIN when a live writer was faster. */
static int fence_once(struct lb_vault *v, const struct lb_uuid *machine, const char *reason)
{
	_cleanup_(lb_journal_writer_freep) struct lb_journal_writer *w = calloc(1, sizeof(*w));
	int r;

	if (w == NULL)
		return lb_fail(-ENOMEM, "out of memory for a journal writer");
	r = take_up(w, v, machine);
	if (r < 0)
		return r;
	/* where the newest epoch is sealed already, its successor is taken away from a writer that may be about to
	 * begin it */
	r = put_seal(w, lb_chain_next_place(&w->chain), reason);
	return r == -EEXIST || r == -ESTALE ? -EAGAIN : r;
}

int lb_journal_fence(struct lb_vault *v, const struct lb_uuid *machine, const char *reason)
{
	char uuid[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_vault_prove(v);
	if (r < 0)
		return r;
	r = -EAGAIN;
	for (int i = 0; i < FENCE_ATTEMPTS_MAX && r == -EAGAIN; i++)
		r = fence_once(v, machine, reason);
	lb_uuid_format(machine, uuid);
	if (r == -EAGAIN)
		return lb_fail(-EBUSY,
			       "the writer of machine %s was faster %d times; stop its process server and try again",
			       uuid, FENCE_ATTEMPTS_MAX);
	return r;
}
