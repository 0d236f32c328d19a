/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proof of what was folded: the manifest, the map of every span, and the segments that these refer to, which are read
 * where the maps say they are.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "vault/replay.h"
#include "vault/verify_parts.h"

struct referring {
	struct lb_verify *w;
	const struct lb_map *map;
	bool *is_needed; /* by segment */
};

static int note_needed(void *arg, const struct lb_map_extent *x)
{
	struct referring *rf = arg;

	rf->is_needed[x->segment] = rf->is_needed[x->segment] || lb_hrl_kind_has_data(x->kind);
	return 0;
}

static int check_place(struct lb_verify *w, const struct lb_map_segment *place)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_segment_object(object, &w->machine, place);
	if (r == 0)
		r = lb_segment_read(w->v, &w->machine, place, &s);
	if (lb_verify_is_damage(r)) {
		lb_verify_find(w, object,
			       "what points of the folded journal have there is lost (%s): see `lifeboat vault verify "
			       "MACHINE --point POINT` for the ranges that each point loses",
			       lb_err_text());
		return 0;
	}
	if (r < 0)
		return r;
	w->report.done.segments++;
	w->report.done.bytes += place->head_bytes;
	return w->deep ? lb_verify_frames(w, object, place, s) : 0;
}

static int check_references(struct lb_verify *w, const struct lb_map *map)
{
	_cleanup_free_ bool *is_needed = calloc(lb_map_segments(map) + 1, sizeof(*is_needed));
	struct referring rf = {.w = w, .map = map, .is_needed = is_needed};
	int r = 0;

	if (is_needed == NULL)
		return lb_fail(-ENOMEM, "out of memory for the proof of a folded journal");
	for (uint32_t i = 0; i < lb_map_disks(map); i++)
		lb_map_walk(map, lb_map_disk_id(map, i), 0, UINT64_C(1) << 54, note_needed, &rf);
	for (uint32_t i = 0; r == 0 && i < lb_map_segments(map); i++)
		if (is_needed[i])
			r = check_place(w, lb_map_segment(map, i));
	return r;
}

static int check_span(struct lb_verify *w, const struct lb_span *span)
{
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	w->report.done.objects++;
	w->report.done.bytes += span->map_bytes;
	r = lb_folded_name(object, &w->machine, 'd', span->map);
	if (r == 0)
		r = lb_span_load(w->v, &w->machine, span, &map);
	if (lb_verify_is_damage(r)) {
		lb_verify_find(w, object, "%s: points from %llu:%llu on can't be recovered", lb_err_text(),
			       (unsigned long long)span->point.position.epoch,
			       (unsigned long long)span->point.position.seq);
		w->is_whole = w->map_is_whole = false;
		return 0;
	}
	if (r == 0)
		r = check_references(w, map);
	return r == 0 && w->deep && w->map_is_whole ? lb_map_overlay(w->map, map) : r;
}

static int check_known(struct lb_verify *w, const char *object, bool known)
{
	w->report.done.objects++;
	if (!known)
		lb_verify_note(w, object,
			       "the folded journal does not name it: left over by a round that was interrupted, to be "
			       "removed by a later one; or foreign");
	return 0;
}

static bool is_garbage(const struct lb_manifest *m, uint64_t number)
{
	for (size_t i = 0; i < m->n_garbage; i++)
		if (m->garbage[i].epoch == 0 && (m->garbage[i].number & ~LB_FOLDED_OBJECT) == number)
			return true;
	return false;
}

static int data_object(void *arg, const char *object, uint64_t size_bytes)
{
	struct lb_verify *w = arg;
	const struct lb_live *live;
	uint64_t number = 0;

	if (lb_folded_name_parse(object, 'o', &number) < 0) {
		lb_verify_find(w, object, "it is no object of a folded journal: foreign; it costs nothing; remove it");
		return 0;
	}
	live = lb_manifest_live(w->manifest, 0, number | LB_FOLDED_OBJECT);
	if (live != NULL && live->size_bytes != size_bytes)
		lb_verify_find(w, object, "it has %llu bytes and should have %lu: %s", (unsigned long long)size_bytes,
			       (unsigned long)live->size_bytes,
			       size_bytes < live->size_bytes ? "truncated" : "something was appended");
	return check_known(w, object, live != NULL || is_garbage(w->manifest, number));
}

static int map_object(void *arg, const char *object, uint64_t size_bytes)
{
	struct lb_verify *w = arg;
	uint64_t number = 0;
	bool known = false;

	(void)size_bytes;
	if (lb_folded_name_parse(object, 'd', &number) == 0) {
		for (size_t i = 0; i < w->manifest->n_spans; i++)
			known = known || w->manifest->spans[i].map == number;
		known = known || is_garbage(w->manifest, number);
	}
	return check_known(w, object, known);
}

