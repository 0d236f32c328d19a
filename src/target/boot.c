/* SPDX-License-Identifier: Apache-2.0 */
/* The original runs again, or no more: a libvirt domain of this host, or whatever the administrator's script switches.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "fabric/domain.h"
#include "fabric/hook.h"
#include "hrl/hrl.h"
#include "target/task.h"

#define DOMAIN_TIMEOUT_S 300
#define LOOK_TIMEOUT_S 60

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
static int tell_domain(struct lb_target_task *t, const char *const *words, uint32_t timeout_s)
{
	_cleanup_buf_ struct lb_buf said = LB_BUF(LB_PROC_OUTPUT_BYTES_MAX);
	const char *argv[LB_HRL_DISKS_MAX + 6], *uri = words[1], *name = words[2];
	char program[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	size_t k = 0;
	int r;

	if (n < 0)
		return lb_fail(-errno, "can't find my own program: %s", strerror(errno));
	program[n] = '\0';
	argv[k++] = program;
	argv[k++] = "--";
	while (*words != NULL && k < LB_ARRAY_LEN(argv) - 1)
		argv[k++] = *words++;
	argv[k] = NULL;
	r = lb_proc_run(
		t->env,
		&(struct lb_proc_run){.argv = argv, .keep_fd = -1, .timeout_s = timeout_s, .idle = keep_on, .arg = t},
		&said);
	if (r == -ETIMEDOUT)
		return lb_fail(r,
			       "libvirt at %s has not done %s of %.80s within %u s: look at its libvirtd, then order "
			       "it again",
			       uri, argv[2], name, timeout_s);
	if (r == -EREMOTEIO && said.size_bytes > 0)
		return lb_fail(r, "%.*s", (int)strcspn((char *)said.data, "\n"), (char *)said.data);
	return r;
}

/* Who is meant. */
static int read_body(const struct lb_target_task *t, const char **ret_domain, const char **ret_uri,
		     const char **ret_hook)
{
	const json_t *body = t->order.body;
	const char *uri = json_string_value(json_object_get(body, "uri"));

	*ret_domain = json_string_value(json_object_get(body, "domain"));
	*ret_hook = json_string_value(json_object_get(body, "hook"));
	*ret_uri = uri != NULL ? uri : LB_DOMAIN_URI_DEFAULT;
	return *ret_domain == NULL && *ret_hook == NULL ? lb_fail(-EINVAL, "the order does not tell what is meant") : 0;
}

static int power(struct lb_target_task *t, const char *event, const char *verb, const char *done)
{
	const char *domain, *hook, *uri;
	int r = read_body(t, &domain, &uri, &hook);

	if (r < 0)
		return r;
	if (hook != NULL)
		return run_hook(t, event, hook);
	lb_target_task_say(t, "%s %s", verb, domain);
	r = tell_domain(t, (const char *const[]){verb, uri, domain, NULL}, DOMAIN_TIMEOUT_S);
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

int lb_target_do_ready(struct lb_target_work *w)
{
	struct lb_target_task *t = w->task;
	const char *domain, *hook, *uri, *words[LB_HRL_DISKS_MAX + 4] = {LB_TARGET_LOOK_DOMAIN};
	const json_t *disks = json_object_get(t->order.body, "disks");
	size_t n = LB_MIN(json_array_size(disks), (size_t)LB_HRL_DISKS_MAX);
	int r = read_body(t, &domain, &uri, &hook);

	if (r == 0 && hook != NULL)
		r = lb_hook_check(t->settings->hook_folder, hook);
	if (r < 0 || hook != NULL)
		return r;
	words[1] = uri;
	words[2] = domain;
	for (size_t i = 0; i < n; i++)
		words[i + 3] = json_string_value(json_array_get(disks, i));
	r = tell_domain(t, words, LOOK_TIMEOUT_S);
	if (r == 0)
		lb_target_task_say(t, "domain %s is there and off at %s", domain, uri);
	return r;
}
