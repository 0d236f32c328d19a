/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The act of repair. One walk over the journal finds what can't be read and makes a record for each piece; a second
 * look at the maps says which ranges and which points that concerns; then the records are put.
 */
#include "vault/repair.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/catalog.h"
#include "vault/repair_parts.h"
#include "vault/replay.h"

#define RANGES_TOLD 6

static void work_clear(struct lb_repair_work *w)
{
	free(w->objects.at);
	free(w->ends.at);
	free(w->was_there);
	lb_checkpoint_list_free(&w->checkpoints);
	lb_repairs_free(&w->records);
	w->objects = (struct lb_repair_places){0};
	w->ends = (struct lb_repair_ends){0};
	w->was_there = NULL;
	w->checkpoints_damaged = 0;
}

void lb_repair_say(struct lb_repair_work *w, const struct lb_repair *record, bool repaired, const char *object,
		   const char *fmt, ...)
{
	struct lb_repair_told t = {.machine = w->machine, .object = object, .record = record, .is_repaired = repaired};
	char text[LB_ERR_TEXT_BYTES_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	t.text = text;
	if (repaired)
		w->report.repaired++;
	else
		w->report.beyond++;
	w->tell(w->arg, &t);
}

/* ---- telling and putting ---------------------------------------------------------------------------------------- */

static void ranges_text(const struct lb_repair *r, char *text, size_t size_bytes)
{
	uint64_t bytes = 0;
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < r->n_ranges; i++)
		bytes += r->ranges[i].sectors * LB_HRL_SECTOR_BYTES;
	for (size_t i = 0; i < r->n_ranges && i < RANGES_TOLD && used < size_bytes; i++)
		used += (size_t)snprintf(
			text + used, size_bytes - used, "%sdisk %u bytes %llu..%llu", i > 0 ? ", " : "",
			r->ranges[i].disk, (unsigned long long)r->ranges[i].start * LB_HRL_SECTOR_BYTES,
			(unsigned long long)(r->ranges[i].start + r->ranges[i].sectors) * LB_HRL_SECTOR_BYTES - 1);
	if (used < size_bytes && r->n_ranges > RANGES_TOLD)
		snprintf(text + used, size_bytes - used, " and %zu more, %llu bytes together",
			 r->n_ranges - RANGES_TOLD, (unsigned long long)bytes);
}

static void record_object(const struct lb_repair_work *w, const struct lb_repair *r, char object[LB_OBJECT_NAME_BYTES])
{
	struct lb_map_segment folded = {.epoch = r->folded.epoch, .object = r->folded.number};

	if ((r->place.number & LB_REPAIR_FOLDED) == 0)
		lb_pack_name(object, &w->machine, &r->place);
	else if (lb_repair_is_of_data(r))
		lb_segment_object(object, &w->machine, &folded);
	else
		lb_vault_name(object, &w->machine, "d/");
}

static void tell_record(struct lb_repair_work *w, const struct lb_repair *r, bool was_there)
{
	const char *how = r->is_exact ? "" : "whatever was not written again since of ";
	char object[LB_OBJECT_NAME_BYTES] = "?", lost[160] = "", until[80], ranges[512];

	record_object(w, r, object);
	ranges_text(r, ranges, sizeof(ranges));
	if (r->until.epoch != 0)
		snprintf(until, sizeof(until), "until %llu:%llu", (unsigned long long)r->until.epoch,
			 (unsigned long long)r->until.seq);
	else
		snprintf(until, sizeof(until),
			 "on, to the newest, until the machine is compared (`lifeboat machine resync`)");
	if (r->crosses)
		snprintf(lost, sizeof(lost),
			 "journal objects %llu:%llu to %llu:%llu are lost, with the points in them; ",
			 (unsigned long long)r->place.epoch, (unsigned long long)r->place.number,
			 (unsigned long long)r->last.epoch, (unsigned long long)r->last.number);
	else if ((r->place.number & LB_REPAIR_FOLDED) != 0)
		snprintf(lost, sizeof(lost), "%s of the folded journal is lost; ",
			 lb_repair_is_of_data(r) ? "data" : "the map of a span");
	else
		snprintf(lost, sizeof(lost), "%zu segments and %zu frames of it are lost; ", r->n_segments,
			 r->n_frames);
	lb_repair_say(w, r, true, object, "%spoints from %llu:%llu %s lack %s%s; %s", lost,
		      (unsigned long long)r->from.epoch, (unsigned long long)r->from.seq, until, how, ranges,
		      was_there    ? "known already"
		      : w->dry_run ? "a repair record would lead over it"
				   : "a repair record leads over it");
}

