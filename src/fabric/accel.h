/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stdbool.h>

#include "base/env.h"

#define LB_KVM_PROBE_MS 2000

/*
 * Whether KVM runs code here, found out by running some (in a child that is killed after LB_KVM_PROBE_MS): a /dev/kvm
 * that is there may still be one on which guests hang. `ret_why` (static text) tells what was found. QEMU's own
 * translator is used otherwise. The answer is kept for the life of the process. Thread-safe.
 */
bool lb_kvm_works(struct lb_env *env, const char **ret_why);
