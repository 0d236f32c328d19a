/* SPDX-License-Identifier: Apache-2.0 */
#include "target/record.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"

#define RECORD_FILE "target.json"
#define RECORD_BYTES_MAX (256u << 10)
#define RECORD_VERSION 1

static json_t *point_json(const struct lb_target_point *p)
{
	return json_pack("{s:I,s:I,s:I}", "epoch", (json_int_t)p->position.epoch, "seq", (json_int_t)p->position.seq,
			 "time_ns", (json_int_t)p->time_ns);
}

static json_t *disks_json(const struct lb_target_record *record)
{
	json_t *disks = json_array();

	for (uint32_t i = 0; i < record->n_disks; i++) {
		const struct lb_target_record_disk *d = &record->disks[i];

		json_array_append_new(disks, json_pack("{s:i,s:s,s:s,s:s}", "id", (int)d->id, "name", d->name, "serial",
						       d->serial, "path", d->path));
	}
	return disks;
}

static json_t *undo_json(const struct lb_target_record *record)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < record->n_undo; i++) {
		json_t *one = point_json(&record->undo[i].point);

		json_object_set_new(one, "number", json_integer((json_int_t)record->undo[i].number));
		json_array_append_new(list, one);
	}
	return list;
}

int lb_target_record_json(const struct lb_target_record *record, json_t **ret_json)
{
	_cleanup_json_ json_t *j = json_pack("{s:i,s:s,s:o,s:o,s:I}", "version", RECORD_VERSION, "machine_name",
					     record->machine_name, "disks", disks_json(record), "undo",
					     undo_json(record), "undo_next", (json_int_t)record->undo_next);
	int r;

	r = j == NULL ? -ENOMEM : lb_json_set_uuid(j, "machine", &record->machine);
	if (r == 0 && record->applied.position.epoch != 0)
		r = json_object_set_new(j, "applied", point_json(&record->applied)) < 0 ? -ENOMEM : 0;
	if (r == 0 && record->goal.position.epoch != 0)
		r = json_object_set_new(j, "goal", point_json(&record->goal)) < 0 ? -ENOMEM : 0;
	if (r < 0)
		return lb_fail(r, "out of memory for the target's record");
	*ret_json = lb_steal_ptr(j);
	return 0;
}

int lb_target_record_write(struct lb_env *env, const char *folder, const struct lb_target_record *record)
{
	_cleanup_json_ json_t *j = NULL;
	_cleanup_free_ char *text = NULL;
	char path[PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/" RECORD_FILE, folder);
	r = lb_target_record_json(record, &j);
	if (r == 0)
		r = lb_json_dump(j, &text);
	return r < 0 ? r : lb_file_write(env, path, text, strlen(text), 0600);
}

static int read_point(const json_t *j, struct lb_target_point *ret_point)
{
	struct lb_target_point p = {0};
	int r;

	if (j == NULL)
		return 0;
	r = lb_json_get_u64(j, "epoch", &p.position.epoch);
	r = r < 0 ? r : lb_json_get_u64(j, "seq", &p.position.seq);
	r = r < 0 ? r : lb_json_get_i64(j, "time_ns", &p.time_ns);
	if (r == 0)
		*ret_point = p;
	return r;
}

static int read_disks(const json_t *list, struct lb_target_record *record)
{
	const json_t *one;
	uint32_t id;
	size_t i;
	int r;

	if (json_array_size(list) > LB_HRL_DISKS_MAX)
		return lb_fail(-EBADMSG, "too many disks");
	json_array_foreach(list, i, one)
	{
		struct lb_target_record_disk *d = &record->disks[i];

		r = lb_json_get_u32(one, "id", UINT16_MAX, &id);
		r = r < 0 ? r : lb_json_get_text(one, "name", d->name, sizeof(d->name));
		r = r < 0 ? r : lb_json_get_text(one, "serial", d->serial, sizeof(d->serial));
		r = r < 0 ? r : lb_json_get_text(one, "path", d->path, sizeof(d->path));
		if (r < 0)
			return r;
		d->id = (uint16_t)id;
		record->n_disks++;
	}
	return 0;
}

static int read_undo(const json_t *list, struct lb_target_record *record)
{
	const json_t *one;
	size_t i;
	int r;

	if (json_array_size(list) > LB_TARGET_UNDO_MAX)
		return lb_fail(-EBADMSG, "too many undo files");
	json_array_foreach(list, i, one)
	{
		r = lb_json_get_u64(one, "number", &record->undo[i].number);
		r = r < 0 ? r : read_point(one, &record->undo[i].point);
		if (r < 0)
			return r;
		record->n_undo++;
	}
	return 0;
}

static int decode(const json_t *j, struct lb_target_record *record)
{
	uint32_t version;
	int r;

	r = lb_json_get_u32(j, "version", RECORD_VERSION, &version);
	r = r < 0 ? r : lb_json_get_uuid(j, "machine", &record->machine);
	r = r < 0 ? r : lb_json_get_text(j, "machine_name", record->machine_name, sizeof(record->machine_name));
	r = r < 0 ? r : read_disks(json_object_get(j, "disks"), record);
	r = r < 0 ? r : read_point(json_object_get(j, "applied"), &record->applied);
	r = r < 0 ? r : read_point(json_object_get(j, "goal"), &record->goal);
	r = r < 0 ? r : read_undo(json_object_get(j, "undo"), record);
	return r < 0 ? r : lb_json_get_u64(j, "undo_next", &record->undo_next);
}

int lb_target_record_read(struct lb_env *env, const char *folder, struct lb_target_record *ret_record)
{
	_cleanup_free_ struct lb_target_record *record = calloc(1, sizeof(*record));
	_cleanup_free_ uint8_t *text = NULL;
	_cleanup_json_ json_t *j = NULL;
	char path[PATH_MAX];
	size_t size_bytes;
	int r;

	if (record == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	snprintf(path, sizeof(path), "%s/" RECORD_FILE, folder);
	r = lb_file_read(env, path, RECORD_BYTES_MAX, &text, &size_bytes);
	if (r < 0)
		return r;
	r = lb_json_parse(text, size_bytes, RECORD_BYTES_MAX, &j);
	r = r < 0 ? r : decode(j, record);
	if (r < 0)
		return lb_wrap(r, "%s", path);
	*ret_record = *record;
	return 0;
}

struct removing {
	struct lb_env *env;
	const char *folder;
};

static int remove_one(void *arg, const char *name, bool is_dir)
{
	const struct removing *rm = arg;
	char path[PATH_MAX];

	if (is_dir || (strcmp(name, RECORD_FILE) != 0 && strncmp(name, "undo-", 5) != 0))
		return 0;
	snprintf(path, sizeof(path), "%s/%s", rm->folder, name);
	return rm->env->ops->unlink(rm->env, path);
}

int lb_target_record_remove(struct lb_env *env, const char *folder)
{
	int r = env->ops->list(env, folder, remove_one, &(struct removing){.env = env, .folder = folder});

	return r < 0 && r != -ENOENT ? lb_fail(r, "can't empty %s: %s", folder, strerror(-r)) : 0;
}
