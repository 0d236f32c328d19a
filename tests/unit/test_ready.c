/* SPDX-License-Identifier: Apache-2.0 */
/* The readiness checks, on small pictures of machines. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "mobility/mend.h"
#include "mobility/ready.h"

#define KERNEL "6.1.0-test"
#define INITRD "/boot/initrd.img-" KERNEL

static char root[64];
static json_t *result;

static void put(const char *path, const char *text)
{
	char full[512], folder[512];

	snprintf(full, sizeof(full), "%s%s", root, path);
	snprintf(folder, sizeof(folder), "%s", full);
	*strrchr(folder, '/') = '\0';
	assert_int_equal(lb_folder_make(lb_env_real(), folder, 0755), 0);
	assert_int_equal(lb_file_write(lb_env_real(), full, text, strlen(text), 0644), 0);
}

static void run(const char *script)
{
	char command[2048];

	snprintf(command, sizeof(command), "cd %s && { %s; } >/dev/null 2>&1", root, script);
	assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/lb-test-ready.XXXXXX");
	if (mkdtemp(root) == NULL)
		return -1;
	/* one system disk, sda, with / on its first partition */
	put("/sys/block/sda/size", "2097152\n");
	put("/sys/block/sda/dev", "8:0\n");
	put("/sys/block/sda/removable", "0\n");
	put("/sys/block/sda/queue/logical_block_size", "512\n");
	put("/sys/block/sda/sda1/partition", "1\n");
	run("mkdir -p sys/dev/block sys/class/block && ln -s ../../block/sda/sda1 sys/dev/block/8:1");
	put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
	put("/run/udev/data/b8:0", "E:ID_PART_TABLE_TYPE=gpt\n");
	return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	json_decref(result);
	result = NULL;
	return nftw(root, remove_entry, 32, FTW_DEPTH | FTW_PHYS);
}

static void check_with(struct lb_ready_options options)
{
	options.env = lb_env_real();
	options.root = root;
	options.kernel = KERNEL;
	json_decref(result);
	result = NULL;
	assert_int_equal(lb_ready_check(&options, &result), 0);
}

static void check(void)
{
	check_with((struct lb_ready_options){0});
}

static const char *member(const json_t *finding, const char *name)
{
	return json_string_value(json_object_get(finding, name));
}

/* The finding of a check whose text holds `part`, or NULL. */
static const json_t *finding(const char *what, const char *part)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(result, "findings"), i, one)
	{
		if (strcmp(member(one, "check"), what) == 0 && strstr(member(one, "text"), part) != NULL)
			return one;
	}
	return NULL;
}

static void assert_finding(const char *what, const char *level, const char *part)
{
	const json_t *one = finding(what, part);

	if (one == NULL || strcmp(member(one, "level"), level) != 0) {
		char *text = json_dumps(result, JSON_INDENT(1));

		print_message("%s\n", text);
		fail_msg("no %s of %s with \"%s\"", level, what, part);
	}
}

static void modules(const char *names, const char *packer)
{
	char script[1024];

	snprintf(script, sizeof(script),
		 "mkdir -p in/lib/modules boot && cd in && for m in %s; do echo x >lib/modules/$m.ko; done && "
		 "find . | cpio -o -H newc | %s >..%s && cd .. && rm -r in",
		 names, packer, INITRD);
	run(script);
}

/* ---- the initramfs -------------------------------------------------------------------------------------- */

static void drivers_are_found_however_the_initramfs_is_packed(void **state)
{
	static const char *const packers[] = {"cat", "gzip", "zstd", "xz --check=crc32"};

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(packers); i++) {
		modules("virtio_pci virtio_blk hv_vmbus hv_storvsc vmw_pvscsi", packers[i]);
		check();
		assert_finding("drivers", "ok", "virtio");
		assert_null(finding("drivers", "Hyper-V"));
	}
}

