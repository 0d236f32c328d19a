/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of machines: random, wrapped by the vault key, kept in memory once opened or given. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "vault/internal.h"

#define KEY_MAGIC "LBMKEY01"
#define KEY_PREFIX_BYTES (8 + LB_SALT_BYTES)
#define KEY_OBJECT_BYTES (KEY_PREFIX_BYTES + LB_KEY_BYTES + LB_TAG_BYTES)
#define KEY_AAD_BYTES (8 + 16 + 16)

static const uint8_t nonce_zero[LB_NONCE_BYTES];

/* Under the lock. */
static const struct lb_key *known(const struct lb_vault *v, const struct lb_uuid *machine)
{
	for (size_t i = 0; i < v->n_machines; i++)
		if (lb_uuid_equal(&v->machines[i].id, machine))
			return &v->machines[i].key;
	return NULL;
}

static int grow(struct lb_vault *v)
{
	size_t room = v->room_machines > 0 ? 2 * v->room_machines : 16;
	struct lb_vault_machine *machines;

	if (v->n_machines < v->room_machines)
		return 0;
	if (v->n_machines >= LB_VAULT_MACHINES_MAX)
		return lb_fail(-ENOSPC, "a vault holds at most %d machines", LB_VAULT_MACHINES_MAX);
	machines = calloc(room, sizeof(*machines));
	if (machines == NULL)
		return lb_fail(-ENOMEM, "out of memory for keys");
	if (v->machines != NULL) { /* not realloc(), which would leave keys behind */
		memcpy(machines, v->machines, v->n_machines * sizeof(*machines));
		lb_wipe(v->machines, v->n_machines * sizeof(*machines));
	}
	free(v->machines);
	v->machines = machines;
	v->room_machines = room;
	return 0;
}

static int remember(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_key *key)
{
	int r;

	if (known(v, machine) != NULL)
		return 0;
	r = grow(v);
	if (r < 0)
		return r;
	assert(v->machines != NULL);
	v->machines[v->n_machines++] = (struct lb_vault_machine){.id = *machine, .key = *key};
	return 0;
}

int lb_vault_machine_key_give(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_key *key)
{
	const struct lb_key *there;

	LB_LOCK_SCOPE(&v->lock);
	there = known(v, machine);
	if (there != NULL && !lb_equal_ct(there, key, sizeof(*key)))
		return lb_fail(-EKEYREJECTED, "this machine's key is already another one; restart this service");
	return remember(v, machine, key);
}

void lb_vault_machine_key_forget(struct lb_vault *v, const struct lb_uuid *machine)
{
	LB_LOCK_SCOPE(&v->lock);
	for (size_t i = 0; i < v->n_machines; i++) {
		if (!lb_uuid_equal(&v->machines[i].id, machine))
			continue;
		v->machines[i] = v->machines[--v->n_machines];
		lb_wipe(&v->machines[v->n_machines], sizeof(v->machines[0]));
		return;
	}
}

static void key_aad(const struct lb_vault *v, const struct lb_uuid *machine, uint8_t aad[KEY_AAD_BYTES])
{
	memcpy(aad, KEY_MAGIC, 8);
	memcpy(aad + 8, v->id.bytes, 16);
	memcpy(aad + 24, machine->bytes, 16);
}

static int key_name(const struct lb_vault_key *by, const struct lb_uuid *machine, char name[LB_OBJECT_NAME_BYTES])
{
	char id[2 * LB_VAULT_KEY_ID_BYTES + 1];

	if (lb_vault_key_id_is_first(by->id))
		return lb_vault_name(name, machine, "key");
	lb_hex_encode(by->id, sizeof(by->id), id);
	return lb_vault_name(name, machine, "key-%s", id);
}

int lb_vault_machine_key_name(const struct lb_vault *v, const struct lb_uuid *machine, char name[LB_OBJECT_NAME_BYTES])
{
	return key_name(&v->now, machine, name);
}

