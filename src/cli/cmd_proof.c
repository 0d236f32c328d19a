/* SPDX-License-Identifier: Apache-2.0 */
/* `vault verify` and `vault receipt`. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "cli/anchor.h"
#include "vault/catalog.h"
#include "vault/verify.h"

#define FINDINGS_MAX 10000 /* listed in JSON; all are counted */
#define RECEIPT_MODE 0600

struct verify {
	struct cli *c;
	json_t *findings; /* at most FINDINGS_MAX */
	uint64_t anchor_findings;
	const char *freshness;
	struct cli_machine_name machine; /* of the newest finding */
};

static void verify_progress(void *arg, const struct lb_verify_progress *p)
{
	const struct verify *verify = arg;

	cli_progress(verify->c, "Verifying: read", p->bytes, 0, true);
}

static void verify_finding(void *arg, const struct lb_verify_finding *f)
{
	struct verify *verify = arg;
	bool of_a_machine = !lb_uuid_equal(&f->machine, &(struct lb_uuid){{0}});

	if (of_a_machine)
		cli_machine_name(verify->c, &f->machine, &verify->machine);
	verify->c->degraded |= !f->is_note && !f->is_recorded;
	cli_progress_end(verify->c);
	if (!verify->c->json)
		printf("%s%s%s%sobject %s: %s\n",
		       f->is_note       ? "note: "
		       : f->is_recorded ? "recorded loss: "
					: "",
		       of_a_machine ? "machine " : "", of_a_machine ? verify->machine.label : "",
		       of_a_machine ? ", " : "", f->object, f->text);
	else if (json_array_size(verify->findings) < FINDINGS_MAX)
		json_array_append_new(verify->findings,
				      json_pack("{s:s,s:s,s:s,s:s,s:b,s:b}", "machine",
						of_a_machine ? verify->machine.id : "", "machine_name",
						of_a_machine ? verify->machine.name : "", "object", f->object, "text",
						f->text, "note", f->is_note, "recorded", f->is_recorded));
}

/* ---- anchors ------------------------------------------------------------------------------------------- */

static int check_anchor(struct verify *verify, const struct lb_anchor *anchor)
{
	struct lb_verify_finding f = {.machine = anchor->machine, .object = "the journal"};
	struct lb_anchor_result result;
	int r;

	r = lb_anchor_check(verify->c->vault, anchor, &result);
	if (r < 0)
		return r;
	if (result.state == LB_ANCHOR_HOLDS)
		return 0;
	verify->anchor_findings++;
	verify->freshness = "older";
	f.text = result.text;
	verify_finding(verify, &f);
	return 0;
}

/* What the configuration server knows, where one is known; without its answer freshness is only unproven. */
static int check_server(struct verify *verify, const struct lb_uuid *machine)
{
	_cleanup_json_ json_t *reply = NULL;
	char vault[LB_UUID_TEXT_BYTES];
	bool known = false;
	const json_t *one;
	size_t i;
	int r = 0;

	if (!cli_has_server(verify->c))
		return 0;
	if (cli_call(verify->c, "GET", "/v1/anchor", NULL, &reply) < 0) {
		fprintf(stderr, "lifeboat: the configuration server can't be asked what the vault held: %s\n",
			lb_err_text());
		lb_err_clear();
		return 0;
	}
	lb_uuid_format(lb_vault_id(verify->c->vault), vault);
	if (strcmp(cli_text(reply, "vault"), vault) != 0)
		return 0; /* it is of another site */
	json_array_foreach(json_object_get(reply, "anchors"), i, one)
	{
		struct lb_anchor a = {0};

		if (r < 0)
			break;
		if ((r = lb_json_get_uuid(one, "machine", &a.machine)) < 0 ||
		    (r = lb_json_get_u64(one, "epoch", &a.position.epoch)) < 0 ||
		    (r = lb_json_get_u64(one, "seq", &a.position.seq)) < 0 ||
		    (r = lb_json_get_digest(one, "digest", &a.digest)) < 0 ||
		    (r = lb_json_get_i64(one, "time_ns", &a.time_ns)) < 0)
			break;
		if (machine != NULL && !lb_uuid_equal(&a.machine, machine))
			continue;
		known = true;
		r = check_anchor(verify, &a);
	}
	if (r == 0 && known && verify->anchor_findings == 0)
		verify->freshness = "anchored";
	return r;
}

