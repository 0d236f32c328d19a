/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/group_wire.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"

int lb_group_message_print(const struct lb_group_message *m, json_t **ret_object)
{
	_cleanup_json_ json_t *o = json_object();
	int r;

	r = o == NULL ? -ENOMEM : lb_json_set_str(o, "phase", lb_group_phase_name(m->phase));
	if (r == 0)
		r = lb_json_set_uuid(o, "group", &m->group);
	if (r == 0)
		r = lb_json_set_uuid(o, "from", &m->from);
	if (r == 0)
		r = lb_json_set_uuid(o, "coordinator", &m->coordinator);
	if (r == 0)
		r = lb_json_set_u64(o, "version", m->version);
	if (r == 0)
		r = lb_json_set_u64(o, "term", m->term);
	if (r == 0)
		r = lb_json_set_uuid(o, "point", &m->point);
	if (r == 0)
		r = lb_json_set_bool(o, "app", m->app);
	if (r < 0)
		return lb_fail(r, "out of memory for a message to the group");
	*ret_object = lb_steal_ptr(o);
	return 0;
}

int lb_group_message_parse(const json_t *o, struct lb_group_message *ret_message)
{
	struct lb_group_message m = {.phase = LB_GROUP_PHASES};
	const char *phase;
	int r;

	r = lb_json_get_str(o, "phase", &phase);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < LB_GROUP_PHASES; i++)
		if (strcmp(phase, lb_group_phase_name((enum lb_group_phase)i)) == 0)
			m.phase = (enum lb_group_phase)i;
	if (m.phase == LB_GROUP_PHASES)
		return lb_fail(-EBADMSG, "a group knows no phase \"%.20s\"", phase);
	if ((r = lb_json_get_uuid(o, "group", &m.group)) < 0 || (r = lb_json_get_uuid(o, "from", &m.from)) < 0 ||
	    (r = lb_json_get_uuid(o, "coordinator", &m.coordinator)) < 0 ||
	    (r = lb_json_get_u64(o, "version", &m.version)) < 0 || (r = lb_json_get_u64(o, "term", &m.term)) < 0 ||
	    (r = lb_json_get_uuid(o, "point", &m.point)) < 0 || (r = lb_json_get_bool(o, "app", &m.app)) < 0)
		return r;
	*ret_message = m;
	return 0;
}

int lb_group_reply_print(const struct lb_group_reply *a, json_t **ret_object)
{
	_cleanup_json_ json_t *o = json_object();
	int r;

	r = o == NULL ? -ENOMEM : lb_json_set_i64(o, "result", a->result);
	if (r == 0)
		r = lb_json_set_str(o, "text", a->text);
	if (r == 0)
		r = lb_json_set_u64(o, "version", a->version);
	if (r == 0)
		r = lb_json_set_u64(o, "term", a->term);
	if (r == 0)
		r = lb_json_set_uuid(o, "coordinator", &a->coordinator);
	if (r == 0)
		r = lb_json_set_i64(o, "frozen_ns", a->frozen_ns);
	if (r == 0)
		r = lb_json_set_u64(o, "epoch", a->epoch);
	if (r == 0)
		r = lb_json_set_u64(o, "seq", a->seq);
	if (r < 0)
		return lb_fail(r, "out of memory for an answer to the group");
	*ret_object = lb_steal_ptr(o);
	return 0;
}

int lb_group_reply_parse(const json_t *o, struct lb_group_reply *ret_reply)
{
	struct lb_group_reply a = {0};
	const char *text;
	int64_t result;
	int r;

	if ((r = lb_json_get_i64(o, "result", &result)) < 0 || (r = lb_json_get_str(o, "text", &text)) < 0 ||
	    (r = lb_json_get_u64(o, "version", &a.version)) < 0 || (r = lb_json_get_u64(o, "term", &a.term)) < 0 ||
	    (r = lb_json_get_uuid(o, "coordinator", &a.coordinator)) < 0 ||
	    (r = lb_json_get_i64(o, "frozen_ns", &a.frozen_ns)) < 0 ||
	    (r = lb_json_get_u64(o, "epoch", &a.epoch)) < 0 || (r = lb_json_get_u64(o, "seq", &a.seq)) < 0)
		return r;
	if (result > 0 || result < -4095)
		return lb_fail(-EBADMSG, "\"result\" is no error number");
	a.result = (int)result;
	snprintf(a.text, sizeof(a.text), "%s", text);
	*ret_reply = a;
	return 0;
}

