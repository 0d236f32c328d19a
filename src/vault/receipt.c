/* SPDX-License-Identifier: Apache-2.0 */
/* Receipts: "lifeboat vault receipt 1 <HMAC, hex>", a line break, JSON that the HMAC is of, a line break. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "vault/anchor.h"
#include "vault/catalog.h"
#include "vault/chain.h"
#include "vault/site.h"
#include "vault/slots.h"

#define TITLE "lifeboat vault receipt 1 "
#define TITLE_BYTES (sizeof(TITLE) - 1)
#define HEAD_BYTES (TITLE_BYTES + 2 * LB_DIGEST_BYTES + 1)
#define USE "lifeboat vault receipt 1"

#define KEPT_PREFIX "receipt-key-" /* site objects: the receipt keys of earlier vault keys, one each */
#define KEPT_KEYS_MAX 1024

static int receipt_key(const struct lb_vault *v, const struct lb_key *key, struct lb_key *ret_key)
{
	if (!v->has_key)
		return lb_fail(-ENOKEY, "only who opened the vault with its passphrase makes and checks receipts");
	return lb_hkdf(key, v->id.bytes, sizeof(v->id.bytes), USE, ret_key);
}

int lb_receipt_key_keep(struct lb_vault *v)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	char name[sizeof(KEPT_PREFIX) + 2 * LB_VAULT_KEY_ID_BYTES] = KEPT_PREFIX;
	int r;

	lb_hex_encode(v->previous.id, sizeof(v->previous.id), name + strlen(KEPT_PREFIX));
	r = receipt_key(v, &v->previous.key, &key);
	return r < 0 ? r : lb_vault_site_put(v, name, key.bytes, sizeof(key.bytes));
}

static int authenticate(const struct lb_vault *v, const struct lb_key *vault_key, const void *text, size_t size_bytes,
			struct lb_digest *ret)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	int r;

	r = receipt_key(v, vault_key, &key);
	return r < 0 ? r : lb_hmac_sha256(&key, text, size_bytes, ret);
}

static int print_anchor(const struct lb_anchor *a, json_t **ret)
{
	_cleanup_json_ json_t *j = json_object();
	int r;

	if (j == NULL)
		return lb_fail(-ENOMEM, "out of memory for a receipt");
	if ((r = lb_json_set_uuid(j, "machine", &a->machine)) < 0 ||
	    (r = lb_json_set_u64(j, "epoch", a->position.epoch)) < 0 ||
	    (r = lb_json_set_u64(j, "seq", a->position.seq)) < 0 ||
	    (r = lb_json_set_digest(j, "digest", &a->digest)) < 0 ||
	    (r = lb_json_set_u64(j, "object_epoch", a->object.epoch)) < 0 ||
	    (r = lb_json_set_u64(j, "object_number", a->object.number)) < 0 ||
	    (r = lb_json_set_digest(j, "object_digest", &a->object_digest)) < 0 ||
	    (r = lb_json_set_u64(j, "item", a->item)) < 0 || (r = lb_json_set_i64(j, "time_ns", a->time_ns)) < 0)
		return r;
	*ret = lb_steal_ptr(j);
	return 0;
}

struct making {
	struct lb_vault *v;
	json_t *machines;
};

static int stop_at_first(void *arg, const char *object, uint64_t size_bytes)
{
	(void)arg;
	(void)object;
	(void)size_bytes;
	return 1;
}

/* 0 when the machine was erased, and only the folder of some stores is left of it. */
static int without_key(struct lb_vault *v, const struct lb_uuid *machine)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	int r = lb_vault_name(prefix, machine, "%s", "");

	if (r == 0)
		r = lb_store_list(v->store, prefix, stop_at_first, NULL);
	if (r == 0)
		lb_err_clear();
	return r <= 0 ? r
		      : lb_fail(-EBADMSG,
				"no receipt of a vault that is not whole: %skey is gone, and other objects of that "
				"machine "
				"are there; put it back from a copy, or remove those too if the machine was erased",
				prefix);
}

