/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "fabric/accel.h"
#include "fabric/double_settings.h"
#include "fabric/failover_internal.h"
#include "fabric/secret.h"

static struct lb_env *env;
static char folder[] = "/tmp/lb-fabric.XXXXXX";

static const char *in_folder(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static int run(const char *script, uint32_t timeout_s, struct lb_buf *out)
{
	const char *argv[] = {"sh", "-c", script, NULL};

	return lb_proc_run(env, &(struct lb_proc_run){.argv = argv, .keep_fd = -1, .timeout_s = timeout_s}, out);
}

static void a_program_gives_its_output_up_to_the_ceiling(void **s)
{
	_cleanup_buf_ struct lb_buf out = LB_BUF(10);

	(void)s;
	assert_int_equal(run("echo out; echo err >&2; seq 100000", 0, &out), 0);
	assert_int_equal(out.size_bytes, 10);
	assert_memory_equal(out.data, "out\nerr\n1\n", 10);
}

static void a_program_that_fails_is_told_with_its_last_line(void **s)
{
	(void)s;
	assert_int_equal(run("echo first; echo the reason; exit 3", 0, NULL), -EREMOTEIO);
	assert_non_null(strstr(lb_err_text(), "the reason"));
	assert_int_equal(run("kill -9 $$", 0, NULL), -EREMOTEIO);
	assert_non_null(strstr(lb_err_text(), "signal 9"));
}

static void a_program_that_is_missing_is_named_and_its_package(void **s)
{
	const char *argv[] = {"no-such-program", NULL};
	_cleanup_free_ char *path = NULL;

	(void)s;
	assert_int_equal(lb_proc_run(env, &(struct lb_proc_run){.argv = argv, .keep_fd = -1}, NULL), -ENOENT);
	assert_non_null(strstr(lb_err_text(), "no-such-program"));
	/* of what is looked for this is installed on no machine that only builds */
	if (lb_proc_which("lifeboat-segment", &path) == -ENOENT)
		assert_non_null(strstr(lb_err_text(), "in the package lifeboat"));
}

static void a_program_that_takes_too_long_is_killed(void **s)
{
	(void)s;
	assert_int_equal(run("while :; do sleep 1; done", 1, NULL), -ETIMEDOUT);
}

static int refuse(void *arg, const char *text, size_t size_bytes)
{
	(void)text;
	(void)size_bytes;
	*(int *)arg += 1;
	return -ECANCELED;
}

static void a_program_whose_output_is_refused_is_ended(void **s)
{
	const char *argv[] = {"sh", "-c", "while :; do echo more; done", NULL};
	int calls = 0;

	(void)s;
	assert_int_equal(
		lb_proc_run(env, &(struct lb_proc_run){.argv = argv, .keep_fd = -1, .output = refuse, .arg = &calls},
			    NULL),
		-ECANCELED);
	assert_int_equal(calls, 1);
}

static void a_spawned_program_lives_on_is_found_by_its_argument_and_ended(void **s)
{
	_cleanup_free_ char *tag = strdup(in_folder("tag"));
	_cleanup_free_ char *log = strdup(in_folder("log"));
	const char *argv[] = {"sh", "-c", "trap '' TERM HUP; while :; do sleep 0.01; done", tag, NULL};
	pid_t pid, other;

	(void)s;
	assert_int_equal(lb_proc_find(env, tag), 0);
	assert_int_equal(
		lb_proc_spawn(env, &(struct lb_proc_spawn){.argv = argv, .log_path = log, .keep_fd = -1}, &pid), 0);
	assert_int_equal(lb_proc_find(env, tag), pid);
	assert_int_not_equal(getsid(pid), getsid(0));
	argv[3] = "/tmp/another-tag";
	assert_int_equal(
		lb_proc_spawn(env, &(struct lb_proc_spawn){.argv = argv, .log_path = log, .keep_fd = -1}, &other), 0);
	/* it ignores SIGTERM: only SIGKILL ends it */
	assert_int_equal(lb_proc_end(env, tag), 0);
	assert_int_equal(lb_proc_find(env, tag), 0);
	assert_int_equal(lb_proc_find(env, "/tmp/another-tag"), other);
	assert_int_equal(kill(other, SIGKILL), 0);
}

static void a_spawned_program_inherits_one_descriptor_and_no_other(void **s)
{
	_cleanup_free_ char *log = strdup(in_folder("fds"));
	/* high ones, which the shell does not use itself; neither is close-on-exec */
	_cleanup_close_ int keep = fcntl(0, F_DUPFD, 100), leak = fcntl(0, F_DUPFD, 200);
	const char *argv[] = {"sh", "-c", "for f in /proc/self/fd/*; do echo fd ${f##*/}; done; echo end", NULL};
	char line[LB_PROC_LAST_LINE_BYTES] = "", kept[32], leaked[32];
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes;
	pid_t pid;

	(void)s;
	assert_int_equal(
		lb_proc_spawn(env, &(struct lb_proc_spawn){.argv = argv, .log_path = log, .keep_fd = keep}, &pid), 0);
	while (strcmp(line, "end") != 0) {
		lb_proc_pause(env, 5);
		lb_proc_last_line(env, log, line);
	}
	assert_int_equal(lb_file_read(env, log, 4096, &text, &size_bytes), 0);
	snprintf(kept, sizeof(kept), "fd %d\n", keep);
	snprintf(leaked, sizeof(leaked), "fd %d\n", leak);
	assert_non_null(strstr((char *)text, kept));
	assert_null(strstr((char *)text, leaked));
}

/* The monitor of a QEMU that is about to end: it takes calls and answers none. */
static void *hang_up(void *arg)
{
	for (int listener = *(int *)arg, fd; (fd = accept(listener, NULL, NULL)) >= 0;)
		close(fd);
	return NULL;
}

static void a_vm_whose_monitor_has_gone_before_it_has_ended(void **s)
{
	_cleanup_(lb_fabric_freep) struct lb_fabric *f = NULL;
	_cleanup_free_ char *pidfile = strdup(in_folder("qemu.pid")), *log = strdup(in_folder("ending"));
	_cleanup_close_ int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const char *argv[] = {"sh", "-c", "sleep 0.5; :", "sh", pidfile, NULL};
	const struct lb_vm_spec vm = {.name = "ending", .folder = folder};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	enum lb_vm_state state = LB_VM_RUNNING;
	pthread_t monitor;
	pid_t pid;

	(void)s;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/qmp.sock", folder);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 4), 0);
	assert_int_equal(pthread_create(&monitor, NULL, hang_up, &listener), 0);
	assert_int_equal(lb_fabric_open(env, "qemu", &f), 0);
	assert_int_equal(
		lb_proc_spawn(env, &(struct lb_proc_spawn){.argv = argv, .log_path = log, .keep_fd = -1}, &pid), 0);
	assert_int_equal(f->ops->stop(f, &vm, true), 0);
	assert_int_equal(
		lb_proc_spawn(env, &(struct lb_proc_spawn){.argv = argv, .log_path = log, .keep_fd = -1}, &pid), 0);
	assert_int_equal(f->ops->state(f, &vm, &state), 0);
	assert_int_equal(state, LB_VM_STOPPED);
	shutdown(listener, SHUT_RDWR);
	pthread_join(monitor, NULL);
}

static void a_folder_that_sockets_or_command_lines_cannot_take_is_refused(void **s)
{
	(void)s;
	assert_int_equal(lb_vm_folder_check("/var/lib/lifeboat/vm", "db1-test"), 0);
	assert_int_equal(lb_vm_folder_check("relative", "db1"), -EINVAL);
	assert_int_equal(lb_vm_folder_check("/a,b", "db1"), -EINVAL);
	assert_int_equal(lb_vm_folder_check("/a<b", "db1"), -EINVAL);
	assert_int_equal(lb_vm_folder_check("/a", "../b"), -EINVAL);
	assert_int_equal(
		lb_vm_folder_check("/an/extraordinarily/long/folder/name/that/goes/on/and/on/until/no/socket/fits",
				   "a-machine-with-a-long-name"),
		-ENAMETOOLONG);
}

static bool has(const struct lb_argv *a, const char *text)
{
	for (unsigned int i = 0; i < a->n; i++)
		if (strstr(a->argv[i], text) != NULL)
			return true;
	return false;
}

static void fill_vm(struct lb_vm_spec *vm, uint32_t n_disks)
{
	*vm = (struct lb_vm_spec){.name = "double",
				  .firmware = "bios",
				  .memory_bytes = 512u << 20,
				  .cpus = 2,
				  .n_disks = n_disks,
				  .n_forwards = 1,
				  .isolated = true};
	vm->folder = strdup("/vm/double");
	vm->forwards[0] = (struct lb_vm_forward){.address = "127.0.0.1", .host_port = 2222, .guest_port = 22};
	for (uint32_t i = 0; i < n_disks; i++)
		vm->disks[i] =
			(struct lb_vm_disk){.path = strdup("/vm/double/disk.qcow2"), .boot = i == 1, .serial = "S1"};
	vm->oem_strings[0] = strdup("lifeboat:double=x");
	vm->n_oem_strings = 1;
}

static void a_command_line_says_what_the_double_is_and_isolates_it(void **s)
{
	_cleanup_(lb_argv_clear) struct lb_argv a = {0};
	_cleanup_(lb_vm_spec_clear) struct lb_vm_spec vm;

	(void)s;
	fill_vm(&vm, 2);
	assert_int_equal(lb_qemu_argv(env, &vm, -1, &a), 0);
	assert_true(has(&a, "type=11,value=lifeboat:double=x"));
	assert_true(has(&a, "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22"));
	assert_true(has(&a, "virtio-blk-pci,drive=disk1,rerror=stop,werror=stop,bootindex=1,serial=S1"));
	assert_true(has(&a, "-nodefaults"));
	assert_true(has(&a, "512M"));
	assert_false(has(&a, "opt/lifeboat/double"));
	lb_argv_clear(&a);
	vm.told = true;
	assert_int_equal(lb_qemu_argv(env, &vm, -1, &a), 0);
	assert_true(has(&a, "name=opt/lifeboat/double,file=/vm/double/double.json"));
}

static void an_address_is_given_by_user_mode_networking_and_ports_lead_to_it(void **s)
{
	static const struct {
		const char *address, *netdev;
	} cases[] = {
		{"192.0.2.10/24",
		 "net=192.0.2.0/24,host=192.0.2.1,dns=192.0.2.2,dhcpstart=192.0.2.10,hostfwd=tcp:127.0.0.1:2222-"
		 "192.0.2.10:22"},
		{"192.0.2.1", "net=192.0.2.0/24,host=192.0.2.2,dns=192.0.2.3,dhcpstart=192.0.2.1,"},
		{"10.20.30.2/16", "net=10.20.0.0/16,host=10.20.0.1,dns=10.20.0.2,dhcpstart=10.20.30.2,"},
		{"10.0.0.2/16", "net=10.0.0.0/16,host=10.0.0.1,dns=10.0.0.3,dhcpstart=10.0.0.2,"},
	};

	(void)s;
	for (size_t i = 0; i < LB_ARRAY_LEN(cases); i++) {
		_cleanup_(lb_vm_spec_clear) struct lb_vm_spec vm;
		_cleanup_buf_ struct lb_buf netdev = LB_BUF(8192);

		fill_vm(&vm, 1);
		snprintf(vm.address, sizeof(vm.address), "%s", cases[i].address);
		assert_int_equal(lb_vm_netdev(&vm, &netdev), 0);
		assert_non_null(strstr((char *)netdev.data, cases[i].netdev));
	}
}

static void a_card_on_a_tap_has_the_chosen_mac_address(void **s)
{
	_cleanup_(lb_argv_clear) struct lb_argv a = {0};
	_cleanup_(lb_vm_spec_clear) struct lb_vm_spec vm;

	(void)s;
	fill_vm(&vm, 1);
	assert_int_equal(lb_mac_read("52:54:00:AB:cd:0e", vm.mac), 0);
	assert_int_equal(lb_qemu_argv(env, &vm, 7, &a), 0);
	assert_true(has(&a, "tap,id=net0,fd=7"));
	assert_true(has(&a, "mac=52:54:00:ab:cd:0e"));
	assert_false(has(&a, "hostfwd"));
}

static void networks_and_addresses_that_cannot_be_are_refused(void **s)
{
	static const char *const networks[] = {"",    "bridge:",    "bridge:a b", "bridge:a-name-of-sixteen",
					       "a:b", "bridge:../x"};
	static const char *const macs[] = {"",
					   "52:54:00:12:34",
					   "52:54:00:12:34:5g",
					   "52-54-00-12-34-56",
					   "01:00:00:00:00:00",
					   "00:00:00:00:00:00",
					   "ff:ff:ff:ff:ff:ff",
					   "52:54:00:12:34:567"};
	static const char *const addresses[] = {
		"",          "1.2.3",      "1.2.3.4/33",    "1.2.3.4/",        "1.2.3.4/x", "0.0.0.1", "127.0.0.1",
		"224.0.0.1", "10.0.0.0/8", "10.0.0.255/24", "255.255.255.255", "1.2.3.4/4", "fe80::1"};
	char mac[LB_MAC_TEXT_BYTES];
	uint32_t address, prefix;

	(void)s;
	for (size_t i = 0; i < LB_ARRAY_LEN(networks); i++)
		assert_int_equal(lb_network_check(networks[i]), -EINVAL);
	for (size_t i = 0; i < LB_ARRAY_LEN(macs); i++)
		assert_int_equal(lb_mac_read(macs[i], mac), -EINVAL);
	for (size_t i = 0; i < LB_ARRAY_LEN(addresses); i++)
		assert_int_equal(lb_address_read(addresses[i], &address, &prefix), -EINVAL);
	assert_int_equal(lb_network_check("bridge:br0"), 0);
	assert_int_equal(lb_network_check("lan"), 0);
	assert_int_equal(lb_network_check("isolated:plan-1"), 0);
	assert_int_equal(lb_network_check("isolated:"), -EINVAL);
	assert_int_equal(lb_network_check("isolated:a-name-of-more-than-twenty-four"), -EINVAL);
	assert_int_equal(lb_address_read("192.0.2.10/24", &address, &prefix), 0);
	assert_true(address == 0xc000020a && prefix == 24);
	assert_int_equal(lb_bridge_check("lo"), -EINVAL);
	assert_int_equal(lb_bridge_check("lb-not-there"), -ENOENT);
}

static const char *filled(const char *order, const struct lb_double_source *source, const char *member, json_t **keep)
{
	json_decref(*keep);
	*keep = json_loads(order, 0, NULL);
	assert_int_equal(lb_double_fill(*keep, source), 0);
	return json_string_value(json_object_get(*keep, member));
}

static void a_test_where_nobody_else_is_has_the_address_of_its_source(void **s)
{
	_cleanup_json_ json_t *target = json_loads("{\"test_network\":\"bridge:lab\"}", 0, NULL),
			      *chosen = json_loads("{\"test_address\":\"192.0.2.99/24\"}", 0, NULL),
			      *cards = json_loads("[{\"addresses\":[\"192.0.2.10/24\",\"10.0.0.1/8\"]}]", 0, NULL),
			      *keep = NULL;
	const struct lb_double_source alone = {.cards = cards}, shared = {.target = target, .cards = cards},
				      set = {.target = chosen, .cards = cards};

	(void)s;
	assert_string_equal(filled("{\"kind\":\"test\"}", &alone, "address", &keep), "192.0.2.10/24");
	assert_string_equal(filled("{\"kind\":\"test\",\"network\":\"isolated:x\"}", &shared, "address", &keep),
			    "192.0.2.10/24");
	assert_string_equal(filled("{\"kind\":\"test\",\"network\":\"isolated:x\"}", &set, "address", &keep),
			    "192.0.2.99/24");
	assert_null(filled("{\"kind\":\"test\"}", &shared, "address", &keep));
	assert_null(filled("{\"kind\":\"live\"}", &alone, "address", &keep));
}

static void an_order_without_words_on_it_takes_the_network_of_its_kind_and_the_sources_mac_address(void **s)
{
	_cleanup_json_ json_t *target =
				      json_loads("{\"network\":\"bridge:br0\",\"address\":\"192.0.2.10/24\"}", 0, NULL),
			      *with_test = json_loads("{\"test_network\":\"bridge:lab\"}", 0, NULL),
			      *cards = json_loads("[{\"mac\":\"52:54:00:00:00:AA\"}]", 0, NULL), *keep = NULL;
	const struct lb_double_source source = {.target = target, .cards = cards},
				      shared = {.target = with_test, .cards = cards}, nothing = {0};
	const char *live = "{\"machine\":\"m\",\"kind\":\"live\"}", *test = "{\"machine\":\"m\",\"kind\":\"test\"}";

	(void)s;
	assert_string_equal(filled(live, &source, "network", &keep), "bridge:br0");
	assert_string_equal(filled(live, &source, "address", &keep), "192.0.2.10/24");
	assert_string_equal(filled(live, &source, "mac", &keep), "52:54:00:00:00:aa");
	/* a test is not where the failover would be, and keeps the MAC address where nobody else is */
	assert_null(filled(test, &source, "network", &keep));
	assert_null(filled(test, &source, "address", &keep));
	assert_string_equal(filled(test, &source, "mac", &keep), "52:54:00:00:00:aa");
	assert_string_equal(filled(test, &shared, "network", &keep), "bridge:lab");
	assert_null(filled(test, &shared, "mac", &keep));
	/* the order's own words come first, and an address is of the network that it was set for */
	assert_string_equal(filled("{\"kind\":\"test\",\"network\":\"isolated:x\"}", &shared, "mac", &keep),
			    "52:54:00:00:00:aa");
	assert_null(filled("{\"kind\":\"live\",\"network\":\"bridge:x\"}", &source, "address", &keep));
	assert_null(filled("{\"kind\":\"live\",\"network\":\"none\"}", &source, "network", &keep));
	assert_null(filled("{\"kind\":\"live\",\"mac\":\"own\"}", &source, "mac", &keep));
	assert_string_equal(filled("{\"kind\":\"test\",\"mac\":\"source\"}", &shared, "mac", &keep),
			    "52:54:00:00:00:aa");
	assert_null(filled(live, &nothing, "mac", &keep));
	json_object_set_new(keep, "mac", json_string("source"));
	assert_int_equal(lb_double_fill(keep, &nothing), -EINVAL);
}

static void more_disks_than_a_controller_takes_are_refused_with_the_cure(void **s)
{
	_cleanup_(lb_argv_clear) struct lb_argv a = {0};
	_cleanup_(lb_vm_spec_clear) struct lb_vm_spec vm;

	(void)s;
	fill_vm(&vm, 30);
	assert_int_equal(lb_qemu_argv(env, &vm, -1, &a), -E2BIG);
	assert_non_null(strstr(lb_err_text(), "--bus scsi"));
	lb_argv_clear(&a);
	vm.bus = LB_VM_VIRTIO_SCSI;
	assert_int_equal(lb_qemu_argv(env, &vm, -1, &a), 0);
}

static void a_record_comes_back_as_it_was_written(void **s)
{
	struct lb_failover a = {.env = env,
				.lock_fd = -1,
				.vault_url = (char *)"dir:/v",
				.passphrase_file = (char *)"/p",
				.point_text = (char *)"latest",
				.machine_name = "db1",
				.kind = LB_FAILOVER_LIVE,
				.point = {.position = {.epoch = 3, .seq = 99}, .time_ns = 12345},
				.fabric_name = "qemu",
				.next = LB_STEP_SERVE,
				.fenced = true,
				.pinned = true,
				.mend = true,
				.mend_done = true,
				.mended = (char *)"drivers",
				.bus_unmended = LB_VM_SATA,
				.wait_s = 7,
				.started_ns = 5};
	_cleanup_(lb_failover_freep) struct lb_failover *b = calloc(1, sizeof(*b));

	(void)s;
	fill_vm(&a.vm, 2);
	free(a.vm.folder);
	a.vm.folder = strdup(folder);
	a.disks[1] = (struct lb_failover_disk){.id = 4, .size_bytes = 1 << 20, .whole = true};
	a.port_chosen[0] = true;
	snprintf(a.vm.mac, sizeof(a.vm.mac), "52:54:00:00:00:01");
	snprintf(a.vm.address, sizeof(a.vm.address), "192.0.2.1/24");
	assert_int_equal(lb_record_save(&a), 0);
	b->env = env;
	b->lock_fd = -1;
	b->vm.folder = strdup(folder);
	assert_int_equal(lb_record_load(b), 0);
	assert_int_equal(b->kind, LB_FAILOVER_LIVE);
	assert_int_equal(b->next, LB_STEP_SERVE);
	assert_int_equal(b->point.position.seq, 99);
	assert_string_equal(b->vault_url, "dir:/v");
	assert_null(b->key_file);
	assert_true(b->mend && b->mend_done && !b->mend_required && b->bus_unmended == LB_VM_SATA);
	assert_string_equal(b->mended, "drivers");
	assert_true(b->fenced && b->pinned && !b->committed && b->port_chosen[0] && b->vm.isolated);
	assert_string_equal(b->vm.mac, "52:54:00:00:00:01");
	assert_string_equal(b->vm.address, "192.0.2.1/24");
	assert_int_equal(b->vm.n_disks, 2);
	assert_int_equal(b->disks[1].id, 4);
	assert_true(b->disks[1].whole && !b->disks[0].whole);
	assert_int_equal(b->vm.forwards[0].host_port, 2222);
	lb_vm_spec_clear(&a.vm);
}

static void a_double_that_is_let_go_is_free_although_a_child_was_started_meanwhile(void **s)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_failover a = {.env = env,
				.lock_fd = -1,
				.vault_url = (char *)"dir:/v",
				.passphrase_file = (char *)"/p",
				.point_text = (char *)"latest",
				.machine_name = "db1",
				.fabric_name = "qemu"};
	_cleanup_free_ char *parent = strdup(folder);
	char *name = strrchr(parent, '/');
	int status;
	pid_t child;

	(void)s;
	*name++ = '\0';
	fill_vm(&a.vm, 1);
	free(a.vm.folder);
	a.vm.folder = strdup(folder);
	assert_int_equal(lb_record_save(&a), 0);
	lb_vm_spec_clear(&a.vm);
	assert_int_equal(lb_failover_open(env, parent, name, &f), 0);
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause(); /* as one that has not come to its exec */
		_exit(1);
	}
	lb_failover_free(lb_steal_ptr(f));
	assert_int_equal(lb_failover_open(env, parent, name, &f), 0);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
}

