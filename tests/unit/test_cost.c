/* SPDX-License-Identifier: Apache-2.0 */
/* What a vault costs: the arithmetic, the file of prices, and what is measured of a vault. */
#include <errno.h>
#include <math.h>

#include "fold_site.h"

#include "vault/cost.h"

#define DAY_NS (INT64_C(86400) * LB_NS_PER_S)

static void is_near(double got, double wanted)
{
	if (fabs(got - wanted) > 1e-6 * (fabs(wanted) + 1))
		fail_msg("%.9g is not %.9g", got, wanted);
}

static void a_month_is_what_is_held_and_asked_times_its_prices(void **state)
{
	struct lb_cost_held held = {.machines = 2,
				    .servers = 1,
				    .total = {.objects = 10, .bytes = 50000000000},
				    .journal_puts_month = 100000,
				    .journal_bytes_month = 7e9,
				    .young_gb_months = 3};
	struct lb_cost_prices prices = {.per_gb_month = 0.02,
					.per_10000_puts = 0.05,
					.per_10000_gets = 0.004,
					.per_10000_lists = 0.06,
					.per_gb_read = 0.09};
	struct lb_cost_use use;
	struct lb_cost_money money;

	(void)state;
	lb_cost_expect(&held, &use);
	is_near(use.journal_puts, 100000);
	is_near(use.heartbeat_puts, 172800); /* every 15 s */
	is_near(use.fold_puts, 2 * 1440 * 4);
	is_near(use.gets, 1000000 + 172800 + 2 * 1440 * 8);
	is_near(use.lists, 2 * 1440 * 6);
	is_near(use.written_bytes, 7e9);
	lb_cost_money(&held, &use, &prices, &money);
	is_near(money.storage, 1.0);
	is_near(money.puts, 28.432 * 0.05);
	is_near(money.gets, 119.584 * 0.004);
	is_near(money.lists, 1.728 * 0.06);
	is_near(money.total, money.storage + money.puts + money.gets + money.lists);
	is_near(money.read_once, 4.5);
	is_near(money.early_deletion, 0.06);
}

static int parse(const char *text)
{
	struct lb_cost_prices prices;

	return lb_cost_prices_parse(text, strlen(text), &prices);
}

#define REST "\"per_10000_puts\":2,\"per_10000_gets\":3,\"per_10000_lists\":4,\"per_gb_read\":5.5,\"minimum_days\":30"

static void prices_are_read_whole_or_refused_by_name(void **state)
{
	const char *good = "{\"currency\":\"EUR\",\"per_gb_month\":0.5," REST "}";
	struct lb_cost_prices prices;

	(void)state;
	ok(lb_cost_prices_parse(good, strlen(good), &prices));
	assert_string_equal(prices.currency, "EUR");
	is_near(prices.per_gb_month, 0.5);
	is_near(prices.per_10000_puts, 2);
	is_near(prices.per_10000_gets, 3);
	is_near(prices.per_10000_lists, 4);
	is_near(prices.per_gb_read, 5.5);
	is_near(prices.minimum_days, 30);
	fails_naming(parse("{\"currency\":\"EUR\",\"per_gb_month\":1,\"per_gb\":1," REST "}"), -EINVAL, "\"per_gb\"");
	fails_naming(parse("{\"currency\":\"EUR\",\"per_gb_month\":-0.1," REST "}"), -EINVAL,
		     "\"per_gb_month\" is negative");
	fails_naming(parse("{\"currency\":\"EUR\",\"per_gb_month\":\"1\"," REST "}"), -EINVAL,
		     "\"per_gb_month\" is not a number");
	fails_naming(parse("{\"currency\":\"EUR\",\"per_gb_month\":1e10," REST "}"), -EINVAL,
		     "\"per_gb_month\" is above");
	fails_naming(parse("{\"currency\":\"EUR\"," REST "}"), -EINVAL, "\"per_gb_month\" is missing");
	fails_naming(parse("{\"per_gb_month\":1," REST "}"), -EINVAL, "currency");
	fails_naming(parse("{\"currency\":\"a name too long for it\",\"per_gb_month\":1," REST "}"), -EINVAL,
		     "currency");
	fails_naming(parse("{\"currency\":\"\\u001b[2J\",\"per_gb_month\":1," REST "}"), -EINVAL, "control");
	fails_naming(parse("{\"currency\":"), -EINVAL, "line 1");
}

static void the_example_of_prices_is_whole_and_asks_nothing(void **state)
{
	_cleanup_free_ uint8_t *text = NULL;
	struct lb_cost_prices prices;
	size_t size_bytes;

	(void)state;
	ok(lb_file_read(lb_env_real(), LB_PRICES_EXAMPLE, LB_COST_PRICES_BYTES_MAX, &text, &size_bytes));
	ok(lb_cost_prices_parse(text, size_bytes, &prices));
	is_near(prices.per_gb_month + prices.per_10000_puts + prices.per_10000_gets + prices.per_10000_lists +
			prices.per_gb_read + prices.minimum_days,
		0);
}

