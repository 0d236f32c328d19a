/* SPDX-License-Identifier: Apache-2.0 */
/* Attempts: each is signed anew, with the credentials and the time of its own moment. */
#include "store/cloud.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/err.h"

void lb_cloud_call_clear(struct lb_cloud_call *call)
{
	lb_fields_clear(&call->query);
	lb_fields_clear(&call->headers);
}

void lb_cloud_request_clear(struct lb_cloud_request *q)
{
	lb_fields_clear(&q->query);
	lb_fields_clear(&q->headers);
}

static void wiped_buf_free(struct lb_buf *b)
{
	if (b->data != NULL)
		lb_wipe(b->data, b->size_bytes);
	lb_buf_free(b);
}

/* What one attempt was made with. */
struct attempt {
	struct lb_credentials credentials;
	uint64_t generation;
	int64_t now_ns; /* as signed */
	bool has_checksum;
};

static void attempt_clear(struct attempt *a)
{
	lb_credentials_clear(&a->credentials);
}

static int copy_fields(const struct lb_fields *from, struct lb_fields *to)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < from->n; i++)
		r = lb_fields_add(to, from->at[i].name, "%s", from->at[i].value);
	return r;
}

static int make_url(const struct lb_cloud *c, const struct lb_cloud_request *q, const struct lb_buf *raw_query,
		    struct lb_buf *url)
{
	int r = lb_buf_printf(url, "%s%s", c->origin, q->path);

	if (r == 0 && (q->query.n > 0 || raw_query->size_bytes > 0))
		r = lb_buf_append(url, "?", 1);
	if (r == 0)
		r = lb_fields_query(&q->query, url);
	if (r == 0 && raw_query->size_bytes > 0)
		r = lb_buf_printf(url, "%s%s", q->query.n > 0 ? "&" : "", (const char *)raw_query->data);
	return r;
}

/* Objects that are put go with their MD5 where that is needed: always where nothing else guards them on their way. */
static int add_checksum(struct lb_cloud *c, const struct lb_cloud_call *call, struct attempt *a,
			struct lb_cloud_request *q)
{
	char md5[25];
	int r;

	q->body_unsigned = call->name != NULL && strcmp(call->method, "PUT") == 0;
	a->has_checksum = q->body_unsigned && c->checksums;
	if (!a->has_checksum)
		return 0;
	r = lb_content_md5(call->body, call->body_bytes, md5);
	return r < 0 ? r : lb_fields_add(&q->headers, "content-md5", "%s", md5);
}

static int attempt(struct lb_cloud *c, const struct lb_cloud_call *call, bool again, struct attempt *a,
		   struct lb_answer *ret_answer, bool *ret_landed)
{
	_cleanup_(lb_cloud_request_clear) struct lb_cloud_request q = {
		.method = call->method, .body = call->body, .body_bytes = call->body_bytes};
	_cleanup_(wiped_buf_free) struct lb_buf url = LB_BUF(LB_CLOUD_URL_BYTES_MAX),
						raw_query = LB_BUF(LB_CLOUD_URL_BYTES_MAX);
	char path[LB_CLOUD_PATH_BYTES_MAX];
	int r;

	*ret_landed = false;
	lb_credentials_clear(&a->credentials);
	r = lb_credentials_get(c->credentials, again, &a->credentials, &a->generation);
	if (r < 0)
		return r;
	a->now_ns = lb_now_ns(c->store.env) + c->clock_offset_ns;
	snprintf(path, sizeof(path), "%s%s%s", c->base, call->name != NULL || c->base[0] == '\0' ? "/" : "",
		 call->name != NULL ? call->name : "");
	q.path = path;
	r = copy_fields(&call->query, &q.query);
	if (r == 0)
		r = copy_fields(&call->headers, &q.headers);
	if (r == 0)
		r = add_checksum(c, call, a, &q);
	if (r == 0)
		r = c->dialect->sign(c, &a->credentials, a->now_ns, &q, &raw_query);
	if (r == 0)
		r = make_url(c, &q, &raw_query, &url);
	if (r < 0)
		return r;
	return lb_http_exchange(c->http,
				&(struct lb_exchange){.method = call->method,
						      .url = (const char *)url.data,
						      .headers = &q.headers,
						      .body = call->body,
						      .body_bytes = call->body_bytes,
						      .out = call->out,
						      .proxy_user = a->credentials.proxy_user,
						      .proxy_password = a->credentials.proxy_password},
				ret_answer, ret_landed);
}

/* ---- whether to try again ---------------------------------------------------------------------------------- */

static void learn_code(struct lb_answer *a, char message[LB_CLOUD_MESSAGE_BYTES])
{
	char code[LB_CLOUD_CODE_BYTES];

	lb_cloud_error_parse(a->error.data, a->error.size_bytes, code, message);
	if (code[0] != '\0')
		snprintf(a->code, sizeof(a->code), "%s", code);
}

