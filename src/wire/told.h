/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a double is told by whoever made it: where the configuration server is, by which authority it is known, and a
 * secret by which the double may become a machine of its own once that is ordered. It comes through the firmware
 * (fw_cfg), never over the network and never on a disk of the double; the secret is in no argument and no log.
 */
#include "base/env.h"

#define LB_TOLD_FWCFG "opt/lifeboat/double"
#define LB_TOLD_FILE "double.json" /* in the VM's folder, 0600 */
#define LB_TOLD_BYTES_MAX 4096
#define LB_TOLD_URL_BYTES 300
#define LB_TOLD_HEX_BYTES 65 /* 32 bytes */

struct lb_told {
	char config_url[LB_TOLD_URL_BYTES]; /* without a slash at its end */
	char ca_fingerprint[LB_TOLD_HEX_BYTES];
	char secret[LB_TOLD_HEX_BYTES];
};
void lb_told_wipe(struct lb_told *told); /* for _cleanup_() */

/* With a secret of its own. */
int lb_told_make(struct lb_env *env, const char *config_url, const char *ca_fingerprint, struct lb_told *ret_told);
int lb_told_parse(const void *data, size_t size_bytes, struct lb_told *ret_told);
/* -ENOENT; -EACCES when this user may not read it. */
int lb_told_read(struct lb_env *env, const char *path, struct lb_told *ret_told);
/* A new file; -EEXIST when there is one. */
int lb_told_write(struct lb_env *env, const char *path, const struct lb_told *told);

/* What the secret is called where it must not stand: hex. */
int lb_told_digest(const char *secret, char ret_hex[LB_TOLD_HEX_BYTES]);
