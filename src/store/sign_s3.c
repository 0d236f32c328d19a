/* SPDX-License-Identifier: Apache-2.0 */
/* https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html */
#include "store/sign.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/text.h"

#define TEXT_BYTES_MAX (64u << 10)
#define SECRET_BYTES_MAX 256
#define HEX_BYTES (2 * LB_DIGEST_BYTES + 1)
#define SERVICE "s3"

struct when {
	char day[9];   /* "20130524" */
	char time[17]; /* "20130524T000000Z" */
};

static void when_of(int64_t now_ns, struct when *w)
{
	time_t now_s = (time_t)(now_ns / LB_NS_PER_S);
	struct tm tm;

	gmtime_r(&now_s, &tm);
	strftime(w->day, sizeof(w->day), "%Y%m%d", &tm);
	strftime(w->time, sizeof(w->time), "%Y%m%dT%H%M%SZ", &tm);
}

static int hex_digest(const void *data, size_t size_bytes, char hex[HEX_BYTES])
{
	struct lb_digest digest;
	int r = lb_sha256(data, size_bytes, &digest);

	if (r < 0)
		return r;
	lb_hex_encode(digest.bytes, sizeof(digest.bytes), hex);
	return 0;
}

static int hmac(const void *key, size_t key_bytes, const char *text, struct lb_digest *ret)
{
	if (HMAC(EVP_sha256(), key, (int)key_bytes, (const unsigned char *)text, strlen(text), ret->bytes, NULL) ==
	    NULL)
		return lb_fail(-EIO, "HMAC-SHA-256 failed");
	return 0;
}

static void digest_wipe(struct lb_digest *d)
{
	lb_wipe(d->bytes, sizeof(d->bytes));
}

static int signing_key(const struct lb_s3_identity *id, const struct when *w, struct lb_digest *ret_key)
{
	_cleanup_(digest_wipe) struct lb_digest k = {{0}};
	const char *const steps[] = {id->region, SERVICE, "aws4_request"};
	char secret[SECRET_BYTES_MAX + 5];
	int r;

	if (snprintf(secret, sizeof(secret), "AWS4%s", id->secret_key) >= (int)sizeof(secret)) {
		lb_wipe(secret, sizeof(secret));
		return lb_fail(-EACCES, "the secret key is longer than %d characters", SECRET_BYTES_MAX);
	}
	r = hmac(secret, strlen(secret), w->day, &k);
	lb_wipe(secret, sizeof(secret));
	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(steps); i++)
		r = hmac(k.bytes, sizeof(k.bytes), steps[i], &k);
	if (r == 0)
		*ret_key = k;
	return r;
}

static int signed_names(const struct lb_cloud_request *q, struct lb_buf *out)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < q->headers.n; i++)
		r = lb_buf_printf(out, "%s%s", i > 0 ? ";" : "", q->headers.at[i].name);
	return r;
}

static int canonical_request(const struct lb_cloud_request *q, const char *names, struct lb_buf *out)
{
	int r;

	r = lb_buf_printf(out, "%s\n", q->method);
	if (r == 0)
		r = lb_percent_append(out, q->path, true);
	if (r == 0)
		r = lb_buf_append(out, "\n", 1);
	if (r == 0)
		r = lb_fields_query(&q->query, out);
	if (r == 0)
		r = lb_buf_append(out, "\n", 1);
	for (size_t i = 0; r == 0 && i < q->headers.n; i++)
		r = lb_buf_printf(out, "%s:%s\n", q->headers.at[i].name, q->headers.at[i].value);
	return r < 0 ? r : lb_buf_printf(out, "\n%s\n%s", names, lb_fields_get(&q->headers, "x-amz-content-sha256"));
}

static int add_headers(struct lb_cloud_request *q, const struct lb_s3_identity *id, const struct when *w)
{
	char body[HEX_BYTES];
	int r;

	if (q->body_unsigned)
		r = snprintf(body, sizeof(body), "UNSIGNED-PAYLOAD") < 0 ? -EIO : 0;
	else
		r = hex_digest(q->body_bytes > 0 ? q->body : "", q->body_bytes, body);
	if (r == 0)
		r = lb_fields_add(&q->headers, "host", "%s", id->host);
	if (r == 0)
		r = lb_fields_add(&q->headers, "x-amz-content-sha256", "%s", body);
	if (r == 0)
		r = lb_fields_add(&q->headers, "x-amz-date", "%s", w->time);
	if (r == 0 && id->session_token != NULL)
		r = lb_fields_add(&q->headers, "x-amz-security-token", "%s", id->session_token);
	lb_fields_sort(&q->headers);
	lb_fields_sort(&q->query);
	return r;
}

int lb_s3_sign(struct lb_cloud_request *q, const struct lb_s3_identity *id, int64_t now_ns)
{
	_cleanup_buf_ struct lb_buf names = LB_BUF(TEXT_BYTES_MAX), text = LB_BUF(TEXT_BYTES_MAX);
	_cleanup_(digest_wipe) struct lb_digest key = {{0}};
	char hex[HEX_BYTES], scope[128];
	struct lb_digest mac;
	struct when w;
	int r;

	when_of(now_ns, &w);
	r = add_headers(q, id, &w);
	if (r == 0)
		r = signed_names(q, &names);
	if (r == 0)
		r = canonical_request(q, (const char *)names.data, &text);
	if (r == 0)
		r = hex_digest(text.data, text.size_bytes, hex);
	if (r == 0)
		r = signing_key(id, &w, &key);
	if (r < 0)
		return r;
	snprintf(scope, sizeof(scope), "%s/%.60s/" SERVICE "/aws4_request", w.day, id->region);
	text.size_bytes = 0;
	r = lb_buf_printf(&text, "AWS4-HMAC-SHA256\n%s\n%s\n%s", w.time, scope, hex);
	if (r == 0)
		r = hmac(key.bytes, sizeof(key.bytes), (const char *)text.data, &mac);
	if (r < 0)
		return r;
	lb_hex_encode(mac.bytes, sizeof(mac.bytes), hex);
	return lb_fields_add(&q->headers, "authorization",
			     "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%s", id->access_key, scope,
			     (const char *)names.data, hex);
}
