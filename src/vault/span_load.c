/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The maps of many spans, laid over one another. Several threads fetch and lay groups of neighbours, so that a distant
 * store's latency counts a few times and not once a span; one lays the groups in their order.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/span.h"

#define THREADS 8
#define AHEAD 8 /* groups of spans, not yet laid */
#define GROUP_SPANS 8
#define GROUP_MAP_BYTES (2u << 20) /* as they rest, five times that in memory; a larger map is a group of its own */
#define INSERT_RATIO 16            /* inserting an extent costs about so many times passing one */
#define PILE_MAX 40                /* sizes double: more than fit into LB_MAP_EXTENTS_MAX */

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

static int pile_take(struct pile *p, struct lb_map *map)
{
	p->maps[p->n++] = map;
	return pile_settle(p, false);
}

/* ---- fetching ---- */

/* Spans [from, from + n), laid over one another. */
struct group {
	size_t from, n;
	bool ready;
	int r;
	char text[LB_ERR_TEXT_BYTES_MAX]; /* of a failure: texts are kept per thread */
	struct lb_map *map;
};

struct fetching {
	struct lb_vault *v;
	const struct lb_uuid *machine;
	const struct lb_span *spans;
	size_t n, next; /* the first that no group has */
	pthread_mutex_t lock;
	pthread_cond_t moved;
	size_t begun, laid; /* groups */
	bool over;
	struct group groups[AHEAD];
	pthread_t threads[THREADS];
	uint32_t n_threads;
};

static int load_group(const struct fetching *f, struct group *g)
{
	_cleanup_(pile_clear) struct pile pile = {0};
	int r = 0;

	for (size_t i = 0; r == 0 && i < g->n; i++) {
		struct lb_map *one = NULL;

		r = lb_span_load(f->v, f->machine, &f->spans[g->from + i], &one);
		if (r == 0)
			r = pile_take(&pile, one);
	}
	if (r == 0)
		r = pile_settle(&pile, true);
	if (r == 0)
		g->map = lb_steal_ptr(pile.maps[0]);
	return r;
}

/* Under the lock, where `next` is in reach. */
static struct group *begin_group(struct fetching *f)
{
	struct group *g = &f->groups[f->begun++ % AHEAD];
	uint64_t bytes = f->spans[f->next].map_bytes;

	*g = (struct group){.from = f->next++, .n = 1};
	while (f->next < f->n && g->n < GROUP_SPANS && bytes + f->spans[f->next].map_bytes <= GROUP_MAP_BYTES) {
		bytes += f->spans[f->next++].map_bytes;
		g->n++;
	}
	return g;
}

static void *fetch(void *arg)
{
	struct fetching *f = arg;

	pthread_mutex_lock(&f->lock);
	while (!f->over && f->next < f->n) {
		struct group *g;

		if (f->begun == f->laid + AHEAD) {
			pthread_cond_wait(&f->moved, &f->lock);
			continue;
		}
		g = begin_group(f);
		pthread_mutex_unlock(&f->lock);
		g->r = load_group(f, g);
		if (g->r < 0)
			snprintf(g->text, sizeof(g->text), "%s", lb_err_text());
		pthread_mutex_lock(&f->lock);
		g->ready = true;
		pthread_cond_broadcast(&f->moved);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static void fetching_begin(struct fetching *f)
{
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->moved, NULL);
	while (f->n > GROUP_SPANS && f->n_threads < THREADS &&
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
		if (f->groups[i].map != NULL)
			lb_map_free(f->groups[i].map);
	pthread_cond_destroy(&f->moved);
	pthread_mutex_destroy(&f->lock);
}

/* The next group's map; how many spans it has goes to `ret_n`. */
static int take(struct fetching *f, size_t *ret_n, struct lb_map **ret_map)
{
	struct group *g = &f->groups[f->laid % AHEAD];

	if (f->n_threads == 0) {
		g = begin_group(f);
		g->r = load_group(f, g);
	}
	pthread_mutex_lock(&f->lock);
	while (f->n_threads > 0 && (f->laid == f->begun || !g->ready))
		pthread_cond_wait(&f->moved, &f->lock);
	pthread_mutex_unlock(&f->lock);
	if (g->r < 0)
		return f->n_threads == 0 ? g->r : lb_fail(g->r, "%s", g->text);
	*ret_map = lb_steal_ptr(g->map);
	*ret_n = g->n;
	pthread_mutex_lock(&f->lock);
	g->ready = false;
	f->laid++;
	pthread_cond_broadcast(&f->moved);
	pthread_mutex_unlock(&f->lock);
	return 0;
}

int lb_spans_load(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_manifest *m, size_t last,
		  struct lb_map **ret_map, uint64_t *ret_bytes)
{
	struct fetching f = {
		.v = v, .machine = machine, .spans = m->spans, .n = last < m->n_spans ? last + 1 : m->n_spans};
	_cleanup_(pile_clear) struct pile pile = {0};
	struct lb_map *map = NULL;
	size_t n = 0;
	int r = 0;

	if (f.n == 0)
		return lb_map_new(ret_map);
	fetching_begin(&f);
	for (size_t done = 0; r == 0 && done < f.n; done += n) {
		r = take(&f, &n, &map);
		if (r == 0)
			r = pile_take(&pile, map);
	}
	fetching_end(&f);
	if (r == 0)
		r = pile_settle(&pile, true);
	if (r < 0)
		return r;
	for (size_t i = 0; i < f.n; i++)
		*ret_bytes += m->spans[i].map_bytes;
	*ret_map = lb_steal_ptr(pile.maps[0]);
	return 0;
}
