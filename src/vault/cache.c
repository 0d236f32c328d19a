/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/err.h"

#define BUCKETS 4096 /* frames are 256 KiB: a chain is short up to a GiB */

struct lb_cache_entry {
	uint64_t key;
	void *data;
	size_t size_bytes;
	unsigned int users;
	bool loading;
	struct lb_cache_entry *chain;
	struct lb_cache_entry *older, *newer;
};

struct lb_cache {
	const struct lb_cache_ops *ops;
	void *arg;
	size_t size_bytes_max;
	pthread_mutex_t lock;
	pthread_cond_t loaded;
	size_t size_bytes;
	struct lb_cache_entry *bucket[BUCKETS];
	struct lb_cache_entry *oldest, *newest;
};

int lb_cache_new(size_t size_bytes_max, const struct lb_cache_ops *ops, void *arg, struct lb_cache **ret_cache)
{
	struct lb_cache *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return lb_fail(-ENOMEM, "out of memory for a cache");
	c->ops = ops;
	c->arg = arg;
	c->size_bytes_max = size_bytes_max;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->loaded, NULL);
	*ret_cache = c;
	return 0;
}

static struct lb_cache_entry **slot_of(struct lb_cache *c, uint64_t key)
{
	struct lb_cache_entry **slot = &c->bucket[(key * UINT64_C(0x9e3779b97f4a7c15)) >> 52];

	while (*slot != NULL && (*slot)->key != key)
		slot = &(*slot)->chain;
	return slot;
}

static void lru_remove(struct lb_cache *c, struct lb_cache_entry *e)
{
	*(e->older != NULL ? &e->older->newer : &c->oldest) = e->newer;
	*(e->newer != NULL ? &e->newer->older : &c->newest) = e->older;
}

static void lru_append(struct lb_cache *c, struct lb_cache_entry *e)
{
	e->older = c->newest;
	e->newer = NULL;
	*(c->newest != NULL ? &c->newest->newer : &c->oldest) = e;
	c->newest = e;
}

static void drop(struct lb_cache *c, struct lb_cache_entry *e)
{
	struct lb_cache_entry **slot = slot_of(c, e->key);

	*slot = e->chain;
	lru_remove(c, e);
	c->size_bytes -= e->size_bytes;
	if (e->data != NULL)
		c->ops->unload(c->arg, e->key, e->data);
	free(e);
}

static void evict(struct lb_cache *c)
{
	struct lb_cache_entry *e = c->oldest, *newer;

	for (; e != NULL && c->size_bytes > c->size_bytes_max; e = newer) {
		newer = e->newer;
		if (e->users == 0)
			drop(c, e);
	}
}

void lb_cache_free(struct lb_cache *c)
{
	while (c->oldest != NULL)
		drop(c, c->oldest);
	pthread_cond_destroy(&c->loaded);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* Under the lock, which is let go while the thing loads. */
static int load(struct lb_cache *c, struct lb_cache_entry **slot, uint64_t key, struct lb_cache_entry **ret_entry)
{
	struct lb_cache_entry *e = calloc(1, sizeof(*e));
	size_t size_bytes = 0;
	void *data = NULL;
	int r;

	if (e == NULL)
		return lb_fail(-ENOMEM, "out of memory for a cache");
	e->key = key;
	e->users = 1;
	e->loading = true;
	*slot = e;
	lru_append(c, e);
	pthread_mutex_unlock(&c->lock);
	r = c->ops->load(c->arg, key, &data, &size_bytes);
	pthread_mutex_lock(&c->lock);
	e->loading = false;
	pthread_cond_broadcast(&c->loaded);
	if (r < 0) {
		drop(c, e);
		return r;
	}
	e->data = data;
	e->size_bytes = sizeof(*e) + size_bytes;
	c->size_bytes += e->size_bytes;
	evict(c);
	*ret_entry = e;
	return 0;
}

int lb_cache_hold(struct lb_cache *c, uint64_t key, struct lb_cache_entry **ret_entry)
{
	struct lb_cache_entry **slot, *e;

	LB_LOCK_SCOPE(&c->lock);
	for (;;) {
		slot = slot_of(c, key);
		e = *slot;
		if (e == NULL)
			return load(c, slot, key, ret_entry);
		if (!e->loading)
			break;
		pthread_cond_wait(&c->loaded, &c->lock);
	}
	e->users++;
	lru_remove(c, e);
	lru_append(c, e);
	*ret_entry = e;
	return 0;
}

void *lb_cache_data(const struct lb_cache_entry *e)
{
	return e->data;
}

void lb_cache_release(struct lb_cache *c, struct lb_cache_entry *e)
{
	LB_LOCK_SCOPE(&c->lock);
	e->users--;
	evict(c);
}
