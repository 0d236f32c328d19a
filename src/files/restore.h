/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Puts files of a filesystem into a folder of this machine, folders with all that is in them. The filesystem may be
 * hostile: nothing is written outside the folder, links are made and never followed. Permissions and times are kept,
 * owners when we are root; set-uid and set-gid bits are not, devices, sockets and pipes are left out and counted.
 * A file appears whole or not at all, also when we are killed.
 */
#include "files/ext.h"

struct lb_restore {
	bool force; /* replaces files and links, and adds to folders; folders are never replaced */
	uint64_t files, folders, bytes, left_out;
};

/* `file` becomes `name` in the folder. -EEXIST when that is there. */
int lb_restore(struct lb_ext *e, const struct lb_ext_file *file, int folder_fd, const char *name, struct lb_restore *r);
