/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folded journal of many extents: EXTENTS scattered over a disk of 1 TiB in 15 days, beside them a small place that
 * is written over and over, so that data is moved; pruned by the default ladder. Then the oldest, a middle, the newest
 * folded and the newest point are opened and read, also 20 ms away. usage: folded_bench FOLDER [EXTENTS]. FOLDER is
 * used for a vault that is removed at the end.
 */
#include "vault_bench.h"

#include "vault/fold.h"
#include "vault/manifest.h"

#define DAYS 15
#define HOT_WRITES (WRITES_PER_SEGMENT / 4)
#define HOT_SECTORS 32768
#define DAY_NS (24 * 3600 * LB_NS_PER_S)
#define START_NS (20000 * DAY_NS)
#define END_NS (START_NS + DAYS * DAY_NS)
#define ROUNDS_MAX 400

static void write_days(struct bench *b)
{
	static uint8_t data[WRITES_PER_SEGMENT][512];
	const uint64_t per_segment = WRITES_PER_SEGMENT - HOT_WRITES;
	uint64_t segments = (b->extents + per_segment - 1) / per_segment;
	unsigned int seed = 1;

	open_writer(b);
	begin(b, 1);
	fill(data[0], sizeof(data), 7);
	for (uint64_t k = 0; k < segments; k++) {
		b->receipt_ns = START_NS + (int64_t)(k + 1) * (DAYS * DAY_NS / (int64_t)segments);
		for (uint64_t i = 0; i < WRITES_PER_SEGMENT; i++) {
			uint64_t sector = ((uint64_t)rand_r(&seed) << 31 | (uint64_t)rand_r(&seed)) %
					  (i < HOT_WRITES ? HOT_SECTORS : LB_GIB(1024) / 512);

			must(lb_hrl_builder_add(b->builder, 0, LB_HRL_CAPTURED, sector * 512, 512, data[i]), "write");
		}
		write_segment(b);
	}
}

static void fold(struct bench *b)
{
	struct lb_fold_options options = {.retention = lb_retention_default, .now_ns = END_NS};
	struct lb_fold_report report = {.changed = true};
	double start = seconds(), longest = 0;
	uint64_t rewritten = 0;
	struct rusage usage;
	int rounds = 0;

	open_vault(b);
	for (; report.changed && rounds < ROUNDS_MAX; rounds++) {
		double begun = seconds();

		must(lb_fold_round(b->vault, &b->machine, &options, &report), "fold");
		longest = LB_MAX(longest, seconds() - begun);
		rewritten += report.rewritten_bytes;
	}
	getrusage(RUSAGE_SELF, &usage);
	printf("fold, unpaced: %d rounds: %.1f s (the longest %.1f s, %.0f MiB of data moved, peak memory %ld MiB)\n",
	       rounds, seconds() - start, longest, (double)rewritten / 1048576, usage.ru_maxrss / 1024);
}

static void choose_points(struct bench *b)
{
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	struct lb_point newest;
	uint64_t moved = 0, bytes = 0;
	size_t last;

	open_vault(b);
	must(lb_manifest_read(b->vault, &b->machine, &m), "manifest");
	if (m->n_spans < 3)
		must(lb_fail(-ENODATA, "it has %zu spans", m->n_spans), "fold");
	for (last = m->n_spans - 1; last > 0 && (m->spans[last].point.flags & LB_HRL_POINT) == 0;)
		last--;
	b->left->oldest = m->spans[0].point.position;
	b->left->middle = m->spans[last / 2].point.position;
	b->left->folded = m->spans[last].point.position;
	must(lb_point_find(b->vault, &b->machine, "latest", &newest), "point");
	b->left->newest = newest.position;
	for (size_t i = 0; i < m->n_live; i++)
		moved += m->live[i].epoch == 0;
	for (size_t i = 0; i < m->n_spans; i++)
		bytes += m->spans[i].map_bytes;
	printf("spans: %zu (%zu live objects, %llu of them of moved data, maps of %.0f MiB)\n", m->n_spans, m->n_live,
	       (unsigned long long)moved, (double)bytes / 1048576);
}

static void open_oldest(struct bench *b)
{
	open_vault(b);
	open_point(b, &b->left->oldest, "folded, the oldest");
}

static void open_middle(struct bench *b)
{
	open_vault(b);
	open_point(b, &b->left->middle, "folded, in the middle");
}

static void open_folded(struct bench *b)
{
	open_vault(b);
	open_point(b, &b->left->folded, "folded, the newest of those");
}

static void open_folded_far(struct bench *b)
{
	open_vault(b);
	move_away(b);
	open_point(b, &b->left->folded, "folded, the newest of those, 20 ms away");
}

static void open_newest(struct bench *b)
{
	open_vault(b);
	open_point(b, &b->left->newest, "behind what is folded, no checkpoint");
}

static void checkpoint(struct bench *b)
{
	double start = seconds();
	struct rusage usage;
	bool written;

	open_vault(b);
	must(lb_checkpoint_write(b->vault, &b->machine, true, &written), "checkpoint");
	getrusage(RUSAGE_SELF, &usage);
	printf("write a checkpoint behind it: %.2f s (peak memory %ld MiB)\n", seconds() - start,
	       usage.ru_maxrss / 1024);
}

static void open_newest_checkpointed(struct bench *b)
{
	open_vault(b);
	open_point(b, &b->left->newest, "behind what is folded, a checkpoint");
}

int main(int argc, char **argv)
{
	struct bench b = {.extents = argc > 2 ? strtoull(argv[2], NULL, 10) : 10000000};
	static void (*const steps[])(struct bench * b) = {make_vault,
							  write_days,
							  fold,
							  choose_points,
							  open_oldest,
							  open_middle,
							  open_folded,
							  open_folded_far,
							  open_newest,
							  checkpoint,
							  open_newest_checkpointed,
							  remove_vault};

	if (argc < 2) {
		fprintf(stderr, "usage: folded_bench FOLDER [EXTENTS]\n");
		return 2;
	}
	b.folder = argv[1];
	return run_steps(&b, steps, LB_ARRAY_LEN(steps));
}
