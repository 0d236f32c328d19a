/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"

#define PATH_BYTES_MAX 4096
#define VISIBLE_WAIT_MS 2000
#define ORPHAN_LOOK_US 200

static int is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* Of Debian's, in which the programs are that recovery uses. */
static const struct {
	const char *program, *package;
} packages[] = {
	{"qemu-system-x86_64", "qemu-system-x86"},
	{"qemu-img", "qemu-utils"},
	{"qemu-nbd", "qemu-utils"},
	{"nbdkit", "nbdkit"},
	{"lifeboat-segment", "lifeboat"},
};

/* NULL: not known. */
static const char *package_of(const char *program)
{
	for (size_t i = 0; i < LB_ARRAY_LEN(packages); i++)
		if (strcmp(packages[i].program, program) == 0)
			return packages[i].package;
	return NULL;
}

int lb_proc_which(const char *program, char **ret_path)
{
	const char *path = getenv("PATH"), *package;
	_cleanup_free_ char *folders = NULL;
	char *rest, *folder, full[PATH_BYTES_MAX];

	if (strchr(program, '/') != NULL) {
		snprintf(full, sizeof(full), "%s", program);
		if (!is_program(full))
			return lb_fail(-ENOENT, "there is no program %s", program);
		*ret_path = strdup(full);
		return *ret_path != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
	}
	if (asprintf(&folders, "%s:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", path != NULL ? path : "") < 0)
		return lb_fail(-ENOMEM, "out of memory");
	rest = folders;
	while ((folder = strsep(&rest, ":")) != NULL) {
		if (*folder == '\0' || snprintf(full, sizeof(full), "%s/%s", folder, program) >= (int)sizeof(full))
			continue;
		if (!is_program(full))
			continue;
		*ret_path = strdup(full);
		return *ret_path != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
	}
	package = package_of(program);
	return lb_fail(-ENOENT, "the program %s is not installed%s%s", program,
		       package != NULL ? "; it is in the package " : "", package != NULL ? package : "");
}

struct child {
	const char *path;
	const char *const *argv;
	int out_fd;  /* standard output and error */
	int keep_fd; /* -1: none */
	int error_fd;
	int death_signal; /* 0: none */
	const char *const *environment;
	bool group;
};

