/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What folding costs and leaves: a small disk that is scanned, then written for days of a virtual clock and folded
 * every hour by the default ladder. Amplification: all bytes put into the store / bytes of journal objects. Space:
 * bytes in the store / bytes that the live image, retained deltas and the journal behind the cut take as stored.
 * usage: fold_bench FOLDER [DISK_MIB] [MIB_PER_DAY] [DAYS] [LIVE_PERCENT]. FOLDER should be in memory;
 * vaults that are made in it are removed.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/fold.h"
#include "vault/journal.h"
#include "vault/manifest.h"

#define SEGMENT_BYTES (4u << 20)
#define PAGE_BYTES 16384u
#define ZIPF_EXPONENT 0.99
#define OBJECTS_PER_HOUR 6
#define ROUNDS_PER_HOUR 2
#define HOUR_NS (3600 * LB_NS_PER_S)
#define START_NS (20000 * 24 * HOUR_NS)

struct bench {
	const char *folder;
	uint64_t pages, bytes_per_object, hours;
	uint32_t live_percent;
	bool uniform;
	double *sums; /* of the probabilities of pages, by rank */
	uint64_t random;
	struct lb_store *store;
	struct lb_vault *vault;
	struct lb_uuid machine;
	struct lb_key key;
	struct lb_journal_writer *writer;
	struct lb_hrl_builder *builder;
	struct lb_digest prev;
	uint64_t seq, journal_bytes;
	struct lb_fold_report all;
	double worst_space, worst_amplification, space, amplification;
};

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "fold_bench: %s: %s\n", what, lb_err_text());
	exit(1);
}

/* ---- the virtual clock, and what is put ---- */

static int64_t virtual_ns = START_NS;
static uint64_t put_bytes;
static struct lb_env_ops shifted_ops;
static struct lb_env shifted;
static const struct lb_store_ops *bare_ops;
static struct lb_store_ops counting_ops;

static int64_t virtual_now_ns(struct lb_env *env)
{
	(void)env;
	return virtual_ns;
}

static int store_now(struct lb_store *s, int64_t *ret_now_ns)
{
	(void)s;
	*ret_now_ns = virtual_ns;
	return 0;
}

static int counting_put_new(struct lb_store *s, const char *name, const void *data, size_t size_bytes)
{
	int r = bare_ops->put_new(s, name, data, size_bytes);

	put_bytes += r == 0 ? size_bytes : 0;
	return r;
}

static int counting_replace(struct lb_store *s, const char *name, const char *etag, const void *data, size_t size_bytes)
{
	int r = bare_ops->replace(s, name, etag, data, size_bytes);

	put_bytes += r == 0 ? size_bytes : 0;
	return r;
}

static void open_vault(struct bench *b)
{
	struct lb_uuid id;
	char url[4200];

	shifted_ops = *lb_env_real()->ops;
	shifted_ops.now_ns = virtual_now_ns;
	shifted = (struct lb_env){.ops = &shifted_ops, .state = lb_env_real()->state};
	snprintf(url, sizeof(url), "dir:%s/fold-bench", b->folder);
	must(lb_store_open(&shifted, url, true, &b->store), "store");
	bare_ops = b->store->ops;
	counting_ops = *bare_ops;
	counting_ops.put_new = counting_put_new;
	counting_ops.replace = counting_replace;
	counting_ops.now = store_now;
	b->store->ops = &counting_ops;
	must(lb_vault_create(b->store, "a passphrase of the bench", &id), "vault");
	must(lb_vault_open(b->store, "a passphrase of the bench", &b->vault), "vault");
	b->machine.bytes[0] = 1;
	must(lb_vault_machine_key(b->vault, &b->machine, true, &b->key), "key");
	must(lb_journal_writer_open(b->vault, &b->machine, &b->writer), "writer");
	must(lb_hrl_builder_new(SEGMENT_BYTES, &b->builder), "builder");
	must(lb_journal_epoch_begin(b->writer, 1), "epoch");
	put_bytes = 0;
}

static int remove_object(void *arg, const char *name, uint64_t size_bytes)
{
	(void)size_bytes;
	return lb_store_remove(arg, name);
}

