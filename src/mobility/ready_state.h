/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Inside src/mobility: what the checks of ready*.c share. */
#include "mobility/ready.h"

#define LB_READY_PATH_BYTES 512

struct lb_ready {
	struct lb_ready_options o;
	char kernel[128];
	char boot_disk[64]; /* empty: / is on no disk that is seen here */
	json_t *findings;
	int error; /* the first that kept a finding from being noted */
};

struct lb_finding {
	const char *check, *level, *effect, *cure, *mend; /* NULL: "" */
};

/* Notes a finding; what is past LB_READY_FINDINGS_MAX is left out. */
void lb_ready_note(struct lb_ready *c, const struct lb_finding *finding, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* "error" where the double's start hangs on it, "warning" where the system disk isn't seen from here. */
const char *lb_ready_fatal(const struct lb_ready *c);

/* -errno without text; a privileged opening is tried where the file is closed to us. */
int lb_ready_open(struct lb_ready *c, const char *path);
/* A text file, NUL-terminated; free() it. -errno without text. */
int lb_ready_text(struct lb_ready *c, const char *path, char **ret_text);
bool lb_ready_exists(struct lb_ready *c, const char *path);
/* Calls `fn` with each line of a configuration file, comments and blank lines left out, white space trimmed. */
int lb_ready_lines(struct lb_ready *c, const char *path, void (*fn)(struct lb_ready *c, char *line, void *arg),
		   void *arg);
/* "/dev/sda1": a name that the double's disks don't have, and that other disks may have. */
bool lb_ready_unstable_device(const char *spec);
/* "/dev/vda1": the double's disks may well have such names too. */
bool lb_ready_virtual_device(const char *spec);

/* The first card that is configured by a name that a double's would not have; -ENOENT: there is none. */
#define LB_READY_NAME_BYTES 32
int lb_ready_named_card(struct lb_ready *c, char name[LB_READY_NAME_BYTES], char mac[LB_READY_NAME_BYTES]);

void lb_ready_drivers(struct lb_ready *c); /* ready_drivers.c */
void lb_ready_boot(struct lb_ready *c);    /* ready_boot.c: firmware, partitions, boot loader */
void lb_ready_mounts(struct lb_ready *c);  /* ready_mounts.c: fstab, crypttab, swap */
void lb_ready_network(struct lb_ready *c); /* ready_network.c */