static void a_record_that_is_cut_or_foreign_is_refused(void **s)
{
	static const char *const texts[] = {"", "{", "{}", "{\"version\":2}", "{\"version\":1,\"vault_url\":7}"};

	(void)s;
	for (size_t i = 0; i < LB_ARRAY_LEN(texts); i++) {
		_cleanup_(lb_failover_freep) struct lb_failover *f = calloc(1, sizeof(*f));

		f->env = env;
		f->lock_fd = -1;
		f->vm.folder = strdup(folder);
		assert_int_equal(lb_file_write(env, in_folder(LB_RECORD_FILE), texts[i], strlen(texts[i]), 0600), 0);
		assert_int_equal(lb_record_load(f), -EBADMSG);
	}
}

static void a_passphrase_is_one_line_of_a_file_that_others_cannot_read(void **s)
{
	_cleanup_free_ char *path = strdup(in_folder("passphrase"));
	char *text = NULL;

	(void)s;
	assert_int_equal(lb_file_write(env, path, "a secret\r\n", 10, 0600), 0);
	assert_int_equal(lb_passphrase_read(env, path, &text), 0);
	assert_string_equal(text, "a secret");
	free(text);
	assert_int_equal(lb_file_write(env, path, "a\nb\n", 4, 0600), 0);
	assert_int_equal(lb_passphrase_read(env, path, &text), -EINVAL);
	assert_int_equal(lb_file_write(env, path, "\n", 1, 0600), 0);
	assert_int_equal(lb_passphrase_read(env, path, &text), -EINVAL);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(lb_passphrase_read(env, path, &text), -EACCES);
}

