/* SPDX-License-Identifier: Apache-2.0 */
/* Which disk of a double is which of its source's: they keep their numbers and names all the way home. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/reprotect.h"
#include "vault/catalog.h"

#define NONE (-1)

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text != NULL ? text : "";
}

struct choice {
	const struct lb_catalog_item *item;
	const json_t *inventory;
	int of[LB_HRL_DISKS_MAX]; /* place in the inventory, per disk of the item */
};

static bool is_taken(const struct choice *c, int place)
{
	for (uint32_t i = 0; i < c->item->n_disks; i++)
		if (c->of[i] == place)
			return true;
	return false;
}

/* A VM shows a serial number only where it can, and no more than 20 characters of it. */
static void choose_by_serial(struct choice *c)
{
	const json_t *disk;
	size_t k;

	for (uint32_t i = 0; i < c->item->n_disks; i++) {
		char serial[LB_VM_SERIAL_BYTES] = "";

		if (lb_name_check("serial", c->item->disks[i].serial) == 0)
			snprintf(serial, sizeof(serial), "%.20s", c->item->disks[i].serial);
		json_array_foreach(c->inventory, k, disk)
		{
			if (serial[0] != '\0' && c->of[i] == NONE && strcmp(text_of(disk, "serial"), serial) == 0 &&
			    !is_taken(c, (int)k))
				c->of[i] = (int)k;
		}
	}
	lb_err_clear();
}

static bool may_be(const struct choice *c, uint32_t n, size_t k)
{
	const json_t *disk = json_array_get(c->inventory, k);

	return !is_taken(c, (int)k) &&
	       (uint64_t)json_integer_value(json_object_get(disk, "size_bytes")) == c->item->disks[n].size_bytes;
}

/* Those of one size, in their order, if there are as many of them here as there. */
static int choose_by_size(struct choice *c, uint32_t n)
{
	uint64_t size_bytes = c->item->disks[n].size_bytes;
	unsigned int wanted = 0, there = 0;
	int first = NONE;

	for (uint32_t i = 0; i < c->item->n_disks; i++)
		wanted += c->of[i] == NONE && c->item->disks[i].size_bytes == size_bytes;
	for (size_t k = 0; k < json_array_size(c->inventory); k++) {
		if (!may_be(c, n, k))
			continue;
		there++;
		first = first == NONE ? (int)k : first;
	}
	if (there != wanted)
		return lb_fail(-ENODEV,
			       "which disk of the double is %s of %s can't be told: it has no serial number, and %u "
			       "disks of its size are there where %u should be",
			       c->item->disks[n].name, c->item->name, there, wanted);
	c->of[n] = first;
	return 0;
}

static int add(const struct choice *c, uint32_t n, json_t *list)
{
	json_t *copy = json_copy(json_array_get(c->inventory, (size_t)c->of[n]));

	if (copy == NULL || json_object_set_new(copy, "id", json_integer(c->item->disks[n].id)) < 0 ||
	    json_object_set_new(copy, "name", json_string(c->item->disks[n].name)) < 0 ||
	    json_object_set_new(copy, "boot", json_boolean(c->item->disks[n].boot)) < 0 ||
	    json_array_append_new(list, copy) < 0)
		return lb_fail(-ENOMEM, "out of memory for a disk");
	return 0;
}

static int choose(struct choice *c, struct lb_reg_machine *back)
{
	json_t *list = json_array();
	int r = 0;

	choose_by_serial(c);
	for (uint32_t i = 0; r == 0 && i < c->item->n_disks; i++)
		r = c->of[i] == NONE ? choose_by_size(c, i) : 0;
	for (uint32_t i = 0; r == 0 && i < c->item->n_disks; i++)
		r = add(c, i, list);
	if (r < 0) {
		json_decref(list);
		return r;
	}
	json_decref(back->disks);
	back->disks = list;
	return 0;
}

int lb_reprotect_disks(struct lb_site *site, const struct lb_reprotect *p, struct lb_reg_machine *back)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	struct choice c = {.item = item, .inventory = json_object_get(back->inventory, "disks")};
	struct lb_uuid machine;
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	for (size_t i = 0; i < LB_ARRAY_LEN(c.of); i++)
		c.of[i] = NONE;
	r = lb_uuid_parse(p->machine, &machine);
	r = r < 0 ? r : lb_catalog_get(site->vault, &machine, item);
	return r < 0 ? r : choose(&c, back);
}
