/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A ladder of retention: how densely things of an age are kept. Each rung keeps one thing per `every_s` (0: every one)
 * of those that are at most `for_s` old; what is older than the last rung goes. As text: "all:2h 1h:1d 2h:7d 4h:15d".
 * Pure.
 */
#include <stddef.h>
#include <stdint.h>

#define LB_LADDER_RUNGS_MAX 8
#define LB_LADDER_TEXT_BYTES 128
#define LB_LADDER_FOR_S_MAX (365u * 24 * 3600)
#define LB_LADDER_DEFAULT "all:2h 1h:1d 2h:7d 4h:15d"

struct lb_ladder {
	uint32_t n;
	struct lb_ladder_rung {
		uint32_t every_s, for_s;
	} rungs[LB_LADDER_RUNGS_MAX]; /* both rise */
};

/* -EINVAL tells what is wrong with it. */
int lb_ladder_parse(const char *text, struct lb_ladder *ret_ladder);
const char *lb_ladder_format(const struct lb_ladder *ladder, char text[LB_LADDER_TEXT_BYTES]);
