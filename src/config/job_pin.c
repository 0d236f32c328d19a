/* SPDX-License-Identifier: Apache-2.0 */
/* The latest point under a name: of all that was received, which is brought into the vault first. */
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/json.h"
#include "config/flush.h"
#include "config/point_orders.h"

#define POSITION_BYTES 48

/* Begun again, it keeps the point that it had chosen before. */
static int choose(struct lb_job *job, const struct lb_uuid *machine, struct lb_point *ret_point)
{
	const json_t *epoch = json_object_get(job->result, "epoch"), *seq = json_object_get(job->result, "seq");
	char text[POSITION_BYTES] = "latest";
	int r = 0;

	if (epoch != NULL && seq != NULL)
		snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT ":%" JSON_INTEGER_FORMAT,
			 json_integer_value(epoch), json_integer_value(seq));
	else
		r = lb_flush(job, job->target, LB_FLUSH_S);
	r = r < 0 ? r : lb_job_step(job, "keep the point");
	return r < 0 ? r : lb_point_find(job->site->vault, machine, text, ret_point);
}

int lb_pin_job_run(struct lb_job *job)
{
	_cleanup_json_ json_t *told = NULL;
	struct lb_point point;
	struct lb_uuid machine;
	const char *name;
	int r;

	r = lb_json_get_str(job->request, "name", &name);
	r = r < 0 ? r : lb_uuid_parse(job->target, &machine);
	r = r < 0 ? r : choose(job, &machine, &point);
	if (r < 0)
		return r;
	snprintf(point.name, sizeof(point.name), "%s", name);
	told = lb_point_json(job->site, &machine, &point);
	if (told == NULL || json_object_update(job->result, told) < 0)
		return lb_fail(-ENOMEM, "out of memory for a point");
	r = lb_job_keep(job);
	return r < 0 ? r : lb_point_pin(job->site->vault, &machine, &point, name);
}
