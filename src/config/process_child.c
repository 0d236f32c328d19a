/* SPDX-License-Identifier: Apache-2.0 */
#include "config/process_child.h"

#include <errno.h>
#include <libgen.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "config/registry.h"

#define CONF_BYTES_MAX (16u << 10)

static const struct kind {
	const char *program, *build_folder, *conf, *what, *setting;
} process_kind = {"lifeboat-process", "process", "process.conf", "process server", "process_program"},
  target_kind = {"lifeboat-target", "target", "target.conf", "target server", "target_program"};

struct lb_process_child {
	struct lb_site *site;
	const struct kind *kind;
	char program[PATH_MAX], conf[PATH_MAX];
	pthread_t thread;
	int wake_fd; /* eventfd: something is wanted */
	atomic_bool stop, restart;
};

/* Beside this program, in its build folder, or on the path. */
static void find_program(struct lb_process_child *child)
{
	const struct lb_settings *s = &child->site->settings;
	const char *told = child->kind == &target_kind ? s->target_program : s->process_program;
	char self[PATH_MAX], *folder;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (told != NULL) {
		snprintf(child->program, sizeof(child->program), "%s", told);
		return;
	}
	if (n > 0) {
		self[n] = '\0';
		folder = dirname(self);
		if (snprintf(child->program, PATH_MAX, "%s/%s", folder, child->kind->program) < PATH_MAX &&
		    access(child->program, X_OK) == 0)
			return;
		if (snprintf(child->program, PATH_MAX, "%s/../%s/%s", folder, child->kind->build_folder,
			     child->kind->program) < PATH_MAX &&
		    access(child->program, X_OK) == 0)
			return;
	}
	snprintf(child->program, sizeof(child->program), "%s", child->kind->program);
}

static int put_config_url(struct lb_buf *text, const struct lb_settings *s)
{
	bool any = strcmp(s->address, "0.0.0.0") == 0 || strcmp(s->address, "::") == 0;
	const char *host = any ? "127.0.0.1" : s->address;

	return lb_buf_printf(
		text, strchr(host, ':') != NULL ? "config_url = https://[%s]:%u\n" : "config_url = https://%s:%u\n",
		host, (unsigned int)s->port);
}

static int write_conf(struct lb_process_child *child, const struct lb_child_spec *spec)
{
	const struct lb_settings *s = &child->site->settings;
	_cleanup_buf_ struct lb_buf text = LB_BUF(CONF_BYTES_MAX);
	int r;

	r = lb_buf_printf(&text,
			  "# written by lifeboat-config at each start: change its own configuration instead\n"
			  "address = %s\nport = %u\n",
			  s->address, (unsigned int)spec->port);
	if (r == 0)
		r = put_config_url(&text, s);
	if (r == 0)
		r = lb_buf_printf(&text, "identity_folder = %s/identity\ncache_folder = %s\ncache_bytes_max = %llu\n",
				  spec->folder, spec->cache_folder, (unsigned long long)spec->cache_bytes_max);
	if (r == 0 && s->agent_package != NULL)
		r = lb_buf_printf(&text, "agent_package = %s\n", s->agent_package);
	return r < 0 ? r : lb_file_write(child->site->env, child->conf, text.data, text.size_bytes, 0644);
}

static int write_target_conf(struct lb_process_child *child, const struct lb_child_spec *spec)
{
	const struct lb_settings *s = &child->site->settings;
	_cleanup_buf_ struct lb_buf text = LB_BUF(CONF_BYTES_MAX);
	int r;

	r = lb_buf_printf(&text, "# written by lifeboat-config at each start\n");
	if (r == 0)
		r = put_config_url(&text, s);
	if (r == 0)
		r = lb_buf_printf(&text, "identity_folder = %s/identity\nstate_folder = %s/state\nhook_folder = %s\n",
				  spec->folder, spec->folder, s->hook_folder);
	return r < 0 ? r : lb_file_write(child->site->env, child->conf, text.data, text.size_bytes, 0644);
}

/* Between fork and exec: only what is safe after a fork of many threads. */
static void become(const struct lb_process_child *child, pid_t parent)
{
	const char *const argv[] = {child->kind->program, "--config", child->conf, NULL};
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1); /* it died before we asked to die with it */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
	unsetenv("NOTIFY_SOCKET");
	if (strchr(child->program, '/') != NULL)
		execv(child->program, (char *const *)argv);
	else
		execvp(child->program, (char *const *)argv);
	_exit(127);
}

static int spawn(const struct lb_process_child *child, pid_t *ret_pid)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		return lb_fail(-errno, "can't start %s: %s", child->kind->program, strerror(errno));
	if (pid == 0)
		become(child, parent);
	*ret_pid = pid;
	return 0;
}

/* Waits until the child ends or something is wanted; true when it has ended. */
static bool wait_for(struct lb_process_child *child, pid_t pid, int pid_fd, int timeout_ms, int *ret_status)
{
	struct pollfd fds[] = {{.fd = pid_fd, .events = POLLIN}, {.fd = child->wake_fd, .events = POLLIN}};
	uint64_t count;

	(void)!poll(fds, 2, timeout_ms);
	if (fds[1].revents & POLLIN)
		(void)!read(child->wake_fd, &count, sizeof(count));
	return waitpid(pid, ret_status, WNOHANG) == pid;
}

