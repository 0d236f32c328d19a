/* SPDX-License-Identifier: Apache-2.0 */
/* Shared points of a replication group: kept by one decision, whatever each member's own ladder is and when it prunes.
 */
#include <errno.h>

#include "vault_site.h"

#include "vault/fold.h"
#include "vault/manifest.h"
#include "vault/pins.h"
#include "vault/points.h"
#include "vault/shared.h"
#include "vault/together.h"
#include "vault/verify.h"

#define MEMBERS 3
#define HOUR_NS (3600 * LB_NS_PER_S)
#define DAYS 15
#define FIRST_NS (30000 * 24 * HOUR_NS)

struct member {
	struct site s; /* its own machine, writer and place in the journal; store and vault are the group's */
	struct lb_fold_options options;
	unsigned int folds_every_h;
};

struct group {
	struct site s;
	struct member member[MEMBERS];
	struct lb_shared_point last;
	struct lb_retention retention;
	unsigned int made;
};

static const struct {
	const char *ladder;
	unsigned int every_h;
} kinds[MEMBERS] = {{"all:2h 1h:1d 2h:7d 4h:15d", 3}, {"all:3h", 7}, {"2h:1d 12h:4d", 11}};

static void member_new(struct group *g, unsigned int i)
{
	struct member *m = &g->member[i];

	m->s = g->s;
	memset(m->s.machine.bytes, 0x50 + (int)i, sizeof(m->s.machine.bytes));
	m->s.prev = (struct lb_digest){0};
	m->s.receipt_ns = FIRST_NS;
	ok(lb_vault_machine_key(g->s.vault, &m->s.machine, true, &m->s.key));
	ok(lb_journal_writer_open(g->s.vault, &m->s.machine, &m->s.writer));
	ok(lb_hrl_builder_new(LB_HRL_DATA_BYTES_NOMINAL, &m->s.builder));
	m->options.retention = lb_retention_default;
	ok(lb_ladder_parse(kinds[i].ladder, &m->options.retention.ladder));
	m->folds_every_h = kinds[i].every_h;
	site_begin(&m->s, 1);
}

static struct group *group_new(void)
{
	struct group *g = calloc(1, sizeof(*g));

	assert_non_null(g);
	site_new(&g->s);
	g->retention = lb_retention_default;
	for (unsigned int i = 0; i < MEMBERS; i++)
		member_new(g, i);
	return g;
}

static void group_free(struct group *g)
{
	for (unsigned int i = 0; i < MEMBERS; i++) {
		lb_journal_writer_free(g->member[i].s.writer);
		lb_hrl_builder_free(g->member[i].s.builder);
	}
	site_free(&g->s);
	free(g);
}

/* Every member writes, marks, and its journal is in the vault; with `told`, the point is a shared one. */
static int group_point(struct group *g, int64_t time_ns, bool told)
{
	struct lb_shared_point p = {.time_ns = time_ns, .n_members = MEMBERS, .group_name = "shop"};

	memset(p.group.bytes, 0x66, sizeof(p.group.bytes));
	memset(p.id.bytes, 0x10, sizeof(p.id.bytes));
	memcpy(p.id.bytes, &g->made, sizeof(g->made));
	g->made++;
	for (unsigned int i = 0; i < MEMBERS; i++) {
		struct site *s = &g->member[i].s;

		s->receipt_ns = time_ns + i * 7 * LB_NS_PER_S;
		site_write_block(s, g->made % 16, (uint8_t)g->made, LB_HRL_POINT | LB_HRL_MARK_GROUP);
		p.members[i].machine = s->machine;
		p.members[i].position = (struct lb_position){.epoch = s->epoch, .seq = s->seq - 1};
	}
	g->last = p;
	return told ? lb_shared_add(g->s.vault, &p, &g->retention, time_ns) : 0;
}

static void member_fold(struct member *m, int64_t now_ns)
{
	struct lb_fold_report report = {.changed = true};

	m->options.now_ns = now_ns;
	for (int i = 0; i < 50 && report.changed; i++)
		ok(lb_fold_round(m->s.vault, &m->s.machine, &m->options, &report));
}

static void group_fold(struct group *g, unsigned int hour)
{
	for (unsigned int i = 0; i < MEMBERS; i++)
		if (hour % g->member[i].folds_every_h == 0)
			member_fold(&g->member[i], FIRST_NS + hour * HOUR_NS);
}

static bool all_have(struct group *g, const struct lb_uuid *id)
{
	char text[LB_POINT_NAME_BYTES] = LB_SHARED_PREFIX;
	struct lb_point point;

	lb_uuid_format(id, text + strlen(LB_SHARED_PREFIX));
	for (unsigned int i = 0; i < MEMBERS; i++) {
		int r = lb_point_find(g->s.vault, &g->member[i].s.machine, text, &point);

		if (r == -ENOENT)
			return false;
		ok(r);
	}
	return true;
}

/* Every point that the group's list has is there at every member. */
static size_t check(struct group *g)
{
	struct lb_shared_points points;
	size_t n;

	ok(lb_shared_list(g->s.vault, &g->member[0].s.machine, &points));
	for (size_t i = 0; i < points.n; i++)
		if (!all_have(g, &points.points[i].id))
			fail_msg("a member pruned shared point %zu of %zu", i, points.n);
	n = points.n;
	lb_shared_free(&points);
	return n;
}

