/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/fold.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "vault/fold_parts.h"
#include "vault/repair.h"

#define SWEEP_VERSIONS 16

int lb_fold_pace(struct lb_fold *f, uint64_t bytes)
{
	return f->options->pace == NULL ? 0 : f->options->pace(f->options->arg, bytes);
}

bool lb_fold_is_pinned(const struct lb_fold *f, const struct lb_position *position)
{
	for (size_t i = 0; i < f->pins.n; i++)
		if (lb_position_compare(&f->pins.points[i].position, position) == 0)
			return true;
	return false;
}

struct accounting {
	struct lb_fold *f;
	int sign;
};

static int account_object(void *arg, uint64_t epoch, uint64_t number, uint64_t raw_bytes)
{
	const struct accounting *a = arg;
	struct lb_live *live = lb_manifest_live(a->f->m, epoch, number);

	if (live == NULL ||
	    (a->sign < 0 ? raw_bytes > live->live_bytes : raw_bytes > live->raw_bytes - live->live_bytes))
		return lb_fail(-EBADMSG,
			       "a map of the folded journal refers to object %llu of epoch %llu otherwise than the "
			       "manifest says; run `lifeboat vault verify --deep`",
			       (unsigned long long)number, (unsigned long long)epoch);
	live->live_bytes += a->sign < 0 ? -raw_bytes : raw_bytes;
	return 0;
}

int lb_fold_account(struct lb_fold *f, const struct lb_map *map, int sign)
{
	struct accounting a = {.f = f, .sign = sign};

	return lb_map_objects(map, account_object, &a);
}

int lb_fold_drop_map(struct lb_fold *f, const struct lb_span *span)
{
	return lb_manifest_garbage_add(f->m, &(struct lb_garbage){.kind = LB_GARBAGE_SPAN,
								  .number = span->map,
								  .size_bytes = span->map_bytes,
								  .version = f->m->version,
								  .created_ns = f->now_ns,
								  .dropped_ns = f->now_ns});
}

int lb_fold_put_map(struct lb_fold *f, const struct lb_map *map, struct lb_span *span)
{
	int r;

	r = lb_span_put(f->v, f->machine, f->m->version, map, span);
	if (r == 0)
		r = lb_fold_account(f, map, 1);
	if (r < 0)
		return r;
	f->m->totals.map_bytes += span->map_bytes;
	f->report.map_bytes += span->map_bytes;
	return lb_fold_pace(f, span->map_bytes);
}

static void fold_free(struct lb_fold *f)
{
	if (f->old != NULL)
		lb_manifest_free(f->old);
	if (f->m != NULL)
		lb_manifest_free(f->m);
	lb_pins_free(&f->pins);
}

static int copy(const struct lb_manifest *m, struct lb_manifest **ret)
{
	_cleanup_buf_ struct lb_buf bytes = LB_BUF(LB_MANIFEST_BYTES_MAX);
	int r;

	if (m->version == 0) {
		*ret = calloc(1, sizeof(**ret));
		return *ret == NULL ? lb_fail(-ENOMEM, "out of memory for a manifest") : 0;
	}
	r = lb_manifest_encode(m, &bytes);
	return r < 0 ? r : lb_manifest_decode(bytes.data, bytes.size_bytes, ret);
}

/* Pins after the manifest: a point that it does not call doomed can't be merged by us, whatever is pinned later. */
static int begin(struct lb_fold *f)
{
	int r;

	if ((r = lb_manifest_read(f->v, f->machine, &f->old)) < 0 ||
	    (r = lb_pins_read_kept(f->v, f->machine, &f->pins)) < 0)
		return r;
	if (f->pins.n_unreadable > 0)
		return lb_fail(
			-EBADMSG,
			"%s: %zu pins or holds can't be read, and nothing is pruned while nobody knows what they "
			"protect; see `lifeboat vault verify`, and remove them",
			f->v->store->url, f->pins.n_unreadable);
	f->now_ns = f->options->now_ns;
	if (f->now_ns == 0)
		r = lb_retention_now(f->v->store, &f->now_ns);
	if (r == 0)
		r = copy(f->old, &f->m);
	if (r < 0)
		return r;
	f->m->version++;
	f->m->time_ns = LB_MAX(f->now_ns, f->old->time_ns);
	return 0;
}