static void a_key_file_holds_the_bytes_of_all_keys_or_the_hex_digits_of_one(void **s)
{
	_cleanup_free_ char *path = strdup(in_folder("key"));
	struct lb_keyring ring;
	struct lb_key want[3];
	char hex[2 * LB_KEY_BYTES + 2];

	(void)s;
	memset(want, 0xa5, sizeof(want));
	assert_int_equal(lb_file_write(env, path, want, LB_KEY_BYTES, 0600), 0);
	assert_int_equal(lb_keyring_read(env, path, &ring), 0);
	assert_int_equal(ring.n, 1);
	assert_memory_equal(ring.key, want, LB_KEY_BYTES);
	lb_hex_encode(want[0].bytes, LB_KEY_BYTES, hex);
	memcpy(hex + 2 * LB_KEY_BYTES, "\n", 2);
	assert_int_equal(lb_file_write(env, path, hex, strlen(hex), 0600), 0);
	assert_int_equal(lb_keyring_read(env, path, &ring), 0);
	assert_int_equal(ring.n, 1);
	assert_memory_equal(ring.key, want, LB_KEY_BYTES);
	assert_int_equal(lb_file_write(env, path, hex, strlen(hex) - 3, 0600), 0);
	assert_int_equal(lb_keyring_read(env, path, &ring), -EINVAL);
	memset(&want[2], 0x5a, sizeof(want[2]));
	assert_int_equal(lb_file_write(env, path, want, sizeof(want), 0600), 0);
	assert_int_equal(lb_keyring_read(env, path, &ring), 0);
	assert_int_equal(ring.n, 3);
	assert_memory_equal(ring.key, want, sizeof(want));
	assert_int_equal(lb_file_write(env, path, want, sizeof(want) - 1, 0600), 0);
	assert_int_equal(lb_keyring_read(env, path, &ring), -EINVAL);
}

