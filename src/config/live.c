/* SPDX-License-Identifier: Apache-2.0 */
#include "config/live.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/registry.h"

struct entry {
	char id[LB_UUID_TEXT_BYTES];
	struct lb_live_machine m;
	char host[LB_LIVE_HOST_BYTES];
	uint16_t port;
};

struct process_entry {
	char id[LB_UUID_TEXT_BYTES];
	json_t *report;
	int64_t ns;
};

#define PROCESSES_MAX 256

struct lb_live {
	pthread_mutex_t lock;
	pthread_cond_t agent_came;
	struct entry *machines; /* grows up to LB_REG_MACHINES_MAX */
	size_t n_machines, room_machines;
	struct process_entry processes[PROCESSES_MAX];
	size_t n_processes;
};

int lb_live_new(struct lb_live **ret_live)
{
	struct lb_live *live = calloc(1, sizeof(*live));
	pthread_condattr_t attr;

	if (live == NULL)
		return lb_fail(-ENOMEM, "out of memory for live figures");
	pthread_mutex_init(&live->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&live->agent_came, &attr);
	pthread_condattr_destroy(&attr);
	*ret_live = live;
	return 0;
}

void lb_live_machine_clear(struct lb_live_machine *m)
{
	json_decref(m->agent);
	json_decref(m->process);
	m->agent = m->process = NULL;
}

void lb_live_free(struct lb_live *live)
{
	for (size_t i = 0; i < live->n_machines; i++)
		lb_live_machine_clear(&live->machines[i].m);
	for (size_t i = 0; i < live->n_processes; i++)
		json_decref(live->processes[i].report);
	free(live->machines);
	pthread_cond_destroy(&live->agent_came);
	pthread_mutex_destroy(&live->lock);
	free(live);
}

static struct entry *find(struct lb_live *live, const char *id)
{
	for (size_t i = 0; i < live->n_machines; i++)
		if (strcmp(live->machines[i].id, id) == 0)
			return &live->machines[i];
	return NULL;
}

static struct entry *find_or_add(struct lb_live *live, const char *id)
{
	struct entry *e = find(live, id);

	if (e != NULL || live->n_machines >= LB_REG_MACHINES_MAX)
		return e;
	if (live->n_machines == live->room_machines) {
		size_t room = live->room_machines > 0 ? 2 * live->room_machines : 16;
		struct entry *grown = realloc(live->machines, room * sizeof(*grown));

		if (grown == NULL)
			return NULL;
		live->machines = grown;
		live->room_machines = room;
	}
	e = &live->machines[live->n_machines++];
	memset(e, 0, sizeof(*e));
	snprintf(e->id, sizeof(e->id), "%s", id);
	return e;
}

static int replace(json_t **kept, const json_t *report)
{
	json_t *copy = json_deep_copy(report);

	if (copy == NULL)
		return lb_fail(-ENOMEM, "out of memory for a report");
	json_decref(*kept);
	*kept = copy;
	return 0;
}

int lb_live_agent_put(struct lb_live *live, const char *machine, const json_t *report, int64_t now_ns)
{
	struct entry *e;
	int r;

	LB_LOCK_SCOPE(&live->lock);
	e = find_or_add(live, machine);
	if (e == NULL)
		return lb_fail(-ENOSPC, "too many machines report");
	r = replace(&e->m.agent, report);
	if (r < 0)
		return r;
	e->m.agent_ns = now_ns;
	pthread_cond_broadcast(&live->agent_came);
	return 0;
}

static struct process_entry *process_find_or_add(struct lb_live *live, const char *id)
{
	for (size_t i = 0; i < live->n_processes; i++)
		if (strcmp(live->processes[i].id, id) == 0)
			return &live->processes[i];
	if (live->n_processes == PROCESSES_MAX)
		return NULL;
	snprintf(live->processes[live->n_processes].id, LB_UUID_TEXT_BYTES, "%s", id);
	return &live->processes[live->n_processes++];
}

int lb_live_process_put(struct lb_live *live, const char *process, const json_t *report, int64_t now_ns)
{
	_cleanup_json_ json_t *own = json_copy((json_t *)report);
	const json_t *machines = json_object_get(report, "machines"), *one;
	struct process_entry *p;
	size_t i;
	int r;

	if (own == NULL)
		return lb_fail(-ENOMEM, "out of memory for a report");
	json_object_del(own, "machines");
	LB_LOCK_SCOPE(&live->lock);
	p = process_find_or_add(live, process);
	if (p == NULL)
		return lb_fail(-ENOSPC, "too many process servers report");
	r = replace(&p->report, own);
	p->ns = now_ns;
	json_array_foreach(machines, i, one)
	{
		const char *id = json_string_value(json_object_get(one, "id"));
		struct entry *e = id != NULL && strlen(id) < LB_UUID_TEXT_BYTES ? find_or_add(live, id) : NULL;

		if (r < 0 || e == NULL)
			continue;
		r = replace(&e->m.process, one);
		e->m.process_ns = now_ns;
	}
	return r;
}