/* ---- the roster ----------------------------------------------------------------------------------------------------
 */

static int copy(const json_t *o, const char *member, char *to, size_t bytes)
{
	const char *text;
	int r = lb_json_get_str(o, member, &text);

	if (r < 0)
		return r;
	if (strlen(text) >= bytes)
		return lb_fail(-EBADMSG, "\"%s\" of a group is too long", member);
	snprintf(to, bytes, "%s", text);
	return 0;
}

static int parse_member(const json_t *o, struct lb_group_member *member)
{
	uint64_t port;
	int r;

	if ((r = lb_json_get_uuid(o, "id", &member->id)) < 0 ||
	    (r = copy(o, "name", member->name, sizeof(member->name))) < 0 ||
	    (r = copy(o, "host", member->host, sizeof(member->host))) < 0 ||
	    (r = lb_json_get_u64(o, "port", &port)) < 0)
		return r;
	if (port > UINT16_MAX)
		return lb_fail(-EBADMSG, "\"port\" of a group's member is no port");
	member->port = (uint16_t)port;
	return 0;
}

static int parse_order(const json_t *order, struct lb_group_roster *roster)
{
	int r;

	if (!json_is_object(order))
		return 0;
	r = lb_json_get_u64(order, "generation", &roster->order_generation);
	return r < 0 ? r : lb_json_get_bool(order, "app", &roster->order_app);
}

int lb_group_roster_parse(const json_t *o, struct lb_group_roster *ret_roster)
{
	const json_t *list = json_object_get(o, "members");
	uint64_t interval_s, app_interval_s;
	int r;

	memset(ret_roster, 0, sizeof(*ret_roster));
	if (!json_is_object(o))
		return 0;
	if ((r = lb_json_get_uuid(o, "id", &ret_roster->id)) < 0 ||
	    (r = copy(o, "name", ret_roster->name, sizeof(ret_roster->name))) < 0 ||
	    (r = lb_json_get_u64(o, "version", &ret_roster->version)) < 0 ||
	    (r = lb_json_get_u64(o, "interval_s", &interval_s)) < 0 ||
	    (r = lb_json_get_u64(o, "app_interval_s", &app_interval_s)) < 0)
		return r;
	ret_roster->interval_s = (uint32_t)interval_s;
	ret_roster->app_interval_s = (uint32_t)app_interval_s;
	if (!json_is_array(list) || json_array_size(list) > LB_GROUP_MEMBERS_MAX)
		return lb_fail(-EBADMSG, "\"members\" of a group is not a list of at most %d", LB_GROUP_MEMBERS_MAX);
	for (size_t i = 0; i < json_array_size(list) && r == 0; i++)
		r = parse_member(json_array_get(list, i), &ret_roster->members[i]);
	ret_roster->n = (unsigned int)json_array_size(list);
	return r < 0 ? r : parse_order(json_object_get(o, "order"), ret_roster);
}

int lb_group_outcome_print(const struct lb_group_outcome *o, uint64_t generation, json_t **ret_object)
{
	char group[LB_UUID_TEXT_BYTES], point[LB_UUID_TEXT_BYTES], id[LB_UUID_TEXT_BYTES];
	json_t *members = json_array();

	lb_uuid_format(&o->roster.id, group);
	lb_uuid_format(&o->point, point);
	for (unsigned int i = 0; i < o->roster.n; i++) {
		lb_uuid_format(&o->roster.members[i].id, id);
		if (json_array_append_new(members, json_pack("{s:s,s:I,s:I,s:I}", "machine", id, "epoch",
							     (json_int_t)o->members[i].epoch, "seq",
							     (json_int_t)o->members[i].seq, "frozen_ns",
							     (json_int_t)o->members[i].frozen_ns)) < 0)
			break;
	}
	*ret_object = json_pack("{s:s,s:I,s:s,s:b,s:b,s:s,s:I,s:I,s:o}", "group", group, "version",
				(json_int_t)o->roster.version, "point", point, "app", o->app, "ok", o->result == 0,
				"text", o->text, "generation", (json_int_t)generation, "frozen_ns",
				(json_int_t)o->frozen_ns, "members", members);
	return *ret_object != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a shared point");
}
