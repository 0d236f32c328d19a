/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Catalog entries, pins and heartbeats. The first byte says which; the rest is sealed with the machine's key, as a
 * broken or hostile writer that holds it would, put into the vault and read as always. Heartbeats, machine keys,
 * objects of the site and receipts also come as they are, which must fail where they are authenticated.
 */
#include "one_object.h"

#include "base/bytes.h"
#include "vault/anchor.h"
#include "vault/catalog.h"
#include "vault/pins.h"
#include "vault/site.h"

#define RECORD_AT 16 /* of a list of heartbeats: magic, count */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void seal(struct one_object *o, const char *name, const uint8_t *data, size_t size_bytes, struct lb_buf *out)
{
	if (lb_vault_seal_small(o->vault, &o->machine, name, data, size_bytes, out) < 0)
		abort();
}

static void try_item(struct one_object *o, const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SMALL_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES);
	struct lb_catalog_item item;
	char name[LB_OBJECT_NAME_BYTES];

	if (lb_vault_name(name, &o->machine, "item/%08llu", 1ull) < 0)
		abort();
	seal(o, name, data, size_bytes, &sealed);
	one_object_is(o, name, sealed.data, sealed.size_bytes);
	if (lb_catalog_get(o->vault, &o->machine, &item) == 0 &&
	    (item.n_disks > LB_HRL_DISKS_MAX || memchr(item.name, 0, sizeof(item.name)) == NULL))
		abort();
}

static void try_pin(struct one_object *o, const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SMALL_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES);
	char name[LB_OBJECT_NAME_BYTES];
	struct lb_point point;

	if (lb_vault_name(name, &o->machine, "p/before-upgrade") < 0)
		abort();
	seal(o, name, data, size_bytes, &sealed);
	one_object_is(o, name, sealed.data, sealed.size_bytes);
	(void)lb_pin_read(o->vault, &o->machine, "before-upgrade", &point);
}

/* One record of our machine's, sealed, among what the input says; `raw`: the input is the object. */
static void try_beats(struct one_object *o, const uint8_t *data, size_t size_bytes, bool raw)
{
	_cleanup_buf_ struct lb_buf object = LB_BUF(LB_SMALL_BYTES_MAX);
	struct lb_position position = {.epoch = 1, .seq = 2};
	int64_t time_ns;

	if (raw) {
		if (lb_buf_append(&object, data, size_bytes) < 0)
			abort();
	} else {
		uint8_t head[RECORD_AT + 16] = "LBBEAT01";

		lb_put_le32(head + 8, 1);
		memcpy(head + RECORD_AT, o->machine.bytes, 16);
		if (lb_buf_append(&object, head, sizeof(head)) < 0)
			abort();
		seal(o, "heartbeat", data, LB_MIN(size_bytes, (size_t)24), &object);
	}
	one_object_is(o, "ps/00000000-0000-4000-8000-000000000001/heartbeat", object.data, object.size_bytes);
	(void)lb_heartbeat_get(o->vault, &o->machine, &position, &time_ns);
}

static void try_key(struct one_object *o, const uint8_t *data, size_t size_bytes)
{
	char name[LB_OBJECT_NAME_BYTES];

	if (lb_vault_name(name, &o->machine, "key") < 0)
		abort();
	one_object_is(o, name, data, size_bytes);
	if (lb_vault_machine_key_check(o->vault, &o->machine) == 0)
		abort();
}

static void try_site(struct one_object *o, const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf out = LB_BUF(LB_SITE_BYTES_MAX);

	one_object_is(o, "site/registry", data, size_bytes);
	if (lb_vault_site_get(o->vault, "registry", &out) == 0)
		abort();
}

static void try_receipt(struct one_object *o, const uint8_t *data, size_t size_bytes)
{
	struct lb_receipt receipt;

	if (lb_receipt_open(o->vault, data, size_bytes, &receipt) == 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct one_object *o = one_object();

	if (size_bytes < 1 || size_bytes > LB_SMALL_BYTES_MAX / 2)
		return 0;
	switch (data[0] % 8) {
	case 0:
		try_item(o, data + 1, size_bytes - 1);
		break;
	case 1:
		try_pin(o, data + 1, size_bytes - 1);
		break;
	case 2:
	case 3:
		try_beats(o, data + 1, size_bytes - 1, data[0] % 2 == 0);
		break;
	case 4:
		try_key(o, data + 1, size_bytes - 1);
		break;
	case 5:
		try_site(o, data + 1, size_bytes - 1);
		break;
	default:
		try_receipt(o, data + 1, size_bytes - 1);
		break;
	}
	lb_err_clear();
	return 0;
}
