/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The world as the agent, the process server and the vault see it: clocks, randomness and files come in through
 * this table, so that a whole site can run on one seeded clock and one failing disk. lb_env_real() is the
 * real machine. Requests over the network go through struct lb_http_client (wire/client.h).
 *
 * All functions return 0 (or a count, or an fd) or a negative errno, without error text: callers know the context.
 * Every function may be called from any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct lb_env;

/* Called with each entry's name, "." and ".." left out; a non-zero return ends the walk and is passed on. */
typedef int (*lb_dir_entry_fn)(void *arg, const char *name, bool is_dir);

struct lb_env_ops {
	int64_t (*now_ns)(struct lb_env *env);  /* wall clock, since 1970 */
	int64_t (*mono_ns)(struct lb_env *env); /* never goes back */
	/* Returns at `mono_ns` or when `wake_fd` (-1: none) can be read. */
	int (*wait_until)(struct lb_env *env, int64_t mono_ns, int wake_fd);
	int (*random)(struct lb_env *env, void *buf, size_t size_bytes);

	int (*open)(struct lb_env *env, const char *path, int flags, mode_t mode);
	int (*close)(struct lb_env *env, int fd);
	ssize_t (*pread)(struct lb_env *env, int fd, void *buf, size_t size_bytes, uint64_t offset_bytes);
	ssize_t (*pwrite)(struct lb_env *env, int fd, const void *buf, size_t size_bytes, uint64_t offset_bytes);
	int (*fsync)(struct lb_env *env, int fd);
	int (*ftruncate)(struct lb_env *env, int fd, uint64_t size_bytes);
	int (*size)(struct lb_env *env, int fd, uint64_t *ret_size_bytes);
	int (*rename)(struct lb_env *env, const char *from, const char *to);
	int (*link)(struct lb_env *env, const char *from,
		    const char *to); /* -EEXIST when `to` is there; where there are no links `from` goes */
	int (*unlink)(struct lb_env *env, const char *path);
	int (*mkdir)(struct lb_env *env, const char *path, mode_t mode);
	int (*list)(struct lb_env *env, const char *path, lb_dir_entry_fn fn, void *arg);
	int (*room)(struct lb_env *env, const char *path, uint64_t *ret_free_bytes, uint64_t *ret_size_bytes);
	/* Takes the exclusive lock of an open file, held until it is closed; -EWOULDBLOCK while another open file has
	 * it. */
	int (*lock)(struct lb_env *env, int fd);
};

struct lb_env {
	const struct lb_env_ops *ops;
	void *state;
};

/* The one real environment; lives as long as the process. */
struct lb_env *lb_env_real(void);

static inline int64_t lb_now_ns(struct lb_env *env)
{
	return env->ops->now_ns(env);
}

static inline int64_t lb_mono_ns(struct lb_env *env)
{
	return env->ops->mono_ns(env);
}
