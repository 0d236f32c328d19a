/* SPDX-License-Identifier: Apache-2.0 */
#include "target/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "target/internal.h"

#define LOCK_FILE "lock"
#define NAMES_BYTES 512

static const struct lb_catalog_disk *find_disk(const struct lb_catalog_item *item, const char *name)
{
	uint64_t id;

	for (uint32_t i = 0; i < item->n_disks; i++)
		if (strcmp(item->disks[i].name, name) == 0)
			return &item->disks[i];
	if (lb_u64_parse(name, UINT16_MAX, &id) == 0)
		for (uint32_t i = 0; i < item->n_disks; i++)
			if (item->disks[i].id == id)
				return &item->disks[i];
	return NULL;
}

static int name_disks(const struct lb_catalog_item *item, const char *what)
{
	char names[NAMES_BYTES] = "";

	for (uint32_t i = 0; i < item->n_disks; i++)
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i > 0 ? ", " : "",
			 item->disks[i].name);
	return lb_fail(-EINVAL, "%s: machine %s has the disks %s", what, item->name, names);
}

/* The disks that are meant, in the catalog's order, and where each goes. */
static int choose_disks(struct lb_target *t, const struct lb_target_request *request)
{
	const struct lb_catalog_item *item = request->item;
	struct lb_target_record *record = &t->record;
	char what[NAMES_BYTES];

	for (uint32_t i = 0; i < request->n_to; i++) {
		snprintf(what, sizeof(what), "there is no disk \"%.60s\"", request->to[i].disk);
		if (find_disk(item, request->to[i].disk) == NULL)
			return name_disks(item, what);
	}
	*t->own_item = *item;
	t->own_item->n_disks = 0;
	for (uint32_t i = 0; i < item->n_disks; i++) {
		const char *path = NULL;

		for (uint32_t k = 0; k < request->n_to; k++) {
			if (find_disk(item, request->to[k].disk) != &item->disks[i])
				continue;
			if (path != NULL)
				return lb_fail(-EINVAL, "disk %s is given two targets", item->disks[i].name);
			path = request->to[k].path;
		}
		if (path == NULL && !request->some) {
			snprintf(what, sizeof(what), "disk %s has no target (--some leaves disks out)",
				 item->disks[i].name);
			return name_disks(item, what);
		}
		if (path == NULL)
			continue;
		t->own_item->disks[t->own_item->n_disks++] = item->disks[i];
		struct lb_target_record_disk *d = &record->disks[record->n_disks++];

		d->id = item->disks[i].id;
		memcpy(d->name, item->disks[i].name, sizeof(d->name));
		if ((size_t)snprintf(d->path, sizeof(d->path), "%s", path) >= sizeof(d->path))
			return lb_fail(-ENAMETOOLONG, "the path %.60s... is too long", path);
	}
	return record->n_disks > 0 ? 0 : name_disks(item, "no target is given");
}

static int take_lock(struct lb_target *t)
{
	char path[PATH_MAX];
	int r;

	r = lb_folder_make(t->env, t->folder, 0700);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/" LOCK_FILE, t->folder);
	t->lock_fd = t->env->ops->open(t->env, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (t->lock_fd < 0)
		return lb_fail(t->lock_fd, "can't open %s: %s", path, strerror(-t->lock_fd));
	r = t->env->ops->lock(t->env, t->lock_fd);
	if (r == -EWOULDBLOCK)
		return lb_fail(-EBUSY, "somebody else works on the target of %s just now (%s)", t->item->name,
			       t->folder);
	return r < 0 ? lb_fail(r, "can't lock %s: %s", path, strerror(-r)) : 0;
}

/* What is recorded must be what is asked for. */
static int take_record(struct lb_target *t)
{
	_cleanup_free_ struct lb_target_record *old = malloc(sizeof(*old));
	bool same;
	int r;

	if (old == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = lb_target_record_read(t->env, t->folder, old);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	same = lb_uuid_equal(&old->machine, &t->record.machine) && old->n_disks == t->record.n_disks;
	for (uint32_t i = 0; same && i < old->n_disks; i++)
		same = old->disks[i].id == t->record.disks[i].id &&
		       strcmp(old->disks[i].path, t->record.disks[i].path) == 0;
	if (!same)
		return lb_fail(
			-EEXIST,
			"%s holds the record of a target with other disks, of %s; give another --state folder, or "
			"remove that one to begin anew",
			t->folder, old->machine_name);
	t->record = *old;
	return 0;
}

static int open_disks(struct lb_target *t)
{
	bool fresh = t->record.applied.position.epoch == 0 && t->record.goal.position.epoch == 0;

	for (uint32_t i = 0; i < t->own_item->n_disks; i++) {
		int r = lb_target_disk_open(t->env, t->record.disks[i].path, t->own_item->disks[i].size_bytes,
					    &t->disks[i]);

		if (r < 0)
			return lb_wrap(r, "disk %s of %s", t->own_item->disks[i].name, t->item->name);
		if (fresh)
			memcpy(t->record.disks[i].serial, t->disks[i].serial, sizeof(t->disks[i].serial));
	}
	return 0;
}

int lb_target_open(struct lb_env *env, const struct lb_target_request *request, struct lb_target **ret_target)
{
	_cleanup_(lb_target_freep) struct lb_target *t = calloc(1, sizeof(*t));
	int r;

	if (t == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	t->env = env;
	t->lock_fd = -1;
	t->vault = request->vault;
	t->item = request->item;
	t->overwrite = request->overwrite;
	t->undo_bytes = request->undo_bytes;
	t->undo_points = LB_MIN(request->undo_points, (uint32_t)LB_TARGET_UNDO_MAX);
	t->record.machine = request->item->machine;
	memcpy(t->record.machine_name, request->item->name, sizeof(t->record.machine_name));
	t->own_item = calloc(1, sizeof(*t->own_item));
	if (t->own_item == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	if ((size_t)snprintf(t->folder, sizeof(t->folder), "%s", request->folder) >= sizeof(t->folder))
		return lb_fail(-ENAMETOOLONG, "the path %.60s... is too long", request->folder);
	r = choose_disks(t, request);
	r = r < 0 ? r : take_lock(t);
	r = r < 0 ? r : take_record(t);
	r = r < 0 ? r : open_disks(t);
	if (r < 0)
		return r;
	*ret_target = lb_steal_ptr(t);
	return 0;
}

void lb_target_free(struct lb_target *t)
{
	for (uint32_t i = 0; t->own_item != NULL && i < t->own_item->n_disks; i++)
		lb_target_disk_close(&t->disks[i]);
	if (t->lock_fd >= 0)
		t->env->ops->close(t->env, t->lock_fd);
	free(t->own_item);
	free(t);
}

int lb_target_release(struct lb_target *t)
{
	return lb_target_record_remove(t->env, t->folder);
}

const struct lb_target_record *lb_target_known(const struct lb_target *t)
{
	return &t->record;
}
