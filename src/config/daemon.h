/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The running server: everything started in its order, watched, and ended in the reverse order. */
#include "config/settings.h"

/* Runs until SIGTERM or SIGINT. Settings are taken over. */
int lb_daemon_run(struct lb_env *env, struct lb_settings *settings);
