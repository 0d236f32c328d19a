/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One listing of each machine's folder, and a few heads of its journal: names tell order and number of what was
 * written, also where folding has removed some of it; heads, which are authentic, tell when.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "vault/cost.h"
#include "vault/pack.h"

#define DAY_NS (INT64_C(24) * 3600 * LB_NS_PER_S)
#define MONTH_DAYS 30.0
#define GB 1e9
#define EPOCHS_MAX 64          /* that one measurement looks back over */
#define OBJECTS_MAX (4u << 20) /* of one machine's journal; 15 s apart these are two years */

struct object {
	struct lb_place place;
	uint64_t size_bytes;
	uint64_t steps; /* objects written since the one before in this list, itself included */
};

struct looking {
	struct lb_vault *v;
	struct lb_cost_held *held;
	double minimum_days;
	int64_t newest_ns; /* of all journals */
	const struct lb_uuid *machine;
	size_t prefix_bytes; /* "m/U/" */
	struct object *objects;
	size_t n, room;
};

static void count(struct lb_cost_held *held, enum lb_cost_kind kind, uint64_t size_bytes)
{
	held->kinds[kind].objects++;
	held->kinds[kind].bytes += size_bytes;
	held->total.objects++;
	held->total.bytes += size_bytes;
}

static int keep_object(struct looking *l, const char *name, uint64_t size_bytes)
{
	struct object o = {.size_bytes = size_bytes};

	if (lb_pack_name_parse(name, &o.place) < 0) {
		lb_err_clear();
		return 0;
	}
	if (l->n >= OBJECTS_MAX)
		return lb_fail(-EOVERFLOW, "a machine's journal has more than %u objects", OBJECTS_MAX);
	if (l->n == l->room) {
		size_t room = l->room > 0 ? 2 * l->room : 256;
		struct object *grown = reallocarray(l->objects, room, sizeof(*grown));

		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for a list of journal objects");
		l->objects = grown;
		l->room = room;
	}
	l->objects[l->n++] = o;
	return 0;
}

static int machine_object(void *arg, const char *name, uint64_t size_bytes)
{
	static const struct {
		const char *folder;
		enum lb_cost_kind kind;
	} kinds[] = {{"e/", LB_COST_JOURNAL}, {"o/", LB_COST_DATA}, {"d/", LB_COST_MAPS}, {"c/", LB_COST_CHECKPOINTS}};
	struct looking *l = arg;
	enum lb_cost_kind kind = LB_COST_SMALL;

	for (size_t i = 0; i < LB_ARRAY_LEN(kinds); i++)
		if (strncmp(name + l->prefix_bytes, kinds[i].folder, 2) == 0)
			kind = kinds[i].kind;
	count(l->held, kind, size_bytes);
	return kind == LB_COST_JOURNAL ? keep_object(l, name, size_bytes) : 0;
}

static int site_object(void *arg, const char *name, uint64_t size_bytes)
{
	struct looking *l = arg;

	l->held->servers += strncmp(name, "ps/", 3) == 0;
	count(l->held, LB_COST_SITE, size_bytes);
	return 0;
}

/* What folding has just deleted is older than all that is there. */
static int time_of(struct looking *l, size_t i, int64_t *ret_time_ns)
{
	_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;
	int r;

	r = lb_pack_read(l->v, l->machine, &l->objects[i].place, &p);
	if (r == -ENOENT) {
		lb_err_clear();
		*ret_time_ns = INT64_MIN;
		return 0;
	}
	if (r == 0)
		*ret_time_ns = p->after.receipt_ns;
	return r;
}

/* The first object that is newer than a time; times rise along the journal. */
static int first_after(struct looking *l, size_t low, int64_t time_ns, size_t *ret_i)
{
	size_t high = l->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int64_t at_ns = 0;
		int r;

		r = time_of(l, middle, &at_ns);
		if (r < 0)
			return r;
		if (at_ns > time_ns)
			high = middle;
		else
			low = middle + 1;
	}
	*ret_i = low;
	return 0;
}

/* Where an epoch begins, its first object names the last one of the epoch before; `ret_steps` 0: nobody can say. */
static int epoch_steps(struct looking *l, size_t i, uint64_t *ret_steps)
{
	const struct lb_place *before = &l->objects[i - 1].place;
	_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;
	int r;

	*ret_steps = 0;
	if (l->objects[i].place.number != 0)
		return 0;
	r = lb_pack_read(l->v, l->machine, &l->objects[i].place, &p);
	if (r == -ENOENT) {
		lb_err_clear();
		return 0;
	}
	if (r == 0 && p->prev.epoch == before->epoch && p->prev.number >= before->number)
		*ret_steps = p->prev.number - before->number + 1;
	return r;
}

/* Fills in steps from the newest object back, to the first from which on it is known how many were written. */
static int count_back(struct looking *l, size_t *ret_first)
{
	unsigned int epochs = 0;
	size_t i = l->n - 1;
	int r;

	for (; i > 0; i--) {
		struct object *o = &l->objects[i];
		const struct lb_place *before = &l->objects[i - 1].place;

		if (o->place.epoch == before->epoch) {
			o->steps = o->place.number - before->number;
			continue;
		}
		if (++epochs > EPOCHS_MAX)
			break;
		r = epoch_steps(l, i, &o->steps);
		if (r < 0)
			return r;
		if (o->steps == 0)
			break;
	}
	*ret_first = i;
	return 0;
}

