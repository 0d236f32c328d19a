/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest of a folded journal, as a broken or hostile writer that holds the machine's key would make it. What is
 * taken says the same once it is written and read again, and answers what readers ask of it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void write_again(const struct lb_manifest *m, struct lb_buf *out)
{
	if (lb_manifest_encode(m, out) < 0)
		abort();
}

static void ask(struct lb_manifest *m)
{
	for (size_t i = 0; i < m->n_spans; i++) {
		const struct lb_position *end = &m->spans[i].point.position;

		if (lb_manifest_span(m, end) != i || !lb_manifest_is_folded(m, end))
			abort();
		(void)lb_manifest_offers(m, end);
	}
	for (size_t i = 0; i < m->n_live; i++)
		if (lb_manifest_live(m, m->live[i].epoch, m->live[i].number) != &m->live[i])
			abort();
	for (size_t i = 0; i < m->n_kept; i++)
		(void)lb_manifest_offers(m, &m->kept[i].position);
}

/* Lists have room to grow after they were read. */
static void grow(struct lb_manifest *m)
{
	struct lb_live live = {.epoch = 1, .number = 1};
	struct lb_garbage garbage = {.kind = LB_GARBAGE_JOURNAL, .epoch = 1, .number = 1};

	if (lb_manifest_live(m, live.epoch, live.number) == NULL)
		(void)lb_manifest_live_add(m, &live);
	(void)lb_manifest_garbage_add(m, &garbage);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf once = LB_BUF(LB_MANIFEST_BYTES_MAX), twice = LB_BUF(LB_MANIFEST_BYTES_MAX);
	_cleanup_manifest_ struct lb_manifest *m = NULL, *again = NULL;

	if (lb_manifest_decode(data, size_bytes, &m) < 0) {
		lb_err_clear();
		return 0;
	}
	write_again(m, &once);
	if (lb_manifest_decode(once.data, once.size_bytes, &again) < 0)
		abort();
	write_again(again, &twice);
	if (once.size_bytes != twice.size_bytes || memcmp(once.data, twice.data, once.size_bytes) != 0)
		abort();
	ask(m);
	grow(m);
	lb_err_clear();
	return 0;
}
