/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/setup_steps.h"
#include "cli/setup_ask.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"

#define ANSWERS_NAME "setup.json"
#define ANSWERS_BYTES_MAX (16u << 10)
#define TEXT_BYTES 1024
#define TESTED "tested" /* of the answers: whose double ran */

static int answers_path(const char *etc, char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/" ANSWERS_NAME, etc) >= PATH_MAX)
		return lb_fail(-ENAMETOOLONG, "--etc-folder is too long");
	return 0;
}

int cli_setup_answers(struct cli *c, const char *etc, json_t **ret_answers)
{
	_cleanup_free_ uint8_t *text = NULL;
	char path[PATH_MAX];
	size_t size_bytes;
	int r;

	r = answers_path(etc, path);
	if (r < 0)
		return r;
	r = lb_file_read(c->env, path, ANSWERS_BYTES_MAX, &text, &size_bytes);
	if (r == -ENOENT) {
		*ret_answers = json_object();
		return *ret_answers != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for the setup");
	}
	if (r == 0)
		r = lb_json_parse(text, size_bytes, ANSWERS_BYTES_MAX, ret_answers);
	return r < 0 ? lb_wrap(r, "%s", path) : 0;
}

int cli_setup_keep(struct cli *c, const char *etc, const json_t *answers)
{
	_cleanup_free_ char *text = NULL;
	char path[PATH_MAX];
	int r;

	r = answers_path(etc, path);
	if (r == 0)
		r = lb_json_dump(answers, &text);
	return r < 0 ? r : lb_file_write(c->env, path, text, strlen(text), 0644);
}

int cli_setup_step(struct cli *c, struct cli_setup *s, int n, const char *name, bool done, const char *fmt, ...)
{
	char text[TEXT_BYTES];
	json_t *one;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	one = json_pack("{s:i,s:s,s:b,s:s}", "n", n, "name", name, "done", (int)done, "text", text);
	if (json_array_append_new(s->steps, one) < 0)
		return lb_fail(-ENOMEM, "out of memory for the setup");
	if (!c->json)
		printf("%d. %s: %s%s\n", n, name, done ? "" : "TO DO. ", text);
	return 0;
}

/* ---- 4: the server answers ------------------------------------------------------------------------------ */

static int server_step(struct cli *c, struct cli_setup *s, bool *ret_done)
{
	_cleanup_json_ json_t *status = NULL;

	*ret_done = cli_call(c, "GET", "/v1/status", NULL, &status) == 0;
	return cli_setup_step(
		c, s, 4, "Configuration server", *ret_done,
		*ret_done ? "answers at %s; its settings are in %s/config.conf"
			  : "it doesn't answer at %s: start it (`systemctl enable --now lifeboat-config`, or "
			    "`lifeboat-config --config %s/config.conf`), then run `lifeboat setup` again",
		c->server_url, s->etc);
}

/* ---- 5: a policy ---------------------------------------------------------------------------------------- */

static int policy_step(struct cli *c, struct cli_setup *s, bool *ret_done)
{
	_cleanup_json_ json_t *policy = NULL, *body = json_object();
	bool made = false;
	int r;

	r = cli_callf(c, "GET", NULL, &policy, "/v1/policy/%s", s->policy);
	if (r == -ENOENT) {
		r = cli_callf(c, "PUT", body, &policy, "/v1/policy/%s", s->policy);
		made = true;
	}
	if (r < 0)
		return r;
	*ret_done = true;
	return cli_setup_step(
		c, s, 5, "Policy", true,
		"%s is %s: a point every %lld s, an alert past %lld s; `lifeboat policy set %s` changes it", s->policy,
		made ? "made" : "there", (long long)cli_number(policy, "consistency_interval_s"),
		(long long)cli_number(policy, "rpo_threshold_s"), s->policy);
}

/* ---- 6: the agent of the first machine ------------------------------------------------------------------ */

static int protect(struct cli *c, struct cli_setup *s, json_t **machine)
{
	_cleanup_json_ json_t *body = json_pack("{s:s}", "policy", s->policy), *reply = NULL;
	int r;

	r = cli_callf(c, "POST", body, &reply, "/v1/machine/%s/enable", s->machine);
	if (r < 0)
		return r;
	json_decref(*machine);
	*machine = lb_steal_ptr(reply);
	return 0;
}

