/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "cli/readiness.h"
#include "vault/catalog.h"

#define WATCH_POLL_NS (500 * LB_NS_PER_MS)
/* A refusal from before the order stands until the agent has heard of it, tried again and told the server. */
#define REFUSED_STALE_NS (20 * LB_NS_PER_S)
#define SILENT_WAIT_NS (300 * LB_NS_PER_S) /* for an agent that doesn't speak */
#define ASSESS_SECONDS_MAX 86400
#define ASSESS_BYTES_MAX (4u << 20)

static int list_one(void *arg, const struct lb_uuid *machine)
{
	struct cli *c = ((void **)arg)[0];
	json_t *list = ((void **)arg)[1];
	struct lb_catalog_item item;
	char id[LB_UUID_TEXT_BYTES];
	int r;

	lb_uuid_format(machine, id);
	r = lb_catalog_get(c->vault, machine, &item);
	if (r < 0 && r != -ENOENT)
		return r;
	return json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "id", id, "name", r == 0 ? item.name : "",
						     "state", "in the vault")) < 0
		       ? lb_fail(-ENOMEM, "out of memory for the list of machines")
		       : 0;
}

static int machines(struct cli *c, json_t **ret_reply)
{
	_cleanup_json_ json_t *list = NULL;
	void *arg[2];
	int r;

	if (!cli_is_direct(c))
		return cli_call(c, "GET", "/v1/machine", NULL, ret_reply);
	r = cli_vault_open(c);
	if (r < 0)
		return r;
	list = json_array();
	arg[0] = c;
	arg[1] = list;
	r = lb_vault_machines(c->vault, list_one, arg);
	if (r < 0)
		return r;
	*ret_reply = json_pack("{s:O}", "machines", list);
	return 0;
}

int cmd_machine_list(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *m;
	size_t i;
	int r;

	r = machines(c, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("machines", json_incref(reply));
	printf("%-24s %-38s %s\n", "NAME", "ID", "STATE");
	json_array_foreach(json_object_get(reply, "machines"), i, m)
		printf("%-24s %-38s %s\n", cli_text(m, "name"), cli_text(m, "id"), cli_text(m, "state"));
	return 0;
}

static int no_agent(void)
{
	return lb_fail(-ENOENT,
		       "lifeboat-mobility is not beside this program and not on the path: copy it to this server "
		       "(nothing needs to be installed) and run it again");
}

/* Reads the agent's JSON to its end; its errors go to standard error by themselves. */
static int read_assessment(int fd, pid_t pid, json_t **ret_assessment)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(ASSESS_BYTES_MAX);
	char part[4096];
	ssize_t n;
	int status, r = 0;

	while (r == 0 && (n = read(fd, part, sizeof(part))) > 0)
		r = lb_buf_append(&text, part, (size_t)n);
	if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		return lb_fail(-EIO, "lifeboat-mobility was ended before it had assessed this machine; run it again");
	if (WEXITSTATUS(status) == CLI_EXIT_ABSENT)
		return no_agent();
	if (WEXITSTATUS(status) != 0)
		return lb_fail(-EIO, "lifeboat-mobility could not assess this machine; its message is above");
	return r < 0 ? r : lb_json_parse(text.data, text.size_bytes, ASSESS_BYTES_MAX, ret_assessment);
}

static int assess_json(const char *const *argv)
{
	_cleanup_json_ json_t *assessment = NULL;
	_cleanup_close_ int from = -1;
	int fds[2], r;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return lb_fail(-errno, "no pipe to lifeboat-mobility: %s", strerror(errno));
	from = fds[0];
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		cli_exec("mobility", argv);
		_exit(CLI_EXIT_ABSENT);
	}
	close(fds[1]);
	if (pid < 0)
		return lb_fail(-errno, "can't start lifeboat-mobility: %s", strerror(errno));
	r = read_assessment(from, pid, &assessment);
	return r < 0 ? r : cli_print_json("assessment", json_incref(assessment));
}

