/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of machines in memory, once opened or given: for each machine the generations of its key. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "vault/key_wrap.h"

/* Under the lock. */
static struct lb_vault_machine *known(const struct lb_vault *v, const struct lb_uuid *machine)
{
	for (size_t i = 0; i < v->n_machines; i++)
		if (lb_uuid_equal(&v->machines[i].id, machine))
			return &v->machines[i];
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

/* Generations are only ever added: who knows more than is given keeps what it knows. */
static int remember(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_keyring *ring)
{
	struct lb_vault_machine *there;
	int r;
	LB_LOCK_SCOPE(&v->lock);

	there = known(v, machine);
	if (there != NULL) {
		if (lb_keyring_is_begin_of(&there->ring, ring))
			there->ring = *ring;
		else if (!lb_keyring_is_begin_of(ring, &there->ring))
			return lb_fail(-EKEYREJECTED,
				       "this machine's key is already another one; restart this service");
		return 0;
	}
	r = grow(v);
	if (r < 0)
		return r;
	assert(v->machines != NULL);
	v->machines[v->n_machines++] = (struct lb_vault_machine){.id = *machine, .ring = *ring};
	return 0;
}

int lb_vault_machine_key_give(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_keyring *ring)
{
	return remember(v, machine, ring);
}

void lb_vault_machine_key_forget(struct lb_vault *v, const struct lb_uuid *machine)
{
	struct lb_vault_machine *there;
	LB_LOCK_SCOPE(&v->lock);

	there = known(v, machine);
	if (there == NULL)
		return;
	*there = v->machines[--v->n_machines];
	lb_wipe(&v->machines[v->n_machines], sizeof(v->machines[0]));
}

static bool recall(struct lb_vault *v, const struct lb_uuid *machine, struct lb_keyring *ret_ring)
{
	const struct lb_vault_machine *there;
	LB_LOCK_SCOPE(&v->lock);

	there = known(v, machine);
	if (there != NULL)
		*ret_ring = there->ring;
	return there != NULL;
}

/* Those behind the `ring->n` that are known. -ENOENT when there is none at all. */
static int read_on(struct lb_vault *v, const struct lb_uuid *machine, struct lb_keyring *ring)
{
	int r = 0;

	while (r == 0 && ring->n < LB_KEYRING_MAX) {
		r = lb_key_wrap_read(v, machine, ring->n, &ring->key[ring->n]);
		ring->n += r == 0;
	}
	if (r != -ENOENT || ring->n == 0)
		return r;
	lb_err_clear();
	return 0;
}

static int no_machine(struct lb_vault *v, const char *uuid)
{
	int r = lb_vault_key_check(v);

	return r < 0 ? r
		     : lb_fail(-ENOENT, "%s holds no machine %s: it was never protected here, or its key was destroyed",
			       v->store->url, uuid);
}

static int keyring_get(struct lb_vault *v, const struct lb_uuid *machine, bool create, struct lb_keyring *ring)
{
	char uuid[LB_UUID_TEXT_BYTES];
	int r;

	lb_uuid_format(machine, uuid);
	if (!v->has_key)
		return lb_fail(-ENOKEY,
			       "the key of machine %s was not given; is the machine assigned to this process server?",
			       uuid);
	r = read_on(v, machine, ring);
	if (r != -ENOENT)
		return r;
	if (!create)
		return no_machine(v, uuid);
	r = lb_key_wrap_make(v, machine, 0, &ring->key[0]);
	ring->n = r == 0;
	return r;
}

int lb_vault_keyring(struct lb_vault *v, const struct lb_uuid *machine, bool create, struct lb_keyring *ret_ring)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	int r;

	if (recall(v, machine, ret_ring))
		return 0;
	r = keyring_get(v, machine, create, &ring); /* without the lock: the store may be far away */
	if (r == 0)
		r = remember(v, machine, &ring);
	if (r == 0 && !recall(v, machine, ret_ring)) /* forgotten meanwhile */
		*ret_ring = ring;
	return r;
}

