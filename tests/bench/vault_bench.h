/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A vault that benches fill and read, step by step; each step runs in a process of its own, so that the memory it takes
 * is its own.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/text.h"
#include "vault/image.h"
#include "vault/journal.h"

#define WRITES_PER_SEGMENT 8192
#define SEGMENT_BYTES (8u << 20)
#define FAR_MS 20

/* What the steps leave for one another, in shared memory. */
struct left {
	struct lb_uuid machine;
	struct lb_position scattered, tail, sequential;    /* of vault_bench */
	struct lb_position oldest, middle, folded, newest; /* of folded_bench */
	double seconds;
};

struct bench {
	const char *folder;
	struct left *left;
	uint64_t extents, mib;
	struct lb_store *store;
	struct lb_vault *vault;
	struct lb_uuid machine;
	struct lb_key key;
	struct lb_journal_writer *writer;
	struct lb_hrl_builder *builder;
	struct lb_digest prev;
	uint64_t epoch, seq;
	int64_t receipt_ns; /* of the next segment; 0: its number */
};

static inline double seconds(void)
{
	return (double)lb_mono_ns(lb_env_real()) / 1e9;
}

static inline void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, lb_err_text());
	exit(1);
}

static inline void open_vault(struct bench *b)
{
	char url[4200];

	snprintf(url, sizeof(url), "dir:%s/vault-bench", b->folder);
	must(lb_store_open(lb_env_real(), url, true, &b->store), "store");
	must(lb_vault_open(b->store, "a passphrase of the bench", &b->vault), "vault");
	b->machine = b->left->machine;
}

static inline void open_writer(struct bench *b)
{
	open_vault(b);
	must(lb_vault_machine_key(b->vault, &b->machine, true, &b->key), "key");
	must(lb_journal_writer_open(b->vault, &b->machine, &b->writer), "writer");
	must(lb_hrl_builder_new(SEGMENT_BYTES, &b->builder), "builder");
	b->epoch = lb_journal_writer_tail(b->writer)->position.epoch;
	b->seq = lb_journal_writer_tail(b->writer)->position.seq + 1;
	b->prev = lb_journal_writer_tail(b->writer)->digest;
}

static inline void make_vault(struct bench *b)
{
	char url[4200];
	struct lb_uuid id;

	snprintf(url, sizeof(url), "dir:%s/vault-bench", b->folder);
	must(lb_store_open(lb_env_real(), url, true, &b->store), "store");
	must(lb_vault_create(b->store, "a passphrase of the bench", &id), "vault");
}

/* One step in a process of its own. */
static inline void step(struct bench *b, void (*run)(struct bench *b))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		run(b);
		fflush(stdout);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		exit(1);
}

/* ---- a store that is far away ---- */

static const struct lb_store_ops *near_ops;
static struct lb_store_ops far_ops;

static inline int far_get(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes,
			  struct lb_buf *out)
{
	usleep(FAR_MS * 1000);
	return near_ops->get(s, name, offset_bytes, size_bytes, out);
}

static inline int far_stat(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag)
{
	usleep(FAR_MS * 1000);
	return near_ops->stat(s, name, ret_size_bytes, ret_etag);
}

static inline int far_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg)
{
	usleep(FAR_MS * 1000);
	return near_ops->list(s, prefix, fn, arg);
}

static inline void move_away(struct bench *b)
{
	near_ops = b->store->ops;
	far_ops = *near_ops;
	far_ops.get = far_get;
	far_ops.stat = far_stat;
	far_ops.list = far_list;
	b->store->ops = &far_ops;
}

static inline int remove_object(void *arg, const char *name, uint64_t size_bytes)
{
	(void)size_bytes;
	return lb_store_remove(arg, name);
}

static inline void remove_vault(struct bench *b)
{
	open_vault(b);
	must(lb_store_list(b->store, "", remove_object, b->store), "cleaning up");
}