/* The agent's program does the looking: it stands beside this one, or on the path. */
int cmd_machine_assess(struct cli *c)
{
	const char *argv[] = {"lifeboat-mobility", "assess", "--seconds", "10", NULL, NULL};
	uint64_t seconds = 0;
	int r;

	r = cli_value_u64(c, "seconds", ASSESS_SECONDS_MAX, &seconds);
	if (r < 0)
		return r;
	if (cli_value(c, "seconds") != NULL)
		argv[3] = cli_value(c, "seconds");
	if (c->json) {
		argv[4] = "--json";
		return assess_json(argv);
	}
	cli_exec("mobility", argv);
	return no_agent();
}

/* ---- orders to the configuration server ---------------------------------------------------------------- */

/* A wait that can only end by someone else's doing says so instead. */
static int check_hopeless(const json_t *m, const char *state, int64_t waited_ns)
{
	const json_t *reason = json_array_get(json_object_get(m, "reasons"), 0);
	const char *name = cli_text(m, "name");

	if (strcmp(state, "refused") == 0 && waited_ns > REFUSED_STALE_NS)
		return lb_fail(-EACCES, "%s can't be protected: %s; %s", name, cli_text(m, "error"),
			       cli_text(reason, "cure"));
	if (strcmp(state, "not protected") == 0 || strcmp(state, "failed over") == 0)
		return lb_fail(-ECANCELED, "%s is %s: someone else's order ended its replication", name, state);
	if ((strcmp(state, "silent") == 0 || strcmp(state, "waiting") == 0) && waited_ns > SILENT_WAIT_NS)
		return lb_fail(-EAGAIN, "the agent of %s doesn't speak; %s", name, cli_text(reason, "cure"));
	return 0;
}

/* Done when the machine is protected by an epoch newer than `epoch_before`. */
static int wait_protected(struct cli *c, const char *machine, json_int_t epoch_before, json_t **ret_machine)
{
	int64_t begun_ns = lb_mono_ns(c->env);

	for (;;) {
		_cleanup_json_ json_t *m = NULL;
		const json_t *progress;
		const char *state;
		int r;

		r = cli_callf(c, "GET", NULL, &m, "/v1/machine/%s", machine);
		if (r == 0)
			r = lb_json_get_str(m, "state", &state);
		if (r != 0)
			return r;
		if (strcmp(state, "protected") == 0 &&
		    cli_number(json_object_get(m, "replication"), "epoch") > epoch_before) {
			cli_progress_end(c);
			*ret_machine = lb_steal_ptr(m);
			return 0;
		}
		if (strcmp(state, "silent") != 0 && strcmp(state, "waiting") != 0 && strcmp(state, "refused") != 0)
			begun_ns = lb_mono_ns(c->env);
		r = check_hopeless(m, state, lb_mono_ns(c->env) - begun_ns);
		if (r < 0) {
			cli_progress_end(c);
			return r;
		}
		progress = json_object_get(m, "progress");
		cli_progress(c, state, (uint64_t)cli_number(progress, "done_bytes"),
			     (uint64_t)cli_number(progress, "total_bytes"), true);
		c->env->ops->wait_until(c->env, lb_mono_ns(c->env) + WATCH_POLL_NS, -1);
	}
}

