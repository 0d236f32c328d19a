/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard against what nobody thought of: bytes seen by the program against the kernel's own counters. The program
 * counts when a request is given to the disk, the kernel when it ends: kernel <= seen + base holds always, where base
 * is the difference at a moment without writes in flight. Such a moment makes the base exact; until one is met, the
 * base is what was in flight at most when the capture began.
 */
#include <errno.h>
#include <time.h>

#include "base/err.h"
#include "capture/internal.h"

#define RECONCILE_EXACT 1
/*
 * The program counts a request before the kernel calls it in flight, and copies its data in between: only a disk that
 * was given nothing for so long is surely idle.
 */
#define QUIET_NS 50000000ULL

struct sample {
	int64_t kernel[2];
	int64_t seen_before[2], seen_after[2];
	bool idle;
};

static void seen_read(const struct lb_capture_disk_slot *s, int64_t seen[2])
{
	seen[0] = (int64_t)lb_load(&s->seen_write_bytes);
	seen[1] = (int64_t)lb_load(&s->seen_discard_bytes);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Whether nothing was seen for long enough by now; begins to wait for that when something was. */
static bool is_quiet(struct lb_capture_disk_slot *s, const struct sample *m)
{
	uint64_t now = now_ns();

	if (s->quiet_since_ns != 0 && s->quiet_seen[0] == (uint64_t)m->seen_after[0] &&
	    s->quiet_seen[1] == (uint64_t)m->seen_after[1])
		return now - s->quiet_since_ns >= QUIET_NS;
	s->quiet_seen[0] = (uint64_t)m->seen_after[0];
	s->quiet_seen[1] = (uint64_t)m->seen_after[1];
	s->quiet_since_ns = now;
	return false;
}

static int sample_take(struct lb_capture_disk_slot *s, struct sample *ret_sample, struct lb_disk_facts *ret_facts)
{
	struct sample m = {0};

	seen_read(s, m.seen_before);
	int r = lb_disk_facts(s->name, ret_facts);
	if (r < 0)
		return r;
	seen_read(s, m.seen_after);
	m.kernel[0] = (int64_t)ret_facts->written_bytes;
	m.kernel[1] = (int64_t)ret_facts->discarded_bytes;
	m.idle = is_quiet(s, &m) && ret_facts->writes_in_flight == 0;
	*ret_sample = m;
	return 0;
}

void lb_reconcile_begin(struct lb_capture_control *control, unsigned int disk)
{
	struct lb_capture_disk_slot *s = &control->disk[disk];
	struct lb_disk_facts f;
	struct sample m;

	if (sample_take(s, &m, &f) < 0)
		return;
	/* Right after the attach all that was ever seen bounds what can be in flight. */
	for (int i = 0; i < 2; i++)
		s->reconcile_base[i] = m.kernel[i] - m.seen_before[i] + (m.idle ? 0 : m.seen_after[i]);
	lb_store(&s->reconcile_state, m.idle ? RECONCILE_EXACT : 0);
}

/* What the kernel counted beyond what was seen. */
static uint64_t missed(const struct lb_capture_disk_slot *s, const struct sample *m)
{
	uint64_t total = 0;

	for (int i = 0; i < 2; i++) {
		int64_t beyond = m->kernel[i] - m->seen_after[i] - s->reconcile_base[i];
		total += beyond > 0 ? (uint64_t)beyond : 0;
	}
	return total;
}

/* An idle moment makes the base sharper; a miss that was declared is not to be told again. */
static void base_move(struct lb_capture_disk_slot *s, const struct sample *m)
{
	for (int i = 0; i < 2; i++) {
		int64_t difference = m->kernel[i] - m->seen_after[i];
		if (m->idle || difference > s->reconcile_base[i])
			s->reconcile_base[i] = difference;
	}
	if (m->idle)
		lb_store(&s->reconcile_state, RECONCILE_EXACT);
}

int lb_capture_reconcile(struct lb_capture *c, unsigned int disk, struct lb_capture_reconciled *ret_result)
{
	struct lb_capture_reconciled result = {.fit = LB_CAPTURE_FIT_OK};
	struct lb_disk_facts f;
	struct sample m;

	if (lb_disk_slot(c, disk) == NULL)
		return lb_fail(-ENOENT, "capture has no disk %u", disk);
	struct lb_capture_disk_slot *s = &c->control->disk[disk];
	int r = sample_take(s, &m, &f);
	if (r == -ENOENT || (r == 0 && (f.major << 20 | f.minor) != s->device) || (r == 0 && f.diskseq != s->diskseq)) {
		result.fit = LB_CAPTURE_FIT_GONE;
		*ret_result = result;
		return 0;
	}
	if (r < 0)
		return r;
	result.size_bytes = f.size_bytes;
	if (f.iostats) {
		result.missed_bytes = missed(s, &m);
		if (result.missed_bytes > 0)
			lb_capture_declare_loss(c, disk, 0, 0);
		base_move(s, &m);
	}
	result.exact = m.idle && lb_load(&s->reconcile_state) == RECONCILE_EXACT;
	if (f.size_bytes != s->size_bytes)
		result.fit = LB_CAPTURE_FIT_GROWN;
	else if (!f.iostats)
		result.fit = LB_CAPTURE_FIT_UNKNOWN;
	else if (result.missed_bytes > 0)
		result.fit = LB_CAPTURE_FIT_MISSED;
	*ret_result = result;
	return 0;
}

int lb_capture_disk_stats(const struct lb_capture *c, unsigned int disk, struct lb_capture_disk_stats *ret_stats)
{
	const struct lb_capture_disk_slot *s = lb_disk_slot(c, disk);
	if (s == NULL)
		return lb_fail(-ENOENT, "capture has no disk %u", disk);
	*ret_stats = (struct lb_capture_disk_stats){
		.written_bytes = lb_load(&s->seen_write_bytes),
		.discarded_bytes = lb_load(&s->seen_discard_bytes),
		.captured_bytes = lb_load(&s->captured_bytes),
		.captured_requests = lb_load(&s->captured_requests),
		.lost_bytes = lb_load(&s->lost_bytes),
		.lost_requests = lb_load(&s->lost_requests),
	};
	return 0;
}

void lb_capture_stats(const struct lb_capture *c, struct lb_capture_stats *ret_stats)
{
	const struct lb_capture_control *k = c->control;

	for (int i = 0; i < LB_REASONS; i++)
		ret_stats->reason[i] = lb_load(&k->reason[i]);
	for (int i = 0; i < LB_CAPTURE_COST_BUCKETS; i++)
		ret_stats->cost[i] = lb_load(&k->cost[i]);
	ret_stats->cost_ns_total = lb_load(&k->cost_ns_total);
	ret_stats->cost_count = lb_load(&k->cost_count);
}
