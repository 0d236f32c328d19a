/* SPDX-License-Identifier: Apache-2.0 */
/* Bringing real disks to a recovery point, from nothing but the vault: bare-metal restore, and the way back home. */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "target/match.h"
#include "target/target.h"

#define FINISH_FILE "finish"
#define FOLLOW_LOOK_MS 2000
#define FOLLOW_RETRY_MS 5000

struct restoring {
	struct cli *c;
	struct lb_target *target;
	struct lb_catalog_item *item;
	char folder[LB_TARGET_PATH_BYTES];
	char *list; /* of targets, taken apart */
	struct lb_target_to to[LB_HRL_DISKS_MAX];
	uint32_t n_to;
	struct lb_target_match match; /* of --to auto */
	struct lb_target_stats sum;
};

static volatile sig_atomic_t stopping;

static void stop(int signal_number)
{
	(void)signal_number;
	stopping = 1;
}

static void restoring_end(struct restoring *rs)
{
	if (rs->target != NULL)
		lb_target_free(rs->target);
	free(rs->item);
	free(rs->list);
}

static int match(struct restoring *rs)
{
	int r = lb_target_match(rs->c->env, "", rs->item, &rs->match);

	for (; r == 0 && rs->n_to < rs->item->n_disks; rs->n_to++)
		rs->to[rs->n_to] =
			(struct lb_target_to){.disk = rs->item->disks[rs->n_to].name, .path = rs->match.path[rs->n_to]};
	return r;
}

static int parse_to(struct restoring *rs)
{
	char *rest, *one;

	if (cli_value(rs->c, "to") == NULL)
		return lb_fail(-EINVAL, "where to? Give --to DISK=PATH[,DISK=PATH...], for example --to vda=/dev/sda");
	if (strcmp(cli_value(rs->c, "to"), "auto") == 0)
		return match(rs);
	rs->list = strdup(cli_value(rs->c, "to"));
	if (rs->list == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	for (rest = rs->list; (one = strsep(&rest, ",")) != NULL;) {
		char *equals = strchr(one, '=');

		if (equals == NULL || rs->n_to == LB_HRL_DISKS_MAX)
			return lb_fail(-EINVAL, "--to takes DISK=PATH[,DISK=PATH...], not \"%.60s\"", one);
		*equals = '\0';
		rs->to[rs->n_to++] = (struct lb_target_to){.disk = one, .path = equals + 1};
	}
	return 0;
}

static int take_folder(struct restoring *rs, const struct lb_uuid *machine)
{
	const char *told = cli_value(rs->c, "state");
	char id[LB_UUID_TEXT_BYTES];

	lb_uuid_format(machine, id);
	if (told != NULL)
		snprintf(rs->folder, sizeof(rs->folder), "%s", told);
	else
		snprintf(rs->folder, sizeof(rs->folder), LB_TARGET_FOLDER_DEFAULT "/%s", id);
	return rs->folder[0] == '/' ? 0 : lb_fail(-EINVAL, "--state takes an absolute path");
}

static int open_all(struct restoring *rs)
{
	struct cli *c = rs->c;
	struct lb_target_request request = {
		.folder = rs->folder,
		.to = rs->to,
		.undo_bytes = LB_TARGET_UNDO_BYTES_DEFAULT,
		.undo_points = LB_TARGET_UNDO_POINTS_DEFAULT,
		.some = cli_value(c, "some") != NULL,
		.overwrite = cli_value(c, "overwrite") != NULL,
	};
	uint64_t points = LB_TARGET_UNDO_POINTS_DEFAULT;
	int r;

	rs->item = calloc(1, sizeof(*rs->item));
	if (rs->item == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = cli_value_u64(c, "keep-points", LB_TARGET_UNDO_MAX, &points);
	if (r == 0 && cli_value(c, "keep") != NULL)
		r = lb_size_parse(cli_value(c, "keep"), &request.undo_bytes);
	r = r < 0 ? r : cli_vault_need(c);
	r = r < 0 ? r : cli_vault_machine(c, c->args[0], rs->item);
	r = r < 0 ? r : parse_to(rs);
	r = r < 0 ? r : take_folder(rs, &rs->item->machine);
	if (r < 0)
		return r;
	request.undo_points = (uint32_t)points;
	request.n_to = rs->n_to;
	request.vault = c->vault;
	request.item = rs->item;
	return lb_target_open(c->env, &request, &rs->target);
}

static int progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	cli_progress(arg, "Restoring", done_bytes, total_bytes, true);
	return stopping ? lb_fail(-ECANCELED, "stopped; the same command goes on where it was") : 0;
}

static int apply(struct restoring *rs, const struct lb_point *point)
{
	struct lb_target_stats stats;
	int r;

	r = lb_target_apply(rs->target, point, progress, rs->c, &stats);
	cli_progress_end(rs->c);
	if (r < 0)
		return r;
	rs->sum.compared_bytes += stats.compared_bytes;
	rs->sum.written_bytes += stats.written_bytes;
	rs->sum.fetched_bytes += stats.fetched_bytes;
	return 0;
}

static int told(const struct restoring *rs)
{
	char when[LB_TIME_TEXT_BYTES], compared[LB_SIZE_TEXT_BYTES], written[LB_SIZE_TEXT_BYTES],
		fetched[LB_SIZE_TEXT_BYTES];
	const struct lb_target_record *known = lb_target_known(rs->target);
	const struct lb_target_point *at = &known->applied;

	return cli_did(rs->c, "restore",
		       json_pack("{s:s,s:{s:I,s:I,s:I},s:I,s:I,s:I}", "machine", known->machine_name, "point", "epoch",
				 (json_int_t)at->position.epoch, "seq", (json_int_t)at->position.seq, "time_ns",
				 (json_int_t)at->time_ns, "compared_bytes", (json_int_t)rs->sum.compared_bytes,
				 "written_bytes", (json_int_t)rs->sum.written_bytes, "fetched_bytes",
				 (json_int_t)rs->sum.fetched_bytes),
		       "The disks of %s are as at %s. %s were compared, %s differed and were written, %s came from the "
		       "vault.",
		       known->machine_name, lb_time_format(at->time_ns, when),
		       lb_size_format(rs->sum.compared_bytes, compared), lb_size_format(rs->sum.written_bytes, written),
		       lb_size_format(rs->sum.fetched_bytes, fetched));
}

/* ---- follow ---------------------------------------------------------------------------------------------- */

static bool told_to_finish(struct restoring *rs)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" FINISH_FILE, rs->folder);
	return access(path, F_OK) == 0;
}

