/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/readahead.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"

#define STREAMS 4
#define THREADS 8
#define ASKED_MAX 128
#define RUN_BYTES_MIN LB_KIB(128) /* read in order before anything is read ahead */
#define DISORDER_READS 8          /* requests sent in order by one client arrive in some disorder */
#define WINDOW_PER_RUN 4

struct stream {
	bool used;
	uint16_t disk;
	uint64_t next_bytes, run_bytes,
		ahead_bytes; /* the end of what was read; how much in order; of what was asked */
	uint64_t touched;
};

struct lb_readahead {
	const struct lb_readahead_ops *ops;
	void *arg;
	size_t window_bytes;
	pthread_mutex_t lock;
	pthread_cond_t asked;
	struct stream streams[STREAMS];
	uint64_t touches;
	uint64_t keys[ASKED_MAX];
	uint32_t first, n;
	pthread_t threads[THREADS];
	uint32_t n_threads;
	bool started, over;
};

int lb_readahead_new(size_t window_bytes, const struct lb_readahead_ops *ops, void *arg,
		     struct lb_readahead **ret_readahead)
{
	struct lb_readahead *ra = calloc(1, sizeof(*ra));

	if (ra == NULL)
		return lb_fail(-ENOMEM, "out of memory for reading ahead");
	ra->ops = ops;
	ra->arg = arg;
	ra->window_bytes = window_bytes;
	pthread_mutex_init(&ra->lock, NULL);
	pthread_cond_init(&ra->asked, NULL);
	*ret_readahead = ra;
	return 0;
}

void lb_readahead_free(struct lb_readahead *ra)
{
	pthread_mutex_lock(&ra->lock);
	ra->over = true;
	pthread_cond_broadcast(&ra->asked);
	pthread_mutex_unlock(&ra->lock);
	for (uint32_t i = 0; i < ra->n_threads; i++)
		pthread_join(ra->threads[i], NULL);
	pthread_cond_destroy(&ra->asked);
	pthread_mutex_destroy(&ra->lock);
	free(ra);
}

static void *work(void *arg)
{
	struct lb_readahead *ra = arg;

	pthread_mutex_lock(&ra->lock);
	while (!ra->over) {
		uint64_t key;

		if (ra->n == 0) {
			pthread_cond_wait(&ra->asked, &ra->lock);
			continue;
		}
		key = ra->keys[ra->first];
		ra->first = (ra->first + 1) % ASKED_MAX;
		ra->n--;
		pthread_mutex_unlock(&ra->lock);
		ra->ops->load(ra->arg, key);
		pthread_mutex_lock(&ra->lock);
	}
	pthread_mutex_unlock(&ra->lock);
	return NULL;
}

/* Under the lock. Without threads nothing is read ahead, which costs only time. */
static void start(struct lb_readahead *ra)
{
	if (ra->started)
		return;
	ra->started = true;
	while (ra->n_threads < THREADS && pthread_create(&ra->threads[ra->n_threads], NULL, work, ra) == 0)
		ra->n_threads++;
}

int lb_readahead_ask(struct lb_readahead *ra, uint64_t key)
{
	LB_LOCK_SCOPE(&ra->lock);
	start(ra);
	if (ra->n == ASKED_MAX || ra->n_threads == 0)
		return -EAGAIN;
	ra->keys[(ra->first + ra->n++) % ASKED_MAX] = key;
	pthread_cond_signal(&ra->asked);
	return 0;
}

/* The stream that a read goes on with; otherwise the one least lately used begins anew there. */
static struct stream *stream_of(struct lb_readahead *ra, uint16_t disk, uint64_t offset_bytes, size_t size_bytes)
{
	uint64_t disorder_bytes = LB_MIN((uint64_t)size_bytes * DISORDER_READS, (uint64_t)ra->window_bytes);
	struct stream *oldest = &ra->streams[0];

	for (uint32_t i = 0; i < STREAMS; i++) {
		struct stream *s = &ra->streams[i];

		if (s->used && s->disk == disk && offset_bytes + disorder_bytes >= s->next_bytes &&
		    offset_bytes <= s->next_bytes + disorder_bytes)
			return s;
		if (s->touched < oldest->touched)
			oldest = s;
	}
	*oldest = (struct stream){.used = true, .disk = disk, .next_bytes = offset_bytes, .ahead_bytes = offset_bytes};
	return oldest;
}

/* Notes a read; whether [from, to) should be asked for. */
static bool advance(struct lb_readahead *ra, struct stream *s, uint64_t end_bytes, size_t size_bytes,
		    uint64_t *ret_from, uint64_t *ret_to)
{
	uint64_t window;

	s->touched = ++ra->touches;
	s->run_bytes += size_bytes;
	s->next_bytes = LB_MAX(s->next_bytes, end_bytes);
	if (s->run_bytes < RUN_BYTES_MIN)
		return false;
	window = LB_MIN(s->run_bytes * WINDOW_PER_RUN, (uint64_t)ra->window_bytes);
	s->ahead_bytes = LB_MAX(s->ahead_bytes, s->next_bytes);
	if (s->ahead_bytes - s->next_bytes > window / 2)
		return false;
	*ret_from = s->ahead_bytes;
	*ret_to = s->ahead_bytes = s->next_bytes + window;
	return true;
}

void lb_readahead_note(struct lb_readahead *ra, uint16_t disk, uint64_t offset_bytes, size_t size_bytes)
{
	uint64_t from_bytes, to_bytes, reached_bytes;
	struct stream *s;
	bool wanted;

	pthread_mutex_lock(&ra->lock);
	s = stream_of(ra, disk, offset_bytes, size_bytes);
	wanted = advance(ra, s, offset_bytes + size_bytes, size_bytes, &from_bytes, &to_bytes);
	pthread_mutex_unlock(&ra->lock);
	if (!wanted)
		return;
	reached_bytes = ra->ops->plan(ra->arg, disk, from_bytes, to_bytes);
	pthread_mutex_lock(&ra->lock);
	if (s->disk == disk && s->ahead_bytes == to_bytes)
		s->ahead_bytes = reached_bytes;
	pthread_mutex_unlock(&ra->lock);
}
