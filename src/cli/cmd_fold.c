/* SPDX-License-Identifier: Apache-2.0 */
/* Folding by hand, for a vault that no process server folds, and to see what a policy would let go. */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "vault/catalog.h"
#include "vault/fold.h"
#include "vault/site.h"
#include "wire/policy.h"

#define ROUNDS_MAX 1000

struct folding {
	struct cli *c;
	json_t *copy;     /* of the registry in the vault, or NULL */
	json_t *machines; /* what is printed as JSON */
};

/* The policy of a machine as the site's copy in the vault has it; the default where there is none. */
static int find_policy(const struct folding *f, const char *id, struct lb_policy *ret_policy)
{
	const char *name = NULL;
	const json_t *one;
	size_t i;

	*ret_policy = lb_policy_default;
	json_array_foreach(json_object_get(f->copy, "machines"), i, one)
	{
		const char *text = json_string_value(json_object_get(one, "id"));

		if (text != NULL && strcmp(text, id) == 0)
			name = json_string_value(json_object_get(one, "policy"));
	}
	json_array_foreach(json_object_get(f->copy, "policies"), i, one)
	{
		const char *text = json_string_value(json_object_get(one, "name"));

		if (name != NULL && text != NULL && strcmp(text, name) == 0)
			return lb_policy_parse(one, false, ret_policy);
	}
	return 0;
}

static int make_options(const struct folding *f, const char *id, struct lb_fold_options *ret)
{
	const char *retention = cli_value(f->c, "retention");
	struct lb_policy policy;
	uint64_t delay_s;
	int r;

	r = find_policy(f, id, &policy);
	delay_s = policy.delete_delay_s;
	if (r == 0 && retention != NULL)
		r = lb_ladder_parse(retention, &policy.retention);
	if (r == 0)
		r = cli_value_u64(f->c, "delete-delay", LB_POLICY_DELETE_DELAY_S_MAX, &delay_s);
	if (r < 0)
		return r;
	*ret = (struct lb_fold_options){
		.retention = {.ladder = policy.retention,
			      .app_s = policy.app_retention_days * 24 * 3600,
			      .delete_delay_s = (uint32_t)delay_s,
			      .age_min_s = LB_MAX(policy.early_deletion_days, policy.object_lock_days) * 24 * 3600},
		.dry_run = f->c->dry_run,
		.sweep = true,
	};
	return 0;
}

static int fold_rounds(struct folding *f, const struct lb_uuid *machine, const struct lb_fold_options *options,
		       struct lb_fold_report *all)
{
	int r = 0;

	for (int i = 0; i < ROUNDS_MAX; i++) {
		struct lb_fold_report one;

		r = lb_fold_round(f->c->vault, machine, options, &one);
		if (r < 0)
			return r;
		all->version = one.version;
		all->repaired = one.repaired;
		all->points = one.points;
		all->points_doomed += one.points_doomed;
		all->points_pruned += one.points_pruned;
		all->objects_folded += one.objects_folded;
		all->objects_to_fold = one.objects_to_fold;
		all->rewritten_bytes += one.rewritten_bytes;
		all->map_bytes += one.map_bytes;
		all->deleted_objects += one.deleted_objects;
		all->deleted_bytes += one.deleted_bytes;
		all->sizes = one.sizes;
		cli_progress(f->c, "Folding: journal objects", all->objects_folded, 0, false);
		if (!one.changed && !one.raced)
			break;
	}
	cli_progress_end(f->c);
	return r;
}

