/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * `lifeboat-mobility enrol`: makes this machine's key, has the configuration server sign it against a one-time token,
 * and keeps the identity. The key never leaves the machine; the server is known by its CA's fingerprint.
 */
#include "base/env.h"
#include "mobility/hardware.h"

#define LB_TOKEN_BYTES_MAX 1024
#define LB_ENROL_WAIT_S_MAX 3600
#define LB_HARDWARE_SOURCE_NAME "hardware-source"
#define LB_UUID_COPY_NAME "product_uuid" /* in the run folder, put there by the unit, which may read it */

struct lb_enrol {
	const char *config_url;
	const char *ca_fingerprint_hex;
	const char *token_file;  /* "-": standard input */
	const char *name;        /* NULL: the host's */
	const char *config_path; /* written unless it is there */
	uint64_t wait_s;         /* for a server that can't be reached, or whose answer is lost */
};

int lb_enrol(struct lb_env *env, const struct lb_enrol *e);

int lb_hardware_source_keep(struct lb_env *env, const char *identity_folder, enum lb_hardware_source source);
/* What the fingerprint was made from when this machine was enrolled. */
int lb_hardware_source_load(struct lb_env *env, const char *identity_folder, enum lb_hardware_source *ret_source);