static void drivers_behind_a_part_with_microcode_are_found(void **state)
{
	(void)state;
	run("mkdir -p micro/kernel/x86 && echo code >micro/kernel/x86/GenuineIntel.bin && cd micro && "
	    "find . | cpio -o -H newc >../early && cd .. && head -c 1024 /dev/zero >>early");
	modules("virtio-pci virtio-blk", "gzip");
	run("cat early ." INITRD " >both && mv both ." INITRD);
	check();
	assert_finding("drivers", "ok", "virtio");
	assert_finding("drivers", "info", "Hyper-V");
	assert_finding("drivers", "info", "VMware");
}

static void drivers_that_are_built_in_count(void **state)
{
	(void)state;
	modules("dm-mod", "cat");
	put("/lib/modules/" KERNEL "/modules.builtin",
	    "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/block/virtio_blk.ko\n");
	check();
	assert_finding("drivers", "ok", "virtio");
}

static void without_drivers_the_double_would_not_come_up(void **state)
{
	(void)state;
	modules("megaraid_sas sd_mod", "gzip");
	check();
	assert_finding("drivers", "error", "neither virtio nor SATA");
	assert_string_equal(member(finding("drivers", "neither"), "mend"), "initramfs");
}

static void with_sata_drivers_alone_the_double_gets_a_sata_disk(void **state)
{
	(void)state;
	modules("ahci sd_mod", "gzip");
	check();
	assert_finding("drivers", "warning", "no virtio drivers");
	assert_string_equal(member(finding("drivers", "no virtio"), "mend"), "sata");
}

static void what_is_no_initramfs_is_told_and_not_taken_for_one(void **state)
{
	static const char *const bad[] = {
		"", "hello", "0707", "070701", "07070100000000ZZZZZZZZ", "\x1f\x8b nothing that gzip knows"};
	char text[256];

	(void)state;
	check();
	assert_finding("drivers", "warning", "no initramfs");
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++) {
		put(INITRD, bad[i]);
		check();
		assert_finding("drivers", "warning", "can't be told");
	}
	/* a header whose name would be 4 GiB */
	memset(text, '0', sizeof(text));
	memcpy(text, "070701", 6);
	memset(text + 94, 'f', 8);
	text[200] = '\0';
	put(INITRD, text);
	check();
	assert_finding("drivers", "warning", "can't be told");
}

static void an_initramfs_that_was_cut_short_is_told(void **state)
{
	(void)state;
	modules("virtio_pci virtio_blk", "cat");
	run("head -c 400 ." INITRD " >cut && mv cut ." INITRD);
	check();
	assert_finding("drivers", "warning", "can't be told");
}

static int opened;

static int open_for_us(void *arg, const char *path)
{
	int *fd = arg;

	(void)path;
	opened++;
	return dup(*fd);
}

static int closed_to_us(struct lb_env *env, const char *path, int flags, mode_t mode)
{
	if (strstr(path, "/boot/initrd") != NULL)
		return -EACCES;
	return lb_env_real()->ops->open(env, path, flags, mode);
}

static void an_initramfs_that_only_root_may_read_is_asked_for(void **state)
{
	struct lb_env_ops ops = *lb_env_real()->ops;
	struct lb_env env = {.ops = &ops};
	struct lb_ready_options options = {.env = &env, .root = root, .kernel = KERNEL};
	_cleanup_close_ int fd = -1;
	char path[256];

	(void)state;
	modules("virtio_pci virtio_blk", "gzip");
	snprintf(path, sizeof(path), "%s" INITRD, root);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	ops.open = closed_to_us;
	assert_int_equal(lb_ready_check(&options, &result), 0);
	assert_finding("drivers", "warning", "Permission denied");
	json_decref(lb_steal_ptr(result));
	options.open_privileged = open_for_us;
	options.arg = &fd;
	assert_int_equal(lb_ready_check(&options, &result), 0);
	assert_finding("drivers", "ok", "virtio");
	assert_int_equal(opened, 1);
}

/* ---- firmware, loader, mounts --------------------------------------------------------------------------- */