/* Between fork and exec in a program with threads: system calls only. */
static void child_exec(const struct child *c)
{
	int null_fd, error;
	sigset_t none;

	if (c->death_signal != 0)
		prctl(PR_SET_PDEATHSIG, c->death_signal);
	if (c->group)
		setpgid(0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	null_fd = open("/dev/null", O_RDWR);
	if (null_fd >= 0 && dup2(null_fd, 0) >= 0 && dup2(c->out_fd, 1) >= 0 && dup2(c->out_fd, 2) >= 0 &&
	    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0) {
		if (c->keep_fd >= 0)
			fcntl(c->keep_fd, F_SETFD, 0);
		if (c->environment != NULL)
			execve(c->path, (char *const *)c->argv, (char *const *)c->environment);
		else
			execv(c->path, (char *const *)c->argv);
	}
	error = errno;
	if (write(c->error_fd, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

/* 0 when the child's exec has happened: the pipe then closes without a word. */
static int exec_result(int fd, const char *path)
{
	int error;
	ssize_t n;

	do {
		n = read(fd, &error, sizeof(error));
	} while (n < 0 && errno == EINTR);
	if (n == sizeof(error))
		return lb_fail(-error, "can't start %s: %s", path, strerror(error));
	return 0;
}

static int output_read(const struct lb_proc_run *run, struct lb_buf *out, int fd, bool *ret_end)
{
	char piece[4096];
	ssize_t n = read(fd, piece, sizeof(piece));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : lb_fail(-errno, "can't read a program's output");
	*ret_end = n == 0;
	if (n > 0 && out != NULL) {
		size_t room = out->size_bytes_max - out->size_bytes;

		if (lb_buf_append(out, piece, LB_MIN((size_t)n, room)) == -ENOMEM)
			return lb_fail(-ENOMEM, "out of memory");
	}
	return n > 0 && run->output != NULL ? run->output(run->arg, piece, (size_t)n) : 0;
}

static int output_drain(struct lb_env *env, const struct lb_proc_run *run, struct lb_buf *out, int fd)
{
	int64_t end_ns = lb_mono_ns(env) + (int64_t)run->timeout_s * LB_NS_PER_S;
	bool end = false;

	while (!end) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left_ms = (end_ns - lb_mono_ns(env)) / LB_NS_PER_MS;
		int r;

		if (run->timeout_s != 0 && left_ms <= 0)
			return lb_fail(-ETIMEDOUT, "%s has not ended within %u s", run->argv[0], run->timeout_s);
		r = poll(&p, 1, run->timeout_s != 0 ? (int)LB_MIN(left_ms, 1000) : 1000);
		if (r > 0)
			r = output_read(run, out, fd, &end);
		else if (r < 0)
			r = errno == EINTR ? 0 : lb_fail(-errno, "can't wait for %s", run->argv[0]);
		if (r == 0 && run->idle != NULL)
			r = run->idle(run->arg);
		if (r != 0)
			return r;
	}
	return 0;
}

static int wait_child(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

static void last_line_of(const char *text, size_t size_bytes, char line[LB_PROC_LAST_LINE_BYTES])
{
	size_t end = size_bytes, begin;

	while (end > 0 && (text[end - 1] == '\n' || text[end - 1] == '\r' || text[end - 1] == ' '))
		end--;
	begin = end;
	while (begin > 0 && text[begin - 1] != '\n' && text[begin - 1] != '\r')
		begin--;
	snprintf(line, LB_PROC_LAST_LINE_BYTES, "%.*s", (int)LB_MIN(end - begin, (size_t)LB_PROC_LAST_LINE_BYTES - 1),
		 text + begin);
}

static int run_result(const struct lb_proc_run *run, const struct lb_buf *out, int status)
{
	char line[LB_PROC_LAST_LINE_BYTES];

	if (status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	last_line_of(out->data != NULL ? (const char *)out->data : "", out->size_bytes, line);
	if (status >= 0 && WIFSIGNALED(status))
		return lb_fail(-EREMOTEIO, "%s was ended by signal %d: %s", run->argv[0], WTERMSIG(status), line);
	return lb_fail(-EREMOTEIO, "%s failed: %s", run->argv[0], line[0] != '\0' ? line : "it printed nothing");
}

int lb_proc_run(struct lb_env *env, const struct lb_proc_run *run, struct lb_buf *out)
{
	_cleanup_buf_ struct lb_buf own = LB_BUF(LB_PROC_OUTPUT_BYTES_MAX);
	_cleanup_close_ int out_read = -1, error_read = -1;
	_cleanup_free_ char *path = NULL;
	int out_pipe[2], error_pipe[2], r, status;
	pid_t pid;

	r = lb_proc_which(run->argv[0], &path);
	if (r < 0)
		return r;
	if (pipe2(out_pipe, O_CLOEXEC) < 0)
		return lb_fail(-errno, "can't make a pipe: %s", strerror(errno));
	out_read = out_pipe[0];
	if (pipe2(error_pipe, O_CLOEXEC) < 0) {
		close(out_pipe[1]);
		return lb_fail(-EMFILE, "can't make a pipe for %s", path);
	}
	error_read = error_pipe[0];
	pid = fork();
	if (pid == 0)
		child_exec(&(struct child){.path = path,
					   .argv = run->argv,
					   .out_fd = out_pipe[1],
					   .keep_fd = run->keep_fd,
					   .error_fd = error_pipe[1],
					   .death_signal = SIGKILL,
					   .environment = run->environment,
					   .group = run->group});
	close(out_pipe[1]);
	close(error_pipe[1]);
	if (pid < 0)
		return lb_fail(-EAGAIN, "can't start %s: no process to be had", path);
	r = exec_result(error_read, path);
	if (r == 0)
		r = output_drain(env, run, out != NULL ? out : &own, out_read);
	if (r != 0)
		kill(run->group ? -pid : pid, SIGKILL);
	status = wait_child(pid);
	return r != 0 ? r : run_result(run, out != NULL ? out : &own, status);
}

/* nbdkit asks to be ended with its parent: that is to be whoever adopts it, and not the process in the middle. */
static void wait_orphaned(pid_t middle)
{
	while (getppid() == middle)
		usleep(ORPHAN_LOOK_US);
}

/* A grandchild: its parent ends at once, so that the process that adopts orphans also reaps it. */
static void spawn_child(const struct child *c, int pid_fd)
{
	pid_t middle = getpid(), pid;

	setsid();
	pid = fork();
	if (pid == 0) {
		wait_orphaned(middle);
		/* what lives on without us has no rights of ours */
		prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
		child_exec(c);
	}
	if (pid > 0 && write(pid_fd, &pid, sizeof(pid)) == sizeof(pid))
		_exit(0);
	_exit(1);
}

static bool is_zombie(pid_t pid)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[64], state = 'Z';

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	return f == NULL || fscanf(f, "%*d (%*[^)]) %c", &state) != 1 || state == 'Z' || state == 'X';
}

/* The arguments of a process can be read a moment after its exec only; then lb_proc_find() sees it. Or it has ended. */
static void wait_visible(struct lb_env *env, pid_t pid)
{
	int64_t end_ns = lb_mono_ns(env) + VISIBLE_WAIT_MS * LB_NS_PER_MS;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	while (lb_mono_ns(env) < end_ns) {
		_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
		char byte;

		if (fd < 0 || read(fd, &byte, 1) == 1 || is_zombie(pid))
			return;
		lb_proc_pause(env, 1);
	}
}

static int spawn_result(struct lb_env *env, pid_t child, int pid_fd, int error_fd, const char *path, pid_t *ret_pid)
{
	pid_t pid = 0;
	ssize_t n;
	int r;

	n = read(pid_fd, &pid, sizeof(pid));
	r = exec_result(error_fd, path);
	wait_child(child);
	if (r < 0)
		return r;
	if (n != sizeof(pid))
		return lb_fail(-EAGAIN, "can't start %s: no process to be had", path);
	wait_visible(env, pid);
	*ret_pid = pid;
	return 0;
}

int lb_proc_spawn(struct lb_env *env, const struct lb_proc_spawn *spawn, pid_t *ret_pid)
{
	_cleanup_close_ int log_fd = -1, pid_read = -1, error_read = -1;
	_cleanup_free_ char *path = NULL;
	int pid_pipe[2], error_pipe[2], r;
	pid_t child;

	r = lb_proc_which(spawn->argv[0], &path);
	if (r < 0)
		return r;
	log_fd = env->ops->open(env, spawn->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log_fd < 0)
		return lb_fail(log_fd, "can't write the log %s: %s", spawn->log_path, strerror(-log_fd));
	if (pipe2(pid_pipe, O_CLOEXEC) < 0)
		return lb_fail(-errno, "can't make a pipe: %s", strerror(errno));
	pid_read = pid_pipe[0];
	if (pipe2(error_pipe, O_CLOEXEC) < 0) {
		close(pid_pipe[1]);
		return lb_fail(-EMFILE, "can't make a pipe for %s", path);
	}
	error_read = error_pipe[0];
	child = fork();
	if (child == 0)
		spawn_child(&(struct child){.path = path,
					    .argv = spawn->argv,
					    .out_fd = log_fd,
					    .keep_fd = spawn->keep_fd,
					    .error_fd = error_pipe[1]},
			    pid_pipe[1]);
	close(pid_pipe[1]);
	close(error_pipe[1]);
	if (child < 0)
		return lb_fail(-EAGAIN, "can't start %s: no process to be had", path);
	return spawn_result(env, child, pid_read, error_read, path, ret_pid);
}

void lb_proc_last_line(struct lb_env *env, const char *log_path, char text[LB_PROC_LAST_LINE_BYTES])
{
	int fd = env->ops->open(env, log_path, O_RDONLY, 0);
	uint64_t size_bytes = 0, begin;
	char piece[4096];
	ssize_t n = 0;

	text[0] = '\0';
	if (fd < 0)
		return;
	if (env->ops->size(env, fd, &size_bytes) == 0) {
		begin = size_bytes > sizeof(piece) ? size_bytes - sizeof(piece) : 0;
		n = env->ops->pread(env, fd, piece, sizeof(piece), begin);
	}
	env->ops->close(env, fd);
	if (n > 0)
		last_line_of(piece, (size_t)n, text);
}

void lb_proc_pause(struct lb_env *env, uint32_t ms)
{
	env->ops->wait_until(env, lb_mono_ns(env) + (int64_t)ms * LB_NS_PER_MS, -1);
}