int lb_vault_machine_key(struct lb_vault *v, const struct lb_uuid *machine, bool create, struct lb_key *ret_key)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	int r;

	r = lb_vault_keyring(v, machine, create, &ring);
	if (r < 0)
		return r;
	*ret_key = ring.key[ring.n - 1];
	return 0;
}

int lb_vault_keyring_refresh(struct lb_vault *v, const struct lb_uuid *machine)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	uint32_t before;
	int r;

	if (!v->has_key || !recall(v, machine, &ring))
		return 0;
	before = ring.n;
	r = read_on(v, machine, &ring);
	return r < 0 || ring.n == before ? r : remember(v, machine, &ring);
}

int lb_vault_key_to_seal(struct lb_vault *v, const struct lb_uuid *machine, uint8_t ret_salt[LB_SALT_BYTES],
			 struct lb_key *ret_key)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	int r;

	r = lb_vault_keyring(v, machine, false, &ring);
	if (r == 0)
		r = lb_vault_random(v, ret_salt, LB_SALT_BYTES);
	if (r < 0)
		return r;
	lb_salt_mark(ret_salt, ring.n - 1);
	*ret_key = ring.key[ring.n - 1];
	return 0;
}

/* A key made since the others were read may be the one; of what cannot be there the store is not asked. */
int lb_vault_key_to_open(struct lb_vault *v, const struct lb_uuid *machine, const uint8_t salt[LB_SALT_BYTES],
			 struct lb_key *ret_key)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	uint32_t generation = lb_salt_generation(salt);
	char name[LB_OBJECT_NAME_BYTES];
	const struct lb_key *key;
	int r;

	r = lb_vault_keyring(v, machine, false, &ring);
	if (r == 0 && generation >= ring.n && generation < LB_KEYRING_MAX)
		r = lb_vault_keyring_refresh(v, machine);
	if (r == 0 && generation >= ring.n)
		r = lb_vault_keyring(v, machine, false, &ring);
	if (r < 0)
		return r;
	key = lb_keyring_of(&ring, salt);
	if (key != NULL) {
		*ret_key = *key;
		return 0;
	}
	if (!v->has_key)
		return lb_fail(
			-EBADMSG,
			"it was altered, or is sealed by key %u of its machine, of which this process was not told "
			"yet: it has %u",
			generation, ring.n);
	r = lb_key_wrap_name(v, machine, ring.n, name);
	return r < 0 ? r
		     : lb_fail(-EBADMSG,
			       "it was altered, or is sealed by key %u of its machine, and the vault has none after "
			       "key "
			       "%u: then object %s is missing",
			       generation, ring.n - 1, name);
}

static int key_check(struct lb_vault *v, const struct lb_uuid *machine, uint32_t generation, const char *object)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	int r;

	r = lb_key_wrap_read(v, machine, generation, &key);
	if (r == -ENOENT)
		return lb_fail(r, "%s: object %s is gone", v->store->url, object);
	if (r < 0)
		return r;
	return !recall(v, machine, &ring) || generation >= ring.n ||
			       lb_equal_ct(&ring.key[generation], &key, sizeof(key))
		       ? 0
		       : lb_fail(-EBADMSG, "%s: object %s holds another key than before", v->store->url, object);
}

int lb_vault_machine_key_check(struct lb_vault *v, const struct lb_uuid *machine, char object[LB_OBJECT_NAME_BYTES])
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	uint32_t n;
	int r;

	r = lb_key_wrap_count(v, machine, &n);
	if (r == 0 && recall(v, machine, &ring))
		n = n > ring.n ? n : ring.n;
	for (uint32_t i = 0; r == 0 && (i == 0 || i < n); i++) {
		r = lb_key_wrap_name(v, machine, i, object);
		if (r == 0)
			r = key_check(v, machine, i, object);
	}
	return r;
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
