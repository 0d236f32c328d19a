/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of the vault on this machine: how fast a journal is written, a point of a large map opened, an image read.
 * usage: vault_bench FOLDER [EXTENTS] [READ_MIB]. FOLDER is used for a vault that is removed at the end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/text.h"
#include "vault/image.h"
#include "vault/journal.h"

#define WRITES_PER_SEGMENT 8192
#define SEGMENT_BYTES (8u << 20)

struct bench {
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

static void setup(struct bench *b, const char *folder)
{
	char url[4200];
	struct lb_uuid id;

	memset(b, 0, sizeof(*b));
	snprintf(url, sizeof(url), "dir:%s/vault-bench", folder);
	must(lb_store_open(lb_env_real(), url, true, &b->store), "store");
	must(lb_vault_create(b->store, "a passphrase of the bench", &id), "vault");
	must(lb_vault_open(b->store, "a passphrase of the bench", &b->vault), "vault");
	must(lb_vault_machine_key(b->vault, &b->machine, true, &b->key), "key");
	must(lb_journal_writer_open(b->vault, &b->machine, &b->writer), "writer");
	must(lb_hrl_builder_new(SEGMENT_BYTES, &b->builder), "builder");
}

static int remove_object(void *arg, const char *name, uint64_t size_bytes)
{
	(void)size_bytes;
	return lb_store_remove(arg, name);
}

static void teardown(struct bench *b)
{
	must(lb_store_list(b->store, "", remove_object, b->store), "cleaning up");
	lb_hrl_builder_free(b->builder);
	lb_journal_writer_free(b->writer);
	lb_vault_free(b->vault);
	lb_store_free(b->store);
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

static void write_scattered(struct bench *b, uint64_t extents)
{
	static uint8_t data[WRITES_PER_SEGMENT][512];
	double start = seconds();
	unsigned int seed = 1;

	fill(data[0], sizeof(data), 7);
	begin(b, 1);
	for (uint64_t done = 0; done < extents;) {
		for (uint64_t i = 0; i < WRITES_PER_SEGMENT && done < extents; i++, done++) {
			uint64_t sector =
				((uint64_t)rand_r(&seed) << 31 | (uint64_t)rand_r(&seed)) % (LB_GIB(1024) / 512);

			must(lb_hrl_builder_add(b->builder, 0, LB_HRL_CAPTURED, sector * 512, 512, data[i]), "write");
		}
		write_segment(b);
	}
	printf("write %llu scattered extents: %.2f s\n", (unsigned long long)extents, seconds() - start);
}

static void open_newest(struct bench *b, const char *what)
{
	const struct lb_journal_tail *tail = lb_journal_writer_tail(b->writer);
	struct lb_image_stats stats;
	struct lb_image *image;
	struct rusage usage;
	double start = seconds();

	must(lb_image_open(b->vault, &b->machine, &tail->position, LB_IMAGE_CACHE_BYTES_DEFAULT, &image), "open");
	start = seconds() - start;
	lb_image_stats(image, &stats);
	getrusage(RUSAGE_SELF, &usage);
	printf("open a point, %s: %.3f s (%llu extents, %llu objects, %.1f MiB read, peak memory %ld MiB)\n", what,
	       start, (unsigned long long)stats.map_extents, (unsigned long long)stats.objects_read,
	       (double)stats.bytes_read / 1048576, usage.ru_maxrss / 1024);
	lb_image_free(image);
}

static void read_sequentially(struct bench *b, uint64_t mib)
{
	const struct lb_journal_tail *tail = lb_journal_writer_tail(b->writer);
	uint8_t *data = malloc(SEGMENT_BYTES);
	struct lb_image *image;
	double start = seconds();

	if (data == NULL)
		must(lb_fail(-ENOMEM, "out of memory"), "read");
	begin(b, 2);
	for (uint64_t at = 0; at < LB_MIB(mib); at += SEGMENT_BYTES) {
		fill(data, SEGMENT_BYTES, (unsigned int)at);
		must(lb_hrl_builder_add(b->builder, 1, LB_HRL_CAPTURED, at, SEGMENT_BYTES, data), "write");
		write_segment(b);
	}
	printf("build, seal and write %llu MiB: %.0f MB/s\n", (unsigned long long)mib,
	       (double)LB_MIB(mib) / 1e6 / (seconds() - start));
	must(lb_image_open(b->vault, &b->machine, &tail->position, LB_IMAGE_CACHE_BYTES_DEFAULT, &image), "open");
	start = seconds();
	for (uint64_t at = 0; at < LB_MIB(mib); at += LB_MIB(1))
		must(lb_image_pread(image, 1, data, LB_MIB(1), at), "read");
	printf("read %llu MiB sequentially, one thread: %.0f MB/s\n", (unsigned long long)mib,
	       (double)LB_MIB(mib) / 1e6 / (seconds() - start));
	lb_image_free(image);
	free(data);
}

int main(int argc, char **argv)
{
	uint64_t extents = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000,
		 mib = argc > 3 ? strtoull(argv[3], NULL, 10) : 512;
	struct bench b;
	double start;
	bool written;

	if (argc < 2) {
		fprintf(stderr, "usage: vault_bench FOLDER [EXTENTS] [READ_MIB]\n");
		return 2;
	}
	setup(&b, argv[1]);
	write_scattered(&b, extents);
	open_newest(&b, "from the indexes alone");
	start = seconds();
	must(lb_checkpoint_write(b.vault, &b.machine, true, &written), "checkpoint");
	printf("write the checkpoint: %.3f s\n", seconds() - start);
	open_newest(&b, "from a checkpoint");
	read_sequentially(&b, mib);
	teardown(&b);
	return 0;
}
