/* SPDX-License-Identifier: Apache-2.0 */
#include "target/console.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/log.h"

/* Of an order that was not told of, one of an order that is there no more. */
static struct lb_target_console_line *line_of(struct lb_target_console *c, struct lb_target_service *s, const char *id)
{
	struct lb_target_console_line *unused = NULL;

	for (size_t i = 0; i < LB_ARRAY_LEN(c->lines); i++) {
		bool known = false;

		if (strcmp(c->lines[i].order, id) == 0)
			return &c->lines[i];
		for (unsigned int k = 0; k < s->n_tasks; k++)
			known = known || strcmp(s->tasks[k]->order.id, c->lines[i].order) == 0;
		if (!known)
			unused = &c->lines[i];
	}
	if (unused != NULL) {
		*unused = (struct lb_target_console_line){0};
		memcpy(unused->order, id, LB_UUID_TEXT_BYTES);
	}
	return unused;
}

static void tell_one(struct lb_target_console_line *line, const struct lb_target_task *t, const json_t *report)
{
	uint64_t done_bytes = (uint64_t)json_integer_value(json_object_get(report, "done_bytes")),
		 total_bytes = (uint64_t)json_integer_value(json_object_get(report, "total_bytes"));
	const char *text = json_string_value(json_object_get(report, "text"));
	bool working = total_bytes > 0 && done_bytes < total_bytes;
	unsigned int percent = working ? (unsigned int)((double)done_bytes * 100 / (double)total_bytes) : 0;
	int64_t now_ns = lb_mono_ns(t->env);
	char say[sizeof(line->said)], size[LB_SIZE_TEXT_BYTES], far[64] = "";

	snprintf(say, sizeof(say), "%s", text != NULL ? text : "");
	if (strcmp(say, line->said) == 0 &&
	    (!working || percent == line->percent || now_ns - line->said_ns < LB_TARGET_CONSOLE_S * LB_NS_PER_S))
		return;
	memcpy(line->said, say, sizeof(say));
	line->percent = percent;
	line->said_ns = now_ns;
	if (working)
		snprintf(far, sizeof(far), ", %u %% of %s", percent, lb_size_format(total_bytes, size));
	lb_notice("machine %s: %s: %s%s", t->order.machine_name, t->order.kind, say, far);
}

void lb_target_console_tell(struct lb_target_console *c, struct lb_target_service *s)
{
	for (unsigned int i = 0; i < s->n_tasks; i++) {
		struct lb_target_console_line *line = line_of(c, s, s->tasks[i]->order.id);
		_cleanup_json_ json_t *report = NULL;

		if (line != NULL && lb_target_task_report(s->tasks[i], &report) == 0)
			tell_one(line, s->tasks[i], report);
	}
}
