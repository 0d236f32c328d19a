/* SPDX-License-Identifier: Apache-2.0 */
#include "store/cloud.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/text.h"

#define NONCE_BYTES 16
#define DAMAGED_ATTEMPTS_MAX 3
_Static_assert(LB_HTTP_NONCE_BYTES == 2 * NONCE_BYTES + 1, "a nonce is hex");

static bool is_done(const struct lb_answer *a)
{
	return a->status >= 200 && a->status < 300;
}

static int head(struct lb_cloud *c, const char *name, const char *doing, struct lb_answer *ret_answer)
{
	_cleanup_(lb_cloud_call_clear) struct lb_cloud_call call = {.method = "HEAD", .name = name, .doing = doing};
	_cleanup_(lb_answer_clear) struct lb_answer answer = {0};
	bool landed;
	int r;

	r = lb_cloud_send(c, &call, &answer, &landed);
	if (r < 0)
		return r;
	if (!is_done(&answer))
		return lb_cloud_refused(c, &call, &answer);
	*ret_answer = answer;
	answer.error = (struct lb_buf){0};
	return 0;
}

/* ---- puts ------------------------------------------------------------------------------------------------ */

static int make_nonce(struct lb_cloud *c, char nonce[LB_HTTP_NONCE_BYTES])
{
	uint8_t bytes[NONCE_BYTES];
	int r = c->store.env->ops->random(c->store.env, bytes, sizeof(bytes));

	if (r < 0)
		return lb_fail(r, "no random bytes: %s", strerror(-r));
	lb_hex_encode(bytes, sizeof(bytes), nonce);
	return 0;
}

/* What is put, and on which condition. */
struct put {
	const char *name, *etag; /* etag NULL: only if absent */
	const void *data;
	size_t size_bytes;
	char nonce[LB_HTTP_NONCE_BYTES];
};

/* The condition did not hold: or it did, for an attempt before whose answer got lost. 0 when the object is ours. */
static int settle(struct lb_cloud *c, const struct put *p, bool *ret_kept)
{
	_cleanup_(lb_answer_clear) struct lb_answer answer = {0};
	int r;

	r = head(c, p->name, "look again at object", &answer);
	if (r == 0 && strcmp(answer.nonce, p->nonce) == 0)
		return 0;
	if (r < 0 && r != -ENOENT)
		return r;
	if (p->etag != NULL) {
		*ret_kept = r == 0 && strcmp(answer.etag, p->etag) == 0;
		return lb_fail(-ESTALE,
			       "%s: object %s was changed by another writer meanwhile; read it again and retry",
			       c->shown, p->name);
	}
	if (r == -ENOENT)
		return lb_fail(-EIO, "%s: object %s was there and is gone: somebody else removes objects of this vault",
			       c->shown, p->name);
	return lb_fail(-EEXIST, "%s: object %s is there already", c->shown, p->name);
}

static int add_headers(struct lb_cloud *c, const struct put *p, const char *condition, struct lb_fields *headers)
{
	int r;

	r = lb_fields_add(headers, "content-type", "application/octet-stream");
	if (r == 0)
		r = lb_fields_add(headers, c->dialect->nonce_header, "%s", p->nonce);
	if (r == 0 && c->dialect->listing == LB_LISTING_AZURE)
		r = lb_fields_add(headers, "x-ms-blob-type", "BlockBlob");
	if (r < 0)
		return r;
	return p->etag != NULL ? lb_fields_add(headers, "if-match", "%s", condition)
			       : lb_fields_add(headers, "if-none-match", "*");
}

/* `ret_kept`: the condition did not hold for the store, though the object is as it should have been. */
static int put_if(struct lb_cloud *c, const struct put *p, const char *condition, bool *ret_kept)
{
	_cleanup_(lb_cloud_call_clear) struct lb_cloud_call call = {.method = "PUT",
								    .name = p->name,
								    .body = p->data,
								    .body_bytes = p->size_bytes,
								    .doing = p->etag != NULL ? "replace object"
											     : "write object"};
	_cleanup_(lb_answer_clear) struct lb_answer answer = {0};
	bool landed, gone;
	int r;

	*ret_kept = false;
	r = add_headers(c, p, condition, &call.headers);
	if (r == 0)
		r = lb_cloud_send(c, &call, &answer, &landed);
	if (r < 0)
		return r;
	if (is_done(&answer))
		return 0;
	gone = p->etag != NULL && answer.status == 404 && strcmp(answer.code, c->dialect->no_container) != 0;
	if (gone || answer.status == 412 || strcmp(answer.code, "BlobAlreadyExists") == 0)
		return settle(c, p, ret_kept);
	return lb_cloud_refused(c, &call, &answer);
}

