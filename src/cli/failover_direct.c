/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/failover_direct.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "cli/anchor.h"
#include "fabric/double_settings.h"
#include "vault/catalog.h"
#include "vault/points.h"
#include "vault/site.h"

static const char *vm_folder(const struct cli *c)
{
	return cli_value(c, "folder") != NULL ? cli_value(c, "folder") : "/var/lib/lifeboat/vm";
}

static json_t *report_json(const struct lb_failover_report *report, enum lb_vm_state state)
{
	json_t *forwards = json_array();
	char id[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&report->machine, id);
	for (uint32_t i = 0; i < report->n_forwards; i++)
		json_array_append_new(forwards, json_pack("{s:s,s:i,s:i}", "address", report->forwards[i].address,
							  "host_port", (int)report->forwards[i].host_port, "guest_port",
							  (int)report->forwards[i].guest_port));
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:b,s:I,s:s,s:o,s:s,s:s,s:s,s:I,s:I,s:b}", "name",
			 report->vm_name, "machine", id, "machine_name", report->machine_name, "kind",
			 report->kind == LB_FAILOVER_LIVE ? "live" : "test", "state", lb_vm_state_name(state),
			 "point_ns", (json_int_t)report->point_time_ns, "epoch", (json_int_t)report->position.epoch,
			 "seq", (json_int_t)report->position.seq, "committed", (int)report->committed, "rto_ms",
			 (json_int_t)report->rto_ms, "console", report->console_path, "forwards", forwards, "step",
			 lb_failover_step_name(report->next), "fabric", report->fabric != NULL ? report->fabric : "",
			 "warning", report->warning != NULL ? report->warning : "", "started_ns",
			 (json_int_t)report->started_ns, "running_ns", (json_int_t)report->running_ns, "cleaning",
			 (int)report->cleaning);
}

static json_t *with_network(json_t *object, const struct lb_failover_report *report)
{
	json_object_update_new(object, json_pack("{s:s,s:s,s:s,s:s}", "network", report->network, "mac", report->mac,
						 "address", report->address, "mended", report->mended));
	return object;
}

static int tell_step(void *arg, enum lb_failover_step step)
{
	const struct cli *c = arg;

	if (!c->json && step != LB_STEP_DONE)
		printf("  %s\n", lb_failover_step_name(step));
	fflush(stdout);
	return 0;
}

static int tell_done(struct cli *c, struct lb_failover *f)
{
	struct lb_failover_report report;
	char when[LB_TIME_TEXT_BYTES];

	lb_failover_report(f, &report);
	if (c->json)
		return cli_print_json("failover", with_network(report_json(&report, LB_VM_RUNNING), &report));
	printf("Double %s of %s is running, as the machine was at %s (RTO %.1f s).\n", report.vm_name,
	       report.machine_name, lb_time_format(report.point_time_ns, when), (double)report.rto_ms / 1000);
	for (uint32_t i = 0; i < report.n_forwards; i++)
		printf("  port %u here is its port %u\n", report.forwards[i].host_port, report.forwards[i].guest_port);
	if (report.network[0] != '\0')
		printf("  it is on network %s, MAC address %s%s%s\n", report.network, report.mac,
		       report.address[0] != '\0' ? ", address " : "", report.address);
	if (report.mended[0] != '\0')
		printf("  mended: %s\n", report.mended);
	if (report.warning[0] != '\0')
		printf("  mind: %s\n", report.warning);
	return 0;
}

static int start(struct cli *c, const struct lb_failover_request *request)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int r;

	r = lb_failover_begin(c->env, request, &f);
	if (r < 0)
		return r;
	r = lb_failover_run(f, tell_step, c);
	if (r < 0)
		return r;
	return tell_done(c, f);
}

static int look_at_network(struct cli *c, const struct lb_failover_request *request)
{
	_cleanup_(lb_fabric_freep) struct lb_fabric *f = NULL;
	int r;

	if (request->network == NULL)
		return 0;
	r = lb_fabric_open(c->env, request->fabric != NULL ? request->fabric : "auto", &f);
	r = r < 0 ? r : f->ops->network(f, request->network);
	return r == -ENOENT ? lb_fail(r, "%s; --network none starts the double without one", lb_err_text()) : r;
}

/* Looks whether it could: the vault opens, machine and point are there, and how new that is. */
static int preview(struct cli *c, const struct lb_failover_request *request)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	const char *text = request->point != NULL ? request->point : "latest";
	char when[LB_TIME_TEXT_BYTES];
	struct lb_point point;
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = cli_vault_open(c);
	if (r == 0)
		r = lb_catalog_find(c->vault, request->machine, item);
	if (r == 0)
		r = lb_point_find(c->vault, &item->machine, text, &point);
	if (r == 0)
		r = cli_anchor_check(c, &item->machine, point.time_ns);
	if (r == 0)
		r = look_at_network(c, request);
	if (r != 0 || !c->dry_run)
		return r;
	return cli_would(c, "start a double of %s from %s (%s) in %s", item->name, text,
			 lb_time_format(point.time_ns, when), request->vm_folder);
}

