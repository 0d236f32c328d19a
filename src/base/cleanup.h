/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Variables that free, close and unlock themselves at the end of their scope, so that any return is right. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))

/* Defines a cleanup for a variable of pointer type `type` that `fn(type)` frees; NULL is left alone. */
#define LB_DEFINE_CLEANUP(type, fn)                                                                                    \
	static inline void fn##p(type *p)                                                                              \
	{                                                                                                              \
		if (*p != NULL)                                                                                        \
			fn(*p);                                                                                        \
	}                                                                                                              \
	struct lb_swallow_semicolon

static inline void lb_freep(void *p)
{
	free(*(void **)p);
}

static inline void lb_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void lb_fclosep(FILE **f)
{
	if (*f != NULL)
		fclose(*f);
}

static inline void lb_unlockp(pthread_mutex_t **m)
{
	if (*m != NULL)
		pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *lb_locked(pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	return m;
}

#define _cleanup_free_ _cleanup_(lb_freep)
#define _cleanup_close_ _cleanup_(lb_closep)
#define _cleanup_fclose_ _cleanup_(lb_fclosep)

/* Holds `mutex` until the end of the scope. */
#define LB_LOCK_SCOPE(mutex)                                                                                           \
	_cleanup_(lb_unlockp) __attribute__((unused)) pthread_mutex_t *lb_scope_lock = lb_locked(mutex)

/* Hands a value out of a scope whose cleanup would otherwise take it. */
#define lb_steal_ptr(p)                                                                                                \
	({                                                                                                             \
		__typeof__(p) lb_taken = (p);                                                                          \
		(p) = NULL;                                                                                            \
		lb_taken;                                                                                              \
	})

#define lb_steal_fd(fd)                                                                                                \
	({                                                                                                             \
		int lb_taken = (fd);                                                                                   \
		(fd) = -1;                                                                                             \
		lb_taken;                                                                                              \
	})
