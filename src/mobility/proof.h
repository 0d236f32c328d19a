/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a double says of its disk: the word (vault/proof.h) that the configuration server last gave to its source, which
 * lies in the state folder with the rest of its configuration, goes out on the serial ports, where the fabric reads it.
 */
#include "mobility/agent_config.h"

/* -ENOENT on a machine that is no double, or that was never given a word; -EACCES when no port can be written to. */
int lb_proof_tell(struct lb_env *env, const struct lb_agent_settings *settings);
