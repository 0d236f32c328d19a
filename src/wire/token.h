/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A one-time token on its way from the file that the operator made to the enrolment. */
#include "base/env.h"

#define LB_TOKEN_FILE_BYTES_MAX 256

struct lb_token_text {
	char text[LB_TOKEN_FILE_BYTES_MAX + 1];
};

/* The first word of the file. */
int lb_token_text_read(struct lb_env *env, const char *path, struct lb_token_text *ret_token);
void lb_token_text_wipe(struct lb_token_text *token); /* for _cleanup_() */