static void a_root_by_name_stops_the_double_and_one_by_uuid_does_not(void **state)
{
	(void)state;
	put("/boot/grub/grub.cfg", "menuentry x {\n\tlinux /vmlinuz root=/dev/sda1 ro quiet\n}\n");
	check();
	assert_finding("boot loader", "error", "root=/dev/sda1");
	put("/boot/grub/grub.cfg", "menuentry x {\n\tlinux /vmlinuz root=UUID=1234 ro quiet\n}\n");
	check();
	assert_finding("boot loader", "ok", "grub.cfg");
	put("/boot/grub/grub.cfg", "menuentry x {\n\tlinux /vmlinuz root=/dev/mapper/vg-root ro quiet\n}\n");
	check();
	assert_finding("boot loader", "ok", "grub.cfg");
}

static void without_a_loader_that_we_know_the_running_kernels_root_counts(void **state)
{
	(void)state;
	put("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/nvme0n1p2 ro\n");
	check();
	assert_finding("boot loader", "error", "nvme0n1p2");
}

static void uefi_without_a_fallback_loader_is_told(void **state)
{
	(void)state;
	check();
	assert_finding("firmware", "ok", "BIOS");
	put("/sys/firmware/efi/fw_platform_size", "64\n");
	put("/boot/efi/EFI/debian/grubx64.efi", "x");
	check();
	assert_finding("firmware", "error", "no EFI/BOOT/BOOTX64.EFI");
	put("/boot/efi/EFI/BOOT/BOOTX64.EFI", "x");
	check();
	assert_finding("firmware", "ok", "UEFI");
	run("mkdir -p sys/firmware/efi/efivars && printf '\\006\\0\\0\\0\\001' "
	    ">sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");
	check();
	assert_finding("firmware", "info", "Secure Boot");
}

static void fstab_by_name_stops_the_double_unless_it_may_fail(void **state)
{
	(void)state;
	put("/etc/fstab", "# a comment\nUUID=1 / ext4 defaults 0 1\n/dev/sdb1 /srv ext4 defaults 0 2\n"
			  "/dev/sdc1 /backup ext4 nofail 0 2\n/dev/sdd1 /media ext4 noauto 0 0\n"
			  "/dev/sda5 none swap sw 0 0\n/dev/mapper/vg-home /home ext4 defaults 0 2\n"
			  "nas:/x /nas nfs defaults 0 0\nbroken\n");
	check();
	assert_finding("fstab", "error", "/dev/sdb1 for /srv");
	assert_finding("fstab", "warning", "/dev/sdc1 for /backup");
	assert_finding("fstab", "warning", "swap");
	assert_finding("fstab", "info", "/nas");
	assert_null(finding("fstab", "/media"));
	assert_null(finding("fstab", "/home"));
	put("/etc/fstab", "UUID=1 / ext4 defaults 0 1\n");
	check();
	assert_finding("fstab", "ok", "");
}

static void encrypted_volumes_say_what_they_wait_for(void **state)
{
	(void)state;
	put("/etc/crypttab", "data UUID=1 none luks\nlogs UUID=2 /etc/keys/logs luks\nsafe UUID=3 - tpm2-device=auto\n"
			     "old /dev/sdb1 /etc/keys/old luks\n");
	check();
	assert_finding("encryption", "warning", "volume data is opened by a passphrase");
	assert_finding("encryption", "warning", "volume safe is opened by hardware");
	assert_finding("encryption", "error", "volume old is on /dev/sdb1");
	assert_null(finding("encryption", "logs"));
}

static void what_can_not_be_seen_from_here_is_no_error(void **state)
{
	(void)state;
	put("/proc/self/mountinfo", "22 1 0:30 / / rw - overlay overlay rw\n");
	put("/etc/fstab", "/dev/sdb1 /srv ext4 defaults 0 2\n");
	put("/proc/cmdline", "root=/dev/sda1\n");
	modules("dm-mod", "cat");
	check();
	assert_finding("partitions", "warning", "no disk");
	for (size_t i = 0; i < json_array_size(json_object_get(result, "findings")); i++)
		assert_string_not_equal(member(json_array_get(json_object_get(result, "findings"), i), "level"),
					"error");
}

