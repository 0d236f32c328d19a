/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/consistent.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"
#include "capture/freeze.h"
#include "capture/runner.h"
#include "mobility/mounts.h"
#include "mobility/quiet.h"

#define NOTE_BYTES 256

struct lb_consistent {
	struct lb_consistent_options o;
	struct lb_freezer *freezer; /* NULL: no filesystem to freeze */
	struct lb_mount mounts[LB_FREEZE_MOUNTS_MAX];
	size_t n_mounts;
	bool scripts_ran, quiet, marked;
	char note[NOTE_BYTES];
};

static pthread_mutex_t turn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_free = PTHREAD_COND_INITIALIZER;
static bool turn_taken;

int lb_turn_take(uint32_t timeout_ms)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	LB_LOCK_SCOPE(&turn_lock);
	while (turn_taken && r == 0)
		r = pthread_cond_clockwait(&turn_free, &turn_lock, CLOCK_MONOTONIC, &until);
	if (turn_taken)
		return lb_fail(-EBUSY, "another point of this machine is under way");
	turn_taken = true;
	return 0;
}

void lb_turn_give(void)
{
	LB_LOCK_SCOPE(&turn_lock);

	turn_taken = false;
	pthread_cond_signal(&turn_free);
}

static int find_filesystems(struct lb_consistent *c)
{
	char names[LB_CAPTURE_DISKS_MAX][LB_CAPTURE_NAME_BYTES];
	const char *list[LB_CAPTURE_DISKS_MAX];
	unsigned int n;
	int r;

	r = lb_mark_disks(c->o.mark, names, &n);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < n; i++)
		list[i] = names[i];
	if (c->o.whole) {
		r = lb_raw_writers(c->o.capture_socket, list, n);
		if (r < 0)
			return r;
	}
	return lb_mounts_of_disks(c->o.env, "", list, n, c->mounts, LB_FREEZE_MOUNTS_MAX, &c->n_mounts);
}

static int run_pre(struct lb_consistent *c)
{
	if (!c->o.scripts)
		return 0;
	c->scripts_ran = true;
	return lb_scripts_pre(c->o.capture_socket, c->o.scripts_ms, c->o.post_within_ms);
}

static int make_freezer(struct lb_consistent *c)
{
	const char *paths[LB_FREEZE_MOUNTS_MAX];

	if (c->n_mounts == 0)
		return 0;
	for (size_t i = 0; i < c->n_mounts; i++)
		paths[i] = c->mounts[i].path;
	return lb_freezer_new(c->o.capture_socket, paths, c->n_mounts, &c->freezer);
}

int lb_consistent_prepare(const struct lb_consistent_options *options, struct lb_consistent **ret_c)
{
	struct lb_consistent *c = calloc(1, sizeof(*c));
	char text[LB_ERR_TEXT_BYTES_MAX];
	int r;

	if (c == NULL)
		return lb_fail(-ENOMEM, "out of memory for a consistent point");
	c->o = *options;
	r = find_filesystems(c);
	if (r == 0)
		r = run_pre(c);
	if (r == 0)
		r = make_freezer(c);
	if (r < 0) {
		snprintf(text, sizeof(text), "%s", lb_err_text());
		(void)lb_consistent_end(c);
		return lb_fail(r, "%s", text);
	}
	*ret_c = c;
	return 0;
}

static void note_skipped(struct lb_consistent *c, uint64_t skipped)
{
	for (size_t i = 0; i < c->n_mounts; i++)
		if (skipped & UINT64_C(1) << i)
			snprintf(c->note + strlen(c->note), sizeof(c->note) - strlen(c->note),
				 "%s%.80s (%s) can't be frozen by its kind and was only synced",
				 c->note[0] != '\0' ? "; " : "", c->mounts[i].path, c->mounts[i].type);
}

int lb_consistent_settle(struct lb_consistent *c, uint32_t max_ms)
{
	return c->freezer != NULL ? lb_freezer_sync(c->freezer, max_ms) : 0;
}

int lb_consistent_freeze(struct lb_consistent *c, uint32_t max_ms)
{
	uint64_t skipped = 0;
	int r;

	lb_quiet_begin();
	c->quiet = true;
	if (c->freezer == NULL) {
		snprintf(c->note, sizeof(c->note), "no filesystem rests on the protected disks: nothing was frozen");
		return 0;
	}
	r = lb_freezer_freeze(c->freezer, max_ms, &skipped);
	if (r == 0)
		note_skipped(c, skipped);
	return r;
}

int lb_consistent_mark(struct lb_consistent *c)
{
	int r = lb_mark_set(c->o.mark);

	c->marked = r == 0;
	return r;
}

static void let_files_go(struct lb_consistent *c)
{
	if (c->quiet)
		lb_quiet_end();
	c->quiet = false;
}

int lb_consistent_thaw(struct lb_consistent *c, int64_t *ret_frozen_ns)
{
	int r = 0;

	*ret_frozen_ns = 0;
	if (c->freezer != NULL) {
		r = lb_freezer_thaw(c->freezer, ret_frozen_ns);
		lb_freezer_free(lb_steal_ptr(c->freezer));
	}
	let_files_go(c);
	if (r < 0 && c->marked) {
		lb_mark_cancel(c->o.mark);
		c->marked = false;
	}
	return r;
}

const char *lb_consistent_note(const struct lb_consistent *c)
{
	return c->note;
}

int lb_consistent_end(struct lb_consistent *c)
{
	int r = 0;

	if (c->freezer != NULL)
		lb_freezer_free(c->freezer);
	let_files_go(c);
	if (c->scripts_ran)
		r = lb_scripts_post(c->o.capture_socket, c->o.scripts_ms);
	free(c);
	return r;
}
