/* SPDX-License-Identifier: Apache-2.0 */
/* The privileged helper and an agent without privileges. Needs root, BPF and loop devices; skips where one is missing.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/err.h"
#include "capture/capture.h"
#include "capture/freeze.h"
#include "capture/runner.h"
#include "loop_disk.h"

#define DISK_BYTES (16u << 20)
#define RING_BYTES (4u << 20)
#define AGENT_UID 65534
#define STRANGER_UID 65533
#define WAIT_MS 120000 /* for what comes at once, on a machine that is busy with anything else */

static const char *why_not;

struct site {
	struct loop_disk disk;
	char folder[64], pins[64], socket[96], scripts[96];
	pid_t helper;
	void *buffer;
};

#define must(call)                                                                                                     \
	do {                                                                                                           \
		int must_r = (call);                                                                                   \
		if (must_r < 0)                                                                                        \
			fail_msg("%s: %d, %s", #call, must_r, lb_err_text());                                          \
	} while (0)

static void check_machine(void)
{
	_cleanup_free_ char *json = NULL;

	if (geteuid() != 0)
		why_not = "needs root";
	else if (access("/dev/loop-control", R_OK | W_OK) != 0)
		why_not = "needs loop devices";
	else if (lb_capture_probe_direct(&json) < 0 || strstr(json, "\"can_capture\":true") == NULL)
		why_not = "this kernel can't capture";
}

static bool answers(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(a.sun_path, path, strlen(path) + 1);
	return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

static void helper_start(struct site *s)
{
	char uid[16];

	snprintf(uid, sizeof(uid), "%d", AGENT_UID);
	s->helper = fork();
	assert_true(s->helper >= 0);
	if (s->helper == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(LB_HELPER, LB_HELPER, "--socket", s->socket, "--pins", s->pins, "--scripts", s->scripts,
		      "--allow-uid", uid, NULL);
		_exit(127);
	}
	for (int i = 0; i < WAIT_MS && !answers(s->socket); i++)
		usleep(1000);
	assert_true(answers(s->socket));
}

static void helper_stop(struct site *s, int signal)
{
	int status;

	if (s->helper <= 0)
		return;
	kill(s->helper, signal);
	waitpid(s->helper, &status, 0);
	s->helper = 0;
}

static int setup(void **state)
{
	static int number;
	struct site *s = calloc(1, sizeof(*s));

	s->disk.fd = s->disk.backing = -1;
	snprintf(s->folder, sizeof(s->folder), "/tmp/lifeboat-test-XXXXXX");
	if (mkdtemp(s->folder) == NULL || chmod(s->folder, 0755) < 0)
		return -1;
	snprintf(s->socket, sizeof(s->socket), "%s/socket", s->folder);
	snprintf(s->scripts, sizeof(s->scripts), "%s/scripts.d", s->folder);
	snprintf(s->pins, sizeof(s->pins), "/sys/fs/bpf/lifeboat_helper_%d_%d", getpid(), number++);
	*state = s;
	return posix_memalign(&s->buffer, 4096, 4096);
}

static int teardown(void **state)
{
	struct site *s = *state;

	helper_stop(s, SIGTERM);
	lb_capture_detach_pinned_direct(s->pins);
	loop_disk_end(&s->disk);
	unlink(s->socket);
	rmdir(s->folder);
	free(s->buffer);
	free(s);
	return 0;
}

static void site_start(struct site *s)
{
	if (why_not != NULL) {
		print_message("skipped: %s\n", why_not);
		skip();
	}
	must(loop_disk_in_memory(&s->disk, DISK_BYTES));
	helper_start(s);
}

/* Runs `agent` as a user without any privilege; its result is the exit status. */
static int as_user(struct site *s, uid_t uid, int (*agent)(struct site *s))
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		if (setgid(uid) < 0 || setuid(uid) < 0)
			_exit(100);
		int r = agent(s);
		if (r != 0)
			fprintf(stderr, "agent: %d, %s\n", r, lb_err_text());
		_exit(r < 0 ? 99 : r);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

static struct lb_capture_params params_of(struct site *s, const char **names)
{
	names[0] = s->disk.name;
	return (struct lb_capture_params){.disks = names, .disk_count = 1, .ring_bytes = RING_BYTES};
}

static int agent_begins(struct site *s)
{
	_cleanup_capture_ struct lb_capture *c = NULL;
	const char *names[1];
	struct lb_capture_params p = params_of(s, names);
	uint32_t generation;
	uint64_t position, skipped;
	int r = lb_capture_attach(s->socket, &p, &c);
	if (r == 0)
		r = lb_capture_begin_epoch(c, true, &generation, &position);
	if (r == 0)
		r = lb_capture_drain(c, 0, LB_CAPTURE_DRAIN_MS_MAX);
	if (r == 0)
		r = lb_capture_skipped(c, &skipped);
	if (r == 0 && pread(lb_capture_disk_fd(c, 0), s->buffer, 4096, 0) != 4096)
		r = 2;
	return r;
}

static int agent_reads_one(struct site *s)
{
	_cleanup_capture_ struct lb_capture *c = NULL;
	struct lb_capture_record record;
	struct lb_capture_info info;
	uint64_t limit;
	bool in_debt;
	int r = lb_capture_open(s->socket, &c);
	if (r < 0)
		return r;
	lb_capture_info(c, &info);
	lb_capture_limit(c, &limit, &in_debt);
	uint64_t position = lb_capture_consumer(c);
	if (!info.resumed || in_debt || lb_capture_next(c, &position, limit, &record) != 1)
		return 3;
	if (record.offset_bytes != 8192 || record.length_bytes != 4096 || record.data[17] != 'L')
		return 4;
	return lb_capture_acknowledge(c, position);
}

static int agent_detaches(struct site *s)
{
	return lb_capture_detach_pinned(s->socket);
}

static int agent_is_refused(struct site *s)
{
	_cleanup_capture_ struct lb_capture *c = NULL;
	int r = lb_capture_open(s->socket, &c);
	return r < 0 ? 0 : 5;
}

static void write_one(struct site *s)
{
	memset(s->buffer, 'L', 4096);
	assert_int_equal(pwrite(s->disk.fd, s->buffer, 4096, 8192), 4096);
}

static void an_agent_without_privileges_captures_through_the_helper(void **state)
{
	struct site *s = *state;

	site_start(s);
	assert_int_equal(as_user(s, AGENT_UID, agent_begins), 0);
	write_one(s);
	assert_int_equal(as_user(s, AGENT_UID, agent_reads_one), 0);
	assert_int_equal(as_user(s, AGENT_UID, agent_detaches), 0);
	assert_int_equal(access(s->pins, F_OK), -1);
}

static void capture_goes_on_when_the_helper_is_killed(void **state)
{
	struct site *s = *state;

	site_start(s);
	assert_int_equal(as_user(s, AGENT_UID, agent_begins), 0);
	helper_stop(s, SIGKILL);
	write_one(s);
	helper_start(s);
	assert_int_equal(as_user(s, AGENT_UID, agent_reads_one), 0);
}

static void another_user_is_refused(void **state)
{
	struct site *s = *state;

	site_start(s);
	assert_int_equal(as_user(s, AGENT_UID, agent_begins), 0);
	assert_int_equal(as_user(s, STRANGER_UID, agent_is_refused), 0);
	assert_int_equal(chmod(s->socket, 0666), 0); /* also one who can connect */
	assert_int_equal(as_user(s, STRANGER_UID, agent_is_refused), 0);
}

static void is_answered_with_an_error(struct site *s, const char *question)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char answer[512];

	memcpy(a.sun_path, s->socket, strlen(s->socket) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(send(fd, question, strlen(question), MSG_NOSIGNAL), strlen(question));
	ssize_t n = recv(fd, answer, sizeof(answer) - 1, 0);
	assert_true(n > 0);
	answer[n] = '\0';
	assert_non_null(strstr(answer, "\"error\""));
}

static void the_helper_keeps_only_the_capabilities_it_needs(void **state)
{
	struct site *s = *state;
	char path[64], line[256];
	unsigned long long effective = 0;

	site_start(s);
	is_answered_with_an_error(s, "{}\n"); /* connections wait for it before it has dropped the rest */
	snprintf(path, sizeof(path), "/proc/%d/status", s->helper);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		sscanf(line, "CapEff: %llx", &effective);
	/* dac_read_search 2, ipc_lock 14, sys_rawio 17, sys_admin 21, perfmon 38, bpf 39 */
	assert_int_equal(effective, 1ULL << 2 | 1ULL << 14 | 1ULL << 17 | 1ULL << 21 | 1ULL << 38 | 1ULL << 39);
}

static void garbage_on_the_socket_is_answered_with_an_error(void **state)
{
	static const char *const garbage[] = {"{}\n",
					      "nonsense\n",
					      "{\"cmd\":\"attach\",\"disks\":7,\"ring_bytes\":4194304}\n",
					      "{\"cmd\":\"freezer\",\"mounts\":[]}\n",
					      "{\"cmd\":\"scripts-pre\",\"max_ms\":0}\n",
					      "{\"cmd\":\"writers\"}\n",
					      "{\"cmd\":\"drain\"}\n"};
	struct site *s = *state;

	site_start(s);
	for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++)
		is_answered_with_an_error(s, garbage[i]);
	assert_true(answers(s->socket));
}

/* ---- Freezing ---------------------------------------------------------------------------------------------------- */

static char mount_folder[96];

static void mount_make(struct site *s)
{
	char command[160];

	site_start(s);
	snprintf(command, sizeof(command), "PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q %s >/dev/null 2>&1", s->disk.path);
	assert_int_equal(system(command), 0);
	snprintf(mount_folder, sizeof(mount_folder), "%s/mount", s->folder);
	assert_int_equal(mkdir(mount_folder, 0755), 0);
	assert_int_equal(mount(s->disk.path, mount_folder, "ext4", 0, NULL), 0);
}

/* The watchdog's processes hold it until they have seen that their socket is closed. */
static void mount_end(void)
{
	int r = umount(mount_folder);

	for (int i = 0; i < WAIT_MS && r < 0 && errno == EBUSY; i++) {
		usleep(1000);
		r = umount(mount_folder);
	}
	assert_int_equal(r, 0);
	rmdir(mount_folder);
}

static int64_t frozen_ns;

static int agent_freezes(struct site *s, unsigned int max_ms, bool thaws)
{
	_cleanup_(lb_freezer_freep) struct lb_freezer *f = NULL;
	const char *mounts[1] = {mount_folder};
	uint64_t skipped;
	int r = lb_freezer_new(s->socket, mounts, 1, &f);

	if (r == 0)
		r = lb_freezer_freeze(f, max_ms, &skipped);
	if (r == 0 && thaws)
		r = lb_freezer_thaw(f, &frozen_ns);
	else
		f = NULL; /* its end of the socket goes with the process */
	return r;
}

static int agent_freezes_and_thaws(struct site *s)
{
	int r = agent_freezes(s, 60000, true);

	return r == 0 && (frozen_ns <= 0 || frozen_ns > 60 * LB_NS_PER_S) ? -ERANGE : r;
}

static int agent_freezes_and_dies(struct site *s)
{
	return agent_freezes(s, 60000, false);
}

static void write_a_file(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/file", mount_folder);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); /* waits as long as the file system is frozen */
	assert_true(fd >= 0);
	close(fd);
}

/* While it is frozen, and afterwards: the kernel's grace periods are as they were. Other tests may freeze, too. */
static void assert_in_no_hurry(void)
{
	char is = '0';

	for (int i = 0; i < WAIT_MS; i++) {
		int fd = open("/sys/kernel/rcu_expedited", O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return; /* a kernel that has no such thing */
		assert_int_equal(read(fd, &is, 1), 1);
		close(fd);
		if (is == '0')
			return;
		usleep(1000);
	}
	assert_int_equal(is, '0');
}

/* The one before ends in its own time. */
static struct lb_freezer *freezer_when_free(const struct site *s)
{
	const char *mounts[1] = {mount_folder};
	struct lb_freezer *f = NULL;
	int r = lb_freezer_new(s->socket, mounts, 1, &f);

	for (int i = 0; i < WAIT_MS && r == -EBUSY; i++) {
		usleep(1000);
		r = lb_freezer_new(s->socket, mounts, 1, &f);
	}
	must(r);
	return f;
}

static void a_freeze_ends_by_a_thaw(void **state)
{
	struct site *s = *state;

	mount_make(s);
	int r = as_user(s, AGENT_UID, agent_freezes_and_thaws);
	assert_in_no_hurry();
	write_a_file();
	mount_end();
	assert_int_equal(r, 0);
}

static void a_freeze_ends_by_itself_when_the_agent_dies(void **state)
{
	struct site *s = *state;

	mount_make(s);
	int r = as_user(s, AGENT_UID, agent_freezes_and_dies);
	write_a_file();
	mount_end();
	assert_int_equal(r, 0);
}

static void a_freeze_goes_on_without_the_helper_and_ends_by_a_thaw(void **state)
{
	struct site *s = *state;
	const char *mounts[1] = {mount_folder};
	struct lb_freezer *f;
	uint64_t skipped;
	int64_t ns;

	mount_make(s);
	must(lb_freezer_new(s->socket, mounts, 1, &f));
	must(lb_freezer_freeze(f, 60000, &skipped));
	assert_in_no_hurry();
	helper_stop(s, SIGKILL);
	must(lb_freezer_thaw(f, &ns));
	lb_freezer_free(f);
	write_a_file();
	mount_end();
}

static void a_freeze_ends_when_agent_and_helper_are_killed(void **state)
{
	struct site *s = *state;

	mount_make(s);
	int r = as_user(s, AGENT_UID, agent_freezes_and_dies);
	helper_stop(s, SIGKILL);
	assert_in_no_hurry();
	write_a_file();
	mount_end();
	assert_int_equal(r, 0);
}

static void filesystems_are_synced_once_more_without_a_freeze(void **state)
{
	struct site *s = *state;
	const char *mounts[1] = {mount_folder};
	struct lb_freezer *f;
	uint64_t skipped;
	int64_t ns;

	mount_make(s);
	must(lb_freezer_new(s->socket, mounts, 1, &f));
	must(lb_freezer_sync(f, 60000));
	write_a_file();
	must(lb_freezer_sync(f, 60000));
	must(lb_freezer_freeze(f, 60000, &skipped));
	must(lb_freezer_thaw(f, &ns));
	lb_freezer_free(f);
	write_a_file();
	mount_end();
}

static void a_freeze_that_lasts_too_long_is_ended_and_the_thaw_says_so(void **state)
{
	struct site *s = *state;
	struct lb_freezer *f;
	uint64_t skipped;
	int64_t ns;
	int r = -ETIMEDOUT;

	mount_make(s);
	/* on a busy machine the limit may have passed before all is frozen */
	for (unsigned int limit_ms = 100; r == -ETIMEDOUT && limit_ms <= LB_FREEZE_MS_MAX; limit_ms *= 4) {
		f = freezer_when_free(s);
		r = lb_freezer_freeze(f, limit_ms, &skipped);
		if (r < 0)
			lb_freezer_free(f);
	}
	must(r);
	write_a_file(); /* until it ends by itself */
	assert_int_equal(lb_freezer_thaw(f, &ns), -ETIMEDOUT);
	lb_freezer_free(f);
	mount_end();
}

static void a_second_freeze_waits_for_the_first_to_end(void **state)
{
	struct site *s = *state;
	const char *mounts[1] = {mount_folder};
	struct lb_freezer *f, *g;

	mount_make(s);
	must(lb_freezer_new(s->socket, mounts, 1, &f));
	assert_int_equal(lb_freezer_new(s->socket, mounts, 1, &g), -EBUSY);
	lb_freezer_free(f);
	lb_freezer_free(freezer_when_free(s));
	mount_end();
}

/* ---- Scripts ----------------------------------------------------------------------------------------------------- */

static void script_make(const struct site *s, const char *name, mode_t mode, const char *text)
{
	char path[160];

	mkdir(s->scripts, 0755);
	snprintf(path, sizeof(path), "%s/%s", s->scripts, name);
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	fprintf(f, "#!/bin/sh\n%s\n", text);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

static bool was_made(const struct site *s, const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", s->folder, name);
	return access(path, F_OK) == 0;
}

static void wait_until_made(const struct site *s, const char *name)
{
	for (int i = 0; i < WAIT_MS && !was_made(s, name); i++)
		usleep(1000);
	assert_true(was_made(s, name));
}

static void scripts_end(const struct site *s)
{
	char command[256];

	snprintf(command, sizeof(command), "rm -r %s; rm -f %s/made-*", s->scripts, s->folder);
	assert_int_equal(system(command), 0);
}

static void touch_script(const struct site *s, const char *name, const char *made)
{
	char text[192];

	snprintf(text, sizeof(text), "touch %s/%s", s->folder, made);
	script_make(s, name, 0755, text);
}

static void scripts_run_before_and_after_in_their_order(void **state)
{
	struct site *s = *state;
	char text[256];

	site_start(s);
	must(lb_scripts_pre(s->socket, 30000, 60000)); /* none is none */
	must(lb_scripts_post(s->socket, 30000));
	touch_script(s, "pre-10-a", "made-a");
	snprintf(text, sizeof(text), "test -e %s/made-a && test \"$LIFEBOAT_PHASE\" = pre && touch %s/made-b",
		 s->folder, s->folder);
	script_make(s, "pre-20-b", 0755, text);
	touch_script(s, "post-10-c", "made-c");
	must(lb_scripts_pre(s->socket, 30000, 60000));
	assert_true(was_made(s, "made-b"));
	assert_false(was_made(s, "made-c"));
	must(lb_scripts_post(s->socket, 30000));
	assert_true(was_made(s, "made-c"));
	scripts_end(s);
}

static void a_pre_script_that_fails_is_named_and_post_scripts_still_run(void **state)
{
	struct site *s = *state;

	site_start(s);
	script_make(s, "pre-10-bad", 0755, "echo no database here >&2; exit 3");
	touch_script(s, "pre-20-late", "made-late");
	touch_script(s, "post-10-c", "made-c");
	assert_int_equal(lb_scripts_pre(s->socket, 30000, 60000), -EREMOTEIO);
	assert_non_null(strstr(lb_err_text(), "pre-10-bad ended with status 3: no database here"));
	assert_false(was_made(s, "made-late"));
	must(lb_scripts_post(s->socket, 30000));
	assert_true(was_made(s, "made-c"));
	scripts_end(s);
}

/* Gone, or dead and not yet reaped by whoever adopts orphans. */
static bool has_ended(int pid)
{
	char path[64], line[512];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	return f == NULL || fgets(line, sizeof(line), f) == NULL || strstr(line, ") Z ") != NULL;
}

static void a_script_that_hangs_is_killed_with_all_its_children(void **state)
{
	struct site *s = *state;
	char text[600], path[160];
	int child = 0;

	site_start(s);
	snprintf(path, sizeof(path), "%s/made-child", s->folder);
	snprintf(text, sizeof(text), "sleep 1000 & echo $! >%s.new && mv %s.new %s; wait", path, path, path);
	script_make(s, "pre-10-hangs", 0755, text);
	/* on a busy machine it may be killed before it has a child at all */
	for (uint32_t limit_ms = 300; !was_made(s, "made-child"); limit_ms *= 4) {
		assert_in_range(limit_ms, 1, LB_SCRIPTS_MS_MAX);
		assert_int_equal(lb_scripts_pre(s->socket, limit_ms, 60000), -ETIMEDOUT);
		assert_non_null(strstr(lb_err_text(), "pre-10-hangs was killed"));
	}
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &child), 1);
	for (int i = 0; i < WAIT_MS && !has_ended(child); i++)
		usleep(1000);
	assert_true(has_ended(child));
	scripts_end(s);
}

static void post_scripts_run_by_themselves_when_nobody_asks(void **state)
{
	struct site *s = *state;

	site_start(s);
	touch_script(s, "post-10-c", "made-c");
	must(lb_scripts_pre(s->socket, 30000, 200));
	wait_until_made(s, "made-c");
	scripts_end(s);
}

static void post_scripts_run_when_the_helper_is_killed(void **state)
{
	struct site *s = *state;

	site_start(s);
	touch_script(s, "post-10-c", "made-c");
	must(lb_scripts_pre(s->socket, 30000, 300000));
	helper_stop(s, SIGKILL);
	wait_until_made(s, "made-c");
	scripts_end(s);
}

static void a_script_that_others_can_write_is_not_run(void **state)
{
	struct site *s = *state;
	char path[160];

	site_start(s);
	script_make(s, "pre-10-open", 0777, "exit 0");
	assert_int_equal(lb_scripts_pre(s->socket, 30000, 60000), -EPERM);
	assert_non_null(strstr(lb_err_text(), "pre-10-open"));
	script_make(s, "pre-10-open", 0755, "exit 0");
	snprintf(path, sizeof(path), "%s/pre-10-open", s->scripts);
	assert_int_equal(chown(path, AGENT_UID, 0), 0);
	assert_int_equal(lb_scripts_pre(s->socket, 30000, 60000), -EPERM);
	assert_int_equal(chown(path, 0, 0), 0);
	must(lb_scripts_pre(s->socket, 30000, 60000));
	assert_int_equal(chmod(s->scripts, 0777), 0);
	assert_int_equal(lb_scripts_pre(s->socket, 30000, 60000), -EPERM);
	scripts_end(s);
}

static void who_writes_to_a_disk_past_its_filesystem_is_named(void **state)
{
	struct site *s = *state;
	const char *disks[1];

	site_start(s);
	disks[0] = strrchr(s->disk.path, '/') + 1;
	int reader = open(s->disk.path, O_RDONLY | O_CLOEXEC);
	int writer = s->disk.fd; /* O_RDWR */
	assert_int_equal(lb_raw_writers(s->socket, disks, 1), -EBUSY);
	assert_non_null(strstr(lb_err_text(), s->disk.path));
	assert_non_null(strstr(lb_err_text(), "test_capture_he"));
	close(writer);
	must(lb_raw_writers(s->socket, disks, 1));
	s->disk.fd = reader;
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(an_agent_without_privileges_captures_through_the_helper, setup, teardown),
	cmocka_unit_test_setup_teardown(capture_goes_on_when_the_helper_is_killed, setup, teardown),
	cmocka_unit_test_setup_teardown(another_user_is_refused, setup, teardown),
	cmocka_unit_test_setup_teardown(the_helper_keeps_only_the_capabilities_it_needs, setup, teardown),
	cmocka_unit_test_setup_teardown(garbage_on_the_socket_is_answered_with_an_error, setup, teardown),
	cmocka_unit_test_setup_teardown(a_freeze_ends_by_a_thaw, setup, teardown),
	cmocka_unit_test_setup_teardown(filesystems_are_synced_once_more_without_a_freeze, setup, teardown),
	cmocka_unit_test_setup_teardown(a_freeze_ends_by_itself_when_the_agent_dies, setup, teardown),
	cmocka_unit_test_setup_teardown(a_freeze_goes_on_without_the_helper_and_ends_by_a_thaw, setup, teardown),
	cmocka_unit_test_setup_teardown(a_freeze_ends_when_agent_and_helper_are_killed, setup, teardown),
	cmocka_unit_test_setup_teardown(a_freeze_that_lasts_too_long_is_ended_and_the_thaw_says_so, setup, teardown),
	cmocka_unit_test_setup_teardown(a_second_freeze_waits_for_the_first_to_end, setup, teardown),
	cmocka_unit_test_setup_teardown(scripts_run_before_and_after_in_their_order, setup, teardown),
	cmocka_unit_test_setup_teardown(a_pre_script_that_fails_is_named_and_post_scripts_still_run, setup, teardown),
	cmocka_unit_test_setup_teardown(a_script_that_hangs_is_killed_with_all_its_children, setup, teardown),
	cmocka_unit_test_setup_teardown(post_scripts_run_by_themselves_when_nobody_asks, setup, teardown),
	cmocka_unit_test_setup_teardown(post_scripts_run_when_the_helper_is_killed, setup, teardown),
	cmocka_unit_test_setup_teardown(a_script_that_others_can_write_is_not_run, setup, teardown),
	cmocka_unit_test_setup_teardown(who_writes_to_a_disk_past_its_filesystem_is_named, setup, teardown),
};

int main(void)
{
	check_machine();
	return cmocka_run_group_tests_name("capture_helper", tests, NULL, NULL);
}
