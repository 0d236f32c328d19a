/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static __thread char err_text[LB_ERR_TEXT_BYTES_MAX];

int lb_fail(int code, const char *fmt, ...)
{
	char text[LB_ERR_TEXT_BYTES_MAX];
	va_list ap;

	assert(code < 0);
	/* by way of a copy: an argument may be the old text itself */
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(err_text, text, sizeof(text));
	return code;
}

int lb_wrap(int code, const char *fmt, ...)
{
	char text[LB_ERR_TEXT_BYTES_MAX];
	va_list ap;
	size_t used;

	assert(code < 0);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	used = strlen(text);
	snprintf(text + used, sizeof(text) - used, ": %s", lb_err_text());
	memcpy(err_text, text, sizeof(text));
	return code;
}

const char *lb_err_text(void)
{
	return err_text[0] != '\0' ? err_text : "no further detail";
}

void lb_err_clear(void)
{
	err_text[0] = '\0';
}
