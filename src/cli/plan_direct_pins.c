/* SPDX-License-Identifier: Apache-2.0 */
/* The points that a plan without a server has chosen stay until its doubles keep them by pins of their own. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "cli/plan_direct.h"
#include "vault/catalog.h"
#include "vault/points.h"

static int pin(struct cli *c, const char *machine, const char *position, const char *name)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	struct lb_point point;
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_catalog_find(c->vault, machine, item);
	r = r < 0 ? r : lb_point_find(c->vault, &item->machine, position, &point);
	r = r < 0 ? r : lb_point_pin(c->vault, &item->machine, &point, name);
	return r < 0 ? lb_wrap(r, "machine %s", machine) : 0;
}

int cli_plan_pin(struct cli *c, struct cli_plan_record *record, bool live)
{
	const char *machine, *name = cli_text(record->body, "pin");
	json_t *position;
	int r = 0;

	if (name[0] == '\0' || json_is_true(json_object_get(record->body, "pinned")))
		return 0;
	json_object_foreach(json_object_get(record->body, "points"), machine, position)
	{
		r = pin(c, machine, json_string_value(position), name);
		if (r < 0)
			break;
	}
	if (!live && (r == -EROFS || r == -EACCES)) {
		lb_err_clear(); /* a rehearsal needs no right to write */
		r = 0;
	}
	return r < 0 ? r : cli_plan_record_pinned(record);
}

void cli_plan_unpin(struct cli *c, const struct cli_plan_record *record)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	const char *machine, *name = cli_text(record->body, "pin");
	json_t *position;
	int r;

	if (name[0] == '\0' || item == NULL)
		return;
	json_object_foreach(json_object_get(record->body, "points"), machine, position)
	{
		r = lb_catalog_find(c->vault, machine, item);
		r = r < 0 ? r : lb_point_unpin(c->vault, &item->machine, name);
		if (r < 0 && r != -ENOENT && r != -EROFS && r != -EACCES)
			fprintf(stderr,
				"lifeboat: point %s of %s stays named; `lifeboat point unpin %s %s` lets it go: %s\n",
				name, machine, machine, name, lb_err_text());
		lb_err_clear();
	}
}
