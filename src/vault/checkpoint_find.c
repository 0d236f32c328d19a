/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "vault/checkpoint.h"
#include "vault/manifest.h"

#define CHECKPOINTS_MAX (1u << 20)

void lb_checkpoint_list_free(struct lb_checkpoint_list *list)
{
	free(list->places);
	*list = (struct lb_checkpoint_list){0};
}

static int list_add(void *arg, const char *name, uint64_t size_bytes)
{
	struct lb_checkpoint_list *list = arg;
	struct lb_place place, *grown;

	(void)size_bytes;
	if (lb_checkpoint_name_parse(name, &place) < 0)
		return 0;
	if (list->n >= CHECKPOINTS_MAX)
		return lb_fail(-EOVERFLOW, "more than %u checkpoints; see %s", CHECKPOINTS_MAX, name);
	if (list->n == list->room) {
		list->room = list->room > 0 ? 2 * list->room : 64;
		grown = reallocarray(list->places, list->room, sizeof(*grown));
		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for a list of checkpoints");
		list->places = grown;
	}
	list->places[list->n++] = place;
	return 0;
}

int lb_checkpoint_list(struct lb_vault *v, const struct lb_uuid *machine, struct lb_checkpoint_list *ret_list)
{
	struct lb_checkpoint_list list = {0};
	char prefix[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_vault_name(prefix, machine, "c/");
	if (r < 0)
		return r;
	r = lb_store_list(v->store, prefix, list_add, &list);
	if (r < 0) {
		lb_checkpoint_list_free(&list);
		return r;
	}
	*ret_list = list;
	return 0;
}

/* 1 when it was read, 0 when it is damaged or gone, which costs only time. */
static int try_read(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_place *place,
		    struct lb_checkpoint **ret)
{
	int r = lb_checkpoint_read(v, machine, place, ret);

	if (r != -EBADMSG && r != -ENOENT)
		return r < 0 ? r : 1;
	lb_warning("passing over a checkpoint: %s", lb_err_text());
	return 0;
}

int lb_checkpoint_search(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_checkpoint_list *list,
			 size_t n, bool (*fits)(const void *arg, const struct lb_checkpoint *c), const void *arg,
			 struct lb_checkpoint **ret, size_t *ret_index)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *best = NULL;
	size_t lo = 0, hi = n, best_index = 0;

	while (lo < hi) {
		_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
		/* the newest first: that is what is asked for most */
		size_t mid = hi == n ? hi - 1 : lo + (hi - lo) / 2;
		int r = try_read(v, machine, &list->places[mid], &c);

		if (r < 0)
			return r;
		if (r == 1 && fits(arg, c)) {
			if (best != NULL)
				lb_checkpoint_free(best);
			best = lb_steal_ptr(c);
			best_index = mid;
			lo = mid + 1;
		} else {
			hi = mid;
		}
	}
	if (best == NULL)
		return lb_fail(-ENOENT, "there is no checkpoint to begin with");
	*ret = lb_steal_ptr(best);
	*ret_index = best_index;
	return 0;
}

static bool fits_position(const void *arg, const struct lb_checkpoint *c)
{
	const struct lb_position *p = arg;

	return p == NULL || c->after.position.epoch < p->epoch ||
	       (c->after.position.epoch == p->epoch && c->after.position.seq <= p->seq);
}

static void list_freep(struct lb_checkpoint_list *list)
{
	lb_checkpoint_list_free(list);
}

void lb_checkpoint_list_cut(struct lb_checkpoint_list *list, const struct lb_manifest *m)
{
	size_t n = 0;

	while (n < list->n && (list->places[n].epoch < m->cut.epoch ||
			       (list->places[n].epoch == m->cut.epoch && list->places[n].number < m->cut.number)))
		n++;
	if (n == 0)
		return;
	list->n -= n;
	memmove(list->places, list->places + n, list->n * sizeof(*list->places));
}

int lb_checkpoint_find(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_manifest *m,
		       const struct lb_position *position, struct lb_checkpoint **ret)
{
	_cleanup_(list_freep) struct lb_checkpoint_list list = {0};
	size_t index;
	int r;

	r = lb_checkpoint_list(v, machine, &list);
	if (r < 0)
		return r;
	lb_checkpoint_list_cut(&list, m);
	return lb_checkpoint_search(v, machine, &list, list.n, fits_position, position, ret, &index);
}
