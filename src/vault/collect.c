/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collecting garbage. An object goes through three versions of the manifest: one drops it, a later one, when the delay
 * is over, calls it deletable, and a round after that reads the leases and deletes it. The next version forgets it.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "vault/checkpoint.h"
#include "vault/fold_parts.h"
#include "vault/lease.h"

#define LEFTOVERS_MAX 4096 /* that one sweep removes */

static int64_t age_min_ns(const struct lb_fold *f)
{
	return f->options->retention.age_min_s * LB_NS_PER_S;
}

/* ---- deleting ---- */

static int remove_one(void *arg, const char *name, uint64_t size_bytes)
{
	struct lb_fold *f = arg;
	int r;

	r = lb_store_remove(f->v->store, name);
	if (r < 0 && r != -ENOENT)
		return r;
	f->report.deleted_objects++;
	f->report.deleted_bytes += size_bytes;
	return 0;
}

static int object_name(const struct lb_fold *f, const struct lb_garbage *g, char name[LB_OBJECT_NAME_BYTES])
{
	struct lb_place place = {.epoch = g->epoch, .number = g->number};

	switch (g->kind) {
	case LB_GARBAGE_JOURNAL:
		return lb_pack_name(name, f->machine, &place);
	case LB_GARBAGE_FOLDED:
		return lb_folded_name(name, f->machine, 'o', g->number);
	case LB_GARBAGE_SPAN:
	case LB_GARBAGE_CHECKPOINT:
		break;
	}
	return lb_checkpoint_name(name, f->machine, &place);
}

/* Maps may have parts, which begin with the name of their head. */
static int remove_garbage(struct lb_fold *f, const struct lb_garbage *g)
{
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = object_name(f, g, name);
	if (r < 0)
		return r;
	if (g->kind == LB_GARBAGE_SPAN || g->kind == LB_GARBAGE_CHECKPOINT)
		return lb_store_list(f->v->store, name, remove_one, f);
	return remove_one(f, name, g->size_bytes);
}

int lb_fold_delete(struct lb_fold *f)
{
	uint64_t leased, n = 0;
	bool refused = false;
	int r;

	if (f->m->n_garbage == 0 || f->m->deletable == 0)
		return 0;
	r = lb_leases_read(f->v, f->machine, f->now_ns, &leased);
	if (r < 0)
		return r;
	for (size_t i = 0; i < f->m->n_garbage; i++) {
		struct lb_garbage g = f->m->garbage[i];

		if (g.version > f->old->deletable || g.version > leased || g.created_ns + age_min_ns(f) > f->now_ns ||
		    refused) {
			f->m->garbage[n++] = g;
			continue;
		}
		r = remove_garbage(f, &g);
		if (r == -EACCES || r == -EPERM || r == -EROFS) {
			lb_warning("%s refuses to delete what is not needed any more (an object lock that the policy "
				   "does not know of?): %s",
				   f->v->store->url, lb_err_text());
			refused = true;
			f->m->garbage[n++] = g;
			r = 0;
			continue;
		}
		if (r < 0)
			return r;
		f->changed = true;
		r = lb_fold_pace(f, 0);
		if (r < 0)
			return r;
	}
	f->m->n_garbage = n;
	f->m->totals.deleted_bytes += f->report.deleted_bytes;
	f->m->totals.deleted_objects += f->report.deleted_objects;
	return 0;
}

/* ---- dropping ---- */

static int drop_dead(struct lb_fold *f)
{
	struct lb_manifest *m = f->m;
	size_t n = 0;
	int r;

	for (size_t i = 0; i < m->n_live; i++) {
		const struct lb_live *o = &m->live[i];

		if (o->live_bytes > 0) {
			m->live[n++] = *o;
			continue;
		}
		r = lb_manifest_garbage_add(
			m, &(struct lb_garbage){.kind = o->epoch == 0 ? LB_GARBAGE_FOLDED : LB_GARBAGE_JOURNAL,
						.epoch = o->epoch,
						.number = o->number,
						.size_bytes = o->size_bytes,
						.version = m->version,
						.created_ns = o->created_ns,
						.dropped_ns = f->now_ns});
		if (r < 0)
			return r;
		f->changed = true;
	}
	m->n_live = n;
	return 0;
}

static bool is_garbage(const struct lb_manifest *m, enum lb_garbage_kind kind, const struct lb_place *place)
{
	for (size_t i = 0; i < m->n_garbage; i++)
		if (m->garbage[i].kind == kind && m->garbage[i].epoch == place->epoch &&
		    m->garbage[i].number == place->number)
			return true;
	return false;
}