static int add_machine(void *arg, const struct lb_uuid *machine)
{
	const struct making *m = arg;
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	struct lb_anchor a = {.machine = *machine};
	struct lb_chain c = {0};
	json_t *j = NULL;
	int r;

	r = lb_vault_keyring(m->v, machine, false, &ring);
	if (r == -ENOENT)
		return without_key(m->v, machine);
	if (r == 0)
		r = lb_chain_newest(&c, m->v, machine);
	if (r == 0)
		r = lb_chain_finish(&c);
	if (r == 0)
		r = lb_catalog_version(m->v, machine, &a.item);
	if (r == -ENOENT || r == -EBADMSG) /* a receipt of what is broken would only confirm it */
		return lb_wrap(-EBADMSG, "no receipt of a vault that is not whole; run `lifeboat vault verify`");
	if (r < 0)
		return r;
	a.position = c.after.position;
	a.digest = c.after.digest;
	a.object = c.last;
	a.object_digest = c.last_digest;
	a.time_ns = c.after.receipt_ns;
	r = print_anchor(&a, &j);
	if (r == 0 && json_array_append_new(m->machines, j) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a receipt");
	return r;
}

static int make_json(struct lb_vault *v, char **ret_text)
{
	_cleanup_buf_ struct lb_buf vault_json = LB_BUF(LB_VAULT_JSON_BYTES_MAX + 1);
	_cleanup_json_ json_t *j = json_object();
	struct making m = {.v = v, .machines = json_array()};
	int r;

	if (j == NULL || json_object_set_new(j, "machines", m.machines) < 0)
		return lb_fail(-ENOMEM, "out of memory for a receipt");
	r = lb_store_get_all(v->store, LB_VAULT_JSON, LB_VAULT_JSON_BYTES_MAX, &vault_json);
	if (r == 0)
		r = lb_buf_append(&vault_json, "", 1);
	if (r < 0)
		return r;
	if ((r = lb_json_set_uuid(j, "vault", &v->id)) < 0 ||
	    (r = lb_json_set_i64(j, "made_ns", lb_now_ns(v->store->env))) < 0 ||
	    (r = lb_json_set_str(j, "vault_json", (const char *)vault_json.data)) < 0 ||
	    (r = lb_vault_machines(v, add_machine, &m)) < 0)
		return r;
	return lb_json_dump(j, ret_text);
}

int lb_receipt_make(struct lb_vault *v, struct lb_buf *out)
{
	_cleanup_free_ char *text = NULL;
	char hex[2 * LB_DIGEST_BYTES + 1];
	struct lb_digest mac;
	int r;

	r = make_json(v, &text);
	if (r == 0)
		r = authenticate(v, &v->now.key, text, strlen(text), &mac);
	if (r < 0)
		return r;
	lb_hex_encode(mac.bytes, sizeof(mac.bytes), hex);
	lb_err_clear();
	return lb_buf_printf(out, TITLE "%s\n%s\n", hex, text);
}

static int parse_anchor(const json_t *j, struct lb_anchor *a)
{
	int r;

	if ((r = lb_json_get_uuid(j, "machine", &a->machine)) < 0 ||
	    (r = lb_json_get_u64(j, "epoch", &a->position.epoch)) < 0 ||
	    (r = lb_json_get_u64(j, "seq", &a->position.seq)) < 0 ||
	    (r = lb_json_get_digest(j, "digest", &a->digest)) < 0 ||
	    (r = lb_json_get_u64(j, "object_epoch", &a->object.epoch)) < 0 ||
	    (r = lb_json_get_u64(j, "object_number", &a->object.number)) < 0 ||
	    (r = lb_json_get_digest(j, "object_digest", &a->object_digest)) < 0 ||
	    (r = lb_json_get_u64(j, "item", &a->item)) < 0)
		return r;
	return lb_json_get_i64(j, "time_ns", &a->time_ns);
}

static int parse(const struct lb_vault *v, const json_t *j, struct lb_receipt *receipt)
{
	const json_t *machines = json_object_get(j, "machines");
	const char *vault_json;
	struct lb_uuid vault;
	int r;

	if ((r = lb_json_get_uuid(j, "vault", &vault)) < 0 ||
	    (r = lb_json_get_i64(j, "made_ns", &receipt->made_ns)) < 0 ||
	    (r = lb_json_get_str(j, "vault_json", &vault_json)) < 0)
		return r;
	if (!lb_uuid_equal(&vault, &v->id))
		return lb_fail(-EBADMSG, "it is of another vault");
	if (!json_is_array(machines) || json_array_size(machines) > LB_ANCHOR_MACHINES_MAX)
		return lb_fail(-EBADMSG, "\"machines\" is no list or too long");
	receipt->vault_json = strdup(vault_json);
	receipt->anchors = calloc(json_array_size(machines) + 1, sizeof(*receipt->anchors));
	if (receipt->vault_json == NULL || receipt->anchors == NULL)
		return lb_fail(-ENOMEM, "out of memory for a receipt");
	for (size_t i = 0; r == 0 && i < json_array_size(machines); i++)
		r = parse_anchor(json_array_get(machines, i), &receipt->anchors[receipt->n++]);
	return r;
}

struct kept {
	struct lb_vault *v;
	const char *text;
	size_t size_bytes;
	const struct lb_digest *told;
	unsigned int n;
};

/* 1 when this kept key authenticates the text. One that can't be read authenticates nothing. */
static int try_kept(void *arg, const char *object, uint64_t object_bytes)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_SITE_BYTES_MAX);
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	struct kept *k = arg;
	struct lb_digest mac;
	int r;

	(void)object_bytes;
	if (++k->n > KEPT_KEYS_MAX)
		return lb_fail(-E2BIG, "the vault keeps more than %d keys of receipts", KEPT_KEYS_MAX);
	r = lb_vault_site_get(k->v, object + strlen("site/"), &plain);
	if (r == -EBADMSG || r == -ENOENT || r == -EINVAL || (r == 0 && plain.size_bytes != sizeof(key.bytes)))
		return 0;
	if (r < 0)
		return r;
	memcpy(key.bytes, plain.data, sizeof(key.bytes));
	lb_wipe(plain.data, plain.size_bytes);
	r = lb_hmac_sha256(&key, k->text, k->size_bytes, &mac);
	return r < 0 ? r : lb_equal_ct(k->told, &mac, sizeof(mac)) ? 1 : 0;
}

