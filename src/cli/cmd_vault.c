/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "vault/catalog.h"

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

static int rotate_vault_key(struct cli *c, const char *passphrase)
{
	struct lb_rotation done;
	int r;

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

struct new_keys {
	struct cli *c;
	json_t *machines;
	unsigned int done, keyless;
};

static int rotate_machine(void *arg, const struct lb_uuid *machine)
{
	struct new_keys *n = arg;
	struct cli_machine_name name = {0};
	uint32_t generation;
	int r;

	r = lb_vault_machine_key_rotate(n->c->vault, machine, &generation);
	if (r == -ENOENT && cli_value(n->c, "all") != NULL) { /* its key was destroyed */
		lb_err_clear();
		n->keyless++;
		return 0;
	}
	if (r < 0)
		return lb_wrap(r, "%u machines have new keys; run this for the others", n->done);
	n->done++;
	cli_machine_name(n->c, machine, &name);
	json_array_append_new(n->machines, json_pack("{s:s,s:s,s:I}", "machine", name.id, "machine_name", name.name,
						     "generation", (json_int_t)generation));
	return 0;
}

static int rotate_machines(struct cli *c, const char *name)
{
	_cleanup_json_ json_t *machines = json_array();
	struct new_keys n = {.c = c, .machines = machines};
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	struct lb_uuid machine;
	int r = 0;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	if (name != NULL && lb_uuid_parse(name, &machine) < 0) {
		r = lb_catalog_find(c->vault, name, item);
		machine = item->machine;
	}
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "make a new key for %s in %s", name != NULL ? name : "every machine", c->vault_url);
	r = name != NULL ? rotate_machine(&n, &machine) : lb_vault_machines(c->vault, rotate_machine, &n);
	if (r < 0)
		return r;
	return cli_did(
		c, "vault",
		json_pack("{s:s,s:O,s:I}", "url", c->vault_url, "machines", machines, "keyless", (json_int_t)n.keyless),
		"%u %s a new key for what is sealed from now on; what was sealed before opens with their "
		"old ones. No data was rewritten. Process servers take the new keys within a minute.",
		n.done, n.done == 1 ? "machine has" : "machines have");
}

int cmd_vault_rotate(struct cli *c)
{
	bool vault_key = cli_value(c, "vault-key") != NULL, all = cli_value(c, "all") != NULL;
	const char *machine = cli_value(c, "machine");
	_cleanup_passphrase_ char *passphrase = NULL;
	int r;

	if (vault_key + all + (machine != NULL) != 1)
		return lb_fail(-EINVAL,
			       "say what to change: --vault-key, --machine NAME or --all (every machine's key)");
	r = open_to_rotate(c, &passphrase);
	if (r < 0)
		return r;
	return vault_key ? rotate_vault_key(c, passphrase) : rotate_machines(c, machine);
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
