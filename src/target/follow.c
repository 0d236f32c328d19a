/* SPDX-License-Identifier: Apache-2.0 */
/* Orders that write: follow, finish, back; and drop, which forgets. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "target/task.h"

static int progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	struct lb_target_work *w = arg;

	lb_target_task_set(w->task, "done_bytes", json_integer((json_int_t)done_bytes));
	lb_target_task_set(w->task, "total_bytes", json_integer((json_int_t)total_bytes));
	return lb_target_task_check(w->task);
}

static bool is_at(const struct lb_target_record *known, const struct lb_position *position)
{
	return known->goal.position.epoch == 0 && known->applied.position.epoch == position->epoch &&
	       known->applied.position.seq == position->seq;
}

/* Where the disks are, and what it took. */
static void tell_at(struct lb_target_work *w)
{
	const struct lb_target_record *known = lb_target_known(w->target);
	struct lb_target_task *t = w->task;
	char when[LB_TIME_TEXT_BYTES];

	lb_target_task_set(t, "epoch", json_integer((json_int_t)known->applied.position.epoch));
	lb_target_task_set(t, "seq", json_integer((json_int_t)known->applied.position.seq));
	lb_target_task_set(t, "point_ns", json_integer((json_int_t)known->applied.time_ns));
	lb_target_task_set(t, "kept_points", json_integer(known->n_undo));
	lb_target_task_set(t, "compared_bytes", json_integer((json_int_t)w->sum.compared_bytes));
	lb_target_task_set(t, "written_bytes", json_integer((json_int_t)w->sum.written_bytes));
	lb_target_task_set(t, "fetched_bytes", json_integer((json_int_t)w->sum.fetched_bytes));
	lb_target_task_say(t, "the disks are as at %s", lb_time_format(known->applied.time_ns, when));
}

static int apply(struct lb_target_work *w, const struct lb_point *point)
{
	struct lb_target_stats stats;
	char when[LB_TIME_TEXT_BYTES];
	int r;

	if (!is_at(lb_target_known(w->target), &point->position)) {
		lb_target_task_say(w->task, "brings the disks to %s", lb_time_format(point->time_ns, when));
		r = lb_target_apply(w->target, point, progress, w, &stats);
		if (r < 0)
			return r;
		w->sum.compared_bytes += stats.compared_bytes;
		w->sum.written_bytes += stats.written_bytes;
		w->sum.fetched_bytes += stats.fetched_bytes;
	}
	tell_at(w);
	return 0;
}

static int open_all(struct lb_target_work *w)
{
	int r = lb_target_work_vault(w);

	return r < 0 ? r : lb_target_work_disks(w);
}

int lb_target_do_follow(struct lb_target_work *w)
{
	struct lb_point point;
	int r;

	r = open_all(w);
	while (r == 0 && (r = lb_target_task_check(w->task)) == 0) {
		r = lb_point_find(w->vault, &w->task->order.machine, "latest", &point);
		if (r == 0)
			r = apply(w, &point);
		if (r < 0)
			return r;
		if (!w->reached)
			lb_target_task_set(w->task, "state", json_string("reached"));
		w->reached = true;
		lb_target_task_wait(w->task, LB_TARGET_LOOK_MS);
	}
	return r;
}

int lb_target_do_finish(struct lb_target_work *w)
{
	struct lb_point point;
	int r;

	r = open_all(w);
	r = r < 0 ? r : lb_target_work_point(w, &point);
	return r < 0 ? r : apply(w, &point);
}

/* ---- back ---------------------------------------------------------------------------------------------------- */

static int no_such(const struct lb_target_record *known)
{
	return lb_fail(-EINVAL, "the target keeps %u older points of %s, and not the one that is asked for",
		       known->n_undo, known->machine_name);
}

/*
 * The point that is meant, among the kept ones. A count is said once, as a position in the order's own report: after a
 * restart it would count from where the disks are then.
 */
static int choose_kept(struct lb_target_work *w, struct lb_position *ret_position)
{
	const struct lb_target_record *known = lb_target_known(w->target);
	const json_t *body = w->task->order.body;
	struct lb_position p = {0};
	uint64_t points = 1;
	int r;

	if (json_object_get(body, "epoch") != NULL) {
		r = lb_json_get_u64(body, "epoch", &p.epoch);
		r = r < 0 ? r : lb_json_get_u64(body, "seq", &p.seq);
		if (r < 0)
			return r;
	} else {
		r = json_object_get(body, "points") != NULL ? lb_json_get_u64(body, "points", &points) : 0;
		if (r < 0)
			return r;
		if (points == 0 || points > known->n_undo)
			return no_such(known);
		p = known->undo[known->n_undo - points].point.position;
	}
	*ret_position = p;
	for (uint32_t i = 0; i < known->n_undo; i++)
		if (known->undo[i].point.position.epoch == p.epoch && known->undo[i].point.position.seq == p.seq)
			return 0;
	return is_at(known, &p) ? 0 : no_such(known);
}

static int remember_choice(struct lb_target_work *w, struct lb_position *position)
{
	struct lb_target_task *t = w->task;
	_cleanup_json_ json_t *kept = NULL, *report = NULL;
	int r;

	r = lb_target_choice_read(t->env, t->folder, t->order.id, &kept);
	if (r == 0) {
		r = lb_json_get_u64(kept, "back_epoch", &position->epoch);
		return r < 0 ? r : lb_json_get_u64(kept, "back_seq", &position->seq);
	}
	if (r != -ENOENT)
		return r;
	r = choose_kept(w, position);
	if (r < 0)
		return r;
	report = json_pack("{s:s,s:I,s:I}", "id", t->order.id, "back_epoch", (json_int_t)position->epoch, "back_seq",
			   (json_int_t)position->seq);
	return report == NULL ? lb_fail(-ENOMEM, "out of memory") : lb_target_choice_write(t->env, t->folder, report);
}

int lb_target_do_back(struct lb_target_work *w)
{
	struct lb_position position;
	int r;

	r = open_all(w);
	r = r < 0 ? r : remember_choice(w, &position);
	while (r == 0 && !is_at(lb_target_known(w->target), &position)) {
		r = lb_target_task_check(w->task);
		r = r < 0 ? r : lb_target_back(w->target);
	}
	if (r == 0)
		tell_at(w);
	return r;
}

int lb_target_do_drop(struct lb_target_work *w)
{
	int r = lb_target_record_remove(w->task->env, w->task->folder);

	if (r == 0)
		lb_target_task_say(w->task, "the disks are as they were left; nothing is known of them any more");
	return r;
}