/* One object at `first_day`, then one a day up to `last_day`. */
static void write_days(struct site *s, int first_day, int last_day)
{
	for (int day = first_day; day <= last_day; day++) {
		s->receipt_ns = day * DAY_NS;
		site_write_block(s, (uint64_t)day, (uint8_t)day, LB_HRL_POINT);
	}
}

static uint64_t bytes_of(struct site *s, const char *part, size_t skip)
{
	struct site_names *names = malloc(sizeof(*names));
	uint64_t bytes = 0;

	assert_non_null(names);
	site_names(s, part, names);
	for (size_t i = skip; i < names->n; i++)
		bytes += names->size_bytes[i];
	free(names);
	return bytes;
}

static void a_vault_is_summed_by_kind_and_its_last_week_measured(void **state)
{
	struct lb_heartbeat beat = {.position = {.epoch = 1}};
	struct lb_cost_held held;
	struct site s;

	(void)state;
	site_new(&s);
	beat.machine = s.machine;
	ok(lb_cost_look(s.vault, 0, &held));
	assert_int_equal(held.machines, 1);
	assert_int_equal(held.kinds[LB_COST_SMALL].objects, 1); /* the machine's key */
	is_near(held.journal_puts_month, 0);

	site_begin(&s, 1);
	write_days(&s, 1, 1);
	ok(lb_cost_look(s.vault, 0, &held));
	assert_int_equal(held.unmeasured, 1); /* one object has no rate */

	write_days(&s, 2, 3);
	ok(lb_cost_look(s.vault, 30, &held));
	assert_int_equal(held.unmeasured, 0);
	is_near(held.measured_days, 2);
	is_near(held.journal_puts_month, 30); /* two in the two days since the first */
	is_near(held.young_gb_months, (double)bytes_of(&s, "/e/", 0) / 1e9 * 29 / 30);

	write_days(&s, 20, 30);
	ok(lb_heartbeat_put(s.vault, &s.machine, &beat, 1));
	ok(lb_cost_look(s.vault, 4, &held));
	assert_int_equal(held.kinds[LB_COST_JOURNAL].objects, 14);
	assert_int_equal(held.kinds[LB_COST_JOURNAL].bytes, bytes_of(&s, "/e/", 0));
	assert_int_equal(held.kinds[LB_COST_SITE].objects, 2); /* vault.json, a heartbeat */
	assert_int_equal(held.servers, 1);
	assert_int_equal(held.total.bytes, bytes_of(&s, "", 0));
	is_near(held.measured_days, 7);
	is_near(held.journal_puts_month, 30);
	is_near(held.journal_bytes_month, (double)bytes_of(&s, "/e/", 7) * 30 / 7);
	is_near(held.young_gb_months, (double)bytes_of(&s, "/e/", 10) / 1e9 * 2 / 30);
	site_free(&s);
}

static void what_folding_removed_still_counts_as_written(void **state)
{
	struct machine *m = machine_new("all:2h");
	struct lb_cost_held before, after;

	(void)state;
	m->s.receipt_ns = 30000 * DAY_NS; /* past the host's clock, by which objects have their age: they are deleted */
	m->options.retention.delete_delay_s = 0;
	m->options.live_percent = 95;
	machine_run(m, 100, 600 * LB_NS_PER_S);
	ok(lb_cost_look(m->s.vault, 0, &before));
	for (int i = 0; i < 5; i++) {
		machine_fold(m);
		machine_run(m, 10, 600 * LB_NS_PER_S);
	}
	ok(lb_cost_look(m->s.vault, 0, &after));
	assert_int_equal(after.unmeasured, 0);
	assert_true(after.kinds[LB_COST_MAPS].objects > 0);
	assert_true(after.kinds[LB_COST_JOURNAL].objects < before.kinds[LB_COST_JOURNAL].objects);
	assert_true(after.kinds[LB_COST_JOURNAL].objects > 1);
	/* it went on as before: as many objects a month, give or take chance */
	is_near(before.journal_puts_month,
		(double)(before.kinds[LB_COST_JOURNAL].objects - 1) * 30 / before.measured_days);
	assert_in_range((uintmax_t)after.journal_puts_month, (uintmax_t)(before.journal_puts_month * 0.75),
			(uintmax_t)(before.journal_puts_month * 1.25));
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_month_is_what_is_held_and_asked_times_its_prices),
		cmocka_unit_test(prices_are_read_whole_or_refused_by_name),
		cmocka_unit_test(the_example_of_prices_is_whole_and_asks_nothing),
		cmocka_unit_test(a_vault_is_summed_by_kind_and_its_last_week_measured),
		cmocka_unit_test(what_folding_removed_still_counts_as_written),
	};

	return cmocka_run_group_tests_name("cost", tests, NULL, NULL);
}