void lb_live_forget(struct lb_live *live, const char *machine)
{
	struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find(live, machine);
	if (e == NULL)
		return;
	lb_live_machine_clear(&e->m);
	*e = live->machines[--live->n_machines];
}

int lb_live_get(struct lb_live *live, const char *machine, struct lb_live_machine *ret_machine)
{
	struct lb_live_machine m = {0};
	const struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find(live, machine);
	if (e != NULL) {
		m = e->m;
		m.agent = json_deep_copy(e->m.agent);
		m.process = json_deep_copy(e->m.process);
		if ((m.agent == NULL) != (e->m.agent == NULL) || (m.process == NULL) != (e->m.process == NULL)) {
			lb_live_machine_clear(&m);
			return lb_fail(-ENOMEM, "out of memory for a report");
		}
	}
	*ret_machine = m;
	return 0;
}

int lb_live_process_get(struct lb_live *live, const char *process, json_t **ret_report, int64_t *ret_ns)
{
	json_t *copy = NULL;
	int64_t ns = 0;

	LB_LOCK_SCOPE(&live->lock);
	for (size_t i = 0; i < live->n_processes; i++) {
		if (strcmp(live->processes[i].id, process) != 0)
			continue;
		copy = json_deep_copy(live->processes[i].report);
		ns = live->processes[i].ns;
	}
	*ret_report = copy;
	*ret_ns = ns;
	return 0;
}

void lb_live_check_order(struct lb_live *live, const char *machine, int64_t now_ns)
{
	struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find_or_add(live, machine);
	if (e != NULL)
		e->m.check_ns = now_ns;
}

int64_t lb_live_check_ordered(struct lb_live *live, const char *machine)
{
	const struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find(live, machine);
	return e != NULL ? e->m.check_ns : 0;
}

void lb_live_flush_order(struct lb_live *live, const char *machine, int64_t now_ns)
{
	struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find_or_add(live, machine);
	if (e != NULL)
		e->m.flush_ns = LB_MAX(e->m.flush_ns, now_ns);
}

int64_t lb_live_flush_ordered(struct lb_live *live, const char *machine)
{
	const struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find(live, machine);
	return e != NULL ? e->m.flush_ns : 0;
}

void lb_live_mend_order(struct lb_live *live, const char *machine, const struct lb_live_mend *mend)
{
	struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find_or_add(live, machine);
	if (e != NULL)
		e->m.mend = *mend;
}

struct lb_live_mend lb_live_mend_ordered(struct lb_live *live, const char *machine)
{
	const struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find(live, machine);
	return e != NULL ? e->m.mend : (struct lb_live_mend){0};
}

void lb_live_reach_put(struct lb_live *live, const char *machine, const char *host, uint16_t port)
{
	struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find_or_add(live, machine);
	if (e == NULL)
		return;
	snprintf(e->host, sizeof(e->host), "%s", host);
	e->port = port;
}

void lb_live_reach_get(struct lb_live *live, const char *machine, char ret_host[LB_LIVE_HOST_BYTES], uint16_t *ret_port)
{
	const struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find(live, machine);
	snprintf(ret_host, LB_LIVE_HOST_BYTES, "%s", e != NULL ? e->host : "");
	*ret_port = e != NULL ? e->port : 0;
}

void lb_live_point_put(struct lb_live *live, const char *machine, const struct lb_live_point *point)
{
	struct entry *e;

	LB_LOCK_SCOPE(&live->lock);
	e = find_or_add(live, machine);
	if (e != NULL)
		e->m.point = *point;
}

int lb_live_agent_wait(struct lb_live *live, const char *machine, int64_t since_ns, uint32_t wait_ms)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += wait_ms % 1000 * LB_NS_PER_MS;
	if (until.tv_nsec >= LB_NS_PER_S) {
		until.tv_nsec -= LB_NS_PER_S;
		until.tv_sec++;
	}
	LB_LOCK_SCOPE(&live->lock);
	for (;;) {
		const struct entry *e = find(live, machine);

		if (e != NULL && e->m.agent_ns > since_ns)
			return 0;
		if (r != 0)
			return lb_fail(-ETIMEDOUT, "the agent has not reported");
		r = pthread_cond_timedwait(&live->agent_came, &live->lock, &until);
	}
}
