/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware, partition table and boot loader of the double: what finds the kernel, and what the kernel takes for root.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "mobility/ready_state.h"

#define SECURE_BOOT "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
#define VALUE_BYTES 256

static bool secure_boot(struct lb_ready *c)
{
	struct lb_env *env = c->o.env;
	uint8_t value[5] = {0}; /* four of attributes, then the variable */
	int fd = lb_ready_open(c, SECURE_BOOT);

	if (fd < 0)
		return false;
	(void)!env->ops->pread(env, fd, value, sizeof(value), 0);
	env->ops->close(env, fd);
	return value[4] == 1;
}

/* A new firmware has no boot entries: it starts the one file that each disk may have for this. */
static void check_fallback_loader(struct lb_ready *c)
{
	static const char *const folders[] = {"/boot/efi", "/efi", "/boot"};
	static const char *const loaders[] = {
		"debian/grubx64.efi",   "debian/shimx64.efi",         "ubuntu/shimx64.efi", "redhat/shimx64.efi",
		"rocky/shimx64.efi",    "almalinux/shimx64.efi",      "centos/shimx64.efi", "fedora/shimx64.efi",
		"opensuse/grubx64.efi", "systemd/systemd-bootx64.efi"};
	char path[LB_READY_PATH_BYTES];
	bool other = false;

	for (size_t i = 0; i < LB_ARRAY_LEN(folders); i++) {
		snprintf(path, sizeof(path), "%s/EFI/BOOT/BOOTX64.EFI", folders[i]);
		if (lb_ready_exists(c, path)) {
			lb_ready_note(c, &(struct lb_finding){.check = "firmware", .level = "ok"},
				      "UEFI, and %s is there for a firmware without boot entries", path);
			return;
		}
		for (size_t k = 0; !other && k < LB_ARRAY_LEN(loaders); k++) {
			snprintf(path, sizeof(path), "%s/EFI/%s", folders[i], loaders[k]);
			other = lb_ready_exists(c, path);
		}
	}
	lb_ready_note(
		c,
		&(struct lb_finding){.check = "firmware",
				     .level = other ? lb_ready_fatal(c) : "warning",
				     .effect = "the double's firmware, which has no boot entries, may find nothing "
					       "to start",
				     .cure = "on the machine, as root: grub-install --target=x86_64-efi --removable"},
		"UEFI, and no EFI/BOOT/BOOTX64.EFI %s",
		other ? "beside the system's own loader" : "was found on the EFI partition");
}

static void check_firmware(struct lb_ready *c)
{
	uint64_t room, size;
	char path[LB_READY_PATH_BYTES];

	snprintf(path, sizeof(path), "%s/sys/firmware/efi", c->o.root);
	if (c->o.env->ops->room(c->o.env, path, &room, &size) < 0) {
		lb_ready_note(c, &(struct lb_finding){.check = "firmware", .level = "ok"},
			      "BIOS: the double starts by BIOS too");
		return;
	}
	check_fallback_loader(c);
	if (secure_boot(c))
		lb_ready_note(c,
			      &(struct lb_finding){
				      .check = "firmware",
				      .level = "info",
				      .effect = "the double starts without it; what is signed starts all the same"},
			      "Secure Boot is on");
}

/* What udev found out about the disk. */
static void check_partitions(struct lb_ready *c)
{
	_cleanup_free_ char *number = NULL, *udev = NULL;
	char path[LB_READY_PATH_BYTES], type[16] = "";
	const char *at;

	if (c->boot_disk[0] == '\0') {
		lb_ready_note(c,
			      &(struct lb_finding){.check = "partitions",
						   .level = "warning",
						   .effect = "unknown until a test failover shows it",
						   .cure = "protect the disk that / is on"},
			      "/ is on no disk that is seen here");
		return;
	}
	snprintf(path, sizeof(path), "/sys/block/%s/dev", c->boot_disk);
	if (lb_ready_text(c, path, &number) < 0)
		return;
	number[strcspn(number, "\n")] = '\0';
	snprintf(path, sizeof(path), "/run/udev/data/b%.32s", number);
	if (lb_ready_text(c, path, &udev) < 0)
		return;
	at = strstr(udev, "E:ID_PART_TABLE_TYPE=");
	if (at != NULL)
		(void)!sscanf(at, "E:ID_PART_TABLE_TYPE=%15[a-z]", type);
	lb_ready_note(c, &(struct lb_finding){.check = "partitions", .level = type[0] != '\0' ? "ok" : "info"},
		      "%s, on which / is, has %s", c->boot_disk,
		      strcmp(type, "gpt") == 0   ? "a GPT"
		      : strcmp(type, "dos") == 0 ? "an MBR"
		      : type[0] != '\0'          ? type
						 : "no partition table");
}

/* The value of a word like root=... in a kernel's command line. */
static bool word(const char *line, const char *key, char value[VALUE_BYTES])
{
	const char *at = line;
	size_t n;

	while ((at = strstr(at, key)) != NULL) {
		if (at == line || at[-1] == ' ' || at[-1] == '\t') {
			at += strlen(key);
			n = LB_MIN(strcspn(at, " \t\n"), (size_t)VALUE_BYTES - 1);
			memcpy(value, at, n);
			value[n] = '\0';
			return true;
		}
		at += strlen(key);
	}
	return false;
}

static void bad_root(struct lb_ready *c, const char *where, const char *root)
{
	lb_ready_note(c,
		      &(struct lb_finding){.check = "boot loader",
					   .level = lb_ready_virtual_device(root) ? "warning" : lb_ready_fatal(c),
					   .effect = "the double stops in its initramfs if its disks have other names",
					   .cure = "root by UUID: on Debian unset GRUB_DISABLE_LINUX_UUID in "
						   "/etc/default/grub, then update-grub"},
		      "%s: root=%.100s", where, root);
}

struct grub {
	char root[VALUE_BYTES];
	bool seen, bad;
};

static void grub_line(struct lb_ready *c, char *line, void *arg)
{
	struct grub *g = arg;
	char value[VALUE_BYTES];

	(void)c;
	if (strncmp(line, "linux", 5) != 0 || !word(line, "root=", value))
		return;
	g->seen = true;
	if (lb_ready_unstable_device(value) && !g->bad) {
		g->bad = true;
		memcpy(g->root, value, sizeof(g->root));
	}
}

static void check_loader(struct lb_ready *c)
{
	static const char *const files[] = {"/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"};
	_cleanup_free_ char *line = NULL;
	char value[VALUE_BYTES];
	struct grub g = {0};

	for (size_t i = 0; i < LB_ARRAY_LEN(files) && !g.seen; i++) {
		if (lb_ready_lines(c, files[i], grub_line, &g) < 0 || !g.seen)
			continue;
		if (g.bad)
			bad_root(c, files[i], g.root);
		else
			lb_ready_note(c, &(struct lb_finding){.check = "boot loader", .level = "ok"},
				      "%s names root in a way that the double understands", files[i]);
	}
	/* without a loader that we can read: what was started last */
	if (!g.seen && lb_ready_text(c, "/proc/cmdline", &line) == 0 && word(line, "root=", value) &&
	    lb_ready_unstable_device(value))
		bad_root(c, "the kernel was started with", value);
}

void lb_ready_boot(struct lb_ready *c)
{
	check_firmware(c);
	check_partitions(c);
	check_loader(c);
}
