/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proof of a vault by reading it: every journal object in the order of names against the one before it, every segment
 * head, when deep every frame; checkpoints and small objects have files of their own.
 */
#include "vault/verify.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "vault/replay.h"
#include "vault/verify_parts.h"

#define TEXT_BYTES LB_ERR_TEXT_BYTES_MAX
#define PROGRESS_OBJECTS 16

void lb_verify_find(struct lb_verify *w, const char *object, const char *fmt, ...)
{
	struct lb_verify_finding f = {.machine = w->machine, .object = object};
	char text[TEXT_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	f.text = text;
	f.is_recorded = lb_losses_has(w->v, &w->losses, object, text) > 0;
	if (f.is_recorded)
		w->report.recorded++;
	else
		w->report.findings++;
	w->finding(w->arg, &f);
}

void lb_verify_note(struct lb_verify *w, const char *object, const char *fmt, ...)
{
	struct lb_verify_finding f = {.machine = w->machine, .object = object, .is_note = true};
	char text[TEXT_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	f.text = text;
	w->finding(w->arg, &f);
}

static void tell_progress(struct lb_verify *w)
{
	if (w->progress != NULL && w->report.done.objects % PROGRESS_OBJECTS == 0)
		w->progress(w->arg, &w->report.done);
}

/* Damage is a finding; only a store that can't be read is an error. */
bool lb_verify_is_damage(int r)
{
	return r == -EBADMSG || r == -ENOENT || r == -ENODATA || r == -EMSGSIZE;
}

#define RANGES_TOLD 8

/* Where a frame's bytes lie: "disk 0 bytes 4096..8191, ..." */
static void frame_ranges(const struct lb_hrl_segment *s, uint32_t frame, char *text, size_t size_bytes)
{
	const struct lb_hrl_extent *x;
	size_t used = 0;
	uint32_t n, told = 0, more = 0;

	text[0] = '\0';
	x = lb_hrl_extents(s, &n);
	for (uint32_t i = 0; i < n; i++) {
		if (!lb_hrl_kind_has_data(x[i].kind) || x[i].frame != frame)
			continue;
		if (told == RANGES_TOLD || used + 64 > size_bytes) {
			more++;
			continue;
		}
		used += (size_t)snprintf(text + used, size_bytes - used, "%sdisk %u bytes %llu..%llu",
					 told > 0 ? ", " : "", x[i].disk, (unsigned long long)x[i].offset_bytes,
					 (unsigned long long)(x[i].offset_bytes + x[i].length_bytes - 1));
		told++;
	}
	if (more > 0 && used + 32 < size_bytes)
		snprintf(text + used, size_bytes - used, " and %u more", more);
}

static void frame_is_lost(struct lb_verify *w, const char *object, const struct lb_map_segment *place,
			  const struct lb_hrl_segment *s, uint32_t frame)
{
	char ranges[512];

	frame_ranges(s, frame, ranges, sizeof(ranges));
	lb_verify_find(
		w, object,
		"frame %u of segment %llu of epoch %llu is lost (%s): points from %llu:%llu on can't read what was "
		"written there until it was overwritten: %s",
		frame, (unsigned long long)place->seq, (unsigned long long)place->epoch, lb_err_text(),
		(unsigned long long)place->epoch, (unsigned long long)place->seq, ranges);
}

int lb_verify_frames(struct lb_verify *w, const char *object, const struct lb_map_segment *place,
		     const struct lb_hrl_segment *s)
{
	_cleanup_buf_ struct lb_buf stored = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_free_ uint8_t *raw = malloc(LB_HRL_FRAME_BYTES_MAX);
	struct lb_hrl_frame_place at;
	int r;

	if (raw == NULL)
		return lb_fail(-ENOMEM, "out of memory for a frame");
	for (uint32_t i = 0; i < lb_hrl_frames(s); i++) {
		stored.size_bytes = 0;
		r = lb_hrl_frame_place(s, i, &at);
		if (r == 0 && (at.raw_bytes > LB_HRL_FRAME_BYTES_MAX || at.offset_bytes > place->size_bytes ||
			       at.stored_bytes > place->size_bytes - at.offset_bytes))
			r = lb_fail(-EBADMSG, "it lies outside its segment");
		if (r == 0)
			r = lb_store_get(w->v->store, object, place->offset_bytes + at.offset_bytes, at.stored_bytes,
					 &stored);
		if (r == 0)
			r = lb_hrl_frame_open(s, i, stored.data, stored.size_bytes, raw);
		if (lb_verify_is_damage(r))
			frame_is_lost(w, object, place, s, i);
		else if (r < 0)
			return r;
		w->report.done.frames++;
		w->report.done.bytes += stored.size_bytes;
	}
	return 0;
}

static int check_segment(struct lb_verify *w, const char *object, const struct lb_pack *p, uint32_t i)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_map_segment place = lb_pack_segment(p, i);
	const struct lb_digest *prev = i > 0 ? &p->entries[i - 1].digest : &w->chain.after.digest;
	const struct lb_hrl_extent *extents;
	uint32_t n, index;
	int r;

	r = lb_segment_read(w->v, &w->machine, &place, &s);
	if (lb_verify_is_damage(r)) {
		w->map_is_whole = w->is_whole = false;
		lb_verify_find(w, object,
			       "segment %llu of epoch %llu is lost (%s): points from %llu:%llu on can't be recovered",
			       (unsigned long long)place.seq, (unsigned long long)place.epoch, lb_err_text(),
			       (unsigned long long)place.epoch, (unsigned long long)place.seq);
		return 0;
	}
	if (r < 0)
		return r;
	w->report.done.segments++;
	w->report.done.bytes += place.head_bytes;
	if ((i > 0 || w->prev_is_known) && !lb_equal_ct(&lb_hrl_header(s)->prev_digest, prev, sizeof(*prev)))
		lb_verify_find(w, object, "segment %llu of epoch %llu does not follow the segment before it",
			       (unsigned long long)place.seq, (unsigned long long)place.epoch);
	if (!w->deep)
		return 0;
	extents = lb_hrl_extents(s, &n);
	r = n == 0 ? 0 : lb_map_segment_add(w->map, &place, &index);
	if (r == 0 && n > 0)
		r = lb_map_apply(w->map, index, extents, n);
	return r < 0 ? r : lb_verify_frames(w, object, &place, s);
}

static bool is_before(const struct lb_place *a, const struct lb_place *b)
{
	return a->epoch < b->epoch || (a->epoch == b->epoch && a->number < b->number);
}

static void note_newest(struct lb_verify *w, const struct lb_position *position, uint32_t flags, int64_t time_ns)
{
	if ((flags & LB_HRL_POINT) == 0 || (flags & LB_HRL_SCANNING) != 0 || lb_repairs_damage(&w->repairs, position))
		return;
	w->report.newest = *position;
	w->report.newest_ns = time_ns;
}

/* An object that could be opened: its length, its place in the chain, its segments. */
static int check_pack(struct lb_verify *w, const char *object, uint64_t size_bytes, const struct lb_pack *p)
{
	int r;

	if (size_bytes != p->total_bytes)
		lb_verify_find(w, object, "it has %llu bytes and should have %llu: %s", (unsigned long long)size_bytes,
			       (unsigned long long)p->total_bytes,
			       size_bytes < p->total_bytes ? "truncated" : "something was appended");
	r = w->prev_is_known ? lb_chain_check(&w->chain, p) : 0;
	if (r == -EBADMSG) {
		lb_verify_find(w, object, "%s: points from here on can't be recovered", lb_err_text());
		w->is_whole = w->prev_is_known = false;
	} else if (r < 0) {
		return r;
	}
	for (uint32_t i = 0; i < p->n; i++) {
		r = check_segment(w, object, p, i);
		if (r < 0)
			return r;
	}
	for (uint32_t i = 0; w->is_whole && i < p->n; i++)
		note_newest(w, &(struct lb_position){.epoch = p->place.epoch, .seq = p->entries[i].seq},
			    p->entries[i].flags, p->entries[i].receipt_ns);
	lb_chain_step(&w->chain, p);
	w->prev_is_known = true;
	return 0;
}

static const struct lb_repair *record_at(const struct lb_verify *w, const struct lb_place *place)
{
	for (size_t i = 0; i < w->repairs.n; i++)
		if (w->repairs.r[i]->place.epoch == place->epoch && w->repairs.r[i]->place.number == place->number &&
		    w->repairs.r[i]->crosses)
			return w->repairs.r[i];
	return NULL;
}

static void cross(struct lb_verify *w, const struct lb_repair *record)
{
	lb_chain_cross(&w->chain, record);
	w->is_whole = w->prev_is_known = true; /* as readers go on there */
	w->map_is_whole = false;
}

/* What is missing before the object at `place`, where records lead over it. */
static void cross_missing(struct lb_verify *w, const struct lb_place *place)
{
	struct lb_place next = lb_chain_next_place(&w->chain);
	const struct lb_repair *record = record_at(w, &next);
	char missing[LB_OBJECT_NAME_BYTES] = "?";

	while (record != NULL && is_before(&next, place) && is_before(&record->last, place)) {
		if (lb_pack_name(missing, &w->machine, &next) == 0)
			lb_verify_find(
				w, missing,
				"journal objects %llu:%llu to %llu:%llu are lost, with the points in them; a repair "
				"record leads over them",
				(unsigned long long)next.epoch, (unsigned long long)next.number,
				(unsigned long long)record->last.epoch, (unsigned long long)record->last.number);
		cross(w, record);
		next = lb_chain_next_place(&w->chain);
		record = record_at(w, &next);
	}
}

/* Gaps between the objects that are there. */
static void check_place(struct lb_verify *w, const char *object, const struct lb_place *place)
{
	struct lb_place next;
	char missing[LB_OBJECT_NAME_BYTES] = "?";

	if (w->prev_is_known)
		cross_missing(w, place);
	next = lb_chain_next_place(&w->chain);
	if (!w->prev_is_known || (place->epoch == next.epoch && place->number == next.number))
		return;
	w->is_whole = w->prev_is_known = false;
	if (w->chain.last_is_seal && place->epoch == w->chain.last.epoch) {
		lb_verify_find(w, object, "it comes after the seal of its epoch: it is never offered");
		return;
	}
	if (lb_pack_name(missing, &w->machine, &next) == 0)
		lb_verify_find(
			w, missing,
			"it is missing though %s is there: points after segment %llu of epoch %llu can't be recovered",
			object, (unsigned long long)w->chain.after.position.seq,
			(unsigned long long)w->chain.after.position.epoch);
}

static int journal_object(void *arg, const char *object, uint64_t size_bytes)
{
	_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;
	const struct lb_repair *record;
	struct lb_verify *w = arg;
	struct lb_place place;
	int r;

	w->report.done.objects++;
	tell_progress(w);
	if (lb_pack_name_parse(object, &place) < 0) {
		lb_verify_find(w, object, "it is no object of a journal: foreign");
		return 0;
	}
	if (lb_verify_is_below_cut(w, &place))
		return lb_verify_below_cut(w, object, size_bytes, &place);
	if (!is_before(&w->chain.last, &place)) {
		lb_verify_find(w, object, "it lies in what a repair record leads over, and is not read");
		return lb_verify_checkpoint_at(w, &place);
	}
	check_place(w, object, &place);
	r = lb_pack_read(w->v, &w->machine, &place, &p);
	if (lb_verify_is_damage(r)) {
		lb_verify_find(w, object, "%s: points after segment %llu of epoch %llu can't be recovered",
			       lb_err_text(), (unsigned long long)w->chain.after.position.seq,
			       (unsigned long long)w->chain.after.position.epoch);
		w->is_whole = w->prev_is_known = w->map_is_whole = false; /* what comes next is looked at on its own */
		record = record_at(w, &place);
		if (record != NULL)
			cross(w, record);
		r = 0;
	} else if (r == 0) {
		r = check_pack(w, object, size_bytes, p);
	}
	return r < 0 ? r : lb_verify_checkpoint_at(w, &place);
}

int lb_verify_list_under(struct lb_verify *w, const char *under, lb_store_list_fn fn)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	int r = lb_vault_name(prefix, &w->machine, "%s", under);

	return r < 0 ? r : lb_store_list(w->v->store, prefix, fn, w);
}

