/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways back in the registry's copy in the vault. A server that is rebuilt from it has neither the temporary process
 * server nor the authority that its doubles know: a way back begins anew with the next order, under the id and with the
 * journal that it had; one whose machine was on its way home is where it was.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/reprotect.h"

static int add(lb_db_rows *rows, json_t *list)
{
	_cleanup_json_ json_t *request = lb_db_json(rows, 6);
	json_t *one = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:O?,s:I}", "double", lb_db_text(rows, 0), "machine",
				lb_db_text(rows, 1), "name", lb_db_text(rows, 2), "back_name", lb_db_text(rows, 3),
				"back", lb_db_text(rows, 4), "state", lb_db_text(rows, 5), "request", request,
				"made_ns", (json_int_t)lb_db_int(rows, 7));

	return json_array_append_new(list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for the registry's copy") : 0;
}

int lb_reprotect_copy(struct lb_db *db, json_t *list)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(
		db, &rows,
		"SELECT double, machine, name, back_name, back, state, request, made_ns FROM reprotect ORDER BY "
		"double",
		"");
	while (r == 0 && (r = lb_db_next(db, rows)) == 1)
		r = add(rows, list);
	return r;
}

static int take_text(const json_t *one, const char *member, char *to, size_t room)
{
	const char *text;
	int r = lb_json_get_str(one, member, &text);

	if (r == 0 && strlen(text) >= room)
		r = lb_fail(-EBADMSG, "\"%s\" of a way back is too long", member);
	if (r == 0)
		snprintf(to, room, "%s", text);
	return r;
}

static int take(const json_t *one, struct lb_reprotect *p)
{
	int r;

	r = take_text(one, "double", p->double_name, sizeof(p->double_name));
	r = r < 0 ? r : take_text(one, "machine", p->machine, sizeof(p->machine));
	r = r < 0 ? r : take_text(one, "name", p->name, sizeof(p->name));
	r = r < 0 ? r : take_text(one, "back_name", p->back_name, sizeof(p->back_name));
	r = r < 0 ? r : take_text(one, "back", p->back, sizeof(p->back));
	r = r < 0 ? r : take_text(one, "state", p->state, sizeof(p->state));
	r = r < 0 ? r : lb_json_get_i64(one, "made_ns", &p->made_ns);
	if (r == 0 && !lb_reprotect_goes_home(p) && strcmp(p->state, LB_REPROTECT_ENDING) != 0)
		snprintf(p->state, sizeof(p->state), LB_REPROTECT_STARTING);
	p->request = json_is_object(json_object_get(one, "request")) ? json_incref(json_object_get(one, "request"))
								     : json_object();
	return r;
}

int lb_reprotect_restore(struct lb_db *db, const json_t *list)
{
	const json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach(list, i, one)
	{
		_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};

		r = r < 0 ? r : take(one, &p);
		r = r < 0 ? r : lb_reprotect_put(db, &p);
	}
	return r;
}
