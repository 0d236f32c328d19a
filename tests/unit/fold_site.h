/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A machine whose disk is also an array, with a copy of it at every point; a store that can be killed at any change. */
#include "vault_site.h"

#include "vault/fold.h"
#include "vault/points.h"
#include "vault/verify.h"

#define DISK_BYTES (256u << 10)
#define BLOCK_BYTES 4096u
#define BLOCKS (DISK_BYTES / BLOCK_BYTES)
#define MODELS_MAX 2048
#define HOUR_NS (3600 * LB_NS_PER_S)

struct model {
	struct lb_position position;
	uint8_t disk[DISK_BYTES];
};

/* Passes everything on to another store until it is killed: then nothing works any more. */
struct deadly_store {
	struct lb_store store;
	struct lb_store *real;
	int64_t changes_left; /* puts and removals before it dies */
	uint64_t changes;
	int64_t clock_apart_ns;
	bool read_only;
};

struct machine {
	struct site s;
	struct deadly_store deadly;
	struct lb_vault *vault; /* over the deadly store */
	unsigned int seed;
	uint8_t disk[DISK_BYTES];
	struct model *models;
	size_t n_models;
	struct lb_fold_options options;
};

static inline int deadly_change(struct deadly_store *d)
{
	d->changes++;
	if (d->read_only)
		return lb_fail(-EACCES, "the store is read-only");
	return d->changes_left-- > 0 ? 0 : lb_fail(-EIO, "the store was killed");
}

static inline int deadly_put_new(struct lb_store *s, const char *name, const void *data, size_t size_bytes)
{
	struct deadly_store *d = (struct deadly_store *)s;
	int r = deadly_change(d);

	return r < 0 ? r : lb_store_put_new(d->real, name, data, size_bytes);
}

static inline int deadly_replace(struct lb_store *s, const char *name, const char *etag, const void *data,
				 size_t size_bytes)
{
	struct deadly_store *d = (struct deadly_store *)s;
	int r = deadly_change(d);

	return r < 0 ? r : lb_store_replace(d->real, name, etag, data, size_bytes);
}

static inline int deadly_get(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes,
			     struct lb_buf *out)
{
	return lb_store_get(((struct deadly_store *)s)->real, name, offset_bytes, size_bytes, out);
}

static inline int deadly_stat(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag)
{
	return lb_store_stat(((struct deadly_store *)s)->real, name, ret_size_bytes, ret_etag);
}

static inline int deadly_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg)
{
	return lb_store_list(((struct deadly_store *)s)->real, prefix, fn, arg);
}

static inline int deadly_list_folders(struct lb_store *s, const char *prefix, lb_store_folder_fn fn, void *arg)
{
	return lb_store_list_folders(((struct deadly_store *)s)->real, prefix, fn, arg);
}

static inline int deadly_remove(struct lb_store *s, const char *name)
{
	struct deadly_store *d = (struct deadly_store *)s;
	int r = deadly_change(d);

	return r < 0 ? r : lb_store_remove(d->real, name);
}

static inline int deadly_now(struct lb_store *s, int64_t *ret_now_ns)
{
	struct deadly_store *d = (struct deadly_store *)s;

	*ret_now_ns = lb_now_ns(d->real->env) + d->clock_apart_ns;
	return 0;
}

static inline void deadly_free(struct lb_store *s)
{
	(void)s;
}

static const struct lb_store_ops deadly_ops = {.scheme = "deadly",
					       .put_new = deadly_put_new,
					       .replace = deadly_replace,
					       .get = deadly_get,
					       .stat = deadly_stat,
					       .list = deadly_list,
					       .list_folders = deadly_list_folders,
					       .remove = deadly_remove,
					       .now = deadly_now,
					       .free = deadly_free};

static inline void machine_vault(struct machine *m)
{
	m->deadly = (struct deadly_store){
		.store = {.ops = &deadly_ops, .url = m->s.store->url, .env = m->s.store->env},
		.real = m->s.store,
		.changes_left = INT64_MAX,
	};
	ok(lb_vault_open(&m->deadly.store, SITE_PASSPHRASE, &m->vault));
}

