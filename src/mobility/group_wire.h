/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Messages of a replication group, and its roster, as JSON. Pure functions. */
#include <jansson.h>

#include "mobility/group.h"

#define LB_GROUP_MESSAGE_BYTES_MAX 4096

int lb_group_message_print(const struct lb_group_message *m, json_t **ret_object);
int lb_group_message_parse(const json_t *object, struct lb_group_message *ret_message);
int lb_group_reply_print(const struct lb_group_reply *reply, json_t **ret_object);
int lb_group_reply_parse(const json_t *object, struct lb_group_reply *ret_reply);
/* The "group" of the configuration server's answer; NULL or null: none, and the roster is all zeroes. */
int lb_group_roster_parse(const json_t *object, struct lb_group_roster *ret_roster);
int lb_group_outcome_print(const struct lb_group_outcome *o, uint64_t generation, json_t **ret_object);
