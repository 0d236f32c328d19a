/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A new vault key: first vault.json has both (the new one in the slot, the one before wrapped by it), then everything
 * is wrapped by the new one, then the old wraps go, then the key before does. Each step can be done again.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "vault/catalog.h"
#include "vault/internal.h"
#include "vault/slots.h"

static int replace_slots(struct lb_vault *v, const struct lb_slots *slots, const char *etag)
{
	_cleanup_buf_ struct lb_buf json = LB_BUF(LB_VAULT_JSON_BYTES_MAX);
	int r;

	r = lb_slots_print(slots, &json);
	return r < 0 ? r : lb_store_replace(v->store, LB_VAULT_JSON, etag, json.data, json.size_bytes);
}

/* From here on both keys are in vault.json, by one replacement. */
static int begin(struct lb_vault *v, const char *passphrase, const char *etag)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	struct lb_slots slots = {.vault = v->id};
	uint8_t slot_salt[LB_SLOT_SALT_BYTES], salt[LB_SALT_BYTES];
	int r;

	if ((r = lb_vault_random(v, key.bytes, sizeof(key.bytes))) < 0 ||
	    (r = lb_vault_random(v, slots.key_id, sizeof(slots.key_id))) < 0 ||
	    (r = lb_vault_random(v, slot_salt, sizeof(slot_salt))) < 0 ||
	    (r = lb_vault_random(v, salt, sizeof(salt))) < 0)
		return r;
	if (lb_vault_key_id_is_first(slots.key_id))
		return lb_fail(-EIO, "the random numbers of this machine are zeroes");
	if ((r = lb_slot_wrap(&slots, 0, slot_salt, passphrase, &key)) < 0 ||
	    (r = lb_slots_previous_wrap(&slots, salt, &key, &v->now)) < 0)
		return r;
	r = replace_slots(v, &slots, etag);
	return r < 0 ? r : lb_vault_unlock(v, &slots, passphrase);
}

static int begin_or_resume(struct lb_vault *v, const char *passphrase, bool *ret_is_resumed)
{
	char etag[LB_STORE_ETAG_BYTES];
	struct lb_slots slots;
	int r;

	r = lb_vault_slots_read(v->store, &slots, etag);
	if (r < 0)
		return r;
	if (!lb_uuid_equal(&slots.vault, &v->id))
		return lb_fail(-ESTALE, "%s now holds another vault; open it again", v->store->url);
	r = lb_vault_unlock(v, &slots, passphrase);
	if (r < 0)
		return lb_wrap(r, "%s: " LB_VAULT_JSON, v->store->url);
	*ret_is_resumed = v->has_previous;
	return v->has_previous ? 0 : begin(v, passphrase, etag);
}

struct walk {
	struct lb_vault *v;
	struct lb_rotation *rotation;
};

static int rewrap_machine(void *arg, const struct lb_uuid *machine)
{
	struct walk *w = arg;
	char label[LB_MACHINE_LABEL_BYTES];
	int r = lb_vault_machine_key_rewrap(w->v, machine);

	if (r == -ENOENT) {
		w->rotation->keyless++;
		return 0;
	}
	if (r < 0)
		return lb_wrap(
			r,
			"the key of machine %s can't be wrapped anew, so the old vault key stays in use; put its "
			"key back from a copy or destroy it, and run this again",
			lb_catalog_label(w->v, machine, label));
	w->rotation->machines++;
	return 0;
}

static int rewrap_site(void *arg, const char *object, uint64_t size_bytes)
{
	struct walk *w = arg;
	int r = lb_vault_site_rewrap(w->v, object + strlen("site/"));

	(void)size_bytes;
	if (r == -EBADMSG || r == -EINVAL) { /* neither key opens it: it loses nothing by the change */
		w->rotation->site_damaged++;
		return 0;
	}
	if (r < 0 && r != -ENOENT)
		return r;
	w->rotation->site_objects += r == 0;
	return 0;
}

static int drop_machine(void *arg, const struct lb_uuid *machine)
{
	const struct walk *w = arg;
	int r = lb_vault_machine_key_drop_previous(w->v, machine);

	if (r == -EACCES || r == -EPERM || r == -EROFS) /* locked for a while, say */
		w->rotation->old_wraps_left++;
	else if (r < 0 && r != -ENOENT)
		return r;
	return 0;
}

/* The key before goes; passphrases that were changed meanwhile stay. */
static int finish(struct lb_vault *v)
{
	char etag[LB_STORE_ETAG_BYTES];
	struct lb_slots slots = {0};
	int r;

	r = lb_vault_slots_read(v->store, &slots, etag);
	if (r < 0)
		return r;
	if (!lb_uuid_equal(&slots.vault, &v->id) || memcmp(slots.key_id, v->now.id, sizeof(slots.key_id)) != 0)
		return lb_vault_key_check(v);
	if (slots.has_previous) {
		slots.has_previous = false;
		r = replace_slots(v, &slots, etag);
		if (r < 0)
			return r;
	}
	v->has_previous = false;
	lb_key_wipe(&v->previous.key);
	return 0;
}

int lb_vault_rotate(struct lb_vault *v, const char *passphrase, struct lb_rotation *ret_rotation)
{
	struct lb_rotation rotation = {0};
	struct walk w = {.v = v, .rotation = &rotation};
	int r;

	if (!v->has_key)
		return lb_fail(-ENOKEY, "only who opened the vault with its passphrase can change its key");
	r = lb_vault_prove(v);
	if (r == 0)
		r = begin_or_resume(v, passphrase, &rotation.is_resumed);
	if (r < 0)
		return lb_wrap(r, "the vault key was not changed");
	if ((r = lb_receipt_key_keep(v)) < 0 || (r = lb_vault_machines(v, rewrap_machine, &w)) < 0 ||
	    (r = lb_store_list(v->store, "site/", rewrap_site, &w)) < 0 ||
	    (r = lb_vault_machines(v, drop_machine, &w)) < 0 || (r = finish(v)) < 0)
		return lb_wrap(r, "the vault key is changed in part: all of the vault opens as before; run `lifeboat "
				  "vault rotate --vault-key` again to finish");
	*ret_rotation = rotation;
	return 0;
}
