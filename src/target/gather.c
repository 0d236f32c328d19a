/* SPDX-License-Identifier: Apache-2.0 */
#include "target/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "target/compare.h"
#include "vault/journal.h"

#define DATA_BYTES LB_HRL_DATA_BYTES_NOMINAL
#define ZSTD_LEVEL 3

struct gathering {
	struct lb_env *env;
	struct lb_vault *v;
	const struct lb_catalog_item *item;
	struct lb_target_disk disks[LB_HRL_DISKS_MAX];
	struct lb_image *image;
	struct lb_delta delta;
	struct lb_journal_writer *writer;
	struct lb_hrl_builder *builder;
	struct lb_hrl_header header; /* of the next segment */
	uint8_t *data;               /* what the builder has been given stays until the segment is finished */
	size_t used_bytes;
	struct lb_gather_stats stats;
};

static void gathering_free(struct gathering *g)
{
	for (uint32_t i = 0; i < LB_HRL_DISKS_MAX; i++)
		lb_target_disk_close(&g->disks[i]);
	lb_delta_clear(&g->delta);
	if (g->image != NULL)
		lb_image_free(g->image);
	if (g->writer != NULL)
		lb_journal_writer_free(g->writer);
	if (g->builder != NULL)
		lb_hrl_builder_free(g->builder);
	free(g->data);
	free(g);
}
LB_DEFINE_CLEANUP(struct gathering *, gathering_free);

static int open_disks(struct gathering *g, const char *const *paths)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < g->item->n_disks; i++) {
		lb_file_wait_released(g->env, paths[i], LB_FILE_RELEASE_MS);
		r = lb_target_disk_open(g->env, paths[i], g->item->disks[i].size_bytes, &g->disks[i]);
		if (r < 0)
			return lb_wrap(r, "disk %s of %s", g->item->disks[i].name, g->item->name);
	}
	return r;
}

static int seal(struct gathering *g, const struct lb_buf *plain, struct lb_buf *sealed)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *segment = NULL;
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	uint8_t salt[LB_SALT_BYTES];
	int64_t receipt_ns = LB_MAX(lb_now_ns(g->env), lb_journal_writer_tail(g->writer)->receipt_ns + 1);
	int r;

	r = lb_vault_key_to_seal(g->v, &g->item->machine, salt, &key);
	if (r < 0)
		return r;
	r = lb_hrl_open_plain(plain->data, plain->size_bytes, &segment);
	return r < 0 ? r : lb_hrl_seal(segment, &key, receipt_ns, salt, ZSTD_LEVEL, sealed);
}

/* Closes the segment that is being built and puts it into the vault. */
static int put_segment(struct gathering *g, uint32_t flags)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX), sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_digest digest;
	int r;

	g->header.flags = flags;
	g->header.time_first_ns = g->header.time_last_ns;
	g->header.time_last_ns = lb_now_ns(g->env);
	r = lb_hrl_builder_finish(g->builder, &g->header, &plain, &digest);
	r = r < 0 ? r : seal(g, &plain, &sealed);
	if (r < 0)
		return r;
	r = lb_journal_append(g->writer,
			      &(struct lb_sealed_segment){.data = sealed.data, .size_bytes = sealed.size_bytes}, 1);
	if (r < 0)
		return r;
	g->stats.stored_bytes += sealed.size_bytes;
	g->header.prev_digest = digest;
	g->header.seq++;
	g->used_bytes = 0;
	return 0;
}

struct piece {
	struct gathering *g;
	uint32_t n;
	uint64_t offset_bytes;
	const uint8_t *disk;
};

static int add_run(void *arg, size_t at, size_t size_bytes)
{
	const struct piece *p = arg;
	struct gathering *g = p->g;
	uint8_t *copy;
	int r;

	if (g->used_bytes + size_bytes > DATA_BYTES || lb_hrl_builder_extents(g->builder) > LB_HRL_EXTENTS_MAX / 2) {
		r = put_segment(g, LB_HRL_SCANNING);
		if (r < 0)
			return r;
	}
	copy = g->data + g->used_bytes;
	memcpy(copy, p->disk + at, size_bytes);
	r = lb_hrl_builder_add(g->builder, g->item->disks[p->n].id, LB_HRL_SCANNED, p->offset_bytes + at, size_bytes,
			       copy);
	if (r < 0)
		return r;
	g->used_bytes += size_bytes;
	g->stats.gathered_bytes += size_bytes;
	return 0;
}

