/* SPDX-License-Identifier: Apache-2.0 */
/* The process server behind struct lb_http_client: checks what it gets as the real one does, and holds every point to
 * the oracle. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "sim/sim.h"

static bool captured(uint64_t epoch, uint64_t disk, uint64_t block)
{
	return sim->process.captured_in[disk][block] == epoch;
}

/* Image of epoch e = end of epoch e-1, then scan(e), then captured(e). */
static void apply(const struct lb_hrl_segment *s)
{
	const struct lb_hrl_header *h = lb_hrl_header(s);
	uint32_t n;
	const struct lb_hrl_extent *extents = lb_hrl_extents(s, &n);

	for (uint32_t i = 0; i < n; i++) {
		const struct lb_hrl_extent *e = &extents[i];
		const uint8_t *data = NULL;
		uint32_t raw;

		assert(e->disk < SIM_DISKS && e->offset_bytes % SIM_BLOCK_BYTES == 0 &&
		       e->length_bytes % SIM_BLOCK_BYTES == 0);
		if (lb_hrl_kind_has_data((enum lb_hrl_kind)e->kind))
			data = (const uint8_t *)lb_hrl_frame_plain(s, e->frame, &raw) + e->frame_offset_bytes;
		for (uint64_t at = 0; at < e->length_bytes; at += SIM_BLOCK_BYTES) {
			uint64_t block = (e->offset_bytes + at) / SIM_BLOCK_BYTES;
			uint8_t *to = sim->process.image[e->disk] + block * SIM_BLOCK_BYTES;

			if (lb_hrl_kind_is_scanned((enum lb_hrl_kind)e->kind) && captured(h->epoch, e->disk, block))
				continue;
			if (data != NULL)
				memcpy(to, data + at, SIM_BLOCK_BYTES);
			else
				memset(to, 0, SIM_BLOCK_BYTES);
		}
	}
}

/* Captured extents hide scanned ones whatever their order: they are noted before any is applied. */
static void note_captured(const struct lb_hrl_segment *s)
{
	uint32_t n;
	const struct lb_hrl_extent *extents = lb_hrl_extents(s, &n);

	for (uint32_t i = 0; i < n; i++)
		for (uint64_t at = 0;
		     at < extents[i].length_bytes && !lb_hrl_kind_is_scanned((enum lb_hrl_kind)extents[i].kind);
		     at += SIM_BLOCK_BYTES)
			sim->process.captured_in[extents[i].disk][(extents[i].offset_bytes + at) / SIM_BLOCK_BYTES] =
				lb_hrl_header(s)->epoch;
}

static void apply_bytes(const struct sim_segment *segment)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;

	if (lb_hrl_open_plain(segment->bytes, segment->size_bytes, &s) < 0) {
		sim_fail("a kept segment can't be opened: %s", lb_err_text());
		return;
	}
	note_captured(s);
	apply(s);
}

static void freeze(void)
{
	for (unsigned int d = 0; d < SIM_DISKS; d++)
		memcpy(sim->process.frozen[d], sim->process.image[d], SIM_DISK_BYTES);
}

/* The image at the end of what is kept, from nothing. */
static void rebuild(void)
{
	struct sim_process *p = &sim->process;
	uint64_t epoch = 0;

	memset(p->captured_in, 0, sizeof(p->captured_in));
	for (unsigned int d = 0; d < SIM_DISKS; d++)
		memset(p->image[d], 0, SIM_DISK_BYTES);
	freeze();
	for (size_t i = 0; i < p->n; i++) {
		if (p->segments[i].epoch != epoch)
			freeze();
		epoch = p->segments[i].epoch;
		apply_bytes(&p->segments[i]);
	}
	if (p->n_epochs > 0 && p->epochs[p->n_epochs - 1].epoch != epoch)
		freeze();
}

void sim_process_vault(size_t n_segments)
{
	struct sim_process *p = &sim->process;

	p->n_vault = LB_MAX(p->n_vault, LB_MIN(n_segments, p->n));
	p->n_epochs_vault = 0;
	while (p->n_vault > 0 && p->epochs[p->n_epochs_vault].epoch < p->segments[p->n_vault - 1].epoch)
		p->n_epochs_vault++;
	if (p->n_vault > 0)
		p->n_epochs_vault++;
}

