/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a checkpoint back. Frames stand alone: several threads fetch and open them ahead, so that a distant store's
 * latency counts once and not once a frame; one applies them in their order. Small checkpoints take no threads.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <zstd.h>

#include "base/err.h"
#include "vault/checkpoint_format.h"

#define THREADS 4
#define FRAMES_AHEAD 8 /* opened, not yet applied: 1 MiB each */
#define FRAMES_WITHOUT_THREADS 4

struct opened {
	bool ready;
	int r;
	char text[LB_ERR_TEXT_BYTES_MAX]; /* of a failure: texts are kept per thread */
	uint8_t *raw;                     /* LB_CHECKPOINT_FRAME_BYTES, made when it is first used */
	size_t raw_bytes;
};

struct load {
	struct lb_vault *v;
	const struct lb_checkpoint *c;
	const struct lb_key *key;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint32_t next, applied; /* the frame to be fetched; how many are in the map */
	bool over;
	struct opened opened[FRAMES_AHEAD];
	pthread_t threads[THREADS];
	uint32_t n_threads;
};

/* What one thread opens frames with. */
struct opener {
	struct lb_gcm *gcm;
	struct lb_buf stored;
};

static int opener_init(const struct load *l, struct opener *o)
{
	*o = (struct opener){.stored = LB_BUF(LB_CHECKPOINT_STORED_BYTES_MAX)};
	return lb_seal_cipher(l->key, l->c->salt, "lifeboat checkpoint frames 1", &o->gcm);
}

static void opener_clear(struct opener *o)
{
	if (o->gcm != NULL)
		lb_gcm_free(o->gcm);
	lb_buf_free(&o->stored);
}

static int open_frame(const struct load *l, struct opener *o, uint32_t i, struct opened *ret)
{
	uint8_t nonce[LB_NONCE_BYTES], aad[LB_CHECKPOINT_AAD_BYTES];
	const struct lb_checkpoint_frame *f = &l->c->frames[i];
	char name[LB_OBJECT_NAME_BYTES];
	size_t n;
	int r;

	if (ret->raw == NULL && (ret->raw = malloc(LB_CHECKPOINT_FRAME_BYTES)) == NULL)
		return lb_fail(-ENOMEM, "out of memory for a checkpoint");
	r = f->part == 0 ? lb_checkpoint_name(name, &l->c->machine, &l->c->place)
			 : lb_checkpoint_part_name(name, l->c, f->part);
	if (r < 0)
		return r;
	o->stored.size_bytes = 0;
	r = lb_store_get(l->v->store, name, f->offset_bytes, f->stored_bytes, &o->stored);
	if (r < 0)
		return r == -ENODATA || r == -ENOENT ? lb_wrap(-EBADMSG, "checkpoint %s is not whole", name) : r;
	lb_checkpoint_frame_aad(&l->v->id, l->c, i, f->raw_bytes, nonce, aad);
	r = lb_gcm_open(o->gcm, nonce, aad, sizeof(aad), o->stored.data, f->stored_bytes - LB_TAG_BYTES,
			o->stored.data);
	if (r < 0)
		return lb_wrap(r, "%s: frame %u of checkpoint %s", l->v->store->url, i, name);
	n = ZSTD_decompress(ret->raw, LB_CHECKPOINT_FRAME_BYTES, o->stored.data, f->stored_bytes - LB_TAG_BYTES);
	if (ZSTD_isError(n) || n != f->raw_bytes)
		return lb_fail(-EBADMSG, "%s: frame %u of checkpoint %s can't be decompressed", l->v->store->url, i,
			       name);
	ret->raw_bytes = n;
	return 0;
}

