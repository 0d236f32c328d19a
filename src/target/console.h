/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a target server does, for who stands before its screen: what each order says when that changes, and how far it
 * is, at most every LB_TARGET_CONSOLE_S. As log lines. One thread.
 */
#include "target/service.h"

#define LB_TARGET_CONSOLE_S 10

struct lb_target_console {
	struct lb_target_console_line {
		char order[LB_UUID_TEXT_BYTES], said[256];
		unsigned int percent;
		int64_t said_ns;
	} lines[LB_TARGET_TASKS_MAX];
};
void lb_target_console_tell(struct lb_target_console *console, struct lb_target_service *service);