static int finish_records(struct lb_repair_work *w)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < w->records.n; i++) {
		struct lb_repair *record = w->records.r[i];
		struct lb_position until;

		r = lb_repair_find_until(w, record, &until);
		if (r < 0)
			return r;
		w->was_there[i] &= until.epoch == record->until.epoch && until.seq == record->until.seq;
		record->until = until;
	}
	for (size_t i = 0; r == 0 && i < w->records.n; i++) {
		if (!w->dry_run && !w->was_there[i])
			r = lb_repair_put(w->v, &w->machine, w->records.r[i]);
		if (r == 0)
			tell_record(w, w->records.r[i], w->was_there[i]);
	}
	return r;
}

/* ---- small objects and checkpoints --------------------------------------------------------------------------------
 */

/* The newest readable catalog entry becomes the newest one again. */
static int repair_catalog(struct lb_repair_work *w)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	char object[LB_OBJECT_NAME_BYTES];
	uint64_t newest;
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_catalog_get(w->v, &w->machine, item);
	if (r == 0 || !lb_verify_is_damage(r))
		return r;
	r = lb_catalog_version(w->v, &w->machine, &newest);
	for (uint64_t version = newest; r == 0 && version > 0; version--) {
		_cleanup_buf_ struct lb_buf text = LB_BUF(LB_SMALL_BYTES_MAX);

		r = lb_vault_name(object, &w->machine, "item/%08llu", (unsigned long long)version);
		if (r == 0)
			r = lb_small_get(w->v, &w->machine, object, &text);
		if (lb_verify_is_damage(r)) {
			r = 0;
			continue;
		}
		if (r == 0)
			r = lb_vault_name(object, &w->machine, "item/%08llu", (unsigned long long)newest + 1);
		if (r == 0 && !w->dry_run)
			r = lb_small_put_new(w->v, &w->machine, object, text.data, text.size_bytes);
		if (r == 0)
			lb_repair_say(w, NULL, true, object,
				      "entry %llu of the catalog, the newest that can be read, %s the newest again",
				      (unsigned long long)version, w->dry_run ? "would be" : "is");
		return r;
	}
	if (r == 0 && lb_vault_name(object, &w->machine, "item/") == 0)
		lb_repair_say(w, NULL, false, object,
			      "no catalog entry can be read: sizes and order of the disks are lost from the "
			      "vault; a configuration server that knows the machine writes them again, when "
			      "it is protected again");
	return r;
}

static int count_checkpoint(struct lb_repair_work *w, const struct lb_place *place)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_checkpoint_read(w->v, &w->machine, place, &c);
	if (r == 0)
		r = lb_checkpoint_load(w->v, c, &map);
	if (r == 0 || !lb_verify_is_damage(r))
		return r;
	w->checkpoints_damaged++;
	return lb_checkpoint_name(object, &w->machine, place);
}

