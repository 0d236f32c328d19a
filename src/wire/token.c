/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/err.h"
#include "base/io.h"

int lb_token_text_read(struct lb_env *env, const char *path, struct lb_token_text *ret_token)
{
	uint8_t *text;
	size_t size_bytes;
	int r;

	r = lb_file_read(env, path, LB_TOKEN_FILE_BYTES_MAX, &text, &size_bytes);
	if (r < 0)
		return lb_wrap(r, "token");
	snprintf(ret_token->text, sizeof(ret_token->text), "%.*s", (int)strcspn((char *)text, " \t\r\n"), (char *)text);
	lb_wipe(text, size_bytes);
	free(text);
	return 0;
}

void lb_token_text_wipe(struct lb_token_text *token)
{
	lb_wipe(token, sizeof(*token));
}