/* `machine` NULL: every machine that the receipt knows. */
static int check_receipt(struct verify *verify, const struct lb_uuid *machine)
{
	_cleanup_(lb_receipt_clear) struct lb_receipt receipt = {0};
	const char *path = cli_value(verify->c, "anchor");
	bool known = false;
	int r;

	if (path == NULL)
		return check_server(verify, machine);
	r = cli_receipt_read(verify->c, path, &receipt);
	for (size_t i = 0; r == 0 && i < receipt.n; i++) {
		if (machine != NULL && !lb_uuid_equal(&receipt.anchors[i].machine, machine))
			continue;
		known = true;
		r = check_anchor(verify, &receipt.anchors[i]);
	}
	if (r == 0 && known && verify->anchor_findings == 0)
		verify->freshness = "anchored";
	return r;
}

static void print_freshness(const struct verify *verify, int64_t newest_ns)
{
	char when[LB_TIME_TEXT_BYTES] = "none";

	if (newest_ns > 0)
		lb_time_format(newest_ns, when);
	if (strcmp(verify->freshness, "anchored") == 0)
		printf("The vault is at least as new as its anchor says; newest point %s.\n", when);
	else if (strcmp(verify->freshness, "older") == 0)
		printf("The vault is NOT as new as its anchor says; newest point %s.\n", when);
	else
		printf("Freshness unproven; newest point %s. A whole older copy of the vault would look the same: keep "
		       "receipts (`lifeboat vault receipt`) and give one by --anchor FILE.\n",
		       when);
}

/* ---- the whole vault, or one machine ----------------------------------------------------------------------- */

static int print_verified(const struct verify *verify, const struct lb_verify_report *report)
{
	uint64_t found = report->findings + verify->anchor_findings;
	char size[LB_SIZE_TEXT_BYTES];

	if (verify->c->json)
		return cli_print_json(
			"verify",
			json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:s,s:o,s:O}", "objects",
				  (json_int_t)report->done.objects, "segments", (json_int_t)report->done.segments,
				  "frames", (json_int_t)report->done.frames, "bytes", (json_int_t)report->done.bytes,
				  "found", (json_int_t)found, "recorded", (json_int_t)report->recorded, "proven",
				  found == 0, "freshness", verify->freshness, "newest_ns",
				  report->newest_ns > 0 ? json_integer(report->newest_ns) : json_null(), "findings",
				  verify->findings));
	printf("%s: %" PRIu64 " objects, %" PRIu64 " segments, %" PRIu64 " frames, %s read; %" PRIu64 " findings.\n",
	       found > 0              ? "NOT WHOLE"
	       : report->recorded > 0 ? "Proven, with the losses that repair recorded"
				      : "Proven",
	       report->done.objects, report->done.segments, report->done.frames,
	       lb_size_format(report->done.bytes, size), found);
	if (report->recorded > 0)
		printf("%" PRIu64 " losses were recorded by a repair, and are no new damage.\n", report->recorded);
	print_freshness(verify, report->newest_ns);
	return 0;
}

static int verify_all(struct verify *verify, const struct lb_uuid *machine)
{
	struct lb_verify_report report;
	int r;

	r = lb_vault_verify(verify->c->vault, machine, cli_value(verify->c, "deep") != NULL, verify_progress,
			    verify_finding, verify, &report);
	cli_progress_end(verify->c);
	if (r == 0)
		r = check_receipt(verify, machine);
	return r < 0 ? r : print_verified(verify, &report);
}

/* ---- one point ------------------------------------------------------------------------------------------ */

