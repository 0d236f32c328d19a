/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives recovery as the command and the configuration server do, and dies where a test wants it to:
 *
 * recover begin|resume|repoint|commit|cleanup|list|look|export --folder F --name N [--vault URL] [--passphrase-file F]
 *         [--key-file F] [--machine M] [--point P] [--kind test|live] [--fabric F] [--forward GUEST[:HOST]]...
 * [--memory SIZE]
 *         [--bus B] [--isolated] [--probe-port N] [--probe-send TEXT] [--wait S] [--no-pull] [--mend] [--require-mend]
 *         [--kill-before STEP]
 *         [--live-too] [--disk ID] [--path FILE] [--format raw|qcow2] [--network N]
 *         [--address A]
 *
 * STEP is a number of enum lb_failover_step. Prints JSON; errors go to standard error, exit status 1.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/err.h"
#include "base/json.h"
#include "fabric/export.h"
#include "fabric/failover.h"

struct recover {
	struct lb_failover_request request;
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX];
	const char *name, *path, *format;
	int kill_before;
	bool live_too;
	uint64_t disk;
};

static json_t *report_json(const struct lb_failover_report *p, enum lb_vm_state state)
{
	json_t *ports = json_object();
	char guest[8];

	for (uint32_t i = 0; i < p->n_forwards; i++) {
		snprintf(guest, sizeof(guest), "%u", p->forwards[i].guest_port);
		json_object_set_new(ports, guest, json_integer(p->forwards[i].host_port));
	}
	return json_pack("{s:s,s:s,s:s,s:I,s:I,s:i,s:s,s:b,s:b,s:I,s:s,s:s,s:s,s:o}", "vm", p->vm_name, "machine",
			 p->machine_name, "fabric", p->fabric, "epoch", (json_int_t)p->position.epoch, "seq",
			 (json_int_t)p->position.seq, "next", (int)p->next, "state", lb_vm_state_name(state),
			 "committed", (int)p->committed, "cleaning", (int)p->cleaning, "rto_ms", (json_int_t)p->rto_ms,
			 "warning", p->warning, "mended", p->mended, "console", p->console_path, "ports", ports);
}

static int tell(struct lb_failover *f)
{
	_cleanup_json_ json_t *j = NULL;
	struct lb_failover_report report;
	enum lb_vm_state state = LB_VM_ABSENT;
	struct lb_vm_pull pull = {0};
	int r;

	lb_failover_report(f, &report);
	r = lb_failover_state(f, &state);
	if (r < 0)
		return r;
	j = report_json(&report, state);
	if (report.next == LB_STEP_DONE) {
		r = lb_failover_pull_look(f, &pull);
		if (r < 0)
			return r;
		json_object_set_new(j, "pull",
				    json_pack("{s:b,s:b,s:I,s:I}", "running", (int)pull.running, "complete",
					      (int)pull.complete, "done_bytes", (json_int_t)pull.done_bytes,
					      "total_bytes", (json_int_t)pull.total_bytes));
	}
	json_dumpf(j, stdout, JSON_COMPACT);
	printf("\n");
	return 0;
}

static int at_step(void *arg, enum lb_failover_step step)
{
	const struct recover *c = arg;

	if (c->kill_before == (int)step)
		raise(SIGKILL);
	fprintf(stderr, "step %d\n", (int)step);
	return 0;
}

static int list_one(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	return json_array_append_new(arg, report_json(report, state));
}

static int list(struct recover *c)
{
	_cleanup_json_ json_t *all = json_array();
	int r = lb_failover_list(lb_env_real(), c->request.vm_folder, list_one, all);

	json_dumpf(all, stdout, JSON_COMPACT);
	return r;
}

static int commit_progress(void *arg, const struct lb_vm_pull *pull)
{
	fprintf(stderr, "pulled %" PRIu64 " of %" PRIu64 "\n", pull->done_bytes, pull->total_bytes);
	return arg == NULL ? 0 : -ECANCELED;
}

static int export(struct recover *c)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	_cleanup_(lb_vault_freep) struct lb_vault *vault = NULL;
	struct lb_catalog_item item;
	struct lb_point point;
	int r;

	r = lb_recovery_vault_open(lb_env_real(), c->request.vault_url, &c->request.secret, c->request.machine, &store,
				   &vault);
	r = r < 0 ? r : lb_catalog_find(vault, c->request.machine, &item);
	r = r < 0 ? r : lb_point_find(vault, &item.machine, c->request.point, &point);
	return r < 0 ? r
		     : lb_point_export(vault, &item, &point.position, (uint16_t)c->disk, c->path,
				       strcmp(c->format, "qcow2") == 0 ? LB_EXPORT_QCOW2 : LB_EXPORT_RAW, NULL, NULL);
}

static int act(struct recover *c, const char *verb)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_env *env = lb_env_real();
	int r;

	if (strcmp(verb, "list") == 0)
		return list(c);
	if (strcmp(verb, "export") == 0)
		return export(c);
	if (strcmp(verb, "begin") == 0)
		r = lb_failover_begin(env, &c->request, &f);
	else
		r = lb_failover_open(env, c->request.vm_folder, c->name, &f);
	if (r == 0 && strcmp(verb, "cleanup") == 0) {
		r = lb_failover_cleanup(f, c->live_too);
		if (r == 0)
			f = NULL;
		return r;
	}
	if (r == 0 && strcmp(verb, "repoint") == 0)
		r = lb_failover_repoint(f, c->request.point);
	if (r == 0 && strcmp(verb, "commit") == 0)
		r = lb_failover_commit(f, commit_progress, NULL);
	else if (r == 0 && strcmp(verb, "look") != 0)
		r = lb_failover_run(f, at_step, c);
	return r != 0 ? r : tell(f);
}

