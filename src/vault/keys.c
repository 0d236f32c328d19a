/* SPDX-License-Identifier: Apache-2.0 */
/* Making, opening and re-keying a vault. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "vault/internal.h"
#include "vault/slots.h"

static int check_passphrase(const char *passphrase)
{
	size_t length = strnlen(passphrase, LB_PASSPHRASE_BYTES_MAX + 1);

	if (length < LB_PASSPHRASE_BYTES_MIN || length > LB_PASSPHRASE_BYTES_MAX)
		return lb_fail(-EINVAL, "a passphrase needs %d to %d bytes; use six random words or more",
			       LB_PASSPHRASE_BYTES_MIN, LB_PASSPHRASE_BYTES_MAX);
	return 0;
}

static int wrap_fresh(struct lb_env *env, struct lb_slots *slots, unsigned int i, const char *passphrase,
		      const struct lb_key *key, struct lb_buf *out)
{
	uint8_t salt[LB_SLOT_SALT_BYTES];
	int r;

	r = env->ops->random(env, salt, sizeof(salt));
	if (r < 0)
		return lb_fail(r, "no random bytes: %s", strerror(-r));
	r = lb_slot_wrap(slots, i, salt, passphrase, key);
	if (r < 0)
		return r;
	return lb_slots_print(slots, out);
}

int lb_vault_create(struct lb_store *store, const char *passphrase, struct lb_uuid *ret_id)
{
	_cleanup_buf_ struct lb_buf json = LB_BUF(LB_VAULT_JSON_BYTES_MAX);
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	struct lb_env *env = store->env;
	struct lb_slots slots = {0};
	int r;

	r = check_passphrase(passphrase);
	if (r < 0)
		return r;
	if ((r = env->ops->random(env, key.bytes, sizeof(key.bytes))) < 0 ||
	    (r = env->ops->random(env, slots.vault.bytes, sizeof(slots.vault.bytes))) < 0)
		return lb_fail(r, "no random bytes: %s", strerror(-r));
	slots.vault.bytes[6] = (slots.vault.bytes[6] & 0x0f) | 0x40; /* a random UUID, RFC 9562 version 4 */
	slots.vault.bytes[8] = (slots.vault.bytes[8] & 0x3f) | 0x80;
	r = lb_store_prove(store);
	if (r < 0)
		return r;
	r = wrap_fresh(env, &slots, 0, passphrase, &key, &json);
	if (r < 0)
		return r;
	r = lb_store_put_new(store, LB_VAULT_JSON, json.data, json.size_bytes);
	if (r == -EEXIST)
		return lb_fail(r,
			       "%s holds a vault already; choose another place, or use that vault with its passphrase",
			       store->url);
	if (r < 0)
		return r;
	*ret_id = slots.vault;
	return 0;
}

int lb_vault_slots_read(struct lb_store *store, struct lb_slots *ret_slots, char *ret_etag)
{
	_cleanup_buf_ struct lb_buf json = LB_BUF(LB_VAULT_JSON_BYTES_MAX);
	uint64_t size_bytes;
	int r = 0;

	if (ret_etag != NULL) /* before the content: who replaced it in between is then noticed */
		r = lb_store_stat(store, LB_VAULT_JSON, &size_bytes, ret_etag);
	if (r == 0)
		r = lb_store_get_all(store, LB_VAULT_JSON, LB_VAULT_JSON_BYTES_MAX, &json);
	if (r == -ENOENT)
		return lb_fail(r, "%s holds no vault; check the address, or make one with `lifeboat vault create`",
			       store->url);
	if (r < 0)
		return r;
	r = lb_slots_parse(json.data, json.size_bytes, ret_slots);
	return r < 0 ? lb_wrap(r, "%s: " LB_VAULT_JSON " can't be read", store->url) : 0;
}

int lb_vault_open_keyless(struct lb_store *store, struct lb_vault **ret_vault)
{
	struct lb_slots slots;
	struct lb_vault *v;
	int r;

	r = lb_vault_slots_read(store, &slots, NULL);
	if (r < 0)
		return r;
	v = calloc(1, sizeof(*v));
	if (v == NULL)
		return lb_fail(-ENOMEM, "out of memory for a vault");
	v->store = store;
	v->id = slots.vault;
	pthread_mutex_init(&v->lock, NULL);
	*ret_vault = v;
	return 0;
}

static int wrong_passphrase(struct lb_store *store, const struct lb_slots *slots)
{
	char id[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&slots->vault, id);
	return lb_fail(-EKEYREJECTED,
		       "the passphrase does not open vault %s at %s; give the passphrase that this vault was made with "
		       "or last "
		       "changed to (nothing else opens it)",
		       id, store->url);
}

