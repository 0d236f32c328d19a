/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the files of the fabric libvirt share. */
#include <libvirt/libvirt.h>

#include "fabric/fabric.h"

struct lb_libvirt {
	struct lb_fabric fabric;
	virConnectPtr connection;
};

/* ---- libvirt_connect.c ---- */
/*
 * Anew when libvirtd has gone meanwhile. -EOPNOTSUPP: nobody answers; -ETIMEDOUT: somebody accepts connections and
 * answers nothing for 30 s (LIFEBOAT_LIBVIRT_PATIENCE_S). A call on a connection fails within that time, too.
 */
int lb_libvirt_connect(struct lb_libvirt *l);
const char *lb_libvirt_reason(void); /* of what failed last */

/* ---- libvirt_network.c ---- */
/* lb_fabric_ops.network and .address */
int lb_libvirt_network(struct lb_fabric *f, const char *network);
int lb_libvirt_address(struct lb_fabric *f, const struct lb_vm_spec *vm);
/*
 * Before a VM starts: its isolated network is there and waits for it, or its network gives its card its address. An
 * entry for that which was there already is left to whoever made it.
 */
int lb_libvirt_join(struct lb_libvirt *l, const struct lb_vm_spec *vm);
/* Takes that entry away. */
int lb_libvirt_leave(struct lb_libvirt *l, const struct lb_vm_spec *vm);