static void *fetch(void *arg)
{
	struct load *l = arg;
	struct opener opener;
	int ready = opener_init(l, &opener);

	pthread_mutex_lock(&l->lock);
	while (!l->over && l->next < l->c->n_frames) {
		struct opened *o = &l->opened[l->next % FRAMES_AHEAD];
		uint32_t i = l->next;

		if (i >= l->applied + FRAMES_AHEAD) {
			pthread_cond_wait(&l->moved, &l->lock);
			continue;
		}
		l->next++;
		pthread_mutex_unlock(&l->lock);
		o->r = ready < 0 ? ready : open_frame(l, &opener, i, o);
		if (o->r < 0)
			snprintf(o->text, sizeof(o->text), "%s", lb_err_text());
		pthread_mutex_lock(&l->lock);
		o->ready = true;
		pthread_cond_broadcast(&l->moved);
	}
	pthread_mutex_unlock(&l->lock);
	opener_clear(&opener);
	return NULL;
}

static int apply(const struct load *l, uint32_t i, const struct opened *o, struct lb_map *map)
{
	int r = lb_checkpoint_frame_apply(o->raw, o->raw_bytes, map);

	return r < 0 ? lb_wrap(r, "%s: frame %u of the checkpoint at object %llu of epoch %llu", l->v->store->url, i,
			       (unsigned long long)l->c->place.number, (unsigned long long)l->c->place.epoch)
		     : 0;
}

static int apply_fetched(struct load *l, struct lb_map *map)
{
	for (uint32_t i = 0; i < l->c->n_frames; i++) {
		struct opened *o = &l->opened[i % FRAMES_AHEAD];
		int r;

		pthread_mutex_lock(&l->lock);
		while (!o->ready)
			pthread_cond_wait(&l->moved, &l->lock);
		pthread_mutex_unlock(&l->lock);
		r = o->r < 0 ? lb_fail(o->r, "%s", o->text) : apply(l, i, o, map);
		if (r < 0)
			return r;
		pthread_mutex_lock(&l->lock);
		o->ready = false;
		l->applied++;
		pthread_cond_broadcast(&l->moved);
		pthread_mutex_unlock(&l->lock);
	}
	return 0;
}

static int apply_alone(struct load *l, struct lb_map *map)
{
	_cleanup_(opener_clear) struct opener opener = {0};
	int r = opener_init(l, &opener);

	for (uint32_t i = 0; r == 0 && i < l->c->n_frames; i++) {
		r = open_frame(l, &opener, i, &l->opened[0]);
		if (r == 0)
			r = apply(l, i, &l->opened[0], map);
	}
	return r;
}

static void load_end(struct load *l)
{
	pthread_mutex_lock(&l->lock);
	l->over = true;
	pthread_cond_broadcast(&l->moved);
	pthread_mutex_unlock(&l->lock);
	for (uint32_t i = 0; i < l->n_threads; i++)
		pthread_join(l->threads[i], NULL);
	for (uint32_t i = 0; i < FRAMES_AHEAD; i++)
		free(l->opened[i].raw);
	pthread_cond_destroy(&l->moved);
	pthread_mutex_destroy(&l->lock);
}

static int load_all(struct lb_vault *v, const struct lb_checkpoint *c, const struct lb_key *key, struct lb_map *map)
{
	_cleanup_(load_end) struct load l = {.v = v, .c = c, .key = key};

	pthread_mutex_init(&l.lock, NULL);
	pthread_cond_init(&l.moved, NULL);
	while (c->n_frames > FRAMES_WITHOUT_THREADS && l.n_threads < THREADS &&
	       pthread_create(&l.threads[l.n_threads], NULL, fetch, &l) == 0)
		l.n_threads++;
	return l.n_threads > 0 ? apply_fetched(&l, map) : apply_alone(&l, map);
}

int lb_checkpoint_load(struct lb_vault *v, const struct lb_checkpoint *c, struct lb_map **ret_map)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	int r;

	r = lb_vault_key_to_open(v, &c->machine, c->salt, &key);
	if (r == 0)
		r = lb_map_new(&map);
	if (r == 0)
		r = load_all(v, c, &key, map);
	if (r < 0)
		return r;
	if (lb_map_segments(map) != c->n_segments || lb_map_extents(map) > c->n_extents)
		return lb_fail(-EBADMSG, "a checkpoint of epoch %llu does not hold what its head says",
			       (unsigned long long)c->place.epoch);
	*ret_map = lb_steal_ptr(map);
	return 0;
}
