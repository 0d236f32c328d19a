/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of the vault on this machine: how fast a journal is written, a point of a large map opened, an image read,
 * also from a store that is far away (every call takes FAR_MS). Each step runs in a process of its own, so that the
 * memory it takes is its own. usage: vault_bench FOLDER [EXTENTS] [READ_MIB]. FOLDER is used for a vault that is
 * removed at the end.
 */
#include "vault_bench.h"

#define TAIL_SEGMENTS 60
#define TAIL_WRITES_PER_SEGMENT 2000
#define RANDOM_READS 2000

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

static void tell_reads(const char *what, const struct lb_image_stats *before, const struct lb_image_stats *after,
		       double took)
{
	uint64_t heads = after->heads_read - before->heads_read;

	printf("%s: %.2f ms\n", what, took * 1000 / RANDOM_READS);
	printf("  frames fetched per read, heads of segments beside them: %.2f, %.2f\n",
	       (double)(after->objects_read - before->objects_read - heads) / RANDOM_READS,
	       (double)heads / RANDOM_READS);
	printf("  bytes fetched per read: %.0f KiB\n",
	       (double)(after->bytes_read - before->bytes_read) / RANDOM_READS / 1024);
}

/*
 * 4 KiB where something was written, a place of its own each time. The head of a segment, which says where its frames
 * lie, is fetched by the first read that needs it: the second turn finds most of them.
 */
static void read_randomly(struct bench *b)
{
	struct lb_image_stats before, after;
	struct lb_image *image;
	unsigned int seed = 3;
	uint8_t data[4096];

	open_vault(b);
	must(lb_image_open(b->vault, &b->machine, &b->left->scattered, LB_IMAGE_CACHE_BYTES_DEFAULT, &image), "open");
	for (int turn = 0; turn < 3; turn++) {
		double took = 0;

		lb_image_stats(image, &before);
		for (int i = 0; i < RANDOM_READS; i++) {
			uint64_t at =
				((uint64_t)rand_r(&seed) << 31 | (uint64_t)rand_r(&seed)) % LB_GIB(1023) / 4096 * 4096;
			double start;

			must(lb_image_extents(image, 0, at, LB_GIB(1), first_extent, &at), "extents");
			start = seconds();
			must(lb_image_pread(image, 0, data, sizeof(data), at / 4096 * 4096), "read");
			took += seconds() - start;
		}
		lb_image_stats(image, &after);
		if (turn != 1)
			tell_reads(turn == 0 ? "read 4 KiB at random, just opened" : "read 4 KiB at random, later on",
				   &before, &after, took);
	}
	lb_image_free(image);
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

/* All of it, in order and then anywhere, through a small cache: how far memory grows. */
static void read_bounded(struct bench *b)
{
	uint8_t *data = malloc(LB_MIB(1));
	struct lb_image *image;
	unsigned int seed = 5;
	struct rusage usage;
	long before;

	if (data == NULL)
		must(lb_fail(-ENOMEM, "out of memory"), "read");
	open_vault(b);
	must(lb_image_open(b->vault, &b->machine, &b->left->sequential, LB_MIB(16), &image), "open");
	getrusage(RUSAGE_SELF, &usage);
	before = usage.ru_maxrss;
	for (uint64_t at = 0; at < LB_MIB(b->mib); at += LB_KIB(64))
		must(lb_image_pread(image, 1, data, LB_KIB(64), at), "read");
	for (int i = 0; i < RANDOM_READS; i++)
		must(lb_image_pread(image, 1, data, LB_KIB(4),
				    (uint64_t)rand_r(&seed) % (LB_MIB(b->mib) / LB_KIB(4)) * LB_KIB(4)),
		     "read");
	getrusage(RUSAGE_SELF, &usage);
	printf("memory that reading %llu MiB through a cache of 16 MiB takes: %ld MiB\n", (unsigned long long)b->mib,
	       (usage.ru_maxrss - before) / 1024);
	lb_image_free(image);
	free(data);
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
							  read_bounded,
							  read_far,
							  remove_vault};

	if (argc < 2) {
		fprintf(stderr, "usage: vault_bench FOLDER [EXTENTS] [READ_MIB]\n");
		return 2;
	}
	b.folder = argv[1];
	return run_steps(&b, steps, LB_ARRAY_LEN(steps));
}