static void the_trial_of_kvm_always_ends_with_a_word_about_it(void **s)
{
	const char *why = NULL, *again = NULL;

	(void)s;
	assert_int_equal(lb_kvm_works(env, &why), lb_kvm_works(env, &again));
	assert_non_null(why);
	assert_ptr_equal(why, again);
}

/* As QEMU has its image: with a lock that goes with its last thread. */
static pid_t lock_for(const char *path, useconds_t time_us)
{
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int ready[2];
	pid_t pid;
	char byte;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		int fd = open(path, O_RDWR);

		if (fcntl(fd, F_OFD_SETLK, &all) == 0 && write(ready[1], "", 1) == 1)
			usleep(time_us);
		_exit(0);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void an_image_of_a_vm_that_is_just_ending_is_waited_for(void **s)
{
	_cleanup_free_ char *path = strdup(in_folder("overlay.qcow2")), *qemu_img = NULL;
	const char *argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", path, "1M", NULL};
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	bool rests = false;
	pid_t pid;
	int fd;

	(void)s;
	if (lb_proc_which("qemu-img", &qemu_img) < 0) {
		printf("skipped: qemu-img is not installed\n");
		skip();
	}
	assert_int_equal(lb_proc_run(env, &(struct lb_proc_run){.argv = argv, .keep_fd = -1}, NULL), 0);
	pid = lock_for(path, 300000);
	assert_int_equal(lb_overlay_reattach(env, path, "/tmp/nbd0.sock"), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(lb_overlay_rests(env, path, &rests), 0);
	assert_true(rests);
	/* one that does not end is not waited for without end */
	pid = lock_for(path, 600000000);
	fd = open(path, O_RDWR | O_CLOEXEC);
	lb_file_wait_released(env, path, 20);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &all), -1);
	assert_int_equal(kill(pid, SIGKILL), 0);
	lb_file_wait_released(env, path, 60000);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &all), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(fd);
}

