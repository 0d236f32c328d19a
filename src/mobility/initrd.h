/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The names of the files in an initramfs: cpio archives ("newc") one after another, the last ones compressed. Our own
 * reader, bounded; what is compressed goes through the machine's own zstd, xz, gzip, lz4 or bzip2, as a child with
 * limits. Any thread; blocks until the child has ended.
 */
#include <stddef.h>
#include <stdint.h>

#define LB_INITRD_NAME_BYTES_MAX 4096
#define LB_INITRD_FILES_MAX 200000
#define LB_INITRD_BYTES_MAX (4ull << 30) /* unpacked */
#define LB_INITRD_CHILD_CPU_S 120
#define LB_INITRD_CHILD_MEMORY_BYTES (1ull << 30) /* of address space */

/* Called with each member's name; the rest of the file goes on whatever it does. */
typedef void (*lb_initrd_name_fn)(void *arg, const char *name);

/* Reads `fd` from its beginning. -EBADMSG: it is no initramfs; -ENOENT: the program that unpacks it is missing. */
int lb_initrd_list(int fd, lb_initrd_name_fn fn, void *arg);
