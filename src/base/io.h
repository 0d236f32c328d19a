/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Whole reads and writes, and files that appear at once or not at all. Errors carry the path in lb_err_text(). */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/env.h"

/* Exactly `size_bytes`, or -ENODATA at an early end of file. */
int lb_pread_full(struct lb_env *env, int fd, void *buf, size_t size_bytes, uint64_t offset_bytes);
int lb_pwrite_full(struct lb_env *env, int fd, const void *buf, size_t size_bytes, uint64_t offset_bytes);

/* A whole file of at most `size_bytes_max` (-EFBIG past that), NUL-terminated beyond its size; free() it. */
int lb_file_read(struct lb_env *env, const char *path, size_t size_bytes_max, uint8_t **ret_data,
		 size_t *ret_size_bytes);

/* Writes a file of that name whole and durable: temporary name, fsync, rename, fsync of the folder. */
int lb_file_write(struct lb_env *env, const char *path, const void *data, size_t size_bytes, mode_t mode);
/* The same, but -EEXIST when the name is taken; of two that race exactly one succeeds. */
int lb_file_write_new(struct lb_env *env, const char *path, const void *data, size_t size_bytes, mode_t mode);

/*
 * Until no other program has a lock in a file, for at most `wait_ms`: one that was killed has its locks a moment longer
 * than its arguments. Whoever needs the file finds out for itself when somebody still has one then.
 */
#define LB_FILE_RELEASE_MS 10000 /* what an image is given, whose QEMU is just ending */
void lb_file_wait_released(struct lb_env *env, const char *path, uint32_t wait_ms);

/* fsync of the folder that holds `path`. */
int lb_folder_sync(struct lb_env *env, const char *path);
/* mkdir -p, each folder that it makes durable; an existing one is fine. `mode` is the last one's, not of those above.
 */
int lb_folder_make(struct lb_env *env, const char *path, mode_t mode);