static size_t count_kept(struct group *g, unsigned int i)
{
	struct lb_pins all, named;
	size_t n;

	ok(lb_pins_read_kept(g->s.vault, &g->member[i].s.machine, &all));
	ok(lb_pins_read(g->s.vault, &g->member[i].s.machine, &named));
	n = all.n - named.n;
	lb_pins_free(&all);
	lb_pins_free(&named);
	return n;
}

static void fifteen_days_of_shared_points_are_kept_alike_at_members_that_prune_differently(void **state)
{
	struct lb_together together = {0};
	struct group *g = group_new();
	struct lb_shared_point pinned, plain;
	struct lb_point point;
	size_t n = 0;

	(void)state;
	for (unsigned int hour = 0; hour <= DAYS * 24; hour++) {
		ok(group_point(g, FIRST_NS + hour * HOUR_NS, true));
		if (hour == 5) {
			pinned = g->last;
			point = (struct lb_point){.position = pinned.members[1].position,
						  .time_ns = pinned.time_ns,
						  .until_ns = pinned.time_ns,
						  .flags = LB_HRL_POINT};
			ok(lb_point_hold(g->s.vault, &g->member[1].s.machine, &point, "court"));
		}
		if (hour == 7)
			plain = g->last;
		group_fold(g, hour);
		if (hour % 60 == 59)
			n = check(g);
	}
	for (unsigned int i = 0; i < MEMBERS; i++)
		member_fold(&g->member[i], FIRST_NS + DAYS * 24 * HOUR_NS);
	n = check(g);
	assert_in_range(n, 24 + 6 * 12 + 8 * 6, 24 + 6 * 12 + 8 * 6 + 16); /* by the ladder, and what waits to go */
	for (unsigned int i = 0; i < MEMBERS; i++)
		assert_int_equal(count_kept(g, i), n);
	/* one member's hold holds it at all; its neighbour is gone */
	assert_true(all_have(g, &pinned.id));
	assert_false(all_have(g, &plain.id));
	for (unsigned int i = 0; i < MEMBERS; i++) {
		ok(lb_point_find_together(&together, g->s.vault, &g->member[i].s.machine, "latest-multi-vm", &point));
		assert_true(lb_position_compare(&point.position, &g->last.members[i].position) == 0);
	}
	group_free(g);
}

static void no_stranger(void *arg, const struct lb_verify_finding *f)
{
	(void)arg;
	if (strstr(f->object, "/g/") != NULL)
		fail_msg("%s: %s", f->object, f->text);
}

static void a_marked_point_waits_for_the_group_also_under_a_ladder_that_would_drop_it(void **state)
{
	struct group *g = group_new();
	struct lb_verify_report report;
	struct lb_shared_point waits;

	(void)state;
	ok(group_point(g, FIRST_NS, true));
	ok(group_point(g, FIRST_NS + 60 * LB_NS_PER_S, false));
	waits = g->last;
	ok(group_point(g, FIRST_NS + 120 * LB_NS_PER_S, false));
	for (unsigned int i = 0; i < MEMBERS; i++)
		member_fold(&g->member[i], FIRST_NS + 10 * 60 * LB_NS_PER_S);
	ok(lb_shared_add(g->s.vault, &waits, &g->retention, waits.time_ns));
	assert_true(all_have(g, &waits.id));
	ok(lb_vault_verify(g->s.vault, &g->member[2].s.machine, false, NULL, no_stranger, NULL, &report));
	group_free(g);
}

static void a_point_that_a_member_pruned_before_the_group_agreed_is_none(void **state)
{
	struct group *g = group_new();
	struct lb_shared_point late;

	(void)state;
	ok(group_point(g, FIRST_NS, true));
	ok(group_point(g, FIRST_NS + 60 * LB_NS_PER_S, false));
	late = g->last;
	for (unsigned int hour = 1; hour < 8; hour++)
		ok(group_point(g, FIRST_NS + hour * HOUR_NS, true));
	member_fold(&g->member[1], FIRST_NS + 8 * HOUR_NS);
	assert_int_equal(lb_shared_add(g->s.vault, &late, &g->retention, FIRST_NS + 8 * HOUR_NS), -ESTALE);
	for (unsigned int i = 0; i < MEMBERS; i++)
		assert_int_equal(count_kept(g, i), 8);
	assert_int_equal(check(g), 8);
	group_free(g);
}

static void points_of_a_group_that_is_no_more_stay_as_each_member_keeps_its_own(void **state)
{
	struct group *g = group_new();
	struct lb_shared_point old;

	(void)state;
	for (unsigned int hour = 0; hour < 8; hour++) {
		ok(group_point(g, FIRST_NS + hour * HOUR_NS, true));
		if (hour == 1)
			old = g->last;
	}
	member_fold(&g->member[1], FIRST_NS + 8 * HOUR_NS);
	assert_true(all_have(g, &old.id));
	ok(lb_shared_let_go(g->s.vault, &old.group));
	ok(lb_shared_let_go(g->s.vault, &old.group));
	member_fold(&g->member[1], FIRST_NS + 8 * HOUR_NS);
	assert_false(all_have(g, &old.id));
	group_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fifteen_days_of_shared_points_are_kept_alike_at_members_that_prune_differently),
		cmocka_unit_test(a_marked_point_waits_for_the_group_also_under_a_ladder_that_would_drop_it),
		cmocka_unit_test(a_point_that_a_member_pruned_before_the_group_agreed_is_none),
		cmocka_unit_test(points_of_a_group_that_is_no_more_stay_as_each_member_keeps_its_own),
	};

	return cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
