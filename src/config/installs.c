/* SPDX-License-Identifier: Apache-2.0 */
#include "config/installs.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "wire/login.h"

struct install {
	char id[LB_UUID_TEXT_BYTES], process[LB_UUID_TEXT_BYTES];
	json_t *order; /* NULL once it was handed out */
	struct lb_install_state now;
};

struct lb_installs {
	pthread_mutex_t lock;
	struct install list[LB_INSTALLS_MAX];
	size_t n;
};

int lb_installs_new(struct lb_installs **ret_installs)
{
	struct lb_installs *installs = calloc(1, sizeof(*installs));

	if (installs == NULL)
		return lb_fail(-ENOMEM, "out of memory for push installs");
	pthread_mutex_init(&installs->lock, NULL);
	*ret_installs = installs;
	return 0;
}

static void clear(struct install *one)
{
	lb_install_order_wipe(one->order);
	json_decref(one->order);
	json_decref(one->now.fitness);
	memset(one, 0, sizeof(*one));
}

void lb_installs_free(struct lb_installs *installs)
{
	while (installs->n > 0)
		clear(&installs->list[--installs->n]);
	pthread_mutex_destroy(&installs->lock);
	free(installs);
}

static struct install *find(struct lb_installs *installs, const char *id)
{
	for (size_t i = 0; i < installs->n; i++)
		if (strcmp(installs->list[i].id, id) == 0)
			return &installs->list[i];
	return NULL;
}

static int add(struct lb_installs *installs, const char *id, const char *process, const char *state, json_t *order)
{
	struct install *one;
	LB_LOCK_SCOPE(&installs->lock);

	if (installs->n == LB_INSTALLS_MAX)
		return lb_fail(-EBUSY, "%d push installs are under way; wait until some have ended", LB_INSTALLS_MAX);
	one = &installs->list[installs->n++];
	snprintf(one->id, sizeof(one->id), "%s", id);
	snprintf(one->process, sizeof(one->process), "%s", process);
	snprintf(one->now.state, sizeof(one->now.state), "%s", state);
	one->order = json_incref(order);
	return 0;
}

int lb_installs_expect(struct lb_installs *installs, const char *id, const char *process)
{
	return add(installs, id, process, "asked", NULL);
}

static bool is_under_way(const struct install *one, const char *process)
{
	return strcmp(one->process, process) == 0 &&
	       (strcmp(one->now.state, "running") == 0 || strcmp(one->now.state, "asked") == 0);
}

int lb_installs_asked(struct lb_installs *installs, const char *process, json_t **ret_ids)
{
	json_t *ids = json_array();

	if (ids == NULL)
		return lb_fail(-ENOMEM, "out of memory for push installs");
	LB_LOCK_SCOPE(&installs->lock);
	for (size_t i = 0; i < installs->n; i++)
		if (is_under_way(&installs->list[i], process))
			json_array_append_new(ids, json_string(installs->list[i].id));
	*ret_ids = ids;
	return 0;
}

int lb_installs_add(struct lb_installs *installs, const char *id, const char *process, json_t *order)
{
	_cleanup_json_ json_t *copy = json_deep_copy(order);
	int r;

	lb_install_order_wipe(order);
	if (copy == NULL)
		return lb_fail(-ENOMEM, "out of memory for a push install");
	r = add(installs, id, process, "waiting", copy);
	if (r < 0)
		lb_install_order_wipe(copy);
	return r;
}

int lb_installs_take(struct lb_installs *installs, const char *process, json_t **ret_orders)
{
	json_t *orders = json_array();
	size_t running = 0;

	if (orders == NULL)
		return lb_fail(-ENOMEM, "out of memory for push installs");
	LB_LOCK_SCOPE(&installs->lock);
	for (size_t i = 0; i < installs->n; i++)
		running += is_under_way(&installs->list[i], process);
	for (size_t i = 0; i < installs->n && running < LB_INSTALLS_AT_ONCE; i++) {
		struct install *one = &installs->list[i];

		if (one->order == NULL || strcmp(one->process, process) != 0)
			continue;
		json_array_append_new(orders, lb_steal_ptr(one->order));
		snprintf(one->now.state, sizeof(one->now.state), "running");
		running++;
	}
	*ret_orders = orders;
	return 0;
}

static void copy_member(const json_t *report, const char *member, char *text, size_t room)
{
	const char *value = json_string_value(json_object_get(report, member));

	if (value != NULL)
		snprintf(text, room, "%s", value);
}

int lb_installs_note(struct lb_installs *installs, const char *id, const char *process, const json_t *report)
{
	json_t *fitness = json_object_get(report, "fitness");
	struct install *one;
	LB_LOCK_SCOPE(&installs->lock);

	one = find(installs, id);
	if (one == NULL || strcmp(one->process, process) != 0)
		return lb_fail(-ENOENT, "no push install \"%.40s\" is this process server's", id);
	copy_member(report, "state", one->now.state, sizeof(one->now.state));
	copy_member(report, "step", one->now.step, sizeof(one->now.step));
	copy_member(report, "text", one->now.text, sizeof(one->now.text));
	if (json_is_object(fitness)) {
		json_decref(one->now.fitness);
		one->now.fitness = json_deep_copy(fitness);
	}
	return 0;
}

int lb_installs_get(struct lb_installs *installs, const char *id, struct lb_install_state *ret_state)
{
	struct install *one;
	LB_LOCK_SCOPE(&installs->lock);

	one = find(installs, id);
	if (one == NULL)
		return lb_fail(-ENOENT, "the login that was given was in memory only and is gone: order it again");
	*ret_state = one->now;
	ret_state->fitness = json_deep_copy(one->now.fitness);
	return 0;
}

void lb_installs_remove(struct lb_installs *installs, const char *id)
{
	struct install *one;
	LB_LOCK_SCOPE(&installs->lock);

	one = find(installs, id);
	if (one == NULL)
		return;
	clear(one);
	*one = installs->list[--installs->n];
}
