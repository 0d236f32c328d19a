/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/chain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "vault/repair.h"

int lb_chain_begin(struct lb_chain *c, struct lb_vault *v, const struct lb_uuid *machine)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0}; /* that it can be read at all */
	int r;

	r = lb_vault_keyring(v, machine, false, &ring);
	if (r < 0)
		return r;
	*c = (struct lb_chain){.v = v, .machine = *machine};
	return 0;
}

int lb_chain_after(struct lb_chain *c, struct lb_vault *v, const struct lb_checkpoint *checkpoint)
{
	int r;

	r = lb_chain_begin(c, v, &checkpoint->machine);
	if (r < 0)
		return r;
	c->last = checkpoint->place;
	c->last_digest = checkpoint->object_digest;
	c->last_is_seal = checkpoint->is_seal;
	c->after = checkpoint->after;
	return 0;
}

int lb_chain_at_cut(struct lb_chain *c, struct lb_vault *v, const struct lb_uuid *machine, const struct lb_manifest *m)
{
	int r;

	r = lb_chain_begin(c, v, machine);
	if (r < 0)
		return r;
	c->last = m->cut;
	c->last_digest = m->cut_digest;
	c->last_is_seal = m->cut_is_seal;
	c->after = m->cut_after;
	c->manifest = m->version;
	return 0;
}

int lb_chain_newest(struct lb_chain *c, struct lb_vault *v, const struct lb_uuid *machine)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *checkpoint = NULL;
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	int r;

	r = lb_chain_begin(c, v, machine);
	if (r == 0)
		r = lb_manifest_read(v, machine, &m);
	if (r < 0)
		return r;
	r = lb_checkpoint_find(v, machine, m, NULL, &checkpoint);
	if (r == -ENOENT) {
		lb_err_clear();
		return lb_chain_at_cut(c, v, machine, m);
	}
	if (r == 0)
		r = lb_chain_after(c, v, checkpoint);
	c->manifest = m->version;
	return r;
}

struct lb_place lb_chain_next_place(const struct lb_chain *c)
{
	if (c->last.epoch == 0)
		return (struct lb_place){.epoch = 1};
	if (c->last_is_seal)
		return (struct lb_place){.epoch = c->last.epoch + 1};
	return (struct lb_place){.epoch = c->last.epoch, .number = c->last.number + 1};
}

static bool same_digest(const struct lb_digest *a, const struct lb_digest *b)
{
	return lb_equal_ct(a, b, sizeof(*a));
}

static bool after_follows(const struct lb_chain *c, const struct lb_pack *p)
{
	const struct lb_pack_entry *last;
	uint64_t seq_next;

	if (p->kind == LB_PACK_SEAL)
		return p->after.position.epoch == c->after.position.epoch &&
		       p->after.position.seq == c->after.position.seq &&
		       same_digest(&p->after.digest, &c->after.digest);
	last = &p->entries[p->n - 1];
	seq_next = c->after.position.epoch == p->place.epoch ? c->after.position.seq + 1 : 0;
	return p->entries[0].seq == seq_next && p->entries[0].receipt_ns >= c->after.receipt_ns &&
	       p->after.position.epoch == p->place.epoch && p->after.position.seq == last->seq &&
	       p->after.flags == last->flags && p->after.receipt_ns == last->receipt_ns &&
	       same_digest(&p->after.digest, &last->digest);
}

int lb_chain_check(const struct lb_chain *c, const struct lb_pack *p)
{
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_pack_name(name, &c->machine, &p->place);
	if (r < 0)
		return r;
	if (p->generation < c->generation)
		return lb_fail(
			-EBADMSG,
			"%s: object %s is sealed by key %u of its machine, and one before it by key %u: the key was "
			"changed before this object was made, by who still has the old one",
			c->v->store->url, name, p->generation, c->generation);
	if (p->prev.epoch != c->last.epoch || p->prev.number != c->last.number ||
	    !same_digest(&p->prev_digest, &c->last_digest))
		return lb_fail(
			-EBADMSG,
			"%s: object %s does not follow the object before it: one of them was replaced by an older or "
			"foreign one; run `lifeboat vault verify`, and `lifeboat vault repair` to go on behind it",
			c->v->store->url, name);
	if (!after_follows(c, p))
		return lb_fail(-EBADMSG,
			       "%s: object %s does not go on where the journal was (after segment %llu of epoch %llu)",
			       c->v->store->url, name, (unsigned long long)c->after.position.seq,
			       (unsigned long long)c->after.position.epoch);
	return 0;
}