static int agent_step(struct cli *c, struct cli_setup *s, json_t **ret_machine, bool *ret_done)
{
	int r;

	if (s->machine == NULL)
		return cli_setup_step(c, s, 6, "Agent", false,
				      "say which machine is the first (`lifeboat setup --machine NAME`)");
	r = cli_callf(c, "GET", NULL, ret_machine, "/v1/machine/%s", s->machine);
	if (r == -ENOENT && cli_setup_may_ask(c))
		printf("6. Agent. The package lifeboat-mobility sees each write of a machine's disks as it happens and "
		       "sends it. It\n"
		       "   joins with a token that is good once.\n");
	if (r == -ENOENT)
		return cli_setup_step(
			c, s, 6, "Agent", false,
			"on %s install the package lifeboat-mobility; here run `lifeboat token create --name "
			"%s`, which shows what to run there; then run `lifeboat setup` again",
			s->machine, s->machine);
	if (r == 0 && !json_is_true(json_object_get(*ret_machine, "enabled")))
		r = protect(c, s, ret_machine);
	if (r == -EPERM || r == -EACCES || r == -EAGAIN || r == -EINVAL)
		return cli_setup_step(c, s, 6, "Agent", false, "%s", lb_err_text());
	if (r < 0)
		return r;
	*ret_done = json_is_true(json_object_get(*ret_machine, "recoverable"));
	return cli_setup_step(
		c, s, 6, "Agent", *ret_done,
		*ret_done ? "%s is %s and can be recovered"
			  : "%s is %s; when it can be recovered (`lifeboat status`) run `lifeboat setup` again",
		s->machine, cli_text(*ret_machine, "state"));
}

/* ---- 7: the first test failover ------------------------------------------------------------------------- */

static int make_test(struct cli *c, const struct cli_setup *s)
{
	_cleanup_json_ json_t *body = json_pack("{s:s,s:s}", "machine", s->machine, "kind", "test"), *started = NULL,
			      *cleaned = NULL;
	const char *job = NULL, *name = NULL;
	int r;

	r = cli_call(c, "POST", "/v1/failover", body, &started);
	if (r == 0)
		r = lb_json_get_str(started, "job", &job);
	if (r == 0)
		r = lb_json_get_str(started, "name", &name);
	if (r == 0)
		r = cli_job_follow(c, job, NULL);
	if (r == 0)
		r = cli_callf(c, "POST", NULL, &cleaned, "/v1/failover/%s/cleanup", name);
	if (r == 0)
		r = lb_json_get_str(cleaned, "job", &job);
	return r < 0 ? r : cli_job_follow(c, job, NULL);
}

static int test_step(struct cli *c, struct cli_setup *s, const json_t *machine)
{
	/* a double that ran is enough here; whether its services answer is for a drill with a probe */
	bool proven = cli_number(machine, "proven_ns") > 0 ||
		      strcmp(cli_text(s->answers, TESTED), cli_text(machine, "id")) == 0;
	int r = 0;

	if (!proven && !s->test && cli_setup_may_ask(c)) {
		printf("7. First test failover. A double of %s is started, isolated from everything, and removed "
		       "again.\n",
		       s->machine);
		r = cli_setup_ask_yes(c, "Shall it be made now", &s->test);
	}
	if (r < 0)
		return r;
	if (!proven && !s->test)
		return cli_setup_step(
			c, s, 7, "First test failover", false,
			"`lifeboat setup --test-failover` makes one and cleans it up, or `lifeboat failover "
			"test %s`",
			s->machine);
	if (!proven) {
		r = make_test(c, s);
		if (r == 0)
			r = lb_json_set_str(s->answers, TESTED, cli_text(machine, "id"));
		if (r == 0)
			r = cli_setup_keep(c, s->etc, s->answers);
		if (r < 0)
			return lb_wrap(r, "7. First test failover");
	}
	return cli_setup_step(c, s, 7, "First test failover", true, "a double of %s has run", s->machine);
}

int cli_setup_rest(struct cli *c, struct cli_setup *s)
{
	static char url[512];
	_cleanup_json_ json_t *machine = NULL;
	bool done = false;
	int r;

	/* the one that was set up here, whatever the environment says of others */
	snprintf(url, sizeof(url), strchr(s->host, ':') != NULL ? "https://[%s]:%s" : "https://%s:%s", s->host,
		 s->port);
	c->server_url = url;
	r = server_step(c, s, &done);
	if (r < 0 || !done)
		return r;
	done = false;
	r = policy_step(c, s, &done);
	if (r < 0 || !done)
		return r;
	done = false;
	r = agent_step(c, s, &machine, &done);
	return r < 0 || !done ? r : test_step(c, s, machine);
}
