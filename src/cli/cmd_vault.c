/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "vault/vault.h"

int cmd_vault_create(struct cli *c)
{
	_cleanup_passphrase_ char *passphrase = NULL;
	char id[LB_UUID_TEXT_BYTES];
	struct lb_uuid uuid;
	int r;

	r = cli_vault_need(c);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "make a vault in %s, unless one is there", c->vault_url);
	r = cli_passphrase(c, true, &passphrase);
	if (r < 0)
		return r;
	r = lb_store_open(c->env, c->vault_url, true, &c->store);
	if (r < 0)
		return r;
	r = lb_store_prove(c->store);
	if (r < 0)
		return r;
	r = lb_vault_create(c->store, passphrase, &uuid);
	if (r < 0)
		return r;
	lb_uuid_format(&uuid, id);
	return cli_did(
		c, "vault", json_pack("{s:s,s:s}", "id", id, "url", c->vault_url),
		"Vault %s is ready in %s.\n"
		"Its passphrase opens everything in it, and nothing else does: keep it where the servers are not.",
		id, c->vault_url);
}

/* The passphrase is needed twice: to open the vault and to wrap its new key. */
static int open_to_rotate(struct cli *c, char **ret_passphrase)
{
	_cleanup_passphrase_ char *passphrase = NULL;
	int r;

	r = cli_vault_need(c);
	if (r == 0)
		r = lb_store_open(c->env, c->vault_url, false, &c->store);
	if (r == 0)
		r = cli_passphrase(c, false, &passphrase);
	if (r == 0)
		r = lb_vault_open(c->store, passphrase, &c->vault);
	if (r < 0)
		return r;
	*ret_passphrase = lb_steal_ptr(passphrase);
	return 0;
}

int cmd_vault_rotate(struct cli *c)
{
	_cleanup_passphrase_ char *passphrase = NULL;
	struct lb_rotation done;
	int r;

	if (cli_value(c, "vault-key") == NULL)
		return lb_fail(-EINVAL, "say what to change: --vault-key");
	r = open_to_rotate(c, &passphrase);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "make a new vault key for %s and wrap the machines' keys by it", c->vault_url);
	r = lb_vault_rotate(c->vault, passphrase, &done);
	if (r < 0)
		return r;
	return cli_did(c, "vault",
		       json_pack("{s:s,s:b,s:I,s:I,s:I,s:I,s:I}", "url", c->vault_url, "resumed", done.is_resumed,
				 "machines", (json_int_t)done.machines, "keyless", (json_int_t)done.keyless,
				 "site_objects", (json_int_t)done.site_objects, "site_damaged",
				 (json_int_t)done.site_damaged, "old_wraps_left", (json_int_t)done.old_wraps_left),
		       "%s: the keys of %llu machines are wrapped by it; %llu old wraps could not be removed. No data "
		       "was rewritten.\nNow start lifeboat-config again, and make a new receipt (`lifeboat vault "
		       "receipt`): an older one still proves, but can't put vault.json back.",
		       done.is_resumed ? "The interrupted change of the vault key is finished" : "The vault key is new",
		       (unsigned long long)done.machines, (unsigned long long)done.old_wraps_left);
}

/* The new one is asked for, or in its own file: --passphrase-file is the old one's. */
static int new_passphrase(struct cli *c, char **ret_passphrase)
{
	struct cli other = *c;

	other.passphrase_file = cli_value(c, "new-passphrase-file");
	return cli_passphrase(&other, true, ret_passphrase);
}

int cmd_vault_passphrase(struct cli *c)
{
	_cleanup_passphrase_ char *passphrase = NULL;
	int r;

	r = cli_vault_open(c);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "change the passphrase of %s", c->vault_url);
	r = new_passphrase(c, &passphrase);
	if (r < 0)
		return r;
	r = lb_vault_passphrase_change(c->vault, passphrase);
	if (r < 0)
		return r;
	return cli_did(c, "vault", json_pack("{s:s,s:b}", "url", c->vault_url, "passphrase_changed", 1),
		       "The passphrase is changed. Whoever copied vault.json earlier can still open that copy with the "
		       "old one. Give the new one to the configuration server before its next start.");
}