static bool is_busy(const struct lb_answer *a)
{
	static const char *const codes[] = {"RequestTimeout",   "ConditionalRequestConflict",
					    "OperationAborted", "ContainerBeingDeleted",
					    "BadDigest",        "Md5Mismatch"};

	if (a->status == 408 || a->status == 429 || a->status == 500 || a->status == 502 || a->status == 503 ||
	    a->status == 504)
		return true;
	for (size_t i = 0; i < LB_ARRAY_LEN(codes); i++)
		if (strcmp(a->code, codes[i]) == 0)
			return true;
	return false;
}

/* Buckets with object lock insist on a checksum, whatever the way there. */
static bool wants_checksum(const struct attempt *a, const struct lb_answer *answer, const char *message)
{
	if (a->has_checksum || answer->status != 400)
		return false;
	return strcmp(answer->code, "MissingContentMD5") == 0 ||
	       (strcmp(answer->code, "InvalidRequest") == 0 && strcasestr(message, "content-md5") != NULL);
}

/* A refusal may be about our clock, or about credentials that were replaced meanwhile. */
static bool is_cured(struct lb_cloud *c, struct attempt *a, const struct lb_answer *answer)
{
	_cleanup_(lb_credentials_clear) struct lb_credentials newer = {0};
	int64_t skew_ns = answer->date_ns != 0 ? answer->date_ns - a->now_ns : 0;
	uint64_t generation;

	if (lb_credentials_get(c->credentials, true, &newer, &generation) == 0 && generation != a->generation)
		return true;
	if (skew_ns > -LB_CLOUD_SKEW_S * LB_NS_PER_S && skew_ns < LB_CLOUD_SKEW_S * LB_NS_PER_S)
		return false;
	c->clock_offset_ns = answer->date_ns - lb_now_ns(c->store.env);
	return true;
}

static int64_t backoff_ms(struct lb_env *env, unsigned int attempts)
{
	int64_t ms = LB_CLOUD_BACKOFF_MS_MIN;
	uint32_t random = 0;

	for (unsigned int i = 1; i < attempts && ms < LB_CLOUD_BACKOFF_MS_MAX; i++)
		ms *= 2;
	ms = LB_MIN(ms, (int64_t)LB_CLOUD_BACKOFF_MS_MAX);
	env->ops->random(env, &random, sizeof(random));
	return ms / 2 + (int64_t)(random % (uint64_t)(ms / 2 + 1));
}

/* What one request has come to, over its attempts. */
struct progress {
	unsigned int attempts;
	int64_t waited_ms;
	bool cured, landed;
};

/* False when patience is at its end. All requests of a store are patient together when the server asks for it. */
static bool wait_for_next(struct lb_cloud *c, struct progress *p, uint32_t retry_after_s)
{
	struct lb_env *env = c->store.env;
	int64_t ms = backoff_ms(env, p->attempts) + (int64_t)retry_after_s * 1000, now_ns = lb_mono_ns(env);

	if (p->attempts >= LB_CLOUD_ATTEMPTS_MAX || p->waited_ms + ms > LB_CLOUD_WAITED_MS_MAX)
		return false;
	if (retry_after_s > 0)
		c->not_before_mono_ns = now_ns + (int64_t)retry_after_s * LB_NS_PER_S;
	p->waited_ms += ms;
	env->ops->wait_until(env, now_ns + ms * LB_NS_PER_MS, -1);
	return true;
}

static void be_patient(struct lb_cloud *c)
{
	struct lb_env *env = c->store.env;
	int64_t until_ns = c->not_before_mono_ns, now_ns = lb_mono_ns(env);

	if (until_ns > now_ns)
		env->ops->wait_until(env, LB_MIN(until_ns, now_ns + LB_CLOUD_WAITED_MS_MAX * LB_NS_PER_MS), -1);
}

/* ---- in words ------------------------------------------------------------------------------------------------ */

static int wrap_call(struct lb_cloud *c, const struct lb_cloud_call *call, int r)
{
	if (r == -EAGAIN)
		r = -EIO;
	return lb_wrap(r, "%s: can't %s%s%s", c->shown, call->doing, call->name != NULL ? " " : "",
		       call->name != NULL ? call->name : "");
}

static int fail_access(struct lb_cloud *c, const struct lb_cloud_call *call, struct attempt *a,
		       const struct lb_answer *answer, const char *message)
{
	char advice[LB_CLOUD_MESSAGE_BYTES] = "";

	c->dialect->advise(c, &a->credentials, a->now_ns, answer, advice);
	return wrap_call(c, call,
			 lb_fail(-EACCES, "access is denied (%u%s%s%s%s)%s%s; the credentials come from %s: %s",
				 answer->status, answer->code[0] != '\0' ? " " : "", answer->code,
				 message[0] != '\0' ? ": " : "", message, advice[0] != '\0' ? "; " : "", advice,
				 lb_credentials_where(c->credentials),
				 lb_credentials_in_file(c->credentials)
					 ? "correct them there, they are read again at the next request"
					 : "correct it and start again"));
}

