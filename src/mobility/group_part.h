/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* This machine's part in a shared point: what lb_group_ops ask of a member, done for real. One point at a time. */
#include "mobility/group.h"
#include "mobility/mark.h"

struct lb_group_part;
int lb_group_part_new(struct lb_env *env, struct lb_mark *mark, const char *capture_socket, int wake_fd,
		      struct lb_group_part **ret_part);
void lb_group_part_free(struct lb_group_part *p);

int lb_group_part_prepare(struct lb_group_part *p, bool app);
int lb_group_part_settle(struct lb_group_part *p, uint32_t max_ms);
int lb_group_part_freeze(struct lb_group_part *p, uint32_t max_ms);
int lb_group_part_mark(struct lb_group_part *p);
int lb_group_part_thaw(struct lb_group_part *p, int64_t *ret_frozen_ns);
int lb_group_part_commit(struct lb_group_part *p, bool app);
int lb_group_part_result(struct lb_group_part *p, uint64_t *ret_epoch, uint64_t *ret_seq);
void lb_group_part_end(struct lb_group_part *p);