static inline void write_segment(struct bench *b)
{
	struct lb_hrl_header h = {.vault = *lb_vault_id(b->vault),
				  .machine = b->machine,
				  .epoch = b->epoch,
				  .seq = b->seq++,
				  .flags = LB_HRL_POINT,
				  .prev_digest = b->prev};
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX), sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_sealed_segment segment;
	uint8_t salt[LB_SALT_BYTES];

	must(lb_hrl_builder_finish(b->builder, &h, &plain, &b->prev), "segment");
	must(lb_hrl_open_plain(plain.data, plain.size_bytes, &s), "segment");
	must(lb_env_real()->ops->random(lb_env_real(), salt, sizeof(salt)), "salt");
	lb_salt_mark(salt, 0);
	must(lb_hrl_seal(s, &b->key, b->receipt_ns != 0 ? b->receipt_ns : (int64_t)b->seq, salt, 1, &sealed), "seal");
	segment = (struct lb_sealed_segment){.data = sealed.data, .size_bytes = sealed.size_bytes};
	must(lb_journal_append(b->writer, &segment, 1), "append");
}

static inline void begin(struct bench *b, uint64_t epoch)
{
	must(lb_journal_epoch_begin(b->writer, epoch), "epoch");
	b->epoch = epoch;
	b->seq = 0;
}

/* Text-like bytes: compressible about threefold. */
static inline void fill(uint8_t *data, size_t size_bytes, unsigned int seed)
{
	static const char words[] = "insert into ledger values select from where order by total amount name ";

	for (size_t i = 0; i < size_bytes; i += 4) {
		const char *w = words + rand_r(&seed) % (sizeof(words) - 5);

		memcpy(data + i, w, 4);
	}
}

static inline void add_scattered(struct bench *b, uint64_t extents, uint64_t per_segment, unsigned int seed)
{
	static uint8_t data[WRITES_PER_SEGMENT][512];

	fill(data[0], sizeof(data), 7);
	for (uint64_t done = 0; done < extents;) {
		for (uint64_t i = 0; i < per_segment && done < extents; i++, done++) {
			uint64_t sector =
				((uint64_t)rand_r(&seed) << 31 | (uint64_t)rand_r(&seed)) % (LB_GIB(1024) / 512);

			must(lb_hrl_builder_add(b->builder, 0, LB_HRL_CAPTURED, sector * 512, 512, data[i]), "write");
		}
		write_segment(b);
	}
}

static inline double cpu_seconds(const struct rusage *u)
{
	return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) +
	       (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

static inline void open_point(struct bench *b, const struct lb_position *position, const char *what)
{
	struct lb_image_stats stats;
	struct rusage before, after;
	struct lb_image *image;
	double start = seconds();

	getrusage(RUSAGE_SELF, &before);
	must(lb_image_open(b->vault, &b->machine, position, LB_IMAGE_CACHE_BYTES_DEFAULT, &image), "open");
	start = seconds() - start;
	getrusage(RUSAGE_SELF, &after);
	lb_image_stats(image, &stats);
	printf("open a point, %s: %.3f s (%llu extents, %llu objects, %.1f MiB read, %.2f s of CPU, peak memory %ld "
	       "MiB)\n",
	       what, start, (unsigned long long)stats.map_extents, (unsigned long long)stats.objects_read,
	       (double)stats.bytes_read / 1048576, cpu_seconds(&after) - cpu_seconds(&before), after.ru_maxrss / 1024);
	lb_image_free(image);
}

/* Runs the steps on a vault in `folder`. */
static inline int run_steps(struct bench *b, void (*const steps[])(struct bench *b), size_t n)
{
	b->left = mmap(NULL, sizeof(*b->left), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b->left == MAP_FAILED)
		return 1;
	b->left->machine.bytes[0] = 1;
	for (size_t i = 0; i < n; i++)
		step(b, steps[i]);
	return 0;
}
