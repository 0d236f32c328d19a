/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/mend_order.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "mobility/mend.h"

#define PATH_BYTES 512
#define ARGS_MAX 16

static int path_of(const char *folder, const char *name, char path[PATH_BYTES])
{
	return (size_t)snprintf(path, PATH_BYTES, "%s/%s", folder, name) < PATH_BYTES
		       ? 0
		       : lb_fail(-ENAMETOOLONG, "the folder's name is too long: %.80s", folder);
}

static int write_json(struct lb_env *env, const char *path, const json_t *object, mode_t mode)
{
	_cleanup_free_ char *text = NULL;
	int r;

	r = lb_json_dump(object, &text);
	return r < 0 ? r : lb_file_write(env, path, text, strlen(text), mode);
}

static int read_json(struct lb_env *env, const char *path, json_t **ret_object)
{
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes;
	int r;

	r = lb_file_read(env, path, LB_MEND_FILE_BYTES_MAX, &text, &size_bytes);
	if (r < 0)
		return r;
	r = lb_json_parse(text, size_bytes, LB_MEND_FILE_BYTES_MAX, ret_object);
	return r < 0 ? lb_wrap(r, "%s", path) : 0;
}

/* ---- the agent's --------------------------------------------------------------------------------------------------
 */

static int leave_order(struct lb_env *env, const char *run_folder, const struct lb_mend_order *order)
{
	_cleanup_json_ json_t *o = json_pack("{s:I,s:b,s:b}", "generation", (json_int_t)order->generation, "network",
					     order->network, "initramfs", order->initramfs);
	char path[PATH_BYTES];
	int r;

	r = path_of(run_folder, LB_MEND_ORDER_NAME, path);
	if (r == 0 && o == NULL)
		r = lb_fail(-ENOMEM, "out of memory for an order");
	return r < 0 ? r : write_json(env, path, o, 0644);
}

static bool is_outcome_of(const json_t *outcome, uint64_t generation)
{
	return json_integer_value(json_object_get(outcome, "generation")) == (json_int_t)generation &&
	       json_is_boolean(json_object_get(outcome, "ok")) && json_is_string(json_object_get(outcome, "text"));
}

int lb_mend_follow(struct lb_env *env, const char *run_folder, const char *mend_folder,
		   const struct lb_mend_order *order, int64_t *since_ns, json_t **ret_outcome)
{
	_cleanup_json_ json_t *outcome = NULL;
	char path[PATH_BYTES];
	int r;

	*ret_outcome = NULL;
	r = path_of(mend_folder, LB_MEND_OUTCOME_NAME, path);
	if (r < 0)
		return r;
	if (read_json(env, path, &outcome) < 0)
		lb_err_clear(); /* none yet */
	if (outcome != NULL && is_outcome_of(outcome, order->generation)) {
		*ret_outcome = lb_steal_ptr(outcome);
		return 0;
	}
	if (*since_ns == 0) {
		*since_ns = lb_mono_ns(env);
		return leave_order(env, run_folder, order);
	}
	if (lb_mono_ns(env) - *since_ns < LB_MEND_WAIT_S * LB_NS_PER_S)
		return 0;
	*ret_outcome = json_pack("{s:I,s:b,s:s}", "generation", (json_int_t)order->generation, "ok", 0, "text",
				 "nothing on the machine carried it out: is lifeboat-mend.path active there "
				 "(systemctl status lifeboat-mend.path lifeboat-mend.service)?");
	return *ret_outcome != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an outcome");
}

void lb_mend_withdraw(struct lb_env *env, const char *run_folder)
{
	char path[PATH_BYTES];

	if (path_of(run_folder, LB_MEND_ORDER_NAME, path) == 0)
		(void)env->ops->unlink(env, path); /* not there: it is under way, or done */
}

/* ---- root's --------------------------------------------------------------------------------------------------------
 */

struct work {
	struct lb_env *env;
	const char *root;
	bool failed;
	char text[LB_MEND_TEXT_BYTES];
};

static void note(struct work *w, const char *text)
{
	size_t at = strlen(w->text);

	snprintf(w->text + at, sizeof(w->text) - at, "%s%s", at > 0 ? "; " : "", text);
}

static void note_failure(struct work *w)
{
	w->failed = true;
	note(w, lb_err_text());
}

