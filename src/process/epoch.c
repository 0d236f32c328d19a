/* SPDX-License-Identifier: Apache-2.0 */
#include "process/epoch.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "process/ingest.h"
#include "process/process.h"
#include "process/record.h"
#include "process/schedule.h"

int lb_epoch_check_hardware(struct lb_machine *m, const char *hardware)
{
	const char *expected;
	LB_LOCK_SCOPE(&m->lock);

	expected = m->assigned.hardware;
	/* before the first report the first to come is the one */
	if (expected[0] == '\0' && m->newest != NULL && !m->newest->record.lost)
		expected = m->newest->record.hardware;
	if (expected[0] == '\0' || strcmp(expected, hardware) == 0)
		return 0;
	return lb_fail(-EACCES,
		       "machine %s is hardware %.16s..., but hardware %.16s... came with its identity: a copy of the "
		       "machine, or its "
		       "hardware was changed; enrol the copy anew, or enrol the changed machine again",
		       m->assigned.name, expected, hardware);
}

static int parse_hardware(const json_t *request, char hardware[LB_HARDWARE_BYTES])
{
	struct lb_digest digest;
	int r;

	r = lb_json_get_digest(request, "hardware", &digest);
	if (r < 0)
		return r;
	lb_hex_encode(digest.bytes, sizeof(digest.bytes), hardware);
	return 0;
}

static int parse(struct lb_machine *m, const json_t *request, struct lb_epoch_record *record)
{
	const char *reason = json_string_value(json_object_get(request, "reason"));
	int r;

	*record = (struct lb_epoch_record){.begun_ns = lb_now_ns(m->process->env)};
	r = lb_json_get_u64(request, "epoch", &record->epoch);
	if (r == 0)
		r = lb_json_get_uuid(request, "instance", &record->instance);
	if (r == 0)
		r = parse_hardware(request, record->hardware);
	if (r == 0)
		r = lb_json_get_digest(request, "prev_digest", &record->prev_digest);
	if (r == 0)
		r = lb_disks_parse(json_object_get(request, "disks"), &record->disks);
	if (r == 0 && json_object_get(request, "ring_cut") != NULL)
		r = lb_json_get_u64(request, "ring_cut", &record->ring_cut);
	if (r < 0)
		return r;
	snprintf(record->reason, sizeof(record->reason), "%.64s", reason != NULL ? reason : "");
	return 0;
}

/* The disks must be those that the double will have. With the machine's lock held. */
static int check_disks(const struct lb_machine *m, const struct lb_process_disks *theirs)
{
	const struct lb_process_disks *ours = &m->assigned.disks;
	const char *name = m->assigned.name;

	if (ours->n == 0)
		return lb_fail(-EAGAIN, "the configuration server does not know the disks of machine %s yet", name);
	for (uint32_t i = 0; i < theirs->n; i++) {
		const struct lb_process_disk *a = &theirs->disk[i], *b = lb_disks_find(ours, a->id);

		if (b == NULL)
			return lb_fail(-EINVAL, "machine %s, disk %s: id %u is not one of its protected disks", name,
				       a->name, a->id);
		if (a->size_bytes != b->size_bytes)
			return lb_fail(-EINVAL,
				       "machine %s, disk %s has %" PRIu64 " bytes where %" PRIu64
				       " are known; if its size was changed, "
				       "run `lifeboat machine protect %s` again",
				       name, a->name, a->size_bytes, b->size_bytes, name);
	}
	for (uint32_t i = 0; i < ours->n; i++)
		if (lb_disks_find(theirs, ours->disk[i].id) == NULL)
			return lb_fail(-EINVAL,
				       "machine %s, disk %s is protected but missing on the machine; attach it, or "
				       "protect the machine "
				       "without it",
				       name, ours->disk[i].name);
	return 0;
}

static int check_order(const struct lb_machine *m, const struct lb_epoch_record *record)
{
	const struct lb_durable *d = &m->durable;
	char ours[LB_UUID_TEXT_BYTES], theirs[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&d->instance, ours);
	lb_uuid_format(&record->instance, theirs);
	if (record->epoch == d->epoch)
		return lb_fail(-ESTALE,
			       "epoch %" PRIu64
			       " of machine %s was begun by capture instance %s, not %s; if two agents run with this "
			       "identity, stop one of them",
			       d->epoch, m->assigned.name, ours, theirs);
	if (record->epoch != d->epoch + 1)
		return lb_fail(-ESTALE, "epoch %" PRIu64 " of machine %s comes next, not %" PRIu64, d->epoch + 1,
			       m->assigned.name, record->epoch);
	if (!lb_equal_ct(&record->prev_digest, &d->digest, sizeof(d->digest)))
		return lb_fail(-ESTALE, "epoch %" PRIu64 " of machine %s does not continue what is durable here",
			       record->epoch, m->assigned.name);
	if (m->n_epochs >= LB_EPOCHS_CACHED_MAX)
		return lb_fail(-EAGAIN, "%d epochs of machine %s wait for the vault already", LB_EPOCHS_CACHED_MAX,
			       m->assigned.name);
	return 0;
}

/* 1: it has begun already. */
static int judge(struct lb_machine *m, struct lb_epoch_record *record)
{
	const struct lb_durable *d = &m->durable;
	int r;
	LB_LOCK_SCOPE(&m->lock);

	/* the answer was lost, or it asks again after a restart */
	if (record->epoch != 0 && record->epoch == d->epoch && lb_uuid_equal(&record->instance, &d->instance) &&
	    m->newest != NULL && m->newest->record.epoch == d->epoch)
		return 1;
	r = check_order(m, record);
	if (r == 0)
		r = check_disks(m, &record->disks);
	if (r < 0)
		return r;
	record->prev = d->last;
	return 0;
}

static void commit(struct lb_machine *m, struct lb_epoch *e)
{
	char instance[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&e->record.instance, instance);
	pthread_mutex_lock(&m->lock);
	lb_notice("machine %s begins epoch %" PRIu64 " (instance %s): %s", m->assigned.name, e->record.epoch, instance,
		  e->record.reason[0] != '\0' ? e->record.reason : "no reason given");
	m->durable.epoch = e->record.epoch;
	m->durable.next_seq = 0;
	m->durable.instance = e->record.instance;
	m->durable.ring_cut = e->record.ring_cut;
	m->durable.scan_cursor = 0;
	m->damage[0] = '\0';
	lb_machine_epoch_add(m, e);
	pthread_mutex_unlock(&m->lock);
	lb_schedule(m, lb_mono_ns(m->process->env));
}

int lb_epoch_begin(struct lb_machine *m, const json_t *request)
{
	_cleanup_free_ struct lb_epoch *e = calloc(1, sizeof(*e));
	struct lb_process *p = m->process;
	int r;

	if (e == NULL)
		return lb_fail(-ENOMEM, "out of memory for an epoch");
	r = parse(m, request, &e->record);
	if (r < 0)
		return lb_wrap(r, "machine %s", m->id_text);
	r = lb_epoch_check_hardware(m, e->record.hardware);
	if (r < 0)
		return r;
	LB_LOCK_SCOPE(&m->order);
	r = lb_ingest_allowed(m);
	if (r == 0)
		r = judge(m, &e->record);
	if (r != 0)
		return r < 0 ? r : 0;
	r = lb_record_put(&p->cache, lb_process_vault(p), m, &e->record);
	if (r < 0)
		return r;
	commit(m, lb_steal_ptr(e));
	return 0;
}
