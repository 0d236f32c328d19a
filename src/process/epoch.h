/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An agent begins an epoch: the one after the newest, continuing what is durable, on the hardware that the machine's
 * certificate was made for. Beginning it again is fine for the same capture instance. Any thread.
 */
#include "process/machine.h"

/*
 * `request`: {"epoch", "instance", "hardware", "reason", "prev_epoch", "prev_seq", "prev_digest", "disks",
 * "ring_cut"?}. -EACCES other hardware; -ESTALE not the next, or not continuing what is durable; -EINVAL other disks;
 * -EAGAIN later.
 */
int lb_epoch_begin(struct lb_machine *m, const json_t *request);
/* -EACCES, naming both, when `hardware` is not the machine's. Takes the machine's lock. */
int lb_epoch_check_hardware(struct lb_machine *m, const char *hardware);
