/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * `lifeboat-mobility mend`: what a double of this machine lacks, put right here, as root. It changes how the machine
 * itself starts in no way but that its initramfs has more drivers, and that a virtual machine's card takes the name
 * under which the network is configured. Doing it again changes nothing.
 */
#include "base/env.h"

/*
 * Has virtio, SATA, Hyper-V and VMware drivers put into every initramfs from now on. `ret_command`: what makes them
 * anew (static). -EOPNOTSUPP where neither initramfs-tools nor dracut is.
 */
int lb_mend_initramfs(struct lb_env *env, const char *root, const char *const **ret_command);
/*
 * A .link file by which the double's card gets the name that the network configuration speaks of: for every virtual
 * machine where this is a physical one, else for the card with this card's MAC address. -ENOENT: nothing is configured
 * by a name that would change. `ret_path` takes `path_bytes`.
 */
int lb_mend_network(struct lb_env *env, const char *root, char *ret_path, size_t path_bytes);
/* Runs a command to its end, its output on ours. */
int lb_mend_run(const char *const *command);
