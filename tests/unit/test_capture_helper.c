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

#include "base/err.h"
#include "capture/capture.h"
#include "loop_disk.h"

#define DISK_BYTES (16u << 20)
#define RING_BYTES (4u << 20)
#define AGENT_UID 65534
#define STRANGER_UID 65533

static const char *why_not;

struct site {
	struct loop_disk disk;
	char folder[64], pins[64], socket[96];
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
		execl(LB_HELPER, LB_HELPER, "--socket", s->socket, "--pins", s->pins, "--allow-uid", uid, NULL);
		_exit(127);
	}
	for (int i = 0; i < 5000 && !answers(s->socket); i++)
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
		r = lb_capture_drain(c, 0, 5000);
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

static void the_helper_keeps_only_the_capabilities_it_needs(void **state)
{
	struct site *s = *state;
	char path[64], line[256];
	unsigned long long effective = 0;

	site_start(s);
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
	static const char *const garbage[] = {
		"{}\n", "nonsense\n", "{\"cmd\":\"attach\",\"disks\":7,\"ring_bytes\":4194304}\n",
		"{\"cmd\":\"freeze\",\"mounts\":[],\"max_ms\":1}\n", "{\"cmd\":\"drain\"}\n"};
	struct site *s = *state;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char answer[512];

	site_start(s);
	memcpy(a.sun_path, s->socket, strlen(s->socket) + 1);
	for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
		_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
		assert_int_equal(send(fd, garbage[i], strlen(garbage[i]), MSG_NOSIGNAL), strlen(garbage[i]));
		ssize_t n = recv(fd, answer, sizeof(answer) - 1, 0);
		assert_true(n > 0);
		answer[n] = '\0';
		assert_non_null(strstr(answer, "\"error\""));
	}
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

static void mount_end(void)
{
	umount(mount_folder);
	rmdir(mount_folder);
}

static int agent_freezes(struct site *s, unsigned int max_ms, bool thaws)
{
	_cleanup_capture_ struct lb_capture *c = NULL;
	const char *names[1], *mounts[1] = {mount_folder};
	struct lb_capture_params p = params_of(s, names);
	int r = lb_capture_attach(s->socket, &p, &c);
	if (r == 0)
		r = lb_capture_freeze(c, mounts, 1, max_ms);
	if (r == 0 && thaws)
		r = lb_capture_thaw(c);
	return r;
}

static int agent_freezes_and_thaws(struct site *s)
{
	return agent_freezes(s, 10000, true);
}

static int agent_freezes_and_dies(struct site *s)
{
	return agent_freezes(s, 300, false);
}

static void write_a_file(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/file", mount_folder);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); /* waits as long as the file system is frozen */
	assert_true(fd >= 0);
	close(fd);
}

static void a_freeze_ends_by_a_thaw(void **state)
{
	struct site *s = *state;

	mount_make(s);
	int r = as_user(s, AGENT_UID, agent_freezes_and_thaws);
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

static void a_freeze_ends_when_the_helper_is_killed(void **state)
{
	struct site *s = *state;

	mount_make(s);
	int r = as_user(s, AGENT_UID, agent_freezes_and_dies);
	helper_stop(s, SIGKILL);
	write_a_file();
	mount_end();
	assert_int_equal(r, 0);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(an_agent_without_privileges_captures_through_the_helper, setup, teardown),
	cmocka_unit_test_setup_teardown(capture_goes_on_when_the_helper_is_killed, setup, teardown),
	cmocka_unit_test_setup_teardown(another_user_is_refused, setup, teardown),
	cmocka_unit_test_setup_teardown(the_helper_keeps_only_the_capabilities_it_needs, setup, teardown),
	cmocka_unit_test_setup_teardown(garbage_on_the_socket_is_answered_with_an_error, setup, teardown),
	cmocka_unit_test_setup_teardown(a_freeze_ends_by_a_thaw, setup, teardown),
	cmocka_unit_test_setup_teardown(a_freeze_ends_by_itself_when_the_agent_dies, setup, teardown),
	cmocka_unit_test_setup_teardown(a_freeze_ends_when_the_helper_is_killed, setup, teardown),
};

int main(void)
{
	check_machine();
	return cmocka_run_group_tests_name("capture_helper", tests, NULL, NULL);
}