static void end(struct lb_process_child *child, pid_t pid, int pid_fd, int *ret_status)
{
	int64_t until_ns = lb_mono_ns(child->site->env) + LB_CHILD_STOP_S * LB_NS_PER_S;

	kill(pid, SIGTERM);
	for (;;) {
		int64_t left_ms = (until_ns - lb_mono_ns(child->site->env)) / LB_NS_PER_MS;

		if (left_ms <= 0)
			break;
		if (wait_for(child, pid, pid_fd, (int)left_ms, ret_status))
			return;
	}
	lb_warning("%s did not end within %d s and is killed; what it keeps survives that", child->kind->program,
		   LB_CHILD_STOP_S);
	kill(pid, SIGKILL);
	waitpid(pid, ret_status, 0);
}

static void tell_end(struct lb_process_child *child, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		lb_event(child->site, "critical", child->kind->what, "%s is not at %s; install it or set %s",
			 child->kind->program, child->program, child->kind->setting);
	else if (WIFSIGNALED(status))
		lb_event(child->site, "warning", child->kind->what, "ended by signal %d; it is started again",
			 WTERMSIG(status));
	else
		lb_event(child->site, "warning", child->kind->what, "ended with status %d; it is started again",
			 WEXITSTATUS(status));
}

/* One life of the child. */
static void live_once(struct lb_process_child *child)
{
	_cleanup_close_ int pid_fd = -1;
	int status = 0;
	pid_t pid;

	if (spawn(child, &pid) < 0) {
		lb_error("%s", lb_err_text());
		return;
	}
	pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	lb_info("%s started, pid %d", child->kind->program, (int)pid);
	for (;;) {
		if (wait_for(child, pid, pid_fd, pid_fd >= 0 ? -1 : 1000, &status)) {
			if (!child->stop && !child->restart)
				tell_end(child, status);
			return;
		}
		if (child->stop || child->restart) {
			end(child, pid, pid_fd, &status);
			return;
		}
	}
}

/* PR_SET_PDEATHSIG goes by the thread that forked: this one lives as long as the server. */
static void *watch(void *arg)
{
	struct lb_process_child *child = arg;
	struct lb_env *env = child->site->env;
	int64_t backoff_s = 1;

	while (!child->stop) {
		int64_t started_ns = lb_mono_ns(env);

		child->restart = false;
		live_once(child);
		if (child->stop || child->restart)
			continue;
		if (lb_mono_ns(env) - started_ns > LB_CHILD_STABLE_S * LB_NS_PER_S)
			backoff_s = 1;
		env->ops->wait_until(env, lb_mono_ns(env) + backoff_s * LB_NS_PER_S, child->wake_fd);
		backoff_s = LB_MIN(2 * backoff_s, (int64_t)LB_CHILD_BACKOFF_S_MAX);
	}
	return NULL;
}

static void wake(struct lb_process_child *child)
{
	uint64_t one = 1;

	(void)!write(child->wake_fd, &one, sizeof(one));
}

int lb_process_child_start(struct lb_site *site, const struct lb_child_spec *spec, struct lb_process_child **ret_child)
{
	struct lb_process_child *child = calloc(1, sizeof(*child));
	int r;

	if (child == NULL)
		return lb_fail(-ENOMEM, "out of memory for the process server");
	child->site = site;
	child->kind = spec->target ? &target_kind : &process_kind;
	child->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = child->wake_fd < 0 ? lb_fail(-errno, "can't watch the %s: %s", child->kind->what, strerror(errno)) : 0;
	if (r == 0)
		r = lb_folder_make(site->env, spec->folder, 0700);
	if (r == 0)
		r = lb_site_path(child->conf, spec->folder, child->kind->conf);
	if (r == 0)
		r = spec->target ? write_target_conf(child, spec) : write_conf(child, spec);
	find_program(child);
	if (r == 0)
		r = -pthread_create(&child->thread, NULL, watch, child);
	if (r < 0) {
		lb_closep(&child->wake_fd);
		free(child);
		return r;
	}
	*ret_child = child;
	return 0;
}

int lb_process_child_local(struct lb_site *site, struct lb_process_child **ret_child)
{
	const struct lb_child_spec spec = {.folder = site->process_folder,
					   .cache_folder = site->settings.process_cache_folder,
					   .cache_bytes_max = site->settings.process_cache_bytes_max,
					   .port = (uint16_t)site->settings.process_port};
	bool renewed;
	int r;

	r = lb_folder_make(site->env, spec.folder, 0700);
	r = r < 0 ? r : lb_site_process_identity_renew(site, &renewed);
	return r < 0 ? r : lb_process_child_start(site, &spec, ret_child);
}

int lb_target_child_local(struct lb_site *site, struct lb_process_child **ret_child)
{
	char folder[PATH_MAX];
	bool renewed;
	int r;

	r = lb_site_path(folder, site->settings.state_folder, "target");
	r = r < 0 ? r : lb_folder_make(site->env, folder, 0700);
	r = r < 0 ? r : lb_site_target_identity_renew(site, &renewed);
	return r < 0 ? r
		     : lb_process_child_start(site, &(struct lb_child_spec){.target = true, .folder = folder},
					      ret_child);
}

void lb_process_child_restart(struct lb_process_child *child)
{
	child->restart = true;
	wake(child);
}

void lb_process_child_stop(struct lb_process_child *child)
{
	child->stop = true;
	wake(child);
	pthread_join(child->thread, NULL);
	close(child->wake_fd);
	free(child);
}