void sim_process_lose_cache(void)
{
	struct sim_process *p = &sim->process;

	while (p->n > p->n_vault)
		free(p->segments[--p->n].bytes);
	p->n_epochs = p->n_epochs_vault;
	rebuild();
}

void sim_process_free(void)
{
	while (sim->process.n > 0)
		free(sim->process.segments[--sim->process.n].bytes);
	free(sim->process.segments);
}

/* ---- answers ----------------------------------------------------------------------------------------- */

struct answer {
	unsigned int status;
	uint32_t retry_after_s;
	json_t *json;
};

static json_t *journal(void)
{
	const struct sim_process *p = &sim->process;
	const struct sim_segment *last = p->n > 0 ? &p->segments[p->n - 1] : NULL;
	const struct sim_epoch *epoch = p->n_epochs > 0 ? &p->epochs[p->n_epochs - 1] : NULL;
	bool any = last != NULL && epoch != NULL && last->epoch == epoch->epoch;
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_digest none = {0};
	struct lb_uuid nobody = {0};
	json_t *j = json_object();

	if (any && lb_hrl_open_plain(last->bytes, last->size_bytes, &s) < 0)
		sim_fail("a kept segment can't be opened: %s", lb_err_text());
	lb_json_set_bool(j, "known", epoch != NULL);
	lb_json_set_u64(j, "epoch", epoch != NULL ? epoch->epoch : 0);
	json_object_set_new(j, "seq", any ? json_integer((json_int_t)last->seq) : json_null());
	lb_json_set_u64(j, "next_seq", any ? last->seq + 1 : 0);
	lb_json_set_u64(j, "last_epoch", last != NULL ? last->epoch : 0);
	lb_json_set_u64(j, "last_seq", last != NULL ? last->seq : 0);
	lb_json_set_u64(j, "ring_cut", any ? lb_hrl_header(s)->ring_cut : 0);
	lb_json_set_u64(j, "scan_cursor", any ? lb_hrl_header(s)->scan_cursor : 0);
	lb_json_set_digest(j, "digest", last != NULL ? &last->digest : &none);
	lb_json_set_uuid(j, "instance", epoch != NULL ? &epoch->instance : &nobody);
	return j;
}

static struct answer refuse(unsigned int status, const char *text)
{
	json_t *j = json_pack("{s:{s:s,s:s}}", "error", "code", "E", "message", text);

	if (status == 409)
		json_object_set_new(j, "journal", journal());
	return (struct answer){.status = status, .retry_after_s = status == 429 ? 1 : 0, .json = j};
}

static json_t *confirmed(void)
{
	const struct sim_process *p = &sim->process;
	json_t *j = json_object();

	if (p->n_vault > 0) {
		lb_json_set_u64(j, "vault_epoch", p->segments[p->n_vault - 1].epoch);
		lb_json_set_u64(j, "vault_seq", p->segments[p->n_vault - 1].seq);
	}
	return j;
}

static struct answer begin_epoch(const json_t *body)
{
	struct sim_process *p = &sim->process;
	const struct sim_epoch *newest = p->n_epochs > 0 ? &p->epochs[p->n_epochs - 1] : NULL;
	struct lb_digest prev, have = {0};
	struct sim_epoch e;

	if (lb_json_get_u64(body, "epoch", &e.epoch) < 0 || lb_json_get_uuid(body, "instance", &e.instance) < 0 ||
	    lb_json_get_digest(body, "prev_digest", &prev) < 0)
		return refuse(400, lb_err_text());
	if (newest != NULL && newest->epoch == e.epoch && lb_uuid_equal(&newest->instance, &e.instance))
		return (struct answer){.status = 200, .json = journal()};
	if (p->n > 0)
		have = p->segments[p->n - 1].digest;
	if (e.epoch != (newest != NULL ? newest->epoch : 0) + 1 || !lb_equal_ct(&prev, &have, sizeof(have)))
		return refuse(409, "another epoch comes next");
	assert(p->n_epochs < SIM_EPOCHS_MAX);
	p->epochs[p->n_epochs++] = e;
	freeze();
	return (struct answer){.status = 200, .json = journal()};
}

/* What the agent says of when the cut was made, on our clock, is a promise: all that had ended by then is in it. */
static uint64_t promised(int64_t cut_ns)
{
	return cut_ns > 0 ? sim_ended_by(cut_ns - SIM_SERVER_CLOCK_NS) : 0;
}