static int set_disks(json_t *body, const char *list)
{
	_cleanup_free_ char *copy = strdup(list);
	json_t *disks = json_array();
	char *rest = copy, *name;

	if (copy == NULL || json_object_set_new(body, "disks", disks) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	while ((name = strsep(&rest, ",")) != NULL)
		if (*name == '\0' || json_array_append_new(disks, json_string(name)) < 0)
			return lb_fail(-EINVAL, "--disks takes names with commas between them, not \"%.60s\"", list);
	return 0;
}

static int protect_body(const struct cli *c, json_t **ret_body)
{
	_cleanup_json_ json_t *body = json_object();
	int r = 0;

	if (cli_value(c, "policy") != NULL)
		r = lb_json_set_str(body, "policy", cli_value(c, "policy"));
	if (r == 0 && cli_value(c, "disks") != NULL)
		r = set_disks(body, cli_value(c, "disks"));
	if (r == 0 && cli_value(c, "force") != NULL)
		r = lb_json_set_bool(body, "force", true);
	if (r == 0)
		*ret_body = lb_steal_ptr(body);
	return r;
}

/* Before the order if it is known by then: what stops the double is refused, and read here. */
static int report_readiness(struct cli *c, bool *told)
{
	_cleanup_json_ json_t *m = NULL;
	int r;

	if (c->json || *told)
		return 0;
	r = cli_callf(c, "GET", NULL, &m, "/v1/machine/%s", c->args[0]);
	if (r < 0)
		return r;
	*told = cli_readiness_known(m);
	if (*told)
		cli_readiness_print(c, m);
	return 0;
}

int cmd_machine_protect(struct cli *c)
{
	_cleanup_json_ json_t *body = NULL, *reply = NULL, *machine = NULL;
	bool told = false;
	int r;

	r = protect_body(c, &body);
	if (r == 0)
		r = report_readiness(c, &told);
	if (r < 0)
		return r;
	if (c->dry_run) {
		r = cli_callf(c, "GET", NULL, &reply, "/v1/machine/%s", c->args[0]);
		if (r < 0)
			return r;
		return cli_would(c, "protect %s by policy %s", c->args[0],
				 cli_value(c, "policy") != NULL ? cli_value(c, "policy") : cli_text(reply, "policy"));
	}
	r = cli_callf(c, "POST", body, &reply, "/v1/machine/%s/enable", c->args[0]);
	if (r == 0)
		r = report_readiness(c, &told);
	if (r < 0)
		return r;
	if (cli_value(c, "no-wait") != NULL)
		return cli_did(c, "machine", json_incref(reply),
			       "%s is being replicated; `lifeboat status %s` tells its progress.", c->args[0],
			       c->args[0]);
	r = wait_protected(c, c->args[0], 0, &machine);
	return r < 0 ? r : cli_did(c, "machine", json_incref(machine), "%s is protected.", c->args[0]);
}

/* Looks first whether there is such a machine, also when nothing will be done. */
static int look_at(struct cli *c, json_t **ret_machine)
{
	return cli_callf(c, "GET", NULL, ret_machine, "/v1/machine/%s", c->args[0]);
}

int cmd_machine_pause(struct cli *c)
{
	_cleanup_json_ json_t *machine = NULL, *reply = NULL;
	int r;

	r = look_at(c, &machine);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "stop replicating %s; its recovery points would stay", c->args[0]);
	r = cli_callf(c, "POST", NULL, &reply, "/v1/machine/%s/disable", c->args[0]);
	if (r < 0)
		return r;
	return cli_did(c, "machine", json_incref(reply),
		       "%s is no longer replicated; its recovery points stay in the vault. `lifeboat machine protect "
		       "%s` goes on.",
		       c->args[0], c->args[0]);
}

int cmd_machine_resync(struct cli *c)
{
	_cleanup_json_ json_t *before = NULL, *reply = NULL, *machine = NULL;
	int r;

	r = look_at(c, &before);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "compare the disks of %s with the vault and send what differs", c->args[0]);
	r = cli_callf(c, "POST", NULL, &reply, "/v1/machine/%s/resync", c->args[0]);
	if (r < 0)
		return r;
	if (cli_value(c, "no-wait") != NULL)
		return cli_did(c, "machine", json_incref(reply),
			       "%s compares its disks with the vault; `lifeboat status %s` tells its progress.",
			       c->args[0], c->args[0]);
	r = wait_protected(c, c->args[0], cli_number(json_object_get(before, "replication"), "epoch"), &machine);
	return r < 0 ? r
		     : cli_did(c, "machine", json_incref(machine), "%s was compared with the vault and is protected.",
			       c->args[0]);
}

int cmd_machine_remove(struct cli *c)
{
	_cleanup_json_ json_t *machine = NULL;
	int r;

	r = look_at(c, &machine);
	if (r == 0)
		r = cli_confirm(c, "forget, and revoke the certificate of,", c->args[0]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "forget %s and revoke its certificate; its recovery points would stay in the vault",
				 c->args[0]);
	r = cli_callf(c, "DELETE", NULL, NULL, "/v1/machine/%s", c->args[0]);
	if (r < 0)
		return r;
	return cli_did(c, "machine",
		       json_pack("{s:s,s:s,s:s}", "id", cli_text(machine, "id"), "name", cli_text(machine, "name"),
				 "state", "removed"),
		       "%s is forgotten and its certificate revoked; its recovery points stay in the vault.",
		       c->args[0]);
}
