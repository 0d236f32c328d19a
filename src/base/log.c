/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

static const char *log_program = "lifeboat";
static enum lb_log_level log_level_max = LB_LOG_INFO;
static int log_to_journal;

void lb_log_init(const char *program, enum lb_log_level level_max)
{
	log_program = program;
	log_level_max = level_max;
	log_to_journal = getenv("JOURNAL_STREAM") != NULL;
}

static pthread_mutex_t held_lock = PTHREAD_MUTEX_INITIALIZER;
static bool holding;
static char *held[LB_LOG_HELD_LINES_MAX];
static unsigned int n_held, n_lost;

static void keep(const char *line, size_t length)
{
	char *copy = n_held < LB_LOG_HELD_LINES_MAX ? strndup(line, length) : NULL;

	if (copy == NULL)
		n_lost++;
	else
		held[n_held++] = copy;
}

/* One write, so that lines of threads and of processes on one pipe don't mix. */
static void put(const char *line, size_t length)
{
	if (write(STDERR_FILENO, line, length) < 0)
		return;
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
	pthread_mutex_lock(&held_lock);
	if (holding)
		keep(line, used);
	else
		put(line, used);
	pthread_mutex_unlock(&held_lock);
}

void lb_log_hold(void)
{
	LB_LOCK_SCOPE(&held_lock);

	holding = true;
}

void lb_log_release(void)
{
	unsigned int lost;
	LB_LOCK_SCOPE(&held_lock);

	holding = false;
	for (unsigned int i = 0; i < n_held; i++) {
		put(held[i], strlen(held[i]));
		free(held[i]);
	}
	lost = n_lost;
	n_held = n_lost = 0;
	if (lost > 0)
		dprintf(STDERR_FILENO, "%s: %u lines of the log were lost while it was held\n", log_program, lost);
}
