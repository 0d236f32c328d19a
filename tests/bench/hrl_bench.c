/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast segments are built, checked, sealed and opened on this machine:
 *     ninja tests/bench/hrl_bench && tests/bench/hrl_bench
 * Each figure is raw data bytes per second on one core.
 */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/env.h"
#include "base/err.h"
#include "hrl/layout.h"

#define RING_BYTES (128u << 20)
#define SEGMENT_BYTES LB_HRL_DATA_BYTES_NOMINAL
#define ROUNDS 40

static uint64_t random_state = 88172645463325252u;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static void check(int r, const char *what)
{
	if (r < 0) {
		fprintf(stderr, "%s: %s\n", what, lb_err_text());
		exit(1);
	}
}

static double seconds(void)
{
	return (double)lb_mono_ns(lb_env_real()) / 1e9;
}

/* Half random, half text-like bytes: zstd makes about a third of it smaller, as on a server's disk. */
static void fill(uint8_t *ring, bool compressible)
{
	for (size_t i = 0; i < RING_BYTES; i += 8) {
		uint64_t v = next_random();

		if (compressible && (i / 64) % 2 == 0)
			v &= 0x0101010101010101u;
		memcpy(ring + i, &v, sizeof(v));
	}
}

static void add_all(struct lb_hrl_builder *b, const uint8_t *ring, uint32_t write_bytes, bool sequential, uint64_t *at)
{
	for (uint64_t done = 0; done < SEGMENT_BYTES; done += write_bytes, *at += write_bytes) {
		uint64_t offset = sequential ? *at : next_random() % (64u << 20) * write_bytes;

		check(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED, offset, write_bytes, ring + *at % RING_BYTES), "add");
	}
}

static void bench_build(const uint8_t *ring, uint32_t write_bytes, bool sequential)
{
	struct lb_hrl_header header = {.epoch = 1};
	struct lb_buf out = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_hrl_builder *b = NULL;
	struct lb_digest digest;
	double begin, took;
	uint64_t at = 0;

	check(lb_hrl_builder_new(SEGMENT_BYTES, &b), "builder");
	begin = seconds();
	for (int i = 0; i < ROUNDS; i++) {
		out.size_bytes = 0;
		add_all(b, ring, write_bytes, sequential, &at);
		check(lb_hrl_builder_finish(b, &header, &out, &digest), "finish");
	}
	took = seconds() - begin;
	printf("build  %6u-byte writes, %-10s  %8.0f MB/s\n", write_bytes, sequential ? "in order" : "scattered",
	       (double)SEGMENT_BYTES * ROUNDS / took / 1e6);
	lb_hrl_builder_free(b);
	lb_buf_free(&out);
}

static void open_all(const struct lb_key *key, const struct lb_hrl_header *header, const struct lb_buf *sealed,
		     uint8_t *out)
{
	struct lb_hrl_segment *s = NULL;
	struct lb_hrl_frame_place place;

	check(lb_hrl_open_sealed(key, header, sealed->data, sealed->size_bytes, &s), "open");
	for (uint32_t i = 0; i < lb_hrl_frames(s); i++) {
		check(lb_hrl_frame_place(s, i, &place), "place");
		check(lb_hrl_frame_open(s, i, sealed->data + place.offset_bytes, place.stored_bytes, out), "frame");
	}
	lb_hrl_segment_free(s);
}

static void bench_seal(const uint8_t *ring, int level, const char *what)
{
	static const uint8_t salt[LB_SALT_BYTES];
	static uint8_t out[LB_HRL_FRAME_BYTES_MAX];
	struct lb_hrl_header header = {.epoch = 1};
	struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX), sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_hrl_segment *s = NULL;
	struct lb_hrl_builder *b = NULL;
	struct lb_key key = {};
	struct lb_digest digest;
	double check_s = 0, seal_s = 0, open_s = 0, bytes = (double)SEGMENT_BYTES * ROUNDS / 1e6;
	uint64_t at = 0;

	check(lb_hrl_builder_new(SEGMENT_BYTES, &b), "builder");
	for (int i = 0; i < ROUNDS; i++) {
		double t0, t1, t2;

		plain.size_bytes = sealed.size_bytes = 0;
		add_all(b, ring, 4096, false, &at);
		check(lb_hrl_builder_finish(b, &header, &plain, &digest), "finish");
		t0 = seconds();
		check(lb_hrl_open_plain(plain.data, plain.size_bytes, &s), "plain");
		t1 = seconds();
		check(lb_hrl_seal(s, &key, 1, salt, level, &sealed), "seal");
		t2 = seconds();
		lb_hrl_segment_free(s);
		open_all(&key, &header, &sealed, out);
		check_s += t1 - t0;
		seal_s += t2 - t1;
		open_s += seconds() - t2;
	}
	printf("%-12s zstd %d  check %6.0f  seal %6.0f  open %6.0f MB/s, to %.0f %%\n", what, level, bytes / check_s,
	       bytes / seal_s, bytes / open_s, 100.0 * (double)sealed.size_bytes / SEGMENT_BYTES);
	lb_hrl_builder_free(b);
	lb_buf_free(&plain);
	lb_buf_free(&sealed);
}

/* The largest index: how long it takes, and what it adds to the program's memory. */
static void bench_most_extents(void)
{
	struct lb_hrl_header header = {.epoch = 1};
	struct lb_buf out = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_hrl_builder *b = NULL;
	struct lb_digest digest;
	struct rusage before, after;
	double begin;

	getrusage(RUSAGE_SELF, &before);
	check(lb_hrl_builder_new(SEGMENT_BYTES, &b), "builder");
	begin = seconds();
	while (lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED_ZERO, next_random() % (1u << 30) * 512, 1024, NULL) == 0)
		;
	check(lb_hrl_builder_finish(b, &header, &out, &digest), "finish");
	getrusage(RUSAGE_SELF, &after);
	printf("build  the most extents              %8.1f ms, %ld KiB of memory besides %zu KiB of output\n",
	       (seconds() - begin) * 1e3, after.ru_maxrss - before.ru_maxrss - (long)(out.size_bytes >> 10),
	       out.size_bytes >> 10);
	lb_hrl_builder_free(b);
	lb_buf_free(&out);
}

int main(void)
{
	uint8_t *ring;

	bench_most_extents();
	ring = malloc(RING_BYTES);
	if (ring == NULL)
		return 1;
	fill(ring, false);
	bench_build(ring, 512, false);
	bench_build(ring, 4096, false);
	bench_build(ring, 4096, true);
	bench_build(ring, 131072, true);
	bench_seal(ring, 0, "random");
	bench_seal(ring, 1, "random");
	fill(ring, true);
	bench_seal(ring, 1, "compressible");
	free(ring);
	return 0;
}