static void wait_a_while(struct restoring *rs, uint32_t ms)
{
	int64_t end_ns = lb_mono_ns(rs->c->env) + ms * LB_NS_PER_MS;

	while (!stopping && !told_to_finish(rs) && lb_mono_ns(rs->c->env) < end_ns)
		rs->c->env->ops->wait_until(rs->c->env, lb_mono_ns(rs->c->env) + 200 * LB_NS_PER_MS, -1);
}

/* What a cut link or a store that is away for a while gives. */
static bool may_pass(int error)
{
	switch (-error) {
	case EINVAL:
	case EPERM:
	case ESTALE:
	case EBADMSG:
	case ENOSPC:
	case ECANCELED:
	case ENOKEY:
		return false;
	}
	return true;
}

static bool is_applied(const struct restoring *rs, const struct lb_point *point)
{
	const struct lb_target_record *known = lb_target_known(rs->target);

	return known->goal.position.epoch == 0 && known->applied.position.epoch == point->position.epoch &&
	       known->applied.position.seq == point->position.seq;
}

/* Until told to finish: then whatever has come by that time is applied, too. */
static int follow(struct restoring *rs)
{
	const char *text = cli_value(rs->c, "point") != NULL ? cli_value(rs->c, "point") : "latest";
	int last_error = 0;

	while (!stopping) {
		bool last = told_to_finish(rs);
		struct lb_point point;
		int r;

		r = lb_point_find(rs->c->vault, &rs->item->machine, text, &point);
		if (r == 0 && !is_applied(rs, &point))
			r = apply(rs, &point);
		if (r < 0 && !may_pass(r))
			return r;
		if (r < 0 && r != last_error)
			fprintf(stderr, "lifeboat: waiting: %s\n", lb_err_text());
		last_error = r;
		if (r == 0 && last)
			return 0;
		wait_a_while(rs, r < 0 ? FOLLOW_RETRY_MS : FOLLOW_LOOK_MS);
		if (r < 0 && told_to_finish(rs)) /* the link is away: no busy loop until it is back */
			rs->c->env->ops->wait_until(rs->c->env, lb_mono_ns(rs->c->env) + FOLLOW_RETRY_MS * LB_NS_PER_MS,
						    -1);
	}
	return lb_fail(-ECANCELED, "stopped; the same command goes on where it was");
}

static int once(struct restoring *rs)
{
	const char *text = cli_value(rs->c, "point") != NULL ? cli_value(rs->c, "point") : "latest";
	struct lb_point point;
	int r;

	r = lb_point_find(rs->c->vault, &rs->item->machine, text, &point);
	return r < 0 ? r : apply(rs, &point);
}

static int release(struct restoring *rs)
{
	char path[PATH_MAX];
	int r;

	r = lb_target_release(rs->target);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/" FINISH_FILE, rs->folder);
	rs->c->env->ops->unlink(rs->c->env, path);
	return 0;
}

/* The way home, before anything is started. */
static int preflight(struct restoring *rs)
{
	const char *text = cli_value(rs->c, "point") != NULL ? cli_value(rs->c, "point") : "latest";
	char size[LB_SIZE_TEXT_BYTES], when[LB_TIME_TEXT_BYTES];
	struct lb_point point;
	uint64_t data_bytes;
	int r;

	r = lb_point_find(rs->c->vault, &rs->item->machine, text, &point);
	r = r < 0 ? r : lb_target_check(rs->target, &point, &data_bytes);
	return r < 0 ? r
		     : cli_would(rs->c, "bring the disks %s to %s of %s, with %s of data to be compared with them",
				 cli_value(rs->c, "to"), lb_time_format(point.time_ns, when), rs->c->args[0],
				 lb_size_format(data_bytes, size));
}

