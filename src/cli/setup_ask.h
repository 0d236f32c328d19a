/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The questions of `lifeboat setup`. Only at a terminal; Enter takes what stands in brackets, a wrong answer is asked
 * for again, and each answer is kept as soon as it is given, so that a setup that was broken off goes on where it was.
 */
#include "cli/cli.h"
#include "cli/setup_steps.h"

#define CLI_SETUP_PASSPHRASE "vault-passphrase" /* in the etc folder */

bool cli_setup_may_ask(const struct cli *c);
/* Asks for what `answers` lack. -ECANCELED at the end of the input. */
int cli_setup_ask(struct cli *c, const char *etc, bool has_server, json_t *answers);
int cli_setup_ask_yes(struct cli *c, const char *words, bool *ret_yes);
