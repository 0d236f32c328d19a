/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/err.h"

#define ROOM_FIRST_BYTES 256

void lb_buf_free(struct lb_buf *b)
{
	free(b->data);
	b->data = NULL;
	b->size_bytes = b->room_bytes = 0;
}

int lb_buf_reserve(struct lb_buf *b, size_t size_bytes)
{
	size_t need, room;
	uint8_t *data;

	assert(b->size_bytes_max > 0);
	if (size_bytes > b->size_bytes_max || b->size_bytes > b->size_bytes_max - size_bytes)
		return lb_fail(-EMSGSIZE, "a buffer of at most %zu bytes would need %zu", b->size_bytes_max,
			       b->size_bytes + size_bytes);
	need = b->size_bytes + size_bytes + 1;
	if (need <= b->room_bytes)
		return 0;
	room = b->room_bytes > 0 ? b->room_bytes : ROOM_FIRST_BYTES;
	while (room < need)
		room *= 2;
	if (room > b->size_bytes_max + 1)
		room = b->size_bytes_max + 1;
	data = realloc(b->data, room);
	if (data == NULL)
		return lb_fail(-ENOMEM, "out of memory for a buffer of %zu bytes", room);
	b->data = data;
	b->room_bytes = room;
	b->data[b->size_bytes] = '\0';
	return 0;
}

int lb_buf_append(struct lb_buf *b, const void *data, size_t size_bytes)
{
	int r = lb_buf_reserve(b, size_bytes);

	if (r < 0)
		return r;
	if (size_bytes > 0)
		memcpy(b->data + b->size_bytes, data, size_bytes);
	b->size_bytes += size_bytes;
	b->data[b->size_bytes] = '\0';
	return 0;
}

int lb_buf_printf(struct lb_buf *b, const char *fmt, ...)
{
	va_list ap;
	int n, r;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return lb_fail(-EINVAL, "text can't be formatted");
	r = lb_buf_reserve(b, (size_t)n);
	if (r < 0)
		return r;
	va_start(ap, fmt);
	vsnprintf((char *)b->data + b->size_bytes, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->size_bytes += (size_t)n;
	return 0;
}

uint8_t *lb_buf_steal(struct lb_buf *b)
{
	uint8_t *data = b->data;

	b->data = NULL;
	b->size_bytes = b->room_bytes = 0;
	return data;
}
