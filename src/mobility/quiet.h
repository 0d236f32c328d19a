/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * While filesystems are frozen the agent writes no file: its own may rest on one of them. Whoever freezes holds all
 * writers off; whoever writes asks first, and does without when it may not. Log lines wait in memory meanwhile. Any
 * thread.
 */
#include <stdbool.h>

/* Waits for writes that are under way. One at a time. */
void lb_quiet_begin(void);
void lb_quiet_end(void);

/* False: not now. True: lb_write_end() follows. */
bool lb_write_begin(void);
void lb_write_end(void);