static void sum_from(const struct looking *l, size_t first, uint64_t *ret_written, uint64_t *ret_bytes)
{
	uint64_t written = 0, bytes = 0;

	for (size_t i = first; i < l->n; i++) {
		written += l->objects[i].steps;
		bytes += l->objects[i].size_bytes;
	}
	*ret_written = written;
	*ret_bytes = bytes;
}

/* The journal behind a time, or behind objects[low] where that is newer. `ret_days` 0: nothing can be said. */
static int stretch(struct looking *l, size_t low, double days, size_t *ret_first, double *ret_days)
{
	int64_t from_ns = l->newest_ns - (int64_t)(days * (double)DAY_NS), oldest_ns = 0;
	int r;

	r = first_after(l, low, from_ns, ret_first);
	if (r < 0)
		return r;
	*ret_days = days;
	if (*ret_first > low)
		return 0;
	r = time_of(l, low, &oldest_ns);
	if (r < 0)
		return r;
	*ret_first = low + 1;
	*ret_days = oldest_ns > from_ns ? (double)(l->newest_ns - oldest_ns) / (double)DAY_NS : 0;
	return 0;
}

static int measure_writing(struct looking *l)
{
	struct lb_cost_held *held = l->held;
	uint64_t written, bytes;
	size_t known = 0, first = 0;
	double days = 0;
	int r;

	r = count_back(l, &known);
	if (r == 0)
		r = stretch(l, known, LB_COST_DAYS, &first, &days);
	if (r < 0)
		return r;
	if (days <= 0) {
		held->unmeasured++;
		return 0;
	}
	held->measured_days = LB_MAX(held->measured_days, days);
	if (first >= l->n)
		return 0;
	sum_from(l, first, &written, &bytes);
	held->journal_puts_month += (double)written * MONTH_DAYS / days;
	/* those that are gone were as large as those that are there */
	held->journal_bytes_month += (double)bytes / (double)(l->n - first) * (double)written * MONTH_DAYS / days;
	return 0;
}

/* Written evenly over the stretch, they are half as old as it is long. */
static int measure_young(struct looking *l)
{
	uint64_t written, bytes;
	size_t first = 0;
	double days = 0;
	int r;

	if (l->minimum_days <= 0)
		return 0;
	r = stretch(l, 0, l->minimum_days, &first, &days);
	if (r < 0)
		return r;
	sum_from(l, days < l->minimum_days ? 0 : first, &written, &bytes);
	l->held->young_gb_months += (double)bytes / GB * (l->minimum_days - LB_MAX(days, 0.0) / 2) / MONTH_DAYS;
	return 0;
}

static int look_at_machine(void *arg, const struct lb_uuid *machine)
{
	struct looking *l = arg;
	char prefix[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_vault_name(prefix, machine, "%s", "");
	if (r < 0)
		return r;
	l->machine = machine;
	l->prefix_bytes = strlen(prefix);
	l->n = 0;
	l->held->machines++;
	r = lb_store_list(l->v->store, prefix, machine_object, l);
	if (r < 0 || l->n == 0)
		return r;
	r = measure_writing(l);
	if (r == 0)
		r = measure_young(l);
	if (r == -EBADMSG || r == -ENOKEY || r == -ENOENT) {
		lb_warning("a machine's writing is not counted: %s", lb_err_text());
		lb_err_clear();
		l->held->unmeasured++;
		return 0;
	}
	return r;
}

static int note_newest(void *arg, const struct lb_uuid *machine)
{
	struct looking *l = arg;
	struct lb_journal_tail tail;
	int r;

	r = lb_journal_tail_read(l->v, machine, &tail);
	if (r == 0 && tail.position.epoch != 0)
		l->newest_ns = LB_MAX(l->newest_ns, tail.receipt_ns);
	/* a journal that can't be read is told of when it is looked at */
	if (r == -EBADMSG || r == -ENOKEY || r == -ENOENT) {
		lb_err_clear();
		r = 0;
	}
	return r;
}

static int look_at_site(struct looking *l)
{
	static const char *const prefixes[] = {"ps/", "site/", "evidence/", "probe/", "vault.json"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(prefixes); i++)
		r = lb_store_list(l->v->store, prefixes[i], site_object, l);
	return r;
}

int lb_cost_look(struct lb_vault *v, double minimum_days, struct lb_cost_held *ret_held)
{
	struct lb_cost_held held = {0};
	struct looking l = {.v = v, .held = &held, .minimum_days = minimum_days};
	int r;

	r = lb_vault_machines(v, note_newest, &l);
	if (r == 0)
		r = lb_vault_machines(v, look_at_machine, &l);
	if (r == 0)
		r = look_at_site(&l);
	free(l.objects);
	if (r == 0)
		*ret_held = held;
	return r;
}
