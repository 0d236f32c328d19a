/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

bool cli_is_direct(const struct cli *c)
{
	return c->vault_url != NULL;
}

int cli_vault_open(struct cli *c)
{
	_cleanup_passphrase_ char *passphrase = NULL;
	int r;

	if (c->vault != NULL)
		return 0;
	if (c->vault_url == NULL)
		return lb_fail(-EINVAL, "which vault? Give --vault URL, for example --vault dir:/srv/vault");
	r = lb_store_open(c->env, c->vault_url, false, &c->store);
	if (r < 0)
		return r;
	r = cli_passphrase(c, false, &passphrase);
	if (r < 0)
		return r;
	return lb_vault_open(c->store, passphrase, &c->vault);
}
