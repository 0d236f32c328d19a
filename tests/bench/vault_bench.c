/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of the vault on this machine: how fast a journal is written, a point of a large map opened, an image read,
 * also from a store that is far away (every call takes FAR_MS). Each step runs in a process of its own, so that the
 * memory it takes is its own. usage: vault_bench FOLDER [EXTENTS] [READ_MIB]. FOLDER is used for a vault that is
 * removed at the end.
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
#define TAIL_SEGMENTS 60
#define TAIL_WRITES_PER_SEGMENT 2000
#define RANDOM_READS 2000

/* What the steps leave for one another, in shared memory. */
struct left {
	struct lb_uuid machine;
	struct lb_position scattered, tail, sequential;
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
};

static double seconds(void)
{
	return (double)lb_mono_ns(lb_env_real()) / 1e9;
}

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "vault_bench: %s: %s\n", what, lb_err_text());
	exit(1);
}

static void open_vault(struct bench *b)
{
	char url[4200];

	snprintf(url, sizeof(url), "dir:%s/vault-bench", b->folder);
	must(lb_store_open(lb_env_real(), url, true, &b->store), "store");
	must(lb_vault_open(b->store, "a passphrase of the bench", &b->vault), "vault");
	b->machine = b->left->machine;
}

static void open_writer(struct bench *b)
{
	open_vault(b);
	must(lb_vault_machine_key(b->vault, &b->machine, true, &b->key), "key");
	must(lb_journal_writer_open(b->vault, &b->machine, &b->writer), "writer");
	must(lb_hrl_builder_new(SEGMENT_BYTES, &b->builder), "builder");
	b->epoch = lb_journal_writer_tail(b->writer)->position.epoch;
	b->seq = lb_journal_writer_tail(b->writer)->position.seq + 1;
	b->prev = lb_journal_writer_tail(b->writer)->digest;
}

static void make_vault(struct bench *b)
{
	char url[4200];
	struct lb_uuid id;

	snprintf(url, sizeof(url), "dir:%s/vault-bench", b->folder);
	must(lb_store_open(lb_env_real(), url, true, &b->store), "store");
	must(lb_vault_create(b->store, "a passphrase of the bench", &id), "vault");
}

/* One step in a process of its own. */
static void step(struct bench *b, void (*run)(struct bench *b))
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

static int far_get(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes, struct lb_buf *out)
{
	usleep(FAR_MS * 1000);
	return near_ops->get(s, name, offset_bytes, size_bytes, out);
}

static int far_stat(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag)
{
	usleep(FAR_MS * 1000);
	return near_ops->stat(s, name, ret_size_bytes, ret_etag);
}

static int far_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg)
{
	usleep(FAR_MS * 1000);
	return near_ops->list(s, prefix, fn, arg);
}

static void move_away(struct bench *b)
{
	near_ops = b->store->ops;
	far_ops = *near_ops;
	far_ops.get = far_get;
	far_ops.stat = far_stat;
	far_ops.list = far_list;
	b->store->ops = &far_ops;
}

static int remove_object(void *arg, const char *name, uint64_t size_bytes)
{
	(void)size_bytes;
	return lb_store_remove(arg, name);
}

static void remove_vault(struct bench *b)
{
	open_vault(b);
	must(lb_store_list(b->store, "", remove_object, b->store), "cleaning up");
}

static void write_segment(struct bench *b)
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
	must(lb_hrl_seal(s, &b->key, (int64_t)b->seq, salt, 1, &sealed), "seal");
	segment = (struct lb_sealed_segment){.data = sealed.data, .size_bytes = sealed.size_bytes};
	must(lb_journal_append(b->writer, &segment, 1), "append");
}

static void begin(struct bench *b, uint64_t epoch)
{
	must(lb_journal_epoch_begin(b->writer, epoch), "epoch");
	b->epoch = epoch;
	b->seq = 0;
}

/* Text-like bytes: compressible about threefold. */
static void fill(uint8_t *data, size_t size_bytes, unsigned int seed)
{
	static const char words[] = "insert into ledger values select from where order by total amount name ";

	for (size_t i = 0; i < size_bytes; i += 4) {
		const char *w = words + rand_r(&seed) % (sizeof(words) - 5);

		memcpy(data + i, w, 4);
	}
}

static void add_scattered(struct bench *b, uint64_t extents, uint64_t per_segment, unsigned int seed)
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

static void write_scattered(struct bench *b)
{
	double start = seconds();

	open_writer(b);
	begin(b, 1);
	add_scattered(b, b->extents, WRITES_PER_SEGMENT, 1);
	b->left->scattered = lb_journal_writer_tail(b->writer)->position;
	printf("write %llu scattered extents: %.2f s\n", (unsigned long long)b->extents, seconds() - start);
}

/* As much as comes between two checkpoints at most. */
static void write_tail(struct bench *b)
{
	open_writer(b);
	add_scattered(b, TAIL_SEGMENTS * TAIL_WRITES_PER_SEGMENT, TAIL_WRITES_PER_SEGMENT, 2);
	b->left->tail = lb_journal_writer_tail(b->writer)->position;
}

