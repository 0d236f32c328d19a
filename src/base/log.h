/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Log lines go to standard error, one line each, at most LB_LOG_LINE_BYTES_MAX bytes; under systemd with the
 * journal's <N> priority in front, elsewhere with the time and the level. Thread-safe. Never log a secret.
 */
enum lb_log_level { LB_LOG_ERROR = 3, LB_LOG_WARNING = 4, LB_LOG_NOTICE = 5, LB_LOG_INFO = 6, LB_LOG_DEBUG = 7 };

#define LB_LOG_LINE_BYTES_MAX 2048

/* `program` must live as long as the process. Lines above `level_max` are dropped. */
void lb_log_init(const char *program, enum lb_log_level level_max);
void lb_log(enum lb_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define lb_error(...) lb_log(LB_LOG_ERROR, __VA_ARGS__)
#define lb_warning(...) lb_log(LB_LOG_WARNING, __VA_ARGS__)
#define lb_notice(...) lb_log(LB_LOG_NOTICE, __VA_ARGS__)
#define lb_info(...) lb_log(LB_LOG_INFO, __VA_ARGS__)
#define lb_debug(...) lb_log(LB_LOG_DEBUG, __VA_ARGS__)

/*
 * Lines wait in memory instead of being written, until they are released: whoever reads our standard error may stand
 * still. At most LB_LOG_HELD_LINES_MAX; further ones are counted and that is told. Any thread.
 */
#define LB_LOG_HELD_LINES_MAX 64
void lb_log_hold(void);
void lb_log_release(void);
