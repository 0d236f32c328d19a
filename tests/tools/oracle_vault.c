/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oracle_vault --vault URL --passphrase-file F --machine NAME --log FILE [--not-before NS] [--every N]
 *
 * Reads every recovery point of the machine straight from the vault and holds it against the oracle's log. Prints a
 * line per illegal point and a summary in JSON; exit status 1 when one is illegal.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "tools/oracle.h"
#include "vault/image.h"

#define IMAGE_CACHE_BYTES (64u << 20)

struct run {
	struct lb_vault *vault;
	struct lb_catalog_item item;
	struct oracle_log log;
	uint8_t *images[ORACLE_DISKS_MAX];
	uint64_t size_bytes[ORACLE_DISKS_MAX];
	int64_t not_before_ns;
	uint64_t every, seen, checked, illegal, in_flight_max, absent_max;
};

static int read_images(struct run *run, const struct lb_point *point)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	int r;

	r = lb_image_open(run->vault, &run->item.machine, &point->position, IMAGE_CACHE_BYTES, &image);
	for (uint32_t d = 0; r == 0 && d < run->item.n_disks; d++)
		r = lb_image_pread(image, run->item.disks[d].id, run->images[d], run->size_bytes[d], 0);
	return r;
}

static int check_point(void *arg, const struct lb_point *point)
{
	struct run *run = arg;
	struct oracle_verdict verdict;
	int r;

	if (point->time_ns < run->not_before_ns || run->seen++ % run->every != 0)
		return 0;
	r = read_images(run, point);
	if (r < 0)
		return r;
	r = oracle_check(&run->log, (const uint8_t *const *)run->images, run->size_bytes, run->item.n_disks,
			 point->time_ns, &verdict);
	run->checked++;
	if (r == -EUCLEAN) {
		run->illegal++;
		printf("point %" PRIu64 ":%" PRIu64 " is illegal: %s\n", point->position.epoch, point->position.seq,
		       verdict.text);
		return 0;
	}
	if (verdict.in_flight > run->in_flight_max)
		run->in_flight_max = verdict.in_flight;
	if (verdict.in_flight_absent > run->absent_max)
		run->absent_max = verdict.in_flight_absent;
	return r;
}

static int run_all(struct run *run, const char *url, const char *passphrase_file, const char *machine,
		   const char *log_path)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	_cleanup_(lb_vault_freep) struct lb_vault *vault = NULL;
	_cleanup_free_ uint8_t *passphrase = NULL;
	size_t size_bytes;
	int r;

	r = lb_file_read(lb_env_real(), passphrase_file, LB_PASSPHRASE_BYTES_MAX, &passphrase, &size_bytes);
	if (r < 0)
		return r;
	passphrase[strcspn((char *)passphrase, "\n")] = '\0';
	r = lb_store_open(lb_env_real(), url, false, &store);
	if (r == 0)
		r = lb_vault_open(store, (char *)passphrase, &vault);
	if (r == 0)
		r = lb_catalog_find(vault, machine, &run->item);
	if (r < 0)
		return r;
	run->vault = vault;
	r = oracle_log_load(log_path, &run->log);
	if (r < 0)
		return lb_fail(r, "can't read the oracle's log %s", log_path);
	for (uint32_t d = 0; d < run->item.n_disks && d < ORACLE_DISKS_MAX; d++) {
		run->size_bytes[d] = run->item.disks[d].size_bytes;
		run->images[d] = malloc(run->size_bytes[d]);
		if (run->images[d] == NULL)
			return lb_fail(-ENOMEM, "out of memory for disk images");
	}
	return lb_points_list(vault, &run->item.machine, 0, INT64_MAX, check_point, run);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"vault", required_argument, NULL, 'v'},
		{"passphrase-file", required_argument, NULL, 'p'},
		{"machine", required_argument, NULL, 'm'},
		{"log", required_argument, NULL, 'l'},
		{"not-before", required_argument, NULL, 'n'},
		{"every", required_argument, NULL, 'e'},
		{0},
	};
	const char *url = NULL, *passphrase_file = NULL, *machine = NULL, *log_path = NULL;
	struct run run = {.every = 1};
	int c, r;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 'v')
			url = optarg;
		else if (c == 'p')
			passphrase_file = optarg;
		else if (c == 'm')
			machine = optarg;
		else if (c == 'l')
			log_path = optarg;
		else if (c == 'n')
			run.not_before_ns = strtoll(optarg, NULL, 10);
		else if (c == 'e')
			run.every = strtoull(optarg, NULL, 10);
		else
			return 2;
	}
	if (url == NULL || passphrase_file == NULL || machine == NULL || log_path == NULL || run.every == 0)
		return 2;
	r = run_all(&run, url, passphrase_file, machine, log_path);
	for (uint32_t d = 0; d < ORACLE_DISKS_MAX; d++)
		free(run.images[d]);
	oracle_log_free(&run.log);
	if (r < 0) {
		fprintf(stderr, "oracle_vault: %s\n", lb_err_text());
		return 2;
	}
	printf("{\"points\":%" PRIu64 ",\"checked\":%" PRIu64 ",\"illegal\":%" PRIu64 ",\"in_flight_max\":%" PRIu64
	       ",\"absent_max\":%" PRIu64 "}\n",
	       run.seen, run.checked, run.illegal, run.in_flight_max, run.absent_max);
	return run.illegal > 0;
}
