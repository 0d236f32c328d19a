/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"

#define URL_BYTES 512

static int parse_durable(const json_t *o, struct lb_durable *ret_durable)
{
	struct lb_durable d = {0};
	const json_t *seq = json_object_get(o, "seq");
	int r;

	r = lb_json_get_bool(o, "known", &d.known);
	if (r < 0)
		return r;
	if (d.known) {
		r = lb_json_get_u64(o, "epoch", &d.epoch);
		if (r < 0)
			return r;
	}
	if (d.epoch == 0) {
		*ret_durable = d;
		return 0;
	}
	r = lb_json_get_digest(o, "digest", &d.digest);
	if (r < 0)
		return r;
	r = lb_json_get_uuid(o, "instance", &d.instance);
	if (r < 0)
		return r;
	r = lb_json_get_u64(o, "last_epoch", &d.last_epoch);
	if (r < 0)
		return r;
	r = lb_json_get_u64(o, "last_seq", &d.last_seq);
	if (r < 0)
		return r;
	/* an epoch without a segment yet has no seq: null, or below 0 */
	d.has_segment = json_is_integer(seq) && json_integer_value(seq) >= 0;
	if (d.has_segment) {
		d.seq = (uint64_t)json_integer_value(seq);
		r = lb_json_get_u64(o, "ring_cut", &d.ring_cut);
		if (r < 0)
			return r;
		r = lb_json_get_u64(o, "scan_cursor", &d.scan_cursor);
		if (r < 0)
			return r;
	}
	*ret_durable = d;
	return 0;
}

static void parse_confirmed(const json_t *o, struct lb_confirmed *ret_confirmed)
{
	uint64_t epoch, seq;

	*ret_confirmed = (struct lb_confirmed){0};
	if (!json_is_integer(json_object_get(o, "vault_epoch")) || !json_is_integer(json_object_get(o, "vault_seq")))
		return;
	if (lb_json_get_u64(o, "vault_epoch", &epoch) < 0 || lb_json_get_u64(o, "vault_seq", &seq) < 0)
		return;
	*ret_confirmed = (struct lb_confirmed){.epoch = epoch, .seq = seq};
}

static int error_of(unsigned int status)
{
	switch (status) {
	case 401:
	case 403:
		return -EACCES;
	case 409:
		return -ESTALE;
	case 429:
	case 503:
		return -EAGAIN;
	case 507:
		return -ENOSPC;
	case 404:
		return -ENOENT;
	case 400:
		return -EBADMSG;
	default:
		return -EREMOTEIO;
	}
}

static int fail_from(struct lb_link *link, const char *url, unsigned int status, uint32_t retry_after_s,
		     const json_t *reply)
{
	const json_t *error = json_object_get(reply, "error");
	const char *message = json_string_value(json_object_get(error, "message"));

	link->retry_after_s = LB_MIN(retry_after_s, (uint32_t)LB_LINK_RETRY_S_MAX);
	return lb_fail(error_of(status), "the process server answered %u to %s: %s", status, url,
		       message != NULL ? message : "no reason given");
}

static void note_server_time(struct lb_link *link, const json_t *reply)
{
	int64_t server_ns;

	if (link->env == NULL || lb_json_get_i64(reply, "time_ns", &server_ns) < 0 || server_ns <= 0)
		return;
	link->server_ns = server_ns;
	link->server_mono_ns = lb_mono_ns(link->env);
}

int64_t lb_link_server_time(const struct lb_link *link, int64_t mono_ns)
{
	if (link->server_ns == 0 || mono_ns <= 0)
		return 0;
	return LB_MAX(link->server_ns + (mono_ns - link->server_mono_ns), 0);
}

static int call(struct lb_link *link, const struct lb_http_request *request, json_t **ret_reply)
{
	_cleanup_(lb_http_response_free) struct lb_http_response response = {0};
	_cleanup_json_ json_t *reply = NULL;
	int r;

	link->retry_after_s = 0;
	r = lb_http_send(link->client, request, &response);
	if (r < 0)
		return lb_wrap(r, "process server %s", link->url);
	if (response.body.size_bytes > 0) {
		r = lb_json_parse(response.body.data, response.body.size_bytes, LB_LINK_REPLY_BYTES_MAX, &reply);
		if (r < 0 && response.status < 300)
			return lb_wrap(-EBADMSG, "answer of %s", request->url);
	}
	if (response.status >= 300)
		return fail_from(link, request->url, response.status, response.retry_after_s, reply);
	if (reply != NULL)
		note_server_time(link, reply);
	if (ret_reply != NULL) {
		if (reply == NULL)
			return lb_fail(-EBADMSG, "%s answered without a body", request->url);
		*ret_reply = lb_steal_ptr(reply);
	}
	return 0;
}

