/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a libvirt domain's description says about its disks. Pure: text in, paths out. */

/* Each disk's file or device; NULL: a volume of a pool, or of the network. A non-zero return is passed on. */
typedef int (*lb_domain_disk_fn)(void *arg, const char *path);

/* CD-ROMs and floppies are none. -EBADMSG when `xml` is no domain, -E2BIG. */
int lb_domain_disks(const char *xml, lb_domain_disk_fn fn, void *arg);