static int set_up(void **s)
{
	(void)s;
	env = lb_env_real();
	return mkdtemp(folder) == NULL;
}

static int remove_file(void *arg, const char *name, bool is_dir)
{
	(void)arg;
	return is_dir ? 0 : env->ops->unlink(env, in_folder(name));
}

static int tear_down(void **s)
{
	(void)s;
	env->ops->list(env, folder, remove_file, NULL);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_program_gives_its_output_up_to_the_ceiling),
		cmocka_unit_test(a_program_that_fails_is_told_with_its_last_line),
		cmocka_unit_test(a_program_that_is_missing_is_named_and_its_package),
		cmocka_unit_test(a_program_that_takes_too_long_is_killed),
		cmocka_unit_test(a_program_whose_output_is_refused_is_ended),
		cmocka_unit_test(a_spawned_program_lives_on_is_found_by_its_argument_and_ended),
		cmocka_unit_test(a_spawned_program_inherits_one_descriptor_and_no_other),
		cmocka_unit_test(a_vm_whose_monitor_has_gone_before_it_has_ended),
		cmocka_unit_test(a_folder_that_sockets_or_command_lines_cannot_take_is_refused),
		cmocka_unit_test(a_command_line_says_what_the_double_is_and_isolates_it),
		cmocka_unit_test(an_address_is_given_by_user_mode_networking_and_ports_lead_to_it),
		cmocka_unit_test(a_card_on_a_tap_has_the_chosen_mac_address),
		cmocka_unit_test(networks_and_addresses_that_cannot_be_are_refused),
		cmocka_unit_test(
			an_order_without_words_on_it_takes_the_network_of_its_kind_and_the_sources_mac_address),
		cmocka_unit_test(a_test_where_nobody_else_is_has_the_address_of_its_source),
		cmocka_unit_test(more_disks_than_a_controller_takes_are_refused_with_the_cure),
		cmocka_unit_test(a_record_comes_back_as_it_was_written),
		cmocka_unit_test(a_double_that_is_let_go_is_free_although_a_child_was_started_meanwhile),
		cmocka_unit_test(a_record_that_is_cut_or_foreign_is_refused),
		cmocka_unit_test(a_passphrase_is_one_line_of_a_file_that_others_cannot_read),
		cmocka_unit_test(a_key_file_holds_the_bytes_of_all_keys_or_the_hex_digits_of_one),
		cmocka_unit_test(the_trial_of_kvm_always_ends_with_a_word_about_it),
		cmocka_unit_test(an_image_of_a_vm_that_is_just_ending_is_waited_for),
	};

	return cmocka_run_group_tests_name("fabric", tests, set_up, tear_down);
}