/* What was repaired is left as it is: damage must never look like data that was folded. */
static int look_for_repairs(struct lb_fold *f)
{
	_cleanup_(lb_repairs_free) struct lb_repairs repairs = {0};
	int r = lb_repairs_read(f->v, f->machine, &repairs);

	f->report.repaired = r == 0 && repairs.n > 0;
	return r;
}

static int run(struct lb_fold *f)
{
	int r;

	r = look_for_repairs(f);
	if (r < 0 || f->report.repaired)
		return r;

	if (!f->options->dry_run) {
		r = lb_vault_prove(f->v);
		if (r == 0)
			r = lb_fold_delete(f);
		if (r == 0)
			r = lb_fold_spans(f);
		if (r == 0)
			r = lb_fold_rewrite(f);
		if (r < 0)
			return r;
	}
	r = lb_fold_plan(f);
	if (r == 0)
		r = lb_fold_drop(f);
	if (r < 0 || f->options->dry_run || !f->changed)
		return r;
	return lb_manifest_put(f->v, f->machine, f->m);
}

static void measure(const struct lb_manifest *m, struct lb_fold_sizes *ret)
{
	const struct lb_fold_totals *t = &m->totals;

	*ret = (struct lb_fold_sizes){.journal_bytes = t->journal_bytes,
				      .written_bytes =
					      t->journal_bytes + t->rewritten_bytes + t->map_bytes + t->manifest_bytes};
	for (size_t i = 0; i < m->n_live; i++) {
		const struct lb_live *live = &m->live[i];

		ret->stored_bytes += live->size_bytes;
		ret->needed_bytes += live->raw_bytes == 0
					     ? 0
					     : (uint64_t)((double)live->size_bytes * (double)live->live_bytes /
							  (double)live->raw_bytes);
	}
	for (size_t i = 0; i < m->n_spans; i++)
		ret->stored_bytes += m->spans[i].map_bytes;
	for (size_t i = 0; i < m->n_garbage; i++)
		ret->stored_bytes += m->garbage[i].size_bytes;
}

static double ratio(uint64_t of, uint64_t to)
{
	return to == 0 ? 0 : (double)of / (double)to;
}

double lb_fold_write_ratio(const struct lb_fold_sizes *sizes)
{
	return ratio(sizes->written_bytes, sizes->journal_bytes);
}

double lb_fold_space_ratio(const struct lb_fold_sizes *sizes)
{
	return ratio(sizes->stored_bytes, sizes->needed_bytes);
}

int lb_fold_round(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_fold_options *options,
		  struct lb_fold_report *ret_report)
{
	_cleanup_(fold_free) struct lb_fold f = {.v = v, .machine = machine, .options = options};
	char uuid[LB_UUID_TEXT_BYTES];
	int r;

	lb_uuid_format(machine, uuid);
	r = begin(&f);
	if (r == 0)
		r = run(&f);
	if (r == -EEXIST) {
		lb_info("machine %s: another one folded its journal at the same time; this round is given up", uuid);
		f.report.raced = true;
		r = 0;
	}
	if (r < 0)
		return lb_wrap(r, "folding the journal of machine %s", uuid);
	f.report.changed = f.changed && !f.report.raced && !options->dry_run;
	measure(f.report.changed ? f.m : f.old, &f.report.sizes);
	f.report.version = f.report.changed ? f.m->version : f.old->version;
	if (!options->dry_run && (options->sweep || (f.report.changed && f.m->version % SWEEP_VERSIONS == 0)))
		lb_fold_sweep(&f);
	lb_err_clear();
	*ret_report = f.report;
	return 0;
}
