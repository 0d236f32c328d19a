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

#define FINDINGS_MAX 10000 /* listed in JSON; all are counted */

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

struct verify {
	struct cli *c;
	json_t *findings; /* at most FINDINGS_MAX */
};

static void verify_progress(void *arg, const struct lb_verify_progress *p)
{
	const struct verify *verify = arg;

	cli_progress(verify->c, "Verifying: read", p->bytes, 0, true);
}

static void verify_finding(void *arg, const struct lb_verify_finding *f)
{
	const struct verify *verify = arg;
	char machine[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&f->machine, machine);
	verify->c->degraded = true;
	cli_progress_end(verify->c);
	if (!verify->c->json)
		printf("machine %s, object %s: %s\n", machine, f->object, f->text);
	else if (json_array_size(verify->findings) < FINDINGS_MAX)
		json_array_append_new(verify->findings, json_pack("{s:s,s:s,s:s}", "machine", machine, "object",
								  f->object, "text", f->text));
}

static int print_verified(const struct cli *c, const struct lb_verify_report *report, json_t *findings)
{
	char when[LB_TIME_TEXT_BYTES] = "none", size[LB_SIZE_TEXT_BYTES];

	if (report->newest_ns > 0)
		lb_time_format(report->newest_ns, when);
	if (c->json)
		return cli_print_json(
			"verify",
			json_pack("{s:I,s:I,s:I,s:I,s:I,s:o,s:O}", "objects", (json_int_t)report->done.objects,
				  "segments", (json_int_t)report->done.segments, "frames",
				  (json_int_t)report->done.frames, "bytes", (json_int_t)report->done.bytes, "found",
				  (json_int_t)report->findings, "newest_ns",
				  report->newest_ns > 0 ? json_integer(report->newest_ns) : json_null(), "findings",
				  findings));
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
	_cleanup_json_ json_t *findings = json_array();
	struct verify verify = {.c = c, .findings = findings};
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
			    verify_progress, verify_finding, &verify, &report);
	cli_progress_end(c);
	if (r < 0)
		return r;
	return print_verified(c, &report, findings);
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