/* The end of what it wrote is kept in `tail`. -ETIMEDOUT: killed, with all that it started. */
static int follow_command(pid_t pid, int output, char tail[256])
{
	const int64_t until_ns = lb_mono_ns(lb_env_real()) + LB_MEND_COMMAND_S * LB_NS_PER_S;
	size_t have = 0;

	for (;;) {
		struct pollfd p = {.fd = output, .events = POLLIN};
		int64_t left_ms = (until_ns - lb_mono_ns(lb_env_real())) / LB_NS_PER_MS;
		char piece[128];
		ssize_t n;

		if (left_ms <= 0 || poll(&p, 1, (int)left_ms) == 0) {
			kill(-pid, SIGKILL);
			return -ETIMEDOUT;
		}
		n = read(output, piece, sizeof(piece));
		if (n <= 0)
			return 0;
		if (have + (size_t)n > 255) {
			size_t over = have + (size_t)n - 255;

			memmove(tail, tail + over, have - over);
			have -= over;
		}
		for (ssize_t i = 0; i < n; i++)
			tail[have++] = (unsigned char)piece[i] < ' ' ? ' ' : piece[i];
		tail[have] = '\0';
	}
}

static void command_main(const char *root, const char *const *command, int output)
{
	static const char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", NULL};
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	setpgid(0, 0);
	if (null < 0 || dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0 ||
	    (root[0] != '\0' && chroot(root) < 0) || chdir("/") < 0)
		_exit(126);
	execvpe(command[0], (char *const *)command, (char *const *)environment);
	_exit(127);
}

static int run_command(const char *root, const char *const *command)
{
	_cleanup_close_ int output = -1;
	char tail[256] = "";
	int ends[2], status = 0, r;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return lb_fail(-errno, "can't run %s: %s", command[0], strerror(errno));
	output = ends[0];
	pid = fork();
	if (pid == 0)
		command_main(root, command, ends[1]);
	close(ends[1]);
	if (pid < 0)
		return lb_fail(-errno, "can't run %s: %s", command[0], strerror(errno));
	setpgid(pid, pid);
	r = follow_command(pid, output, tail);
	if (waitpid(pid, &status, 0) < 0)
		return lb_fail(-errno, "%s: %s", command[0], strerror(errno));
	if (r == -ETIMEDOUT)
		return lb_fail(r, "%s did not end within %d s", command[0], LB_MEND_COMMAND_S);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return lb_fail(-EIO, "%s failed (status %d): %s", command[0],
			       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), tail);
	return 0;
}

static void mend_network(struct work *w)
{
	char path[PATH_BYTES], text[LB_MEND_TEXT_BYTES];
	int r = lb_mend_network(w->env, w->root, path, sizeof(path));

	if (r == -ENOENT) {
		snprintf(text, sizeof(text), "network: %s", lb_err_text());
		note(w, text);
		return;
	}
	if (r < 0) {
		note_failure(w);
		return;
	}
	snprintf(text, sizeof(text), "network: %s is written", path + strlen(w->root));
	note(w, text);
}

static void mend_initramfs(struct work *w)
{
	const char *const *command;
	char text[LB_MEND_TEXT_BYTES];

	if (lb_mend_initramfs(w->env, w->root, &command) < 0 || run_command(w->root, command) < 0) {
		note_failure(w);
		return;
	}
	snprintf(text, sizeof(text), "initramfs: %s has made it anew with the drivers", command[0]);
	note(w, text);
}

/* Written by the agent, so nothing in it is trusted beyond which of the two mends is meant. */
static int take_order(struct lb_env *env, const char *run_folder, struct lb_mend_order *ret_order)
{
	_cleanup_json_ json_t *o = NULL;
	char path[PATH_BYTES];
	int r, gone;

	r = path_of(run_folder, LB_MEND_ORDER_NAME, path);
	if (r < 0)
		return r;
	r = read_json(env, path, &o);
	/* whatever it is: the path unit starts us for as long as it is there */
	gone = r == -ENOENT ? 0 : env->ops->unlink(env, path);
	if (r == 0)
		r = lb_json_get_u64(o, "generation", &ret_order->generation);
	if (r == 0)
		r = lb_json_get_bool(o, "network", &ret_order->network);
	if (r == 0)
		r = lb_json_get_bool(o, "initramfs", &ret_order->initramfs);
	if (r == 0 && gone < 0)
		r = lb_fail(gone, "%s can't be removed: %s", path, strerror(-gone));
	return r;
}

int lb_mend_obey(struct lb_env *env, const char *root, const char *run_folder, const char *mend_folder)
{
	struct work w = {.env = env, .root = root};
	struct lb_mend_order order = {0};
	_cleanup_json_ json_t *outcome = NULL;
	char path[PATH_BYTES];
	int r;

	r = take_order(env, run_folder, &order);
	if (r < 0)
		return r;
	if (order.network)
		mend_network(&w);
	if (order.initramfs)
		mend_initramfs(&w);
	r = path_of(mend_folder, LB_MEND_OUTCOME_NAME, path);
	r = r < 0 ? r : lb_folder_make(env, mend_folder, 0755);
	if (r < 0)
		return r;
	outcome =
		json_pack("{s:I,s:b,s:s}", "generation", (json_int_t)order.generation, "ok", !w.failed, "text", w.text);
	return outcome != NULL ? write_json(env, path, outcome, 0644)
			       : lb_fail(-ENOMEM, "out of memory for an outcome");
}
