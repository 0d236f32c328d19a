/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * `lifeboat-config init`: configuration file, certificate authority, this server's identity, and the first
 * administrator's. Each step is left alone where it was done, so that it can be run again after an interruption.
 */
#include "base/env.h"

int lb_init_command(struct lb_env *env, int argc, char **argv);
