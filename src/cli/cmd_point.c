/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "cli/anchor.h"
#include "fabric/export.h"
#include "vault/catalog.h"
#include "vault/points.h"

#define LIMIT_DEFAULT 50
#define LIMIT_MAX 100000000
#define PAGE_POINTS 5000
#define POSITION_BYTES 48

/* ---- list: both ways give the same JSON ------------------------------------------------------------- */

static const char *kind_name(uint32_t flags)
{
	if (flags & LB_HRL_MARK_GROUP)
		return "multi-vm";
	return flags & LB_HRL_MARK_APP ? "app" : "crash";
}

static int collect(void *arg, const struct lb_point *p)
{
	json_t *points = arg;
	json_t *j = json_pack("{s:I,s:I,s:I,s:I,s:[s],s:s,s:b,s:b}", "epoch", (json_int_t)p->position.epoch, "seq",
			      (json_int_t)p->position.seq, "time_ns", (json_int_t)p->time_ns, "until_ns",
			      (json_int_t)p->until_ns, "kinds", kind_name(p->flags), "name", p->name, "held", p->held,
			      "damaged", p->is_damaged);

	if (json_array_append_new(points, j) < 0)
		return lb_fail(-ENOMEM, "out of memory for the list of points");
	return 0;
}

struct range {
	int64_t from_ns, to_ns;
	uint64_t limit, page;
};

static void position_text(const json_t *point, char text[POSITION_BYTES])
{
	snprintf(text, POSITION_BYTES, "%" JSON_INTEGER_FORMAT ":%" JSON_INTEGER_FORMAT, cli_number(point, "epoch"),
		 cli_number(point, "seq"));
}

static int list_direct(struct cli *c, const struct range *range, json_t **ret_points)
{
	_cleanup_json_ json_t *points = json_array();
	struct lb_catalog_item item;
	int r;

	r = cli_vault_machine(c, c->args[0], &item);
	if (r < 0)
		return r;
	r = lb_points_list(c->vault, &item.machine, range->from_ns, range->to_ns, collect, points);
	if (r < 0)
		return r;
	if (json_array_size(points) > range->limit) {
		json_t *newest = json_array();

		for (size_t i = json_array_size(points) - range->limit; i < json_array_size(points); i++)
			json_array_append(newest, json_array_get(points, i));
		json_decref(points);
		points = newest;
	}
	*ret_points = lb_steal_ptr(points);
	return 0;
}

/* The newest `limit` points before a position; the server gives a page at a time. */
static int list_page(struct cli *c, const struct range *range, const char *before, uint64_t limit, json_t **ret_reply)
{
	int r;

	r = cli_callf(c, "GET", NULL, ret_reply,
		      "/v1/machine/%s/point?from_ns=%" PRId64 "&to_ns=%" PRId64 "&limit=%" PRIu64 "%s%s", c->args[0],
		      range->from_ns, range->to_ns, LB_MIN(limit, range->page), before[0] != '\0' ? "&before=" : "",
		      before);
	if (r < 0)
		return r;
	if (!json_is_array(json_object_get(*ret_reply, "points")))
		return lb_fail(-EREMOTEIO, "the server's answer has no list of points; is it of another version?");
	return 0;
}

/* From the newest page to the oldest, each put before what is there. */
static int list_server(struct cli *c, const struct range *range, json_t **ret_points)
{
	_cleanup_json_ json_t *all = json_array();
	char before[POSITION_BYTES] = "";
	bool more = true;

	while (more && json_array_size(all) < range->limit) {
		_cleanup_json_ json_t *reply = NULL;
		json_t *page;
		int r;

		r = list_page(c, range, before, range->limit - json_array_size(all), &reply);
		if (r < 0)
			return r;
		page = json_object_get(reply, "points");
		position_text(json_array_get(page, 0), before);
		more = json_is_true(json_object_get(reply, "truncated")) && json_array_size(page) > 0;
		if (json_array_extend(page, all) < 0)
			return lb_fail(-ENOMEM, "out of memory for the list of points");
		json_decref(all);
		all = json_incref(page);
		cli_progress(c, "Listing", json_array_size(all), 0, false);
	}
	cli_progress_end(c);
	*ret_points = lb_steal_ptr(all);
	return 0;
}