/* ---- network, memory ------------------------------------------------------------------------------------ */

static void card(const char *name, const char *mac)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/class/net/%s/address", name);
	put(path, mac);
	snprintf(path, sizeof(path), "/sys/class/net/%s/device/vendor", name);
	put(path, "0x8086\n");
}

static void a_card_that_is_configured_by_name_is_told_in_each_systems_words(void **state)
{
	static const char *const files[][2] = {
		{"/etc/network/interfaces",
		 "auto ens192\niface ens192 inet static\n  address 192.0.2.7/24\n  gateway 192.0.2.1\n"},
		{"/etc/network/interfaces.d/lan", "iface ens192 inet static\n  address 192.0.2.7\n"},
		{"/etc/netplan/01.yaml", "network:\n ethernets:\n  ens192:\n   addresses: [192.0.2.7/24]\n   routes:\n "
					 "  - to: 0.0.0.0/0\n     via: 192.0.2.1\n"},
		{"/etc/systemd/network/lan.network", "[Match]\nName=ens192\n[Network]\nAddress=192.0.2.7/24\n"},
		{"/etc/NetworkManager/system-connections/lan.nmconnection",
		 "[connection]\ninterface-name=ens192\n[ipv4]\naddress1=192.0.2.7/24,192.0.2.1\nmethod=manual\n"},
	};

	(void)state;
	card("ens192", "00:50:56:aa:bb:cc\n");
	for (size_t i = 0; i < LB_ARRAY_LEN(files); i++) {
		char full[256], named[128];

		snprintf(named, sizeof(named), "by name in %s", files[i][0]);
		put(files[i][0], files[i][1]);
		check();
		assert_finding("network", "warning", named);
		assert_finding("network", "info", "static address 192.0.2.7");
		assert_null(finding("network", "192.0.2.1 "));
		snprintf(full, sizeof(full), "%s%s", root, files[i][0]);
		assert_int_equal(unlink(full), 0);
	}
	check();
	assert_null(finding("network", "ens192"));
}

static void a_name_that_goes_by_the_address_of_its_card_is_well(void **state)
{
	(void)state;
	card("ens192", "00:50:56:aa:bb:cc\n");
	put("/etc/network/interfaces", "iface ens192 inet dhcp\n");
	put("/etc/systemd/network/10-lan.link", "[Match]\nMACAddress=00:50:56:AA:BB:CC\n[Link]\nName=ens192\n");
	check();
	assert_finding("network", "ok", "ens192");
}

static void mending_the_network_gives_the_double_s_card_its_name(void **state)
{
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes;
	char path[512];

	(void)state;
	card("ens192", "00:50:56:aa:bb:cc\n");
	assert_int_equal(lb_mend_network(lb_env_real(), root, path, sizeof(path)), -ENOENT);
	assert_non_null(strstr(lb_err_text(), "nothing to mend"));
	put("/etc/network/interfaces", "iface ens192 inet dhcp\n");
	check();
	assert_finding("network", "warning", "by name in");
	assert_int_equal(lb_mend_network(lb_env_real(), root, path, sizeof(path)), 0);
	assert_int_equal(lb_file_read(lb_env_real(), path, 4096, &text, &size_bytes), 0);
	assert_non_null(strstr((const char *)text, "Virtualization=vm\n"));
	check();
	assert_finding("network", "ok", "ens192");
	assert_int_equal(lb_mend_network(lb_env_real(), root, path, sizeof(path)), -ENOENT);
}

