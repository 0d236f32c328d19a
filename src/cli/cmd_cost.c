/* SPDX-License-Identifier: Apache-2.0 */
/* What the vault holds, what it asks of its store in a month, and what that costs. */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "vault/cost.h"

static int read_prices(struct cli *c, struct lb_cost_prices *ret_prices)
{
	const char *path = cli_value(c, "prices");
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes;
	int r;

	r = lb_file_read(c->env, path, LB_COST_PRICES_BYTES_MAX, &text, &size_bytes);
	if (r < 0)
		return r;
	r = lb_cost_prices_parse(text, size_bytes, ret_prices);
	return r < 0 ? lb_wrap(r, "%s", path) : 0;
}

static json_t *held_json(const struct lb_cost_held *held)
{
	json_t *kinds = json_object();

	for (int i = 0; i < LB_COST_KINDS; i++)
		json_object_set_new(kinds, lb_cost_kind_names[i],
				    json_pack("{s:I,s:I}", "objects", (json_int_t)held->kinds[i].objects, "bytes",
					      (json_int_t)held->kinds[i].bytes));
	return json_pack("{s:I,s:I,s:o}", "objects", (json_int_t)held->total.objects, "bytes",
			 (json_int_t)held->total.bytes, "kinds", kinds);
}

static json_t *use_json(const struct lb_cost_held *held, const struct lb_cost_use *use)
{
	return json_pack("{s:f,s:I,s:f,s:f,s:f,s:f,s:f,s:f}", "measured_days", held->measured_days, "unmeasured",
			 (json_int_t)held->unmeasured, "journal_puts", use->journal_puts, "heartbeat_puts",
			 use->heartbeat_puts, "fold_puts", use->fold_puts, "gets", use->gets, "lists", use->lists,
			 "written_bytes", use->written_bytes);
}

static json_t *money_json(const struct lb_cost_prices *prices, const struct lb_cost_money *m)
{
	return json_pack("{s:s,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "currency", prices->currency, "storage", m->storage,
			 "puts", m->puts, "gets", m->gets, "lists", m->lists, "total", m->total, "read_once",
			 m->read_once, "early_deletion", m->early_deletion);
}

static void print_held(const struct lb_cost_held *held)
{
	char size[LB_SIZE_TEXT_BYTES];

	printf("%-14s %12s %12s\n", "HELD", "OBJECTS", "SIZE");
	for (int i = 0; i < LB_COST_KINDS; i++)
		printf("%-14s %12" PRIu64 " %12s\n", lb_cost_kind_names[i], held->kinds[i].objects,
		       lb_size_format(held->kinds[i].bytes, size));
	printf("%-14s %12" PRIu64 " %12s\n", "total", held->total.objects, lb_size_format(held->total.bytes, size));
}

static void print_use(const struct lb_cost_held *held, const struct lb_cost_use *use)
{
	char size[LB_SIZE_TEXT_BYTES];

	printf("\nEXPECTED IN 30 DAYS (writing measured over %.3g days)\n", held->measured_days);
	printf("journal puts   %12.0f  (%s)\n", use->journal_puts, lb_size_format((uint64_t)use->written_bytes, size));
	printf("heartbeat puts %12.0f  (at most)\n", use->heartbeat_puts);
	printf("folding: puts  %12.0f  (estimate)\n", use->fold_puts);
	printf("gets           %12.0f  (estimate)\n", use->gets);
	printf("lists          %12.0f  (estimate)\n", use->lists);
	if (held->unmeasured > 0)
		printf("Not counted: the writing of %" PRIu64
		       " machines, whose journal is too short or can't be read.\n",
		       held->unmeasured);
}

static void print_money(const struct lb_cost_prices *prices, const struct lb_cost_money *m)
{
	const struct {
		const char *what;
		double money;
	} lines[] = {{"storage", m->storage},
		     {"puts", m->puts},
		     {"gets", m->gets},
		     {"lists", m->lists},
		     {"total", m->total}};

	printf("\n%-14s %12s\n", "A MONTH", prices->currency);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		printf("%-14s %12.2f\n", lines[i].what, lines[i].money);
	printf("Besides: reading all of it once %.2f; deleting now the journal objects younger than %g days %.2f.\n",
	       m->read_once, prices->minimum_days, m->early_deletion);
}

int cmd_vault_cost(struct cli *c)
{
	bool priced = cli_value(c, "prices") != NULL;
	struct lb_cost_prices prices = {0};
	struct lb_cost_money money;
	struct lb_cost_held held = {0};
	struct lb_cost_use use;
	int r;

	r = priced ? read_prices(c, &prices) : 0;
	if (r == 0)
		r = cli_vault_open(c);
	if (r == 0)
		r = lb_cost_look(c->vault, prices.minimum_days, &held);
	if (r < 0)
		return r;
	lb_cost_expect(&held, &use);
	lb_cost_money(&held, &use, &prices, &money);
	if (c->json)
		return cli_print_json("cost", json_pack("{s:I,s:I,s:o,s:o,s:o}", "machines", (json_int_t)held.machines,
							"servers", (json_int_t)held.servers, "held", held_json(&held),
							"month", use_json(&held, &use), "money",
							priced ? money_json(&prices, &money) : json_null()));
	print_held(&held);
	print_use(&held, &use);
	if (priced)
		print_money(&prices, &money);
	return 0;
}