bool lb_vault_machine_key_is_name(const char *rest)
{
	uint8_t id[LB_VAULT_KEY_ID_BYTES];

	return strcmp(rest, "key") == 0 ||
	       (strncmp(rest, "key-", 4) == 0 && lb_hex_decode(rest + 4, sizeof(id), id) == 0);
}

bool lb_vault_machine_key_is_used(const struct lb_vault *v, const char *rest)
{
	uint8_t id[LB_VAULT_KEY_ID_BYTES] = {0};

	if (strcmp(rest, "key") != 0 && lb_hex_decode(rest + 4, sizeof(id), id) < 0)
		return false;
	return memcmp(id, v->now.id, sizeof(id)) == 0 ||
	       (v->has_previous && memcmp(id, v->previous.id, sizeof(id)) == 0);
}

static int key_open(struct lb_vault *v, const struct lb_vault_key *by, const struct lb_uuid *machine,
		    struct lb_key *ret_key)
{
	char name[LB_OBJECT_NAME_BYTES];
	_cleanup_buf_ struct lb_buf object = LB_BUF(KEY_OBJECT_BYTES);
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	uint8_t aad[KEY_AAD_BYTES];
	int r;

	r = key_name(by, machine, name);
	if (r == 0)
		r = lb_store_get_all(v->store, name, KEY_OBJECT_BYTES, &object);
	if (r < 0)
		return r == -EMSGSIZE ? lb_wrap(-EBADMSG, "it is no machine key") : r;
	if (object.size_bytes != KEY_OBJECT_BYTES || memcmp(object.data, KEY_MAGIC, 8) != 0)
		return lb_fail(-EBADMSG, "%s: object %s is truncated or no machine key", v->store->url, name);
	r = lb_seal_cipher(&by->key, object.data + 8, "lifeboat machine key 1", &gcm);
	if (r < 0)
		return r;
	key_aad(v, machine, aad);
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

/* Under either vault key while it is being changed; the new one again, as the old wrap goes once that one is there. */
static int key_find(struct lb_vault *v, const struct lb_uuid *machine, struct lb_key *ret_key)
{
	int r = key_open(v, &v->now, machine, ret_key);

	if (r == -ENOENT && v->has_previous)
		r = key_open(v, &v->previous, machine, ret_key);
	return r == -ENOENT && v->has_previous ? key_open(v, &v->now, machine, ret_key) : r;
}

/* Puts the key as wrapped by the vault key, if absent. */
static int key_put(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_key *key)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	uint8_t object[KEY_OBJECT_BYTES] = KEY_MAGIC, aad[KEY_AAD_BYTES];
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	if ((r = key_name(&v->now, machine, name)) < 0 || (r = lb_vault_random(v, object + 8, LB_SALT_BYTES)) < 0)
		return r;
	r = lb_seal_cipher(&v->now.key, object + 8, "lifeboat machine key 1", &gcm);
	if (r < 0)
		return r;
	key_aad(v, machine, aad);
	r = lb_gcm_seal(gcm, nonce_zero, aad, sizeof(aad), key->bytes, LB_KEY_BYTES, object + KEY_PREFIX_BYTES);
	return r < 0 ? r : lb_store_put_new(v->store, name, object, sizeof(object));
}

/*
 * A new key counts only when the vault key that wraps it was in use after it was put: a change of the vault key that
 * began before would not have seen it, and one that begins later does.
 */
static int key_make(struct lb_vault *v, const struct lb_uuid *machine, struct lb_key *ret_key)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	char name[LB_OBJECT_NAME_BYTES];
	bool is_ours;
	int r;

	if ((r = lb_vault_key_check(v)) < 0 || (r = key_name(&v->now, machine, name)) < 0 ||
	    (r = lb_vault_random(v, key.bytes, sizeof(key.bytes))) < 0)
		return r;
	r = key_put(v, machine, &key);
	is_ours = r == 0;
	if (r == -EEXIST)
		r = key_open(v, &v->now, machine, &key);
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

