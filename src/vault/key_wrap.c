/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of machines as they rest in the vault: one object for each generation, wrapped by the vault key. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/key_wrap.h"

#define KEY_MAGIC "LBMKEY01"
#define KEY_PREFIX_BYTES (8 + LB_SALT_BYTES)
#define KEY_OBJECT_BYTES (KEY_PREFIX_BYTES + LB_KEY_BYTES + LB_TAG_BYTES)
#define KEY_AAD_BYTES (8 + 16 + 16 + 4)

static const uint8_t nonce_zero[LB_NONCE_BYTES];

static void key_aad(const struct lb_vault *v, const struct lb_uuid *machine, uint32_t generation,
		    uint8_t aad[KEY_AAD_BYTES])
{
	memcpy(aad, KEY_MAGIC, 8);
	memcpy(aad + 8, v->id.bytes, 16);
	memcpy(aad + 24, machine->bytes, 16);
	lb_put_le32(aad + 40, generation);
}

static int key_name(const struct lb_vault_key *by, const struct lb_uuid *machine, uint32_t generation,
		    char name[LB_OBJECT_NAME_BYTES])
{
	char id[1 + 2 * LB_VAULT_KEY_ID_BYTES + 1] = "", number[16] = "";

	if (!lb_vault_key_id_is_first(by->id)) {
		id[0] = '-';
		lb_hex_encode(by->id, sizeof(by->id), id + 1);
	}
	if (generation > 0)
		snprintf(number, sizeof(number), ".%02x", generation);
	return lb_vault_name(name, machine, "key%s%s", id, number);
}

int lb_key_wrap_name(const struct lb_vault *v, const struct lb_uuid *machine, uint32_t generation,
		     char name[LB_OBJECT_NAME_BYTES])
{
	return key_name(&v->now, machine, generation, name);
}

bool lb_key_wrap_is_name(const char *rest, uint8_t ret_id[LB_VAULT_KEY_ID_BYTES], uint32_t *ret_generation)
{
	char id[2 * LB_VAULT_KEY_ID_BYTES + 1];
	uint8_t number = 0;

	memset(ret_id, 0, LB_VAULT_KEY_ID_BYTES);
	if (strncmp(rest, "key", 3) != 0)
		return false;
	rest += 3;
	if (*rest == '-') {
		snprintf(id, sizeof(id), "%s", rest + 1);
		if (strlen(id) != sizeof(id) - 1 || lb_hex_decode(id, LB_VAULT_KEY_ID_BYTES, ret_id) < 0 ||
		    lb_vault_key_id_is_first(ret_id))
			return false;
		rest += sizeof(id);
	}
	if (*rest == '.' && (lb_hex_decode(rest + 1, 1, &number) < 0 || number == 0 || number >= LB_KEYRING_MAX))
		return false;
	*ret_generation = number;
	return *rest == '.' || *rest == '\0';
}

bool lb_key_wrap_is_used(const struct lb_vault *v, const uint8_t id[LB_VAULT_KEY_ID_BYTES])
{
	return memcmp(id, v->now.id, LB_VAULT_KEY_ID_BYTES) == 0 ||
	       (v->has_previous && memcmp(id, v->previous.id, LB_VAULT_KEY_ID_BYTES) == 0);
}

static int key_open(struct lb_vault *v, const struct lb_vault_key *by, const struct lb_uuid *machine,
		    uint32_t generation, struct lb_key *ret_key)
{
	char name[LB_OBJECT_NAME_BYTES];
	_cleanup_buf_ struct lb_buf object = LB_BUF(KEY_OBJECT_BYTES);
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	uint8_t aad[KEY_AAD_BYTES];
	int r;

	r = key_name(by, machine, generation, name);
	if (r == 0)
		r = lb_store_get_all(v->store, name, KEY_OBJECT_BYTES, &object);
	if (r < 0)
		return r == -EMSGSIZE ? lb_wrap(-EBADMSG, "it is no machine key") : r;
	if (object.size_bytes != KEY_OBJECT_BYTES || memcmp(object.data, KEY_MAGIC, 8) != 0)
		return lb_fail(-EBADMSG, "%s: object %s is truncated or no machine key", v->store->url, name);
	r = lb_seal_cipher(&by->key, object.data + 8, "lifeboat machine key 1", &gcm);
	if (r < 0)
		return r;
	key_aad(v, machine, generation, aad);
	r = lb_gcm_open(gcm, nonce_zero, aad, sizeof(aad), object.data + KEY_PREFIX_BYTES, LB_KEY_BYTES, key.bytes);
	if (r == -EBADMSG)
		return lb_fail(
			r, "%s: object %s is not authentic: it was altered, or is the key of another machine or vault",
			v->store->url, name);
	if (r < 0)
		return r;
	*ret_key = key;
	return 0;
}