static void print_points(const json_t *points)
{
	const json_t *p, *kind;
	size_t i;

	printf("%-26s %-26s %-14s %-10s %s\n", "TIME (UTC)", "UNCHANGED UNTIL", "POSITION", "KIND", "NAME");
	json_array_foreach(points, i, p)
	{
		char when[LB_TIME_TEXT_BYTES], until[LB_TIME_TEXT_BYTES], position[POSITION_BYTES];

		kind = json_array_get(json_object_get(p, "kinds"), 0);
		lb_time_format(json_integer_value(json_object_get(p, "time_ns")), when);
		lb_time_format(json_integer_value(json_object_get(p, "until_ns")), until);
		position_text(p, position);
		printf("%-26s %-26s %-14s %-10s %s%s%s\n", when, until, position,
		       json_is_string(kind) ? json_string_value(kind) : "", cli_text(p, "name"),
		       json_is_true(json_object_get(p, "held")) ? " (held)" : "",
		       json_is_true(json_object_get(p, "damaged")) ? " (damaged: lacks ranges of its disks)" : "");
	}
}

int cmd_point_list(struct cli *c)
{
	_cleanup_json_ json_t *points = NULL;
	struct range range = {.to_ns = INT64_MAX, .limit = LIMIT_DEFAULT, .page = PAGE_POINTS};
	int r;

	r = cli_value_u64(c, "limit", LIMIT_MAX, &range.limit);
	if (r == 0)
		r = cli_value_u64(c, "page", PAGE_POINTS, &range.page);
	if (r == 0 && range.page == 0)
		r = lb_fail(-EINVAL, "--page takes 1 to %d", PAGE_POINTS);
	if (r == 0 && cli_value(c, "from") != NULL)
		r = lb_time_parse(cli_value(c, "from"), &range.from_ns);
	if (r == 0 && cli_value(c, "to") != NULL)
		r = lb_time_parse(cli_value(c, "to"), &range.to_ns);
	if (r < 0)
		return r;
	if (range.limit == 0)
		range.limit = LIMIT_MAX;
	r = cli_is_direct(c) ? list_direct(c, &range, &points) : list_server(c, &range, &points);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("points", json_pack("{s:s,s:O}", "machine", c->args[0], "points", points));
	print_points(points);
	return 0;
}

/* ---- pin and export ------------------------------------------------------------------------------------ */

static const char *point_text(const struct cli *c)
{
	const char *text = cli_value(c, "point");

	return text != NULL ? text : "latest";
}

static int pin_direct(struct cli *c, json_t **ret_point)
{
	_cleanup_json_ json_t *points = json_array();
	struct lb_catalog_item item;
	struct lb_point point;
	int r;

	r = cli_vault_machine(c, c->args[0], &item);
	if (r < 0)
		return r;
	r = lb_point_find(c->vault, &item.machine, point_text(c), &point);
	if (r < 0)
		return r;
	if (!c->dry_run)
		r = lb_point_pin(c->vault, &item.machine, &point, c->args[1]);
	if (r < 0)
		return r;
	snprintf(point.name, sizeof(point.name), "%s", c->args[1]);
	r = collect(points, &point);
	*ret_point = json_incref(json_array_get(points, 0));
	return r;
}

/* Is there such a machine? What is no more than announced is checked, too. */
static int check_machine(struct cli *c)
{
	return cli_callf(c, "GET", NULL, NULL, "/v1/machine/%s/point?limit=1", c->args[0]);
}

/* The latest of all that was received comes by a job. */
static int pin_by_server(struct cli *c, const json_t *body, json_t **ret_point)
{
	_cleanup_json_ json_t *reply = NULL, *job = NULL;
	int r;

	r = cli_callf(c, "POST", body, &reply, "/v1/machine/%s/point", c->args[0]);
	if (r == 0 && json_object_get(reply, "job") != NULL) {
		r = cli_order_follow(c, reply, &job);
		if (r == 0)
			*ret_point = json_incref(json_object_get(job, "result"));
	} else if (r == 0) {
		*ret_point = lb_steal_ptr(reply);
	}
	return r;
}

int cmd_point_pin(struct cli *c)
{
	_cleanup_json_ json_t *body = json_pack("{s:s,s:s}", "point", point_text(c), "name", c->args[1]);
	_cleanup_json_ json_t *point = NULL;
	int r;

	if (cli_is_direct(c))
		r = pin_direct(c, &point);
	else if (c->dry_run)
		r = check_machine(c);
	else
		r = pin_by_server(c, body, &point);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "pin point %s of %s as %s", point_text(c), c->args[0], c->args[1]);
	return cli_did(c, "point", json_incref(point), "Point %s of %s is kept as \"%s\".", point_text(c), c->args[0],
		       c->args[1]);
}

static int unpin_direct(struct cli *c)
{
	struct lb_catalog_item item;
	int r;

	r = cli_vault_open(c);
	if (r == 0)
		r = lb_catalog_find(c->vault, c->args[0], &item);
	return r < 0 || c->dry_run ? r : lb_point_unpin(c->vault, &item.machine, c->args[1]);
}