static void a_virtual_machine_s_own_card_is_not_renamed_by_mending(void **state)
{
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes;
	char path[512];

	(void)state;
	card("ens192", "00:50:56:aa:bb:cc\n");
	card("ens224", "00:50:56:aa:bb:dd\n");
	put("/proc/cpuinfo", "flags\t: fpu hypervisor sse\n");
	put("/etc/network/interfaces", "iface ens224 inet dhcp\n");
	assert_int_equal(lb_mend_network(lb_env_real(), root, path, sizeof(path)), 0);
	assert_int_equal(lb_file_read(lb_env_real(), path, 4096, &text, &size_bytes), 0);
	assert_non_null(strstr((const char *)text, "MACAddress=00:50:56:aa:bb:dd\n"));
	assert_null(strstr((const char *)text, "Virtualization"));
}

static void mending_the_initramfs_leaves_a_hook_that_adds_the_drivers(void **state)
{
	const char *const *command = NULL;

	(void)state;
	assert_int_equal(lb_mend_initramfs(lb_env_real(), root, &command), -EOPNOTSUPP);
	run("mkdir -p etc/initramfs-tools usr");
	assert_int_equal(lb_mend_initramfs(lb_env_real(), root, &command), 0);
	assert_string_equal(command[0], "update-initramfs");
	/* as update-initramfs runs it, with the function that it gives */
	run("sed 's,^\\. .*,manual_add_modules() { echo $1 >>added; },' etc/initramfs-tools/hooks/lifeboat >hook && "
	    "test -x etc/initramfs-tools/hooks/lifeboat && sh hook prereqs && test ! -e added && sh hook && "
	    "grep -qx virtio_blk added && grep -qx hv_storvsc added");
}

static void a_ring_that_memory_has_no_room_for_is_told(void **state)
{
	(void)state;
	put("/proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 200000 kB\n");
	check_with((struct lb_ready_options){.ring_bytes = 256u << 20});
	assert_finding("memory", "warning", "256");
	check_with((struct lb_ready_options){.ring_bytes = 64u << 20});
	assert_finding("memory", "ok", "64");
}

static void findings_are_bounded_whatever_the_files_hold(void **state)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(1u << 20);

	(void)state;
	for (unsigned int i = 0; i < 5000; i++)
		assert_int_equal(lb_buf_printf(&text, "/dev/sdb%u /srv/\xff%u ext4 defaults 0 2\n", i, i), 0);
	assert_int_equal(lb_buf_append(&text, "", 1), 0);
	put("/etc/fstab", (const char *)text.data);
	check();
	assert_int_equal(json_array_size(json_object_get(result, "findings")), LB_READY_FINDINGS_MAX);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(drivers_are_found_however_the_initramfs_is_packed),
		T(drivers_behind_a_part_with_microcode_are_found),
		T(drivers_that_are_built_in_count),
		T(without_drivers_the_double_would_not_come_up),
		T(with_sata_drivers_alone_the_double_gets_a_sata_disk),
		T(what_is_no_initramfs_is_told_and_not_taken_for_one),
		T(an_initramfs_that_was_cut_short_is_told),
		T(an_initramfs_that_only_root_may_read_is_asked_for),
		T(a_root_by_name_stops_the_double_and_one_by_uuid_does_not),
		T(without_a_loader_that_we_know_the_running_kernels_root_counts),
		T(uefi_without_a_fallback_loader_is_told),
		T(fstab_by_name_stops_the_double_unless_it_may_fail),
		T(encrypted_volumes_say_what_they_wait_for),
		T(what_can_not_be_seen_from_here_is_no_error),
		T(a_card_that_is_configured_by_name_is_told_in_each_systems_words),
		T(a_name_that_goes_by_the_address_of_its_card_is_well),
		T(mending_the_network_gives_the_double_s_card_its_name),
		T(a_virtual_machine_s_own_card_is_not_renamed_by_mending),
		T(mending_the_initramfs_leaves_a_hook_that_adds_the_drivers),
		T(a_ring_that_memory_has_no_room_for_is_told),
		T(findings_are_bounded_whatever_the_files_hold),
	};

	return cmocka_run_group_tests_name("ready", tests, NULL, NULL);
}
