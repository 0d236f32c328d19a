/* SPDX-License-Identifier: Apache-2.0 */
/* Azure Blob Storage, and what speaks like it. Objects are block blobs, each put whole by one request. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/text.h"
#include "store/cloud.h"

static int azure_list_query(struct lb_cloud_request *q, const char *prefix, bool folders, const char *marker)
{
	int r;

	r = lb_fields_add(&q->query, "restype", "container");
	if (r == 0)
		r = lb_fields_add(&q->query, "comp", "list");
	if (r == 0)
		r = lb_fields_add(&q->query, "maxresults", "%d", LB_LISTING_PAGE_ITEMS);
	if (r == 0 && prefix[0] != '\0')
		r = lb_fields_add(&q->query, "prefix", "%s", prefix);
	if (r == 0 && folders)
		r = lb_fields_add(&q->query, "delimiter", "/");
	if (r == 0 && marker != NULL)
		r = lb_fields_add(&q->query, "marker", "%s", marker);
	return r;
}

static int azure_create_request(struct lb_cloud *c, struct lb_cloud_request *q, struct lb_buf *body)
{
	(void)c;
	(void)body;
	return lb_fields_add(&q->query, "restype", "container");
}

static int azure_sign(struct lb_cloud *c, const struct lb_credentials *k, int64_t now_ns, struct lb_cloud_request *q,
		      struct lb_buf *raw_query)
{
	int r;

	if (k->account_key != NULL)
		return lb_azure_sign(q, c->account, k->account_key, now_ns);
	if (c->clear_text)
		return lb_fail(-EACCES, "a SAS would be readable on the way to %s; use an https:// endpoint",
			       c->origin);
	r = lb_azure_date(q, now_ns);
	return r < 0 ? r : lb_buf_append(raw_query, k->sas, strlen(k->sas));
}

/* "se=2026-01-31T08%3A15%3A02Z": when a SAS ends. */
static bool sas_end(const char *sas, int64_t *ret_end_ns)
{
	const char *se = strncmp(sas, "se=", 3) == 0 ? sas : strstr(sas, "&se=");
	char text[LB_TIME_TEXT_BYTES];
	size_t n = 0;

	if (se == NULL)
		return false;
	for (se = strchr(se, '=') + 1; *se != '\0' && *se != '&' && n + 1 < sizeof(text); se++) {
		if (strncasecmp(se, "%3a", 3) == 0) {
			text[n++] = ':';
			se += 2;
		} else {
			text[n++] = *se;
		}
	}
	text[n] = '\0';
	if (n == strlen("2026-01-31")) /* a day alone is its beginning */
		snprintf(text + n, sizeof(text) - n, "T00:00:00Z");
	if (lb_time_parse(text, ret_end_ns) == 0)
		return true;
	lb_err_clear();
	return false;
}

static void azure_advise(struct lb_cloud *c, const struct lb_credentials *k, int64_t now_ns,
			 const struct lb_answer *answer, char text[LB_CLOUD_MESSAGE_BYTES])
{
	int64_t end_ns, there_ns = answer->date_ns != 0 ? answer->date_ns : now_ns;
	char when[LB_TIME_TEXT_BYTES];

	(void)c;
	if (k->sas != NULL && sas_end(k->sas, &end_ns) && end_ns <= there_ns)
		snprintf(text, LB_CLOUD_MESSAGE_BYTES, "the SAS ended at %s: make a new one",
			 lb_time_format(end_ns, when));
	else if (k->sas != NULL)
		snprintf(text, LB_CLOUD_MESSAGE_BYTES,
			 "the SAS must be for this container or account, with the rights to read, create, write, "
			 "delete and "
			 "list (sp=rcwdl)");
	else
		snprintf(text, LB_CLOUD_MESSAGE_BYTES,
			 "compare the account key with the portal's: it may have been renewed");
}

static const struct lb_store_ops azure_ops = {
	.scheme = "azure",
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

static const struct lb_cloud_dialect azure_dialect = {
	.ops = &azure_ops,
	.listing = LB_LISTING_AZURE,
	.nonce_header = "x-ms-meta-lbput",
	.no_container = "ContainerNotFound",
	.delete_tells = true,
	.list_query = azure_list_query,
	.sign = azure_sign,
	.create_request = azure_create_request,
	.advise = azure_advise,
};

static bool is_name(const char *text, size_t min, size_t max, const char *chars)
{
	size_t n = strlen(text);

	return n >= min && n <= max && strspn(text, chars) == n && text[0] != '-' && text[n - 1] != '-';
}

static int split_place(const char *place, struct lb_cloud *c)
{
	const char *slash = strchr(place, '/');

	c->account = slash != NULL ? strndup(place, (size_t)(slash - place)) : strdup(place);
	c->container = strdup(slash != NULL ? slash + 1 : "");
	if (c->account == NULL || c->container == NULL)
		return lb_fail(-ENOMEM, "out of memory for a store");
	if (is_name(c->account, 3, 24, "abcdefghijklmnopqrstuvwxyz0123456789") &&
	    is_name(c->container, 3, 63, "abcdefghijklmnopqrstuvwxyz0123456789-") && strstr(c->container, "--") == NULL)
		return 0;
	return lb_fail(
		-EINVAL,
		"azure:%.100s: write azure:ACCOUNT/CONTAINER, the account in 3 to 24 lower-case letters and digits, "
		"the container in 3 to 63 of them and single '-'",
		place);
}

static int set_places(const struct lb_store_url *url, struct lb_cloud *c)
{
	_cleanup_free_ char *path = NULL, *endpoint = NULL;
	int r;

	r = split_place(url->place, c);
	if (r < 0)
		return r;
	if (asprintf(&endpoint, "https://%s.blob.core.windows.net", c->account) < 0)
		return lb_fail(-ENOMEM, "out of memory for a store");
	r = lb_cloud_endpoint(url->endpoint != NULL ? url->endpoint : endpoint, &c->origin, &c->host, &path);
	if (r == 0 && asprintf(&c->base, "%s/%s", path, c->container) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a store");
	return r;
}

int lb_store_azure_open(struct lb_env *env, const char *place, bool create, struct lb_store **ret_store)
{
	_cleanup_(lb_store_url_clear) struct lb_store_url url = {0};
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	_cleanup_free_ char *text = NULL;
	struct lb_cloud *c;
	int r;

	r = lb_store_url_parse("azure", place, &url);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (c == NULL || asprintf(&text, "azure:%s", place) < 0) {
		free(c);
		return lb_fail(-ENOMEM, "out of memory for a store");
	}
	store = &c->store;
	c->store.ops = &azure_ops;
	r = set_places(&url, c);
	if (r == 0)
		r = lb_cloud_open(env, &azure_dialect, text, &url, LB_PROVIDER_AZURE, c);
	if (r == 0)
		r = lb_cloud_container(c, create);
	if (r < 0)
		return r;
	*ret_store = lb_steal_ptr(store);
	return 0;
}
