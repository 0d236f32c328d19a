/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A vault in a folder of its own and one machine's writer, for tests and benches of the vault. */
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "vault/image.h"
#include "vault/journal.h"

#define SITE_PASSPHRASE "correct horse battery staple"

struct site {
	char folder[64];
	struct lb_store *store;
	struct lb_vault *vault;
	struct lb_uuid machine;
	struct lb_key key;
	struct lb_journal_writer *writer;
	struct lb_hrl_builder *builder;
	uint64_t epoch, seq;   /* of the next segment */
	struct lb_digest prev; /* of the segment before */
	int64_t receipt_ns;
};

/* Fails the test with the error's text. */
#define ok(call)                                                                                                       \
	do {                                                                                                           \
		int ok_r = (call);                                                                                     \
		if (ok_r < 0)                                                                                          \
			fail_msg("%s: %s: %s", #call, strerror(-ok_r), lb_err_text());                                 \
	} while (0)

/* Fails the test unless the call fails so and its text names what it should. */
#define fails_naming(call, code, part)                                                                                 \
	do {                                                                                                           \
		int naming_r = (call);                                                                                 \
		if (naming_r != (code) || strstr(lb_err_text(), (part)) == NULL)                                       \
			fail_msg("%s: %s: %s", #call, strerror(-naming_r), lb_err_text());                             \
	} while (0)

static inline int site_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void site_folder_remove(const char *folder)
{
	nftw(folder, site_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void site_open_store(struct site *s)
{
	char url[80];

	/* memory where there is some: every put waits for the disk, and what a power cut leaves is not asked here */
	snprintf(s->folder, sizeof(s->folder), "%s/lb-test-vault.XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	assert_non_null(mkdtemp(s->folder));
	snprintf(url, sizeof(url), "dir:%s", s->folder);
	ok(lb_store_open(lb_env_real(), url, false, &s->store));
}

static inline void site_new(struct site *s)
{
	struct lb_uuid id;

	*s = (struct site){.receipt_ns = 1000 * LB_NS_PER_S};
	site_open_store(s);
	ok(lb_vault_create(s->store, SITE_PASSPHRASE, &id));
	ok(lb_vault_open(s->store, SITE_PASSPHRASE, &s->vault));
	assert_true(lb_uuid_equal(&id, lb_vault_id(s->vault)));
	memset(s->machine.bytes, 0x4d, sizeof(s->machine.bytes));
	ok(lb_vault_machine_key(s->vault, &s->machine, true, &s->key));
	ok(lb_journal_writer_open(s->vault, &s->machine, &s->writer));
	ok(lb_hrl_builder_new(LB_HRL_DATA_BYTES_NOMINAL, &s->builder));
}

static inline void site_begin(struct site *s, uint64_t epoch)
{
	ok(lb_journal_epoch_begin(s->writer, epoch));
	s->epoch = epoch;
	s->seq = 0;
}

/* Seals what the builder holds as the next segment; advances as an agent does. */
static inline void site_seal(struct site *s, uint32_t flags, struct lb_buf *out)
{
	struct lb_hrl_header header = {.vault = *lb_vault_id(s->vault),
				       .machine = s->machine,
				       .epoch = s->epoch,
				       .seq = s->seq,
				       .ring_cut = 1000 * s->epoch + s->seq,
				       .scan_cursor = s->seq,
				       .time_first_ns = s->receipt_ns,
				       .time_last_ns = s->receipt_ns + 1,
				       .flags = flags,
				       .prev_digest = s->prev};
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *segment = NULL;
	uint8_t salt[LB_SALT_BYTES];
	struct lb_key key;

	memset(header.instance.bytes, 0x11, sizeof(header.instance.bytes));
	ok(lb_hrl_builder_finish(s->builder, &header, &plain, &s->prev));
	ok(lb_hrl_open_plain(plain.data, plain.size_bytes, &segment));
	ok(lb_vault_key_to_seal(s->vault, &s->machine, salt, &key));
	ok(lb_hrl_seal(segment, &key, s->receipt_ns, salt, 1, out));
	s->receipt_ns += LB_NS_PER_S;
	s->seq++;
}

static inline int site_append(struct site *s, const struct lb_buf *sealed, size_t n)
{
	struct lb_sealed_segment segments[64];

	assert_true(n <= 64);
	for (size_t i = 0; i < n; i++)
		segments[i] = (struct lb_sealed_segment){.data = sealed[i].data, .size_bytes = sealed[i].size_bytes};
	return lb_journal_append(s->writer, segments, n);
}

/* One segment, one object. */
static inline void site_write(struct site *s, uint32_t flags)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);

	site_seal(s, flags, &sealed);
	ok(site_append(s, &sealed, 1));
}

static inline void site_add(struct site *s, enum lb_hrl_kind kind, uint64_t offset_bytes, uint64_t length_bytes,
			    const void *data)
{
	ok(lb_hrl_builder_add(s->builder, 0, kind, offset_bytes, length_bytes, data));
}

/* A segment that writes one 4 KiB block of `value` at block `block`. */
static inline void site_write_block(struct site *s, uint64_t block, uint8_t value, uint32_t flags)
{
	uint8_t data[4096];

	memset(data, value, sizeof(data));
	data[0] = (uint8_t)(value + 1); /* not all alike, so that nothing depends on runs */
	site_add(s, LB_HRL_CAPTURED, block * sizeof(data), sizeof(data), data);
	site_write(s, flags);
}

static inline void site_free(struct site *s)
{
	lb_hrl_builder_free(s->builder);
	if (s->writer != NULL)
		lb_journal_writer_free(s->writer);
	lb_vault_free(s->vault);
	lb_store_free(s->store);
	site_folder_remove(s->folder);
}

static inline void site_path(const struct site *s, const char *object, char path[512])
{
	snprintf(path, 512, "%s/%s", s->folder, object);
}

/* The objects of a site whose names contain `part`, in order. */
struct site_names {
	const char *part;
	char name[512][LB_STORE_NAME_BYTES_MAX + 1];
	uint64_t size_bytes[512];
	size_t n;
};

static inline int site_name_note(void *arg, const char *name, uint64_t size_bytes)
{
	struct site_names *names = arg;

	if (strstr(name, names->part) == NULL || names->n == 512)
		return 0;
	names->size_bytes[names->n] = size_bytes;
	strcpy(names->name[names->n++], name);
	return 0;
}

static inline void site_names(struct site *s, const char *part, struct site_names *names)
{
	names->part = part;
	names->n = 0;
	ok(lb_store_list(s->store, "", site_name_note, names));
}

/* Flips one bit of an object behind the store's back. */
static inline void site_flip(const struct site *s, const char *object, uint64_t offset_bytes)
{
	char path[512];
	uint8_t byte;
	int fd;

	site_path(s, object, path);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)offset_bytes), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset_bytes), 1);
	close(fd);
}