static double cpu_seconds(const struct rusage *u)
{
	return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) +
	       (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

static void open_point(struct bench *b, const struct lb_position *position, const char *what)
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

static void open_from_indexes(struct bench *b)
{
	open_vault(b);
	open_point(b, &b->left->scattered, "from the indexes alone");
}

static void checkpoint(struct bench *b)
{
	double start = seconds();
	bool written;

	open_vault(b);
	must(lb_checkpoint_write(b->vault, &b->machine, true, &written), "checkpoint");
	printf("write the checkpoint: %.3f s\n", seconds() - start);
}

static void open_from_checkpoint(struct bench *b)
{
	open_vault(b);
	open_point(b, &b->left->scattered, "from a checkpoint");
}

static void open_after_checkpoint(struct bench *b)
{
	open_vault(b);
	open_point(b, &b->left->tail, "long after a checkpoint");
}

static void open_far(struct bench *b)
{
	open_vault(b);
	move_away(b);
	open_point(b, &b->left->scattered, "from a checkpoint, 20 ms away");
}

static int first_extent(void *arg, const struct lb_image_extent *x)
{
	if (x->zero)
		return 0;
	*(uint64_t *)arg = x->offset_bytes;
	return 1;
}

/* 4 KiB where something was written, a place of its own each time. */
static void read_randomly(struct bench *b)
{
	struct lb_image_stats before, after;
	struct lb_image *image;
	unsigned int seed = 3;
	uint8_t data[4096];
	double took = 0;

	open_vault(b);
	must(lb_image_open(b->vault, &b->machine, &b->left->scattered, LB_IMAGE_CACHE_BYTES_DEFAULT, &image), "open");
	lb_image_stats(image, &before);
	for (int i = 0; i < RANDOM_READS; i++) {
		uint64_t at = ((uint64_t)rand_r(&seed) << 31 | (uint64_t)rand_r(&seed)) % LB_GIB(1023) / 4096 * 4096;
		double start;

		must(lb_image_extents(image, 0, at, LB_GIB(1), first_extent, &at), "extents");
		start = seconds();
		must(lb_image_pread(image, 0, data, sizeof(data), at / 4096 * 4096), "read");
		took += seconds() - start;
	}
	lb_image_stats(image, &after);
	printf("read 4 KiB at random: %.2f ms\n", took * 1000 / RANDOM_READS);
	printf("  fetched per read, heads included: %.2f, %.0f KiB\n",
	       (double)(after.objects_read - before.objects_read) / RANDOM_READS,
	       (double)(after.bytes_read - before.bytes_read) / RANDOM_READS / 1024);
}

static void write_sequentially(struct bench *b)
{
	uint8_t *data = malloc(SEGMENT_BYTES);
	double start;

	if (data == NULL)
		must(lb_fail(-ENOMEM, "out of memory"), "write");
	open_writer(b);
	start = seconds();
	begin(b, 2);
	for (uint64_t at = 0; at < LB_MIB(b->mib); at += SEGMENT_BYTES) {
		fill(data, SEGMENT_BYTES, (unsigned int)at);
		must(lb_hrl_builder_add(b->builder, 1, LB_HRL_CAPTURED, at, SEGMENT_BYTES, data), "write");
		write_segment(b);
	}
	b->left->sequential = lb_journal_writer_tail(b->writer)->position;
	printf("build, seal and write %llu MiB: %.0f MB/s\n", (unsigned long long)b->mib,
	       (double)LB_MIB(b->mib) / 1e6 / (seconds() - start));
}

static void read_sequentially(struct bench *b, const char *from)
{
	struct lb_image *image;
	uint8_t *data = malloc(LB_MIB(1));
	double start;

	if (data == NULL)
		must(lb_fail(-ENOMEM, "out of memory"), "read");
	must(lb_image_open(b->vault, &b->machine, &b->left->sequential, LB_IMAGE_CACHE_BYTES_DEFAULT, &image), "open");
	start = seconds();
	for (uint64_t at = 0; at < LB_MIB(b->mib); at += LB_KIB(64))
		must(lb_image_pread(image, 1, data, LB_KIB(64), at), "read");
	printf("read %llu MiB sequentially, one thread%s: %.0f MB/s\n", (unsigned long long)b->mib, from,
	       (double)LB_MIB(b->mib) / 1e6 / (seconds() - start));
	lb_image_free(image);
}

static void read_near(struct bench *b)
{
	open_vault(b);
	read_sequentially(b, "");
}

static void read_far(struct bench *b)
{
	open_vault(b);
	move_away(b);
	read_sequentially(b, ", 20 ms away");
}

int main(int argc, char **argv)
{
	struct bench b = {.extents = argc > 2 ? strtoull(argv[2], NULL, 10) : 10000000,
			  .mib = argc > 3 ? strtoull(argv[3], NULL, 10) : 512};
	static void (*const steps[])(struct bench * b) = {make_vault,
							  write_scattered,
							  open_from_indexes,
							  checkpoint,
							  open_from_checkpoint,
							  open_far,
							  read_randomly,
							  write_tail,
							  open_after_checkpoint,
							  write_sequentially,
							  read_near,
							  read_far,
							  remove_vault};

	if (argc < 2) {
		fprintf(stderr, "usage: vault_bench FOLDER [EXTENTS] [READ_MIB]\n");
		return 2;
	}
	b.folder = argv[1];
	b.left = mmap(NULL, sizeof(*b.left), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b.left == MAP_FAILED)
		return 1;
	b.left->machine.bytes[0] = 1;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		step(&b, steps[i]);
	return 0;
}
