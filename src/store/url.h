/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The address of a store in the cloud: "SCHEME:PLACE?name=value&...". It is printed and logged, so secrets are refused
 * in it, and texts of errors speak of the part before the '?'. A pure function.
 */
#include <stdbool.h>
#include <stdint.h>

#define LB_STORE_URL_BYTES_MAX 2048
#define LB_STORE_CONNECTIONS_DEFAULT 16
#define LB_STORE_CONNECTIONS_MAX 64
#define LB_STORE_TIMEOUT_S_DEFAULT 30
#define LB_STORE_TIMEOUT_S_MAX 600

struct lb_store_url {
	char *place;       /* "ACCOUNT/CONTAINER", "BUCKET" */
	char *endpoint;    /* "https://host[:port][/path]" without a slash at the end, or NULL */
	char *region;      /* or NULL */
	char *proxy;       /* "http://host:port", or NULL */
	char *ca;          /* absolute path of a PEM file, or NULL */
	char *credentials; /* absolute path, or NULL */
	bool host_style;   /* BUCKET.host instead of host/BUCKET, for S3 */
	bool checksum_md5; /* every object goes with its MD5 */
	uint64_t connections, timeout_s;
};

/* `text` begins behind the scheme's colon. */
int lb_store_url_parse(const char *scheme, const char *text, struct lb_store_url *ret_url);
void lb_store_url_clear(struct lb_store_url *u); /* for _cleanup_() */