/* The new one again, as the old wrap goes once that one is there. */
int lb_key_wrap_read(struct lb_vault *v, const struct lb_uuid *machine, uint32_t generation, struct lb_key *ret_key)
{
	int r = key_open(v, &v->now, machine, generation, ret_key);

	if (r == -ENOENT && v->has_previous)
		r = key_open(v, &v->previous, machine, generation, ret_key);
	return r == -ENOENT && v->has_previous ? key_open(v, &v->now, machine, generation, ret_key) : r;
}

/* Puts the key as wrapped by the vault key, if absent. */
static int key_put(struct lb_vault *v, const struct lb_uuid *machine, uint32_t generation, const struct lb_key *key)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	uint8_t object[KEY_OBJECT_BYTES] = KEY_MAGIC, aad[KEY_AAD_BYTES];
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	if ((r = lb_key_wrap_name(v, machine, generation, name)) < 0 ||
	    (r = lb_vault_random(v, object + 8, LB_SALT_BYTES)) < 0)
		return r;
	r = lb_seal_cipher(&v->now.key, object + 8, "lifeboat machine key 1", &gcm);
	if (r < 0)
		return r;
	key_aad(v, machine, generation, aad);
	r = lb_gcm_seal(gcm, nonce_zero, aad, sizeof(aad), key->bytes, LB_KEY_BYTES, object + KEY_PREFIX_BYTES);
	return r < 0 ? r : lb_store_put_new(v->store, name, object, sizeof(object));
}

/*
 * A new key counts only when the vault key that wraps it was in use after it was put: a change of the vault key that
 * began before would not have seen it, and one that begins later does.
 */
int lb_key_wrap_make(struct lb_vault *v, const struct lb_uuid *machine, uint32_t generation, struct lb_key *ret_key)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	char name[LB_OBJECT_NAME_BYTES];
	bool is_ours;
	int r;

	if ((r = lb_vault_key_check(v)) < 0 || (r = lb_key_wrap_name(v, machine, generation, name)) < 0 ||
	    (r = lb_vault_random(v, key.bytes, sizeof(key.bytes))) < 0)
		return r;
	r = key_put(v, machine, generation, &key);
	is_ours = r == 0;
	if (r == -EEXIST)
		r = key_open(v, &v->now, machine, generation, &key);
	if (r < 0)
		return r;
	r = lb_vault_key_check(v);
	if (r == -ESTALE && is_ours) { /* nothing was sealed with it */
		(void)lb_store_remove(v->store, name);
		return lb_vault_key_check(v);
	}
	if (r < 0)
		return r;
	*ret_key = key;
	return 0;
}

static int rewrap(struct lb_vault *v, const struct lb_uuid *machine, uint32_t generation)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0}, again = {0};
	int r;

	r = lb_key_wrap_read(v, machine, generation, &key);
	if (r < 0)
		return r;
	r = key_put(v, machine, generation, &key);
	if (r < 0 && r != -EEXIST)
		return r;
	/* what the last wrap goes for is read back first */
	r = key_open(v, &v->now, machine, generation, &again);
	if (r == 0 && !lb_equal_ct(&key, &again, sizeof(key)))
		r = lb_fail(-EBADMSG, "%s holds two different keys of a machine", v->store->url);
	return r;
}

int lb_vault_machine_key_rewrap(struct lb_vault *v, const struct lb_uuid *machine)
{
	uint32_t n;
	int r = lb_key_wrap_count(v, machine, &n);

	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = rewrap(v, machine, i);
	return r == 0 && n == 0 ? -ENOENT : r;
}

int lb_vault_machine_key_drop_previous(struct lb_vault *v, const struct lb_uuid *machine)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	char name[LB_OBJECT_NAME_BYTES];
	uint32_t n;
	int r = lb_key_wrap_count(v, machine, &n);

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		r = key_open(v, &v->now, machine, i, &key);
		if (r == 0)
			r = key_name(&v->previous, machine, i, name);
		if (r == 0)
			r = lb_store_remove(v->store, name);
		if (r == -ENOENT) /* it never had one by the key before, or it went already */
			r = 0;
	}
	return r;
}

struct count {
	const struct lb_vault *v;
	size_t prefix_bytes;
	uint32_t n;
};

static int count_one(void *arg, const char *object, uint64_t size_bytes)
{
	uint8_t id[LB_VAULT_KEY_ID_BYTES];
	struct count *c = arg;
	uint32_t generation;

	(void)size_bytes;
	if (lb_key_wrap_is_name(object + c->prefix_bytes, id, &generation) && lb_key_wrap_is_used(c->v, id) &&
	    generation >= c->n)
		c->n = generation + 1;
	return 0;
}

int lb_key_wrap_count(struct lb_vault *v, const struct lb_uuid *machine, uint32_t *ret_n)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	struct count c = {.v = v};
	int r;

	r = lb_vault_name(prefix, machine, "key");
	if (r < 0)
		return r;
	c.prefix_bytes = strlen(prefix) - strlen("key");
	r = lb_store_list(v->store, prefix, count_one, &c);
	if (r < 0)
		return r;
	*ret_n = c.n;
	return 0;
}
