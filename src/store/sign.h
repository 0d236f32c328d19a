/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Signatures of requests: Azure's SharedKey and AWS's Signature Version 4. Pure functions over a request and a time;
 * they add what the server wants to see to its headers.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/fields.h"

#define LB_AZURE_VERSION "2021-12-02"

struct lb_cloud_request {
	const char *method;
	const char *path; /* of the URL; its characters need no encoding */
	struct lb_fields query, headers;
	const void *body;
	size_t body_bytes;
	bool body_unsigned; /* S3: TLS guards it on its way, or its MD5 among the headers speaks for it */
};

/* `key_base64` as the portal shows it. */
int lb_azure_sign(struct lb_cloud_request *q, const char *account, const char *key_base64, int64_t now_ns);
/* What a request with a SAS has instead of a signature; the SAS itself goes into the query as it is. */
int lb_azure_date(struct lb_cloud_request *q, int64_t now_ns);

struct lb_s3_identity {
	const char *access_key, *secret_key;
	const char *session_token; /* or NULL */
	const char *region, *host;
};
int lb_s3_sign(struct lb_cloud_request *q, const struct lb_s3_identity *id, int64_t now_ns);

/* MD5 as base64 for Content-MD5: against damage on the way, not against people. `ret_text` has 25 bytes. */
int lb_content_md5(const void *data, size_t size_bytes, char ret_text[25]);