static int drop_checkpoint(void *arg, const char *name, uint64_t size_bytes)
{
	struct lb_fold *f = arg;
	struct lb_place place;

	if (lb_checkpoint_name_parse(name, &place) < 0 || place.epoch > f->m->cut.epoch ||
	    (place.epoch == f->m->cut.epoch && place.number >= f->m->cut.number) ||
	    is_garbage(f->m, LB_GARBAGE_CHECKPOINT, &place))
		return 0;
	f->changed = true;
	return lb_manifest_garbage_add(f->m, &(struct lb_garbage){.kind = LB_GARBAGE_CHECKPOINT,
								  .epoch = place.epoch,
								  .number = place.number,
								  .size_bytes = size_bytes,
								  .version = f->m->version,
								  .created_ns = f->now_ns,
								  .dropped_ns = f->now_ns});
}

int lb_fold_drop(struct lb_fold *f)
{
	struct lb_manifest *m = f->m;
	char prefix[LB_OBJECT_NAME_BYTES];
	int r;

	r = drop_dead(f);
	if (r == 0 && (m->cut.epoch != f->old->cut.epoch || m->cut.number != f->old->cut.number)) {
		r = lb_vault_name(prefix, f->machine, "c/");
		if (r == 0)
			r = lb_store_list(f->v->store, prefix, drop_checkpoint, f);
	}
	for (size_t i = 0; r == 0 && i < m->n_garbage; i++) {
		const struct lb_garbage *g = &m->garbage[i];

		/* what this version drops, it can't call deletable: readers hold the one before */
		if (g->version < m->version && g->version > m->deletable &&
		    g->dropped_ns + f->options->retention.delete_delay_s * LB_NS_PER_S <= f->now_ns) {
			m->deletable = g->version;
			f->changed = true;
		}
	}
	return r;
}

/* ---- leftovers ---- */

struct sweeping {
	struct lb_fold *f;
	const struct lb_manifest *m; /* the newest */
	char folder;
	char (*names)[LB_OBJECT_NAME_BYTES];
	size_t n;
};

static bool is_named(const struct sweeping *s, uint64_t number)
{
	enum lb_garbage_kind kind = s->folder == 'o' ? LB_GARBAGE_FOLDED : LB_GARBAGE_SPAN;
	uint64_t full = s->folder == 'o' ? number | LB_FOLDED_OBJECT : number;

	if (s->folder == 'o' && lb_manifest_live((struct lb_manifest *)s->m, 0, full) != NULL)
		return true;
	for (size_t i = 0; s->folder == 'd' && i < s->m->n_spans; i++)
		if (s->m->spans[i].map == number)
			return true;
	return is_garbage(s->m, kind, &(struct lb_place){.number = full});
}

/* Made for a version that another one put: no manifest will ever name it. */
static int note_leftover(void *arg, const char *name, uint64_t size_bytes)
{
	struct sweeping *s = arg;
	uint64_t number;

	(void)size_bytes;
	if (s->n < LEFTOVERS_MAX && lb_folded_name_parse(name, s->folder, &number) == 0 &&
	    lb_folded_version(number) <= s->m->version && !is_named(s, number))
		snprintf(s->names[s->n++], LB_OBJECT_NAME_BYTES, "%s", name);
	return 0;
}

static int note_manifest(void *arg, const char *name, uint64_t size_bytes)
{
	struct sweeping *s = arg;
	uint64_t version;

	(void)size_bytes;
	if (s->n < LEFTOVERS_MAX && lb_u64_parse(strrchr(name, '/') + 1, LB_MANIFEST_VERSION_MAX, &version) == 0 &&
	    version + LB_MANIFESTS_KEPT < s->m->version)
		snprintf(s->names[s->n++], LB_OBJECT_NAME_BYTES, "%s", name);
	return 0;
}

static int sweep_folder(struct sweeping *s, char folder, lb_store_list_fn fn)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	int r;

	s->folder = folder;
	s->n = 0;
	r = lb_vault_name(prefix, s->f->machine, "%c/", folder);
	if (r == 0)
		r = lb_store_list(s->f->v->store, prefix, fn, s);
	for (size_t i = 0; r == 0 && i < s->n; i++) {
		r = lb_store_remove(s->f->v->store, s->names[i]);
		r = r == -ENOENT ? 0 : r;
	}
	return r;
}

void lb_fold_sweep(struct lb_fold *f)
{
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	struct sweeping s = {.f = f};
	int r;

	r = lb_manifest_read(f->v, f->machine, &m); /* as it is now: another one may have gone on */
	if (r < 0) {
		lb_warning("leftovers of folding are not removed: %s", lb_err_text());
		return;
	}
	s.m = m;
	s.names = calloc(LEFTOVERS_MAX, sizeof(*s.names));
	if (s.names == NULL)
		return;
	if ((r = sweep_folder(&s, 'o', note_leftover)) < 0 || (r = sweep_folder(&s, 'd', note_leftover)) < 0 ||
	    (r = sweep_folder(&s, 'f', note_manifest)) < 0)
		lb_warning("leftovers of folding are not removed: %s", lb_err_text());
	free(s.names);
}
