/* SPDX-License-Identifier: Apache-2.0 */
#include "target/task.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "target/match.h"

#define DONE "done"
#define BUSY_PATIENCE_S 30 /* one that was killed may leave a program behind that still holds a disk */

static const struct kind {
	const char *name;
	int (*work)(struct lb_target_work *w);
	bool patient; /* waits for what can pass */
} kinds[] = {
	{"check", lb_target_do_check, false},  {"follow", lb_target_do_follow, true},
	{"finish", lb_target_do_finish, true}, {"back", lb_target_do_back, false},
	{"boot", lb_target_do_boot, false},    {"halt", lb_target_do_halt, false},
	{"drop", lb_target_do_drop, false},    {"ready", lb_target_do_ready, false},
};

/* ---- what it tells --------------------------------------------------------------------------------------- */

void lb_target_task_set(struct lb_target_task *t, const char *member, json_t *value)
{
	LB_LOCK_SCOPE(&t->lock);

	(void)json_object_set_new(t->report, member, value);
}

void lb_target_task_say(struct lb_target_task *t, const char *fmt, ...)
{
	char text[LB_ERR_TEXT_BYTES_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	lb_target_task_set(t, "text", json_string(text));
}

int lb_target_task_report(struct lb_target_task *t, json_t **ret_report)
{
	LB_LOCK_SCOPE(&t->lock);

	*ret_report = json_deep_copy(t->report);
	return *ret_report != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a report");
}

void lb_target_task_keys(struct lb_target_task *t, const struct lb_keyring *keys)
{
	LB_LOCK_SCOPE(&t->lock);

	if (!t->ended)
		t->order.keys = *keys;
}

bool lb_target_task_ended(struct lb_target_task *t)
{
	LB_LOCK_SCOPE(&t->lock);

	return t->ended;
}

int lb_target_task_check(struct lb_target_task *t)
{
	return t->stop ? lb_fail(-ECANCELED, "stopped") : 0;
}

void lb_target_task_wait(struct lb_target_task *t, uint32_t ms)
{
	if (!t->stop)
		t->env->ops->wait_until(t->env, lb_mono_ns(t->env) + ms * LB_NS_PER_MS, t->wake_fd);
}

/* ---- what it works with ---------------------------------------------------------------------------------- */

static void work_end(struct lb_target_work *w)
{
	if (w->target != NULL)
		lb_target_free(lb_steal_ptr(w->target));
	free(lb_steal_ptr(w->item));
	if (w->vault != NULL)
		lb_vault_free(lb_steal_ptr(w->vault));
	if (w->store != NULL)
		lb_store_free(lb_steal_ptr(w->store));
}

static int check_vault(const struct lb_target_work *w)
{
	char have[LB_UUID_TEXT_BYTES], want[LB_UUID_TEXT_BYTES];

	if (lb_uuid_equal(lb_vault_id(w->vault), &w->task->vault_id))
		return 0;
	lb_uuid_format(lb_vault_id(w->vault), have);
	lb_uuid_format(&w->task->vault_id, want);
	return lb_fail(-EINVAL,
		       "%s holds vault %s, but the configuration server speaks of vault %s; correct the vault's URL",
		       w->task->vault_url, have, want);
}

static int give_keys(struct lb_target_work *w)
{
	struct lb_target_task *t = w->task;
	LB_LOCK_SCOPE(&t->lock);

	return lb_vault_machine_key_give(w->vault, &t->order.machine, &t->order.keys);
}

int lb_target_work_vault(struct lb_target_work *w)
{
	struct lb_target_task *t = w->task;
	int r;

	if (!t->order.has_keys)
		return lb_fail(-EINVAL, "the vault has no key of %s any more: its journal was erased",
			       t->order.machine_name);
	r = lb_store_open(t->env, t->vault_url, false, &w->store);
	r = r < 0 ? r : lb_vault_open_keyless(w->store, &w->vault);
	r = r < 0 ? r : check_vault(w);
	r = r < 0 ? r : give_keys(w);
	if (r < 0)
		return lb_wrap(r, "the vault");
	w->item = calloc(1, sizeof(*w->item));
	return w->item == NULL ? lb_fail(-ENOMEM, "out of memory")
			       : lb_catalog_get(w->vault, &t->order.machine, w->item);
}

/* The match lives in the list's own memory, behind the pairs. */
static int match_to(struct lb_target_work *w, struct lb_target_to **ret_to, uint32_t *ret_n)
{
	struct {
		struct lb_target_to to[LB_HRL_DISKS_MAX];
		struct lb_target_match match;
	} *list = calloc(1, sizeof(*list));
	int r;

	r = list == NULL ? lb_fail(-ENOMEM, "out of memory") : lb_target_match(w->task->env, "", w->item, &list->match);
	if (r < 0) {
		free(list);
		return r;
	}
	for (uint32_t i = 0; i < w->item->n_disks; i++)
		list->to[i] = (struct lb_target_to){.disk = w->item->disks[i].name, .path = list->match.path[i]};
	*ret_to = list->to;
	*ret_n = w->item->n_disks;
	return 0;
}

int lb_target_work_to(struct lb_target_work *w, struct lb_target_to **ret_to, uint32_t *ret_n)
{
	json_t *to = json_object_get(w->task->order.body, "to"), *path;
	_cleanup_free_ struct lb_target_to *list = NULL;
	uint32_t n = 0;
	const char *disk;
	int r = 0;

	if (json_is_string(to))
		r = match_to(w, &list, &n);
	else if ((list = calloc(LB_HRL_DISKS_MAX, sizeof(*list))) == NULL)
		r = lb_fail(-ENOMEM, "out of memory");
	json_object_foreach(to, disk, path)
	{
		if (r == 0 && (n == LB_HRL_DISKS_MAX || !json_is_string(path)))
			r = lb_fail(-EINVAL, "the order does not tell where its disks go");
		if (r == 0)
			list[n++] = (struct lb_target_to){.disk = disk, .path = json_string_value(path)};
	}
	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = lb_target_settings_allow(w->task->settings, list[i].path);
	if (r < 0)
		return r;
	*ret_to = lb_steal_ptr(list);
	*ret_n = n;
	return 0;
}

static uint64_t number(const struct lb_target_work *w, const char *member, uint64_t otherwise)
{
	uint64_t value = otherwise;

	if (json_object_get(w->task->order.body, member) != NULL)
		(void)lb_json_get_u64(w->task->order.body, member, &value);
	return value;
}

uint64_t lb_target_work_undo_bytes(const struct lb_target_work *w)
{
	return LB_MIN(number(w, "undo_bytes", LB_TARGET_UNDO_BYTES_DEFAULT), w->task->settings->undo_bytes_max);
}

int lb_target_work_disks(struct lb_target_work *w)
{
	const json_t *body = w->task->order.body;
	_cleanup_free_ struct lb_target_to *to = NULL;
	struct lb_target_request request = {
		.folder = w->task->folder,
		.some = json_is_true(json_object_get(body, "some")),
		.overwrite = json_is_true(json_object_get(body, "overwrite")),
		.undo_bytes = lb_target_work_undo_bytes(w),
		.undo_points = (uint32_t)LB_MIN(number(w, "undo_points", LB_TARGET_UNDO_POINTS_DEFAULT),
						(uint64_t)LB_TARGET_UNDO_MAX),
		.vault = w->vault,
		.item = w->item,
	};
	int r;

	r = lb_target_work_to(w, &to, &request.n_to);
	if (r < 0)
		return r;
	request.to = to;
	return lb_target_open(w->task->env, &request, &w->target);
}

int lb_target_work_point(struct lb_target_work *w, struct lb_point *ret_point)
{
	const json_t *body = w->task->order.body;
	const char *text = json_string_value(json_object_get(body, "point"));
	char position[64];

	if (json_object_get(body, "epoch") != NULL) {
		snprintf(position, sizeof(position), "%llu:%llu", (unsigned long long)number(w, "epoch", 0),
			 (unsigned long long)number(w, "seq", 0));
		text = position;
	}
	return lb_point_find(w->vault, &w->task->order.machine, text != NULL ? text : "latest", ret_point);
}

/* ---- its life -------------------------------------------------------------------------------------------- */

static const struct kind *find_kind(const char *name)
{
	for (size_t i = 0; i < LB_ARRAY_LEN(kinds); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	return NULL;
}

/* What a cut link or a store that is away for a while gives, against what only a person can mend. */
static bool may_pass(int error, bool reached)
{
	switch (-error) {
	case EINVAL:
	case EEXIST:
	case EPERM:
	case ESTALE:
	case EBADMSG:
	case ECANCELED:
	case ENOTSUP:
		return false;
	case ENOSPC: /* somebody may make room */
	case ENOENT: /* its first point may be on its way */
	case EBUSY:
	case ENOKEY: /* a newer one, which comes with the next round */
		return reached;
	}
	return true;
}

static int attempt(struct lb_target_task *t, const struct kind *kind, bool *ret_reached)
{
	_cleanup_(work_end) struct lb_target_work w = {.task = t, .reached = *ret_reached};
	int r = kind->work(&w);

	*ret_reached = w.reached;
	return r;
}

static int try_until_done(struct lb_target_task *t, const struct kind *kind)
{
	int64_t busy_until_ns = lb_mono_ns(t->env) + BUSY_PATIENCE_S * LB_NS_PER_S;
	bool reached = false;
	int r;

	for (;;) {
		r = attempt(t, kind, &reached);
		if (r == 0 || t->stop)
			return r;
		if (!(kind->patient && may_pass(r, reached)) &&
		    !(r == -EBUSY && strcmp(kind->name, "check") != 0 && lb_mono_ns(t->env) < busy_until_ns))
			return r;
		lb_target_task_say(t, "waits: %s", lb_err_text());
		lb_target_task_wait(t, LB_TARGET_RETRY_MS);
		if (t->stop)
			return -ECANCELED;
	}
}

/* The disks are in other hands from now on. Only when the outcome is kept: without it a restart would begin anew. */
static void let_go(struct lb_target_task *t)
{
	if (strcmp(t->order.kind, "finish") == 0 && lb_target_record_remove(t->env, t->folder) < 0)
		lb_warning("machine %s: %s", t->order.machine_name, lb_err_text());
}

/* Kept before it is told, so that a restart tells the same. */
static void keep_outcome(struct lb_target_task *t, const char *state)
{
	_cleanup_json_ json_t *report = NULL;
	int r = lb_target_task_report(t, &report);

	if (r == 0 && json_object_set_new(report, "state", json_string(state)) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a report");
	if (r == 0)
		r = lb_target_outcome_write(t->env, t->folder, report);
	if (r < 0)
		lb_warning("machine %s: what became of order %s can't be kept: %s", t->order.machine_name, t->order.id,
			   lb_err_text());
	else if (strcmp(state, DONE) == 0)
		let_go(t);
	if (r == 0)
		lb_fault_server_place("target server, %s: %s %s, which is not told", t->order.machine_name,
				      t->order.kind, state);
}

static void conclude(struct lb_target_task *t, int result)
{
	const char *state = result < 0 ? "failed" : DONE;

	if (result < 0) {
		lb_warning("machine %s: %s: %s", t->order.machine_name, t->order.kind, lb_err_text());
		lb_target_task_say(t, "%s", lb_err_text());
	} else {
		lb_notice("machine %s: %s is done", t->order.machine_name, t->order.kind);
	}
	keep_outcome(t, state);
	lb_target_task_set(t, "state", json_string(state));
}

static void *run(void *arg)
{
	struct lb_target_task *t = arg;
	const struct kind *kind = find_kind(t->order.kind);
	int r;

	lb_err_clear();
	r = kind == NULL ? lb_fail(-ENOTSUP, "this target server knows no order \"%s\"; upgrade it", t->order.kind)
			 : try_until_done(t, kind);
	if (!t->stop || r == 0)
		conclude(t, r);
	LB_LOCK_SCOPE(&t->lock);
	lb_keyring_wipe(&t->order.keys);
	t->ended = true;
	return NULL;
}

static int prepare(struct lb_target_task *t)
{
	int r;

	if ((size_t)snprintf(t->folder, sizeof(t->folder), "%s/machines/%s", t->settings->state_folder,
			     t->order.machine_text) >= sizeof(t->folder))
		return lb_fail(-ENAMETOOLONG, "state_folder is too long");
	r = lb_folder_make(t->env, t->folder, 0700);
	if (r < 0)
		return r;
	r = lb_target_outcome_read(t->env, t->folder, t->order.id, &t->report);
	if (r == -ENOENT)
		t->report = json_pack("{s:s,s:s,s:s}", "id", t->order.id, "state", "running", "text", "begins");
	else if (r == 0)
		t->ended = true;
	else
		return r;
	return t->report != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an order");
}

int lb_target_task_start(struct lb_env *env, const struct lb_target_settings *settings, const char *vault_url,
			 const struct lb_uuid *vault_id, struct lb_target_order *order,
			 struct lb_target_task **ret_task)
{
	_cleanup_(lb_target_task_freep) struct lb_target_task *t = calloc(1, sizeof(*t));
	int r;

	if (t == NULL)
		return lb_fail(-ENOMEM, "out of memory for an order");
	pthread_mutex_init(&t->lock, NULL);
	t->env = env;
	t->settings = settings;
	t->vault_id = *vault_id;
	t->order = *order;
	memset(order, 0, sizeof(*order));
	t->vault_url = strdup(vault_url);
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->vault_url == NULL || t->wake_fd < 0)
		return lb_fail(-ENOMEM, "no room for an order");
	r = prepare(t);
	if (r < 0)
		return r;
	if (t->ended && strcmp(json_string_value(json_object_get(t->report, "state")), DONE) == 0)
		let_go(t); /* it was killed between the two */
	if (!t->ended) {
		r = -pthread_create(&t->thread, NULL, run, t);
		t->running = r == 0;
		if (r < 0)
			lb_fail(r, "can't start a thread: %s", strerror(-r));
	}
	if (r < 0)
		return r;
	*ret_task = lb_steal_ptr(t);
	return 0;
}

void lb_target_task_stop(struct lb_target_task *t)
{
	uint64_t one = 1;

	t->stop = true;
	(void)!write(t->wake_fd, &one, sizeof(one));
}

void lb_target_task_join(struct lb_target_task *t)
{
	if (t->running)
		pthread_join(t->thread, NULL);
	t->running = false;
}

void lb_target_task_free(struct lb_target_task *t)
{
	lb_target_task_join(t);
	lb_target_order_clear(&t->order);
	json_decref(t->report);
	free(t->vault_url);
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	pthread_mutex_destroy(&t->lock);
	free(t);
}
