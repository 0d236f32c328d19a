/* SPDX-License-Identifier: Apache-2.0 */
/* The points that a plan has chosen stay until it has ended: a later group's turn may come after days. */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "vault/catalog.h"
#include "vault/points.h"

static void name_of(const struct lb_plan_job *run, char name[LB_POINT_NAME_BYTES])
{
	snprintf(name, LB_POINT_NAME_BYTES, "plan-%s", run->job->id);
}

int lb_plan_pin(struct lb_plan_job *run, const struct lb_uuid *machine, const struct lb_point *point)
{
	struct lb_vault *vault = run->job->site->vault;
	char name[LB_POINT_NAME_BYTES];
	int r;

	name_of(run, name);
	r = lb_point_pin(vault, machine, point, name);
	if (r == -EEXIST) { /* of a look that a kill ended: perhaps of another point */
		r = lb_point_unpin(vault, machine, name);
		r = r < 0 && r != -ENOENT ? r : lb_point_pin(vault, machine, point, name);
	}
	if (run->live || (r != -EROFS && r != -EACCES))
		return r;
	lb_err_clear(); /* a rehearsal needs no right to write */
	return 0;
}

struct release {
	struct lb_plan_job *run;
	struct lb_catalog_item *item;
	char name[LB_POINT_NAME_BYTES];
};

static int unpin(void *arg, size_t group, const json_t *machine)
{
	struct release *e = arg;
	struct lb_vault *vault = e->run->job->site->vault;
	const char *name = json_string_value(json_object_get(machine, "machine"));
	int r;

	(void)group;
	r = lb_catalog_find(vault, name, e->item);
	r = r < 0 ? r : lb_point_unpin(vault, &e->item->machine, e->name);
	if (r < 0 && r != -ENOENT && r != -EROFS && r != -EACCES)
		lb_warning("plan %s: point %s of %s stays named; `lifeboat point unpin %s %s` lets it go: %s",
			   e->run->name, e->name, name, name, e->name, lb_err_text());
	lb_err_clear();
	return 0;
}

void lb_plan_unpin(struct lb_plan_job *run)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	struct release e = {.run = run, .item = item};

	name_of(run, e.name);
	if (item != NULL && lb_plan_fixes_points(run))
		(void)lb_plan_each(run->plan, unpin, &e);
}
