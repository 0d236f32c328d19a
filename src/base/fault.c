/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fault.h"

#ifdef LB_FAULT_INJECTION
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"

#define PLACE_BYTES 256
#define PLACES_BYTES_MAX 65536

/*
 * Whether this place is not in the file named by `variable`; then it is now. One at a time, over all processes. One
 * that is to die of it does so before another thread of it can come to a place: each place noted is a death.
 */
static __attribute__((format(printf, 3, 0))) bool is_new(const char *variable, bool die, const char *fmt, va_list ap)
{
	const char *path = getenv(variable);
	_cleanup_close_ int fd = path != NULL ? open(path, O_RDWR | O_APPEND | O_CLOEXEC) : -1;
	_cleanup_free_ char *text = calloc(1, PLACES_BYTES_MAX + 1);
	char place[PLACE_BYTES], line[PLACE_BYTES + 2], *end;
	ssize_t n;

	if (fd < 0 || text == NULL || flock(fd, LOCK_EX) < 0)
		return false;
	vsnprintf(place, sizeof(place), fmt, ap);
	text[0] = '\n';
	n = pread(fd, text + 1, PLACES_BYTES_MAX - 1, 0);
	snprintf(line, sizeof(line), "\n%s\n", place);
	if (n < 0 || n == PLACES_BYTES_MAX - 1 || strstr(text, line) != NULL)
		return false;
	end = strchr(text + 1, '\n');
	if (strncmp(text + 1, "only ", 5) == 0 && end != NULL &&
	    strncmp(place, text + 6, (size_t)(end - text) - 6) != 0)
		return false;
	if (write(fd, line + 1, strlen(line + 1)) != (ssize_t)strlen(line + 1))
		return false;
	if (die)
		raise(SIGKILL);
	return true;
}

void lb_fault_place(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	is_new("LIFEBOAT_FAULT_PLACES", true, fmt, ap);
	va_end(ap);
}

void lb_fault_server_place(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	is_new("LIFEBOAT_FAULT_SERVER_PLACES", true, fmt, ap);
	va_end(ap);
}

bool lb_fault_new(const char *variable, const char *fmt, ...)
{
	va_list ap;
	bool is;

	va_start(ap, fmt);
	is = is_new(variable, false, fmt, ap);
	va_end(ap);
	return is;
}
#endif