static int print_point(const struct verify *verify, const struct lb_point *point,
		       const struct lb_verify_point_report *report)
{
	uint64_t found = report->findings + verify->anchor_findings;
	char when[LB_TIME_TEXT_BYTES], data[LB_SIZE_TEXT_BYTES], lost[LB_SIZE_TEXT_BYTES];
	bool deep = cli_value(verify->c, "deep") != NULL;

	if (verify->c->json)
		return cli_print_json("verify-point",
				      json_pack("{s:I,s:I,s:I,s:b,s:b,s:s,s:I,s:I,s:I,s:O}", "epoch",
						(json_int_t)point->position.epoch, "seq",
						(json_int_t)point->position.seq, "time_ns", (json_int_t)point->time_ns,
						"proven", found == 0, "deep", deep, "freshness", verify->freshness,
						"data_bytes", (json_int_t)report->data_bytes, "lost_bytes",
						(json_int_t)report->lost_bytes, "found", (json_int_t)found, "findings",
						verify->findings));
	lb_time_format(point->time_ns, when);
	lb_size_format(report->data_bytes, data);
	if (found == 0)
		printf("The point %s (%" PRIu64 ":%" PRIu64 ") is proven: %s of data, %" PRIu64
		       " segments%s, all there%s.\n",
		       when, point->position.epoch, point->position.seq, data, report->done.segments,
		       deep ? " and every frame" : "", deep ? "" : " (--deep opens the data, too)");
	else
		printf("The point %s (%" PRIu64 ":%" PRIu64 ") is NOT WHOLE: %s of %s are lost, %" PRIu64
		       " findings.\n",
		       when, point->position.epoch, point->position.seq, lb_size_format(report->lost_bytes, lost), data,
		       found);
	if (strcmp(verify->freshness, "anchored") != 0)
		printf("Freshness unproven: whether the vault had newer points, only an anchor tells (--anchor "
		       "FILE).\n");
	return 0;
}

static int verify_point(struct verify *verify, const struct lb_uuid *machine, const char *text)
{
	struct lb_verify_point_report report;
	struct lb_point point;
	int r;

	r = lb_point_find(verify->c->vault, machine, text, &point);
	if (r < 0)
		return r;
	r = lb_vault_verify_point(verify->c->vault, machine, &point.position, cli_value(verify->c, "deep") != NULL,
				  verify_progress, verify_finding, verify, &report);
	cli_progress_end(verify->c);
	if (r == 0)
		r = check_receipt(verify, machine);
	return r < 0 ? r : print_point(verify, &point, &report);
}

/* By id without its catalog entry, which may be what is damaged. */
static int find_machine(struct cli *c, const char *name, struct lb_uuid *ret_machine)
{
	struct lb_catalog_item item;
	int r;

	if (lb_uuid_parse(name, ret_machine) == 0)
		return 0;
	r = lb_catalog_find(c->vault, name, &item);
	if (r == 0)
		*ret_machine = item.machine;
	return r;
}

int cmd_vault_verify(struct cli *c)
{
	_cleanup_json_ json_t *findings = json_array();
	struct verify verify = {.c = c, .findings = findings, .freshness = "unproven"};
	const char *name = c->n_args > 0 ? c->args[0] : cli_value(c, "machine");
	const char *point = cli_value(c, "point");
	struct lb_uuid machine;
	int r;

	if (c->n_args > 0 && cli_value(c, "machine") != NULL)
		return lb_fail(-EINVAL, "one machine is verified: name it once");
	if (point != NULL && name == NULL)
		return lb_fail(-EINVAL, "--point is of one machine: name it");
	r = cli_vault_open(c);
	if (r == 0 && name != NULL)
		r = find_machine(c, name, &machine);
	if (r < 0)
		return r;
	return point != NULL ? verify_point(&verify, &machine, point)
			     : verify_all(&verify, name != NULL ? &machine : NULL);
}

/* ---- receipts -------------------------------------------------------------------------------------------- */

int cmd_vault_receipt(struct cli *c)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_RECEIPT_BYTES_MAX + 1);
	const char *path = cli_value(c, "file");
	int r;

	r = cli_vault_open(c);
	if (r == 0)
		r = lb_receipt_make(c->vault, &text);
	if (r < 0)
		return r;
	if (path != NULL) {
		if (c->dry_run)
			return cli_would(c, "write a receipt of %s to %s", c->vault_url, path);
		r = lb_file_write_new(c->env, path, text.data, text.size_bytes, RECEIPT_MODE);
		return r < 0 ? r
			     : cli_did(c, "receipt", json_pack("{s:s}", "file", path),
				       "The receipt is in %s. Keep it where whoever can write to the vault can't.",
				       path);
	}
	if (c->json) {
		r = lb_buf_append(&text, "", 1);
		return r < 0 ? r : cli_print_json("receipt", json_pack("{s:s}", "receipt", (const char *)text.data));
	}
	return fwrite(text.data, 1, text.size_bytes, stdout) == text.size_bytes
		       ? 0
		       : lb_fail(-EIO, "the receipt could not be written out");
}