static void close_vault(struct bench *b)
{
	lb_hrl_builder_free(b->builder);
	lb_journal_writer_free(b->writer);
	must(lb_store_list(b->store, "", remove_object, b->store), "cleaning up");
	lb_vault_free(b->vault);
	lb_store_free(b->store);
	lb_key_wipe(&b->key);
}

/* ---- the workload ---- */

static uint64_t next_random(struct bench *b)
{
	b->random ^= b->random << 13;
	b->random ^= b->random >> 7;
	b->random ^= b->random << 17;
	return b->random;
}

/* Half of it compresses away, as pages of databases do. */
static void fill(struct bench *b, uint8_t *data, size_t size_bytes)
{
	for (size_t i = 0; i < size_bytes; i += 16) {
		uint64_t word = next_random(b);

		memcpy(data + i, &word, sizeof(word));
		memset(data + i + 8, 0, 8);
	}
}

static void make_sums(struct bench *b)
{
	double sum = 0;

	b->sums = calloc(b->pages, sizeof(*b->sums));
	if (b->sums == NULL)
		must(lb_fail(-ENOMEM, "out of memory"), "pages");
	for (uint64_t i = 0; i < b->pages; i++)
		b->sums[i] = sum += b->uniform ? 1 : 1 / pow((double)(i + 1), ZIPF_EXPONENT);
}

