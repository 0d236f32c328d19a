/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* VMs that are not ours, by their libvirt name: an original that is to run again, or no more. */
#include <stddef.h>

#define LB_DOMAIN_URI_DEFAULT "qemu:///system"

/* Starts the domain unless it runs. -ENOENT: there is none of this name; -EREMOTEIO; -EOPNOTSUPP: no libvirt. */
int lb_domain_start(const char *uri, const char *name);
/* Turns it off at once, unless it is off. The same errors. */
int lb_domain_halt(const char *uri, const char *name);
/*
 * Whether it could be started on these disks: it is there, is off, and each of the `n` paths is a disk of it. One whose
 * disks are not all this host's files or devices is believed. -EEXIST: it runs; -EINVAL: other disks; and as above.
 */
int lb_domain_look(const char *uri, const char *name, const char *const *paths, size_t n);