static int fold_machine(void *arg, const struct lb_uuid *machine)
{
	struct folding *f = arg;
	char size[LB_SIZE_TEXT_BYTES], freed[LB_SIZE_TEXT_BYTES];
	struct cli_machine_name name = {0};
	struct lb_fold_options options;
	struct lb_fold_report all = {0};
	int r;

	cli_machine_name(f->c, machine, &name);
	r = make_options(f, name.id, &options);
	if (r == 0)
		r = fold_rounds(f, machine, &options, &all);
	if (r < 0)
		return r;
	if (all.repaired && !f->c->json) {
		printf("machine %s: its journal was repaired, and is kept as it is\n", name.label);
		return 0;
	}
	if (f->c->json)
		return json_array_append_new(
			f->machines,
			json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f}", "machine", name.id,
				  "machine_name", name.name, "points", (json_int_t)all.points, "points_pruned",
				  (json_int_t)(f->c->dry_run ? all.points_doomed : all.points_pruned), "objects_folded",
				  (json_int_t)(f->c->dry_run ? all.objects_to_fold : all.objects_folded),
				  "rewritten_bytes", (json_int_t)all.rewritten_bytes, "map_bytes",
				  (json_int_t)all.map_bytes, "deleted_objects", (json_int_t)all.deleted_objects,
				  "deleted_bytes", (json_int_t)all.deleted_bytes, "version", (json_int_t)all.version,
				  "write_ratio", lb_fold_write_ratio(&all.sizes), "space_ratio",
				  lb_fold_space_ratio(&all.sizes)));
	if (f->c->dry_run)
		printf("machine %s: would keep %" PRIu64 " points, prune %" PRIu64 " and fold %" PRIu64
		       " journal objects first\n",
		       name.label, all.points, all.points_doomed, all.objects_to_fold);
	else
		printf("machine %s: %" PRIu64 " points kept; %" PRIu64 " journal objects folded, %s rewritten, %" PRIu64
		       " objects (%s) deleted\n",
		       name.label, all.points, all.objects_folded, lb_size_format(all.rewritten_bytes, size),
		       all.deleted_objects, lb_size_format(all.deleted_bytes, freed));
	if (all.sizes.needed_bytes > 0)
		printf("  since the beginning %.2f bytes were written for each of the journal; %.2f are kept for each "
		       "that points need\n",
		       lb_fold_write_ratio(&all.sizes), lb_fold_space_ratio(&all.sizes));
	return 0;
}

static int read_copy(struct cli *c, json_t **ret_copy)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_SITE_BYTES_MAX);
	int r;

	r = lb_vault_site_get(c->vault, "registry", &text);
	if (r == -ENOENT) {
		lb_err_clear();
		return 0;
	}
	return r < 0 ? r : lb_json_parse(text.data, text.size_bytes, LB_SITE_BYTES_MAX, ret_copy);
}

int cmd_vault_fold(struct cli *c)
{
	_cleanup_json_ json_t *machines = json_array(), *copy = NULL;
	const char *name = cli_value(c, "machine");
	struct folding f = {.c = c, .machines = machines};
	struct lb_catalog_item item;
	int r;

	r = cli_vault_open(c);
	if (r == 0)
		r = read_copy(c, &copy);
	f.copy = copy;
	if (r == 0 && name != NULL)
		r = lb_catalog_find(c->vault, name, &item);
	if (r < 0)
		return r;
	r = name != NULL ? fold_machine(&f, &item.machine) : lb_vault_machines(c->vault, fold_machine, &f);
	if (r < 0)
		return r;
	return c->json ? cli_print_json("fold", json_pack("{s:b,s:O}", "dry_run", c->dry_run, "machines", machines))
		       : 0;
}

/* ---- holds ---- */

int cmd_point_hold(struct cli *c)
{
	const char *text = cli_value(c, "point") != NULL ? cli_value(c, "point") : "latest";
	struct lb_catalog_item item;
	struct lb_point point = {0};
	int r;

	r = cli_vault_machine(c, c->args[0], &item);
	if (r == 0)
		r = lb_point_find(c->vault, &item.machine, text, &point);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "hold point %s of %s as %s", text, item.name, c->args[1]);
	r = lb_point_hold(c->vault, &item.machine, &point, c->args[1]);
	if (r < 0)
		return r;
	return cli_did(c, "point",
		       json_pack("{s:s,s:s,s:I,s:I,s:b}", "machine", item.name, "name", c->args[1], "epoch",
				 (json_int_t)point.position.epoch, "seq", (json_int_t)point.position.seq, "held", 1),
		       "Point %s of %s is held as \"%s\" until `lifeboat point release %s %s`.", text, item.name,
		       c->args[1], c->args[0], c->args[1]);
}

int cmd_point_release(struct cli *c)
{
	struct lb_catalog_item item;
	int r;

	r = cli_confirm(c, "release the held point", c->args[1]);
	if (r == 0)
		r = cli_vault_machine(c, c->args[0], &item);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "release the hold %s of %s", c->args[1], item.name);
	r = lb_point_release(c->vault, &item.machine, c->args[1]);
	if (r < 0)
		return r;
	return cli_did(c, "point", json_pack("{s:s,s:s,s:b}", "machine", item.name, "name", c->args[1], "held", 0),
		       "The hold %s of %s is released.", c->args[1], item.name);
}
