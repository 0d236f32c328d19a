/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * HTTPS for our daemons: TLS 1.3, the peer's certificate checked against our CA by the handler (libmicrohttpd does not
 * demand one), routes with roles, bodies read whole and bounded before a handler sees them. A thread per connection:
 * handlers run concurrently and may block.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/env.h"
#include "wire/pki.h"

#define LB_HTTP_CONNECTIONS_MAX_DEFAULT 1024
#define LB_HTTP_PARAMS_MAX 4
#define LB_HTTP_PARAM_BYTES 129
#define LB_HTTP_JSON_BYTES_MAX (1u << 20)
#define LB_HTTP_IDLE_TIMEOUT_S_DEFAULT 120
#define LB_HTTP_BODY_TIMEOUT_S 300 /* a body that takes longer is dropped with its connection */

struct lb_http_peer {
	enum lb_role role;           /* LB_ROLE_NONE: no certificate */
	char name[LB_SUBJECT_BYTES]; /* CN */
	struct lb_digest fingerprint;
	bool expired; /* the certificate is ours but past its time; only routes with `expired_ok` see such a peer */
	char address[64];
};

struct lb_http_call {
	struct lb_http_peer peer;
	const char *method;
	const char *path;
	char params[LB_HTTP_PARAMS_MAX][LB_HTTP_PARAM_BYTES]; /* what stood for {} in the route, in order */
	const void *body;
	size_t body_bytes;
	void *connection; /* the server's own */
};
/* A query argument or header of the call; NULL when absent. Valid during the call. */
const char *lb_http_query(const struct lb_http_call *call, const char *name);
const char *lb_http_header(const struct lb_http_call *call, const char *name);

struct lb_http_reply {
	unsigned int status; /* 0: 200 */
	json_t *json;        /* taken over; sent as application/json */
	struct lb_buf bytes; /* or these, as `content_type`; freed by the server */
	const char *content_type;
	uint32_t retry_after_s; /* with 429 and 503 */
};

/*
 * Returns 0 with `reply` filled, or a negative errno: then the server answers with lb_http_status_of(error) and
 * {"error": {"code": "...", "message": lb_err_text()}} and logs it.
 */
typedef int (*lb_http_handler)(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply);

#define LB_ROLE_BIT(role) (1u << (role))
struct lb_http_route {
	const char *method;
	const char *pattern; /* "/v1/machine/{}/enable" */
	uint32_t roles;      /* LB_ROLE_BITs that may call it; bit of LB_ROLE_NONE: without a certificate too */
	size_t body_bytes_max;
	lb_http_handler handler;
	bool expired_ok; /* for renewal: a certificate of our CA that has expired is let in, marked as such */
};

struct lb_http_server_options {
	const char *address;         /* "0.0.0.0", "::", "127.0.0.1" */
	uint16_t port;               /* 0: any free one */
	const char *identity_folder; /* key.pem, cert.pem, ca.pem */
	const struct lb_http_route *routes;
	size_t n_routes;
	void *arg; /* for handlers */
	uint32_t connections_max;
	uint32_t connections_max_per_address; /* 0: connections_max */
	uint32_t idle_timeout_s;              /* 0: LB_HTTP_IDLE_TIMEOUT_S_DEFAULT */
	size_t body_bytes_total_max; /* all bodies in memory at once; beyond it 503 with Retry-After; 0: 64 MiB */
	/* Asked for every call with a certificate: false refuses it (revoked) with 403. May be NULL. */
	bool (*peer_allowed)(void *arg, const struct lb_http_peer *peer);
};

struct lb_http_server;
int lb_http_server_start(const struct lb_http_server_options *options, struct lb_http_server **ret_server);
uint16_t lb_http_server_port(const struct lb_http_server *s);
/*
 * Takes the identity folder's files anew (after a renewal); the port stays open, connections are made afresh by the
 * clients. Never from a handler. Files that don't fit together are refused and the server goes on with what it had.
 */
int lb_http_server_reload(struct lb_http_server *s);
/* Waits for handlers that run, then frees. */
void lb_http_server_stop(struct lb_http_server *s);

unsigned int lb_http_status_of(int error); /* -ENOENT 404, -EEXIST 409, -EACCES 403, -EINVAL/-EBADMSG 400, -EAGAIN 429,
					      -ENOSPC 507, -ESTALE 409, else 500 */
