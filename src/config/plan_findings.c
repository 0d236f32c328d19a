/* SPDX-License-Identifier: Apache-2.0 */
/* What a look at all machines of a plan finds, and what of it is in the way: told of all of them at once. */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"

int lb_plan_findings_begin(struct lb_plan_job *run)
{
	return lb_plan_job_set(run, "findings", json_object());
}

static void tell(struct lb_plan_findings *f, const char *text)
{
	size_t used = strlen(f->told);

	if (f->errors++ < LB_PLAN_TOLD_MAX)
		snprintf(f->told + used, sizeof(f->told) - used, "%s%s: %.200s", used > 0 ? "; " : "", f->machine,
			 text);
}

int lb_plan_found(struct lb_plan_findings *f, const char *level, const char *what, const char *fmt, ...)
{
	json_t *all = json_object_get(f->run->job->result, "findings"), *of = json_object_get(all, f->machine);
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	lb_err_clear();
	if (of == NULL) {
		of = json_array();
		if (json_object_set_new(all, f->machine, of) < 0)
			return lb_fail(-ENOMEM, "out of memory for findings");
	}
	if (strcmp(level, "error") == 0)
		tell(f, text);
	return json_array_append_new(of, json_pack("{s:s,s:s,s:s}", "level", level, "what", what, "text", text)) < 0
		       ? lb_fail(-ENOMEM, "out of memory for findings")
		       : 0;
}

int lb_plan_findings_end(const struct lb_plan_findings *f)
{
	if (f->errors == 0)
		return 0;
	return lb_fail(-EINVAL, "nothing was begun: %s%s", f->told, f->errors > LB_PLAN_TOLD_MAX ? "; and more" : "");
}
