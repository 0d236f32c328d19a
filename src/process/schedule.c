/* SPDX-License-Identifier: Apache-2.0 */
#include "process/schedule.h"

#include <errno.h>

#include "base/bytes.h"

void lb_schedule_wake(struct lb_process *p)
{
	uint64_t one = 1;

	/* the counter of an eventfd can only be full: then it can be read already */
	if (write(p->wake_fd, &one, sizeof(one)) < 0)
		return;
}

void lb_schedule(struct lb_machine *m, int64_t mono_ns)
{
	struct lb_process *p = m->process;
	LB_LOCK_SCOPE(&p->lock);

	mono_ns = LB_MAX(mono_ns, m->not_before_mono_ns);
	if (mono_ns >= m->due_mono_ns)
		return;
	m->due_mono_ns = mono_ns;
	if (!m->busy)
		lb_schedule_wake(p);
}

void lb_schedule_not_before(struct lb_machine *m, int64_t mono_ns)
{
	LB_LOCK_SCOPE(&m->process->lock);

	m->not_before_mono_ns = mono_ns;
	m->due_mono_ns = mono_ns;
}

/* With the lock held: the free machine that is due first, and the time of the one after it. */
static struct lb_machine *earliest(struct lb_process *p, int64_t *ret_second_mono_ns)
{
	struct lb_machine *first = NULL;
	int64_t second = LB_NEVER_NS;

	for (uint32_t i = 0; i < p->n_machines; i++) {
		struct lb_machine *m = p->machines[i];

		if (m->gone || m->busy || m->due_mono_ns == LB_NEVER_NS)
			continue;
		if (first == NULL || m->due_mono_ns < first->due_mono_ns) {
			if (first != NULL)
				second = LB_MIN(second, first->due_mono_ns);
			first = m;
		} else {
			second = LB_MIN(second, m->due_mono_ns);
		}
	}
	*ret_second_mono_ns = second;
	return first;
}

enum lb_due lb_schedule_take(struct lb_process *p, struct lb_machine **ret_machine, int64_t *ret_next_mono_ns)
{
	int64_t now = lb_mono_ns(p->env), second;
	struct lb_machine *m;
	LB_LOCK_SCOPE(&p->lock);

	if (p->vault != NULL && !p->beats_busy && p->beats_due_mono_ns <= now) {
		p->beats_busy = true;
		lb_schedule_wake(p);
		return LB_DUE_BEATS;
	}
	m = earliest(p, &second);
	if (m != NULL && m->due_mono_ns <= now) {
		m->busy = true;
		m->refs++;
		m->due_mono_ns = LB_NEVER_NS;
		/* one wake-up may stand for several: pass it on */
		if (second != LB_NEVER_NS)
			lb_schedule_wake(p);
		*ret_machine = m;
		return LB_DUE_MACHINE;
	}
	*ret_next_mono_ns = m != NULL ? m->due_mono_ns : LB_NEVER_NS;
	if (p->vault != NULL && !p->beats_busy)
		*ret_next_mono_ns = LB_MIN(*ret_next_mono_ns, p->beats_due_mono_ns);
	return LB_DUE_NOTHING;
}

void lb_schedule_done(struct lb_machine *m)
{
	struct lb_process *p = m->process;
	LB_LOCK_SCOPE(&p->lock);

	m->busy = false;
	m->refs--;
	if (m->due_mono_ns != LB_NEVER_NS)
		lb_schedule_wake(p);
}

void lb_schedule_beats_done(struct lb_process *p, int64_t next_mono_ns)
{
	LB_LOCK_SCOPE(&p->lock);

	p->beats_busy = false;
	p->beats_due_mono_ns = next_mono_ns;
	lb_schedule_wake(p);
}
