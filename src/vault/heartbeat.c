/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heartbeats: one object per process server that is replaced as a whole. Each record is sealed under its machine's key,
 * so that a reader needs no other key; a record that can't be opened is only a missing heartbeat.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/internal.h"
#include "vault/journal.h"

#define MAGIC "LBBEAT01"
#define HEAD_BYTES 16
#define PLAIN_BYTES 24
#define RECORD_BYTES (16 + PLAIN_BYTES + LB_SMALL_OVERHEAD_BYTES)
#define BEATS_MAX 10000
#define OBJECT_BYTES_MAX (HEAD_BYTES + BEATS_MAX * RECORD_BYTES)
#define REPLACE_ATTEMPTS_MAX 8
#define RECORD_NAME                                                                                                    \
	"heartbeat" /* what the seal binds: a record may move to another process server with its machine               \
		     */

static int object_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *process_server)
{
	char uuid[LB_UUID_TEXT_BYTES];

	lb_uuid_format(process_server, uuid);
	snprintf(name, LB_OBJECT_NAME_BYTES, "ps/%s/heartbeat", uuid);
	return 0;
}

static int encode(struct lb_vault *v, const struct lb_heartbeat *beats, size_t n, struct lb_buf *out)
{
	uint8_t head[HEAD_BYTES] = MAGIC, plain[PLAIN_BYTES];
	int r;

	lb_put_le32(head + 8, (uint32_t)n);
	r = lb_buf_append(out, head, sizeof(head));
	for (size_t i = 0; r == 0 && i < n; i++) {
		lb_put_le64(plain, beats[i].position.epoch);
		lb_put_le64(plain + 8, beats[i].position.seq);
		lb_put_le64(plain + 16, (uint64_t)beats[i].time_ns);
		r = lb_buf_append(out, beats[i].machine.bytes, 16);
		if (r == 0)
			r = lb_vault_seal_small(v, &beats[i].machine, RECORD_NAME, plain, sizeof(plain), out);
	}
	return r;
}

int lb_heartbeat_put(struct lb_vault *v, const struct lb_uuid *process_server, const struct lb_heartbeat *beats,
		     size_t n)
{
	_cleanup_buf_ struct lb_buf object = LB_BUF(OBJECT_BYTES_MAX);
	char name[LB_OBJECT_NAME_BYTES], etag[LB_STORE_ETAG_BYTES];
	uint64_t size_bytes;
	int r;

	if (n > BEATS_MAX)
		return lb_fail(-EMSGSIZE, "a process server serves at most %d machines", BEATS_MAX);
	r = object_name(name, process_server);
	if (r == 0)
		r = encode(v, beats, n, &object);
	if (r < 0)
		return r;
	r = -ESTALE;
	for (int i = 0; i < REPLACE_ATTEMPTS_MAX && (r == -ESTALE || r == -EEXIST); i++) {
		r = lb_store_stat(v->store, name, &size_bytes, etag);
		if (r == 0 || r == -ENOENT)
			r = lb_store_replace(v->store, name, r == 0 ? etag : NULL, object.data, object.size_bytes);
	}
	if (r == 0)
		lb_err_clear();
	return r;
}

/* One record of an object; `machine` NULL: the object as a whole. */
static int tell_record(struct lb_vault *v, const char *object, const uint8_t *record, lb_heartbeat_fn fn, void *arg)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(PLAIN_BYTES);
	struct lb_heartbeat beat = {0};
	int r;

	memcpy(beat.machine.bytes, record, sizeof(beat.machine.bytes));
	r = lb_vault_open_small(v, &beat.machine, RECORD_NAME, record + 16, RECORD_BYTES - 16, &plain);
	if (r == -EBADMSG || r == -ENOENT || (r == 0 && plain.size_bytes != PLAIN_BYTES))
		return fn(arg, object, &beat,
			  r == -ENOENT ? "it is of a machine that the vault does not hold" : "it is not authentic");
	if (r < 0)
		return r;
	beat.position = (struct lb_position){.epoch = lb_get_le64(plain.data), .seq = lb_get_le64(plain.data + 8)};
	beat.time_ns = (int64_t)lb_get_le64(plain.data + 16);
	return fn(arg, object, &beat, NULL);
}

