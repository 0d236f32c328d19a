/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Requests to object stores by libcurl: a bounded pool of connections that all threads of a store share. One exchange
 * is one attempt: who calls decides about another (cloud_send.c). Nothing is followed, every answer has a ceiling, no
 * wait is without an end.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "store/fields.h"
#include "store/store.h"

#define LB_HTTP_ERROR_BYTES_MAX (64u << 10)
#define LB_HTTP_CONNECT_S 10
#define LB_HTTP_BYTES_PER_S_MIN 1024 /* slower than this for the timeout is no answer */
#define LB_HTTP_NONCE_BYTES 33

struct lb_http_pool_options {
	unsigned int connections;
	uint32_t timeout_s;          /* of silence */
	const char *proxy, *ca_path; /* or NULL */
};
struct lb_http_pool;
int lb_http_pool_new(const struct lb_http_pool_options *options, struct lb_http_pool **ret_pool);
/* Nothing may run in it any more. */
void lb_http_pool_free(struct lb_http_pool *p);
LB_DEFINE_CLEANUP(struct lb_http_pool *, lb_http_pool_free);

struct lb_exchange {
	const char *method, *url;
	const struct lb_fields *headers;
	const void *body;
	size_t body_bytes;
	struct lb_buf *out; /* takes the body of an answer of 2xx; NULL: there should be none worth having */
	const char *proxy_user, *proxy_password; /* or NULL */
};

struct lb_answer {
	unsigned int status;
	int64_t date_ns;        /* the server's clock; 0: it gave none */
	uint32_t retry_after_s; /* 0: none */
	bool has_length, has_range;
	uint64_t length_bytes, range_first, range_total_bytes;
	char etag[LB_STORE_ETAG_BYTES];
	char nonce[LB_HTTP_NONCE_BYTES]; /* of x-ms-meta-lbput or x-amz-meta-lbput */
	char code[64], request_id[64], region[40];
	struct lb_buf error; /* the body of an answer that is not 2xx */
};
void lb_answer_clear(struct lb_answer *a); /* for _cleanup_() */

/*
 * 0 when an answer came whole, whatever its status. -EAGAIN what another attempt may cure; `ret_landed` then says
 * whether the server may have done what was asked. -EACCES (TLS), -EMSGSIZE, -EINVAL, -ENOMEM what it won't.
 */
int lb_http_exchange(struct lb_http_pool *p, const struct lb_exchange *x, struct lb_answer *ret_answer,
		     bool *ret_landed);
