/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/group_part.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "hrl/hrl.h"
#include "mobility/consistent.h"

#define TURN_MS 20000 /* a point of this machine's own may be under way */
#define SCRIPTS_MS 60000
#define POST_WITHIN_MS 120000

struct lb_group_part {
	struct lb_env *env;
	struct lb_mark *mark;
	const char *capture_socket;
	int wake_fd;
	bool has_turn, ended, told;
	struct lb_consistent *c; /* NULL once it is thawed */
	pthread_t ender;         /* runs the post-scripts while the point goes on */
	bool has_ender;
	struct lb_marked marked;
};

int lb_group_part_new(struct lb_env *env, struct lb_mark *mark, const char *capture_socket, int wake_fd,
		      struct lb_group_part **ret_part)
{
	struct lb_group_part *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return lb_fail(-ENOMEM, "out of memory for a replication group");
	*p = (struct lb_group_part){.env = env, .mark = mark, .capture_socket = capture_socket, .wake_fd = wake_fd};
	*ret_part = p;
	return 0;
}

void lb_group_part_free(struct lb_group_part *p)
{
	lb_group_part_end(p);
	free(p);
}

int lb_group_part_prepare(struct lb_group_part *p, bool app)
{
	const struct lb_consistent_options options = {.env = p->env,
						      .mark = p->mark,
						      .capture_socket = p->capture_socket,
						      .scripts = app,
						      .whole = true,
						      .scripts_ms = SCRIPTS_MS,
						      .post_within_ms = POST_WITHIN_MS};
	int r;

	r = lb_turn_take(TURN_MS);
	if (r < 0)
		return r;
	p->has_turn = true;
	p->told = false;
	return lb_consistent_prepare(&options, &p->c);
}

int lb_group_part_settle(struct lb_group_part *p, uint32_t max_ms)
{
	return p->c == NULL ? -EPROTO : lb_consistent_settle(p->c, max_ms);
}

int lb_group_part_freeze(struct lb_group_part *p, uint32_t max_ms)
{
	return p->c == NULL ? -EPROTO : lb_consistent_freeze(p->c, max_ms);
}

int lb_group_part_mark(struct lb_group_part *p)
{
	return p->c == NULL ? -EPROTO : lb_consistent_mark(p->c);
}

static void *end_scripts(void *arg)
{
	if (lb_consistent_end(arg) < 0)
		lb_warning("%s", lb_err_text());
	return NULL;
}

/* The applications go on at once, the point's journal follows. */
static void end_apart(struct lb_group_part *p)
{
	struct lb_consistent *c = lb_steal_ptr(p->c);

	if (pthread_create(&p->ender, NULL, end_scripts, c) == 0)
		p->has_ender = true;
	else
		end_scripts(c);
}

int lb_group_part_thaw(struct lb_group_part *p, int64_t *ret_frozen_ns)
{
	int r;

	if (p->c == NULL)
		return -EPROTO;
	r = lb_consistent_thaw(p->c, ret_frozen_ns);
	end_apart(p);
	return r;
}

int lb_group_part_commit(struct lb_group_part *p, bool app)
{
	const uint64_t one = 1;
	int r;

	r = lb_mark_release(p->mark, LB_HRL_MARK_GROUP | (app ? LB_HRL_MARK_APP : 0));
	if (r == 0 && write(p->wake_fd, &one, sizeof(one)) < 0)
		lb_debug("the session could not be woken: %m");
	return r;
}

int lb_group_part_result(struct lb_group_part *p, uint64_t *ret_epoch, uint64_t *ret_seq)
{
	int r;

	if (!p->told) {
		r = lb_mark_poll(p->mark, &p->marked);
		if (r < 0)
			return r;
		p->told = true;
	}
	*ret_epoch = p->marked.epoch;
	*ret_seq = p->marked.seq;
	return 0;
}

void lb_group_part_end(struct lb_group_part *p)
{
	if (p->c != NULL)
		end_scripts(lb_steal_ptr(p->c));
	if (p->has_ender)
		pthread_join(p->ender, NULL);
	p->has_ender = false;
	if (!p->has_turn)
		return;
	lb_mark_cancel(p->mark);
	p->has_turn = false;
	lb_turn_give();
}
