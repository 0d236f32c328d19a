/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The directory store's own parts. An object is a file of its name under the root; what starts with a dot is ours. */
#include <limits.h>
#include <pthread.h>

#include "store/store.h"

#define LB_DIR_FOLDERS_KNOWN 1024

struct lb_dir_store {
	struct lb_store store; /* first, so that the interface's pointer is ours */
	char *root;
	pthread_mutex_t lock;                      /* of what follows */
	char *folders_known[LB_DIR_FOLDERS_KNOWN]; /* made durable by this process, by hash */
	bool cleaned;
	char *witness; /* an object right under the root that was there: NULL until one was seen */
};

static inline struct lb_dir_store *lb_dir_of(struct lb_store *s)
{
	return (struct lb_dir_store *)s;
}

/* Turns an errno of the file system into the store's codes and names object and cure. */
int lb_dir_fail(struct lb_dir_store *d, int code, const char *doing, const char *name);
/* -EIO when the root has lost what was in it before: its file system was unmounted, and what is there now is not ours.
 */
int lb_dir_check_mounted(struct lb_dir_store *d);
int lb_dir_path(struct lb_dir_store *d, const char *name, char path[PATH_MAX]);
int lb_dir_size(struct lb_dir_store *d, const char *path, uint64_t *ret_size_bytes);

/* dir_owner.c: in `folder`, as its owner when we are root; else as anybody. */
int lb_dir_open_new(struct lb_env *env, const char *folder, const char *path, int flags, mode_t mode);
int lb_dir_mkdir(struct lb_env *env, const char *folder, const char *path, mode_t mode);

/* dir_list.c */
int lb_dir_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg);
int lb_dir_list_folders(struct lb_store *s, const char *prefix, lb_store_folder_fn fn, void *arg);