/* Names are not used again: what a damaged one saved in time, one at the journal's end saves. */
static int repair_checkpoints(struct lb_repair_work *w)
{
	char object[LB_OBJECT_NAME_BYTES];
	bool written = false;
	int r = 0;

	for (size_t i = 0; r == 0 && i < w->checkpoints.n; i++)
		r = count_checkpoint(w, &w->checkpoints.places[i]);
	if (r == 0)
		r = lb_vault_name(object, &w->machine, "c/");
	if (r < 0 || w->checkpoints_damaged == 0)
		return r;
	if (!w->dry_run)
		r = lb_checkpoint_write(w->v, &w->machine, true, &written);
	if (r == 0)
		lb_repair_say(w, NULL, true, object, "%u checkpoints can't be used, which costs time and no point; %s",
			      w->checkpoints_damaged,
			      w->dry_run ? "a new one would be written at the journal's end"
			      : written  ? "a new one is written at the journal's end"
					 : "the next one comes as the journal grows");
	return r;
}

struct recording {
	struct lb_repair_work *w;
	struct lb_losses now;
	int error;
};

static void record_one(void *arg, const struct lb_verify_finding *f)
{
	struct recording *rec = arg;

	if (f->is_note || rec->error < 0 || !lb_uuid_equal(&f->machine, &rec->w->machine))
		return;
	rec->error = lb_losses_add(rec->w->v, &rec->now, f->object, f->text);
	if (rec->error == -ENOSPC)
		rec->error = 0; /* the rest stay findings */
}

/* Last: what is still found is what the damage has cost. */
static int record_losses(struct lb_repair_work *w)
{
	_cleanup_(lb_losses_clear) struct lb_losses before = {0};
	struct recording rec = {.w = w};
	struct lb_verify_report report;
	int r;

	if (w->dry_run)
		return 0;
	r = lb_losses_read(w->v, &w->machine, &before);
	if (r == 0)
		r = lb_vault_verify(w->v, &w->machine, w->deep, NULL, record_one, &rec, &report);
	if (r == 0)
		r = rec.error;
	if (r == 0 && !lb_losses_equal(&before, &rec.now))
		r = lb_losses_put(w->v, &w->machine, &rec.now);
	w->report.recorded += rec.now.n;
	lb_losses_clear(&rec.now);
	return r;
}

static int repair_machine(struct lb_repair_work *w, const struct lb_uuid *machine)
{
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	w->machine = *machine;
	r = w->v->has_key ? lb_vault_machine_key_check(w->v, machine, object) : 0;
	if (lb_verify_is_damage(r)) {
		lb_repair_say(w, NULL, false, object,
			      "%s: nothing of this machine can be recovered without it; put the object back from "
			      "a copy of the vault",
			      lb_err_text());
		return 0;
	}
	if (r == 0)
		r = lb_vault_name(object, machine, "e/");
	if (r == 0)
		r = lb_store_list(w->v->store, object, lb_repair_add_object, &w->objects);
	if (r == 0)
		r = lb_checkpoint_list(w->v, machine, &w->checkpoints);
	if (r == 0)
		r = lb_repair_walk(w);
	w->v->repairs_pending = &w->records;
	if (r == 0)
		r = finish_records(w);
	if (r == 0)
		r = repair_catalog(w);
	if (r == 0)
		r = repair_checkpoints(w);
	w->v->repairs_pending = NULL;
	return r < 0 ? r : record_losses(w);
}

static int repair_one(void *arg, const struct lb_uuid *machine)
{
	struct lb_repair_work *w = arg;
	int r = repair_machine(w, machine);

	work_clear(w);
	return r;
}

int lb_vault_repair(struct lb_vault *v, const struct lb_uuid *machine, bool deep, bool dry_run,
		    void (*tell)(void *arg, const struct lb_repair_told *t), void *arg,
		    struct lb_repair_report *ret_report)
{
	struct lb_repair_work w = {.v = v, .deep = deep, .dry_run = dry_run, .tell = tell, .arg = arg};
	int r;

	r = dry_run ? 0 : lb_vault_prove(v);
	if (r == 0)
		r = machine != NULL ? repair_one(&w, machine) : lb_vault_machines(v, repair_one, &w);
	if (r < 0)
		return r;
	lb_err_clear();
	*ret_report = w.report;
	return 0;
}