static int manifest_object(void *arg, const char *object, uint64_t size_bytes)
{
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	const char *name = strrchr(object, '/') + 1;
	char should[LB_OBJECT_NAME_BYTES];
	struct lb_verify *w = arg;
	uint64_t version;
	int r;

	w->report.done.objects++;
	w->report.done.bytes += size_bytes;
	if (lb_u64_parse(name, LB_MANIFEST_VERSION_MAX, &version) < 0 || version == 0 ||
	    lb_manifest_name(should, &w->machine, version) < 0 || strcmp(should, object) != 0) {
		lb_verify_find(w, object, "it is no manifest: foreign; it costs nothing; remove it");
		return 0;
	}
	if (w->manifest_newest != 0 && version != w->manifest_newest + 1)
		lb_verify_find(w, object,
			       "versions %llu to %llu of the manifest before it are missing; they cost no point",
			       (unsigned long long)w->manifest_newest + 1, (unsigned long long)version - 1);
	w->manifest_newest = version;
	r = lb_manifest_get(w->v, &w->machine, version, &m);
	if (!lb_verify_is_damage(r))
		return r;
	lb_verify_find(
		w, object,
		"%s: as the newest version it costs every point up to the journal's fold (`lifeboat vault repair` puts "
		"the version before it in its place), as an older one nothing",
		lb_err_text());
	return 0;
}

static int lease_object(void *arg, const char *object, uint64_t size_bytes)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_SMALL_BYTES_MAX);
	struct lb_verify *w = arg;
	int r;

	(void)size_bytes;
	w->report.done.objects++;
	r = lb_small_get(w->v, &w->machine, object, &plain);
	if (!lb_verify_is_damage(r))
		return r;
	lb_verify_find(w, object, "%s: a lease that can't be read costs no point; it only delays deletions",
		       lb_err_text());
	return 0;
}

int lb_verify_folded(struct lb_verify *w)
{
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	w->manifest_newest = 0;
	r = lb_verify_list_under(w, "f/", manifest_object);
	if (r == 0)
		r = lb_verify_list_under(w, "l/", lease_object);
	if (r == 0)
		r = lb_vault_name(object, &w->machine, "f/");
	if (r == 0)
		r = lb_manifest_read(w->v, &w->machine, &w->manifest);
	if (lb_verify_is_damage(r)) {
		lb_verify_find(w, object, "%s: no point that was folded can be recovered", lb_err_text());
		w->is_whole = w->map_is_whole = w->prev_is_known = false;
		w->manifest = calloc(1, sizeof(*w->manifest));
		r = w->manifest == NULL ? lb_fail(-ENOMEM, "out of memory for a manifest") : 0;
	}
	if (r == 0)
		r = lb_chain_at_cut(&w->chain, w->v, &w->machine, w->manifest);
	for (size_t i = 0; r == 0 && i < w->manifest->n_spans; i++)
		r = check_span(w, &w->manifest->spans[i]);
	if (r == 0)
		r = lb_verify_list_under(w, "o/", data_object);
	return r < 0 ? r : lb_verify_list_under(w, "d/", map_object);
}

bool lb_verify_is_below_cut(const struct lb_verify *w, const struct lb_place *place)
{
	const struct lb_place *cut = &w->manifest->cut;

	return place->epoch < cut->epoch || (place->epoch == cut->epoch && place->number <= cut->number);
}

int lb_verify_below_cut(struct lb_verify *w, const char *object, uint64_t size_bytes, const struct lb_place *place)
{
	const struct lb_live *live = lb_manifest_live(w->manifest, place->epoch, place->number);
	bool known = live != NULL;

	for (size_t i = 0; !known && i < w->manifest->n_garbage; i++)
		known = w->manifest->garbage[i].kind == LB_GARBAGE_JOURNAL &&
			w->manifest->garbage[i].epoch == place->epoch &&
			w->manifest->garbage[i].number == place->number;
	if (live != NULL && live->size_bytes != size_bytes)
		lb_verify_find(w, object, "it has %llu bytes and should have %lu: %s", (unsigned long long)size_bytes,
			       (unsigned long)live->size_bytes,
			       size_bytes < live->size_bytes ? "truncated" : "something was appended");
	if (!known)
		lb_verify_note(w, object, "it is of the folded journal, which does not need it: put back by somebody");
	return 0;
}
