/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * HTTPS requests by libcurl: TLS 1.3, the server's certificate checked against our CA, our own shown. A client keeps
 * its connections; one thread uses it at a time. `ops` lets a simulated network stand in. Connections are direct:
 * proxies of the environment are for object stores, not for the site.
 */
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/cleanup.h"

struct lb_http_client;

struct lb_http_request {
	const char *method;
	const char *url;
	const void *body; /* may be NULL */
	size_t body_bytes;
	const char *content_type;   /* NULL: application/json */
	const char *const *headers; /* "Name: value", NULL-terminated, or NULL */
	size_t response_bytes_max;
	uint32_t timeout_s;  /* whole request; 0: 60 */
	uint32_t timeout_ms; /* instead of it, unless 0 */
};

struct lb_http_response {
	unsigned int status;
	uint32_t retry_after_s; /* 0: none */
	struct lb_buf body;
};
void lb_http_response_free(struct lb_http_response *r); /* for _cleanup_() */
void lb_http_response_wipe(struct lb_http_response *r); /* the same, when secrets are in it */

struct lb_http_client_ops {
	int (*send)(struct lb_http_client *c, const struct lb_http_request *request,
		    struct lb_http_response *ret_response);
	void (*free)(struct lb_http_client *c);
};
struct lb_http_client {
	const struct lb_http_client_ops *ops;
};

struct lb_http_client_options {
	const char *identity_folder;    /* key.pem, cert.pem, ca.pem; key and cert may be missing (enrolment) */
	const char *ca_fingerprint_hex; /* instead of ca.pem at first contact: the CA whose SHA-256 this is; NULL */
	uint32_t connect_timeout_s;     /* 0: 10 */
	const char *peer_name; /* another machine is called: its certificate's name; NULL: a server, by its host */
};
int lb_http_client_new(const struct lb_http_client_options *options, struct lb_http_client **ret_client);
void lb_http_client_free(struct lb_http_client *c);
LB_DEFINE_CLEANUP(struct lb_http_client *, lb_http_client_free);

/* 0 when an answer came, whatever its status. -EHOSTUNREACH, -ECONNREFUSED, -ETIMEDOUT, -EACCES (TLS refused) with a
 * text. */
int lb_http_send(struct lb_http_client *c, const struct lb_http_request *request,
		 struct lb_http_response *ret_response);

/* JSON out and in; statuses of 400 and more become errors with the server's message (404 -ENOENT, 403 -EACCES, 409
 * -EEXIST, 429/503 -EAGAIN, 507 -ENOSPC, 400 -EINVAL, else -EREMOTEIO). `ret_reply` may be NULL. */
int lb_http_json(struct lb_http_client *c, const char *method, const char *url, const json_t *body, json_t **ret_reply);
