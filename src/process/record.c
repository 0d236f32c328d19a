/* SPDX-License-Identifier: Apache-2.0 */
#include "process/record.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"

static int disk_parse(const json_t *object, struct lb_process_disk *ret_disk)
{
	struct lb_process_disk disk = {0};
	uint64_t id;
	int r;

	r = lb_json_get_u64(object, "id", &id);
	if (r == 0 && id > UINT16_MAX)
		r = lb_fail(-EBADMSG, "disk id %" PRIu64 " is above %u", id, UINT16_MAX);
	if (r == 0)
		r = lb_json_get_text(object, "name", disk.name, sizeof(disk.name));
	if (r == 0)
		r = lb_json_get_u64(object, "size_bytes", &disk.size_bytes);
	if (r < 0)
		return r;
	if (disk.size_bytes % LB_HRL_SECTOR_BYTES != 0)
		return lb_fail(-EBADMSG, "disk %s has %" PRIu64 " bytes, which are no whole sectors", disk.name,
			       disk.size_bytes);
	disk.id = (uint16_t)id;
	*ret_disk = disk;
	return 0;
}

int lb_disks_parse(const json_t *array, struct lb_process_disks *ret_disks)
{
	struct lb_process_disks disks = {0};
	int r;

	if (!json_is_array(array) || json_array_size(array) > LB_HRL_DISKS_MAX)
		return lb_fail(-EBADMSG, "\"disks\" is no list of at most %d", LB_HRL_DISKS_MAX);
	for (size_t i = 0; i < json_array_size(array); i++) {
		/* kept for its number only: it is no longer protected */
		if (json_is_true(json_object_get(json_array_get(array, i), "retired")))
			continue;
		r = disk_parse(json_array_get(array, i), &disks.disk[disks.n]);
		if (r < 0)
			return lb_wrap(r, "disk %zu of the list", i + 1);
		if (lb_disks_find(&disks, disks.disk[disks.n].id) != NULL)
			return lb_fail(-EBADMSG, "disk id %u is in the list twice", disks.disk[disks.n].id);
		disks.n++;
	}
	*ret_disks = disks;
	return 0;
}

const struct lb_process_disk *lb_disks_find(const struct lb_process_disks *disks, uint16_t id)
{
	for (uint32_t i = 0; i < disks->n; i++)
		if (disks->disk[i].id == id)
			return &disks->disk[i];
	return NULL;
}

static int disks_print(const struct lb_process_disks *disks, json_t *record)
{
	json_t *array = json_array();
	int r = 0;

	if (array == NULL || json_object_set_new(record, "disks", array) < 0)
		return lb_fail(-ENOMEM, "out of memory for disks");
	for (uint32_t i = 0; i < disks->n && r == 0; i++) {
		json_t *disk = json_object();

		if (disk == NULL || json_array_append_new(array, disk) < 0)
			return lb_fail(-ENOMEM, "out of memory for disks");
		r = lb_json_set_u64(disk, "id", disks->disk[i].id);
		if (r == 0)
			r = lb_json_set_str(disk, "name", disks->disk[i].name);
		if (r == 0)
			r = lb_json_set_u64(disk, "size_bytes", disks->disk[i].size_bytes);
	}
	return r;
}

static int record_print(const struct lb_epoch_record *record, json_t **ret_object)
{
	_cleanup_json_ json_t *j = json_object();
	int r;

	r = lb_json_set_u64(j, "epoch", record->epoch);
	if (r == 0)
		r = lb_json_set_uuid(j, "instance", &record->instance);
	if (r == 0)
		r = lb_json_set_str(j, "hardware", record->hardware);
	if (r == 0)
		r = lb_json_set_str(j, "reason", record->reason);
	if (r == 0)
		r = lb_json_set_u64(j, "prev_epoch", record->prev.epoch);
	if (r == 0)
		r = lb_json_set_u64(j, "prev_seq", record->prev.seq);
	if (r == 0)
		r = lb_json_set_digest(j, "prev_digest", &record->prev_digest);
	if (r == 0)
		r = lb_json_set_u64(j, "ring_cut", record->ring_cut);
	if (r == 0)
		r = lb_json_set_i64(j, "begun_ns", record->begun_ns);
	if (r == 0)
		r = disks_print(&record->disks, j);
	if (r < 0)
		return r;
	*ret_object = lb_steal_ptr(j);
	return 0;
}

static int record_parse(const json_t *j, struct lb_epoch_record *ret_record)
{
	struct lb_epoch_record record = {0};
	int r;

	r = lb_json_get_u64(j, "epoch", &record.epoch);
	if (r == 0)
		r = lb_json_get_uuid(j, "instance", &record.instance);
	if (r == 0)
		r = lb_json_get_text(j, "hardware", record.hardware, sizeof(record.hardware));
	if (r == 0)
		r = lb_json_get_text(j, "reason", record.reason, sizeof(record.reason));
	if (r == 0)
		r = lb_json_get_u64(j, "prev_epoch", &record.prev.epoch);
	if (r == 0)
		r = lb_json_get_u64(j, "prev_seq", &record.prev.seq);
	if (r == 0)
		r = lb_json_get_digest(j, "prev_digest", &record.prev_digest);
	if (r == 0)
		r = lb_json_get_u64(j, "ring_cut", &record.ring_cut);
	if (r == 0)
		r = lb_json_get_i64(j, "begun_ns", &record.begun_ns);
	if (r == 0)
		r = lb_disks_parse(json_object_get(j, "disks"), &record.disks);
	if (r < 0)
		return r;
	*ret_record = record;
	return 0;
}

static void record_name(uint64_t epoch, char name[32])
{
	snprintf(name, 32, "epoch/%08" PRIx64, epoch);
}

int lb_record_put(struct lb_process_cache *c, struct lb_vault *v, const struct lb_machine *m,
		  const struct lb_epoch_record *record)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(2 * LB_RECORD_BYTES_MAX);
	_cleanup_json_ json_t *j = NULL;
	_cleanup_free_ char *text = NULL;
	char name[32];
	int r;

	r = record_print(record, &j);
	if (r == 0)
		r = lb_json_dump(j, &text);
	if (r < 0)
		return r;
	record_name(record->epoch, name);
	r = lb_vault_seal_small(v, &m->id, name, text, strlen(text), &sealed);
	if (r < 0)
		return r;
	return lb_process_cache_record_put(c, m, record->epoch, sealed.data, sealed.size_bytes);
}

int lb_record_get(struct lb_process_cache *c, struct lb_vault *v, const struct lb_machine *m, uint64_t epoch,
		  struct lb_epoch_record *ret_record)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(2 * LB_RECORD_BYTES_MAX), text = LB_BUF(LB_RECORD_BYTES_MAX);
	_cleanup_json_ json_t *j = NULL;
	struct lb_epoch_record record;
	char name[32];
	int r;

	r = lb_process_cache_record_get(c, m, epoch, &sealed);
	if (r < 0)
		return r;
	record_name(epoch, name);
	r = lb_vault_open_small(v, &m->id, name, sealed.data, sealed.size_bytes, &text);
	if (r == 0)
		r = lb_json_parse(text.data, text.size_bytes, LB_RECORD_BYTES_MAX, &j);
	if (r == 0)
		r = record_parse(j, &record);
	if (r == 0 && record.epoch != epoch)
		r = lb_fail(-EBADMSG, "it speaks of epoch %" PRIu64, record.epoch);
	if (r < 0)
		return lb_wrap(r, "machine %s, record of epoch %" PRIu64 " in the cache", m->id_text, epoch);
	*ret_record = record;
	return 0;
}
