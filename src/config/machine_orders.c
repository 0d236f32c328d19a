/* SPDX-License-Identifier: Apache-2.0 */
/* Which disks of a machine are protected under which lasting numbers, and what of it is published in the vault. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "vault/catalog.h"

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text != NULL ? text : "";
}

static bool same_disk(const json_t *a, const json_t *b)
{
	if (text_of(a, "serial")[0] != '\0' || text_of(b, "serial")[0] != '\0')
		return strcmp(text_of(a, "serial"), text_of(b, "serial")) == 0;
	return strcmp(text_of(a, "name"), text_of(b, "name")) == 0;
}

static bool is_fit(const json_t *disk)
{
	const json_t *fixed = json_object_get(disk, "fixed"), *fit = json_object_get(disk, "fit");

	return (fixed == NULL || json_is_true(fixed)) && (fit == NULL || json_is_true(fit)) &&
	       text_of(disk, "refused")[0] == '\0' && json_integer_value(json_object_get(disk, "size_bytes")) > 0;
}

static bool is_named(const json_t *disk, const json_t *names)
{
	const json_t *name;
	size_t i;

	json_array_foreach(names, i, name)
	{
		const char *text = json_string_value(name);

		if (text != NULL &&
		    (strcmp(text, text_of(disk, "name")) == 0 || strcmp(text, text_of(disk, "path")) == 0))
			return true;
	}
	return false;
}

static int no_such_disk(const struct lb_reg_machine *m, const json_t *inventory, const char *name)
{
	char names[512] = "";
	const json_t *disk;
	size_t i;

	json_array_foreach(inventory, i, disk) snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s",
							i > 0 ? ", " : "", text_of(disk, "name"));
	return lb_fail(-ENOENT, "machine %s has no disk \"%.60s\"; its agent reports: %s", m->name, name, names);
}

static int check_names(const struct lb_reg_machine *m, const json_t *inventory, const json_t *names)
{
	const json_t *name, *disk;
	size_t i, k;

	json_array_foreach(names, i, name)
	{
		const char *text = json_string_value(name);
		bool there = false;

		if (text == NULL)
			return lb_fail(-EINVAL, "\"disks\" is not a list of names");
		json_array_foreach(inventory, k, disk) there =
			there || strcmp(text, text_of(disk, "name")) == 0 || strcmp(text, text_of(disk, "path")) == 0;
		if (!there)
			return no_such_disk(m, inventory, text);
	}
	return 0;
}

/* The lasting id: that of the same disk before, or one that no disk of this machine ever had. */
static int lasting_id(const struct lb_reg_machine *m, const json_t *disk, json_int_t *next, json_int_t *ret_id)
{
	const json_t *known;
	size_t i;

	json_array_foreach(m->disks, i, known)
	{
		if (!same_disk(known, disk))
			continue;
		*ret_id = json_integer_value(json_object_get(known, "id"));
		return 0;
	}
	if (*next >= LB_HRL_DISKS_MAX)
		return lb_fail(-ENOSPC, "machine %s has had %d disks; remove it and enrol it again to protect others",
			       m->name, LB_HRL_DISKS_MAX);
	*ret_id = (*next)++;
	return 0;
}

static json_int_t next_id(const struct lb_reg_machine *m)
{
	const json_t *disk;
	json_int_t next = 0;
	size_t i;

	json_array_foreach(m->disks, i, disk) next = LB_MAX(next, json_integer_value(json_object_get(disk, "id")) + 1);
	return next;
}

