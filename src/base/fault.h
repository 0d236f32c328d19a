/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Places at which a test has a process die. Only in builds with -Dfault_injection=true, and only where the environment
 * names a file (LIFEBOAT_FAULT_PLACES) that is there: a process that comes to a place which the file does not name yet
 * writes it there and kills itself. Started again and again, it dies once at each place of its way, and then comes
 * through. A place is a line of text, the same whenever the same is reached; a first line "only TEXT" leaves out all
 * that don't begin with TEXT.
 *
 * lb_fault_server_place() is the same for the process server and the target server, whose file is named by
 * LIFEBOAT_FAULT_SERVER_PLACES: they die on their own account while the configuration server goes on.
 * lb_fault_new() asks and notes without dying, for other ways to end: its file is named by another variable.
 */
#include <stdbool.h>

#ifdef LB_FAULT_INJECTION
void lb_fault_place(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void lb_fault_server_place(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool lb_fault_new(const char *variable, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#else
static inline __attribute__((format(printf, 1, 2))) void lb_fault_place(const char *fmt, ...)
{
	(void)fmt;
}
static inline __attribute__((format(printf, 1, 2))) void lb_fault_server_place(const char *fmt, ...)
{
	(void)fmt;
}
static inline __attribute__((format(printf, 2, 3))) bool lb_fault_new(const char *variable, const char *fmt, ...)
{
	(void)variable;
	(void)fmt;
	return false;
}
#endif
