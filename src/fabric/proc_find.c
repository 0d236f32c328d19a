/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and ending what an earlier process of ours has started. */
#include "fabric/proc.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"
#include "base/text.h"

#define CMDLINE_BYTES_MAX (256u << 10)
#define LOOK_AGAIN_MS 10
#define KILLED_WAIT_MS 10000

struct search {
	struct lb_env *env;
	const char *arg;
	int signal; /* 0: only look */
	pid_t found;
};

/* A process that is gone meanwhile, or a zombie, has no arguments. */
static bool has_argument(struct lb_env *env, const char *pid, const char *arg)
{
	_cleanup_free_ uint8_t *data = NULL;
	char path[64];
	size_t size_bytes, at = 0;

	snprintf(path, sizeof(path), "/proc/%.20s/cmdline", pid);
	if (lb_file_read(env, path, CMDLINE_BYTES_MAX, &data, &size_bytes) < 0)
		return false;
	while (at < size_bytes) {
		if (strcmp((const char *)data + at, arg) == 0)
			return true;
		at += strlen((const char *)data + at) + 1;
	}
	return false;
}

static int look_at(void *arg, const char *name, bool is_dir)
{
	struct search *s = arg;
	uint64_t pid;

	if (!is_dir || lb_u64_parse(name, INT32_MAX, &pid) < 0 || pid <= 1 || (pid_t)pid == getpid())
		return 0;
	if (!has_argument(s->env, name, s->arg))
		return 0;
	s->found = (pid_t)pid;
	if (s->signal == 0)
		return 1;
	if (kill((pid_t)pid, s->signal) < 0 && errno != ESRCH)
		return lb_fail(-errno, "can't end process %s: %s", name, strerror(errno));
	return 0;
}

static int search(struct lb_env *env, const char *arg, int signal, pid_t *ret_found)
{
	struct search s = {.env = env, .arg = arg, .signal = signal};
	int r;

	r = env->ops->list(env, "/proc", look_at, &s);
	lb_err_clear();
	*ret_found = s.found;
	return r < 0 ? r : 0;
}

pid_t lb_proc_find(struct lb_env *env, const char *arg)
{
	pid_t found;

	return search(env, arg, 0, &found) < 0 ? 0 : found;
}

static int signal_and_wait(struct lb_env *env, const char *arg, int signal, uint32_t wait_ms, bool *ret_gone)
{
	int64_t end_ns = lb_mono_ns(env) + (int64_t)wait_ms * LB_NS_PER_MS;
	pid_t found;
	int r;

	r = search(env, arg, signal, &found);
	if (r < 0)
		return lb_fail(r, "can't end the process with argument %s: %s", arg, strerror(-r));
	while (found != 0) {
		if (lb_mono_ns(env) >= end_ns) {
			*ret_gone = false;
			return 0;
		}
		lb_proc_pause(env, LOOK_AGAIN_MS);
		found = lb_proc_find(env, arg);
	}
	*ret_gone = true;
	return 0;
}

int lb_proc_end(struct lb_env *env, const char *arg)
{
	bool gone = false;
	int r;

	r = signal_and_wait(env, arg, SIGTERM, LB_PROC_END_GRACE_MS, &gone);
	if (r == 0 && !gone)
		r = signal_and_wait(env, arg, SIGKILL, KILLED_WAIT_MS, &gone);
	if (r < 0)
		return r;
	return gone ? 0 : lb_fail(-ETIMEDOUT, "the process with argument %s does not end", arg);
}
