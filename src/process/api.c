/* SPDX-License-Identifier: Apache-2.0 */
#include "process/api.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "process/epoch.h"
#include "process/ingest.h"

/* The peer's machine: assigned to us, and with the certificate that it was last given. */
static int find_machine(struct lb_process *p, const struct lb_http_call *call, struct lb_machine **ret_machine)
{
	_cleanup_machine_ struct lb_machine *m = NULL;
	struct lb_uuid id;
	bool same;
	int r;

	if (!lb_process_configured(p))
		return lb_fail(-EAGAIN, "the process server does not have its configuration yet");
	if (lb_uuid_parse(call->peer.name, &id) < 0)
		return lb_fail(-EACCES, "the certificate's name \"%s\" is no machine", call->peer.name);
	r = lb_machine_find(p, &id, &m);
	if (r < 0)
		return r;
	pthread_mutex_lock(&m->lock);
	same = lb_equal_ct(&m->assigned.cert_fingerprint, &call->peer.fingerprint, sizeof(struct lb_digest));
	m->figures.last_seen_ns = lb_now_ns(p->env);
	pthread_mutex_unlock(&m->lock);
	if (!same)
		return lb_fail(-EACCES,
			       "machine %s came from %s with a certificate that is not its current one (replaced, "
			       "revoked, or of a "
			       "copy); enrol it anew",
			       m->id_text, call->peer.address);
	*ret_machine = lb_steal_ptr(m);
	return 0;
}

/* What the peer can act on goes out with where the journal stands; the rest is the server's to answer and to log. */
static int refuse(struct lb_machine *m, int error, struct lb_http_reply *reply)
{
	char message[LB_ERR_TEXT_BYTES_MAX];
	json_t *journal = NULL;

	snprintf(message, sizeof(message), "%s", lb_err_text());
	if (error == -EAGAIN || error == -ENOSPC) {
		reply->retry_after_s = error == -EAGAIN ? LB_API_RETRY_AFTER_S : LB_API_RETRY_AFTER_FULL_S;
		pthread_mutex_lock(&m->lock);
		m->figures.throttled_mono_ns = lb_mono_ns(m->process->env);
		pthread_mutex_unlock(&m->lock);
	}
	if (error != -ESTALE && error != -EEXIST)
		return error;
	if (lb_machine_journal_json(m, &journal) < 0)
		return lb_fail(error, "%s", message);
	reply->status = lb_http_status_of(error);
	reply->json = json_pack("{s:{s:s,s:s},s:o}", "error", "code", strerrorname_np(-error), "message", message,
				"journal", journal);
	return reply->json != NULL ? 0 : lb_fail(error, "%s", message);
}

static int parse_body(const struct lb_http_call *call, size_t bytes_max, json_t **ret_body)
{
	int r;

	r = lb_json_parse(call->body, call->body_bytes, bytes_max, ret_body);
	return r < 0 ? lb_wrap(r, "machine %s", call->peer.name) : 0;
}

static int get_journal(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_machine_ struct lb_machine *m = NULL;
	int r;

	r = find_machine(arg, call, &m);
	if (r < 0)
		return r;
	r = lb_ingest_allowed(m);
	if (r < 0)
		return refuse(m, r, reply);
	return lb_machine_journal_json(m, &reply->json);
}

static int post_epoch(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_machine_ struct lb_machine *m = NULL;
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = find_machine(arg, call, &m);
	if (r == 0)
		r = parse_body(call, LB_HTTP_JSON_BYTES_MAX, &body);
	if (r < 0)
		return r;
	r = lb_epoch_begin(m, body);
	if (r < 0)
		return refuse(m, r, reply);
	return lb_machine_journal_json(m, &reply->json);
}

static int cut_time(const struct lb_http_call *call, int64_t *ret_cut_ns)
{
	const char *text = lb_http_query(call, "cut_ns");
	uint64_t cut_ns = 0;
	int r;

	r = text != NULL ? lb_u64_parse(text, INT64_MAX, &cut_ns) : 0;
	if (r < 0)
		return lb_wrap(-EINVAL, "cut_ns");
	*ret_cut_ns = (int64_t)cut_ns;
	return 0;
}