static int call_json(struct lb_link *link, const char *method, const char *path, const json_t *body, json_t **ret_reply)
{
	_cleanup_free_ char *text = NULL;
	char url[URL_BYTES];
	struct lb_http_request request = {
		.method = method,
		.url = url,
		.response_bytes_max = LB_LINK_REPLY_BYTES_MAX,
		.timeout_s = LB_LINK_TIMEOUT_S,
	};
	int r;

	snprintf(url, sizeof(url), "%s%s", link->url, path);
	if (body != NULL) {
		r = lb_json_dump(body, &text);
		if (r < 0)
			return r;
		request.body = text;
		request.body_bytes = strlen(text);
	}
	return call(link, &request, ret_reply);
}

int lb_link_journal(struct lb_link *link, struct lb_durable *ret_durable)
{
	_cleanup_json_ json_t *reply = NULL;
	struct lb_durable durable;
	int r;

	r = call_json(link, "GET", "/v1/journal", NULL, &reply);
	if (r < 0)
		return r;
	r = parse_durable(reply, &durable);
	if (r < 0)
		return lb_wrap(-EBADMSG, "journal position from %s", link->url);
	*ret_durable = durable;
	return 0;
}

int lb_link_epoch(struct lb_link *link, const json_t *body)
{
	return call_json(link, "POST", "/v1/epoch", body, NULL);
}

int lb_link_put(struct lb_link *link, uint64_t epoch, uint64_t seq, int64_t cut_ns, const void *segment,
		size_t size_bytes, struct lb_confirmed *ret_confirmed)
{
	_cleanup_json_ json_t *reply = NULL;
	char url[URL_BYTES];
	const struct lb_http_request request = {
		.method = "PUT",
		.url = url,
		.body = segment,
		.body_bytes = size_bytes,
		.content_type = "application/octet-stream",
		.response_bytes_max = LB_LINK_REPLY_BYTES_MAX,
		.timeout_s = LB_LINK_TIMEOUT_S,
	};
	uint64_t got_epoch, got_seq;
	int r;

	snprintf(url, sizeof(url), "%s/v1/journal/%lu/%lu?cut_ns=%ld", link->url, (unsigned long)epoch,
		 (unsigned long)seq, (long)cut_ns);
	r = call(link, &request, &reply);
	if (r < 0)
		return r;
	if (lb_json_get_u64(reply, "epoch", &got_epoch) < 0 || lb_json_get_u64(reply, "seq", &got_seq) < 0 ||
	    got_epoch != epoch || got_seq != seq)
		return lb_fail(-EBADMSG, "%s acknowledged another segment than the one sent", url);
	parse_confirmed(reply, ret_confirmed);
	return 0;
}

static int compare_body(const struct lb_link_compare *c, json_t **ret_body)
{
	_cleanup_json_ json_t *body = json_object();
	_cleanup_free_ char *hashes = lb_base64_encode(c->hashes, c->n_hashes * sizeof(c->hashes[0]));
	char key[2 * LB_KEY_BYTES + 1];

	if (body == NULL || hashes == NULL)
		return lb_fail(-ENOMEM, "out of memory for a comparison");
	lb_hex_encode(c->key.bytes, LB_KEY_BYTES, key);
	if (lb_json_set_u64(body, "epoch", c->epoch) < 0 || lb_json_set_u64(body, "disk", c->disk) < 0 ||
	    lb_json_set_u64(body, "offset", c->offset_bytes) < 0 ||
	    lb_json_set_u64(body, "length", c->length_bytes) < 0 ||
	    lb_json_set_u64(body, "block_bytes", c->block_bytes) < 0 || lb_json_set_str(body, "key", key) < 0 ||
	    lb_json_set_str(body, "hashes", hashes) < 0)
		return lb_fail(-ENOMEM, "out of memory for a comparison");
	*ret_body = lb_steal_ptr(body);
	return 0;
}

int lb_link_compare(struct lb_link *link, const struct lb_link_compare *compare, bool differ[LB_LINK_HASHES_MAX])
{
	_cleanup_json_ json_t *body = NULL, *reply = NULL;
	_cleanup_free_ uint8_t *bits = NULL;
	const char *text;
	size_t size_bytes;
	int r;

	r = compare_body(compare, &body);
	if (r < 0)
		return r;
	r = call_json(link, "POST", "/v1/compare", body, &reply);
	if (r < 0)
		return r;
	r = lb_json_get_str(reply, "differ", &text);
	if (r < 0)
		return r;
	r = lb_base64_decode(text, LB_LINK_HASHES_MAX / 8, &bits, &size_bytes);
	if (r < 0)
		return r;
	if (size_bytes != (compare->n_hashes + 7) / 8)
		return lb_fail(-EBADMSG, "a comparison of %u blocks was answered with %zu bytes", compare->n_hashes,
			       size_bytes);
	for (unsigned int i = 0; i < compare->n_hashes; i++)
		differ[i] = (bits[i / 8] >> (i % 8)) & 1;
	return 0;
}

