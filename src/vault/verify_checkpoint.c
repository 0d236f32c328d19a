/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/checkpoint_format.h"
#include "vault/verify_parts.h"

void lb_verify_parts_free(struct lb_verify *w)
{
	if (w->map != NULL)
		lb_map_free(w->map);
	w->map = NULL;
	if (w->manifest != NULL)
		lb_manifest_free(w->manifest);
	w->manifest = NULL;
	lb_checkpoint_list_free(&w->checkpoints);
	w->checkpoint_next = 0;
	free(w->parts);
	w->parts = NULL;
	w->n_parts = 0;
	w->witnesses.n = w->n_beats; /* what its named points knew */
}

struct comparing {
	const struct lb_map *ours, *theirs;
	uint16_t disk;
	bool differ;
};

static bool same_source(const struct comparing *c, const struct lb_map_extent *a, const struct lb_map_extent *b)
{
	const struct lb_map_segment *sa = lb_map_segment(c->ours, a->segment),
				    *sb = lb_map_segment(c->theirs, b->segment);

	if (a->kind != b->kind || a->start != b->start || a->sectors != b->sectors || sa->epoch != sb->epoch)
		return false;
	return !lb_hrl_kind_has_data(a->kind) ||
	       (sa->seq == sb->seq && a->frame == b->frame && a->frame_sector == b->frame_sector);
}

struct looking {
	struct comparing *c;
	const struct lb_map_extent *ours;
	uint64_t covered;
};

static int compare_piece(void *arg, const struct lb_map_extent *their)
{
	struct looking *l = arg;
	struct lb_map_extent part = *l->ours;
	uint64_t cut = their->start - part.start;

	part.start = their->start;
	part.sectors = their->sectors;
	if (lb_hrl_kind_has_data(part.kind))
		part.frame_sector += (uint16_t)cut;
	l->covered += their->sectors;
	if (!same_source(l->c, &part, their))
		l->c->differ = true;
	return l->c->differ;
}

static int compare_extent(void *arg, const struct lb_map_extent *ours)
{
	struct comparing *c = arg;
	struct looking l = {.c = c, .ours = ours};

	lb_map_walk(c->theirs, c->disk, ours->start, ours->sectors, compare_piece, &l);
	c->differ |= l.covered != ours->sectors;
	return c->differ;
}

static int count_sectors(void *arg, const struct lb_map_extent *x)
{
	*(uint64_t *)arg += x->sectors;
	return 0;
}

/* Every piece of ours is theirs, and they cover no more than we do. */
static bool maps_differ(const struct lb_map *ours, const struct lb_map *theirs)
{
	struct comparing c = {.ours = ours, .theirs = theirs};
	uint64_t our_sectors = 0, their_sectors = 0;

	for (uint32_t i = 0; i < lb_map_disks(ours) && !c.differ; i++) {
		c.disk = lb_map_disk_id(ours, i);
		lb_map_walk(ours, c.disk, 0, UINT64_C(1) << 54, compare_extent, &c);
		lb_map_walk(ours, c.disk, 0, UINT64_C(1) << 54, count_sectors, &our_sectors);
	}
	for (uint32_t i = 0; i < lb_map_disks(theirs); i++)
		lb_map_walk(theirs, lb_map_disk_id(theirs, i), 0, UINT64_C(1) << 54, count_sectors, &their_sectors);
	return c.differ || our_sectors != their_sectors;
}

/* One object of a checkpoint has the length that its head and frames give. */
static int check_length(struct lb_verify *w, const char *object, uint64_t should_bytes)
{
	uint64_t size_bytes;
	int r = lb_store_stat(w->v->store, object, &size_bytes, NULL);

	if (r == 0 && size_bytes != should_bytes)
		lb_verify_find(w, object,
			       "it has %llu bytes and should have %llu: %s; it costs no point, only time; remove it",
			       (unsigned long long)size_bytes, (unsigned long long)should_bytes,
			       size_bytes < should_bytes ? "truncated" : "something was appended");
	return r == -ENOENT ? 0 : r;
}

static int check_lengths(struct lb_verify *w, const char *object, const struct lb_checkpoint *c)
{
	struct lb_verify_parts *grown;
	char name[LB_OBJECT_NAME_BYTES];
	uint32_t parts = 0;
	int r;

	for (uint32_t i = 0; i < c->n_frames; i++)
		parts = c->frames[i].part > parts ? c->frames[i].part : parts;
	r = check_length(w, object, c->total_bytes);
	for (uint32_t part = 1; r == 0 && part <= parts; part++) {
		uint64_t end = 0;

		for (uint32_t i = 0; i < c->n_frames; i++)
			if (c->frames[i].part == part)
				end = LB_MAX(end, (uint64_t)c->frames[i].offset_bytes + c->frames[i].stored_bytes);
		r = lb_checkpoint_part_name(name, c, part);
		if (r == 0)
			r = check_length(w, name, end);
	}
	grown = reallocarray(w->parts, w->n_parts + 1, sizeof(*grown));
	if (grown == NULL)
		return lb_fail(-ENOMEM, "out of memory for a list of checkpoints");
	w->parts = grown;
	w->parts[w->n_parts] = (struct lb_verify_parts){.place = c->place, .parts = parts};
	memcpy(w->parts[w->n_parts++].salt, c->salt, sizeof(w->parts->salt));
	return r;
}

