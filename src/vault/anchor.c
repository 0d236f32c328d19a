/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/anchor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/err.h"
#include "vault/catalog.h"
#include "vault/chain.h"

static int say(struct lb_anchor_result *result, enum lb_anchor_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int say(struct lb_anchor_result *result, enum lb_anchor_state state, const char *fmt, ...)
{
	va_list ap;

	result->state = state;
	va_start(ap, fmt);
	vsnprintf(result->text, sizeof(result->text), fmt, ap);
	va_end(ap);
	lb_err_clear();
	return 0;
}

static int is_older(struct lb_vault *v, const struct lb_anchor *a, struct lb_anchor_result *result)
{
	char then[LB_TIME_TEXT_BYTES], now[LB_TIME_TEXT_BYTES];
	struct lb_journal_tail tail;
	int r = lb_journal_tail_read(v, &a->machine, &tail);

	lb_time_format(a->time_ns, then);
	if (r == -EBADMSG || r == -ENOENT)
		return say(result, LB_ANCHOR_OLDER,
			   "the vault lacks segment %llu of epoch %llu, of %s, which it had: what follows can't be "
			   "recovered (%.200s)",
			   (unsigned long long)a->position.seq, (unsigned long long)a->position.epoch, then,
			   lb_err_text());
	if (r < 0)
		return r;
	return say(
		result, LB_ANCHOR_OLDER,
		"the vault is older than it was: its journal ends at %llu:%llu of %s, and %llu:%llu of %s was in it: "
		"it was rolled back, or its tail cut; the points between are lost",
		(unsigned long long)tail.position.epoch, (unsigned long long)tail.position.seq,
		tail.receipt_ns > 0 ? lb_time_format(tail.receipt_ns, now) : "nowhere",
		(unsigned long long)a->position.epoch, (unsigned long long)a->position.seq, then);
}

static int differs(const struct lb_anchor *a, struct lb_anchor_result *result)
{
	return say(
		result, LB_ANCHOR_DIFFERS,
		"the vault holds another history than it did: what stands at %llu:%llu is not what was there; an older "
		"copy was put back and written on; points from there on are not those that were promised",
		(unsigned long long)a->position.epoch, (unsigned long long)a->position.seq);
}

static int cannot_tell(const struct lb_anchor *a, struct lb_anchor_result *result)
{
	return say(result, LB_ANCHOR_UNKNOWN, "what was at %llu:%llu can't be compared: %.300s",
		   (unsigned long long)a->position.epoch, (unsigned long long)a->position.seq, lb_err_text());
}

/* By the journal object that was there. */
static int check_object(struct lb_vault *v, const struct lb_anchor *a, struct lb_anchor_result *result)
{
	_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	int r = lb_manifest_read(v, &a->machine, &m);

	if (r == 0 && lb_manifest_is_folded(m, &a->position))
		return 0; /* since the anchor */
	if (r == 0)
		r = lb_pack_read(v, &a->machine, &a->object, &p);
	if (r == -ENOENT)
		return is_older(v, a, result);
	if (r == -EBADMSG)
		return cannot_tell(a, result);
	if (r < 0)
		return r;
	return lb_equal_ct(&p->digest, &a->object_digest, sizeof(p->digest)) ? 0 : differs(a, result);
}

static const struct lb_digest *digest_in(const struct lb_pack *p, const struct lb_position *position)
{
	for (uint32_t i = 0; p->place.epoch == position->epoch && i < p->n; i++)
		if (p->entries[i].seq == position->seq)
			return &p->entries[i].digest;
	return NULL;
}

/* By the segment: from the newest checkpoint at or before it. */
static int check_segment(struct lb_vault *v, const struct lb_anchor *a, struct lb_anchor_result *result)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *checkpoint = NULL;
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	struct lb_chain c;
	int r;

	r = lb_manifest_read(v, &a->machine, &m);
	if (r < 0)
		return r == -EBADMSG ? cannot_tell(a, result) : r;
	/* the vault folded it since: it is newer than the anchor, and who wrote that has the machine's key */
	if (lb_manifest_is_folded(m, &a->position))
		return 0;
	r = lb_checkpoint_find(v, &a->machine, m, &a->position, &checkpoint);
	if (r == 0)
		r = lb_chain_after(&c, v, checkpoint);
	else if (r == -ENOENT)
		r = lb_chain_at_cut(&c, v, &a->machine, m);
	if (r == 0 && c.after.position.epoch == a->position.epoch && c.after.position.seq == a->position.seq)
		return lb_equal_ct(&c.after.digest, &a->digest, sizeof(a->digest)) ? 0 : differs(a, result);
	while (r == 0) {
		_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;
		const struct lb_digest *there;

		r = lb_chain_next(&c, &p);
		if (r < 0)
			break;
		there = digest_in(p, &a->position);
		if (there != NULL)
			return lb_equal_ct(there, &a->digest, sizeof(*there)) ? 0 : differs(a, result);
		if (p->place.epoch > a->position.epoch)
			return differs(a, result);
	}
	if (r == -ENOENT)
		return is_older(v, a, result);
	return r == -EBADMSG ? cannot_tell(a, result) : r;
}

static int check_item(struct lb_vault *v, const struct lb_anchor *a, struct lb_anchor_result *result)
{
	uint64_t version;
	int r = lb_catalog_version(v, &a->machine, &version);

	if (r < 0 || version >= a->item)
		return r;
	return say(result, LB_ANCHOR_OLDER,
		   "the machine's catalog entry %llu is gone, the newest is %llu: names, sizes and order of its disks "
		   "may be "
		   "those of an earlier time; no point is lost",
		   (unsigned long long)a->item, (unsigned long long)version);
}

int lb_anchor_check(struct lb_vault *v, const struct lb_anchor *anchor, struct lb_anchor_result *ret_result)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	struct lb_anchor_result result = {.state = LB_ANCHOR_HOLDS};
	int r;

	r = lb_vault_machine_key(v, &anchor->machine, false, &key);
	if (r == -ENOENT)
		r = say(&result, LB_ANCHOR_OLDER, "the machine is gone from the vault, with all its points");
	else if (r == -EBADMSG)
		r = cannot_tell(anchor, &result);
	else if (r == 0 && anchor->object.epoch > 0)
		r = check_object(v, anchor, &result);
	else if (r == 0 && anchor->position.epoch > 0)
		r = check_segment(v, anchor, &result);
	if (r == 0 && result.state == LB_ANCHOR_HOLDS && anchor->item > 0)
		r = check_item(v, anchor, &result);
	if (r < 0)
		return r;
	lb_err_clear();
	*ret_result = result;
	return 0;
}
