/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "fabric/backends.h"

#define LB_LIBVIRT_NAMESPACE "urn:lifeboat:vm"
#define LB_DOMAIN_XML_BYTES_MAX (256u << 10)
#define LB_TARGET_BYTES 8
#define LB_LIBVIRT_SEGMENT_SOCKET "segment.sock" /* in the VM's folder: the way to its isolated network */

/* The name under which libvirt knows disk `n`: "vda", "sdb". */
void lb_libvirt_target(const struct lb_vm_spec *vm, uint32_t n, char target[LB_TARGET_BYTES]);
/* `apparmor`: libvirt confines its VMs by it. The overlays must be there. */
int lb_libvirt_xml(struct lb_env *env, const struct lb_vm_spec *vm, bool apparmor, struct lb_buf *out);
