/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a vault holds, what is asked of its store in a month, and what that costs at somebody's prices. Months have 30
 * days, gigabytes 10^9 bytes. What goes to the store is measured over the journals' last days; the rest is an estimate
 * for the default policy, which the functions say.
 */
#include "vault/vault.h"

#define LB_COST_DAYS 7 /* over which writing is measured, up to the vault's newest point */
#define LB_COST_PRICES_BYTES_MAX (64u << 10)
#define LB_COST_CURRENCY_BYTES 17

enum lb_cost_kind {
	LB_COST_JOURNAL,
	LB_COST_DATA, /* rewritten by folding */
	LB_COST_MAPS,
	LB_COST_CHECKPOINTS,
	LB_COST_SMALL, /* keys, catalog entries, pins, holds, manifests, leases, repair records */
	LB_COST_SITE,  /* and heartbeats, vault.json */
	LB_COST_KINDS,
};
extern const char *const lb_cost_kind_names[LB_COST_KINDS];

struct lb_cost_sum {
	uint64_t objects, bytes;
};

struct lb_cost_held {
	struct lb_cost_sum kinds[LB_COST_KINDS], total;
	uint64_t machines, servers; /* servers: that leave heartbeats */
	uint64_t unmeasured;  /* machines whose journal is too short or can't be read: their writing is not counted */
	double measured_days; /* the longest stretch that was looked at */
	double journal_puts_month; /* of all measured machines */
	double journal_bytes_month;
	double young_gb_months; /* that early deletion of young journal objects would be charged for */
};

/* `minimum_days`: of storage that an object is charged for at least. Needs the machines' keys. */
int lb_cost_look(struct lb_vault *v, double minimum_days, struct lb_cost_held *ret_held);

/* Of a month. */
struct lb_cost_use {
	double journal_puts, heartbeat_puts, fold_puts;
	double gets, lists;
	double written_bytes;
};
void lb_cost_expect(const struct lb_cost_held *held, struct lb_cost_use *ret_use);

struct lb_cost_prices {
	char currency[LB_COST_CURRENCY_BYTES];
	double per_gb_month, per_10000_puts, per_10000_gets, per_10000_lists, per_gb_read, minimum_days;
};
/* JSON with exactly these members: -EINVAL names what is missing, unknown, negative or no number. */
int lb_cost_prices_parse(const void *text, size_t size_bytes, struct lb_cost_prices *ret_prices);

struct lb_cost_money {
	double storage, puts, gets, lists, total; /* a month, at the vault's present size */
	double read_once;                         /* all of it, as when everything is recovered */
	double early_deletion;                    /* of the journal objects that are younger than minimum_days, now */
};
void lb_cost_money(const struct lb_cost_held *held, const struct lb_cost_use *use, const struct lb_cost_prices *prices,
		   struct lb_cost_money *ret_money);
