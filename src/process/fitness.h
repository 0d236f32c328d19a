/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Whether the agent can live on a host: facts that a script prints there, and what follows from them. Pure. */
#include <stdbool.h>

#include <jansson.h>

extern const char lb_fitness_script[];

/*
 * {"facts": {...}, "findings": [{"text", "cure", "blocks"}], "fit"} from the script's output. `architecture` is the
 * package's, `now_s` our clock.
 */
int lb_fitness_judge(const char *output, const char *architecture, int64_t now_s, json_t **ret_fitness);
