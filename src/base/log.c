/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *log_program = "lifeboat";
static enum lb_log_level log_level_max = LB_LOG_INFO;
static int log_to_journal;

void lb_log_init(const char *program, enum lb_log_level level_max)
{
	log_program = program;
	log_level_max = level_max;
	log_to_journal = getenv("JOURNAL_STREAM") != NULL;
}

static const char *level_name(enum lb_log_level level)
{
	switch (level) {
	case LB_LOG_ERROR:
		return "error";
	case LB_LOG_WARNING:
		return "warning";
	case LB_LOG_NOTICE:
		return "notice";
	case LB_LOG_INFO:
		return "info";
	case LB_LOG_DEBUG:
		return "debug";
	}
	return "?";
}

static size_t line_head(char *line, size_t size_bytes, enum lb_log_level level)
{
	struct timespec ts;
	struct tm tm;
	char when[32];
	int n;

	if (log_to_journal) {
		n = snprintf(line, size_bytes, "<%d>", (int)level);
		return (size_t)n;
	}
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	n = snprintf(line, size_bytes, "%s.%03ldZ %s %s: ", when, ts.tv_nsec / 1000000, log_program, level_name(level));
	return (size_t)n;
}

void lb_log(enum lb_log_level level, const char *fmt, ...)
{
	char line[LB_LOG_LINE_BYTES_MAX];
	size_t used;
	va_list ap;

	if (level > log_level_max)
		return;
	used = line_head(line, sizeof(line) - 1, level);
	va_start(ap, fmt);
	vsnprintf(line + used, sizeof(line) - used - 1, fmt, ap);
	va_end(ap);
	for (char *c = line + used; *c != '\0'; c++)
		if (*c == '\n')
			*c = ' ';
	used = strlen(line);
	line[used++] = '\n';
	/* one write, so that lines of threads and of processes on one pipe don't mix */
	if (write(STDERR_FILENO, line, used) < 0)
		return;
}
