/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/service.h"

bool cli_is_direct(const struct cli *c)
{
	return c->vault_url != NULL;
}

void cli_defaults(struct cli *c)
{
	if (c->server_url == NULL)
		c->server_url = getenv("LIFEBOAT_CONFIG_URL");
	if (c->identity_folder == NULL)
		c->identity_folder = getenv("LIFEBOAT_IDENTITY");
	if (c->identity_folder == NULL)
		c->identity_folder = CLI_ADMIN_FOLDER;
	/* a known server outranks a vault from the environment, as an explicit --vault outranks a server */
	if (c->vault_url == NULL && c->server_url == NULL)
		c->vault_url = getenv("LIFEBOAT_VAULT");
	if (c->passphrase_file == NULL)
		c->passphrase_file = getenv("LIFEBOAT_PASSPHRASE_FILE");
}

int cli_vault_need(struct cli *c)
{
	if (c->vault_url == NULL)
		c->vault_url = getenv("LIFEBOAT_VAULT");
	if (c->vault_url == NULL)
		return lb_fail(
			-EINVAL,
			"which vault? Give --vault URL or set LIFEBOAT_VAULT, for example --vault dir:/srv/vault");
	return 0;
}

int cli_vault_open(struct cli *c)
{
	_cleanup_passphrase_ char *passphrase = NULL;
	int r;

	if (c->vault != NULL)
		return 0;
	r = cli_vault_need(c);
	if (r < 0)
		return r;
	r = lb_store_open(c->env, c->vault_url, false, &c->store);
	if (r < 0)
		return r;
	r = cli_passphrase(c, false, &passphrase);
	if (r < 0)
		return r;
	return lb_vault_open(c->store, passphrase, &c->vault);
}

int cli_vault_machine(struct cli *c, const char *name, struct lb_catalog_item *ret_item)
{
	int r;

	r = cli_vault_open(c);
	return r < 0 ? r : lb_catalog_find(c->vault, name, ret_item);
}

void cli_machine_name(struct cli *c, const struct lb_uuid *machine, struct cli_machine_name *name)
{
	if (name->known && lb_uuid_equal(&name->machine, machine))
		return;
	*name = (struct cli_machine_name){.known = true, .machine = *machine};
	lb_uuid_format(machine, name->id);
	lb_catalog_name(c->vault, machine, name->name);
	lb_machine_label(machine, name->name, name->label);
}