/* Ceph before 18 compares with what is between the quotes of an ETag, others with them; AWS takes both. */
static int put(struct lb_cloud *c, struct put *p)
{
	char bare[LB_STORE_ETAG_BYTES];
	size_t length = p->etag != NULL ? strlen(p->etag) : 0;
	bool kept;
	int r;

	r = make_nonce(c, p->nonce);
	if (r < 0)
		return r;
	if (c->dialect->listing != LB_LISTING_S3 || length < 2 || length >= sizeof(bare) || p->etag[0] != '"')
		return put_if(c, p, p->etag, &kept);
	snprintf(bare, sizeof(bare), "%.*s", (int)(length - 2), p->etag + 1);
	r = put_if(c, p, bare, &kept);
	return r == -ESTALE && kept ? put_if(c, p, p->etag, &kept) : r;
}

int lb_cloud_put_new(struct lb_store *s, const char *name, const void *data, size_t size_bytes)
{
	return put(lb_cloud_of(s), &(struct put){.name = name, .data = data, .size_bytes = size_bytes});
}

int lb_cloud_replace(struct lb_store *s, const char *name, const char *etag, const void *data, size_t size_bytes)
{
	return put(lb_cloud_of(s), &(struct put){.name = name, .etag = etag, .data = data, .size_bytes = size_bytes});
}

/* ---- reads ----------------------------------------------------------------------------------------------- */

static int fail_short(struct lb_cloud *c, const char *name, uint64_t end_bytes)
{
	return lb_fail(-ENODATA, "%s: object %s is truncated: it ends before byte %" PRIu64, c->shown, name, end_bytes);
}

/* What came must be what was asked for: servers may answer a part, or the whole, where a range was meant. -EBADMSG for
 * an answer that another attempt may cure. */
static int check_range(struct lb_cloud *c, const struct lb_cloud_call *call, const struct lb_answer *a,
		       uint64_t offset_bytes, size_t size_bytes, size_t got_bytes)
{
	if (a->status == 416)
		return fail_short(c, call->name, offset_bytes + size_bytes);
	if (!is_done(a))
		return lb_cloud_refused(c, call, a);
	if (a->status == 206 && (!a->has_range || a->range_first != offset_bytes))
		return lb_fail(-EBADMSG, "%s: the answer to a read of object %s is of another range", c->shown,
			       call->name);
	if (a->status == 206 && a->range_total_bytes < offset_bytes + size_bytes)
		return fail_short(c, call->name, offset_bytes + size_bytes);
	if (a->status != 206 && offset_bytes > 0)
		return lb_fail(-EIO, "%s: the store ignores ranges: it answers %u to a read of object %s", c->shown,
			       a->status, call->name);
	if (a->status != 206 && got_bytes < size_bytes)
		return fail_short(c, call->name, size_bytes);
	if (got_bytes != size_bytes)
		return lb_fail(-EBADMSG, "%s: the answer to a read of object %s has %zu bytes where %zu were asked for",
			       c->shown, call->name, got_bytes, size_bytes);
	return 0;
}

static int get_part(struct lb_cloud *c, const char *name, uint64_t offset_bytes, size_t size_bytes, struct lb_buf *out)
{
	_cleanup_(lb_cloud_call_clear) struct lb_cloud_call call = {
		.method = "GET", .name = name, .out = out, .doing = "read object"};
	_cleanup_(lb_answer_clear) struct lb_answer answer = {0};
	size_t before = out->size_bytes;
	bool landed;
	int r;

	r = lb_fields_add(&call.headers, "range", "bytes=%" PRIu64 "-%" PRIu64, offset_bytes,
			  offset_bytes + size_bytes - 1);
	if (r == 0)
		r = lb_buf_reserve(out, size_bytes);
	if (r == 0)
		r = lb_cloud_send(c, &call, &answer, &landed);
	return r < 0 ? r : check_range(c, &call, &answer, offset_bytes, size_bytes, out->size_bytes - before);
}

