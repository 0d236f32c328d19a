/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "fabric/backends.h"

#define PLUGIN_FILE "nbdkit-lifeboat-plugin.so"
#define LOOK_AGAIN_MS 5
#define OVERLAY_WAIT_S 120

/* In this order: told by the environment, beside us in a build folder, installed. */
static int find_plugin(char **ret_path)
{
	static const char *const beside[] = {"../nbd/" PLUGIN_FILE, "../../src/nbd/" PLUGIN_FILE};
	const char *told = getenv("LIFEBOAT_NBDKIT_PLUGIN");
	char exe[PATH_MAX], path[PATH_MAX * 2] = LB_PLUGIN_FOLDER "/" PLUGIN_FILE;
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	bool found = false;

	if (told != NULL) {
		snprintf(path, sizeof(path), "%s", told);
		found = true;
	}
	exe[n > 0 ? n : 0] = '\0';
	if (strrchr(exe, '/') != NULL)
		*strrchr(exe, '/') = '\0';
	for (size_t i = 0; !found && i < LB_ARRAY_LEN(beside); i++) {
		char near[PATH_MAX * 2];

		snprintf(near, sizeof(near), "%s/%s", exe, beside[i]);
		if (access(near, R_OK) == 0) {
			memcpy(path, near, sizeof(path));
			found = true;
		}
	}
	if (access(path, R_OK) < 0)
		return lb_fail(-ENOENT, "%s is not there: Lifeboat's plugin for nbdkit is not installed", path);
	*ret_path = strdup(path);
	return *ret_path != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
}

