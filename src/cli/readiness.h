/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How a double of a machine would start, as the server tells it, for people. */
#include "cli/cli.h"

/* The worst first. */
void cli_readiness_print(const struct cli *c, const json_t *machine);
bool cli_readiness_known(const json_t *machine);