/* Nothing can't be asked for as a range. */
static int get_nothing(struct lb_cloud *c, const char *name, uint64_t offset_bytes)
{
	_cleanup_(lb_answer_clear) struct lb_answer answer = {0};
	int r = head(c, name, "read object", &answer);

	if (r == 0 && answer.length_bytes < offset_bytes)
		return fail_short(c, name, offset_bytes);
	return r;
}

int lb_cloud_get(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes, struct lb_buf *out)
{
	struct lb_cloud *c = lb_cloud_of(s);
	size_t before = out->size_bytes;
	int r = -EBADMSG;

	if (offset_bytes > INT64_MAX - size_bytes)
		return fail_short(c, name, offset_bytes);
	if (size_bytes == 0)
		return get_nothing(c, name, offset_bytes);
	for (int i = 0; i < DAMAGED_ATTEMPTS_MAX && r == -EBADMSG; i++) {
		out->size_bytes = before;
		r = get_part(c, name, offset_bytes, size_bytes, out);
	}
	return r == -EBADMSG ? lb_wrap(-EIO, "the answer stays damaged") : r;
}

int lb_cloud_stat(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag)
{
	_cleanup_(lb_answer_clear) struct lb_answer answer = {0};
	int r;

	r = head(lb_cloud_of(s), name, "look at object", &answer);
	if (r < 0)
		return r;
	if (!answer.has_length || answer.etag[0] == '\0')
		return lb_fail(-EIO, "%s: the store doesn't tell size and ETag of object %s", lb_cloud_of(s)->shown,
			       name);
	*ret_size_bytes = answer.length_bytes;
	if (ret_etag != NULL)
		memcpy(ret_etag, answer.etag, LB_STORE_ETAG_BYTES);
	return 0;
}

/* ---- the rest -------------------------------------------------------------------------------------------- */

int lb_cloud_remove(struct lb_store *s, const char *name)
{
	_cleanup_(lb_cloud_call_clear) struct lb_cloud_call call = {
		.method = "DELETE", .name = name, .doing = "remove object"};
	_cleanup_(lb_answer_clear) struct lb_answer answer = {0}, before = {0};
	struct lb_cloud *c = lb_cloud_of(s);
	bool landed;
	int r = 0;

	if (!c->dialect->delete_tells)
		r = head(c, name, "remove object", &before);
	if (r == 0)
		r = lb_cloud_send(c, &call, &answer, &landed);
	if (r < 0)
		return r;
	if (is_done(&answer) || (answer.status == 404 && landed))
		return 0;
	return lb_cloud_refused(c, &call, &answer);
}

/* Every answer has a date: one about an object that is never there, too. */
int lb_cloud_now(struct lb_store *s, int64_t *ret_now_ns)
{
	_cleanup_(lb_cloud_call_clear) struct lb_cloud_call call = {
		.method = "HEAD", .name = "now", .doing = "ask the time of"};
	_cleanup_(lb_answer_clear) struct lb_answer answer = {0};
	bool landed;
	int r;

	r = lb_cloud_send(lb_cloud_of(s), &call, &answer, &landed);
	if (r < 0)
		return r;
	if (answer.date_ns == 0)
		return lb_fail(-EIO, "%s: the store's answers have no date", lb_cloud_of(s)->shown);
	*ret_now_ns = answer.date_ns;
	return 0;
}

void lb_cloud_free(struct lb_store *s)
{
	struct lb_cloud *c = lb_cloud_of(s);

	if (c->http != NULL)
		lb_http_pool_free(c->http);
	if (c->credentials != NULL)
		lb_credentials_close(c->credentials);
	free(c->origin);
	free(c->host);
	free(c->base);
	free(c->account);
	free(c->region);
	free(c->container);
	free(c->shown);
	free(s->url);
	free(c);
}
