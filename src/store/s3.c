/* SPDX-License-Identifier: Apache-2.0 */
/* S3: AWS, and servers that keep its promises (If-None-Match and If-Match on PUT, listings in order). */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "store/cloud.h"

#define REGION_DEFAULT "us-east-1"

static int s3_list_query(struct lb_cloud_request *q, const char *prefix, bool folders, const char *marker)
{
	int r;

	r = lb_fields_add(&q->query, "list-type", "2");
	if (r == 0)
		r = lb_fields_add(&q->query, "max-keys", "%d", LB_LISTING_PAGE_ITEMS);
	if (r == 0 && prefix[0] != '\0')
		r = lb_fields_add(&q->query, "prefix", "%s", prefix);
	if (r == 0 && folders)
		r = lb_fields_add(&q->query, "delimiter", "/");
	if (r == 0 && marker != NULL)
		r = lb_fields_add(&q->query, "continuation-token", "%s", marker);
	return r;
}

static int s3_create_request(struct lb_cloud *c, struct lb_cloud_request *q, struct lb_buf *body)
{
	(void)q;
	if (strcmp(c->region, REGION_DEFAULT) == 0)
		return 0;
	return lb_buf_printf(body,
			     "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
			     "<LocationConstraint>%s</LocationConstraint></CreateBucketConfiguration>",
			     c->region);
}

static int s3_sign(struct lb_cloud *c, const struct lb_credentials *k, int64_t now_ns, struct lb_cloud_request *q,
		   struct lb_buf *raw_query)
{
	const struct lb_s3_identity id = {.access_key = k->access_key,
					  .secret_key = k->secret_key,
					  .session_token = k->session_token,
					  .region = c->region,
					  .host = c->host};

	(void)raw_query;
	return lb_s3_sign(q, &id, now_ns);
}

static void s3_advise(struct lb_cloud *c, const struct lb_credentials *k, int64_t now_ns,
		      const struct lb_answer *answer, char text[LB_CLOUD_MESSAGE_BYTES])
{
	const char *code = answer->code;

	(void)c;
	(void)now_ns;
	if (strcmp(code, "ExpiredToken") == 0 || strcmp(code, "TokenRefreshRequired") == 0)
		snprintf(text, LB_CLOUD_MESSAGE_BYTES, "the session's credentials are over: get new ones");
	else if (strcmp(code, "InvalidAccessKeyId") == 0 || strcmp(code, "SignatureDoesNotMatch") == 0)
		snprintf(text, LB_CLOUD_MESSAGE_BYTES, "access key %.40s or its secret key is wrong or was withdrawn",
			 k->access_key);
	else
		snprintf(text, LB_CLOUD_MESSAGE_BYTES,
			 "access key %.40s needs s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, "
			 "s3:DeleteObject on what is in it",
			 k->access_key);
}

static const struct lb_store_ops s3_ops = {
	.scheme = "s3",
	.put_new = lb_cloud_put_new,
	.replace = lb_cloud_replace,
	.get = lb_cloud_get,
	.stat = lb_cloud_stat,
	.list = lb_cloud_list,
	.list_folders = lb_cloud_list_folders,
	.remove = lb_cloud_remove,
	.now = lb_cloud_now,
	.free = lb_cloud_free,
};

static const struct lb_cloud_dialect s3_dialect = {
	.ops = &s3_ops,
	.listing = LB_LISTING_S3,
	.nonce_header = "x-amz-meta-lbput",
	.no_container = "NoSuchBucket",
	.delete_tells = false,
	.list_query = s3_list_query,
	.sign = s3_sign,
	.create_request = s3_create_request,
	.advise = s3_advise,
};

static int check_bucket(const char *bucket)
{
	size_t n = strlen(bucket);

	if (n >= 3 && n <= 63 && strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-") == n && bucket[0] != '.' &&
	    bucket[0] != '-' && bucket[n - 1] != '.' && bucket[n - 1] != '-' && strstr(bucket, "..") == NULL)
		return 0;
	return lb_fail(
		-EINVAL,
		"s3:%.100s: write s3:BUCKET?region=..., the bucket in 3 to 63 lower-case letters, digits, '-' and '.'",
		bucket);
}

/* At AWS the bucket is part of the host's name, except where its dots would spoil the certificate. */
static int set_places(const struct lb_store_url *url, struct lb_cloud *c)
{
	bool in_host = url->endpoint != NULL ? url->host_style : strchr(url->place, '.') == NULL;
	_cleanup_free_ char *path = NULL, *endpoint = NULL;
	const char *host;
	int r;

	c->container = strdup(url->place);
	c->region = strdup(url->region != NULL ? url->region : REGION_DEFAULT);
	if (c->container == NULL || c->region == NULL)
		return lb_fail(-ENOMEM, "out of memory for a store");
	if (url->endpoint == NULL)
		r = asprintf(&endpoint, "https://%s%ss3.%s.amazonaws.com", in_host ? url->place : "",
			     in_host ? "." : "", c->region);
	else if (in_host && (host = strstr(url->endpoint, "://")) != NULL)
		r = asprintf(&endpoint, "%.*s://%s.%s", (int)(host - url->endpoint), url->endpoint, url->place,
			     host + 3);
	else
		r = asprintf(&endpoint, "%s", url->endpoint);
	if (r < 0)
		return lb_fail(-ENOMEM, "out of memory for a store");
	r = lb_cloud_endpoint(endpoint, &c->origin, &c->host, &path);
	if (r == 0 && asprintf(&c->base, "%s%s%s", path, in_host ? "" : "/", in_host ? "" : url->place) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a store");
	return r;
}

int lb_store_s3_open(struct lb_env *env, const char *place, bool create, struct lb_store **ret_store)
{
	_cleanup_(lb_store_url_clear) struct lb_store_url url = {0};
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	_cleanup_free_ char *text = NULL;
	struct lb_cloud *c;
	int r;

	r = lb_store_url_parse("s3", place, &url);
	if (r == 0)
		r = check_bucket(url.place);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (c == NULL || asprintf(&text, "s3:%s", place) < 0) {
		free(c);
		return lb_fail(-ENOMEM, "out of memory for a store");
	}
	store = &c->store;
	c->store.ops = &s3_ops;
	r = set_places(&url, c);
	if (r == 0)
		r = lb_cloud_open(env, &s3_dialect, text, &url, LB_PROVIDER_S3, c);
	if (r == 0)
		r = lb_cloud_container(c, create);
	if (r < 0)
		return r;
	*ret_store = lb_steal_ptr(store);
	return 0;
}
