/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A growing byte buffer that can't be made without its ceiling. Not thread-safe.
 * `data` is NUL-terminated beyond `size_bytes` whenever it isn't NULL, so that text can be used in place.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct lb_buf {
	uint8_t *data;
	size_t size_bytes;
	size_t room_bytes;
	size_t size_bytes_max;
};

#define LB_BUF(max) ((struct lb_buf){.size_bytes_max = (max)})

void lb_buf_free(struct lb_buf *b);
/* -EMSGSIZE past the ceiling, -ENOMEM; the buffer is then as it was. */
int lb_buf_append(struct lb_buf *b, const void *data, size_t size_bytes);
int lb_buf_printf(struct lb_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Makes room for `size_bytes` more, which the caller then fills at data + size_bytes. */
int lb_buf_reserve(struct lb_buf *b, size_t size_bytes);
/* Hands the bytes out (to be freed with free()) and empties the buffer. */
uint8_t *lb_buf_steal(struct lb_buf *b);

#define _cleanup_buf_ _cleanup_(lb_buf_free)
