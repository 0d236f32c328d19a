/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Catalog entries, pins, holds, leases, repair records and heartbeats. The first byte says which; the rest is sealed
 * with the machine's key, as a broken or hostile writer that holds it would, put into the vault and read as always.
 * Heartbeats, machine keys, objects of the site and receipts also come as they are, which must fail where they are
 * authenticated.
 */
#include "one_object.h"

#include "base/bytes.h"
#include "vault/anchor.h"
#include "vault/catalog.h"
#include "vault/lease.h"
#include "vault/losses.h"
#include "vault/pins.h"
#include "vault/repair.h"
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

static void try_pin(struct one_object *o, bool hold, const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SMALL_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES);
	char name[LB_OBJECT_NAME_BYTES];
	struct lb_point point;

	if (lb_vault_name(name, &o->machine, hold ? "h/before-upgrade" : "p/before-upgrade") < 0)
		abort();
	seal(o, name, data, size_bytes, &sealed);
	one_object_is(o, name, sealed.data, sealed.size_bytes);
	if (lb_pin_find(o->vault, &o->machine, "before-upgrade", &point) == 0 && point.held != hold)
		abort();
}

static void try_lease(struct one_object *o, const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SMALL_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES);
	char name[LB_OBJECT_NAME_BYTES];
	uint64_t deletable;

	if (lb_vault_name(name, &o->machine, "l/0123456789abcdef") < 0)
		abort();
	seal(o, name, data, size_bytes, &sealed);
	one_object_is(o, name, sealed.data, sealed.size_bytes);
	(void)lb_leases_read(o->vault, &o->machine, 1700000000 * LB_NS_PER_S, &deletable);
}

struct order {
	uint64_t at;
};

static int check_order(void *arg, const struct lb_map_extent *x)
{
	struct order *order = arg;

	if (x->start < order->at || x->sectors == 0)
		abort();
	order->at = x->start + x->sectors;
	return 0;
}

/* What a record says is lost, in a map. */
static void apply(const struct lb_repair *record)
{
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;

	if (lb_map_new(&map) < 0)
		return;
	(void)lb_repair_apply(record, map);
	for (uint32_t i = 0; i < lb_map_disks(map); i++)
		lb_map_walk(map, lb_map_disk_id(map, i), 0, UINT64_C(1) << 54, check_order, &(struct order){0});
}

static void try_repair(struct one_object *o, const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SMALL_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES);
	struct lb_place place = {.epoch = 1, .number = 2};
	struct lb_position position = {.epoch = 1, .seq = 5};
	char name[LB_OBJECT_NAME_BYTES];
	struct lb_repairs list = {0};

	if (lb_vault_name(name, &o->machine, "r/%08llx-%010llx-%04llx", (unsigned long long)place.epoch,
			  (unsigned long long)place.number, 0ull) < 0)
		abort();
	seal(o, name, data, size_bytes, &sealed);
	one_object_is(o, name, sealed.data, sealed.size_bytes);
	if (lb_repairs_read(o->vault, &o->machine, &list) < 0)
		return;
	(void)lb_repairs_damage(&list, &position);
	for (size_t i = 0; i < list.n; i++)
		apply(list.r[i]);
	lb_repairs_free(&list);
}

static void try_losses(struct one_object *o, const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SMALL_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES);
	_cleanup_(lb_losses_clear) struct lb_losses losses = {0};
	char name[LB_OBJECT_NAME_BYTES];

	if (lb_vault_name(name, &o->machine, "r/losses-0001") < 0)
		abort();
	seal(o, name, data, size_bytes, &sealed);
	one_object_is(o, name, sealed.data, sealed.size_bytes);
	if (lb_losses_read(o->vault, &o->machine, &losses) < 0)
		return;
	for (size_t i = 0; i < losses.n; i++)
		if (memchr(losses.l[i].object, 0, LB_OBJECT_NAME_BYTES) == NULL)
			abort();
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

static void try_key(struct one_object *o, const char *rest, const uint8_t *data, size_t size_bytes)
{
	char name[LB_OBJECT_NAME_BYTES], object[LB_OBJECT_NAME_BYTES];

	if (lb_vault_name(name, &o->machine, "%s", rest) < 0)
		abort();
	one_object_is(o, name, data, size_bytes);
	if (lb_vault_machine_key_check(o->vault, &o->machine, object) == 0)
		abort();
}

static void try_site(struct one_object *o, const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf out = LB_BUF(LB_SITE_BYTES_MAX);

	one_object_is(o, "site/registry", data, size_bytes);
	if (lb_vault_site_get(o->vault, "registry", &out) == 0)
		abort();
}

static void try_manifest(struct one_object *o, const uint8_t *data, size_t size_bytes)
{
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	char name[LB_OBJECT_NAME_BYTES];

	if (lb_manifest_name(name, &o->machine, 1) < 0)
		abort();
	one_object_is(o, name, data, size_bytes);
	if (lb_manifest_get(o->vault, &o->machine, 1, &m) == 0)
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
	switch (data[0] % 16) {
	case 0:
		try_item(o, data + 1, size_bytes - 1);
		break;
	case 1:
	case 8:
		try_pin(o, data[0] % 16 == 8, data + 1, size_bytes - 1);
		break;
	case 2:
	case 3:
		try_beats(o, data + 1, size_bytes - 1, data[0] % 2 == 0);
		break;
	case 4:
		try_key(o, "key", data + 1, size_bytes - 1);
		break;
	case 14:
		try_key(o, "key.01", data + 1, size_bytes - 1);
		break;
	case 13:
		try_losses(o, data + 1, size_bytes - 1);
		break;
	case 5:
		try_site(o, data + 1, size_bytes - 1);
		break;
	case 9:
		try_lease(o, data + 1, size_bytes - 1);
		break;
	case 10:
	case 11:
		try_repair(o, data + 1, size_bytes - 1);
		break;
	case 12:
		try_manifest(o, data + 1, size_bytes - 1);
		break;
	default:
		try_receipt(o, data + 1, size_bytes - 1);
		break;
	}
	lb_err_clear();
	return 0;
}