/* By the vault key, the one before while it is in use, or what is kept of earlier ones. */
static int check_text(struct lb_vault *v, const char *text, size_t size_bytes, const struct lb_digest *told)
{
	struct kept k = {.v = v, .text = text, .size_bytes = size_bytes, .told = told};
	struct lb_digest mac;
	int r;

	r = authenticate(v, &v->now.key, text, size_bytes, &mac);
	if (r < 0 || lb_equal_ct(told, &mac, sizeof(mac)))
		return r;
	if (v->has_previous) {
		r = authenticate(v, &v->previous.key, text, size_bytes, &mac);
		if (r < 0 || lb_equal_ct(told, &mac, sizeof(mac)))
			return r;
	}
	r = lb_store_list(v->store, "site/" KEPT_PREFIX, try_kept, &k);
	if (r == 0)
		return lb_fail(-EBADMSG, "it is not authentic: altered, or of another vault");
	if (r < 0)
		return r;
	lb_err_clear();
	return 0;
}

static int check_mac(struct lb_vault *v, const char *text, size_t size_bytes)
{
	struct lb_digest told;
	char hex[2 * LB_DIGEST_BYTES + 1];

	if (size_bytes < HEAD_BYTES + 1 || memcmp(text, TITLE, TITLE_BYTES) != 0 || text[HEAD_BYTES - 1] != '\n' ||
	    text[size_bytes - 1] != '\n')
		return lb_fail(-EBADMSG, "it is no receipt of a vault, or cut short");
	snprintf(hex, sizeof(hex), "%.*s", 2 * LB_DIGEST_BYTES, text + TITLE_BYTES);
	if (lb_hex_decode(hex, sizeof(told.bytes), told.bytes) < 0)
		return lb_fail(-EBADMSG, "it is no receipt of a vault");
	return check_text(v, text + HEAD_BYTES, size_bytes - HEAD_BYTES - 1, &told);
}

int lb_receipt_open(struct lb_vault *v, const void *data, size_t size_bytes, struct lb_receipt *ret_receipt)
{
	_cleanup_(lb_receipt_clear) struct lb_receipt receipt = {0};
	_cleanup_json_ json_t *j = NULL;
	int r;

	r = check_mac(v, data, size_bytes);
	if (r == 0)
		r = lb_json_parse((const char *)data + HEAD_BYTES, size_bytes - HEAD_BYTES - 1, LB_RECEIPT_BYTES_MAX,
				  &j);
	if (r == 0)
		r = parse(v, j, &receipt);
	if (r < 0)
		return r;
	*ret_receipt = receipt;
	receipt = (struct lb_receipt){0};
	return 0;
}

