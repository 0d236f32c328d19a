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

int lb_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int lb_wrap(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The text of this thread's last failure, never NULL. */
const char *lb_err_text(void);

/* Forgets the text, so that a later lb_err_text() can't speak of an older failure. */
void lb_err_clear(void);