int lb_heartbeats_read(struct lb_vault *v, const char *object, lb_heartbeat_fn fn, void *arg)
{
	_cleanup_buf_ struct lb_buf data = LB_BUF(OBJECT_BYTES_MAX);
	struct lb_heartbeat none = {0};
	int r;

	r = lb_store_get_all(v->store, object, OBJECT_BYTES_MAX, &data);
	if (r == -EMSGSIZE || r == -ENODATA || r == -ENOENT)
		return fn(arg, object, &none, "it was truncated, enlarged or removed");
	if (r < 0)
		return r;
	if (data.size_bytes < HEAD_BYTES || memcmp(data.data, MAGIC, 8) != 0 || lb_get_le32(data.data + 12) != 0 ||
	    data.size_bytes != HEAD_BYTES + (uint64_t)lb_get_le32(data.data + 8) * RECORD_BYTES)
		return fn(arg, object, &none, "its length or beginning is not that of a list of heartbeats");
	for (size_t at = HEAD_BYTES; r == 0 && at < data.size_bytes; at += RECORD_BYTES)
		r = tell_record(v, object, data.data + at, fn, arg);
	return r;
}

struct seeking {
	struct lb_vault *v;
	const struct lb_uuid *machine;
	const struct lb_position *position;
	bool found;
	int64_t time_ns;
};

static void consider(struct seeking *s, const uint8_t *record)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(PLAIN_BYTES);
	int64_t time_ns;
	int r;

	r = lb_vault_open_small(s->v, s->machine, RECORD_NAME, record + 16, RECORD_BYTES - 16, &plain);
	if (r < 0 || plain.size_bytes != PLAIN_BYTES || lb_get_le64(plain.data) != s->position->epoch ||
	    lb_get_le64(plain.data + 8) != s->position->seq)
		return;
	time_ns = (int64_t)lb_get_le64(plain.data + 16);
	if (!s->found || time_ns > s->time_ns)
		s->time_ns = time_ns;
	s->found = true;
}

static int seek_in(void *arg, const char *folder)
{
	_cleanup_buf_ struct lb_buf object = LB_BUF(OBJECT_BYTES_MAX);
	char name[LB_OBJECT_NAME_BYTES];
	struct lb_uuid process_server;
	struct seeking *s = arg;
	int r;

	if (lb_uuid_parse(folder, &process_server) < 0)
		return 0;
	r = object_name(name, &process_server);
	if (r == 0)
		r = lb_store_get_all(s->v->store, name, OBJECT_BYTES_MAX, &object);
	if (r == -ENOENT || r == -EMSGSIZE || r == -ENODATA)
		return 0;
	if (r < 0)
		return r;
	if (object.size_bytes < HEAD_BYTES || memcmp(object.data, MAGIC, 8) != 0)
		return 0;
	for (size_t at = HEAD_BYTES; at + RECORD_BYTES <= object.size_bytes; at += RECORD_BYTES)
		if (memcmp(object.data + at, s->machine->bytes, 16) == 0)
			consider(s, object.data + at);
	return 0;
}

int lb_heartbeat_get(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_position *position,
		     int64_t *ret_time_ns)
{
	struct seeking s = {.v = v, .machine = machine, .position = position};
	char uuid[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_store_list_folders(v->store, "ps/", seek_in, &s);
	if (r < 0)
		return r;
	if (!s.found) {
		lb_uuid_format(machine, uuid);
		return lb_fail(-ENOENT, "%s has no heartbeat of machine %s at this position", v->store->url, uuid);
	}
	lb_err_clear();
	*ret_time_ns = s.time_ns;
	return 0;
}