static int check_checkpoint(struct lb_verify *w, const char *object, const struct lb_place *place)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	int r;

	w->report.done.objects++;
	r = lb_checkpoint_read(w->v, &w->machine, place, &c);
	if (r == 0)
		r = check_lengths(w, object, c);
	if (r == 0)
		r = lb_checkpoint_load(w->v, c, &map);
	if (lb_verify_is_damage(r)) {
		lb_verify_find(w, object, "%s: it costs no point, only time; remove it", lb_err_text());
		return 0;
	}
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < c->n_frames; i++)
		w->report.done.bytes += c->frames[i].stored_bytes;
	if (w->prev_is_known && !lb_equal_ct(&c->object_digest, &w->chain.last_digest, sizeof(c->object_digest)))
		lb_verify_find(
			w, object,
			"it was made of another journal object than the one of its number: points after it can't be "
			"opened through it; remove it");
	else if (w->deep && w->map_is_whole && c->manifest == w->manifest->version && maps_differ(w->map, map))
		lb_verify_find(w, object, "it does not hold what the journal up to it says; remove it");
	return 0;
}

static int compare_places(const struct lb_place *a, const struct lb_place *b)
{
	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	return a->number < b->number ? -1 : a->number > b->number;
}

static void no_such_object(struct lb_verify *w, const struct lb_place *place)
{
	char object[LB_OBJECT_NAME_BYTES];

	if (lb_checkpoint_name(object, &w->machine, place) == 0)
		lb_verify_find(w, object,
			       "it is of a journal object that is not there: the journal was cut after it was made");
}

int lb_verify_checkpoint_at(struct lb_verify *w, const struct lb_place *place)
{
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	while (w->checkpoint_next < w->checkpoints.n) {
		const struct lb_place *next = &w->checkpoints.places[w->checkpoint_next];
		int order = compare_places(next, place);

		if (order > 0)
			return 0;
		w->checkpoint_next++;
		if (order < 0) {
			no_such_object(w, next);
			continue;
		}
		r = lb_checkpoint_name(object, &w->machine, next);
		return r < 0 ? r : check_checkpoint(w, object, next);
	}
	return 0;
}

/* "<8>-<10>-<16 hex of the salt>-<part>": -EINVAL for others. */
static int part_name_parse(const char *name, struct lb_verify_parts *ret)
{
	unsigned long long epoch, number, salt;
	char again[LB_OBJECT_NAME_BYTES];
	unsigned int part;

	if (sscanf(name, "%8llx-%10llx-%16llx-%4x", &epoch, &number, &salt, &part) != 4)
		return -EINVAL;
	snprintf(again, sizeof(again), "%08llx-%010llx-%016llx-%04x", epoch, number, salt, part);
	if (strcmp(again, name) != 0)
		return -EINVAL;
	*ret = (struct lb_verify_parts){.place = {.epoch = epoch, .number = number}, .parts = part};
	for (int i = 0; i < 8; i++)
		ret->salt[i] = (uint8_t)(salt >> (56 - 8 * i));
	return 0;
}

static int checkpoint_object(void *arg, const char *object, uint64_t size_bytes)
{
	struct lb_verify *w = arg;
	struct lb_verify_parts part;
	struct lb_place place;

	(void)size_bytes;
	if (lb_checkpoint_name_parse(object, &place) == 0)
		return 0;
	if (part_name_parse(strrchr(object, '/') + 1, &part) < 0) {
		lb_verify_find(w, object, "it is no checkpoint: foreign; it costs nothing; remove it");
		return 0;
	}
	if (compare_places(&part.place, &w->manifest->cut) < 0)
		return 0; /* garbage of the folded journal */
	for (size_t i = 0; i < w->n_parts; i++)
		if (compare_places(&w->parts[i].place, &part.place) == 0 &&
		    memcmp(w->parts[i].salt, part.salt, sizeof(part.salt)) == 0 && part.parts >= 1 &&
		    part.parts <= w->parts[i].parts)
			return 0;
	lb_verify_note(w, object,
		       "a part that no checkpoint names: left over by a writer that was interrupted, or a copy");
	return 0;
}

int lb_verify_checkpoints_end(struct lb_verify *w)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	int r;

	for (; w->checkpoint_next < w->checkpoints.n; w->checkpoint_next++)
		no_such_object(w, &w->checkpoints.places[w->checkpoint_next]);
	r = lb_vault_name(prefix, &w->machine, "c/");
	return r < 0 ? r : lb_store_list(w->v->store, prefix, checkpoint_object, w);
}
