/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One machine of GET /v1/process/config. */
#include "process/machine.h"

int lb_assignment_parse(const json_t *object, struct lb_assignment *ret_assignment);
