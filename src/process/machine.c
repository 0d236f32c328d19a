/* SPDX-License-Identifier: Apache-2.0 */
#include "process/machine.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "process/process.h"

void lb_assignment_wipe(struct lb_assignment *a)
{
	lb_keyring_wipe(&a->keys);
}

int lb_machine_new(struct lb_process *p, const struct lb_assignment *a, struct lb_machine **ret_machine)
{
	struct lb_machine *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return lb_fail(-ENOMEM, "out of memory for machine %s", a->name);
	m->process = p;
	m->id = a->id;
	lb_uuid_format(&m->id, m->id_text);
	m->assigned = *a;
	m->state = LB_MACHINE_OPENING;
	m->refs = 1;
	pthread_mutex_init(&m->order, NULL);
	pthread_mutex_init(&m->lock, NULL);
	*ret_machine = m;
	return 0;
}

void lb_machine_free(struct lb_machine *m)
{
	if (m->writer != NULL)
		lb_journal_writer_free(m->writer);
	while (m->oldest != NULL)
		lb_machine_epoch_pop(m);
	lb_assignment_wipe(&m->assigned);
	json_decref(m->agent);
	pthread_mutex_destroy(&m->lock);
	pthread_mutex_destroy(&m->order);
	free(m);
}

int lb_machine_find(struct lb_process *p, const struct lb_uuid *id, struct lb_machine **ret_machine)
{
	char text[LB_UUID_TEXT_BYTES];
	LB_LOCK_SCOPE(&p->lock);

	for (uint32_t i = 0; i < p->n_machines; i++) {
		struct lb_machine *m = p->machines[i];

		if (m->gone || !lb_uuid_equal(&m->id, id))
			continue;
		m->refs++;
		*ret_machine = m;
		return 0;
	}
	lb_uuid_format(id, text);
	for (size_t i = 0; i < p->n_released; i++)
		if (lb_uuid_equal(&p->released[i], id))
			return lb_fail(-EAGAIN,
				       "machine %s moved to another process server; its agent goes there by itself",
				       text);
	return lb_fail(-EACCES, "machine %s is not assigned to this process server; see `lifeboat machine list`", text);
}

void lb_machine_unref(struct lb_machine *m)
{
	struct lb_process *p = m->process;
	LB_LOCK_SCOPE(&p->lock);

	/* the registry holds one reference: it frees, see lb_process_configure() */
	assert(m->refs > 1);
	m->refs--;
}

void lb_machine_epoch_add(struct lb_machine *m, struct lb_epoch *e)
{
	assert(m->newest == NULL || e->record.epoch > m->newest->record.epoch);
	e->newer = NULL;
	if (m->newest != NULL)
		m->newest->newer = e;
	else
		m->oldest = e;
	m->newest = e;
	m->n_epochs++;
}

void lb_machine_epoch_pop(struct lb_machine *m)
{
	struct lb_epoch *e = m->oldest;

	m->oldest = e->newer;
	if (m->oldest == NULL)
		m->newest = NULL;
	m->n_epochs--;
	free(e);
}

bool lb_machine_drained(const struct lb_machine *m)
{
	if (m->state != LB_MACHINE_READY || m->ingesting || m->cached_bytes > 0)
		return false;
	return m->oldest == NULL || (m->oldest->newer == NULL && m->oldest->first_seq == m->oldest->next_seq);
}

static int journal_json(struct lb_machine *m, json_t *j)
{
	const struct lb_durable *d = &m->durable;
	bool any = d->epoch != 0 && d->last.epoch == d->epoch;
	int r;

	r = lb_json_set_bool(j, "known", d->epoch != 0);
	if (r == 0)
		r = lb_json_set_u64(j, "epoch", d->epoch);
	/* an epoch that has begun and holds nothing has no last segment */
	if (r == 0 && json_object_set_new(j, "seq", any ? json_integer((json_int_t)d->last.seq) : json_null()) < 0)
		r = lb_fail(-ENOMEM, "out of memory");
	if (r == 0)
		r = lb_json_set_u64(j, "next_seq", d->next_seq);
	if (r == 0)
		r = lb_json_set_u64(j, "last_epoch", d->last.epoch);
	if (r == 0)
		r = lb_json_set_u64(j, "last_seq", d->last.seq);
	if (r == 0)
		r = lb_json_set_u64(j, "ring_cut", d->ring_cut);
	if (r == 0)
		r = lb_json_set_u64(j, "scan_cursor", d->scan_cursor);
	if (r == 0)
		r = lb_json_set_digest(j, "digest", &d->digest);
	if (r == 0)
		r = lb_json_set_uuid(j, "instance", &d->instance);
	if (r == 0)
		r = lb_json_set_u64(j, "vault_epoch", m->vault.epoch);
	if (r == 0)
		r = lb_json_set_u64(j, "vault_seq", m->vault.seq);
	if (r == 0)
		r = lb_json_set_i64(j, "time_ns", lb_now_ns(m->process->env));
	return r;
}

int lb_machine_journal_json(struct lb_machine *m, json_t **ret_object)
{
	_cleanup_json_ json_t *j = json_object();
	json_t *policy = NULL;
	int r;
	LB_LOCK_SCOPE(&m->lock);

	if (j == NULL)
		return lb_fail(-ENOMEM, "out of memory for the journal of machine %s", m->assigned.name);
	r = journal_json(m, j);
	if (r < 0)
		return r;
	r = lb_policy_print(&m->assigned.policy, &policy);
	if (r < 0)
		return r;
	if (json_object_set_new(j, "policy", policy) < 0)
		return lb_fail(-ENOMEM, "out of memory for the journal of machine %s", m->assigned.name);
	*ret_object = lb_steal_ptr(j);
	return 0;
}

void lb_machine_stop(struct lb_machine *m, enum lb_machine_state state)
{
	LB_LOCK_SCOPE(&m->lock);

	m->state = state;
	snprintf(m->error, sizeof(m->error), "%.500s", lb_err_text());
	lb_error("machine %s: replication stopped: %s", m->assigned.name, m->error);
}