static int question_body(const struct lb_link_question *q, json_t **ret_body)
{
	_cleanup_json_ json_t *body = json_object();
	_cleanup_free_ char *hashes = NULL;
	char session[2 * LB_LINK_SESSION_BYTES + 1];

	if (body == NULL)
		return lb_fail(-ENOMEM, "out of memory for a comparison");
	lb_hex_encode(q->session, LB_LINK_SESSION_BYTES, session);
	if (lb_json_set_u64(body, "epoch", q->epoch) < 0 || lb_json_set_str(body, "session", session) < 0 ||
	    lb_json_set_u64(body, "disk", q->disk) < 0 || lb_json_set_u64(body, "offset", q->offset_bytes) < 0 ||
	    lb_json_set_u64(body, "length", q->length_bytes) < 0)
		return lb_fail(-ENOMEM, "out of memory for a comparison");
	if (q->batch != 0) {
		hashes = lb_base64_encode(q->hashes, q->n_hashes * LB_HRL_HASH_BYTES);
		if (hashes == NULL || lb_json_set_u64(body, "batch", q->batch) < 0 ||
		    lb_json_set_str(body, "hashes", hashes) < 0)
			return lb_fail(-ENOMEM, "out of memory for a comparison");
	}
	*ret_body = lb_steal_ptr(body);
	return 0;
}

static int parse_units(const json_t *reply, const char *member, size_t n, uint8_t bits[LB_LINK_UNITS_MAX / 8])
{
	_cleanup_free_ uint8_t *decoded = NULL;
	const char *text;
	size_t size_bytes = 0;
	int r;

	r = lb_json_get_str(reply, member, &text);
	if (r == 0)
		r = lb_base64_decode(text, LB_LINK_UNITS_MAX / 8, &decoded, &size_bytes);
	if (r < 0)
		return r;
	if (decoded == NULL || size_bytes != (n + 7) / 8)
		return lb_fail(-EBADMSG, "a question about %zu blocks was answered with %zu bytes", n, size_bytes);
	memcpy(bits, decoded, size_bytes);
	return 0;
}

/* Units that are zeroes in parts: three bytes for each. */
static int parse_mixed(const json_t *reply, size_t n, uint8_t zeroes[LB_LINK_UNITS_MAX])
{
	_cleanup_free_ uint8_t *decoded = NULL;
	const char *text;
	size_t size_bytes = 0;
	int r;

	r = lb_json_get_str(reply, "mixed", &text);
	if (r == 0)
		r = lb_base64_decode(text, 3 * n, &decoded, &size_bytes);
	if (r < 0)
		return r;
	for (size_t at = 0; decoded != NULL && at + 3 <= size_bytes; at += 3) {
		uint16_t unit = lb_get_le16(decoded + at);

		if (unit >= n)
			return lb_fail(-EBADMSG, "block %u of %zu can't be zeroes", unit, n);
		zeroes[unit] = decoded[at + 2];
	}
	return 0;
}

static int parse_settled(const json_t *reply, size_t n_units, struct lb_link_settled *s)
{
	uint8_t zero[LB_LINK_UNITS_MAX / 8];
	const char *text;
	int r;

	if (json_object_get(reply, "batch") != NULL) {
		r = lb_json_get_u64(reply, "batch", &s->batch);
		if (r == 0)
			r = lb_json_get_str(reply, "entries", &text);
		if (r == 0)
			r = lb_base64_decode(text, LB_LINK_REPLY_BYTES_MAX, &s->entries, &s->entries_bytes);
		return r;
	}
	if (json_object_get(reply, "send") == NULL)
		return 0;
	r = parse_units(reply, "send", n_units, s->send);
	if (r == 0)
		r = parse_units(reply, "zero", n_units, zero);
	if (r == 0)
		r = parse_mixed(reply, n_units, s->zeroes);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_units; i++)
		if ((zero[i / 8] >> i % 8 & 1) != 0)
			s->zeroes[i] = UINT8_MAX;
	s->settled = true;
	return 0;
}

int lb_link_settle(struct lb_link *link, const struct lb_link_question *question, struct lb_link_settled *ret_settled)
{
	_cleanup_json_ json_t *body = NULL, *reply = NULL;
	struct lb_link_settled s = {0};
	int r;

	r = question_body(question, &body);
	if (r < 0)
		return r;
	r = call_json(link, "POST", "/v1/settle", body, &reply);
	if (r < 0)
		return r;
	r = parse_settled(reply, (question->length_bytes + LB_LINK_UNIT_BYTES - 1) / LB_LINK_UNIT_BYTES, &s);
	if (r < 0)
		return lb_wrap(-EBADMSG, "answer of %s/v1/settle", link->url);
	*ret_settled = s;
	return 0;
}

int lb_link_heartbeat(struct lb_link *link, const json_t *body, struct lb_link_advice *ret_advice)
{
	_cleanup_json_ json_t *reply = NULL;
	struct lb_link_advice advice = {0};
	const json_t *commands;
	int r;

	r = call_json(link, "POST", "/v1/heartbeat", body, &reply);
	if (r < 0)
		return r;
	parse_confirmed(reply, &advice.confirmed);
	commands = json_object_get(reply, "commands");
	for (size_t i = 0; i < json_array_size(commands); i++) {
		const char *command = json_string_value(json_array_get(commands, i));

		if (command != NULL && strcmp(command, "resync") == 0)
			advice.resync = true;
	}
	*ret_advice = advice;
	return 0;
}