static inline struct machine *machine_new(const char *ladder)
{
	struct machine *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	site_new(&m->s);
	m->models = calloc(MODELS_MAX, sizeof(*m->models));
	assert_non_null(m->models);
	m->seed = 4711;
	m->s.receipt_ns = 30000 * 24 * HOUR_NS; /* later than the host has it: objects carry that one as their age */
	m->options.retention = lb_retention_default;
	ok(lb_ladder_parse(ladder, &m->options.retention.ladder));
	machine_vault(m);
	return m;
}

static inline void machine_free(struct machine *m)
{
	lb_vault_free(m->vault);
	site_free(&m->s);
	free(m->models);
	free(m);
}

static inline uint32_t machine_random(struct machine *m, uint32_t n)
{
	return (uint32_t)rand_r(&m->seed) % n;
}

/* One block written to disk and builder; `data` must live until the segment is sealed. */
static inline void machine_write(struct machine *m, uint8_t *data)
{
	uint32_t block = machine_random(m, 4) > 0 ? machine_random(m, BLOCKS / 8) : machine_random(m, BLOCKS);
	bool zero = machine_random(m, 12) == 0;

	for (size_t i = 0; i < BLOCK_BYTES; i++)
		data[i] = zero ? 0 : (uint8_t)rand_r(&m->seed);
	site_add(&m->s, zero ? LB_HRL_CAPTURED_ZERO : LB_HRL_CAPTURED, block * BLOCK_BYTES, BLOCK_BYTES,
		 zero ? NULL : data);
	memcpy(m->disk + block * BLOCK_BYTES, data, BLOCK_BYTES);
}

/* An object of one to three segments, each a point, each `step_ns` after the one before. */
static inline void machine_object(struct machine *m, int64_t step_ns, uint32_t flags)
{
	static uint8_t data[8][BLOCK_BYTES];
	struct lb_buf sealed[3];
	uint32_t n = 1 + machine_random(m, 3);

	for (uint32_t i = 0; i < n; i++) {
		uint32_t writes = machine_random(m, 8);

		sealed[i] = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
		for (uint32_t k = 0; k < writes; k++)
			machine_write(m, data[k]);
		m->s.receipt_ns += step_ns - LB_NS_PER_S; /* sealing adds a second */
		site_seal(&m->s, flags, &sealed[i]);
		if ((flags & LB_HRL_POINT) == 0 || (flags & LB_HRL_SCANNING) != 0)
			continue;
		assert_true(m->n_models < MODELS_MAX);
		m->models[m->n_models].position = (struct lb_position){.epoch = m->s.epoch, .seq = m->s.seq - 1};
		memcpy(m->models[m->n_models++].disk, m->disk, DISK_BYTES);
	}
	ok(site_append(&m->s, sealed, n));
	for (uint32_t i = 0; i < n; i++)
		lb_buf_free(&sealed[i]);
}

/* A new epoch: what was lost is scanned, while writes go on that outrank the scan. */
static inline void machine_epoch(struct machine *m, int64_t step_ns)
{
	uint8_t stale[BLOCK_BYTES], lost[BLOCK_BYTES];
	uint32_t block;

	site_begin(&m->s, m->s.epoch + 1);
	/* a write that capture lost is found by the scan ... */
	block = machine_random(m, BLOCKS);
	memset(lost, (int)m->s.epoch, sizeof(lost));
	lost[0] = 0xee;
	memcpy(m->disk + block * BLOCK_BYTES, lost, BLOCK_BYTES);
	site_add(&m->s, LB_HRL_SCANNED, block * BLOCK_BYTES, BLOCK_BYTES, lost);
	site_write(&m->s, LB_HRL_SCANNING);
	machine_object(m, step_ns, LB_HRL_POINT | LB_HRL_SCANNING);
	/* ... unless it was written again: then the scan, which may read it late, hides nothing */
	block = machine_random(m, BLOCKS);
	memset(lost, 0x5a, sizeof(lost));
	memcpy(m->disk + block * BLOCK_BYTES, lost, BLOCK_BYTES);
	site_add(&m->s, LB_HRL_CAPTURED, block * BLOCK_BYTES, BLOCK_BYTES, lost);
	site_write(&m->s, LB_HRL_SCANNING);
	memset(stale, 0x77, sizeof(stale));
	site_add(&m->s, LB_HRL_SCANNED, block * BLOCK_BYTES, BLOCK_BYTES, stale);
	site_write(&m->s, LB_HRL_SCANNING);
}