static int take(void *arg, uint32_t n, uint64_t offset_bytes, const uint8_t *image, const uint8_t *disk,
		size_t size_bytes)
{
	struct piece p = {.g = arg, .n = n, .offset_bytes = offset_bytes, .disk = disk};

	return lb_compare_runs(offset_bytes, image, disk, size_bytes, add_run, &p);
}

/* The double read zeroes there, or wrote over it: either way it is known again. */
static int take_lost(void *arg, uint32_t n, uint64_t offset_bytes, const uint8_t *disk, size_t size_bytes)
{
	struct piece p = {.g = arg, .n = n, .offset_bytes = offset_bytes, .disk = disk};

	return add_run(&p, 0, size_bytes);
}

/* Nobody else writes from here on; the new epoch names the end of what there is. */
static int begin_epoch(struct gathering *g, const char *reason)
{
	const struct lb_journal_tail *tail;
	struct lb_position end;
	int r;

	r = lb_journal_fence(g->v, &g->item->machine, reason);
	r = r < 0 ? r : lb_journal_writer_open(g->v, &g->item->machine, &g->writer);
	if (r < 0)
		return r;
	tail = lb_journal_writer_tail(g->writer);
	end = tail->position;
	if (end.epoch == 0)
		return lb_fail(-ENOENT, "machine %s has nothing in the vault to go on from", g->item->name);
	g->header = (struct lb_hrl_header){.vault = *lb_vault_id(g->v),
					   .machine = g->item->machine,
					   .epoch = tail->epoch_newest + 1,
					   .prev_digest = tail->digest,
					   .time_last_ns = lb_now_ns(g->env)};
	r = g->env->ops->random(g->env, &g->header.instance, sizeof(g->header.instance));
	if (r < 0)
		return lb_fail(r, "no random bytes for an instance");
	r = lb_image_open(g->v, &g->item->machine, &end, LB_IMAGE_CACHE_BYTES_DEFAULT, &g->image);
	return r < 0 ? r : lb_journal_epoch_begin(g->writer, g->header.epoch);
}

static int prepare(struct gathering *g)
{
	int r;

	g->data = malloc(DATA_BYTES);
	if (g->data == NULL)
		return lb_fail(-ENOMEM, "out of memory for a segment");
	r = lb_hrl_builder_new(LB_HRL_DATA_BYTES_MAX, &g->builder);
	return r < 0 ? r : lb_delta_make(g->image, g->item, NULL, true, &g->delta);
}

int lb_gather(struct lb_env *env, struct lb_vault *v, const struct lb_catalog_item *item, const char *const *paths,
	      const char *reason, int (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes), void *arg,
	      struct lb_point *ret_point, struct lb_gather_stats *ret_stats)
{
	_cleanup_(gathering_freep) struct gathering *g = calloc(1, sizeof(*g));
	struct lb_compare_sink sink = {
		.take = take, .take_lost = take_lost, .arg = g, .progress = progress, .progress_arg = arg};
	int r;

	if (g == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	g->env = env;
	g->v = v;
	g->item = item;
	r = open_disks(g, paths);
	r = r < 0 ? r : begin_epoch(g, reason);
	r = r < 0 ? r : prepare(g);
	r = r < 0 ? r : lb_compare_disks(g->image, item, g->disks, &g->delta, &sink);
	r = r != 0 ? r : put_segment(g, LB_HRL_POINT | LB_HRL_LAST);
	r = r != 0 ? r : lb_journal_seal(g->writer, reason);
	if (r < 0)
		return lb_wrap(r, "machine %s", item->name);
	if (r > 0)
		return r;
	g->stats.compared_bytes = g->delta.data_bytes + g->delta.zero_bytes;
	*ret_stats = g->stats;
	return lb_point_find(v, &item->machine, "latest", ret_point);
}