static struct answer keep(const struct lb_hrl_segment *s, const void *body, size_t size_bytes, int64_t cut_ns)
{
	struct sim_process *p = &sim->process;
	const struct lb_hrl_header *h = lb_hrl_header(s);
	struct sim_segment *kept;

	if (p->n == p->room) {
		p->room = p->room > 0 ? p->room * 2 : 64;
		p->segments = realloc(p->segments, p->room * sizeof(p->segments[0]));
		assert(p->segments != NULL);
	}
	kept = &p->segments[p->n++];
	*kept = (struct sim_segment){
		.epoch = h->epoch, .seq = h->seq, .digest = *lb_hrl_digest(s), .size_bytes = size_bytes};
	kept->bytes = malloc(size_bytes);
	assert(kept->bytes != NULL);
	memcpy(kept->bytes, body, size_bytes);
	p->data_bytes += size_bytes;
	p->last_flags = h->flags;
	p->last_ring_cut = h->ring_cut;
	note_captured(s);
	apply(s);
	if (h->flags & LB_HRL_POINT) {
		char what[64];

		p->points++;
		snprintf(what, sizeof(what), "point (%lu, %lu)", (unsigned long)h->epoch, (unsigned long)h->seq);
		sim_check_point(p->image, promised(cut_ns), what);
	}
	return (struct answer){.status = 200};
}

static struct answer put_segment(const char *path, const void *body, size_t size_bytes)
{
	struct sim_process *p = &sim->process;
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	const struct sim_segment *last = p->n > 0 ? &p->segments[p->n - 1] : NULL;
	const struct sim_epoch *epoch = p->n_epochs > 0 ? &p->epochs[p->n_epochs - 1] : NULL;
	struct answer answer = {.status = 200};
	const struct lb_hrl_header *h;
	struct lb_digest none = {0};
	unsigned long e, q;
	long cut_ns = 0;
	uint64_t next;

	p->puts++;
	if (sscanf(path, "/v1/journal/%lu/%lu?cut_ns=%ld", &e, &q, &cut_ns) < 2 ||
	    lb_hrl_open_plain(body, size_bytes, &s) < 0) {
		sim_fail("a segment that can't be read: %s", lb_err_text());
		return refuse(400, lb_err_text());
	}
	h = lb_hrl_header(s);
	if (h->epoch != e || h->seq != q)
		return refuse(400, "the path names another segment");
	next = last != NULL && epoch != NULL && last->epoch == epoch->epoch ? last->seq + 1 : 0;
	if (last != NULL && last->epoch == e && last->seq == q &&
	    lb_equal_ct(&last->digest, lb_hrl_digest(s), sizeof(none)))
		goto kept;
	if (epoch == NULL || e != epoch->epoch || q != next || !lb_uuid_equal(&epoch->instance, &h->instance) ||
	    !lb_equal_ct(&h->prev_digest, last != NULL ? &last->digest : &none, sizeof(none)))
		return refuse(409, "not the next segment");
	answer = keep(s, body, size_bytes, cut_ns);
kept:
	answer.json = confirmed();
	lb_json_set_u64(answer.json, "epoch", e);
	lb_json_set_u64(answer.json, "seq", q);
	return answer;
}

static struct answer compare(const json_t *body)
{
	_cleanup_free_ uint8_t *hashes = NULL;
	_cleanup_free_ char *text = NULL;
	uint64_t epoch, disk, offset, block, length;
	uint8_t bits[64] = {0};
	const char *key_hex, *b64;
	struct lb_key key;
	size_t size_bytes;

	if (lb_json_get_u64(body, "epoch", &epoch) < 0 || lb_json_get_u64(body, "disk", &disk) < 0 ||
	    lb_json_get_u64(body, "offset", &offset) < 0 || lb_json_get_u64(body, "block_bytes", &block) < 0 ||
	    lb_json_get_str(body, "key", &key_hex) < 0 || lb_hex_decode(key_hex, LB_KEY_BYTES, key.bytes) < 0 ||
	    lb_json_get_str(body, "hashes", &b64) < 0 || lb_base64_decode(b64, 1 << 20, &hashes, &size_bytes) < 0)
		return refuse(400, lb_err_text());
	for (size_t i = 0; i < size_bytes / LB_DIGEST_BYTES; i++) {
		struct lb_digest have;

		length = LB_MIN(block, SIM_DISK_BYTES - (offset + i * block));
		lb_hmac_sha256(&key, sim->process.frozen[disk] + offset + i * block, length, &have);
		if (memcmp(&have, hashes + i * LB_DIGEST_BYTES, sizeof(have)) != 0)
			bits[i / 8] |= (uint8_t)(1u << (i % 8));
		sim->process.compared++;
	}
	text = lb_base64_encode(bits, (size_bytes / LB_DIGEST_BYTES + 7) / 8);
	return (struct answer){.status = 200, .json = json_pack("{s:s}", "differ", text)};
}

