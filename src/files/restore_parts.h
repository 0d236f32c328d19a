/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How files, links and folders come to be in a folder, whatever they are read from: restore.c and untar.c. */
#include "files/restore.h"

#define LB_RESTORE_DEPTH_MAX 256
#define LB_RESTORE_FILES_MAX (16u << 20)

int lb_restore_failed(const char *act, const char *name); /* errno, in words */
/* -EOVERFLOW past the bounds. */
int lb_restore_check(const struct lb_restore *r, const char *name, unsigned int depth);

/* A file without a name yet. -EEXIST when the name is taken. */
int lb_restore_file_open(int folder_fd, const char *name, const struct lb_restore *r, int *ret_fd);
/* Holes stay holes. */
int lb_restore_file_write(int fd, const void *data, size_t size_bytes, uint64_t offset_bytes);
/* Size, owner, permissions, time; durable; then its name. Counts it. `fd` stays open. */
int lb_restore_file_finish(int fd, const struct lb_ext_file *file, int folder_fd, const char *name,
			   struct lb_restore *r);

int lb_restore_symlink(const char *target, const struct lb_ext_file *file, int folder_fd, const char *name,
		       struct lb_restore *r);
/* A second name of a file that was restored before. */
int lb_restore_hard_link(int from_fd, const char *from, int folder_fd, const char *name, struct lb_restore *r);
/* Makes it (0700) and opens it. */
int lb_restore_folder_open(int folder_fd, const char *name, const struct lb_restore *r, int *ret_fd);
int lb_restore_attributes(int fd, const struct lb_ext_file *file, const char *name);
