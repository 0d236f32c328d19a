/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/failover_direct.h"
#include "target/takeback.h"

#define WAIT_S_MAX 86400

static int progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	cli_progress(arg, "Comparing", done_bytes, total_bytes, true);
	return 0;
}

static int direct(struct cli *c, uint64_t wait_s)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	char size[LB_SIZE_TEXT_BYTES], when[LB_TIME_TEXT_BYTES];
	struct lb_takeback back;
	int r;

	r = cli_double_open(c, &f);
	r = r < 0 ? r : cli_vault_open(c);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "shut the double %s down and put what it wrote into the vault", c->args[0]);
	r = lb_takeback_run(c->env, c->vault, f, NULL, (uint32_t)wait_s, progress, c, &back);
	cli_progress_end(c);
	if (r < 0)
		return r;
	if (!back.gracefully)
		c->degraded = true;
	return cli_did(c, "failback",
		       json_pack("{s:s,s:{s:I,s:I,s:I},s:I,s:I,s:b}", "name", c->args[0], "point", "epoch",
				 (json_int_t)back.point.position.epoch, "seq", (json_int_t)back.point.position.seq,
				 "time_ns", (json_int_t)back.point.time_ns, "gathered_bytes",
				 (json_int_t)back.stats.gathered_bytes, "stored_bytes",
				 (json_int_t)back.stats.stored_bytes, "gracefully", (int)back.gracefully),
		       "%s is shut down%s. Its last point is %s; %s that the vault did not have yet went into it.",
		       c->args[0], back.gracefully ? "" : " (turned off: it did not do so by itself)",
		       lb_time_format(back.point.time_ns, when), lb_size_format(back.stats.gathered_bytes, size));
}

static int order(struct cli *c, const char *verb, const json_t *body, const char *said)
{
	_cleanup_json_ json_t *reply = NULL, *job = NULL;
	int r;

	r = cli_callf(c, "POST", body, &reply, "/v1/failover/%s/%s", c->args[0], verb);
	r = r < 0 ? r : cli_order_follow(c, reply, &job);
	if (r != 0)
		return r < 0 ? r : 0; /* without waiting */
	return cli_did(c, "job", json_incref(job), "%s %s.", c->args[0], said);
}

/* What of its host the target server starts, or turns off. */
static int set_power(const struct cli *c, const char *member, json_t *body)
{
	static const char *const members[] = {"domain", "uri", "hook"};
	json_t *boot = json_object();
	int r = boot == NULL ? lb_fail(-ENOMEM, "out of memory for an order") : 0;

	for (size_t i = 0; r == 0 && i < sizeof(members) / sizeof(members[0]); i++)
		if (cli_value(c, members[i]) != NULL)
			r = lb_json_set_str(boot, members[i], cli_value(c, members[i]));
	if (r < 0 || json_object_size(boot) == 0) {
		json_decref(boot);
		return r;
	}
	return json_object_set_new(body, member, boot) < 0 ? lb_fail(-ENOMEM, "out of memory for an order") : 0;
}

static int order_start(struct cli *c, uint64_t wait_s)
{
	_cleanup_json_ json_t *body = json_pack("{s:I}", "wait_s", (json_int_t)wait_s);
	int r;

	if (cli_value(c, "folder") != NULL)
		return lb_fail(-EINVAL, "--folder is for work on the vault alone (--vault URL)");
	if (c->dry_run)
		return cli_would(c, "shut the double %s down and put what it wrote into the vault", c->args[0]);
	r = set_power(c, "boot", body);
	return r < 0 ? r : order(c, "failback", body, "is shut down; its last point is in the vault");
}

int cmd_failback_commit(struct cli *c)
{
	_cleanup_json_ json_t *body = json_pack("{s:b,s:b}", "new_hardware", cli_value(c, "new-hardware") != NULL,
						"discard", cli_value(c, "discard") != NULL);
	int r;

	if (cli_is_direct(c))
		return lb_fail(-EINVAL,
			       "only the configuration server gives a machine its identity back; without one, "
			       "remove the double by `lifeboat failover cleanup %s --live`",
			       c->args[0]);
	r = cli_confirm(c, "let its machine replicate from home, and destroy, the double", c->args[0]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "give the machine of %s its replication back and destroy the double", c->args[0]);
	return order(c, "home", body, "is gone; its machine replicates from home again");
}

static int undo_direct(struct cli *c)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_failover_report report;
	int r;

	r = cli_double_open(c, &f);
	if (r < 0)
		return r;
	lb_failover_report(f, &report);
	if (!report.shut)
		return lb_fail(-EINVAL, "%s is not shut down to go home: there is nothing to undo", c->args[0]);
	if (c->dry_run)
		return cli_would(c, "start the double %s again", c->args[0]);
	r = lb_failover_unshut(f);
	r = r < 0 ? r : lb_failover_run(f, NULL, NULL);
	return r < 0 ? r
		     : cli_did(c, "failover", json_pack("{s:s,s:s}", "name", c->args[0], "state", "running"),
			       "%s runs again; its machine stays here.", c->args[0]);
}

int cmd_failback_undo(struct cli *c)
{
	_cleanup_json_ json_t *body = json_pack("{s:b}", "original_is_down", cli_value(c, "original-is-down") != NULL);
	int r = body == NULL ? lb_fail(-ENOMEM, "out of memory for an order") : 0;

	if (r == 0 && cli_is_direct(c) && cli_value(c, "original-is-down") == NULL)
		r = lb_fail(-EINVAL,
			    "with the vault alone nobody can keep the original down but you: turn it off, then "
			    "say --original-is-down");
	r = r < 0 ? r : cli_confirm(c, "start again, and keep its original down, the double", c->args[0]);
	if (r < 0 || cli_is_direct(c))
		return r < 0 ? r : undo_direct(c);
	if (cli_value(c, "folder") != NULL)
		return lb_fail(-EINVAL, "--folder is for work on the vault alone (--vault URL)");
	if (c->dry_run)
		return cli_would(c, "keep the original down and start the double %s again", c->args[0]);
	r = set_power(c, "halt", body);
	return r < 0 ? r : order(c, "failback/undo", body, "runs again; its machine stays here");
}

int cmd_failback_start(struct cli *c)
{
	uint64_t wait_s = LB_TAKEBACK_WAIT_S_DEFAULT;
	int r;

	r = cli_value_u64(c, "wait", WAIT_S_MAX, &wait_s);
	r = r < 0 ? r : cli_confirm(c, "shut down for good the double", c->args[0]);
	if (r < 0)
		return r;
	return cli_is_direct(c) ? direct(c, wait_s) : order_start(c, wait_s);
}
