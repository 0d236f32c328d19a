/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/slots.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "vault/internal.h"

#define FORMAT "lifeboat vault"
#define VERSION_FIRST 1   /* the vault key is the one that the vault was made with */
#define VERSION_ROTATED 2 /* it is another one, with an id */
#define SLOT_AAD_BYTES_MAX (48 + LB_VAULT_KEY_ID_BYTES)
#define PREVIOUS_USE "lifeboat vault previous key 1"
#define PREVIOUS_AAD_BYTES (8 + 16 + LB_VAULT_KEY_ID_BYTES)
#define SCRYPT_N (UINT64_C(1) << 16)
#define SCRYPT_R 8
#define SCRYPT_P 1
/* what a vault.json may ask of the machine that opens it */
#define SCRYPT_N_MIN (UINT64_C(1) << 14)
#define SCRYPT_N_MAX (UINT64_C(1) << 20)
#define SCRYPT_R_MAX 32
#define SCRYPT_P_MAX 4
#define SCRYPT_MEMORY_BYTES_MAX LB_MIB(256)

static const uint8_t nonce_zero[LB_NONCE_BYTES]; /* a slot's key wraps once: its salt is fresh */

bool lb_vault_key_id_is_first(const uint8_t id[LB_VAULT_KEY_ID_BYTES])
{
	static const uint8_t first[LB_VAULT_KEY_ID_BYTES];

	return memcmp(id, first, sizeof(first)) == 0;
}

static int get_hex(const json_t *object, const char *member, void *ret, size_t size_bytes)
{
	const char *text;
	int r;

	r = lb_json_get_str(object, member, &text);
	if (r < 0)
		return r;
	if (lb_hex_decode(text, size_bytes, ret) < 0)
		return lb_fail(-EBADMSG, "\"%s\" is not %zu bytes of hex", member, size_bytes);
	return 0;
}

static int set_hex(json_t *object, const char *member, const void *data, size_t size_bytes)
{
	char text[2 * LB_PREVIOUS_BYTES + 1];

	if (size_bytes > LB_PREVIOUS_BYTES)
		return lb_fail(-EMSGSIZE, "\"%s\" is too long", member);
	lb_hex_encode(data, size_bytes, text);
	return lb_json_set_str(object, member, text);
}

static int slot_parse(const json_t *object, struct lb_slot *s)
{
	uint64_t r_cost, p_cost;
	const char *kdf;
	int r;

	if ((r = lb_json_get_str(object, "kdf", &kdf)) < 0 || (r = lb_json_get_u64(object, "n", &s->n)) < 0 ||
	    (r = lb_json_get_u64(object, "r", &r_cost)) < 0 || (r = lb_json_get_u64(object, "p", &p_cost)) < 0 ||
	    (r = get_hex(object, "salt", s->salt, sizeof(s->salt))) < 0 ||
	    (r = get_hex(object, "wrapped", s->wrapped, sizeof(s->wrapped))) < 0)
		return r;
	if (strcmp(kdf, "scrypt") != 0)
		return lb_fail(-EBADMSG, "a slot's key derivation is not scrypt; a newer Lifeboat may read it");
	if (s->n < SCRYPT_N_MIN || s->n > SCRYPT_N_MAX || (s->n & (s->n - 1)) != 0 || r_cost < 1 ||
	    r_cost > SCRYPT_R_MAX || p_cost < 1 || p_cost > SCRYPT_P_MAX ||
	    128 * r_cost * s->n > SCRYPT_MEMORY_BYTES_MAX)
		return lb_fail(-EBADMSG, "a slot's scrypt cost is out of bounds");
	s->r = (uint32_t)r_cost;
	s->p = (uint32_t)p_cost;
	s->used = true;
	return 0;
}

static int rotated_parse(const json_t *object, struct lb_slots *slots)
{
	int r;

	r = get_hex(object, "key", slots->key_id, sizeof(slots->key_id));
	if (r < 0)
		return r;
	if (lb_vault_key_id_is_first(slots->key_id))
		return lb_fail(-EBADMSG, "\"key\" is no id of a vault key");
	slots->has_previous = json_object_get(object, "previous") != NULL;
	return slots->has_previous ? get_hex(object, "previous", slots->previous, sizeof(slots->previous)) : 0;
}

