/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/catalog.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "vault/internal.h"

#define PUT_ATTEMPTS_MAX 16 /* other writers of the same entry */
#define VERSION_MAX 99999999
#define NAME_VERSIONS_MAX 8 /* that are tried for a name, where the newest ones are damaged */

static int disk_parse(const json_t *object, struct lb_catalog_disk *d)
{
	uint32_t id;
	int r;

	if ((r = lb_json_get_u32(object, "id", UINT16_MAX, &id)) < 0 ||
	    (r = lb_json_get_text(object, "name", d->name, sizeof(d->name))) < 0 ||
	    (r = lb_json_get_text(object, "serial", d->serial, sizeof(d->serial))) < 0 ||
	    (r = lb_json_get_u64(object, "size_bytes", &d->size_bytes)) < 0 ||
	    (r = lb_json_get_u32(object, "sector_bytes", 65536, &d->sector_bytes)) < 0 ||
	    (r = lb_json_get_bool(object, "boot", &d->boot)) < 0)
		return r;
	d->id = (uint16_t)id;
	return 0;
}

static int item_parse(const void *text, size_t size_bytes, struct lb_catalog_item *item)
{
	_cleanup_json_ json_t *object = NULL;
	const json_t *disks;
	int r;

	r = lb_json_parse(text, size_bytes, LB_CATALOG_BYTES_MAX, &object);
	if (r < 0)
		return r;
	if ((r = lb_json_get_uuid(object, "machine", &item->machine)) < 0 ||
	    (r = lb_json_get_text(object, "name", item->name, sizeof(item->name))) < 0 ||
	    (r = lb_json_get_text(object, "firmware", item->firmware, sizeof(item->firmware))) < 0 ||
	    (r = lb_json_get_text(object, "architecture", item->architecture, sizeof(item->architecture))) < 0 ||
	    (r = lb_json_get_text(object, "hardware", item->hardware, sizeof(item->hardware))) < 0 ||
	    (r = lb_json_get_u32(object, "cpus", UINT32_MAX, &item->cpus)) < 0 ||
	    (r = lb_json_get_u64(object, "memory_bytes", &item->memory_bytes)) < 0 ||
	    (r = lb_json_get_text(object, "policy", item->policy, sizeof(item->policy))) < 0 ||
	    (r = lb_json_get_u64(object, "consistency_interval_s", &item->consistency_interval_s)) < 0)
		return r;
	disks = json_object_get(object, "disks");
	if (!json_is_array(disks) || json_array_size(disks) > LB_HRL_DISKS_MAX)
		return lb_fail(-EBADMSG, "\"disks\" is not a list of at most %d", LB_HRL_DISKS_MAX);
	item->n_disks = (uint32_t)json_array_size(disks);
	for (uint32_t i = 0; i < item->n_disks; i++) {
		r = disk_parse(json_array_get(disks, i), &item->disks[i]);
		if (r < 0)
			return lb_wrap(r, "disk %u", i);
	}
	return 0;
}

static int disk_print(const struct lb_catalog_disk *d, json_t *list)
{
	json_t *object = json_object();
	int r;

	if (object == NULL || json_array_append_new(list, object) < 0)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	if ((r = lb_json_set_u64(object, "id", d->id)) < 0 || (r = lb_json_set_str(object, "name", d->name)) < 0 ||
	    (r = lb_json_set_str(object, "serial", d->serial)) < 0 ||
	    (r = lb_json_set_u64(object, "size_bytes", d->size_bytes)) < 0 ||
	    (r = lb_json_set_u64(object, "sector_bytes", d->sector_bytes)) < 0)
		return r;
	return lb_json_set_bool(object, "boot", d->boot);
}

static int item_print(const struct lb_catalog_item *item, char **ret_text)
{
	_cleanup_json_ json_t *object = json_object();
	json_t *disks = json_array();
	int r;

	if (object == NULL || json_object_set_new(object, "disks", disks) < 0)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	if ((r = lb_json_set_uuid(object, "machine", &item->machine)) < 0 ||
	    (r = lb_json_set_str(object, "name", item->name)) < 0 ||
	    (r = lb_json_set_str(object, "firmware", item->firmware)) < 0 ||
	    (r = lb_json_set_str(object, "architecture", item->architecture)) < 0 ||
	    (r = lb_json_set_str(object, "hardware", item->hardware)) < 0 ||
	    (r = lb_json_set_u64(object, "cpus", item->cpus)) < 0 ||
	    (r = lb_json_set_u64(object, "memory_bytes", item->memory_bytes)) < 0 ||
	    (r = lb_json_set_str(object, "policy", item->policy)) < 0 ||
	    (r = lb_json_set_u64(object, "consistency_interval_s", item->consistency_interval_s)) < 0)
		return r;
	for (uint32_t i = 0; i < item->n_disks; i++) {
		r = disk_print(&item->disks[i], disks);
		if (r < 0)
			return r;
	}
	return lb_json_dump(object, ret_text);
}

struct newest {
	uint64_t version; /* 0: none */
};

static int note_version(void *arg, const char *name, uint64_t size_bytes)
{
	struct newest *n = arg;
	uint64_t version;

	(void)size_bytes;
	if (lb_u64_parse(strrchr(name, '/') + 1, VERSION_MAX, &version) == 0 && version > n->version)
		n->version = version;
	return 0;
}

int lb_catalog_version(struct lb_vault *v, const struct lb_uuid *machine, uint64_t *ret_version)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	struct newest n = {0};
	int r;

	r = lb_vault_name(prefix, machine, "item/");
	if (r < 0)
		return r;
	r = lb_store_list(v->store, prefix, note_version, &n);
	if (r < 0)
		return r;
	*ret_version = n.version;
	return 0;
}

