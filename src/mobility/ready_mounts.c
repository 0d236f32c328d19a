/* SPDX-License-Identifier: Apache-2.0 */
/* What the double mounts, opens and swaps to while it starts. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "mobility/ready_state.h"

#define BY_UUID "write it by UUID: blkid tells it"

struct counts {
	unsigned int entries, bad;
};

static bool has_option(const char *options, const char *option)
{
	size_t n = strlen(option);

	for (const char *at = options; at != NULL && *at != '\0';
	     at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL)
		if (strncmp(at, option, n) == 0 && (at[n] == '\0' || at[n] == ',' || at[n] == '='))
			return true;
	return false;
}

static void fstab_line(struct lb_ready *c, char *line, void *arg)
{
	char *rest = line, *words[4] = {NULL}, *one;
	struct counts *n = arg;
	size_t k = 0;
	bool swap, soft;

	while (k < LB_ARRAY_LEN(words) && (one = strsep(&rest, " \t")) != NULL)
		if (*one != '\0')
			words[k++] = one;
	if (k < 3 || has_option(words[3], "noauto"))
		return;
	n->entries++;
	swap = strcmp(words[2], "swap") == 0;
	/* root is found by the boot loader's word; for swap systemd waits and goes on */
	soft = swap || lb_ready_virtual_device(words[0]) || strcmp(words[1], "/") == 0 ||
	       has_option(words[3], "nofail");
	if (lb_ready_unstable_device(words[0])) {
		n->bad++;
		lb_ready_note(c,
			      &(struct lb_finding){.check = "fstab",
						   .level = soft ? "warning" : lb_ready_fatal(c),
						   .effect = soft ? "the double waits for it for 90 s and goes on"
								  : "the double waits for it for 90 s and stops in "
								    "emergency mode",
						   .cure = BY_UUID},
			      "/etc/fstab: %.60s for %.100s", words[0], swap ? "swap" : words[1]);
	} else if (strncmp(words[2], "nfs", 3) == 0 || strcmp(words[2], "cifs") == 0) {
		lb_ready_note(
			c,
			&(struct lb_finding){.check = "fstab",
					     .level = "info",
					     .effect = "in a test failover, whose network is isolated, it is not there",
					     .cure = has_option(words[3], "nofail") ? "" : "the option nofail"},
			"/etc/fstab: %.100s comes over the network", words[1]);
	}
}

static void crypt_line(struct lb_ready *c, char *line, void *arg)
{
	char *rest = line, *words[4] = {NULL}, *one;
	size_t k = 0;

	(void)arg;
	while (k < LB_ARRAY_LEN(words) && (one = strsep(&rest, " \t")) != NULL)
		if (*one != '\0')
			words[k++] = one;
	if (k < 2)
		return;
	if (lb_ready_unstable_device(words[1]))
		lb_ready_note(c,
			      &(struct lb_finding){.check = "encryption",
						   .level = lb_ready_fatal(c),
						   .effect = "the double doesn't find it: its disks have other names",
						   .cure = BY_UUID},
			      "/etc/crypttab: volume %.60s is on %.60s", words[0], words[1]);
	if (has_option(words[3], "tpm2-device") || has_option(words[3], "fido2-device") ||
	    has_option(words[3], "pkcs11-uri"))
		lb_ready_note(
			c,
			&(struct lb_finding){.check = "encryption",
					     .level = "warning",
					     .effect = "the double has not that hardware: it asks for another key at "
						       "its console, or stops",
					     .cure = "a passphrase beside it: systemd-cryptenroll --recovery-key"},
			"volume %.60s is opened by hardware of this machine (TPM or token)", words[0]);
	else if (words[2] == NULL || strcmp(words[2], "none") == 0 || strcmp(words[2], "-") == 0)
		lb_ready_note(c,
			      &(struct lb_finding){.check = "encryption",
						   .level = "warning",
						   .effect = "the double asks for it at its console and waits",
						   .cure = "have the passphrase at hand at a failover"},
			      "volume %.60s is opened by a passphrase", words[0]);
}

static void swap_line(struct lb_ready *c, char *line, void *arg)
{
	char device[128], kind[16];

	(void)arg;
	if (sscanf(line, "%127s %15s", device, kind) != 2 || strcmp(kind, "partition") != 0 ||
	    strncmp(device, "/dev/zram", 9) == 0)
		return;
	lb_ready_note(
		c,
		&(struct lb_finding){.check = "swap",
				     .level = "info",
				     .effect = "what is swapped out is replicated too, and of no use to the double",
				     .cure = "swap on a disk of its own needs no protection"},
		"swap is on %s", device);
}

void lb_ready_mounts(struct lb_ready *c)
{
	struct counts n = {0};

	if (lb_ready_lines(c, "/etc/fstab", fstab_line, &n) == 0 && n.entries > 0 && n.bad == 0)
		lb_ready_note(c, &(struct lb_finding){.check = "fstab", .level = "ok"},
			      "/etc/fstab names no disk in a way that changes");
	(void)lb_ready_lines(c, "/etc/crypttab", crypt_line, NULL); /* none: nothing is encrypted */
	(void)lb_ready_lines(c, "/proc/swaps", swap_line, NULL);
}
