/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/cost.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"

#define GB 1e9
#define MONTH_DAYS 30.0
#define MONTH_S (MONTH_DAYS * 24 * 3600)

/* Of the default policy: an upload every 15 s with three segments in it, a round of folding every 30 minutes. */
#define BEAT_S 15.0
#define ROUND_S 1800.0
/* A round lists heads of five rounds' objects, and reads those that it folds twice, and their segments' indexes. */
#define GETS_PER_OBJECT 10.0
#define GETS_PER_BEAT 1.0 /* its etag */
#define GETS_PER_ROUND 8.0
#define PUTS_PER_ROUND 4.0
#define LISTS_PER_ROUND 6.0

const char *const lb_cost_kind_names[LB_COST_KINDS] = {
	[LB_COST_JOURNAL] = "journal",         [LB_COST_DATA] = "rewritten", [LB_COST_MAPS] = "maps",
	[LB_COST_CHECKPOINTS] = "checkpoints", [LB_COST_SMALL] = "small",    [LB_COST_SITE] = "site",
};

void lb_cost_expect(const struct lb_cost_held *held, struct lb_cost_use *ret_use)
{
	double beats = (double)held->servers * MONTH_S / BEAT_S;
	double rounds = (double)held->machines * MONTH_S / ROUND_S;

	*ret_use = (struct lb_cost_use){
		.journal_puts = held->journal_puts_month,
		.heartbeat_puts = beats,
		.fold_puts = rounds * PUTS_PER_ROUND,
		.gets = held->journal_puts_month * GETS_PER_OBJECT + beats * GETS_PER_BEAT + rounds * GETS_PER_ROUND,
		.lists = rounds * LISTS_PER_ROUND,
		.written_bytes = held->journal_bytes_month,
	};
}

void lb_cost_money(const struct lb_cost_held *held, const struct lb_cost_use *use, const struct lb_cost_prices *prices,
		   struct lb_cost_money *ret_money)
{
	double puts = use->journal_puts + use->heartbeat_puts + use->fold_puts;
	struct lb_cost_money m = {
		.storage = (double)held->total.bytes / GB * prices->per_gb_month,
		.puts = puts / 10000 * prices->per_10000_puts,
		.gets = use->gets / 10000 * prices->per_10000_gets,
		.lists = use->lists / 10000 * prices->per_10000_lists,
		.read_once = (double)held->total.bytes / GB * prices->per_gb_read,
		.early_deletion = held->young_gb_months * prices->per_gb_month,
	};

	m.total = m.storage + m.puts + m.gets + m.lists;
	*ret_money = m;
}

/* ---- prices -------------------------------------------------------------------------------------------- */

struct field {
	const char *name;
	size_t offset_bytes;
	double max;
};

static const struct field fields[] = {
	{"per_gb_month", offsetof(struct lb_cost_prices, per_gb_month), 1e9},
	{"per_10000_puts", offsetof(struct lb_cost_prices, per_10000_puts), 1e9},
	{"per_10000_gets", offsetof(struct lb_cost_prices, per_10000_gets), 1e9},
	{"per_10000_lists", offsetof(struct lb_cost_prices, per_10000_lists), 1e9},
	{"per_gb_read", offsetof(struct lb_cost_prices, per_gb_read), 1e9},
	{"minimum_days", offsetof(struct lb_cost_prices, minimum_days), 3650},
};

static int check_known(const json_t *object)
{
	const char *name;
	const json_t *value;

	json_object_foreach((json_t *)object, name, value)
	{
		bool known = strcmp(name, "currency") == 0;

		for (size_t i = 0; i < LB_ARRAY_LEN(fields); i++)
			known = known || strcmp(name, fields[i].name) == 0;
		if (!known)
			return lb_fail(-EINVAL, "\"%.40s\" is no price that is known", name);
	}
	return 0;
}

static int parse_number(const json_t *object, const struct field *f, struct lb_cost_prices *prices)
{
	const json_t *value = json_object_get(object, f->name);
	double number;

	if (value == NULL)
		return lb_fail(-EINVAL, "\"%s\" is missing; what costs nothing is 0", f->name);
	if (!json_is_number(value))
		return lb_fail(-EINVAL, "\"%s\" is not a number", f->name);
	number = json_number_value(value);
	if (number < 0)
		return lb_fail(-EINVAL, "\"%s\" is negative", f->name);
	if (number > f->max)
		return lb_fail(-EINVAL, "\"%s\" is above %.0f", f->name, f->max);
	memcpy((char *)prices + f->offset_bytes, &number, sizeof(number));
	return 0;
}

int lb_cost_prices_parse(const void *text, size_t size_bytes, struct lb_cost_prices *ret_prices)
{
	_cleanup_json_ json_t *object = NULL;
	struct lb_cost_prices prices = {0};
	int r;

	if (lb_json_parse(text, size_bytes, LB_COST_PRICES_BYTES_MAX, &object) < 0)
		return lb_wrap(-EINVAL, "prices");
	r = check_known(object);
	if (r == 0 && lb_json_get_text(object, "currency", prices.currency, sizeof(prices.currency)) < 0)
		r = lb_wrap(-EINVAL, "prices");
	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(fields); i++)
		r = parse_number(object, &fields[i], &prices);
	for (const char *c = prices.currency; r == 0 && *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			r = lb_fail(-EINVAL, "\"currency\" has a control character in it");
	if (r < 0)
		return r;
	*ret_prices = prices;
	return 0;
}