static int version_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, uint64_t version)
{
	return lb_vault_name(name, machine, "item/%08llu", (unsigned long long)version);
}

/* The text of the newest version; version 0 and no text when there is none. */
static int newest_text(struct lb_vault *v, const struct lb_uuid *machine, struct lb_buf *text, uint64_t *ret_version)
{
	char name[LB_OBJECT_NAME_BYTES];
	uint64_t version;
	int r;

	r = lb_catalog_version(v, machine, &version);
	if (r < 0)
		return r;
	if (version > 0) {
		r = version_name(name, machine, version);
		if (r == 0)
			r = lb_small_get(v, machine, name, text);
		if (r < 0)
			return r;
	}
	*ret_version = version;
	return 0;
}

int lb_catalog_put(struct lb_vault *v, const struct lb_catalog_item *item)
{
	_cleanup_free_ char *text = NULL;
	char name[LB_OBJECT_NAME_BYTES];
	uint64_t version;
	int r;

	if (item->n_disks > LB_HRL_DISKS_MAX)
		return lb_fail(-EINVAL, "a machine has at most %d disks", LB_HRL_DISKS_MAX);
	r = lb_name_check("machine name", item->name);
	if (r < 0)
		return r;
	r = item_print(item, &text);
	if (r < 0)
		return r;
	for (int i = 0; i < PUT_ATTEMPTS_MAX; i++) {
		_cleanup_buf_ struct lb_buf there = LB_BUF(LB_CATALOG_BYTES_MAX);

		r = newest_text(v, &item->machine, &there, &version);
		if (r < 0)
			return r;
		if (version > 0 && there.size_bytes == strlen(text) && memcmp(there.data, text, there.size_bytes) == 0)
			return 0;
		r = version_name(name, &item->machine, version + 1);
		if (r < 0)
			return r;
		r = lb_small_put_new(v, &item->machine, name, text, strlen(text));
		if (r != -EEXIST)
			return r;
	}
	return lb_fail(-EBUSY, "the catalog entry of machine %s is being changed by others; try again", item->name);
}

int lb_catalog_get(struct lb_vault *v, const struct lb_uuid *machine, struct lb_catalog_item *ret_item)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_CATALOG_BYTES_MAX);
	struct lb_catalog_item item = {0};
	char uuid[LB_UUID_TEXT_BYTES];
	uint64_t version;
	int r;

	r = newest_text(v, machine, &text, &version);
	if (r < 0)
		return r;
	lb_uuid_format(machine, uuid);
	if (version == 0)
		return lb_fail(-ENOENT, "%s has no catalog entry of machine %s", v->store->url, uuid);
	r = item_parse(text.data, text.size_bytes, &item);
	if (r < 0)
		return lb_wrap(r, "%s: catalog entry %llu of machine %s", v->store->url, (unsigned long long)version,
			       uuid);
	if (!lb_uuid_equal(&item.machine, machine))
		return lb_fail(-EBADMSG, "%s: catalog entry %llu of machine %s names another machine", v->store->url,
			       (unsigned long long)version, uuid);
	*ret_item = item;
	return 0;
}

static int name_of_version(struct lb_vault *v, const struct lb_uuid *machine, uint64_t version,
			   struct lb_catalog_item *item)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_CATALOG_BYTES_MAX);
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	r = version_name(object, machine, version);
	r = r < 0 ? r : lb_small_get(v, machine, object, &text);
	r = r < 0 ? r : item_parse(text.data, text.size_bytes, item);
	r = r < 0 ? r : lb_name_check("machine name", item->name);
	if (r == 0 && !lb_uuid_equal(&item->machine, machine))
		r = lb_fail(-EBADMSG, "it names another machine");
	return r;
}

void lb_catalog_name(struct lb_vault *v, const struct lb_uuid *machine, char ret_name[LB_MACHINE_NAME_BYTES])
{
	_cleanup_free_ struct lb_catalog_item *item = calloc(1, sizeof(*item));
	char before[LB_ERR_TEXT_BYTES_MAX];
	uint64_t version = 0;

	ret_name[0] = '\0';
	snprintf(before, sizeof(before), "%s", lb_err_text());
	if (item != NULL && lb_catalog_version(v, machine, &version) == 0)
		for (int i = 0; i < NAME_VERSIONS_MAX && version > 0 && ret_name[0] == '\0'; i++, version--)
			if (name_of_version(v, machine, version, item) == 0)
				snprintf(ret_name, LB_MACHINE_NAME_BYTES, "%s", item->name);
	lb_fail_text(-EIO, "%s", before);
}

const char *lb_machine_label(const struct lb_uuid *machine, const char *name, char label[LB_MACHINE_LABEL_BYTES])
{
	char uuid[LB_UUID_TEXT_BYTES];

	lb_uuid_format(machine, uuid);
	if (name[0] != '\0')
		snprintf(label, LB_MACHINE_LABEL_BYTES, "%s (%s)", name, uuid);
	else
		snprintf(label, LB_MACHINE_LABEL_BYTES, "%s", uuid);
	return label;
}

const char *lb_catalog_label(struct lb_vault *v, const struct lb_uuid *machine, char label[LB_MACHINE_LABEL_BYTES])
{
	char name[LB_MACHINE_NAME_BYTES];

	lb_catalog_name(v, machine, name);
	return lb_machine_label(machine, name, label);
}