static int fail_other(struct lb_cloud *c, const struct lb_cloud_call *call, const struct lb_answer *answer,
		      const char *message)
{
	int code = answer->status == 507 || strcmp(answer->code, "QuotaExceeded") == 0 ||
				   strcmp(answer->code, "AccountLimitExceeded") == 0
			   ? -ENOSPC
			   : -EIO;

	if (answer->region[0] != '\0' && answer->status < 500)
		return wrap_call(c, call,
				 lb_fail(-EIO, "the bucket is in region %s; give region=%s in the address",
					 answer->region, answer->region));
	return wrap_call(c, call,
			 lb_fail(code, "the store answers %u%s%s%s%s%s%s%s", answer->status,
				 answer->code[0] != '\0' ? " " : "", answer->code, message[0] != '\0' ? ": " : "",
				 message, answer->request_id[0] != '\0' ? " (request " : "", answer->request_id,
				 answer->request_id[0] != '\0' ? ")" : ""));
}

int lb_cloud_refused(struct lb_cloud *c, const struct lb_cloud_call *call, const struct lb_answer *answer)
{
	char code[LB_CLOUD_CODE_BYTES], message[LB_CLOUD_MESSAGE_BYTES];

	if (answer->status == 404 && strcmp(answer->code, c->dialect->no_container) == 0)
		return lb_fail(-ENOENT, "%s: there is no such container; `lifeboat vault create` makes it", c->shown);
	if (answer->status == 404 && call->name != NULL)
		return lb_fail(-ENOENT, "%s: there is no object %s", c->shown, call->name);
	lb_cloud_error_parse(answer->error.data, answer->error.size_bytes, code, message);
	if (answer->status == 409 && strcmp(answer->code, "BlobImmutableDueToPolicy") == 0)
		return wrap_call(c, call, lb_fail(-EACCES, "an immutability policy or a legal hold keeps it as it is"));
	return fail_other(c, call, answer, message);
}

static bool is_decisive(const struct lb_answer *a)
{
	return (a->status >= 200 && a->status < 300) || a->status == 304 || a->status == 404 || a->status == 409 ||
	       a->status == 412 || a->status == 416;
}

/* 0: done; 1: once more, after a wait of `ret_wait_s` and more; else what it ends with. */
static int judge(struct lb_cloud *c, const struct lb_cloud_call *call, struct attempt *a, struct progress *p,
		 struct lb_answer *answer, bool *ret_at_once)
{
	char message[LB_CLOUD_MESSAGE_BYTES] = "";

	*ret_at_once = false;
	learn_code(answer, message);
	if (wants_checksum(a, answer, message)) {
		c->checksums = true;
		return 1;
	}
	if (is_busy(answer)) {
		p->landed = p->landed || answer->status >= 500 || answer->status == 408;
		if (wait_for_next(c, p, answer->retry_after_s))
			return 1;
		if (answer->retry_after_s > 0)
			snprintf(message, sizeof(message), "it asks to wait %u s", answer->retry_after_s);
		return fail_other(c, call, answer, message);
	}
	if (is_decisive(answer))
		return 0;
	if (answer->status != 401 && answer->status != 403)
		return fail_other(c, call, answer, message);
	if (strcmp(answer->code, "QuotaExceeded") == 0)
		return fail_other(c, call, answer, message);
	*ret_at_once = !p->cured && is_cured(c, a, answer);
	p->cured = true;
	return *ret_at_once ? 1 : fail_access(c, call, a, answer, message);
}

int lb_cloud_send(struct lb_cloud *c, const struct lb_cloud_call *call, struct lb_answer *ret_answer, bool *ret_landed)
{
	_cleanup_(attempt_clear) struct attempt a = {0};
	struct progress p = {0};
	bool at_once = false;
	int r;

	for (;;) {
		_cleanup_(lb_answer_clear) struct lb_answer answer = {0};
		bool landed;

		be_patient(c);
		p.attempts++;
		r = attempt(c, call, at_once, &a, &answer, &landed);
		p.landed = p.landed || landed;
		if (r == 0)
			r = judge(c, call, &a, &p, &answer, &at_once);
		else if (r == -EAGAIN && wait_for_next(c, &p, 0))
			r = 1;
		else
			r = wrap_call(c, call, r);
		if (r < 0)
			return r;
		if (r == 0) {
			*ret_answer = answer;
			answer.error = (struct lb_buf){0};
			*ret_landed = p.landed;
			return 0;
		}
	}
}
