/* SPDX-License-Identifier: Apache-2.0 */
#include "target/service.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"

int lb_target_service_init(struct lb_env *env, const struct lb_target_settings *settings,
			   struct lb_target_service *ret_service)
{
	*ret_service = (struct lb_target_service){.env = env, .settings = settings, .waiting = json_array()};
	return ret_service->waiting != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
}

static struct lb_target_task *find(struct lb_target_service *s, const char *id)
{
	for (unsigned int i = 0; i < s->n_tasks; i++)
		if (strcmp(s->tasks[i]->order.id, id) == 0)
			return s->tasks[i];
	return NULL;
}

static bool is_listed(const json_t *orders, const char *id)
{
	const json_t *one;
	size_t i;

	json_array_foreach((json_t *)orders, i, one)
	{
		const char *listed = json_string_value(json_object_get(one, "id"));

		if (listed != NULL && strcmp(listed, id) == 0)
			return true;
	}
	return false;
}

/* Those that are done with, or no longer wanted. A task that still ends is looked at again in the next round. */
static void sweep(struct lb_target_service *s, const json_t *orders)
{
	for (unsigned int i = s->n_tasks; i-- > 0;) {
		struct lb_target_task *t = s->tasks[i];

		if (is_listed(orders, t->order.id))
			continue;
		lb_target_task_stop(t);
		if (!lb_target_task_ended(t))
			continue;
		lb_target_task_free(t);
		s->tasks[i] = s->tasks[--s->n_tasks];
	}
}

static bool may_begin(struct lb_target_service *s, const struct lb_target_order *order)
{
	unsigned int working = 0;

	for (unsigned int i = 0; i < s->n_tasks; i++) {
		if (strcmp(s->tasks[i]->order.machine_text, order->machine_text) == 0)
			return false; /* the one before it ends just now */
		working += !lb_target_task_ended(s->tasks[i]);
	}
	return working < s->settings->machines_max && s->n_tasks < LB_TARGET_TASKS_MAX;
}

static int wait_its_turn(struct lb_target_service *s, const struct lb_target_order *order)
{
	char text[120];

	snprintf(text, sizeof(text), "waits for its turn: this target server works on %llu machines at once",
		 (unsigned long long)s->settings->machines_max);
	return json_array_append_new(s->waiting,
				     json_pack("{s:s,s:s,s:s}", "id", order->id, "state", "running", "text", text)) < 0
		       ? lb_fail(-ENOMEM, "out of memory for an order")
		       : 0;
}

static int take_one(struct lb_target_service *s, json_t *one, const char *vault_url, const struct lb_uuid *vault_id)
{
	_cleanup_(lb_target_order_clear) struct lb_target_order order = {0};
	int r;

	r = lb_target_order_parse(one, &order);
	if (r < 0)
		return r;
	if (find(s, order.id) != NULL) {
		lb_target_task_keys(find(s, order.id), &order.keys);
		return 0;
	}
	if (!may_begin(s, &order))
		return wait_its_turn(s, &order);
	lb_info("machine %s: order %s: %s", order.machine_name, order.id, order.kind);
	r = lb_target_task_start(s->env, s->settings, vault_url, vault_id, &order, &s->tasks[s->n_tasks]);
	s->n_tasks += r == 0;
	return r;
}

static void wipe_keys(json_t *orders)
{
	static const char *const secrets[] = {"key", NULL};
	json_t *one;
	size_t i;

	json_array_foreach(orders, i, one) lb_json_wipe(one, secrets);
}

static int take_all(struct lb_target_service *s, json_t *config, json_t *orders)
{
	const char *vault_url;
	struct lb_uuid vault_id;
	int r, first = 0;
	json_t *one;
	size_t i;

	r = lb_json_get_uuid(config, "vault_id", &vault_id);
	r = r < 0 ? r : lb_json_get_str(config, "vault_url", &vault_url);
	if (r == 0 && !json_is_array(orders))
		r = lb_fail(-EBADMSG, "an answer without orders");
	if (r < 0)
		return r;
	if (s->settings->vault != NULL)
		vault_url = s->settings->vault;
	sweep(s, orders);
	json_array_clear(s->waiting);
	s->error[0] = '\0';
	/* one that can't be begun holds up no other */
	json_array_foreach(orders, i, one)
	{
		r = take_one(s, one, vault_url, &vault_id);
		if (r < 0 && first == 0) {
			first = r;
			snprintf(s->error, sizeof(s->error), "%s", lb_err_text());
		}
	}
	return first < 0 ? lb_fail(first, "%s", s->error) : 0;
}

int lb_target_service_take(struct lb_target_service *s, json_t *config)
{
	json_t *orders = json_object_get(config, "orders");
	int r = take_all(s, config, orders);

	wipe_keys(orders);
	return r;
}

int lb_target_service_report(struct lb_target_service *s, json_t **ret_report)
{
	_cleanup_json_ json_t *orders = json_deep_copy(s->waiting);
	unsigned int working = 0;
	json_t *report;

	if (orders == NULL)
		return lb_fail(-ENOMEM, "out of memory for a report");
	for (unsigned int i = 0; i < s->n_tasks; i++) {
		json_t *one;
		int r = lb_target_task_report(s->tasks[i], &one);

		if (r < 0)
			return r;
		working += !lb_target_task_ended(s->tasks[i]);
		if (json_array_append_new(orders, one) < 0)
			return lb_fail(-ENOMEM, "out of memory for a report");
	}
	report = json_pack("{s:s,s:i,s:I,s:s*,s:O}", "version", LB_VERSION, "working", (int)working, "machines_max",
			   (json_int_t)s->settings->machines_max, "error", s->error[0] != '\0' ? s->error : NULL,
			   "orders", orders);
	if (report == NULL)
		return lb_fail(-ENOMEM, "out of memory for a report");
	*ret_report = report;
	return 0;
}

bool lb_target_service_has_booted(struct lb_target_service *s)
{
	bool booted = false;

	for (unsigned int i = 0; i < s->n_tasks && !booted; i++) {
		_cleanup_json_ json_t *report = NULL;
		const char *state;

		if (strcmp(s->tasks[i]->order.kind, "boot") != 0 || !lb_target_task_ended(s->tasks[i]) ||
		    lb_target_task_report(s->tasks[i], &report) < 0)
			continue;
		state = json_string_value(json_object_get(report, "state"));
		booted = state != NULL && strcmp(state, "done") == 0;
	}
	return booted;
}

void lb_target_service_stop(struct lb_target_service *s)
{
	for (unsigned int i = 0; i < s->n_tasks; i++)
		lb_target_task_stop(s->tasks[i]);
	for (unsigned int i = 0; i < s->n_tasks; i++)
		lb_target_task_join(s->tasks[i]);
}

static void stop_all(struct lb_target_service *s)
{
	lb_target_service_stop(s);
	while (s->n_tasks > 0)
		lb_target_task_free(s->tasks[--s->n_tasks]);
}

void lb_target_service_revoke(struct lb_target_service *s, const char *why)
{
	if (s->n_tasks > 0)
		lb_warning("%s: all work is stopped, and all keys are forgotten", why);
	stop_all(s);
	json_array_clear(s->waiting);
}

void lb_target_service_end(struct lb_target_service *s)
{
	stop_all(s);
	json_decref(s->waiting);
	s->waiting = NULL;
}
