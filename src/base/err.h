/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Errors are negative errno values; what they mean for a person is kept beside them, per thread.
 *
 *     return lb_fail(-ENOENT, "vault %s has no machine %s; see `lifeboat machine list`", ...);
 *
 * lb_fail() replaces this thread's text and returns its code. lb_wrap() puts where-it-happened in front of
 * the text that is there. The text is valid until the same thread fails again. A function that returns an
 * error does not log it.
 */
#include <stdarg.h>

#define LB_ERR_TEXT_BYTES_MAX 1024

void lb_fail_text(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void lb_wrap_text(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Macros, so that the compiler sees the negative result and knows what stays unset behind it. */
#define lb_fail(code, ...) LB_ERR_NEGATIVE(lb_fail_text, code, __VA_ARGS__)
#define lb_wrap(code, ...) LB_ERR_NEGATIVE(lb_wrap_text, code, __VA_ARGS__)
#define LB_ERR_NEGATIVE(fn, code, ...)                                                                                 \
	({                                                                                                             \
		int lb_err_code = (code);                                                                              \
		fn(lb_err_code, __VA_ARGS__);                                                                          \
		if (lb_err_code >= 0)                                                                                  \
			__builtin_unreachable();                                                                       \
		lb_err_code;                                                                                           \
	})

/* The text of this thread's last failure, never NULL. */
const char *lb_err_text(void);

/* Forgets the text, so that a later lb_err_text() can't speak of an older failure. */
void lb_err_clear(void);
