/* SPDX-License-Identifier: Apache-2.0 */
/* `vault repair`. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "cli/anchor.h"
#include "vault/catalog.h"
#include "vault/repair.h"

#define TOLD_MAX 10000 /* listed in JSON */

struct repair {
	struct cli *c;
	json_t *told;
	struct cli_machine_name machine; /* of what was told last */
};

static json_t *ranges_json(const struct lb_repair *record)
{
	json_t *list = json_array();

	for (size_t i = 0; record != NULL && i < record->n_ranges; i++) {
		json_int_t start = (json_int_t)record->ranges[i].start, sectors = (json_int_t)record->ranges[i].sectors;

		json_array_append_new(list, json_pack("{s:i,s:I,s:I}", "disk", (int)record->ranges[i].disk,
						      "offset_bytes", start * LB_HRL_SECTOR_BYTES, "length_bytes",
						      sectors * LB_HRL_SECTOR_BYTES));
	}
	return list;
}

static void tell(void *arg, const struct lb_repair_told *t)
{
	struct repair *repair = arg;
	json_t *one;

	cli_machine_name(repair->c, &t->machine, &repair->machine);
	repair->c->degraded = true;
	if (!repair->c->json) {
		printf("%smachine %s, object %s: %s\n", t->is_repaired ? "" : "BEYOND REPAIR: ", repair->machine.label,
		       t->object, t->text);
		return;
	}
	if (json_array_size(repair->told) >= TOLD_MAX)
		return;
	one = json_pack("{s:s,s:s,s:s,s:s,s:b,s:o}", "machine", repair->machine.id, "machine_name",
			repair->machine.name, "object", t->object, "text", t->text, "repaired", t->is_repaired,
			"ranges", ranges_json(t->record));
	if (t->record != NULL)
		json_object_update_missing_new(
			one, json_pack("{s:[I,I],s:[I,I]}", "from", (json_int_t)t->record->from.epoch,
				       (json_int_t)t->record->from.seq, "until", (json_int_t)t->record->until.epoch,
				       (json_int_t)t->record->until.seq));
	json_array_append_new(repair->told, one);
}

/* A vault.json that is lost or damaged opens nothing: it comes from a receipt. */
static int put_back(struct cli *c, const char *path)
{
	_cleanup_passphrase_ char *passphrase = NULL;
	_cleanup_free_ uint8_t *data = NULL;
	size_t size_bytes = 0;
	int r;

	r = cli_vault_need(c);
	if (r == 0)
		r = lb_store_open(c->env, c->vault_url, false, &c->store);
	if (r == 0)
		r = lb_file_read(c->env, path, LB_RECEIPT_BYTES_MAX, &data, &size_bytes);
	if (r == 0)
		r = cli_passphrase(c, false, &passphrase);
	if (r < 0)
		return r;
	r = lb_receipt_restore(c->store, passphrase, data, size_bytes, c->dry_run);
	if (r == -EEXIST) {
		lb_err_clear(); /* it is whole */
		r = 0;
	} else if (r == 0 && !c->json) {
		printf("vault.json %s from the receipt %s.\n", c->dry_run ? "would be put back" : "is put back", path);
	}
	return r < 0 || c->dry_run ? r : lb_vault_open(c->store, passphrase, &c->vault);
}

static int print_repaired(const struct repair *repair, const struct lb_repair_report *report)
{
	if (repair->c->json)
		return cli_print_json(
			"repair", json_pack("{s:I,s:I,s:I,s:b,s:O}", "repaired", (json_int_t)report->repaired, "beyond",
					    (json_int_t)report->beyond, "recorded", (json_int_t)report->recorded,
					    "dry_run", repair->c->dry_run, "told", repair->told));
	if (report->repaired == 0 && report->beyond == 0)
		printf("There is nothing to repair%s.\n", cli_value(repair->c, "deep") != NULL ? ""
											       : " (--deep looks at "
												 "the data, too)");
	else
		printf("%" PRIu64 " pieces of damage %s, %" PRIu64
		       " beyond repair. Damaged points are marked in `lifeboat "
		       "point list` and offered only by their position.\n",
		       report->repaired, repair->c->dry_run ? "can be led over" : "are led over", report->beyond);
	if (report->recorded > 0)
		printf("%" PRIu64
		       " losses are recorded: `lifeboat vault verify` lists them and tells them apart from damage "
		       "that comes later.\n",
		       report->recorded);
	return 0;
}

int cmd_vault_repair(struct cli *c)
{
	_cleanup_json_ json_t *told = json_array();
	struct repair repair = {.c = c, .told = told};
	struct lb_repair_report report = {0};
	struct lb_catalog_item item;
	struct lb_uuid machine;
	int r = 0;

	if (cli_value(c, "receipt") != NULL)
		r = put_back(c, cli_value(c, "receipt"));
	if (r == 0)
		r = cli_vault_open(c);
	if (r == 0 && c->n_args > 0 && lb_uuid_parse(c->args[0], &machine) < 0) {
		r = lb_catalog_find(c->vault, c->args[0], &item);
		if (r == 0)
			machine = item.machine;
	}
	if (r == 0)
		r = lb_vault_repair(c->vault, c->n_args > 0 ? &machine : NULL, cli_value(c, "deep") != NULL, c->dry_run,
				    tell, &repair, &report);
	return r < 0 ? r : print_repaired(&repair, &report);
}
