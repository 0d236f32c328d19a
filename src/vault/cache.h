/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A bounded cache of loaded things, least recently used out first. What is in use is never put out, so that it holds at
 * most its ceiling plus what the threads are using. Thread-safe; a thing that several ask for is loaded once.
 */
#include <stddef.h>
#include <stdint.h>

struct lb_cache;
struct lb_cache_entry;

struct lb_cache_ops {
	/* Called without locks held. `ret_size_bytes` counts against the ceiling. */
	int (*load)(void *arg, uint64_t key, void **ret_data, size_t *ret_size_bytes);
	void (*unload)(void *arg, uint64_t key, void *data);
};

int lb_cache_new(size_t size_bytes_max, const struct lb_cache_ops *ops, void *arg, struct lb_cache **ret_cache);
/* Nothing may be in use. */
void lb_cache_free(struct lb_cache *c);
/* Holds the thing until lb_cache_release(). A failed load is not kept. */
int lb_cache_hold(struct lb_cache *c, uint64_t key, struct lb_cache_entry **ret_entry);
void *lb_cache_data(const struct lb_cache_entry *e);
void lb_cache_release(struct lb_cache *c, struct lb_cache_entry *e);
