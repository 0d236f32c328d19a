/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mkvault --vault URL --passphrase-file F --machine NAME --disk NAME=IMAGE... [--points N] [--oracle FOLDER] [--seed N]
 *         [--memory SIZE] [--cpus N] [--firmware bios|uefi] [--key-file F] [--proof OFFSET] [--step]
 *         [--from OFFSET]
 *
 * Makes a vault that holds the images as one machine's disks: an epoch that scans them whole, then N - 1 points of
 * random writes (zeroes, small and large ones, overlaps; half-way a second epoch whose scan comes after captured writes
 * that it must not hide). What the disks are at each point is kept in FOLDER/<n>-<disk>.raw, by plain pwrite: the
 * oracle. With --proof the first disk carries there what a double of it is to say (vault/proof.h), as of 30 s before
 * the first point. With --step each point is told by a line "EPOCH:SEQ" as soon as it is there, and the next one waits
 * for a line on standard input. Prints {"vault_id","machine","points":[{"epoch","seq"}...]}.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <jansson.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "vault/catalog.h"
#include "vault/points.h"
#include "vault/proof.h"

#define DISKS_MAX 8
#define WRITES_PER_POINT 24
#define WRITE_BYTES_MAX (256u << 10)
#define SCAN_BYTES (1u << 20)
#define RECEIPT_FIRST_NS INT64_C(1767225600000000000) /* 2026-01-01 */
#define RECEIPT_STEP_NS (5 * LB_NS_PER_S)

struct disk {
	char name[LB_DISK_NAME_BYTES];
	const char *path;
	uint8_t *now; /* private: written as the writes go */
	uint64_t size_bytes;
};

struct mkvault {
	const char *url, *passphrase_file, *machine, *oracle, *key_file;
	const char *firmware;
	struct disk disks[DISKS_MAX];
	uint32_t n_disks, points, cpus;
	uint64_t memory_bytes, seed, proof_offset; /* 0: no proof */
	uint64_t from_bytes;                       /* random writes begin there: what is before may be started from */
	bool step;

	struct lb_store *store;
	struct lb_vault *vault;
	struct lb_key key;
	struct lb_journal_writer *writer;
	struct lb_hrl_builder *builder;
	struct lb_hrl_header header; /* of the next segment */
	uint64_t n_segments;
	uint8_t *pieces[WRITES_PER_POINT];
	json_t *made;
};

static uint64_t next_random(struct mkvault *m)
{
	m->seed ^= m->seed << 13;
	m->seed ^= m->seed >> 7;
	m->seed ^= m->seed << 17;
	return m->seed;
}

static int die(void)
{
	fprintf(stderr, "mkvault: %s\n", lb_err_text());
	exit(1);
}

static void check(int r)
{
	if (r < 0)
		die();
}

/* Closes the segment that is being built and puts it into the vault, an object of its own. */
static void put_segment(struct mkvault *m, uint32_t flags)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX), sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *segment = NULL;
	struct lb_sealed_segment one;
	struct lb_digest digest;
	uint8_t salt[LB_SALT_BYTES];
	int64_t receipt_ns = RECEIPT_FIRST_NS + (int64_t)m->n_segments++ * RECEIPT_STEP_NS;

	m->header.flags = flags;
	m->header.time_first_ns = receipt_ns - RECEIPT_STEP_NS;
	m->header.time_last_ns = receipt_ns;
	check(lb_hrl_builder_finish(m->builder, &m->header, &plain, &digest));
	check(lb_hrl_open_plain(plain.data, plain.size_bytes, &segment));
	check(lb_env_real()->ops->random(lb_env_real(), salt, sizeof(salt)));
	lb_salt_mark(salt, 0);
	check(lb_hrl_seal(segment, &m->key, receipt_ns, salt, 1, &sealed));
	one = (struct lb_sealed_segment){.data = sealed.data, .size_bytes = sealed.size_bytes};
	check(lb_journal_append(m->writer, &one, 1));
	m->header.prev_digest = digest;
	m->header.seq++;
	m->header.ring_cut += 4096;
}