static void add_forward(struct recover *c, const char *text)
{
	struct lb_vm_forward *f = &c->forwards[c->request.n_forwards++];
	unsigned int guest = 0, host = 0;

	sscanf(text, "%u:%u", &guest, &host);
	*f = (struct lb_vm_forward){.guest_port = (uint16_t)guest, .host_port = (uint16_t)host};
}

enum {
	OPTION_FOLDER = 1,
	OPTION_NAME,
	OPTION_VAULT,
	OPTION_PASSPHRASE,
	OPTION_KEY,
	OPTION_MACHINE,
	OPTION_POINT,
	OPTION_KIND,
	OPTION_FABRIC,
	OPTION_FORWARD,
	OPTION_MEMORY,
	OPTION_BUS,
	OPTION_ISOLATED,
	OPTION_PROBE_PORT,
	OPTION_PROBE_SEND,
	OPTION_WAIT,
	OPTION_NO_PULL,
	OPTION_MEND,
	OPTION_REQUIRE_MEND,
	OPTION_KILL_BEFORE,
	OPTION_LIVE_TOO,
	OPTION_DISK,
	OPTION_PATH,
	OPTION_FORMAT,
	OPTION_NETWORK,
	OPTION_ADDRESS,
};

static void take_option(struct recover *c, int option)
{
	struct lb_failover_request *q = &c->request;

	switch (option) {
	case OPTION_FOLDER:
		q->vm_folder = optarg;
		break;
	case OPTION_NAME:
		c->name = q->vm_name = optarg;
		break;
	case OPTION_NETWORK:
		q->network = optarg;
		break;
	case OPTION_ADDRESS:
		q->address = optarg;
		break;
	case OPTION_VAULT:
		q->vault_url = optarg;
		break;
	case OPTION_PASSPHRASE:
		q->secret.passphrase_file = optarg;
		break;
	case OPTION_KEY:
		q->secret.key_file = optarg;
		break;
	case OPTION_MACHINE:
		q->machine = optarg;
		break;
	case OPTION_POINT:
		q->point = optarg;
		break;
	case OPTION_KIND:
		q->kind = strcmp(optarg, "live") == 0 ? LB_FAILOVER_LIVE : LB_FAILOVER_TEST;
		break;
	case OPTION_FABRIC:
		q->fabric = optarg;
		break;
	case OPTION_FORWARD:
		add_forward(c, optarg);
		break;
	case OPTION_MEMORY:
		lb_size_parse(optarg, &q->memory_bytes);
		break;
	case OPTION_BUS:
		q->bus = optarg;
		break;
	case OPTION_ISOLATED:
		q->isolated = true;
		break;
	case OPTION_PROBE_PORT:
		q->probe_port = (uint16_t)atoi(optarg);
		break;
	case OPTION_PROBE_SEND:
		q->probe_send = optarg;
		break;
	case OPTION_WAIT:
		q->wait_s = (uint32_t)atoi(optarg);
		break;
	case OPTION_NO_PULL:
		q->no_pull = true;
		break;
	case OPTION_MEND:
		q->mend = true;
		break;
	case OPTION_REQUIRE_MEND:
		q->mend_required = true;
		break;
	case OPTION_KILL_BEFORE:
		c->kill_before = atoi(optarg);
		break;
	case OPTION_LIVE_TOO:
		c->live_too = true;
		break;
	case OPTION_DISK:
		c->disk = (uint64_t)atoi(optarg);
		break;
	case OPTION_PATH:
		c->path = optarg;
		break;
	case OPTION_FORMAT:
		c->format = optarg;
		break;
	default:
		exit(2);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"folder", 1, NULL, OPTION_FOLDER},
		{"name", 1, NULL, OPTION_NAME},
		{"vault", 1, NULL, OPTION_VAULT},
		{"passphrase-file", 1, NULL, OPTION_PASSPHRASE},
		{"key-file", 1, NULL, OPTION_KEY},
		{"machine", 1, NULL, OPTION_MACHINE},
		{"point", 1, NULL, OPTION_POINT},
		{"kind", 1, NULL, OPTION_KIND},
		{"fabric", 1, NULL, OPTION_FABRIC},
		{"forward", 1, NULL, OPTION_FORWARD},
		{"memory", 1, NULL, OPTION_MEMORY},
		{"bus", 1, NULL, OPTION_BUS},
		{"isolated", 0, NULL, OPTION_ISOLATED},
		{"probe-port", 1, NULL, OPTION_PROBE_PORT},
		{"probe-send", 1, NULL, OPTION_PROBE_SEND},
		{"wait", 1, NULL, OPTION_WAIT},
		{"no-pull", 0, NULL, OPTION_NO_PULL},
		{"mend", 0, NULL, OPTION_MEND},
		{"require-mend", 0, NULL, OPTION_REQUIRE_MEND},
		{"kill-before", 1, NULL, OPTION_KILL_BEFORE},
		{"live-too", 0, NULL, OPTION_LIVE_TOO},
		{"disk", 1, NULL, OPTION_DISK},
		{"path", 1, NULL, OPTION_PATH},
		{"format", 1, NULL, OPTION_FORMAT},
		{"network", 1, NULL, OPTION_NETWORK},
		{"address", 1, NULL, OPTION_ADDRESS},
		{0},
	};
	struct recover c = {.kill_before = -1, .format = "raw", .request = {.vm_folder = "/nowhere"}};
	int option, r;

	c.request.forwards = c.forwards;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		take_option(&c, option);
	if (optind >= argc)
		return 2;
	r = act(&c, argv[optind]);
	if (r < 0)
		fprintf(stderr, "recover: %s\n", lb_err_text());
	return r == 0 ? 0 : 1;
}