static int slots_parse(const json_t *object, struct lb_slots *slots)
{
	const json_t *list = json_object_get(object, "slots");
	const char *format;
	uint64_t version;
	int r;

	r = lb_json_get_str(object, "format", &format);
	if (r < 0)
		return r;
	r = lb_json_get_u64(object, "version", &version);
	if (r < 0)
		return r;
	if (strcmp(format, FORMAT) != 0 || (version != VERSION_FIRST && version != VERSION_ROTATED))
		return lb_fail(-EBADMSG,
			       "it is of format version %llu and this version reads %d and %d; use a newer Lifeboat",
			       (unsigned long long)version, VERSION_FIRST, VERSION_ROTATED);
	if (version == VERSION_ROTATED && (r = rotated_parse(object, slots)) < 0)
		return r;
	r = lb_json_get_uuid(object, "id", &slots->vault);
	if (r < 0)
		return r;
	if (!json_is_array(list) || json_array_size(list) != LB_SLOTS)
		return lb_fail(-EBADMSG, "\"slots\" is not a list of %d", LB_SLOTS);
	for (size_t i = 0; i < LB_SLOTS; i++) {
		if (json_is_null(json_array_get(list, i)))
			continue;
		r = slot_parse(json_array_get(list, i), &slots->slot[i]);
		if (r < 0)
			return lb_wrap(r, "slot %zu", i);
	}
	return 0;
}

int lb_slots_parse(const void *text, size_t size_bytes, struct lb_slots *ret_slots)
{
	_cleanup_json_ json_t *object = NULL;
	struct lb_slots slots = {0};
	int r;

	r = lb_json_parse(text, size_bytes, LB_VAULT_JSON_BYTES_MAX, &object);
	if (r < 0)
		return r;
	r = slots_parse(object, &slots);
	if (r < 0)
		return r;
	*ret_slots = slots;
	return 0;
}

static int slot_print(const struct lb_slot *s, json_t *list)
{
	_cleanup_json_ json_t *object = s->used ? json_object() : json_null();
	int r;

	if (object == NULL)
		return lb_fail(-ENOMEM, "out of memory for " LB_VAULT_JSON);
	if (s->used &&
	    ((r = lb_json_set_str(object, "kdf", "scrypt")) < 0 || (r = lb_json_set_u64(object, "n", s->n)) < 0 ||
	     (r = lb_json_set_u64(object, "r", s->r)) < 0 || (r = lb_json_set_u64(object, "p", s->p)) < 0 ||
	     (r = set_hex(object, "salt", s->salt, sizeof(s->salt))) < 0 ||
	     (r = set_hex(object, "wrapped", s->wrapped, sizeof(s->wrapped))) < 0))
		return r;
	if (json_array_append(list, object) < 0)
		return lb_fail(-ENOMEM, "out of memory for " LB_VAULT_JSON);
	return 0;
}

static int rotated_print(const struct lb_slots *slots, json_t *object)
{
	int r;

	if (lb_vault_key_id_is_first(slots->key_id))
		return lb_json_set_u64(object, "version", VERSION_FIRST);
	r = lb_json_set_u64(object, "version", VERSION_ROTATED);
	if (r == 0)
		r = set_hex(object, "key", slots->key_id, sizeof(slots->key_id));
	return r < 0 || !slots->has_previous ? r
					     : set_hex(object, "previous", slots->previous, sizeof(slots->previous));
}

int lb_slots_print(const struct lb_slots *slots, struct lb_buf *out)
{
	_cleanup_json_ json_t *object = json_object();
	json_t *list = json_array();
	_cleanup_free_ char *text = NULL;
	int r;

	if (object == NULL || json_object_set_new(object, "slots", list) < 0)
		return lb_fail(-ENOMEM, "out of memory for " LB_VAULT_JSON);
	for (size_t i = 0; i < LB_SLOTS; i++) {
		r = slot_print(&slots->slot[i], list);
		if (r < 0)
			return r;
	}
	if ((r = lb_json_set_str(object, "format", FORMAT)) < 0 || (r = rotated_print(slots, object)) < 0 ||
	    (r = lb_json_set_uuid(object, "id", &slots->vault)) < 0 || (r = lb_json_dump(object, &text)) < 0)
		return r;
	return lb_buf_printf(out, "%s\n", text);
}

static size_t slot_aad_bytes(const struct lb_slots *slots)
{
	return lb_vault_key_id_is_first(slots->key_id) ? 48 : SLOT_AAD_BYTES_MAX;
}

/* The wrap is bound to the vault, the cost and the key's id, so that none can be changed under it. */
static int slot_cipher(const struct lb_slots *slots, const struct lb_slot *s, const char *passphrase,
		       uint8_t aad[SLOT_AAD_BYTES_MAX], struct lb_gcm **ret_gcm)
{
	_cleanup_(lb_key_wipe) struct lb_key from_passphrase = {0};
	int r;

	memcpy(aad, lb_vault_key_id_is_first(slots->key_id) ? FORMAT " 1" : FORMAT " 2", 16);
	memcpy(aad + 16, slots->vault.bytes, 16);
	lb_put_le64(aad + 32, s->n);
	lb_put_le32(aad + 40, s->r);
	lb_put_le32(aad + 44, s->p);
	memcpy(aad + 48, slots->key_id, LB_VAULT_KEY_ID_BYTES);
	r = lb_scrypt(passphrase, s->salt, sizeof(s->salt), s->n, s->r, s->p, &from_passphrase);
	if (r < 0)
		return r;
	return lb_seal_cipher(&from_passphrase, s->salt, "lifeboat vault slot 1", ret_gcm);
}