static inline void machine_run(struct machine *m, unsigned int objects, int64_t step_ns)
{
	bool written;

	for (unsigned int i = 0; i < objects; i++) {
		if (m->s.epoch == 0 || machine_random(m, 30) == 0)
			machine_epoch(m, step_ns);
		machine_object(m, step_ns, LB_HRL_POINT);
		if (machine_random(m, 15) == 0)
			ok(lb_checkpoint_write(m->s.vault, &m->s.machine, true, &written));
	}
}

static inline const struct model *machine_model(const struct machine *m, const struct lb_position *position)
{
	for (size_t i = 0; i < m->n_models; i++)
		if (m->models[i].position.epoch == position->epoch && m->models[i].position.seq == position->seq)
			return &m->models[i];
	fail_msg("point %llu:%llu was never written", (unsigned long long)position->epoch,
		 (unsigned long long)position->seq);
	return NULL;
}

static inline void machine_reads_as(struct machine *m, const struct lb_position *position)
{
	static uint8_t got[DISK_BYTES];
	struct lb_image *image = NULL;

	ok(lb_image_open(m->s.vault, &m->s.machine, position, 0, &image));
	ok(lb_image_pread(image, 0, got, sizeof(got), 0));
	lb_image_free(image);
	if (memcmp(got, machine_model(m, position)->disk, sizeof(got)) != 0)
		fail_msg("point %llu:%llu does not read as the disk was", (unsigned long long)position->epoch,
			 (unsigned long long)position->seq);
}

struct points {
	struct lb_point point[MODELS_MAX];
	size_t n;
};

static inline int points_note(void *arg, const struct lb_point *point)
{
	struct points *points = arg;

	assert_true(points->n < MODELS_MAX);
	points->point[points->n++] = *point;
	return 0;
}

static inline struct points *machine_points(struct machine *m)
{
	static struct points points;

	points.n = 0;
	ok(lb_points_list(m->s.vault, &m->s.machine, 0, INT64_MAX, points_note, &points));
	return &points;
}

/* Every point that is offered reads as the disk was. */
static inline size_t machine_check(struct machine *m)
{
	struct points *points = machine_points(m);

	for (size_t i = 0; i < points->n; i++)
		machine_reads_as(m, &points->point[i].position);
	return points->n;
}

static inline void machine_finding(void *arg, const struct lb_verify_finding *f)
{
	(void)arg;
	if (strstr(f->object, "/item/") == NULL) /* there is no catalog here */
		fail_msg("%s: %s", f->object, f->text);
}

/* Nothing is found wrong with it, nor left over. */
static inline void machine_verify(struct machine *m)
{
	struct lb_verify_report report;

	ok(lb_vault_verify(m->s.vault, &m->s.machine, true, NULL, machine_finding, NULL, &report));
	assert_int_equal(report.findings, 1);
}

static inline void machine_fold_once(struct machine *m, struct lb_fold_report *report)
{
	m->options.now_ns = m->s.receipt_ns;
	ok(lb_fold_round(m->vault, &m->s.machine, &m->options, report));
}

/* Until nothing is left to do. */
static inline struct lb_fold_report machine_fold(struct machine *m)
{
	struct lb_fold_report report, all = {0};

	for (int i = 0; i < 100; i++) {
		machine_fold_once(m, &report);
		all.points_pruned += report.points_pruned;
		all.objects_folded += report.objects_folded;
		all.rewritten_bytes += report.rewritten_bytes;
		all.deleted_objects += report.deleted_objects;
		all.version = report.version;
		if (!report.changed)
			return all;
	}
	fail_msg("folding never ends");
	return all;
}
