/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON of operators and of a group's machines: the first byte says what it is taken for. Recovery plans, drills,
 * failovers, checks, hours of bandwidth as text, and what agents say to one another on port 20004. What is taken and
 * printed is taken again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/drills.h"
#include "fabric/check.h"
#include "fabric/failover.h"
#include "fabric/plan.h"
#include "mobility/group_wire.h"
#include "wire/bandwidth.h"

#define BYTES_MAX (64u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static int order_machine(void *arg, size_t group, const json_t *machine)
{
	_cleanup_json_ json_t *live = NULL, *test = NULL, *reprotect = NULL, *failback = NULL;
	char name[LB_PLAN_GROUP_NAME_BYTES];

	(void)lb_plan_group_name(arg, group, name);
	if (memchr(name, 0, sizeof(name)) == NULL)
		abort();
	(void)lb_plan_order(machine, true, "newest", &live);
	(void)lb_plan_order(machine, false, "newest", &test);
	if (lb_plan_reprotect_order(machine, &reprotect) < 0 || lb_plan_failback_order(machine, &failback) < 0)
		abort();
	return 0;
}

static void try_plan(const json_t *body)
{
	_cleanup_json_ json_t *plan = NULL, *again = NULL;

	if (lb_plan_read(body, &plan) < 0)
		return;
	if (lb_plan_each(plan, order_machine, plan) < 0 || lb_plan_read(plan, &again) < 0 || !json_equal(plan, again))
		abort();
}

static void try_drill(const json_t *body)
{
	_cleanup_json_ json_t *request = NULL;
	char name[LB_VM_NAME_BYTES];

	if (lb_drill_request(body, &request, name) == 0 && memchr(name, 0, sizeof(name)) == NULL)
		abort();
}

static void try_failover(const json_t *body)
{
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX];
	struct lb_failover_request request = {0};

	if (lb_failover_request_parse(body, &request, forwards) == 0 && request.n_forwards > LB_VM_FORWARDS_MAX)
		abort();
}

static void try_check(const json_t *body)
{
	_cleanup_json_ json_t *check = NULL, *again = NULL;

	if (lb_check_read(body, &check) == 0 && json_is_object(check) && lb_check_read(check, &again) < 0)
		abort();
}

static void try_group_message(const json_t *object)
{
	struct lb_group_message message, second;
	_cleanup_json_ json_t *again = NULL;

	if (lb_group_message_parse(object, &message) < 0)
		return;
	if (lb_group_message_print(&message, &again) < 0 || lb_group_message_parse(again, &second) < 0 ||
	    message.phase != second.phase || message.term != second.term || message.version != second.version)
		abort();
}

static void try_group_reply(const json_t *object)
{
	struct lb_group_reply reply, second;
	_cleanup_json_ json_t *again = NULL;

	if (lb_group_reply_parse(object, &reply) < 0)
		return;
	if (lb_group_reply_print(&reply, &again) < 0 || lb_group_reply_parse(again, &second) < 0 ||
	    reply.result != second.result || reply.seq != second.seq)
		abort();
}

static void try_roster(const json_t *object)
{
	struct lb_group_roster roster;

	if (lb_group_roster_parse(object, &roster) < 0)
		return;
	for (unsigned int i = 0; i < roster.n; i++)
		if (memchr(roster.members[i].host, 0, sizeof(roster.members[i].host)) == NULL)
			abort();
}

static void try_hours(const char *text)
{
	_cleanup_json_ json_t *list = NULL, *again = NULL;
	struct lb_bandwidth hours = {0}, second = {0};
	char line[LB_BANDWIDTH_TEXT_BYTES];

	if (lb_bandwidth_text_parse(text, &list) < 0)
		return;
	if (lb_bandwidth_windows_parse(list, &hours) < 0 || lb_bandwidth_windows_print(&hours, &again) < 0 ||
	    lb_bandwidth_windows_parse(again, &second) < 0 || hours.n_windows != second.n_windows)
		abort();
	for (uint32_t i = 0; i < hours.n_windows; i++)
		(void)lb_bandwidth_text(&hours.windows[i], line);
	(void)lb_bandwidth_at(&hours, 1, 1700000000 * LB_NS_PER_S);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	static void (*const takers[])(const json_t *) = {try_plan,          try_drill,       try_failover, try_check,
							 try_group_message, try_group_reply, try_roster};
	_cleanup_json_ json_t *object = NULL;

	if (size_bytes < 2 || size_bytes > BYTES_MAX)
		return 0;
	if (data[0] % 8 == 7) {
		_cleanup_free_ char *text = strndup((const char *)data + 1, size_bytes - 1);

		if (text != NULL)
			try_hours(text);
	} else if (lb_json_parse(data + 1, size_bytes - 1, BYTES_MAX, &object) == 0) {
		takers[data[0] % 8](object);
	}
	lb_err_clear();
	return 0;
}
