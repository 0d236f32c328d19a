/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "vault/catalog.h"
#include "vault/verify.h"

int cmd_vault_create(struct cli *c)
{
	_cleanup_passphrase_ char *passphrase = NULL;
	char id[LB_UUID_TEXT_BYTES];
	struct lb_uuid uuid;
	int r;

	if (c->vault_url == NULL)
		return lb_fail(-EINVAL, "where? Give --vault URL, for example --vault dir:/srv/vault");
	if (c->dry_run) {
		printf("would make a vault in %s\n", c->vault_url);
		return 0;
	}
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
	if (c->json)
		return cli_print_json("vault", json_pack("{s:s,s:s}", "id", id, "url", c->vault_url));
	printf("Vault %s is ready in %s.\n"
	       "Its passphrase opens everything in it, and nothing else does: keep it where the servers are not.\n",
	       id, c->vault_url);
	return 0;
}

static void verify_progress(void *arg, const struct lb_verify_progress *p)
{
	const struct cli *c = arg;

	cli_progress(c, "Verifying", p->bytes, p->bytes, true);
}

static void verify_finding(void *arg, const struct lb_verify_finding *f)
{
	struct cli *c = arg;
	char machine[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&f->machine, machine);
	c->degraded = true;
	cli_progress_end(c);
	if (!c->json)
		printf("machine %s, object %s: %s\n", machine, f->object, f->text);
}

static int print_verified(const struct cli *c, const struct lb_verify_report *report)
{
	char when[LB_TIME_TEXT_BYTES] = "none", size[LB_SIZE_TEXT_BYTES];

	if (report->newest_ns > 0)
		lb_time_format(report->newest_ns, when);
	if (c->json)
		return cli_print_json(
			"verify", json_pack("{s:I,s:I,s:I,s:I,s:I,s:s}", "objects", (json_int_t)report->done.objects,
					    "segments", (json_int_t)report->done.segments, "frames",
					    (json_int_t)report->done.frames, "bytes", (json_int_t)report->done.bytes,
					    "findings", (json_int_t)report->findings, "newest", when));
	printf("%s: %" PRIu64 " objects, %" PRIu64 " segments, %" PRIu64 " frames, %s read; %" PRIu64 " findings.\n",
	       report->findings == 0 ? "Proven" : "NOT WHOLE", report->done.objects, report->done.segments,
	       report->done.frames, lb_size_format(report->done.bytes, size), report->findings);
	printf("Newest point %s. A whole older copy of the vault would look the same: freshness beyond it is "
	       "unproven.\n",
	       when);
	return 0;
}

int cmd_vault_verify(struct cli *c)
{
	struct lb_catalog_item item;
	struct lb_verify_report report;
	int r;

	r = cli_vault_open(c);
	if (r < 0)
		return r;
	if (c->n_args > 0) {
		r = lb_catalog_find(c->vault, c->args[0], &item);
		if (r < 0)
			return r;
	}
	r = lb_vault_verify(c->vault, c->n_args > 0 ? &item.machine : NULL, cli_value(c, "deep") != NULL,
			    verify_progress, verify_finding, c, &report);
	cli_progress_end(c);
	if (r < 0)
		return r;
	return print_verified(c, &report);
}

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
	r = new_passphrase(c, &passphrase);
	if (r < 0)
		return r;
	if (c->dry_run) {
		printf("would change the passphrase of %s\n", c->vault_url);
		return 0;
	}
	r = lb_vault_passphrase_change(c->vault, passphrase);
	if (r < 0)
		return r;
	printf("The passphrase is changed. Whoever copied vault.json earlier can still open that copy with the old "
	       "one.\n");
	return 0;
}