/* The slots in a receipt, before it can be authenticated: the key to do so is in them. Bounded like any vault.json. */
static int slots_of(const char *text, size_t size_bytes, struct lb_slots *slots)
{
	_cleanup_json_ json_t *j = NULL;
	const char *vault_json = "";
	int r;

	if (size_bytes < HEAD_BYTES + 1 || memcmp(text, TITLE, TITLE_BYTES) != 0)
		return lb_fail(-EBADMSG, "it is no receipt of a vault");
	r = lb_json_parse(text + HEAD_BYTES, size_bytes - HEAD_BYTES - 1, LB_RECEIPT_BYTES_MAX, &j);
	if (r == 0)
		r = lb_json_get_str(j, "vault_json", &vault_json);
	return r < 0 ? r : lb_slots_parse(vault_json, strlen(vault_json), slots);
}

static int keep_evidence(struct lb_vault *v, char etag[LB_STORE_ETAG_BYTES], bool *ret_there)
{
	_cleanup_buf_ struct lb_buf was = LB_BUF(LB_STORE_OBJECT_BYTES_MAX);
	char name[64], hex[2 * 16 + 1];
	uint8_t nonce[16];
	uint64_t size_bytes;
	int r;

	r = lb_store_stat(v->store, LB_VAULT_JSON, &size_bytes, etag);
	*ret_there = r == 0;
	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = lb_store_get_all(v->store, LB_VAULT_JSON, LB_STORE_OBJECT_BYTES_MAX, &was);
	if (r == 0)
		r = lb_vault_random(v, nonce, sizeof(nonce));
	if (r < 0)
		return r;
	lb_hex_encode(nonce, sizeof(nonce), hex);
	snprintf(name, sizeof(name), "evidence/%s", hex);
	return lb_store_put_new(v->store, name, was.data, was.size_bytes);
}

static int put_back(struct lb_vault *v, const char *vault_json)
{
	char etag[LB_STORE_ETAG_BYTES];
	bool there;
	int r = keep_evidence(v, etag, &there);

	if (r < 0)
		return r;
	if (!there)
		return lb_store_put_new(v->store, LB_VAULT_JSON, vault_json, strlen(vault_json));
	return lb_store_replace(v->store, LB_VAULT_JSON, etag, vault_json, strlen(vault_json));
}

/* A vault.json of before a change of the vault key would open no machine, and hide the one that does. */
static int check_machines(struct lb_vault *v, const struct lb_receipt *receipt)
{
	for (size_t i = 0; i < receipt->n; i++) {
		const struct lb_uuid *machine = &receipt->anchors[i].machine;
		char prefix[LB_OBJECT_NAME_BYTES];
		int r = lb_vault_machine_key_check(v, machine, prefix);

		if (r != -ENOENT) /* what is damaged besides is told by verify */
			continue;
		r = lb_vault_name(prefix, machine, "key");
		if (r == 0)
			r = lb_store_list(v->store, prefix, stop_at_first, NULL);
		if (r < 0)
			return r;
		if (r > 0)
			return lb_fail(-ESTALE,
				       "it is older than the last change of the vault key (`lifeboat vault rotate`): "
				       "its " LB_VAULT_JSON " opens no machine any more; use a receipt made since");
	}
	return 0;
}

int lb_receipt_restore(struct lb_store *store, const char *passphrase, const void *data, size_t size_bytes,
		       bool dry_run)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	_cleanup_(lb_receipt_clear) struct lb_receipt receipt = {0};
	struct lb_slots slots = {0};
	int r;

	if (lb_vault_open(store, passphrase, &v) == 0)
		return lb_fail(-EEXIST, "%s: " LB_VAULT_JSON " is whole", store->url);
	v = calloc(1, sizeof(*v));
	if (v == NULL)
		return lb_fail(-ENOMEM, "out of memory for a vault");
	v->store = store;
	pthread_mutex_init(&v->lock, NULL);
	r = slots_of(data, size_bytes, &slots);
	if (r == 0)
		r = lb_vault_unlock(v, &slots, passphrase);
	if (r < 0)
		return lb_wrap(r, "the receipt");
	r = lb_receipt_open(v, data, size_bytes, &receipt);
	if (r == 0)
		r = check_machines(v, &receipt);
	if (r < 0)
		return lb_wrap(r, "the receipt");
	return dry_run || receipt.vault_json == NULL ? 0 : put_back(v, receipt.vault_json);
}

void lb_receipt_clear(struct lb_receipt *receipt)
{
	free(receipt->vault_json);
	free(receipt->anchors);
	*receipt = (struct lb_receipt){0};
}

const struct lb_anchor *lb_receipt_find(const struct lb_receipt *receipt, const struct lb_uuid *machine)
{
	for (size_t i = 0; i < receipt->n; i++)
		if (lb_uuid_equal(&receipt->anchors[i].machine, machine))
			return &receipt->anchors[i];
	return NULL;
}
