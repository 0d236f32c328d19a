/* SPDX-License-Identifier: Apache-2.0 */
/* The original runs again: a libvirt domain of this host, or whatever the administrator's script switches on. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "fabric/domain.h"
#include "fabric/hook.h"
#include "target/task.h"

static int keep_on(void *arg)
{
	return lb_target_task_check(arg);
}

static int run_hook(struct lb_target_task *t, const char *name)
{
	char machine[128], id[64], line[LB_PROC_LAST_LINE_BYTES];
	const char *const values[] = {machine, id, "LIFEBOAT_EVENT=boot", NULL};
	const struct lb_hook hook = {
		.folder = t->settings->hook_folder, .name = name, .values = values, .idle = keep_on, .arg = t};
	int r;

	snprintf(machine, sizeof(machine), "LIFEBOAT_MACHINE=%s", t->order.machine_name);
	snprintf(id, sizeof(id), "LIFEBOAT_MACHINE_ID=%s", t->order.machine_text);
	lb_target_task_say(t, "runs %s", name);
	r = lb_hook_run(t->env, &hook, line);
	if (r < 0)
		return lb_wrap(r, "%s", name);
	lb_target_task_say(t, line[0] != '\0' ? "%s: %s" : "%s has run%s", name, line);
	return 0;
}

int lb_target_do_boot(struct lb_target_work *w)
{
	const json_t *body = w->task->order.body;
	const char *domain = json_string_value(json_object_get(body, "domain")),
		   *hook = json_string_value(json_object_get(body, "hook")),
		   *uri = json_string_value(json_object_get(body, "uri"));
	int r;

	if (hook != NULL)
		return run_hook(w->task, hook);
	if (domain == NULL)
		return lb_fail(-EINVAL, "the order does not tell what is to be started");
	if (uri == NULL)
		uri = LB_DOMAIN_URI_DEFAULT;
	lb_target_task_say(w->task, "starts domain %s", domain);
	r = lb_domain_start(uri, domain);
	if (r == 0)
		lb_target_task_say(w->task, "domain %s runs at %s", domain, uri);
	return r;
}
