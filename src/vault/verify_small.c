/* SPDX-License-Identifier: Apache-2.0 */
/* Proof of a machine's small objects: named points, catalog entries, and what they know of the journal's end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "vault/catalog.h"
#include "vault/pins.h"
#include "vault/repair.h"
#include "vault/key_wrap.h"
#include "vault/verify_parts.h"

#define WITNESSES_MAX (4u << 20)
#define ITEM_VERSION_MAX 99999999

int lb_verify_witness_add(struct lb_verify *w, const struct lb_verify_witness *witness)
{
	struct lb_verify_witnesses *all = &w->witnesses;
	struct lb_verify_witness *grown;

	if (all->n >= WITNESSES_MAX)
		return lb_fail(-EOVERFLOW, "more than %u heartbeats and named points", WITNESSES_MAX);
	if (all->n == all->room) {
		all->room = all->room > 0 ? 2 * all->room : 64;
		grown = reallocarray(all->w, all->room, sizeof(*grown));
		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for heartbeats");
		all->w = grown;
	}
	all->w[all->n++] = *witness;
	return 0;
}

static int pin_object(void *arg, const char *object, uint64_t size_bytes)
{
	struct lb_verify *w = arg;
	struct lb_verify_witness witness = {.machine = w->machine};
	struct lb_point point;
	int r;

	w->report.done.objects++;
	w->report.done.bytes += size_bytes;
	r = lb_pin_object_read(w->v, &w->machine, object, &point);
	if (lb_verify_is_damage(r) || r == -EINVAL) {
		lb_verify_find(w, object, "%s: the point stays, its name is lost", lb_err_text());
		return 0;
	}
	if (r < 0)
		return r;
	witness.position = point.position;
	witness.time_ns = point.time_ns;
	snprintf(witness.object, sizeof(witness.object), "%s", object);
	return lb_verify_witness_add(w, &witness);
}

int lb_verify_pins(struct lb_verify *w)
{
	int r = lb_verify_list_under(w, "p/", pin_object);

	if (r == 0)
		r = lb_verify_list_under(w, "h/", pin_object);
	return r < 0 ? r : lb_verify_list_under(w, "g/", pin_object);
}

static int item_object(void *arg, const char *object, uint64_t size_bytes)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_SMALL_BYTES_MAX);
	const char *name = strrchr(object, '/') + 1;
	struct lb_verify *w = arg;
	uint64_t version;
	int r;

	w->report.done.objects++;
	w->report.done.bytes += size_bytes;
	if (strlen(name) != 8 || lb_u64_parse(name, ITEM_VERSION_MAX, &version) < 0 || version == 0) {
		lb_verify_find(w, object, "it is no catalog entry: foreign; it costs nothing; remove it");
		return 0;
	}
	if (version != w->item_newest + 1)
		lb_verify_find(w, object, "catalog entries %llu to %llu before it are missing; they cost no point",
			       (unsigned long long)w->item_newest + 1, (unsigned long long)version - 1);
	w->item_newest = version;
	r = lb_small_get(w->v, &w->machine, object, &plain);
	if (!lb_verify_is_damage(r))
		return r;
	lb_verify_find(w, object, "%s: it costs no point; sizes and order of the disks come from another entry",
		       lb_err_text());
	return 0;
}

static int repair_object(void *arg, const char *object, uint64_t size_bytes)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_SMALL_BYTES_MAX);
	struct lb_verify *w = arg;
	struct lb_place place;
	uint64_t version;
	int r;

	w->report.done.objects++;
	w->report.done.bytes += size_bytes;
	if (lb_repair_name_parse(object, &place, &version) < 0 && lb_losses_name_parse(object, &version) < 0) {
		lb_verify_find(w, object, "it is no repair record: foreign; it costs nothing; remove it");
		return 0;
	}
	r = lb_small_get(w->v, &w->machine, object, &plain);
	if (!lb_verify_is_damage(r))
		return r;
	lb_verify_find(w, object,
		       "%s: an earlier version leads over the damage, or `lifeboat vault repair` makes it anew",
		       lb_err_text());
	return 0;
}

static int check_catalog(struct lb_verify *w)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_vault_name(object, &w->machine, "item/");
	if (r < 0)
		return r;
	r = lb_catalog_get(w->v, &w->machine, item);
	if (lb_verify_is_damage(r))
		lb_verify_find(w, object, "%s: failover needs sizes and order of the disks from another source",
			       lb_err_text());
	return lb_verify_is_damage(r) ? 0 : r;
}

/* Everything of the machine that is in no folder we know. */
static int stray_object(void *arg, const char *object, uint64_t size_bytes)
{
	const char *rest = object + strlen("m/") + LB_UUID_TEXT_BYTES;
	static const char *const folders[] = {"e/", "c/", "p/", "h/", "g/", "r/", "item/", "f/", "d/", "o/", "l/"};
	uint8_t key_id[LB_VAULT_KEY_ID_BYTES];
	struct lb_verify *w = arg;
	uint32_t generation;

	(void)size_bytes;
	if (lb_key_wrap_is_name(rest, key_id, &generation)) {
		if (w->v->has_key && !lb_key_wrap_is_used(w->v, key_id))
			lb_verify_note(w, object,
				       "the machine's key as wrapped by a vault key that is not used any more; it may "
				       "be removed");
		return 0;
	}
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
		if (strncmp(rest, folders[i], strlen(folders[i])) == 0)
			return 0;
	lb_verify_find(w, object, "it is no object of a vault: foreign; it costs nothing; remove it");
	return 0;
}

static bool is_after(const struct lb_position *a, const struct lb_position *b)
{
	return a->epoch > b->epoch || (a->epoch == b->epoch && a->seq > b->seq);
}

/* What is in the vault already knows of segments that the journal no longer has. */
static void check_witnesses(struct lb_verify *w)
{
	const struct lb_position *end = &w->chain.after.position;
	char when[LB_TIME_TEXT_BYTES];

	for (size_t i = 0; i < w->witnesses.n; i++) {
		const struct lb_verify_witness *x = &w->witnesses.w[i];

		if (lb_uuid_equal(&x->machine, &w->machine) && is_after(&x->position, end))
			lb_verify_find(
				w, x->object,
				"it knows of segment %llu of epoch %llu, of %s, which the journal does not have: "
				"the journal was cut or rolled back; points after %llu:%llu are lost",
				(unsigned long long)x->position.seq, (unsigned long long)x->position.epoch,
				lb_time_format(x->time_ns, when), (unsigned long long)end->epoch,
				(unsigned long long)end->seq);
	}
}

int lb_verify_small(struct lb_verify *w)
{
	int r;

	check_witnesses(w);
	if ((r = lb_verify_list_under(w, "item/", item_object)) < 0 ||
	    (r = lb_verify_list_under(w, "r/", repair_object)) < 0 ||
	    (r = lb_verify_list_under(w, "", stray_object)) < 0)
		return r;
	return check_catalog(w);
}
