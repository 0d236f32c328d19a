/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the version after this one may do. It is announced first, so that whoever pins a point either finds it doomed or
 * is seen by the round that would drop it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/chain.h"
#include "vault/fold_parts.h"

#define POINTS_MAX (4u << 20)
#define MARKED_NS (3600 * LB_NS_PER_S) /* a group has decided by then whether all have the point */

struct planning {
	struct lb_fold *f;
	struct lb_point *points; /* offered by spans, then those of the journal */
	bool *keep;
	size_t n, room;
	size_t n_folded; /* of them in spans */
};

static void planning_free(struct planning *p)
{
	free(p->points);
	free(p->keep);
}

static int add_point(void *arg, const struct lb_point *point)
{
	struct planning *p = arg;

	if (p->n >= POINTS_MAX)
		return lb_fail(-EOVERFLOW, "a machine has more than %u recovery points", POINTS_MAX);
	if (p->n == p->room) {
		size_t room = p->room > 0 ? 2 * p->room : 256;
		struct lb_point *grown = reallocarray(p->points, room, sizeof(*grown));

		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for recovery points");
		p->points = grown;
		p->room = room;
	}
	p->points[p->n++] = *point;
	return 0;
}

static int add_journal_point(void *arg, const struct lb_point *point)
{
	struct planning *p = arg;

	return lb_manifest_is_folded(p->f->m, &point->position) ? 0 : add_point(arg, point);
}

static int read_points(struct planning *p)
{
	const struct lb_manifest *m = p->f->m;
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->n_spans; i++)
		if ((m->spans[i].point.flags & LB_HRL_POINT) != 0)
			r = add_point(p, &m->spans[i].point);
	p->n_folded = p->n;
	if (r == 0)
		r = lb_points_list_journal(p->f->v, p->f->machine, add_journal_point, p);
	if (r < 0)
		return r;
	p->keep = calloc(p->n + 1, sizeof(*p->keep));
	return p->keep == NULL ? lb_fail(-ENOMEM, "out of memory for recovery points") : 0;
}

static void doom(struct planning *p)
{
	struct lb_manifest *m = p->f->m;
	size_t k = 0;

	for (size_t i = 0; i < m->n_spans; i++) {
		struct lb_span *s = &m->spans[i];

		if ((s->point.flags & LB_HRL_POINT) == 0)
			continue;
		if (!p->keep[k++] && !s->doomed) {
			s->doomed = true;
			p->f->changed = true;
			p->f->report.points_doomed++;
		}
	}
}

/* Every point is kept this long: the journal is folded behind it. */
static int64_t window_ns(const struct lb_ladder *ladder)
{
	return ladder->n > 0 && ladder->rungs[0].every_s == 0 ? ladder->rungs[0].for_s * LB_NS_PER_S : 0;
}

/* The last object before the window and before the newest point; from heads alone. */
static int find_cut(struct lb_fold *f, const struct lb_point *newest)
{
	int64_t limit_ns = LB_MIN(f->now_ns, newest->until_ns) - window_ns(&f->options->retention.ladder);
	struct lb_chain c;
	int r;

	r = lb_chain_at_cut(&c, f->v, f->machine, f->m);
	for (uint32_t n = 0; r == 0 && n < LB_FOLD_OBJECTS_MAX; n++) {
		_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;

		r = lb_chain_next(&c, &p);
		if (r < 0)
			break;
		if (c.after.receipt_ns > limit_ns || lb_position_compare(&c.after.position, &newest->position) >= 0)
			break;
		f->m->next = c.last;
		f->m->next_end = c.after.position;
		f->report.objects_to_fold++;
	}
	return r == -ENOENT ? 0 : r;
}

static int keep_points(struct planning *p)
{
	struct lb_manifest *m = p->f->m;

	free(m->kept);
	m->n_kept = 0;
	m->kept = calloc(LB_MIN(p->n + 1, (size_t)LB_MANIFEST_KEPT_MAX), sizeof(*m->kept));
	if (m->kept == NULL)
		return lb_fail(-ENOMEM, "out of memory for recovery points");
	for (size_t i = p->n_folded; i < p->n; i++) {
		if (m->next.epoch == 0 || lb_position_compare(&p->points[i].position, &m->next_end) > 0)
			break;
		if (!p->keep[i]) {
			p->f->report.points_doomed++;
			continue;
		}
		if (m->n_kept == LB_MANIFEST_KEPT_MAX)
			return lb_fail(-EOVERFLOW, "more than %d points to keep at once", LB_MANIFEST_KEPT_MAX);
		m->kept[m->n_kept++] = p->points[i];
	}
	p->f->changed = p->f->changed || m->next.epoch != 0;
	return 0;
}

/* Whatever the machine's own ladder says: a shared point is the group's to keep, also one that is not yet agreed on. */
static bool must_stay(const struct lb_fold *f, const struct lb_point *point)
{
	return lb_fold_is_pinned(f, &point->position) ||
	       ((point->flags & LB_HRL_MARK_GROUP) != 0 && f->now_ns - point->until_ns < MARKED_NS);
}

int lb_fold_plan(struct lb_fold *f)
{
	_cleanup_(planning_free) struct planning p = {.f = f};
	int r;

	f->m->next = (struct lb_place){0};
	f->m->next_end = (struct lb_position){0};
	r = read_points(&p);
	if (r < 0)
		return r;
	lb_retention_keep(&f->options->retention, p.points, p.n, f->now_ns, p.keep);
	for (size_t i = 0; i < p.n; i++) {
		p.keep[i] = p.keep[i] || must_stay(f, &p.points[i]);
		f->report.points += p.keep[i];
	}
	doom(&p);
	if (p.n > 0)
		r = find_cut(f, &p.points[p.n - 1]);
	return r < 0 ? r : keep_points(&p);
}
