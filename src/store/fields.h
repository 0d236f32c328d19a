/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A few named texts: the headers of a request, the parameters of a query. Values are wiped when freed. */
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

#define LB_FIELDS_MAX 20
#define LB_FIELD_BYTES_MAX 8192

struct lb_fields {
	struct {
		const char *name; /* of a lifetime longer than ours; header names in lower case */
		char *value;
	} at[LB_FIELDS_MAX];
	size_t n;
};

void lb_fields_clear(struct lb_fields *f); /* for _cleanup_() */
int lb_fields_add(struct lb_fields *f, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* NULL when there is none of that name. */
const char *lb_fields_get(const struct lb_fields *f, const char *name);
/* By name, as every signature wants them. */
void lb_fields_sort(struct lb_fields *f);

/* Percent-encodes all but letters, digits and "-._~"; a slash too unless it is kept. */
int lb_percent_append(struct lb_buf *out, const char *text, bool keep_slash);
/* "a=b&c=d", encoded, in the order of the fields. */
int lb_fields_query(const struct lb_fields *f, struct lb_buf *out);