int lb_vault_unlock(struct lb_vault *v, const struct lb_slots *slots, const char *passphrase)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	struct lb_vault_key previous = {0};
	unsigned int slot;
	int r;

	r = lb_slots_unwrap(slots, passphrase, &key, &slot);
	if (r == 0 && slots->has_previous)
		r = lb_slots_previous_unwrap(slots, &key, &previous);
	if (r < 0)
		return r;
	v->now.key = key;
	memcpy(v->now.id, slots->key_id, sizeof(v->now.id));
	v->previous = previous;
	v->has_previous = slots->has_previous;
	v->id = slots->vault;
	v->slot = slot;
	v->has_key = true;
	lb_key_wipe(&previous.key);
	return 0;
}

static int check_slots(const struct lb_vault *v, const struct lb_slots *slots)
{
	if (!lb_uuid_equal(&slots->vault, &v->id))
		return lb_fail(-ESTALE, "%s now holds another vault; open it again", v->store->url);
	if (memcmp(slots->key_id, v->now.id, sizeof(v->now.id)) != 0)
		return lb_fail(-ESTALE,
			       "%s: the vault key was changed (`lifeboat vault rotate`) since this process opened the "
			       "vault; start it again",
			       v->store->url);
	return 0;
}

int lb_vault_key_check(struct lb_vault *v)
{
	struct lb_slots slots;
	int r;

	r = lb_vault_slots_read(v->store, &slots, NULL);
	return r < 0 ? r : check_slots(v, &slots);
}

int lb_vault_open(struct lb_store *store, const char *passphrase, struct lb_vault **ret_vault)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	struct lb_slots slots;
	int r;

	r = lb_vault_open_keyless(store, &v);
	if (r < 0)
		return r;
	r = lb_vault_slots_read(store, &slots, NULL);
	if (r < 0)
		return r;
	r = lb_vault_unlock(v, &slots, passphrase);
	if (r == -EKEYREJECTED)
		return wrong_passphrase(store, &slots);
	if (r < 0)
		return lb_wrap(r, "%s: " LB_VAULT_JSON, store->url);
	*ret_vault = lb_steal_ptr(v);
	return 0;
}

void lb_vault_free(struct lb_vault *v)
{
	lb_key_wipe(&v->now.key);
	lb_key_wipe(&v->previous.key);
	if (v->machines != NULL)
		lb_wipe(v->machines, v->room_machines * sizeof(*v->machines));
	free(v->machines);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

void lb_vault_lost_as_zeroes(struct lb_vault *v)
{
	v->lost_as_zeroes = true;
}

const struct lb_uuid *lb_vault_id(const struct lb_vault *v)
{
	return &v->id;
}

struct lb_store *lb_vault_store(struct lb_vault *v)
{
	return v->store;
}

/* One conditional replacement of vault.json: wraps the key into slot `i` (passphrase NULL: empties it). */
static int change_slot(struct lb_vault *v, unsigned int i, const char *passphrase)
{
	_cleanup_buf_ struct lb_buf json = LB_BUF(LB_VAULT_JSON_BYTES_MAX);
	char etag[LB_STORE_ETAG_BYTES];
	struct lb_slots slots;
	int r;

	r = lb_vault_slots_read(v->store, &slots, etag);
	if (r == 0)
		r = check_slots(v, &slots);
	if (r < 0)
		return r;
	if (passphrase == NULL) {
		slots.slot[i].used = false;
		r = lb_slots_print(&slots, &json);
	} else {
		r = wrap_fresh(v->store->env, &slots, i, passphrase, &v->now.key, &json);
	}
	if (r < 0)
		return r;
	return lb_store_replace(v->store, LB_VAULT_JSON, etag, json.data, json.size_bytes);
}

int lb_vault_passphrase_change(struct lb_vault *v, const char *passphrase_new)
{
	unsigned int slot_old, slot_new;
	int r;

	r = check_passphrase(passphrase_new);
	if (r < 0)
		return r;
	LB_LOCK_SCOPE(&v->lock);
	if (!v->has_key)
		return lb_fail(-ENOKEY, "only who opened the vault with its passphrase can change it");
	slot_old = v->slot;
	slot_new = (slot_old + 1) % LB_SLOTS;
	r = change_slot(v, slot_new, passphrase_new);
	if (r < 0)
		return lb_wrap(r, "the passphrase was not changed");
	v->slot = slot_new;
	r = change_slot(v, slot_old, NULL);
	return r < 0 ? lb_wrap(r, "the new passphrase opens the vault, but the old one still does; change it once more")
		     : 0;
}