static int key_get(struct lb_vault *v, const struct lb_uuid *machine, bool create, struct lb_key *ret_key)
{
	char uuid[LB_UUID_TEXT_BYTES];
	int r;

	lb_uuid_format(machine, uuid);
	if (!v->has_key)
		return lb_fail(-ENOKEY,
			       "the key of machine %s was not given; is the machine assigned to this process server?",
			       uuid);
	r = key_find(v, machine, ret_key);
	if (r != -ENOENT)
		return r;
	if (create)
		return key_make(v, machine, ret_key);
	r = lb_vault_key_check(v);
	return r < 0 ? r
		     : lb_fail(-ENOENT, "%s holds no machine %s: it was never protected here, or its key was destroyed",
			       v->store->url, uuid);
}

int lb_vault_machine_key_rewrap(struct lb_vault *v, const struct lb_uuid *machine)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0}, again = {0};
	int r;

	r = key_find(v, machine, &key);
	if (r < 0)
		return r;
	r = key_put(v, machine, &key);
	if (r < 0 && r != -EEXIST)
		return r;
	r = key_open(v, &v->now, machine, &again); /* what the last wrap goes for is read back first */
	if (r == 0 && !lb_equal_ct(&key, &again, sizeof(key)))
		r = lb_fail(-EBADMSG, "%s holds two different keys of a machine", v->store->url);
	return r;
}

int lb_vault_machine_key_drop_previous(struct lb_vault *v, const struct lb_uuid *machine)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = key_open(v, &v->now, machine, &key);
	if (r == 0)
		r = key_name(&v->previous, machine, name);
	return r < 0 ? r : lb_store_remove(v->store, name);
}

static bool recall(struct lb_vault *v, const struct lb_uuid *machine, struct lb_key *ret_key)
{
	const struct lb_key *there;

	LB_LOCK_SCOPE(&v->lock);
	there = known(v, machine);
	if (there != NULL)
		*ret_key = *there;
	return there != NULL;
}

int lb_vault_machine_key(struct lb_vault *v, const struct lb_uuid *machine, bool create, struct lb_key *ret_key)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	const struct lb_key *there;
	int r;

	if (recall(v, machine, ret_key))
		return 0;
	r = key_get(v, machine, create, &key); /* without the lock: the store may be far away */
	if (r < 0)
		return r;
	LB_LOCK_SCOPE(&v->lock);
	there = known(v, machine);
	if (there != NULL) { /* another thread was faster */
		*ret_key = *there;
		return 0;
	}
	r = remember(v, machine, &key);
	if (r < 0)
		return r;
	*ret_key = key;
	return 0;
}

int lb_vault_machine_key_check(struct lb_vault *v, const struct lb_uuid *machine)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	char name[LB_OBJECT_NAME_BYTES];
	const struct lb_key *there;
	int r;

	LB_LOCK_SCOPE(&v->lock);
	r = key_name(&v->now, machine, name);
	if (r == 0)
		r = key_find(v, machine, &key);
	if (r == -ENOENT)
		return lb_fail(r, "%s: object %s is gone", v->store->url, name);
	if (r < 0)
		return r;
	there = known(v, machine);
	return there == NULL || lb_equal_ct(there, &key, sizeof(key))
		       ? 0
		       : lb_fail(-EBADMSG, "%s: object %s holds another key than before", v->store->url, name);
}

struct machines_walk {
	int (*fn)(void *arg, const struct lb_uuid *machine);
	void *arg;
};

static int machine_folder(void *arg, const char *folder)
{
	struct machines_walk *w = arg;
	struct lb_uuid machine;

	if (lb_uuid_parse(folder, &machine) < 0)
		return 0; /* not ours; verify tells of it */
	return w->fn(w->arg, &machine);
}

int lb_vault_machines(struct lb_vault *v, int (*fn)(void *arg, const struct lb_uuid *machine), void *arg)
{
	struct machines_walk w = {.fn = fn, .arg = arg};

	return lb_store_list_folders(v->store, "m/", machine_folder, &w);
}
