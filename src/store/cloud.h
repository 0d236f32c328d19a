/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What Azure Blob and S3 have in common: a store over HTTP. Each provider is a dialect (azure.c, s3.c); operations
 * (cloud.c, cloud_list.c) and attempts (cloud_send.c) are written once.
 *
 * A put carries a nonce of its own in the object's metadata. When the answer says "taken", perhaps to our second
 * attempt after the answer to the first got lost, the nonce tells whether the object is ours.
 */
#include <stdatomic.h>

#include "store/credentials.h"
#include "store/http.h"
#include "store/listing.h"
#include "store/sign.h"
#include "store/store.h"
#include "store/url.h"

#define LB_CLOUD_ATTEMPTS_MAX 8
#define LB_CLOUD_BACKOFF_MS_MIN 200
#define LB_CLOUD_BACKOFF_MS_MAX 10000
#define LB_CLOUD_WAITED_MS_MAX 120000 /* over all attempts of one request, Retry-After included */
#define LB_CLOUD_SKEW_S 60            /* less between the clocks is not worth a second attempt */
#define LB_CLOUD_PATH_BYTES_MAX 512
#define LB_CLOUD_URL_BYTES_MAX 16384

struct lb_cloud;

struct lb_cloud_dialect {
	const struct lb_store_ops *ops;
	enum lb_listing_format listing;
	const char *nonce_header;
	const char *no_container; /* the error code */
	bool delete_tells;        /* that the object was not there */
	int (*list_query)(struct lb_cloud_request *q, const char *prefix, bool folders, const char *marker);
	/* Adds date and authorization; what a query gets beside its parameters goes to `raw_query`. */
	int (*sign)(struct lb_cloud *c, const struct lb_credentials *k, int64_t now_ns, struct lb_cloud_request *q,
		    struct lb_buf *raw_query);
	int (*create_request)(struct lb_cloud *c, struct lb_cloud_request *q, struct lb_buf *body);
	/* What is more to say of a refusal: that a SAS is over. May leave it empty. */
	void (*advise)(struct lb_cloud *c, const struct lb_credentials *k, int64_t now_ns,
		       const struct lb_answer *answer, char text[LB_CLOUD_MESSAGE_BYTES]);
};

struct lb_cloud {
	struct lb_store store; /* first, so that the interface's pointer is ours */
	const struct lb_cloud_dialect *dialect;
	struct lb_http_pool *http;
	struct lb_credentials_source *credentials;
	char *shown;  /* the address without its parameters, for errors */
	char *origin; /* "https://host:port" */
	char *host;   /* as the Host header has it */
	char *base;   /* path of the container: "/vault", or "" */
	char *account, *region, *container;
	bool clear_text;                    /* http:// beyond this machine */
	_Atomic bool checksums;             /* objects go with their MD5; also once the server asked for it */
	_Atomic int64_t clock_offset_ns;    /* the server's clock minus ours, once a signature failed for it */
	_Atomic int64_t not_before_mono_ns; /* the server asked for patience */
};

static inline struct lb_cloud *lb_cloud_of(struct lb_store *s)
{
	return (struct lb_cloud *)s;
}

void lb_cloud_request_clear(struct lb_cloud_request *q); /* for _cleanup_() */

/* One request that a provider understands. */
struct lb_cloud_call {
	const char *method;
	const char *name; /* of the object; NULL: the container itself */
	struct lb_fields query, headers;
	const void *body;
	size_t body_bytes;
	struct lb_buf *out;
	const char *doing; /* "write object", for errors */
};
void lb_cloud_call_clear(struct lb_cloud_call *call); /* for _cleanup_() */

/*
 * With as many attempts as it takes and may take. 0 for 2xx, 304, 404, 409, 412, 416: the caller decides what they
 * mean (lb_cloud_refused() says it in words). `ret_landed`: an attempt whose answer got lost may have been done.
 */
int lb_cloud_send(struct lb_cloud *c, const struct lb_cloud_call *call, struct lb_answer *ret_answer, bool *ret_landed);
/* Any other status than what the caller expects. */
int lb_cloud_refused(struct lb_cloud *c, const struct lb_cloud_call *call, const struct lb_answer *answer);

/* cloud.c. The ops of both providers; `scheme` is theirs. */
int lb_cloud_put_new(struct lb_store *s, const char *name, const void *data, size_t size_bytes);
int lb_cloud_replace(struct lb_store *s, const char *name, const char *etag, const void *data, size_t size_bytes);
int lb_cloud_get(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes, struct lb_buf *out);
int lb_cloud_stat(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag);
int lb_cloud_remove(struct lb_store *s, const char *name);
int lb_cloud_now(struct lb_store *s, int64_t *ret_now_ns);
void lb_cloud_free(struct lb_store *s);
/* cloud_list.c */
int lb_cloud_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg);
int lb_cloud_list_folders(struct lb_store *s, const char *prefix, lb_store_folder_fn fn, void *arg);
int lb_cloud_list_page(struct lb_cloud *c, const char *prefix, bool folders, const char *marker,
		       struct lb_listing *ret_page);

/* cloud_open.c. Takes what the address says; base, account and region are the provider's to set before. */
int lb_cloud_open(struct lb_env *env, const struct lb_cloud_dialect *dialect, const char *url_text,
		  const struct lb_store_url *url, enum lb_provider provider, struct lb_cloud *c);
/* Makes sure that the container is there. */
int lb_cloud_container(struct lb_cloud *c, bool create);
/* Splits "https://host:443/path" into origin, host header and path (allocated). */
int lb_cloud_endpoint(const char *endpoint, char **ret_origin, char **ret_host, char **ret_path);
