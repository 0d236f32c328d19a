/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The durable cache: acknowledged segments that wait for the vault.
 *
 *     <folder>/<machine>/<%08x epoch>-<%010x seq>.hrl   a sealed segment
 *     <folder>/<machine>/<%08x epoch>.epoch             how the epoch began, sealed under the machine's key
 *     <folder>/<machine>/....bad                        what was found damaged; kept for a person to look at
 *     <folder>/lock                                     held by the one process server that works here
 *
 * Files appear whole and durable or not at all. The room is bounded by `bytes_max`: up to LB_CACHE_SOFT_PERCENT of it
 * whoever needs it takes; what is left is shared out evenly, so that no machine can stall the others.
 * Thread-safe; one machine's files are changed by one thread at a time.
 */
#include <pthread.h>

#include "base/env.h"
#include "process/machine.h"

#define LB_CACHE_SOFT_PERCENT 80
#define LB_CACHE_BLOCK_BYTES 4096u    /* what a file takes is rounded up to it */
#define LB_CACHE_FILES_MAX (1u << 20) /* of one machine */

struct lb_process_cache {
	struct lb_env *env;
	char *folder;
	int lock_fd;
	uint64_t bytes_max;
	pthread_mutex_t lock;
	uint64_t bytes;
	uint32_t machines;
};

/*
 * Makes the folder, removes leftovers of interrupted writes and counts what is there. -EBUSY while another process
 * server works in it: what that one still acknowledges, this one would not know of.
 */
int lb_process_cache_open(struct lb_env *env, const char *folder, uint64_t bytes_max,
			  struct lb_process_cache *ret_cache);
void lb_process_cache_close(struct lb_process_cache *c);

/* For how many machines the reserve is shared out. */
void lb_process_cache_share(struct lb_process_cache *c, uint32_t machines);
uint64_t lb_process_cache_bytes(struct lb_process_cache *c);
/* Room for `size_bytes` of a machine that has `machine_bytes` in the cache; -EAGAIN: later. */
int lb_process_cache_admit(struct lb_process_cache *c, uint64_t machine_bytes, size_t size_bytes);
void lb_process_cache_give_back(struct lb_process_cache *c, size_t size_bytes);
uint64_t lb_process_cache_rounded(uint64_t size_bytes);

/* Durable when it returns. -ENOSPC: the disk is full, nothing was kept. */
int lb_process_cache_segment_put(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_position *at,
				 const void *data, size_t size_bytes);
int lb_process_cache_segment_get(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_position *at,
				 struct lb_buf *out);
/* Header and index only; `ret_size_bytes` is the file's. -EBADMSG when the file is not as long as its header says. */
int lb_process_cache_segment_head(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_position *at,
				  struct lb_buf *out, uint64_t *ret_size_bytes);
int lb_process_cache_segment_size(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_position *at,
				  uint64_t *ret_size_bytes);
int lb_process_cache_segment_remove(struct lb_process_cache *c, const struct lb_machine *m,
				    const struct lb_position *at);

int lb_process_cache_record_put(struct lb_process_cache *c, const struct lb_machine *m, uint64_t epoch,
				const void *data, size_t size_bytes);
int lb_process_cache_record_get(struct lb_process_cache *c, const struct lb_machine *m, uint64_t epoch,
				struct lb_buf *out);
int lb_process_cache_record_remove(struct lb_process_cache *c, const struct lb_machine *m, uint64_t epoch);

struct lb_process_cache_file {
	struct lb_position at;
	bool record;
};
/* What the machine has, records of an epoch before its segments, in order. free() it. */
int lb_process_cache_scan(struct lb_process_cache *c, const struct lb_machine *m,
			  struct lb_process_cache_file **ret_files, size_t *ret_n);
/* Renames to *.bad: out of the way and not lost. */
int lb_process_cache_put_aside(struct lb_process_cache *c, const struct lb_machine *m,
			       const struct lb_process_cache_file *file);
