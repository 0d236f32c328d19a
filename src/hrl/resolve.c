/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which bytes of which write are seen in the end. A sweep over the disk keeps the writes that cover the place where it
 * stands in a heap, the winner on top: O(n log n) whatever the overlaps.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "hrl/builder.h"

struct sweep {
	const struct lb_hrl_op *ops;
	uint32_t *heap; /* indices of ops */
	uint32_t n_heap;
};

static uint64_t op_end(const struct lb_hrl_op *op)
{
	return op->offset_bytes + op->length_bytes;
}

/* Captured bytes outrank scanned ones whatever their order; among equals the later write wins. */
static bool outranks(const struct lb_hrl_op *a, const struct lb_hrl_op *b)
{
	bool a_scanned = lb_hrl_kind_is_scanned(a->kind), b_scanned = lb_hrl_kind_is_scanned(b->kind);

	return a_scanned != b_scanned ? b_scanned : a->number > b->number;
}

static int compare_ops(const void *a, const void *b)
{
	const struct lb_hrl_op *x = a, *y = b;

	if (x->disk != y->disk)
		return x->disk < y->disk ? -1 : 1;
	if (x->offset_bytes != y->offset_bytes)
		return x->offset_bytes < y->offset_bytes ? -1 : 1;
	return x->number < y->number ? -1 : 1;
}

static void heap_push(struct sweep *s, uint32_t op)
{
	uint32_t at = s->n_heap++;

	while (at > 0) {
		uint32_t up = (at - 1) / 2;

		if (!outranks(&s->ops[op], &s->ops[s->heap[up]]))
			break;
		s->heap[at] = s->heap[up];
		at = up;
	}
	s->heap[at] = op;
}

static void heap_pop(struct sweep *s)
{
	uint32_t op = s->heap[--s->n_heap], at = 0;

	for (;;) {
		uint32_t down = 2 * at + 1;

		if (down >= s->n_heap)
			break;
		if (down + 1 < s->n_heap && outranks(&s->ops[s->heap[down + 1]], &s->ops[s->heap[down]]))
			down++;
		if (!outranks(&s->ops[s->heap[down]], &s->ops[op]))
			break;
		s->heap[at] = s->heap[down];
		at = down;
	}
	s->heap[at] = op;
}

/* Sweeps over the ops from `at` to `end`, all of one disk. */
static int sweep_disk(struct sweep *s, uint32_t at, uint32_t end, lb_hrl_part_fn fn, void *arg)
{
	uint64_t pos_bytes = 0;

	while (at < end || s->n_heap > 0) {
		const struct lb_hrl_op *top;
		uint64_t until_bytes;
		int r;

		if (s->n_heap == 0)
			pos_bytes = s->ops[at].offset_bytes;
		while (at < end && s->ops[at].offset_bytes <= pos_bytes)
			heap_push(s, at++);
		top = &s->ops[s->heap[0]];
		until_bytes = op_end(top);
		if (until_bytes <= pos_bytes) {
			heap_pop(s);
			continue;
		}
		/* one that outranks the winner cuts it; the others wait in the heap until it ends */
		while (at < end && s->ops[at].offset_bytes < until_bytes) {
			if (outranks(&s->ops[at], top)) {
				until_bytes = s->ops[at].offset_bytes;
				break;
			}
			heap_push(s, at++);
		}
		r = fn(arg, top, pos_bytes, until_bytes);
		if (r < 0)
			return r;
		pos_bytes = until_bytes;
	}
	return 0;
}

int lb_hrl_resolve(struct lb_hrl_op *ops, uint32_t n_ops, lb_hrl_part_fn fn, void *arg)
{
	_cleanup_free_ uint32_t *heap = NULL;
	struct sweep s = {.ops = ops};
	int r;

	if (n_ops == 0)
		return 0;
	heap = malloc(n_ops * sizeof(*heap));
	if (heap == NULL)
		return lb_fail(-ENOMEM, "out of memory for the overlaps of %u writes", n_ops);
	s.heap = heap;
	qsort(ops, n_ops, sizeof(*ops), compare_ops);
	for (uint32_t at = 0, end; at < n_ops; at = end) {
		for (end = at + 1; end < n_ops && ops[end].disk == ops[at].disk;)
			end++;
		r = sweep_disk(&s, at, end, fn, arg);
		if (r < 0)
			return r;
	}
	return 0;
}
