/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Configuration files: lines of `key = value`, `#` starts a comment line. At most LB_CONF_BYTES_MAX. An unknown key
 * is an error that names the file and the line, so that a misspelt setting never passes unnoticed.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"

#define LB_CONF_BYTES_MAX (64u << 10)

enum lb_conf_type { LB_CONF_STR, LB_CONF_U64, LB_CONF_SIZE, LB_CONF_BOOL };

struct lb_conf_key {
	const char *name;
	enum lb_conf_type type;
	void *value;       /* char ** (allocated, replaced), uint64_t *, uint64_t * (bytes), bool * */
	uint64_t min, max; /* for numbers and sizes; both 0: any */
};

/* Values of keys that the file doesn't name stay as they are. -ENOENT when there is no such file. */
int lb_conf_read(struct lb_env *env, const char *path, const struct lb_conf_key *keys, size_t n_keys);
/* The value of an LB_CONF_STR that the file did not name. */
int lb_conf_default(char **value, const char *text);