static int add_disk(json_t *list, const json_t *disk, json_int_t id, bool retired)
{
	json_t *copy = json_copy((json_t *)disk);

	if (copy == NULL || json_object_set_new(copy, "id", json_integer(id)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a disk");
	json_object_del(copy, "retired");
	if (retired)
		json_object_set_new(copy, "retired", json_true());
	return json_array_append_new(list, copy) < 0 ? lb_fail(-ENOMEM, "out of memory for a disk") : 0;
}

static int keep_retired(const struct lb_reg_machine *m, json_t *list)
{
	json_t *known, *one;
	size_t i, k;
	int r = 0;

	json_array_foreach(m->disks, i, known)
	{
		bool active = false;

		json_array_foreach(list, k, one) active =
			active || json_integer_value(json_object_get(one, "id")) ==
					  json_integer_value(json_object_get(known, "id"));
		if (!active && r == 0)
			r = add_disk(list, known, json_integer_value(json_object_get(known, "id")), true);
	}
	return r;
}

int lb_disks_choose(struct lb_reg_machine *m, const json_t *names)
{
	const json_t *inventory = json_object_get(m->inventory, "disks"), *disk;
	_cleanup_json_ json_t *list = json_array();
	json_int_t next = next_id(m), id;
	size_t i;
	int r;

	r = check_names(m, inventory, names);
	json_array_foreach(inventory, i, disk)
	{
		if (r < 0 || (names != NULL ? !is_named(disk, names) : !is_fit(disk)))
			continue;
		r = lasting_id(m, disk, &next, &id);
		if (r == 0)
			r = add_disk(list, disk, id, false);
	}
	if (r == 0 && json_array_size(list) == 0)
		r = lb_fail(-EINVAL, "machine %s reports no disk that can be protected; name one with --disks",
			    m->name);
	if (r == 0)
		r = keep_retired(m, list);
	if (r < 0)
		return r;
	json_decref(m->disks);
	m->disks = lb_steal_ptr(list);
	return 0;
}

static void fill_disk(const json_t *disk, struct lb_catalog_disk *d)
{
	json_int_t sector = json_integer_value(json_object_get(disk, "sector_bytes"));

	memset(d, 0, sizeof(*d));
	d->id = (uint16_t)json_integer_value(json_object_get(disk, "id"));
	snprintf(d->name, sizeof(d->name), "%s", text_of(disk, "name"));
	snprintf(d->serial, sizeof(d->serial), "%s", text_of(disk, "serial"));
	d->size_bytes = (uint64_t)json_integer_value(json_object_get(disk, "size_bytes"));
	d->sector_bytes = sector > 0 ? (uint32_t)sector : 512;
	d->boot = json_is_true(json_object_get(disk, "boot"));
}

static int fill_item(struct lb_site *site, const struct lb_reg_machine *m, struct lb_catalog_item *item)
{
	const json_t *disk;
	struct lb_policy policy;
	json_int_t cpus;
	size_t i;
	int r;

	memset(item, 0, sizeof(*item));
	r = lb_uuid_parse(m->id, &item->machine);
	if (r < 0)
		return r;
	if (lb_reg_policy_get(site->db, m->policy, &policy) < 0)
		policy = lb_policy_default;
	cpus = json_integer_value(json_object_get(m->inventory, "cpus"));
	snprintf(item->name, sizeof(item->name), "%s", m->name);
	snprintf(item->firmware, sizeof(item->firmware), "%s",
		 strcmp(text_of(m->inventory, "firmware"), "uefi") == 0 ? "uefi" : "bios");
	snprintf(item->architecture, sizeof(item->architecture), "%s", text_of(m->inventory, "architecture"));
	snprintf(item->hardware, sizeof(item->hardware), "%s", m->hardware);
	snprintf(item->policy, sizeof(item->policy), "%s", m->policy);
	item->consistency_interval_s = policy.consistency_interval_s;
	item->cpus = cpus > 0 ? (uint32_t)LB_MIN(cpus, 4096) : 1;
	item->memory_bytes = (uint64_t)LB_MAX(json_integer_value(json_object_get(m->inventory, "memory_bytes")), 0);
	json_array_foreach(m->disks, i, disk)
	{
		if (!json_is_true(json_object_get(disk, "retired")) && item->n_disks < LB_HRL_DISKS_MAX)
			fill_disk(disk, &item->disks[item->n_disks++]);
	}
	return 0;
}

int lb_machine_publish(struct lb_site *site, const struct lb_reg_machine *m)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	struct lb_catalog_item *item = malloc(sizeof(*item));
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = fill_item(site, m, item);
	if (r == 0)
		r = lb_vault_machine_key(site->vault, &item->machine, true, &key);
	if (r == 0)
		r = lb_catalog_put(site->vault, item);
	free(item);
	return r < 0 ? lb_wrap(r, "machine %s", m->name) : 0;
}