int lb_slot_wrap(struct lb_slots *slots, unsigned int i, const uint8_t salt[LB_SLOT_SALT_BYTES], const char *passphrase,
		 const struct lb_key *vault_key)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	struct lb_slot s = {.used = true, .n = SCRYPT_N, .r = SCRYPT_R, .p = SCRYPT_P};
	uint8_t aad[SLOT_AAD_BYTES_MAX];
	int r;

	memcpy(s.salt, salt, sizeof(s.salt));
	r = slot_cipher(slots, &s, passphrase, aad, &gcm);
	if (r < 0)
		return r;
	r = lb_gcm_seal(gcm, nonce_zero, aad, slot_aad_bytes(slots), vault_key->bytes, LB_KEY_BYTES, s.wrapped);
	if (r < 0)
		return r;
	slots->slot[i] = s;
	return 0;
}

int lb_slots_unwrap(const struct lb_slots *slots, const char *passphrase, struct lb_key *ret_vault_key,
		    unsigned int *ret_slot)
{
	uint8_t aad[SLOT_AAD_BYTES_MAX];

	for (unsigned int i = 0; i < LB_SLOTS; i++) {
		_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
		_cleanup_(lb_key_wipe) struct lb_key key = {0};
		int r;

		if (!slots->slot[i].used)
			continue;
		r = slot_cipher(slots, &slots->slot[i], passphrase, aad, &gcm);
		if (r < 0)
			return r;
		r = lb_gcm_open(gcm, nonce_zero, aad, slot_aad_bytes(slots), slots->slot[i].wrapped, LB_KEY_BYTES,
				key.bytes);
		if (r == -EBADMSG)
			continue;
		if (r < 0)
			return r;
		*ret_vault_key = key;
		*ret_slot = i;
		lb_err_clear();
		return 0;
	}
	return lb_fail(-EKEYREJECTED, "no passphrase slot opens");
}

static void previous_aad(const struct lb_slots *slots, uint8_t aad[PREVIOUS_AAD_BYTES])
{
	memcpy(aad, "LBPREV01", 8);
	memcpy(aad + 8, slots->vault.bytes, 16);
	memcpy(aad + 24, slots->key_id, LB_VAULT_KEY_ID_BYTES);
}

int lb_slots_previous_wrap(struct lb_slots *slots, const uint8_t salt[LB_SALT_BYTES], const struct lb_key *vault_key,
			   const struct lb_vault_key *previous)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	uint8_t aad[PREVIOUS_AAD_BYTES], plain[LB_KEY_BYTES + LB_VAULT_KEY_ID_BYTES], wrapped[LB_PREVIOUS_BYTES];
	int r;

	r = lb_seal_cipher(vault_key, salt, PREVIOUS_USE, &gcm);
	if (r < 0)
		return r;
	previous_aad(slots, aad);
	memcpy(plain, previous->key.bytes, LB_KEY_BYTES);
	memcpy(plain + LB_KEY_BYTES, previous->id, LB_VAULT_KEY_ID_BYTES);
	memcpy(wrapped, salt, LB_SALT_BYTES);
	r = lb_gcm_seal(gcm, nonce_zero, aad, sizeof(aad), plain, sizeof(plain), wrapped + LB_SALT_BYTES);
	lb_wipe(plain, sizeof(plain));
	if (r < 0)
		return r;
	memcpy(slots->previous, wrapped, sizeof(wrapped));
	slots->has_previous = true;
	return 0;
}

int lb_slots_previous_unwrap(const struct lb_slots *slots, const struct lb_key *vault_key,
			     struct lb_vault_key *ret_previous)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	uint8_t aad[PREVIOUS_AAD_BYTES], plain[LB_KEY_BYTES + LB_VAULT_KEY_ID_BYTES];
	int r;

	r = lb_seal_cipher(vault_key, slots->previous, PREVIOUS_USE, &gcm);
	if (r < 0)
		return r;
	previous_aad(slots, aad);
	r = lb_gcm_open(gcm, nonce_zero, aad, sizeof(aad), slots->previous + LB_SALT_BYTES, sizeof(plain), plain);
	if (r == -EBADMSG)
		return lb_fail(r, "\"previous\" is not authentic: it was altered");
	if (r < 0)
		return r;
	memcpy(ret_previous->key.bytes, plain, LB_KEY_BYTES);
	memcpy(ret_previous->id, plain + LB_KEY_BYTES, LB_VAULT_KEY_ID_BYTES);
	lb_wipe(plain, sizeof(plain));
	return 0;
}
