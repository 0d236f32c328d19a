/* SPDX-License-Identifier: Apache-2.0 */
/* Receipts that an operator kept elsewhere: --anchor FILE. */
#include "cli/anchor.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/io.h"

int cli_receipt_read(struct cli *c, const char *path, struct lb_receipt *ret_receipt)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t size_bytes;
	int r;

	r = lb_file_read(c->env, path, LB_RECEIPT_BYTES_MAX, &data, &size_bytes);
	if (r == 0)
		r = lb_receipt_open(c->vault, data, size_bytes, ret_receipt);
	return r < 0 ? lb_wrap(r, "the receipt %s", path) : 0;
}

static int hold_against(struct cli *c, const struct lb_receipt *receipt, const struct lb_uuid *machine)
{
	const struct lb_anchor *anchor = lb_receipt_find(receipt, machine);
	char made[LB_TIME_TEXT_BYTES];
	struct lb_anchor_result result;
	int r;

	lb_time_format(receipt->made_ns, made);
	if (anchor == NULL) {
		if (!c->json)
			fprintf(stderr, "lifeboat: freshness unproven: the receipt of %s does not know this machine.\n",
				made);
		return 0;
	}
	r = lb_anchor_check(c->vault, anchor, &result);
	if (r < 0)
		return r;
	if (result.state != LB_ANCHOR_HOLDS)
		return lb_fail(
			-EPERM,
			"%s (by the receipt of %s); look for a newer copy of the vault, or go on without --anchor "
			"with what there is",
			result.text, made);
	if (!c->json)
		fprintf(stderr, "lifeboat: the vault is at least as new as the receipt of %s says.\n", made);
	return 0;
}

int cli_anchor_check(struct cli *c, const struct lb_uuid *machine, int64_t newest_ns)
{
	_cleanup_(lb_receipt_clear) struct lb_receipt receipt = {0};
	const char *path = cli_value(c, "anchor");
	char when[LB_TIME_TEXT_BYTES];
	int r;

	if (path == NULL) {
		if (!c->json)
			fprintf(stderr,
				"lifeboat: freshness unproven: the vault's newest point is %s, and without --anchor "
				"nobody knows "
				"whether it had newer ones.\n",
				lb_time_format(newest_ns, when));
		return 0;
	}
	r = cli_receipt_read(c, path, &receipt);
	return r < 0 ? r : hold_against(c, &receipt, machine);
}
