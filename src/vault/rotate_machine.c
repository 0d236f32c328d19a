/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's next key, and how those who keep machines' keys in memory hear of it. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "vault/catalog.h"
#include "vault/journal.h"
#include "vault/key_wrap.h"
#include "vault/site.h"

#define NEWS "machine-keys" /* the site's object: random text, another one after each change */
#define NEWS_BYTES 16

static int make_next(struct lb_vault *v, const struct lb_uuid *machine, struct lb_keyring *ring)
{
	char object[LB_OBJECT_NAME_BYTES];
	struct lb_journal_tail tail;
	int r;

	if ((r = lb_vault_key_check(v)) < 0 || (r = lb_vault_machine_key_check(v, machine, object)) < 0 ||
	    (r = lb_vault_keyring(v, machine, false, ring)) < 0 || (r = lb_vault_keyring_refresh(v, machine)) < 0 ||
	    (r = lb_vault_keyring(v, machine, false, ring)) < 0)
		return r;
	if (ring->n == LB_KEYRING_MAX)
		return lb_fail(
			-ENOSPC,
			"it has had %d keys, which is the most; remove the machine and protect it anew to change "
			"its key once more",
			LB_KEYRING_MAX);
	/* what is sealed by a key that is missing must not come under another one of its number */
	r = lb_journal_tail_read(v, machine, &tail);
	if (r < 0)
		return lb_wrap(r, "its journal must be sound first: see `lifeboat vault verify` and `vault repair`");
	r = lb_key_wrap_make(v, machine, ring->n, &ring->key[ring->n]);
	return r < 0 ? r : lb_vault_keyring_refresh(v, machine);
}

/* Who does it at the same time tells the same. */
static int tell(struct lb_vault *v)
{
	uint8_t random[NEWS_BYTES];
	char text[2 * NEWS_BYTES + 1];
	int r;

	r = lb_vault_random(v, random, sizeof(random));
	if (r < 0)
		return r;
	lb_hex_encode(random, sizeof(random), text);
	r = lb_vault_site_put(v, NEWS, text, strlen(text));
	return r == -ESTALE ? lb_vault_key_check(v) : r;
}

int lb_vault_machine_key_rotate(struct lb_vault *v, const struct lb_uuid *machine, uint32_t *ret_generation)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	char label[LB_MACHINE_LABEL_BYTES];
	int r;

	if (!v->has_key)
		return lb_fail(-ENOKEY, "only who opened the vault with its passphrase can change a machine's key");
	if (v->has_previous)
		return lb_fail(-EBUSY, "the vault key is being changed; finish that first, with `lifeboat vault rotate "
				       "--vault-key`");
	r = lb_vault_prove(v);
	if (r == 0)
		r = make_next(v, machine, &ring);
	if (r < 0)
		return lb_wrap(r, "the key of machine %s was not changed", lb_catalog_label(v, machine, label));
	r = tell(v);
	if (r < 0)
		return lb_wrap(
			r, "machine %s has a new key, but the site could not be told: it takes it up within the hour",
			lb_catalog_label(v, machine, label));
	*ret_generation = ring.n;
	return 0;
}

/* The machines whose keys are in memory. */
static int known_machines(struct lb_vault *v, struct lb_uuid **ret_machines, size_t *ret_n)
{
	struct lb_uuid *machines;
	LB_LOCK_SCOPE(&v->lock);

	machines = calloc(v->n_machines + 1, sizeof(*machines));
	if (machines == NULL)
		return lb_fail(-ENOMEM, "out of memory for a list of machines");
	for (size_t i = 0; i < v->n_machines; i++)
		machines[i] = v->machines[i].id;
	*ret_machines = machines;
	*ret_n = v->n_machines;
	return 0;
}

int lb_vault_keyrings_follow(struct lb_vault *v, bool anyway)
{
	_cleanup_buf_ struct lb_buf news = LB_BUF(LB_KEY_NEWS_BYTES);
	_cleanup_free_ struct lb_uuid *machines = NULL;
	size_t n;
	int r;

	r = lb_vault_site_get(v, NEWS, &news);
	if (r == -ENOENT && !anyway) { /* no key was ever changed */
		lb_err_clear();
		return 0;
	}
	if (r < 0 && !anyway)
		return r;
	if (r == 0 && !anyway && strcmp((const char *)news.data, v->key_news) == 0)
		return 0;
	r = known_machines(v, &machines, &n);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = lb_vault_keyring_refresh(v, &machines[i]);
	if (r < 0)
		return r;
	snprintf(v->key_news, sizeof(v->key_news), "%s", news.size_bytes > 0 ? (const char *)news.data : "");
	return 0;
}