int cmd_failback_restore(struct cli *c)
{
	_cleanup_(restoring_end) struct restoring rs = {.c = c};
	bool follows = cli_value(c, "follow") != NULL;
	struct sigaction action = {.sa_handler = stop};
	int r;

	if (cli_is_ordered(c) && c->dry_run)
		return cli_target_order(c, "check");
	r = cli_confirm(c, "write over the disks that --to names with those of", c->args[0]);
	if (r == 0 && cli_is_ordered(c))
		return cli_target_order(c, follows ? "follow" : "finish");
	r = r < 0 ? r : open_all(&rs);
	if (r < 0)
		return r;
	if (c->dry_run)
		return preflight(&rs);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	r = follows ? follow(&rs) : once(&rs);
	if (r < 0)
		return r;
	r = told(&rs);
	return r < 0 ? r : release(&rs);
}

/* ---- a target that follows --------------------------------------------------------------------------------- */

/* Without the vault: the folder is told, or follows from the machine's id. */
static int state_folder(struct cli *c, struct restoring *rs, struct lb_target_record *record)
{
	struct lb_uuid machine;
	int r;

	if (cli_value(c, "state") == NULL && lb_uuid_parse(c->args[0], &machine) < 0) {
		rs->item = calloc(1, sizeof(*rs->item));
		r = rs->item == NULL ? lb_fail(-ENOMEM, "out of memory") : cli_vault_machine(c, c->args[0], rs->item);
		if (r < 0)
			return r;
		machine = rs->item->machine;
	} else if (cli_value(c, "state") != NULL) {
		machine = (struct lb_uuid){0};
	}
	r = take_folder(rs, &machine);
	r = r < 0 ? r : lb_target_record_read(c->env, rs->folder, record);
	return r == -ENOENT ? lb_fail(r, "no target of %s is known in %s", c->args[0], rs->folder) : r;
}

int cmd_failback_finish(struct cli *c)
{
	_cleanup_(restoring_end) struct restoring rs = {.c = c};
	_cleanup_free_ struct lb_target_record *record = malloc(sizeof(*record));
	char path[PATH_MAX];
	int r;

	if (cli_is_ordered(c))
		return c->dry_run
			       ? cli_would(c, "let target server %s finish with %s", cli_value(c, "target"), c->args[0])
			       : cli_target_order(c, "finish");
	r = record == NULL ? lb_fail(-ENOMEM, "out of memory") : state_folder(c, &rs, record);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "tell the target of %s to apply what has come and to end", c->args[0]);
	snprintf(path, sizeof(path), "%s/" FINISH_FILE, rs.folder);
	r = lb_file_write(c->env, path, "", 0, 0600);
	return r < 0 ? r
		     : cli_did(c, "target", json_pack("{s:s,s:b}", "machine", c->args[0], "finishing", 1),
			       "The target of %s applies what has come by now, and ends.", c->args[0]);
}

static void print_point(const char *what, const struct lb_target_point *p)
{
	char when[LB_TIME_TEXT_BYTES];

	printf("%-12s %s  %" PRIu64 ":%" PRIu64 "\n", what, lb_time_format(p->time_ns, when), p->position.epoch,
	       p->position.seq);
}

int cmd_failback_status(struct cli *c)
{
	_cleanup_(restoring_end) struct restoring rs = {.c = c};
	_cleanup_free_ struct lb_target_record *record = malloc(sizeof(*record));
	_cleanup_json_ json_t *j = NULL;
	int r;

	r = record == NULL ? lb_fail(-ENOMEM, "out of memory") : state_folder(c, &rs, record);
	r = r < 0 ? r : lb_target_record_json(record, &j);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("target", lb_steal_ptr(j));
	for (uint32_t i = 0; i < record->n_disks; i++)
		printf("%-12s %s\n", record->disks[i].name, record->disks[i].path);
	for (uint32_t i = 0; i < record->n_undo; i++)
		print_point("kept", &record->undo[i].point);
	if (record->applied.position.epoch != 0)
		print_point("disks are at", &record->applied);
	if (record->goal.position.epoch != 0)
		print_point("on the way to", &record->goal);
	return 0;
}

int cmd_failback_back(struct cli *c)
{
	_cleanup_(restoring_end) struct restoring rs = {.c = c};
	int r;

	r = cli_confirm(c, "take the newest point back from the target's disks of", c->args[0]);
	if (r == 0 && cli_is_ordered(c))
		return c->dry_run ? cli_would(c, "let target server %s go back with %s", cli_value(c, "target"),
					      c->args[0])
				  : cli_target_order(c, "back");
	r = r < 0 ? r : open_all(&rs);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "bring the disks %s one kept point back", cli_value(c, "to"));
	r = lb_target_back(rs.target);
	return r < 0 ? r : told(&rs);
}