/* What the order doesn't say is as the vault's copy of the registry has it. */
static int fill_from_copy(struct cli *c, json_t *body)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_SITE_BYTES_MAX);
	_cleanup_json_ json_t *copy = NULL;
	struct lb_double_source source;
	int r;

	r = cli_vault_open(c);
	r = r < 0 ? r : lb_vault_site_get(c->vault, "registry", &text);
	if (r == 0)
		r = lb_json_parse(text.data, text.size_bytes, LB_SITE_BYTES_MAX, &copy);
	if (r == -ENOENT)
		lb_err_clear(); /* no configuration server was ever there */
	else if (r < 0)
		return r;
	lb_double_source_find(copy, c->args[0], &source);
	return lb_double_fill(body, &source);
}

int cli_failover_direct(struct cli *c, enum lb_failover_kind kind)
{
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX] = {0};
	struct lb_failover_request request = {
		.vault_url = c->vault_url,
		.secret = {.passphrase_file = c->passphrase_file},
		.vm_folder = vm_folder(c),
		.fabric = cli_value(c, "fabric"),
	};
	_cleanup_json_ json_t *body = NULL;
	int r;

	if (c->passphrase_file == NULL)
		return lb_fail(-EINVAL,
			       "the double's disks are served by processes of their own: give --passphrase-file FILE");
	r = cli_failover_body(c, kind == LB_FAILOVER_LIVE ? "live" : "test", &body);
	r = r < 0 ? r : fill_from_copy(c, body);
	r = r < 0 ? r : lb_failover_request_parse(body, &request, forwards);
	if (r < 0)
		return r;
	r = preview(c, &request);
	if (r == 0 && kind == LB_FAILOVER_LIVE)
		r = cli_confirm(c, "fence, and start the double of,", c->args[0]);
	return r < 0 || c->dry_run ? r : start(c, &request);
}

static int list_one(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	return json_array_append_new(arg, with_network(report_json(report, state), report)) < 0
		       ? lb_fail(-ENOMEM, "out of memory")
		       : 0;
}

int cli_failover_list_direct(struct cli *c, json_t **ret_reply)
{
	_cleanup_json_ json_t *list = json_array();
	int r;

	r = lb_failover_list(c->env, vm_folder(c), list_one, list);
	if (r < 0)
		return r;
	*ret_reply = json_pack("{s:O}", "failovers", list);
	return 0;
}

int cli_double_open(struct cli *c, struct lb_failover **ret_failover)
{
	const struct lb_vault_secret secret = {.passphrase_file = c->passphrase_file};
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int r;

	r = lb_failover_open(c->env, vm_folder(c), c->args[0], &f);
	if (r == 0 && c->passphrase_file != NULL)
		r = lb_failover_secret_set(f, &secret);
	if (r < 0)
		return r;
	*ret_failover = lb_steal_ptr(f);
	return 0;
}

int cli_failover_cleanup_direct(struct cli *c)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int r;

	r = cli_double_open(c, &f);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "destroy the double %s", c->args[0]);
	r = lb_failover_cleanup(f, cli_value(c, "live") != NULL);
	if (r == -EPERM)
		return lb_wrap(r, "not without --live");
	if (r < 0)
		return r;
	f = NULL;
	return cli_did(c, "failover", json_pack("{s:s,s:s}", "name", c->args[0], "state", "gone"),
		       "%s is gone without trace.", c->args[0]);
}

int cli_failover_repoint_direct(struct cli *c)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	const char *point = cli_value(c, "point") != NULL ? cli_value(c, "point") : "latest";
	int r;

	r = cli_double_open(c, &f);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "start %s again from %s", c->args[0], point);
	r = lb_failover_repoint(f, point);
	if (r == 0)
		r = lb_failover_run(f, tell_step, c);
	return r < 0 ? r : tell_done(c, f);
}

static int commit_progress(void *arg, const struct lb_vm_pull *pull)
{
	cli_progress(arg, "Pulling in", pull->done_bytes, pull->total_bytes, true);
	return 0;
}

int cli_failover_commit_direct(struct cli *c)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int r;

	r = cli_double_open(c, &f);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "commit %s", c->args[0]);
	r = lb_failover_commit(f, commit_progress, c);
	cli_progress_end(c);
	if (r < 0)
		return r;
	return cli_did(c, "failover", json_pack("{s:s,s:b}", "name", c->args[0], "committed", 1),
		       "%s is committed: it stands by itself now.", c->args[0]);
}
