/* SPDX-License-Identifier: Apache-2.0 */
#include "target/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/io.h"

/* An entry: magic, disk, length, offset, SHA-256 over the 24 bytes before it and the data; then the data. */
#define MAGIC 0x6f646e55u
#define AT_DIGEST 24
#define HEAD_BYTES (AT_DIGEST + LB_DIGEST_BYTES)
#define ENTRIES_MAX (16u << 20)

static int failed(const struct lb_undo *u, const char *what, int r)
{
	return lb_fail(r, "can't %s %s: %s", what, u->path, strerror(-r));
}

/* Reads the entry at `at` into `data`; -ENODATA at the end or where it is torn. */
static int read_entry(struct lb_undo *u, uint64_t at, uint64_t end, uint8_t head[HEAD_BYTES], uint8_t *data,
		      uint32_t *ret_size_bytes)
{
	struct lb_digest digest;
	uint32_t size_bytes;
	int r;

	if (end - at < HEAD_BYTES)
		return -ENODATA;
	r = lb_pread_full(u->env, u->fd, head, HEAD_BYTES, at);
	if (r < 0)
		return failed(u, "read", r);
	size_bytes = lb_get_le32(head + 8);
	if (lb_get_le32(head) != MAGIC || size_bytes > LB_UNDO_DATA_BYTES_MAX || size_bytes > end - at - HEAD_BYTES)
		return -ENODATA;
	r = lb_pread_full(u->env, u->fd, data, size_bytes, at + HEAD_BYTES);
	if (r < 0)
		return failed(u, "read", r);
	r = lb_sha256_2(head, AT_DIGEST, data, size_bytes, &digest);
	if (r < 0)
		return r;
	if (memcmp(digest.bytes, head + AT_DIGEST, LB_DIGEST_BYTES) != 0)
		return -ENODATA;
	*ret_size_bytes = size_bytes;
	return 0;
}

struct places {
	uint64_t *at;
	size_t n, room;
};

static int note_place(struct places *p, uint64_t at)
{
	if (p->n == p->room) {
		size_t room = p->room > 0 ? 2 * p->room : 1024;
		uint64_t *larger = room > ENTRIES_MAX ? NULL : reallocarray(p->at, room, sizeof(*larger));

		if (larger == NULL)
			return lb_fail(-ENOMEM, "out of memory for the entries of an undo file");
		p->at = larger;
		p->room = room;
	}
	p->at[p->n++] = at;
	return 0;
}

/* Where the whole entries are; `u->size_bytes` becomes their end. */
static int find_entries(struct lb_undo *u, uint64_t end, struct places *places)
{
	_cleanup_free_ uint8_t *data = malloc(LB_UNDO_DATA_BYTES_MAX);
	uint8_t head[HEAD_BYTES];
	uint32_t size_bytes;
	uint64_t at = 0;
	int r = data == NULL ? lb_fail(-ENOMEM, "out of memory") : 0;

	while (r == 0) {
		r = read_entry(u, at, end, head, data, &size_bytes);
		if (r == 0 && places != NULL)
			r = note_place(places, at);
		if (r == 0)
			at += HEAD_BYTES + size_bytes;
	}
	if (r != -ENODATA)
		return r;
	u->size_bytes = at;
	return 0;
}

int lb_undo_open(struct lb_env *env, const char *folder, uint64_t number, struct lb_undo *ret_undo)
{
	_cleanup_(lb_undo_close) struct lb_undo u = {.env = env};
	uint64_t end;
	int r;

	snprintf(u.path, sizeof(u.path), "%s/undo-%llu", folder, (unsigned long long)number);
	u.fd = env->ops->open(env, u.path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (u.fd < 0)
		return failed(&u, "open", u.fd);
	r = env->ops->size(env, u.fd, &end);
	if (r < 0)
		return failed(&u, "size", r);
	r = find_entries(&u, end, NULL);
	if (r == 0 && u.size_bytes < end) {
		r = env->ops->ftruncate(env, u.fd, u.size_bytes);
		r = r < 0 ? failed(&u, "shorten", r) : 0;
	}
	r = r < 0 ? r : lb_folder_sync(env, u.path);
	if (r < 0)
		return r;
	*ret_undo = u;
	u.fd = -1;
	return 0;
}

void lb_undo_close(struct lb_undo *u)
{
	if (u->fd >= 0)
		u->env->ops->close(u->env, u->fd);
	u->fd = -1;
}

int lb_undo_append(struct lb_undo *u, uint16_t disk, uint64_t offset_bytes, const void *old, size_t size_bytes)
{
	uint8_t head[HEAD_BYTES] = {0};
	struct lb_digest digest;
	int r;

	lb_put_le32(head, MAGIC);
	lb_put_le16(head + 4, disk);
	lb_put_le32(head + 8, (uint32_t)size_bytes);
	lb_put_le64(head + 16, offset_bytes);
	r = lb_sha256_2(head, AT_DIGEST, old, size_bytes, &digest);
	if (r < 0)
		return r;
	memcpy(head + AT_DIGEST, digest.bytes, LB_DIGEST_BYTES);
	r = lb_pwrite_full(u->env, u->fd, head, sizeof(head), u->size_bytes);
	r = r < 0 ? r : lb_pwrite_full(u->env, u->fd, old, size_bytes, u->size_bytes + HEAD_BYTES);
	if (r < 0)
		return failed(u, "write", r);
	u->size_bytes += HEAD_BYTES + size_bytes;
	return 0;
}

int lb_undo_sync(struct lb_undo *u)
{
	int r = u->env->ops->fsync(u->env, u->fd);

	return r < 0 ? failed(u, "make durable", r) : 0;
}

int lb_undo_play(struct lb_undo *u,
		 int (*fn)(void *arg, uint16_t disk, uint64_t offset_bytes, const void *old, size_t size_bytes),
		 void *arg)
{
	_cleanup_free_ uint8_t *data = malloc(LB_UNDO_DATA_BYTES_MAX);
	struct places places = {0};
	uint8_t head[HEAD_BYTES];
	uint32_t size_bytes;
	int r;

	r = data == NULL ? lb_fail(-ENOMEM, "out of memory") : find_entries(u, u->size_bytes, &places);
	while (r == 0 && places.n > 0) {
		r = read_entry(u, places.at[--places.n], u->size_bytes, head, data, &size_bytes);
		if (r == -ENODATA)
			r = lb_fail(-EIO, "%s changes while it is read", u->path);
		if (r == 0)
			r = fn(arg, lb_get_le16(head + 4), lb_get_le64(head + 16), data, size_bytes);
	}
	free(places.at);
	return r;
}

int lb_undo_remove(struct lb_env *env, const char *folder, uint64_t number)
{
	char path[PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/undo-%llu", folder, (unsigned long long)number);
	r = env->ops->unlink(env, path);
	return r < 0 && r != -ENOENT ? lb_fail(r, "can't remove %s: %s", path, strerror(-r)) : 0;
}