/* The key is read anew: what this process remembers says nothing of the vault. */
static int check_key(struct lb_verify *w, const struct lb_uuid *machine)
{
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	w->report.done.objects++;
	r = w->v->has_key ? lb_vault_machine_key_check(w->v, machine, object) : 0;
	if (!lb_verify_is_damage(r))
		return r;
	lb_verify_find(w, object, "%s: without it nothing can be read that was sealed by it%s", lb_err_text(),
		       strchr(object, '.') == NULL ? ", and none of the points after that" : "");
	return -ENOKEY;
}

static int verify_machine(struct lb_verify *w, const struct lb_uuid *machine)
{
	int r;

	w->machine = *machine;
	w->is_whole = w->prev_is_known = w->map_is_whole = true;
	w->report.newest = (struct lb_position){0};
	w->report.newest_ns = 0;
	w->item_newest = 0;
	r = check_key(w, machine);
	if (r < 0)
		return r == -ENOKEY ? 0 : r;
	if ((r = lb_losses_read(w->v, machine, &w->losses)) < 0 ||
	    (r = lb_repairs_read(w->v, machine, &w->repairs)) < 0 || (r = lb_verify_pins(w)) < 0 ||
	    (r = lb_map_new(&w->map)) < 0 || (r = lb_verify_folded(w)) < 0 ||
	    (r = lb_checkpoint_list(w->v, machine, &w->checkpoints)) < 0)
		return r;
	lb_checkpoint_list_cut(&w->checkpoints, w->manifest);
	for (size_t i = 0; w->is_whole && i < w->manifest->n_spans; i++)
		note_newest(w, &w->manifest->spans[i].point.position, w->manifest->spans[i].point.flags,
			    w->manifest->spans[i].point.time_ns);
	if (w->manifest->cut.epoch > 0 && (r = lb_verify_checkpoint_at(w, &w->manifest->cut)) < 0)
		return r;
	if ((r = lb_verify_list_under(w, "e/", journal_object)) < 0 || (r = lb_verify_checkpoints_end(w)) < 0)
		return r;
	return lb_verify_small(w);
}

static int verify_one(void *arg, const struct lb_uuid *machine)
{
	struct lb_verify *w = arg;
	int r;

	r = verify_machine(w, machine);
	lb_verify_parts_free(w);
	lb_losses_clear(&w->losses);
	lb_repairs_free(&w->repairs);
	return r;
}

int lb_vault_verify(struct lb_vault *v, const struct lb_uuid *machine, bool deep,
		    void (*progress)(void *arg, const struct lb_verify_progress *p),
		    void (*finding)(void *arg, const struct lb_verify_finding *f), void *arg,
		    struct lb_verify_report *ret_report)
{
	struct lb_verify w = {.v = v, .deep = deep, .progress = progress, .finding = finding, .arg = arg};
	int r;

	r = lb_verify_beats(&w, machine);
	if (r == 0)
		r = machine != NULL ? verify_one(&w, machine) : lb_vault_machines(v, verify_one, &w);
	if (r == 0 && machine == NULL)
		r = lb_verify_site(&w);
	free(w.witnesses.w);
	if (r < 0)
		return r;
	if (progress != NULL)
		progress(arg, &w.report.done);
	lb_err_clear();
	*ret_report = w.report;
	return 0;
}
