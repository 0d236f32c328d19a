/* SPDX-License-Identifier: Apache-2.0 */
/* The original runs again, or no more: a libvirt domain of this host, or whatever the administrator's script switches.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "fabric/domain.h"
#include "fabric/hook.h"
#include "target/task.h"

#define DOMAIN_TIMEOUT_S 300

static int keep_on(void *arg)
{
	return lb_target_task_check(arg);
}

static int run_hook(struct lb_target_task *t, const char *event, const char *name)
{
	char machine[128], id[64], what[64], line[LB_PROC_LAST_LINE_BYTES];
	const char *const values[] = {machine, id, what, NULL};
	const struct lb_hook hook = {
		.folder = t->settings->hook_folder, .name = name, .values = values, .idle = keep_on, .arg = t};
	int r;

	snprintf(what, sizeof(what), "LIFEBOAT_EVENT=%s", event);
	snprintf(machine, sizeof(machine), "LIFEBOAT_MACHINE=%s", t->order.machine_name);
	snprintf(id, sizeof(id), "LIFEBOAT_MACHINE_ID=%s", t->order.machine_text);
	lb_target_task_say(t, "runs %s", name);
	r = lb_hook_run(t->env, &hook, line);
	if (r < 0)
		return lb_wrap(r, "%s", name);
	lb_target_task_say(t, line[0] != '\0' ? "%s: %s" : "%s has run%s", name, line);
	return 0;
}

/* By a process of its own: libvirt's calls have no time limit, and one that hangs must not hold the daemon. */
static int tell_domain(struct lb_target_task *t, const char *verb, const char *uri, const char *name)
{
	_cleanup_buf_ struct lb_buf words = LB_BUF(LB_PROC_OUTPUT_BYTES_MAX);
	char program[PATH_MAX];
	const char *argv[] = {program, "--", verb, uri, name, NULL};
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	int r;

	if (n < 0)
		return lb_fail(-errno, "can't find my own program: %s", strerror(errno));
	program[n] = '\0';
	r = lb_proc_run(t->env,
			&(struct lb_proc_run){
				.argv = argv, .keep_fd = -1, .timeout_s = DOMAIN_TIMEOUT_S, .idle = keep_on, .arg = t},
			&words);
	if (r == -ETIMEDOUT)
		return lb_fail(r,
			       "libvirt at %s has not done %s of %.80s within %d s: look at its libvirtd, then order "
			       "it again",
			       uri, verb, name, DOMAIN_TIMEOUT_S);
	if (r == -EREMOTEIO && words.size_bytes > 0)
		return lb_fail(r, "%.*s", (int)strcspn((char *)words.data, "\n"), (char *)words.data);
	return r;
}

static int power(struct lb_target_task *t, const char *event, const char *verb, const char *done)
{
	const json_t *body = t->order.body;
	const char *domain = json_string_value(json_object_get(body, "domain")),
		   *hook = json_string_value(json_object_get(body, "hook")),
		   *uri = json_string_value(json_object_get(body, "uri"));
	int r;

	if (hook != NULL)
		return run_hook(t, event, hook);
	if (domain == NULL)
		return lb_fail(-EINVAL, "the order does not tell what is meant");
	if (uri == NULL)
		uri = LB_DOMAIN_URI_DEFAULT;
	lb_target_task_say(t, "%s %s", verb, domain);
	r = tell_domain(t, verb, uri, domain);
	if (r == 0)
		lb_target_task_say(t, "domain %s %s at %s", domain, done, uri);
	return r;
}

int lb_target_do_boot(struct lb_target_work *w)
{
	return power(w->task, "boot", LB_TARGET_START_DOMAIN, "runs");
}

int lb_target_do_halt(struct lb_target_work *w)
{
	return power(w->task, "halt", LB_TARGET_HALT_DOMAIN, "is off");
}