/* The key as a file that only the process that inherits it can open. */
static int key_file(const struct lb_keyring *keys, int *ret_fd)
{
	_cleanup_close_ int fd = memfd_create("lifeboat-key", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || fchmod(fd, 0400) < 0 ||
	    write(fd, keys->key, lb_keyring_bytes(keys)) != (ssize_t)lb_keyring_bytes(keys) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return lb_fail(-errno, "can't keep a key in memory: %s", strerror(errno));
	*ret_fd = lb_steal_fd(fd);
	return 0;
}

static void add_plugin(const struct lb_serve *s, const char *plugin, int key_fd, struct lb_argv *a)
{
	char machine[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&s->machine, machine);
	lb_argv_add(a, "%s", plugin);
	lb_argv_add(a, "vault=%s", s->vault_url);
	lb_argv_add(a, "machine=%s", machine);
	lb_argv_add(a, "point=%" PRIu64 ":%" PRIu64, s->position.epoch, s->position.seq);
	lb_argv_add(a, "disk-id=%u", s->disk);
	lb_argv_add(a, "key-file=/proc/self/fd/%d", key_fd);
}

struct places {
	char *socket, *pidfile, *log;
};

static void places_clear(struct places *p)
{
	free(p->socket);
	free(p->pidfile);
	free(p->log);
}

static int places_of(const struct lb_serve *s, struct places *p)
{
	*p = (struct places){0};
	if (asprintf(&p->socket, "%s/nbd%u.sock", s->folder, s->n) < 0 ||
	    asprintf(&p->pidfile, "%s/nbd%u.pid", s->folder, s->n) < 0 ||
	    asprintf(&p->log, "%s/nbd%u.log", s->folder, s->n) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	return 0;
}

/* nbdkit writes its pidfile when it listens. A trial connection would tell as much, and be logged by it as an error. */
static bool listens(const char *pidfile)
{
	struct stat st;

	return stat(pidfile, &st) == 0 && st.st_size > 0;
}

static int wait_answers(struct lb_env *env, const struct places *p)
{
	int64_t end_ns = lb_mono_ns(env) + LB_SERVE_WAIT_S * LB_NS_PER_S;
	char line[LB_PROC_LAST_LINE_BYTES];

	for (;;) {
		bool runs = lb_proc_find(env, p->pidfile) != 0;

		if (runs && listens(p->pidfile))
			return 0;
		if (!runs) {
			lb_proc_last_line(env, p->log, line);
			return lb_fail(-EREMOTEIO, "the disk server does not start: %s",
				       strncmp(line, "nbdkit: error: ", 15) == 0 ? line + 15 : line);
		}
		if (lb_mono_ns(env) >= end_ns)
			return lb_fail(-ETIMEDOUT, "the disk server has not answered for %d s; see %s", LB_SERVE_WAIT_S,
				       p->log);
		lb_proc_pause(env, LOOK_AGAIN_MS);
	}
}

static int spawn_nbdkit(struct lb_env *env, const struct lb_serve *s, const struct places *p)
{
	_cleanup_(lb_argv_clear) struct lb_argv a = {0};
	_cleanup_free_ char *plugin = NULL;
	_cleanup_close_ int key_fd = -1;
	pid_t pid;
	int r;

	r = find_plugin(&plugin);
	if (r == 0)
		r = key_file(s->keys, &key_fd);
	if (r < 0)
		return r;
	lb_argv_add(&a, "nbdkit");
	lb_argv_add(&a, "-f");
	lb_argv_add(&a, "-r");
	lb_argv_add(&a, "-U");
	lb_argv_add(&a, "%s", p->socket);
	lb_argv_add(&a, "--pidfile");
	lb_argv_add(&a, "%s", p->pidfile);
	add_plugin(s, plugin, key_fd, &a);
	if (a.error != 0)
		return lb_fail(a.error, "nbdkit's command line can't be made");
	return lb_proc_spawn(
		env,
		&(struct lb_proc_spawn){.argv = (const char *const *)a.argv, .log_path = p->log, .keep_fd = key_fd},
		&pid);
}

int lb_serve_begin(struct lb_env *env, const struct lb_serve *s)
{
	_cleanup_(places_clear) struct places p = {0};
	int r;

	r = places_of(s, &p);
	if (r < 0)
		return r;
	if (lb_proc_find(env, p.pidfile) == 0) {
		/* left behind by one that was killed: nbdkit would not bind over it */
		env->ops->unlink(env, p.socket);
		env->ops->unlink(env, p.pidfile);
		r = spawn_nbdkit(env, s, &p);
	}
	return r;
}

int lb_serve_wait(struct lb_env *env, const struct lb_serve *s)
{
	_cleanup_(places_clear) struct places p = {0};
	int r;

	r = places_of(s, &p);
	return r < 0 ? r : wait_answers(env, &p);
}

int lb_serve_stop(struct lb_env *env, const struct lb_serve *s)
{
	_cleanup_(places_clear) struct places p = {0};
	int r;

	r = places_of(s, &p);
	if (r == 0)
		r = lb_proc_end(env, p.pidfile);
	if (r < 0)
		return r;
	env->ops->unlink(env, p.socket);
	env->ops->unlink(env, p.pidfile);
	return 0;
}

bool lb_serve_runs(struct lb_env *env, const struct lb_serve *s)
{
	_cleanup_(places_clear) struct places p = {0};

	return places_of(s, &p) == 0 && lb_proc_find(env, p.pidfile) != 0;
}

int lb_serve_run(struct lb_env *env, const struct lb_serve *s, const char *shell_command,
		 int (*output)(void *arg, const char *text, size_t size_bytes), void *arg, struct lb_buf *out)
{
	_cleanup_(lb_argv_clear) struct lb_argv a = {0};
	_cleanup_free_ char *plugin = NULL;
	_cleanup_close_ int key_fd = -1;
	int r;

	r = find_plugin(&plugin);
	if (r == 0)
		r = key_file(s->keys, &key_fd);
	if (r < 0)
		return r;
	lb_argv_add(&a, "nbdkit");
	lb_argv_add(&a, "-r");
	lb_argv_add(&a, "-U");
	lb_argv_add(&a, "-");
	add_plugin(s, plugin, key_fd, &a);
	lb_argv_add(&a, "--run");
	lb_argv_add(&a, "%s", shell_command);
	if (a.error != 0)
		return lb_fail(a.error, "nbdkit's command line can't be made");
	return lb_proc_run(
		env,
		&(struct lb_proc_run){
			.argv = (const char *const *)a.argv, .keep_fd = key_fd, .output = output, .arg = arg},
		out);
}

/* More than "nbd+unix:///?socket=" can say: a VM outlives a restart of its server. */
static int backing_text(const char *socket_path, char **ret_text)
{
	_cleanup_json_ json_t *base = NULL;
	_cleanup_free_ char *json = NULL;

	base = json_pack("{s:s,s:{s:s,s:i,s:{s:s,s:s}}}", "driver", "raw", "file", "driver", "nbd", "reconnect-delay",
			 LB_SERVE_RECONNECT_S, "server", "type", "unix", "path", socket_path);
	if (base == NULL || lb_json_dump(base, &json) < 0 || asprintf(ret_text, "json:%s", json) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	return 0;
}

static int run_qemu_img(struct lb_env *env, const char *const *argv, const char *path)
{
	int r = lb_proc_run(env, &(struct lb_proc_run){.argv = argv, .keep_fd = -1, .timeout_s = OVERLAY_WAIT_S}, NULL);

	return r < 0 ? lb_wrap(r, "overlay %s", path) : 0;
}

int lb_overlay_make(struct lb_env *env, const char *path, const char *socket_path, uint64_t size_bytes)
{
	_cleanup_free_ char *backing = NULL, *made = NULL;
	char size[32];
	int r;

	if (access(path, F_OK) == 0)
		return 0;
	r = backing_text(socket_path, &backing);
	if (r < 0)
		return r;
	if (asprintf(&made, "%s.new", path) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	snprintf(size, sizeof(size), "%" PRIu64, size_bytes);
	r = run_qemu_img(env,
			 (const char *[]){"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, made,
					  size, NULL},
			 path);
	if (r < 0)
		return r;
	r = env->ops->rename(env, made, path);
	return r < 0 ? lb_fail(r, "can't put %s in place: %s", path, strerror(-r)) : lb_folder_sync(env, path);
}

int lb_overlay_reattach(struct lb_env *env, const char *path, const char *socket_path)
{
	_cleanup_free_ char *backing = NULL;
	int r;

	r = backing_text(socket_path, &backing);
	lb_file_wait_released(env, path, LB_FILE_RELEASE_MS);
	return r < 0 ? r
		     : run_qemu_img(env,
				    (const char *[]){"qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b",
						     backing, path, NULL},
				    path);
}