static void keep_oracle(struct mkvault *m, uint32_t point)
{
	char path[PATH_MAX];
	int c;

	for (uint32_t i = 0; m->oracle != NULL && i < m->n_disks; i++) {
		snprintf(path, sizeof(path), "%s/%u-%s.raw", m->oracle, point, m->disks[i].name);
		check(lb_file_write(lb_env_real(), path, m->disks[i].now, m->disks[i].size_bytes, 0644));
	}
	check(json_array_append_new(m->made, json_pack("{s:I,s:I}", "epoch", (json_int_t)m->header.epoch, "seq",
						       (json_int_t)m->header.seq - 1)));
	if (m->step) {
		printf("%" PRIu64 ":%" PRIu64 "\n", m->header.epoch, m->header.seq - 1);
		fflush(stdout);
		while (point + 1 < m->points && (c = getchar()) != '\n')
			if (c == EOF)
				exit(1);
	}
}

static void scan(struct mkvault *m, uint32_t disk, uint64_t begin, uint64_t end)
{
	for (uint64_t at = begin; at < end; at += SCAN_BYTES) {
		uint64_t n = LB_MIN(end - at, (uint64_t)SCAN_BYTES);
		int r = lb_hrl_builder_add(m->builder, (uint16_t)disk, LB_HRL_SCANNED, at, n, m->disks[disk].now + at);

		if (r == -EMSGSIZE || lb_hrl_builder_data_bytes(m->builder) >= LB_HRL_DATA_BYTES_NOMINAL) {
			put_segment(m, LB_HRL_SCANNING);
			if (r == -EMSGSIZE)
				r = lb_hrl_builder_add(m->builder, (uint16_t)disk, LB_HRL_SCANNED, at, n,
						       m->disks[disk].now + at);
		}
		check(r);
	}
}

static void begin_epoch(struct mkvault *m)
{
	m->header.epoch++;
	m->header.seq = 0;
	check(lb_env_real()->ops->random(lb_env_real(), &m->header.instance, sizeof(m->header.instance)));
	check(lb_journal_epoch_begin(m->writer, m->header.epoch));
}

static void write_one(struct mkvault *m, unsigned int n)
{
	uint32_t disk = (uint32_t)(next_random(m) % m->n_disks);
	struct disk *d = &m->disks[disk];
	uint64_t sectors = 1 + next_random(m) % (next_random(m) % 4 == 0 ? WRITE_BYTES_MAX / 512 : 16);
	uint64_t from = LB_MIN(m->from_bytes, d->size_bytes - 512);
	uint64_t length = LB_MIN(sectors * 512, d->size_bytes - from);
	uint64_t at = from + next_random(m) % ((d->size_bytes - from - length) / 512 + 1) * 512;
	bool zero = next_random(m) % 5 == 0;

	for (uint64_t i = 0; i < length; i++)
		m->pieces[n][i] = zero ? 0 : (uint8_t)(next_random(m) >> 24);
	memcpy(d->now + at, m->pieces[n], length);
	check(lb_hrl_builder_add(m->builder, (uint16_t)disk, zero ? LB_HRL_CAPTURED_ZERO : LB_HRL_CAPTURED, at, length,
				 zero ? NULL : m->pieces[n]));
}

/* A second epoch: writes are captured first, then chunks are scanned that hold them and older ones. */
static void second_epoch(struct mkvault *m)
{
	uint64_t end = LB_MIN(m->disks[0].size_bytes, (uint64_t)4 << 20);
	uint8_t *stale = malloc(end);

	put_segment(m, LB_HRL_LAST);
	begin_epoch(m);
	if (stale == NULL)
		exit(1);
	memcpy(stale, m->disks[0].now, end);
	for (unsigned int i = 0; i < WRITES_PER_POINT; i++)
		write_one(m, i);
	put_segment(m, LB_HRL_SCANNING);
	/* the scan read before the writes: what it saw is older than what was captured */
	check(lb_hrl_builder_add(m->builder, 0, LB_HRL_SCANNED, 0, end, stale));
	put_segment(m, LB_HRL_POINT);
	free(stale);
}