int cmd_point_unpin(struct cli *c)
{
	int r;

	r = cli_confirm(c, "let go of the pinned point", c->args[1]);
	if (r < 0)
		return r;
	if (cli_is_direct(c))
		r = unpin_direct(c);
	else if (c->dry_run)
		r = check_machine(c);
	else
		r = cli_callf(c, "DELETE", NULL, NULL, "/v1/machine/%s/point/%s", c->args[0], c->args[1]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "take the pin %s of %s away", c->args[1], c->args[0]);
	return cli_did(c, "point", json_pack("{s:s,s:s,s:b}", "machine", c->args[0], "name", c->args[1], "pinned", 0),
		       "The pin %s of %s is gone.", c->args[1], c->args[0]);
}

int cli_disk_find(const struct lb_catalog_item *item, const char *text, const struct lb_catalog_disk **ret_disk)
{
	char names[256] = "";

	for (uint32_t i = 0; i < item->n_disks; i++) {
		const struct lb_catalog_disk *d = &item->disks[i];
		char id[16];

		snprintf(id, sizeof(id), "%u", d->id);
		if (strcmp(d->name, text) == 0 || strcmp(id, text) == 0) {
			*ret_disk = d;
			return 0;
		}
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i > 0 ? ", " : "", d->name);
	}
	return lb_fail(-ENOENT, "machine %s has no disk \"%.60s\", but: %s", item->name, text, names);
}

static void export_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	cli_progress(arg, "Exporting", done_bytes, total_bytes, true);
}

static int export_now(struct cli *c, const struct lb_catalog_item *item, const struct lb_catalog_disk *disk,
		      const struct lb_point *point)
{
	const char *format = cli_value(c, "format");
	char when[LB_TIME_TEXT_BYTES], size[LB_SIZE_TEXT_BYTES];
	int r;

	lb_time_format(point->time_ns, when);
	if (c->dry_run)
		return cli_would(c, "write disk %s of %s at %s (%s) to %s", disk->name, item->name, when,
				 lb_size_format(disk->size_bytes, size), c->args[2]);
	r = lb_point_export(c->vault, item, &point->position, disk->id, c->args[2],
			    format != NULL && format[0] == 'q' ? LB_EXPORT_QCOW2 : LB_EXPORT_RAW, export_progress, c);
	cli_progress_end(c);
	if (r < 0)
		return r;
	return cli_did(c, "export",
		       json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I}", "machine", item->name, "disk", disk->name, "file",
				 c->args[2], "format", format != NULL ? format : "raw", "size_bytes",
				 (json_int_t)disk->size_bytes, "epoch", (json_int_t)point->position.epoch, "seq",
				 (json_int_t)point->position.seq, "time_ns", (json_int_t)point->time_ns),
		       "Disk %s of %s as it was at %s is in %s (%s).", disk->name, item->name, when, c->args[2],
		       lb_size_format(disk->size_bytes, size));
}

/* An image of the newest point says how new that is; one of an older point is what was asked for. */
static int check_freshness(struct cli *c, const struct lb_uuid *machine, const struct lb_point *point)
{
	if (cli_value(c, "anchor") == NULL && strncmp(point_text(c), "latest", 6) != 0)
		return 0;
	return cli_anchor_check(c, machine, point->time_ns);
}

int cmd_point_export(struct cli *c)
{
	const char *format = cli_value(c, "format"), *lost = cli_value(c, "lost");
	const struct lb_catalog_disk *disk;
	struct lb_catalog_item item;
	struct lb_point point;
	int r;

	if (lost != NULL && strcmp(lost, "refuse") != 0 && strcmp(lost, "zeroes") != 0)
		return lb_fail(-EINVAL, "--lost takes refuse or zeroes, not \"%.40s\"", lost);
	if (format != NULL && strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
		return lb_fail(-EINVAL, "--format takes raw or qcow2, not \"%.40s\"", format);
	r = cli_vault_machine(c, c->args[0], &item);
	if (r < 0)
		return r;
	if (lost != NULL && lost[0] == 'z')
		lb_vault_lost_as_zeroes(c->vault);
	r = cli_disk_find(&item, c->args[1], &disk);
	if (r < 0)
		return r;
	r = lb_point_find(c->vault, &item.machine, point_text(c), &point);
	if (r == 0)
		r = check_freshness(c, &item.machine, &point);
	if (r < 0)
		return r;
	return export_now(c, &item, disk, &point);
}