/* By its rank, then scattered: hot pages don't lie side by side. */
static uint64_t pick_page(struct bench *b)
{
	double at = (double)(next_random(b) >> 11) / (double)(UINT64_C(1) << 53) * b->sums[b->pages - 1];
	uint64_t low = 0, high = b->pages - 1;

	while (low < high) {
		uint64_t middle = (low + high) / 2;

		if (b->sums[middle] < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low * 2654435761u % b->pages;
}

static void write_segment(struct bench *b, uint32_t flags)
{
	struct lb_hrl_header h = {.vault = *lb_vault_id(b->vault),
				  .machine = b->machine,
				  .epoch = 1,
				  .seq = b->seq++,
				  .flags = flags,
				  .time_first_ns = virtual_ns,
				  .time_last_ns = virtual_ns,
				  .prev_digest = b->prev};
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX), sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_sealed_segment segment;
	uint64_t before = put_bytes;
	uint8_t salt[LB_SALT_BYTES];

	must(lb_hrl_builder_finish(b->builder, &h, &plain, &b->prev), "segment");
	must(lb_hrl_open_plain(plain.data, plain.size_bytes, &s), "segment");
	must(lb_env_real()->ops->random(lb_env_real(), salt, sizeof(salt)), "salt");
	lb_salt_mark(salt, 0);
	must(lb_hrl_seal(s, &b->key, virtual_ns, salt, 1, &sealed), "seal");
	segment = (struct lb_sealed_segment){.data = sealed.data, .size_bytes = sealed.size_bytes};
	must(lb_journal_append(b->writer, &segment, 1), "append");
	b->journal_bytes += put_bytes - before;
}

static void scan(struct bench *b, uint8_t *data)
{
	uint64_t end = b->pages * PAGE_BYTES;

	for (uint64_t at = 0; at < end; at += SEGMENT_BYTES / 2) {
		size_t bytes = (size_t)LB_MIN(end - at, (uint64_t)SEGMENT_BYTES / 2);

		fill(b, data, bytes);
		must(lb_hrl_builder_add(b->builder, 0, LB_HRL_SCANNED, at, bytes, data), "scan");
		write_segment(b, at + bytes < end ? LB_HRL_SCANNING : LB_HRL_POINT);
	}
}

/* Pages of 4, 8 or 16 KiB until the object is full; the last segment is a point. */
static void write_object(struct bench *b, uint8_t *data)
{
	uint64_t filled = 0;

	for (uint64_t done = 0; done < b->bytes_per_object;) {
		size_t bytes = PAGE_BYTES >> (next_random(b) % 3);

		if (filled + bytes > SEGMENT_BYTES / 2) {
			write_segment(b, 0);
			filled = 0;
		}
		fill(b, data + filled, bytes);
		must(lb_hrl_builder_add(b->builder, 0, LB_HRL_CAPTURED, pick_page(b) * PAGE_BYTES, bytes,
					data + filled),
		     "write");
		filled += bytes;
		done += bytes;
	}
	write_segment(b, LB_HRL_POINT);
}

/* ---- the figures ---- */

static int add_size(void *arg, const char *name, uint64_t size_bytes)
{
	(void)name;
	*(uint64_t *)arg += size_bytes;
	return 0;
}

static void measure(struct bench *b, uint64_t hour)
{
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	uint64_t store = 0, dropped = 0;
	double needed;

	must(lb_store_list(b->store, "", add_size, &store), "list");
	must(lb_manifest_read(b->vault, &b->machine, &m), "manifest");
	needed = (double)(b->journal_bytes - m->totals.journal_bytes);
	for (size_t i = 0; i < m->n_live; i++)
		needed += (double)m->live[i].size_bytes * (double)m->live[i].live_bytes / (double)m->live[i].raw_bytes;
	for (size_t i = 0; i < m->n_garbage; i++)
		dropped += m->garbage[i].size_bytes;
	b->space = (double)store / needed;
	b->amplification = (double)put_bytes / (double)b->journal_bytes;
	if (hour > 48) {
		b->worst_space = LB_MAX(b->worst_space, b->space);
		b->worst_amplification = LB_MAX(b->worst_amplification, b->amplification);
	}
	if (hour % 24 == 0 && getenv("FOLD_BENCH_DAYS") != NULL)
		printf("  day %llu: amplification %.3f (rewritten %.3f, maps %.3f, manifests %.3f), space %.3f "
		       "(waiting to "
		       "be deleted %.3f), needed %.0f MiB, %zu spans, %zu objects\n",
		       (unsigned long long)hour / 24, b->amplification,
		       (double)m->totals.rewritten_bytes / (double)b->journal_bytes,
		       (double)m->totals.map_bytes / (double)b->journal_bytes,
		       (double)m->totals.manifest_bytes / (double)b->journal_bytes, b->space, (double)dropped / needed,
		       needed / 1048576, m->n_spans, m->n_live);
	fflush(stdout);
}

static void fold(struct bench *b)
{
	struct lb_fold_options options = {.retention = lb_retention_default, .live_percent = b->live_percent};
	struct lb_fold_report report;

	for (int i = 0; i < ROUNDS_PER_HOUR; i++)
		must(lb_fold_round(b->vault, &b->machine, &options, &report), "fold");
}

static void run(struct bench *b, uint8_t *data)
{
	virtual_ns = START_NS;
	b->random = 88172645463325252;
	b->seq = b->journal_bytes = 0;
	b->prev = (struct lb_digest){0};
	b->worst_amplification = b->worst_space = 0;
	make_sums(b);
	open_vault(b);
	scan(b, data);
	for (uint64_t hour = 1; hour <= b->hours; hour++) {
		for (int i = 0; i < OBJECTS_PER_HOUR; i++) {
			virtual_ns += HOUR_NS / OBJECTS_PER_HOUR;
			write_object(b, data);
		}
		fold(b);
		measure(b, hour);
	}
	printf("%s: write amplification %.2f (worst %.2f), space %.2f (worst %.2f), journal %.0f MiB\n",
	       b->uniform ? "uniform" : "zipf", b->amplification, b->worst_amplification, b->space, b->worst_space,
	       (double)b->journal_bytes / 1048576);
	close_vault(b);
	free(b->sums);
}

int main(int argc, char **argv)
{
	uint64_t disk_mib = argc > 2 ? strtoull(argv[2], NULL, 10) : 256,
		 day_mib = argc > 3 ? strtoull(argv[3], NULL, 10) : 192;
	struct bench b = {.pages = LB_MIB(disk_mib) / PAGE_BYTES,
			  .bytes_per_object = LB_MIB(day_mib) / (24 * OBJECTS_PER_HOUR),
			  .hours = 24 * (argc > 4 ? strtoull(argv[4], NULL, 10) : 15),
			  .live_percent = argc > 5 ? (uint32_t)atoi(argv[5]) : 0};
	uint8_t *data = malloc(SEGMENT_BYTES);

	if (argc < 2 || data == NULL || b.pages == 0 || b.bytes_per_object == 0) {
		fprintf(stderr, "usage: fold_bench FOLDER [DISK_MIB] [MIB_PER_DAY] [DAYS] [LIVE_PERCENT]\n");
		return 2;
	}
	b.folder = argv[1];
	run(&b, data);
	b.uniform = true;
	run(&b, data);
	free(data);
	return 0;
}
