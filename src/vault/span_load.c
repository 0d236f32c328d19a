/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The maps of many spans, laid over one another. Several threads fetch small ones ahead, so that a distant store's
 * latency counts a few times and not once a span; one lays them in their order.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/span.h"

#define THREADS 8
#define AHEAD 16                   /* spans fetched, not yet laid */
#define AHEAD_MAP_BYTES (1u << 20) /* as it rests; larger ones are fetched when they are due, by threads of their own  \
				    */
#define SPANS_WITHOUT_THREADS 4
#define INSERT_RATIO 16 /* inserting an extent costs about so many times passing one */
#define PILE_MAX 40     /* sizes double: more than fit into LB_MAP_EXTENTS_MAX */

/* ---- laying ---- */

/* Lays `above` over the map below it: inserted where it is small, in one pass over both where it is not. */
static int lay(struct lb_map **map, struct lb_map *above)
{
	_cleanup_(lb_map_freep) struct lb_map *one = above;

	if (lb_map_extents(one) * INSERT_RATIO < lb_map_extents(*map))
		return lb_map_overlay(*map, one);
	return lb_map_merge(lb_steal_ptr(*map), lb_steal_ptr(one), map);
}

/* Maps that wait to be laid over one another, each more than twice as large as the next: all extents are passed a few
 * times, and not once a span. */
struct pile {
	struct lb_map *maps[PILE_MAX];
	size_t n;
};

static void pile_clear(struct pile *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->maps[i] != NULL)
			lb_map_free(p->maps[i]);
}

static int pile_settle(struct pile *p, bool all)
{
	int r = 0;

	while (r == 0 && p->n > 1 &&
	       (all || p->n == PILE_MAX ||
		lb_map_extents(p->maps[p->n - 2]) <= 2 * lb_map_extents(p->maps[p->n - 1]))) {
		r = lay(&p->maps[p->n - 2], lb_steal_ptr(p->maps[p->n - 1]));
		p->n--;
	}
	return r;
}

/* ---- fetching ---- */

struct fetched {
	bool ready;
	int r;
	char text[LB_ERR_TEXT_BYTES_MAX]; /* of a failure: texts are kept per thread */
	struct lb_map *map;               /* NULL: too large to be fetched ahead */
};

struct fetching {
	struct lb_vault *v;
	const struct lb_uuid *machine;
	const struct lb_span *spans;
	size_t n;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	size_t next, laid;
	bool over;
	struct fetched fetched[AHEAD];
	pthread_t threads[THREADS];
	uint32_t n_threads;
};

static void *fetch(void *arg)
{
	struct fetching *f = arg;

	pthread_mutex_lock(&f->lock);
	while (!f->over && f->next < f->n) {
		const struct lb_span *span = &f->spans[f->next];
		struct fetched *to = &f->fetched[f->next % AHEAD];

		if (f->next >= f->laid + AHEAD) {
			pthread_cond_wait(&f->moved, &f->lock);
			continue;
		}
		f->next++;
		pthread_mutex_unlock(&f->lock);
		to->r = span->map_bytes > AHEAD_MAP_BYTES ? 0 : lb_span_load(f->v, f->machine, span, &to->map);
		if (to->r < 0)
			snprintf(to->text, sizeof(to->text), "%s", lb_err_text());
		pthread_mutex_lock(&f->lock);
		to->ready = true;
		pthread_cond_broadcast(&f->moved);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static void fetching_begin(struct fetching *f)
{
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->moved, NULL);
	while (f->n > SPANS_WITHOUT_THREADS && f->n_threads < THREADS &&
	       pthread_create(&f->threads[f->n_threads], NULL, fetch, f) == 0)
		f->n_threads++;
}

static void fetching_end(struct fetching *f)
{
	pthread_mutex_lock(&f->lock);
	f->over = true;
	pthread_cond_broadcast(&f->moved);
	pthread_mutex_unlock(&f->lock);
	for (uint32_t i = 0; i < f->n_threads; i++)
		pthread_join(f->threads[i], NULL);
	for (size_t i = 0; i < AHEAD; i++)
		if (f->fetched[i].map != NULL)
			lb_map_free(f->fetched[i].map);
	pthread_cond_destroy(&f->moved);
	pthread_mutex_destroy(&f->lock);
}

static int take(struct fetching *f, size_t i, struct lb_map **ret_map)
{
	struct fetched *at = &f->fetched[i % AHEAD];
	int r;

	if (f->n_threads == 0)
		return lb_span_load(f->v, f->machine, &f->spans[i], ret_map);
	pthread_mutex_lock(&f->lock);
	while (!at->ready)
		pthread_cond_wait(&f->moved, &f->lock);
	pthread_mutex_unlock(&f->lock);
	r = at->r < 0 ? lb_fail(at->r, "%s", at->text) : 0;
	if (r == 0 && at->map == NULL)
		r = lb_span_load(f->v, f->machine, &f->spans[i], ret_map);
	else if (r == 0)
		*ret_map = lb_steal_ptr(at->map);
	pthread_mutex_lock(&f->lock);
	at->ready = false;
	f->laid++;
	pthread_cond_broadcast(&f->moved);
	pthread_mutex_unlock(&f->lock);
	return r;
}

int lb_spans_load(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_manifest *m, size_t last,
		  struct lb_map **ret_map, uint64_t *ret_bytes)
{
	_cleanup_(fetching_end) struct fetching f = {
		.v = v, .machine = machine, .spans = m->spans, .n = last < m->n_spans ? last + 1 : m->n_spans};
	_cleanup_(pile_clear) struct pile pile = {0};
	uint64_t bytes = 0;
	int r = 0;

	fetching_begin(&f);
	if (f.n == 0)
		return lb_map_new(ret_map);
	for (size_t i = 0; r == 0 && i < f.n; i++) {
		r = take(&f, i, &pile.maps[pile.n]);
		if (r < 0)
			break;
		pile.n++;
		bytes += m->spans[i].map_bytes;
		r = pile_settle(&pile, false);
	}
	if (r == 0)
		r = pile_settle(&pile, true);
	if (r < 0)
		return r;
	*ret_map = lb_steal_ptr(pile.maps[0]);
	*ret_bytes += bytes;
	return 0;
}