void lb_chain_step(struct lb_chain *c, const struct lb_pack *p)
{
	c->last = p->place;
	c->last_digest = p->digest;
	c->last_is_seal = p->kind == LB_PACK_SEAL;
	c->after = p->after;
	c->generation = p->generation;
}

void lb_chain_cross(struct lb_chain *c, const struct lb_repair *record)
{
	c->last = record->last;
	c->last_digest = record->last_digest;
	c->last_is_seal = record->last_is_seal;
	c->after = record->after;
}

/* After an object that is absent or damaged: 1 when a repair record led over it. */
static int cross(struct lb_chain *c, const struct lb_place *place)
{
	_cleanup_(lb_repair_freep) struct lb_repair *record = NULL;
	int r = lb_repair_read(c->v, &c->machine, place, &record);

	if (r == -ENOENT || (r == 0 && !record->crosses))
		return 0;
	if (r < 0)
		return r;
	lb_chain_cross(c, record);
	r = c->crossed != NULL ? c->crossed(c->crossed_arg, record) : 0;
	return r < 0 ? r : 1;
}

int lb_chain_next(struct lb_chain *c, struct lb_pack **ret_pack)
{
	for (;;) {
		_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;
		struct lb_place place = lb_chain_next_place(c);
		char text[LB_ERR_TEXT_BYTES_MAX];
		int r, over;

		r = lb_pack_read(c->v, &c->machine, &place, &p);
		if (r == 0)
			r = lb_chain_check(c, p);
		if (r == 0) {
			lb_chain_step(c, p);
			*ret_pack = lb_steal_ptr(p);
			return 0;
		}
		if (r != -ENOENT && r != -EBADMSG)
			return r;
		snprintf(text, sizeof(text), "%s", lb_err_text());
		over = cross(c, &place); /* which looks at other objects */
		if (over <= 0)
			return over < 0 ? over : lb_fail(r, "%s", text);
	}
}

/* 1 when the object is there. */
static int is_there(const struct lb_chain *c, struct lb_place place)
{
	char name[LB_OBJECT_NAME_BYTES];
	uint64_t size_bytes;
	int r;

	r = lb_pack_name(name, &c->machine, &place);
	if (r == 0)
		r = lb_store_stat(c->v->store, name, &size_bytes, NULL);
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

int lb_chain_check_end(const struct lb_chain *c)
{
	struct lb_place next = lb_chain_next_place(c);
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = is_there(c, (struct lb_place){.epoch = next.epoch, .number = next.number + 1});
	if (r == 0)
		r = is_there(c, (struct lb_place){.epoch = next.epoch + 1});
	if (r <= 0)
		return r;
	r = is_there(c, next); /* a writer may have put both since */
	if (r != 0)
		return r < 0 ? r : -EAGAIN;
	r = lb_pack_name(name, &c->machine, &next);
	if (r < 0)
		return r;
	return lb_fail(
		-EBADMSG,
		"%s: object %s is missing though objects after it are there; what follows it can't be "
		"recovered: restore the object from a copy of the vault, or run `lifeboat vault repair` to go on "
		"behind it",
		c->v->store->url, name);
}

int lb_chain_finish(struct lb_chain *c)
{
	int r;

	for (;;) {
		_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;

		r = lb_chain_next(c, &p);
		if (r == -ENOENT) {
			r = lb_chain_check_end(c);
			if (r == 0)
				lb_err_clear();
			if (r != -EAGAIN)
				return r;
		} else if (r < 0) {
			return r;
		}
	}
}

void lb_chain_tail(const struct lb_chain *c, struct lb_journal_tail *ret_tail)
{
	struct lb_place next = lb_chain_next_place(c);
	bool is_open = c->last.epoch > 0 && !c->last_is_seal;

	*ret_tail = (struct lb_journal_tail){
		.position = c->after.position,
		.digest = c->after.digest,
		.instance = c->after.instance,
		.ring_cut = c->after.ring_cut,
		.scan_cursor = c->after.scan_cursor,
		.receipt_ns = c->after.receipt_ns,
		.flags = c->after.flags,
		.epoch_newest = c->last.epoch,
		.epoch_open = is_open ? c->last.epoch : 0,
		.next_object = is_open ? next.number : 0,
	};
}

int lb_journal_tail_read(struct lb_vault *v, const struct lb_uuid *machine, struct lb_journal_tail *ret_tail)
{
	struct lb_chain c;
	int r;

	r = lb_chain_newest(&c, v, machine);
	if (r < 0)
		return r;
	r = lb_chain_finish(&c);
	if (r < 0)
		return r;
	lb_chain_tail(&c, ret_tail);
	return 0;
}