static int ingest(struct lb_machine *m, const struct lb_http_call *call, uint64_t *ret_epoch, uint64_t *ret_seq)
{
	uint64_t epoch, seq;
	int64_t cut_ns;
	int r;

	r = lb_u64_parse(call->params[0], INT64_MAX, &epoch);
	if (r == 0)
		r = lb_u64_parse(call->params[1], INT64_MAX, &seq);
	if (r == 0)
		r = cut_time(call, &cut_ns);
	if (r == 0)
		r = lb_ingest(m, epoch, seq, cut_ns, call->body, call->body_bytes);
	if (r != 0)
		return r;
	*ret_epoch = epoch;
	*ret_seq = seq;
	return 0;
}

static int put_segment(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_machine_ struct lb_machine *m = NULL;
	struct lb_position vault;
	uint64_t epoch, seq;
	int r;

	r = find_machine(arg, call, &m);
	if (r < 0)
		return r;
	r = ingest(m, call, &epoch, &seq);
	if (r != 0)
		return refuse(m, r, reply);
	pthread_mutex_lock(&m->lock);
	vault = m->vault;
	pthread_mutex_unlock(&m->lock);
	reply->json = json_pack("{s:I,s:I,s:I,s:I,s:I}", "epoch", (json_int_t)epoch, "seq", (json_int_t)seq,
				"vault_epoch", (json_int_t)vault.epoch, "vault_seq", (json_int_t)vault.seq, "time_ns",
				(json_int_t)lb_now_ns(m->process->env));
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* ---- comparing ----------------------------------------------------------------------------------------- */

static void wipe_request(struct lb_compare_request *q)
{
	lb_key_wipe(&q->key);
}

static int parse_compare(const json_t *body, struct lb_compare_request *q, uint8_t **ret_hashes)
{
	const char *hashes, *key;
	size_t size_bytes;
	uint64_t disk;
	int r;

	r = lb_json_get_u64(body, "epoch", &q->epoch);
	if (r == 0)
		r = lb_json_get_u64(body, "disk", &disk);
	if (r == 0)
		r = lb_json_get_u64(body, "offset", &q->offset_bytes);
	if (r == 0)
		r = lb_json_get_u64(body, "block_bytes", &q->block_bytes);
	if (r == 0)
		r = lb_json_get_str(body, "key", &key);
	if (r == 0)
		r = lb_hex_decode(key, LB_KEY_BYTES, q->key.bytes);
	if (r == 0)
		r = lb_json_get_str(body, "hashes", &hashes);
	if (r == 0)
		r = lb_base64_decode(hashes, LB_COMPARE_HASHES_MAX * LB_DIGEST_BYTES, ret_hashes, &size_bytes);
	if (r != 0)
		return r;
	if (disk > UINT16_MAX || size_bytes % LB_DIGEST_BYTES != 0)
		return lb_fail(-EBADMSG, "\"disk\" is no disk's id, or \"hashes\" are no whole hashes");
	q->disk = (uint16_t)disk;
	q->hashes = *ret_hashes;
	q->n = size_bytes / LB_DIGEST_BYTES;
	return 0;
}

static int post_compare(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_(wipe_request) struct lb_compare_request q = {0};
	uint8_t differ[(LB_COMPARE_HASHES_MAX + 7) / 8];
	_cleanup_machine_ struct lb_machine *m = NULL;
	_cleanup_free_ uint8_t *hashes = NULL;
	_cleanup_free_ char *text = NULL;
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = find_machine(arg, call, &m);
	if (r == 0)
		r = parse_body(call, LB_HTTP_JSON_BYTES_MAX, &body);
	if (r == 0)
		r = parse_compare(body, &q, &hashes);
	if (r < 0)
		return r;
	r = lb_ingest_allowed(m);
	if (r == 0)
		r = lb_compare_blocks(m, &q, differ);
	if (r < 0)
		return refuse(m, r, reply);
	text = lb_base64_encode(differ, (q.n + 7) / 8);
	reply->json = text != NULL ? json_pack("{s:s}", "differ", text) : NULL;
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

static int parse_settle(const json_t *body, uint64_t *ret_epoch, struct lb_settle_question *q, uint8_t **ret_hashes)
{
	const char *text;
	size_t size_bytes = 0;
	uint32_t disk = 0;
	int r;

	r = lb_json_get_u64(body, "epoch", ret_epoch);
	if (r == 0)
		r = lb_json_get_str(body, "session", &text);
	if (r == 0)
		r = lb_hex_decode(text, sizeof(q->session), q->session);
	if (r == 0)
		r = lb_json_get_u32(body, "disk", UINT16_MAX, &disk);
	if (r == 0)
		r = lb_json_get_u64(body, "offset", &q->offset_bytes);
	if (r == 0)
		r = lb_json_get_u64(body, "length", &q->length_bytes);
	if (r == 0 && json_object_get(body, "batch") != NULL) {
		r = lb_json_get_u64(body, "batch", &q->batch);
		if (r == 0)
			r = lb_json_get_str(body, "hashes", &text);
		if (r == 0)
			r = lb_base64_decode(text, LB_BATCH_PIECES_MAX * LB_HRL_HASH_BYTES, ret_hashes, &size_bytes);
	}
	if (r < 0)
		return r;
	if (size_bytes % LB_HRL_HASH_BYTES != 0)
		return lb_fail(-EBADMSG, "\"hashes\" are no whole hashes");
	q->disk = (uint16_t)disk;
	q->hashes = *ret_hashes;
	q->n = size_bytes / LB_HRL_HASH_BYTES;
	return 0;
}

static bool is_sent(const struct lb_settle_answer *a, size_t unit)
{
	return (a->send[unit / 8] >> unit % 8 & 1) != 0;
}

static json_t *print_settled(const struct lb_settle_answer *a)
{
	_cleanup_free_ char *send_text = NULL, *zero_text = NULL, *mixed_text = NULL;
	_cleanup_free_ uint8_t *mixed = malloc(3 * a->units + 1);
	uint8_t zero[LB_SETTLE_UNITS_MAX / 8] = {0};
	size_t n_mixed = 0;

	for (size_t i = 0; mixed != NULL && i < a->units; i++) {
		if (a->zeroes[i] == UINT8_MAX)
			zero[i / 8] |= (uint8_t)(1u << i % 8);
		else if (a->zeroes[i] != 0 && !is_sent(a, i)) {
			lb_put_le16(mixed + 3 * n_mixed, (uint16_t)i);
			mixed[3 * n_mixed++ + 2] = a->zeroes[i];
		}
	}
	send_text = lb_base64_encode(a->send, (a->units + 7) / 8);
	zero_text = lb_base64_encode(zero, (a->units + 7) / 8);
	mixed_text = mixed != NULL ? lb_base64_encode(mixed, 3 * n_mixed) : NULL;
	if (send_text == NULL || zero_text == NULL || mixed_text == NULL)
		return NULL;
	return json_pack("{s:s,s:s,s:s}", "send", send_text, "zero", zero_text, "mixed", mixed_text);
}

static int print_settle(const struct lb_settle_answer *a, json_t **ret_json)
{
	_cleanup_free_ char *entries = NULL;
	json_t *json;

	if (a->settled) {
		json = print_settled(a);
	} else if (a->batch != 0) {
		entries = lb_base64_encode(a->entries.data, a->entries.size_bytes);
		json = entries != NULL ? json_pack("{s:I,s:s}", "batch", (json_int_t)a->batch, "entries", entries)
				       : NULL;
	} else {
		json = json_object();
	}
	if (json == NULL)
		return lb_fail(-ENOMEM, "out of memory for an answer");
	*ret_json = json;
	return 0;
}

static int post_settle(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_settle_question q = {0};
	struct lb_settle_answer answer = {.entries = LB_BUF(LB_BATCH_ENTRIES_BYTES_MAX)};
	_cleanup_machine_ struct lb_machine *m = NULL;
	_cleanup_free_ uint8_t *hashes = NULL;
	_cleanup_json_ json_t *body = NULL;
	uint64_t epoch;
	int r;

	r = find_machine(arg, call, &m);
	if (r == 0)
		r = parse_body(call, LB_HTTP_JSON_BYTES_MAX, &body);
	if (r == 0)
		r = parse_settle(body, &epoch, &q, &hashes);
	if (r < 0)
		return r;
	r = lb_ingest_allowed(m);
	if (r == 0)
		r = lb_compare_settle(m, epoch, &q, &answer);
	r = r < 0 ? refuse(m, r, reply) : print_settle(&answer, &reply->json);
	lb_buf_free(&answer.entries);
	return r;
}

/* ---- heartbeats ---------------------------------------------------------------------------------------- */

/* Idle, and all that it ever sent is durable: its disks are as at the newest point until now. */
static void note_beat(struct lb_machine *m, json_t *body)
{
	struct lb_position at;
	int64_t now = lb_now_ns(m->process->env), cut_ns = 0;
	bool idle;
	LB_LOCK_SCOPE(&m->lock);

	json_decref(m->agent);
	m->agent = json_incref(body);
	if (lb_json_get_bool(body, "idle", &idle) < 0 || !idle || lb_json_get_u64(body, "epoch", &at.epoch) < 0 ||
	    lb_json_get_u64(body, "seq", &at.seq) < 0)
		return;
	if (m->state != LB_MACHINE_READY || at.epoch == 0 || at.epoch != m->durable.last.epoch ||
	    at.seq != m->durable.last.seq || m->durable.epoch != at.epoch)
		return;
	if (lb_json_get_i64(body, "cut_ns", &cut_ns) < 0)
		cut_ns = 0;
	m->beat_at = at;
	m->beat_ns = LB_MAX(lb_ingest_cut_time(now, cut_ns), m->durable.receipt_ns);
	m->durable.receipt_ns = m->beat_ns;
}

static int beat_reply(struct lb_machine *m, json_t **ret_reply)
{
	json_t *policy, *reply;
	int r;
	LB_LOCK_SCOPE(&m->lock);

	r = lb_policy_print(&m->assigned.policy, &policy);
	if (r < 0)
		return r;
	reply = json_pack("{s:I,s:I,s:I,s:o,s:[]}", "time_ns", (json_int_t)lb_now_ns(m->process->env), "vault_epoch",
			  (json_int_t)m->vault.epoch, "vault_seq", (json_int_t)m->vault.seq, "policy", policy,
			  "commands");
	if (reply == NULL)
		return lb_fail(-ENOMEM, "out of memory for an answer");
	*ret_reply = reply;
	return 0;
}

static int post_heartbeat(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_machine_ struct lb_machine *m = NULL;
	_cleanup_json_ json_t *body = NULL;
	const char *hardware;
	int r;

	r = find_machine(arg, call, &m);
	if (r == 0)
		r = parse_body(call, LB_HEARTBEAT_BYTES_MAX, &body);
	if (r < 0)
		return r;
	hardware = json_string_value(json_object_get(body, "hardware"));
	r = hardware != NULL ? lb_epoch_check_hardware(m, hardware) : 0;
	if (r == 0)
		r = lb_ingest_allowed(m);
	if (r < 0)
		return refuse(m, r, reply);
	note_beat(m, body);
	return beat_reply(m, &reply->json);
}

#define MACHINE LB_ROLE_BIT(LB_ROLE_MACHINE)

const struct lb_http_route lb_process_routes[] = {
	{"GET", "/v1/journal", MACHINE, 0, get_journal},
	{"POST", "/v1/epoch", MACHINE, LB_HTTP_JSON_BYTES_MAX, post_epoch},
	{"PUT", "/v1/journal/{}/{}", MACHINE, LB_HRL_SEGMENT_BYTES_MAX, put_segment},
	{"POST", "/v1/compare", MACHINE, LB_HTTP_JSON_BYTES_MAX, post_compare},
	{"POST", "/v1/settle", MACHINE, LB_HTTP_JSON_BYTES_MAX, post_settle},
	{"POST", "/v1/heartbeat", MACHINE, LB_HEARTBEAT_BYTES_MAX, post_heartbeat},
};
const size_t lb_process_routes_n = LB_ARRAY_LEN(lb_process_routes);
