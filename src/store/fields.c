/* SPDX-License-Identifier: Apache-2.0 */
#include "store/fields.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/err.h"

void lb_fields_clear(struct lb_fields *f)
{
	for (size_t i = 0; i < f->n; i++) {
		lb_wipe(f->at[i].value, strlen(f->at[i].value));
		free(f->at[i].value);
	}
	f->n = 0;
}

int lb_fields_add(struct lb_fields *f, const char *name, const char *fmt, ...)
{
	char *value = NULL;
	va_list ap;
	int n;

	if (f->n == LB_FIELDS_MAX)
		return lb_fail(-E2BIG, "a request to the store has too many fields");
	va_start(ap, fmt);
	n = vasprintf(&value, fmt, ap);
	va_end(ap);
	if (n < 0)
		return lb_fail(-ENOMEM, "out of memory for a request to the store");
	if (n > LB_FIELD_BYTES_MAX || strpbrk(value, "\r\n") != NULL) {
		lb_wipe(value, (size_t)n);
		free(value);
		return lb_fail(-EINVAL, "the field %s of a request to the store is too long or has line ends in it",
			       name);
	}
	f->at[f->n].name = name;
	f->at[f->n++].value = value;
	return 0;
}

const char *lb_fields_get(const struct lb_fields *f, const char *name)
{
	for (size_t i = 0; i < f->n; i++)
		if (strcmp(f->at[i].name, name) == 0)
			return f->at[i].value;
	return NULL;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void lb_fields_sort(struct lb_fields *f)
{
	_Static_assert(offsetof(struct lb_fields, at[0].name) == 0, "the name comes first");
	qsort(f->at, f->n, sizeof(f->at[0]), by_name);
}

int lb_percent_append(struct lb_buf *out, const char *text, bool keep_slash)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	int r = 0;

	for (; r == 0 && *text != '\0'; text++) {
		if (strchr(plain, *text) != NULL || (keep_slash && *text == '/'))
			r = lb_buf_append(out, text, 1);
		else
			r = lb_buf_printf(out, "%%%02X", (unsigned char)*text);
	}
	return r;
}

int lb_fields_query(const struct lb_fields *f, struct lb_buf *out)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < f->n; i++) {
		if (i > 0)
			r = lb_buf_append(out, "&", 1);
		if (r == 0)
			r = lb_percent_append(out, f->at[i].name, false);
		if (r == 0)
			r = lb_buf_append(out, "=", 1);
		if (r == 0)
			r = lb_percent_append(out, f->at[i].value, false);
	}
	return r;
}
