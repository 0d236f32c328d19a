/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static __thread char err_text[LB_ERR_TEXT_BYTES_MAX];

void lb_fail_text(int code, const char *fmt, ...)
{
	char text[LB_ERR_TEXT_BYTES_MAX];
	va_list ap;

	assert(code < 0);
	/* by way of a copy: an argument may be the old text itself */
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(err_text, text, sizeof(text));
}

void lb_wrap_text(int code, const char *fmt, ...)
{
	char text[LB_ERR_TEXT_BYTES_MAX];
	va_list ap;
	size_t used;

	assert(code < 0);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	used = strlen(text);
	snprintf(text + used, sizeof(text) - used, ": %.*s", (int)(sizeof(text) - used), lb_err_text());
	memcpy(err_text, text, sizeof(text));
}

const char *lb_err_text(void)
{
	return err_text[0] != '\0' ? err_text : "no further detail";
}

void lb_err_clear(void)
{
	err_text[0] = '\0';
}
