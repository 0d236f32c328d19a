/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Unpacks a tar archive (ustar, GNU's long names, pax) as it comes, in pieces of any size, by the rules of restore.h:
 * it may be hostile. Names are taken below one folder, links on the way are not followed; devices, sockets and pipes
 * are left out and counted. One thread.
 */
#include "files/restore.h"

#define LB_UNTAR_TEXT_BYTES_MAX (64u << 10) /* a long name, or the records of a pax header */
#define LB_UNTAR_FOLDERS_MAX (1u << 20)

struct lb_untar;

/* The archive's own folder (".") becomes `name` in `folder_fd`, which stays the caller's as `name` and `r` do. */
int lb_untar_new(int folder_fd, const char *name, struct lb_restore *r, struct lb_untar **ret_untar);
void lb_untar_free(struct lb_untar *t);
LB_DEFINE_CLEANUP(struct lb_untar *, lb_untar_free);

int lb_untar_feed(struct lb_untar *t, const void *data, size_t size_bytes);
/* Gives folders their permissions and times. -EBADMSG when the archive is cut short. */
int lb_untar_end(struct lb_untar *t);
