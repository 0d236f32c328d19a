/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * How much a machine may send, by hours of the week. A policy has one limit for all times and up to
 * LB_BANDWIDTH_WINDOWS_MAX windows in which another holds:
 *
 *   {"days": ["mon", "tue"], "from": "08:00", "to": "18:00", "bytes_per_s": 2097152}
 *
 * in the policy's time zone. `to` is not part of the window; 24:00 is the day's end; a window whose `to` is not after
 * its `from` ends on the next day. Where windows overlap the smallest limit holds; 0 is none. Pure functions.
 */
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/zone.h"

#define LB_BANDWIDTH_WINDOWS_MAX 16
#define LB_BANDWIDTH_BYTES_PER_S_MIN 1024 /* less would hold up even the journal's frames */

struct lb_bandwidth_window {
	uint8_t days; /* bit 0: Monday */
	uint16_t from_min, to_min;
	uint64_t bytes_per_s;
};

struct lb_bandwidth {
	char time_zone[LB_ZONE_NAME_BYTES];
	uint32_t n_windows;
	struct lb_bandwidth_window windows[LB_BANDWIDTH_WINDOWS_MAX];
	struct lb_zone zone; /* of time_zone, as the configuration server knows it: agents need no zone files */
};

/* -EINVAL names the window (from 1) and what is wrong with it. */
int lb_bandwidth_windows_parse(const json_t *list, struct lb_bandwidth *ret_bandwidth);
int lb_bandwidth_windows_print(const struct lb_bandwidth *bandwidth, json_t **ret_list);
/* "mon-fri 08:00-18:00 2M; sat,sun 00:00-24:00 0" as that list; "none" is an empty one. */
int lb_bandwidth_text_parse(const char *text, json_t **ret_list);
/* One window as that text; `text` takes LB_BANDWIDTH_TEXT_BYTES. */
#define LB_BANDWIDTH_TEXT_BYTES 80
const char *lb_bandwidth_text(const struct lb_bandwidth_window *window, char text[LB_BANDWIDTH_TEXT_BYTES]);

/* The limit that holds at `time_ns`; `otherwise` outside of all windows. */
uint64_t lb_bandwidth_at(const struct lb_bandwidth *bandwidth, uint64_t otherwise, int64_t time_ns);