static struct answer settle(const json_t *body)
{
	json_t *json = sim_settle(body);

	return json != NULL ? (struct answer){.status = 200, .json = json} : refuse(400, "not a question");
}

static struct answer heartbeat(const json_t *body, uint64_t index_at_send)
{
	struct sim_process *p = &sim->process;
	uint64_t epoch, seq;
	int64_t cut_ns = 0;
	bool idle;

	p->beats++;
	(void)lb_json_get_i64(body, "cut_ns", &cut_ns);
	if (lb_json_get_bool(body, "idle", &idle) < 0 || lb_json_get_u64(body, "epoch", &epoch) < 0 ||
	    lb_json_get_u64(body, "seq", &seq) < 0)
		return refuse(400, lb_err_text());
	if (idle && p->n > 0 && p->segments[p->n - 1].epoch == epoch && p->segments[p->n - 1].seq == seq)
		/* it says that nothing was written up to when it was sent */
		sim_check_point(p->image, LB_MAX(index_at_send, promised(cut_ns)), "idle heartbeat");
	return (struct answer){.status = 200, .json = confirmed()};
}

static struct answer handle(const struct lb_http_request *request, const char *path, uint64_t index_at_send)
{
	_cleanup_json_ json_t *body = NULL;

	if (sim->process.status != 0)
		return refuse(sim->process.status, "told to");
	if (sim_chance(sim->p_busy))
		return refuse(429, "wait");
	if (strcmp(request->method, "PUT") == 0)
		return put_segment(path, request->body, request->body_bytes);
	if (request->body_bytes > 0 && lb_json_parse(request->body, request->body_bytes, 1 << 20, &body) < 0)
		return refuse(400, lb_err_text());
	if (strcmp(path, "/v1/journal") == 0)
		return (struct answer){.status = 200, .json = journal()};
	if (strcmp(path, "/v1/epoch") == 0)
		return begin_epoch(body);
	if (strcmp(path, "/v1/compare") == 0)
		return compare(body);
	if (strcmp(path, "/v1/settle") == 0 && !sim->process.old)
		return settle(body);
	if (strcmp(path, "/v1/heartbeat") == 0)
		return heartbeat(body, index_at_send);
	return refuse(404, "no such thing");
}

static int client_send(struct lb_http_client *c, const struct lb_http_request *request, struct lb_http_response *ret)
{
	const uint64_t index = sim->next_index;
	const char *path = strstr(request->url, "/v1/");
	_cleanup_free_ char *text = NULL;
	struct answer answer;

	(void)c;
	sim->process.requests++;
	sim_kill_point();
	sim_pass(sim->request_ns + (int64_t)(request->body_bytes / 1024) * sim->ns_per_kib);
	if (sim->network_down || sim_chance(sim->p_drop_request))
		return lb_fail(-EHOSTUNREACH, "the network is down");
	answer = handle(request, path, index);
	if (answer.status == 200)
		lb_json_set_i64(answer.json, "time_ns", SIM_SERVER_CLOCK_NS + sim->mono_ns);
	sim_pass(sim->request_ns);
	text = json_dumps(answer.json, 0);
	json_decref(answer.json);
	sim_kill_point();
	if (sim_chance(sim->p_drop_answer))
		return lb_fail(-ETIMEDOUT, "the answer was lost");
	*ret = (struct lb_http_response){
		.status = answer.status, .retry_after_s = answer.retry_after_s, .body = LB_BUF(1 << 20)};
	return lb_buf_append(&ret->body, text, strlen(text));
}

static void client_free(struct lb_http_client *c)
{
	(void)c;
}

struct lb_http_client *sim_client(void)
{
	static const struct lb_http_client_ops ops = {.send = client_send, .free = client_free};
	static struct lb_http_client client = {.ops = &ops};

	return &client;
}
