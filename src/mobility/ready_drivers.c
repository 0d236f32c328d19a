/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the initramfs has the drivers of the double's disk: without them it stops before there is a root. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "mobility/initrd.h"
#include "mobility/ready_state.h"

enum driver {
	VIRTIO_PCI,
	VIRTIO_BLK,
	VIRTIO_SCSI,
	SD_MOD,
	AHCI,
	HV_VMBUS,
	HV_STORVSC,
	VMW_PVSCSI,
	MPTSPI,
	DRIVERS,
};

static const char *const names[DRIVERS] = {"virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ahci",
					   "hv_vmbus",   "hv_storvsc", "vmw_pvscsi",  "mptspi"};

struct drivers {
	bool have[DRIVERS];
	unsigned int modules;
};

/* ".../virtio-blk.ko.xz" is virtio_blk, wherever it lies. */
static void take_name(void *arg, const char *path)
{
	const char *base = strrchr(path, '/'), *dot;
	struct drivers *d = arg;

	base = base != NULL ? base + 1 : path;
	dot = strstr(base, ".ko");
	if (dot == NULL)
		return;
	d->modules++;
	for (unsigned int i = 0; i < DRIVERS; i++) {
		size_t length = strlen(names[i]), k = 0;

		while (k < length && base + k < dot && (base[k] == '-' ? '_' : base[k]) == names[i][k])
			k++;
		if (k == length && base + k == dot)
			d->have[i] = true;
	}
}

static void take_line(struct lb_ready *c, char *line, void *arg)
{
	(void)c;
	take_name(arg, line);
}

static int open_initramfs(struct lb_ready *c, char path[LB_READY_PATH_BYTES])
{
	static const char *const patterns[][2] = {
		{"/boot/initrd.img-", ""}, {"/boot/initramfs-", ".img"}, {"/boot/initrd-", ""}};
	int fd, first = -ENOENT;

	for (size_t i = 0; i < LB_ARRAY_LEN(patterns); i++) {
		snprintf(path, LB_READY_PATH_BYTES, "%s%s%s", patterns[i][0], c->kernel, patterns[i][1]);
		fd = lb_ready_open(c, path);
		if (fd >= 0)
			return fd;
		if (fd != -ENOENT)
			first = fd;
	}
	return first;
}

static void unknown(struct lb_ready *c, const char *why)
{
	lb_ready_note(c,
		      &(struct lb_finding){.check = "drivers",
					   .level = "warning",
					   .effect = "unknown until a test failover shows it",
					   .cure = "make a test failover"},
		      "whether kernel %s has the drivers for a virtual machine can't be told: %s", c->kernel, why);
}

static void judge_local(struct lb_ready *c, const struct drivers *d)
{
	const bool *have = d->have;
	bool virtio = have[VIRTIO_PCI] && (have[VIRTIO_BLK] || (have[VIRTIO_SCSI] && have[SD_MOD]));

	if (virtio)
		lb_ready_note(c, &(struct lb_finding){.check = "drivers", .level = "ok"},
			      "kernel %s starts on virtio disks", c->kernel);
	else if (have[AHCI] && have[SD_MOD])
		lb_ready_note(c,
			      &(struct lb_finding){.check = "drivers",
						   .level = "warning",
						   .effect = "the double is slower: it gets a SATA disk, for which its "
							     "initramfs has drivers",
						   .cure = "on the machine, as root: lifeboat-mobility mend initramfs",
						   .mend = "sata"},
			      "the initramfs of kernel %s has no virtio drivers", c->kernel);
	else
		lb_ready_note(c,
			      &(struct lb_finding){.check = "drivers",
						   .level = lb_ready_fatal(c),
						   .effect = "the double stops in its initramfs: it finds no root disk",
						   .cure = "on the machine, as root: lifeboat-mobility mend initramfs",
						   .mend = "initramfs"},
			      "the initramfs of kernel %s has neither virtio nor SATA drivers", c->kernel);
}

static void judge_elsewhere(struct lb_ready *c, const struct drivers *d)
{
	static const struct lb_finding lacks = {
		.check = "drivers",
		.level = "info",
		.effect = "it would not start there; it does on this site's virtual machines",
		.cure = "on the machine, as root: lifeboat-mobility mend initramfs",
		.mend = "initramfs"};

	if (!d->have[HV_VMBUS] || !d->have[HV_STORVSC])
		lb_ready_note(c, &lacks, "the initramfs of kernel %s has no drivers for Hyper-V and Azure", c->kernel);
	if (!d->have[VMW_PVSCSI] && !d->have[MPTSPI])
		lb_ready_note(c, &lacks, "the initramfs of kernel %s has no drivers for VMware", c->kernel);
}

void lb_ready_drivers(struct lb_ready *c)
{
	char path[LB_READY_PATH_BYTES], builtin[LB_READY_PATH_BYTES];
	struct drivers d = {0};
	int fd = open_initramfs(c, path), r;

	if (fd < 0) {
		unknown(c, fd == -ENOENT ? "it has no initramfs in /boot" : strerror(-fd));
		return;
	}
	r = lb_initrd_list(fd, take_name, &d);
	c->o.env->ops->close(c->o.env, fd);
	if (r < 0) {
		unknown(c, lb_err_text());
		return;
	}
	snprintf(builtin, sizeof(builtin), "/lib/modules/%s/modules.builtin", c->kernel);
	(void)lb_ready_lines(c, builtin, take_line, &d); /* without it nothing is built in */
	judge_local(c, &d);
	judge_elsewhere(c, &d);
}