static void fill(struct mkvault *m)
{
	begin_epoch(m);
	for (uint32_t i = 0; i < m->n_disks; i++)
		scan(m, i, 0, m->disks[i].size_bytes);
	put_segment(m, LB_HRL_POINT);
	keep_oracle(m, 0);
	for (uint32_t p = 1; p < m->points; p++) {
		if (p == m->points / 2 && p > 1) {
			second_epoch(m);
		} else {
			for (unsigned int i = 0; i < WRITES_PER_POINT; i++)
				write_one(m, i);
			put_segment(m, LB_HRL_POINT);
		}
		keep_oracle(m, p);
	}
}

static void map_disks(struct mkvault *m, struct lb_catalog_item *item)
{
	for (uint32_t i = 0; i < m->n_disks; i++) {
		_cleanup_close_ int fd = open(m->disks[i].path, O_RDONLY | O_CLOEXEC);
		struct lb_catalog_disk *disk = &item->disks[i];

		if (fd < 0)
			check(lb_fail(-errno, "can't open %s", m->disks[i].path));
		check(lb_env_real()->ops->size(lb_env_real(), fd, &m->disks[i].size_bytes));
		m->disks[i].now = mmap(NULL, m->disks[i].size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		if (m->disks[i].now == MAP_FAILED)
			check(lb_fail(-errno, "can't map %s", m->disks[i].path));
		*disk = (struct lb_catalog_disk){
			.id = (uint16_t)i, .size_bytes = m->disks[i].size_bytes, .sector_bytes = 512, .boot = i == 0};
		snprintf(disk->name, sizeof(disk->name), "%s", m->disks[i].name);
		snprintf(disk->serial, sizeof(disk->serial), "serial-%u", i);
	}
	item->n_disks = m->n_disks;
}

static void open_vault(struct mkvault *m)
{
	_cleanup_free_ uint8_t *passphrase = NULL;
	struct lb_env *env = lb_env_real();
	struct lb_uuid id;
	size_t n;
	int r;

	check(lb_file_read(env, m->passphrase_file, LB_PASSPHRASE_BYTES_MAX, &passphrase, &n));
	passphrase[strcspn((char *)passphrase, "\r\n")] = '\0';
	check(lb_store_open(env, m->url, true, &m->store));
	r = lb_vault_create(m->store, (char *)passphrase, &id);
	if (r != -EEXIST)
		check(r);
	check(lb_vault_open(m->store, (char *)passphrase, &m->vault));
}

static void make_machine(struct mkvault *m)
{
	struct lb_catalog_item item = {.cpus = m->cpus, .memory_bytes = m->memory_bytes, .consistency_interval_s = 5};

	check(lb_env_real()->ops->random(lb_env_real(), &item.machine, sizeof(item.machine)));
	snprintf(item.name, sizeof(item.name), "%s", m->machine);
	snprintf(item.firmware, sizeof(item.firmware), "%s", m->firmware);
	snprintf(item.architecture, sizeof(item.architecture), "x86_64");
	snprintf(item.policy, sizeof(item.policy), "default");
	memset(item.hardware, 'a', sizeof(item.hardware) - 1);
	map_disks(m, &item);
	check(lb_vault_machine_key(m->vault, &item.machine, true, &m->key));
	check(lb_catalog_put(m->vault, &item));
	check(lb_journal_writer_open(m->vault, &item.machine, &m->writer));
	check(lb_hrl_builder_new(LB_HRL_DATA_BYTES_MAX, &m->builder));
	m->header.vault = *lb_vault_id(m->vault);
	m->header.machine = item.machine;
	if (m->key_file != NULL)
		check(lb_file_write(lb_env_real(), m->key_file, m->key.bytes, LB_KEY_BYTES, 0600));
}

static void put_proof(struct mkvault *m)
{
	char id[LB_UUID_TEXT_BYTES], word[LB_PROOF_TEXT_BYTES];

	if (m->proof_offset == 0)
		return;
	if (m->proof_offset + 512 > m->disks[0].size_bytes)
		check(lb_fail(-EINVAL, "--proof lies beyond the disk"));
	check(lb_proof_make(m->vault, &m->header.machine, RECEIPT_FIRST_NS - 30 * LB_NS_PER_S, word));
	lb_uuid_format(&m->header.machine, id);
	snprintf((char *)m->disks[0].now + m->proof_offset, 256, "\r\n" LB_PROOF_SAID " %s %s\r\n", id, word);
}

static void tell(struct mkvault *m)
{
	char vault[LB_UUID_TEXT_BYTES], machine[LB_UUID_TEXT_BYTES];
	json_t *all;

	lb_uuid_format(&m->header.vault, vault);
	lb_uuid_format(&m->header.machine, machine);
	all = json_pack("{s:s,s:s,s:o}", "vault_id", vault, "machine", machine, "points", m->made);
	json_dumpf(all, stdout, JSON_COMPACT);
	json_decref(all);
	printf("\n");
}

static void add_disk(struct mkvault *m, char *text)
{
	char *equals = strchr(text, '=');

	if (equals == NULL || m->n_disks == DISKS_MAX)
		check(lb_fail(-EINVAL, "--disk NAME=IMAGE, at most %d of them", DISKS_MAX));
	*equals = '\0';
	snprintf(m->disks[m->n_disks].name, sizeof(m->disks[0].name), "%s", text);
	m->disks[m->n_disks++].path = equals + 1;
}

static void take_option(struct mkvault *m, int option)
{
	uint64_t v = 0;

	if (strchr("nscP", option) != NULL)
		check(lb_u64_parse(optarg, UINT32_MAX, &v));
	switch (option) {
	case 'v':
		m->url = optarg;
		break;
	case 'p':
		m->passphrase_file = optarg;
		break;
	case 'm':
		m->machine = optarg;
		break;
	case 'd':
		add_disk(m, optarg);
		break;
	case 'n':
		m->points = (uint32_t)v;
		break;
	case 'o':
		m->oracle = optarg;
		break;
	case 's':
		m->seed = v * 2 + 1;
		break;
	case 'M':
		check(lb_size_parse(optarg, &m->memory_bytes));
		break;
	case 'c':
		m->cpus = (uint32_t)v;
		break;
	case 'f':
		m->firmware = optarg;
		break;
	case 'k':
		m->key_file = optarg;
		break;
	case 'S':
		m->step = true;
		break;
	case 'P':
		m->proof_offset = v;
		break;
	case 'F':
		m->from_bytes = v;
		break;
	default:
		check(lb_fail(-EINVAL, "see the head of mkvault.c"));
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"vault", 1, NULL, 'v'},
		{"passphrase-file", 1, NULL, 'p'},
		{"machine", 1, NULL, 'm'},
		{"disk", 1, NULL, 'd'},
		{"points", 1, NULL, 'n'},
		{"oracle", 1, NULL, 'o'},
		{"seed", 1, NULL, 's'},
		{"memory", 1, NULL, 'M'},
		{"cpus", 1, NULL, 'c'},
		{"firmware", 1, NULL, 'f'},
		{"key-file", 1, NULL, 'k'},
		{"proof", 1, NULL, 'P'},
		{"step", 0, NULL, 'S'},
		{"from", 1, NULL, 'F'},
		{0},
	};
	struct mkvault m = {.machine = "machine",
			    .points = 1,
			    .cpus = 1,
			    .seed = 1,
			    .memory_bytes = 256u << 20,
			    .firmware = "bios",
			    .made = json_array()};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		take_option(&m, option);
	if (m.url == NULL || m.passphrase_file == NULL || m.n_disks == 0)
		check(lb_fail(-EINVAL, "--vault, --passphrase-file and --disk are needed"));
	for (unsigned int i = 0; i < WRITES_PER_POINT; i++)
		if ((m.pieces[i] = malloc(WRITE_BYTES_MAX)) == NULL)
			check(lb_fail(-ENOMEM, "out of memory"));
	open_vault(&m);
	make_machine(&m);
	put_proof(&m);
	fill(&m);
	tell(&m);
	for (unsigned int i = 0; i < WRITES_PER_POINT; i++)
		free(m.pieces[i]);
	lb_journal_writer_free(m.writer);
	lb_hrl_builder_free(m.builder);
	lb_key_wipe(&m.key);
	lb_vault_free(m.vault);
	lb_store_free(m.store);
	return 0;
}
