/* SPDX-License-Identifier: Apache-2.0 */
/* The way home, before anything is started: each finding in words, all of them at once. Writes nothing. */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "target/delta.h"
#include "target/task.h"

#define SAMPLE_BYTES_MAX (32u << 20)
#define SAMPLE_S_MAX 5
#define UNDO_BYTES_MIN (256ull << 20) /* less room than this for a way back is no way back */

struct checking {
	struct lb_target_work *w;
	json_t *findings;
	struct lb_target_to *to;
	uint32_t n_to;
	bool wrong, made; /* something is amiss; some file is yet to be made */
};

static void checking_end(struct checking *c)
{
	json_decref(c->findings);
	free(c->to);
}

static void add(struct checking *c, const char *level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void add(struct checking *c, const char *level, const char *fmt, ...)
{
	char text[LB_ERR_TEXT_BYTES_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->wrong = c->wrong || strcmp(level, "error") == 0;
	json_array_append_new(c->findings, json_pack("{s:s,s:s}", "level", level, "text", text));
}

static const struct lb_catalog_disk *find_disk(const struct lb_catalog_item *item, const char *name)
{
	for (uint32_t i = 0; i < item->n_disks; i++)
		if (strcmp(item->disks[i].name, name) == 0)
			return &item->disks[i];
	return NULL;
}

/* A file that is not there will be made: its folder must be, and have room. Opening would make it. */
static void check_new_file(struct checking *c, const struct lb_target_to *to, const struct lb_catalog_disk *disk)
{
	char copy[LB_TARGET_PATH_BYTES], size[LB_SIZE_TEXT_BYTES], have[LB_SIZE_TEXT_BYTES];
	struct lb_env *env = c->w->task->env;
	uint64_t free_bytes, size_bytes;
	const char *folder;

	snprintf(copy, sizeof(copy), "%s", to->path);
	folder = dirname(copy);
	c->made = true;
	if (strncmp(to->path, "/dev/", 5) == 0)
		add(c, "error", "disk %s: there is no device %s", to->disk, to->path);
	else if (access(folder, W_OK | X_OK) < 0)
		add(c, "error", "disk %s: %s can't be made: folder %s: %s", to->disk, to->path, folder,
		    strerror(errno));
	else if (env->ops->room(env, folder, &free_bytes, &size_bytes) == 0 && free_bytes < disk->size_bytes)
		add(c, "warning", "disk %s: %s will be made, sparse; full it would need %s, and %s is free", to->disk,
		    to->path, lb_size_format(disk->size_bytes, size), lb_size_format(free_bytes, have));
	else
		add(c, "ok", "disk %s: %s will be made, with %s", to->disk, to->path,
		    lb_size_format(disk->size_bytes, size));
}

static void check_one(struct checking *c, const struct lb_target_to *to)
{
	const struct lb_catalog_disk *disk = find_disk(c->w->item, to->disk);
	_cleanup_(lb_target_disk_close) struct lb_target_disk d = {.fd = -1};
	char size[LB_SIZE_TEXT_BYTES];

	if (disk == NULL) {
		add(c, "error", "machine %s has no disk \"%.60s\"", c->w->item->name, to->disk);
		return;
	}
	if (access(to->path, F_OK) < 0) {
		check_new_file(c, to, disk);
		return;
	}
	if (lb_target_disk_open(c->w->task->env, to->path, disk->size_bytes, &d) < 0)
		add(c, "error", "disk %s: %s", to->disk, lb_err_text());
	else
		add(c, "ok", "disk %s: %s is free and large enough (%s%s%s)", to->disk, to->path,
		    lb_size_format(d.size_bytes, size), d.serial[0] != '\0' ? ", serial " : "", d.serial);
}

static int check_disks(struct checking *c)
{
	bool some = json_is_true(json_object_get(c->w->task->order.body, "some"));
	int r;

	r = lb_target_work_to(c->w, &c->to, &c->n_to);
	if (r == -EPERM || r == -ENOENT || r == -EEXIST || r == -EINVAL) {
		add(c, "error", "%s", lb_err_text());
		return 0;
	}
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < c->n_to; i++)
		check_one(c, &c->to[i]);
	for (uint32_t i = 0; i < c->w->item->n_disks; i++) {
		bool named = false;

		for (uint32_t k = 0; k < c->n_to; k++)
			named = named || strcmp(c->to[k].disk, c->w->item->disks[i].name) == 0;
		if (!named)
			add(c, some ? "warning" : "error", "disk %s of %s goes nowhere", c->w->item->disks[i].name,
			    c->w->item->name);
	}
	return 0;
}

static void check_undo_room(struct checking *c)
{
	const struct lb_target_task *t = c->w->task;
	uint64_t undo_bytes = lb_target_work_undo_bytes(c->w), free_bytes, size_bytes;
	char want[LB_SIZE_TEXT_BYTES], have[LB_SIZE_TEXT_BYTES];

	if (undo_bytes == 0) {
		add(c, "ok", "no points of its own are kept: there is a way forward only");
		return;
	}
	if (t->env->ops->room(t->env, t->folder, &free_bytes, &size_bytes) < 0)
		return;
	lb_size_format(undo_bytes, want);
	lb_size_format(free_bytes, have);
	if (undo_bytes > free_bytes && free_bytes < UNDO_BYTES_MIN)
		add(c, "error",
		    "points of its own need up to %s in %s, and %s is free there: make room, or order fewer", want,
		    t->settings->state_folder, have);
	else if (undo_bytes > free_bytes)
		add(c, "warning", "points of its own may need %s in %s, and %s is free there: it may have to stop",
		    want, t->settings->state_folder, have);
	else
		add(c, "ok", "room for points of its own: up to %s of %s free in %s", want, have,
		    t->settings->state_folder);
}

/* Frames as they come, for a while: what the link to the vault bears. */
static int measure(struct checking *c, const struct lb_point *point, uint64_t *ret_bytes_per_s,
		   uint64_t *ret_data_bytes)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	_cleanup_(lb_delta_clear) struct lb_delta delta = {0};
	_cleanup_free_ uint8_t *raw = malloc(LB_HRL_FRAME_BYTES_MAX);
	struct lb_env *env = c->w->task->env;
	struct lb_image_stats before, after;
	int64_t begun_ns, ns;
	size_t raw_bytes;
	int r;

	if (raw == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = lb_image_open(c->w->vault, &c->w->item->machine, &point->position, LB_IMAGE_CACHE_BYTES_DEFAULT, &image);
	r = r < 0 ? r : lb_delta_make(image, c->w->item, NULL, false, &delta);
	if (r < 0)
		return r;
	lb_image_stats(image, &before);
	after = before;
	begun_ns = lb_mono_ns(env);
	for (size_t i = 0; i < delta.n_pieces && after.bytes_read - before.bytes_read < SAMPLE_BYTES_MAX; i++) {
		const struct lb_delta_piece *p = &delta.pieces[i];

		if (i > 0 && p->segment == p[-1].segment && p->frame == p[-1].frame)
			continue;
		r = lb_image_frame(image, p->segment, p->frame, raw, &raw_bytes);
		r = r < 0 ? r : lb_target_task_check(c->w->task);
		if (r < 0)
			return r;
		lb_image_stats(image, &after);
		if (lb_mono_ns(env) - begun_ns > SAMPLE_S_MAX * LB_NS_PER_S)
			break;
	}
	ns = LB_MAX(lb_mono_ns(env) - begun_ns, (int64_t)1);
	*ret_bytes_per_s =
		(uint64_t)((double)(after.bytes_read - before.bytes_read) * (double)LB_NS_PER_S / (double)ns);
	*ret_data_bytes = delta.data_bytes;
	return 0;
}

static int check_vault(struct checking *c, struct lb_point *ret_point)
{
	char rate[LB_SIZE_TEXT_BYTES], data[LB_SIZE_TEXT_BYTES], when[LB_TIME_TEXT_BYTES];
	uint64_t bytes_per_s = 0, data_bytes = 0;
	int r;

	r = lb_target_work_point(c->w, ret_point);
	r = r < 0 ? r : measure(c, ret_point, &bytes_per_s, &data_bytes);
	if (r == -ECANCELED)
		return r;
	if (r < 0) {
		add(c, "error", "vault: %s", lb_err_text());
		return 0;
	}
	lb_target_task_set(c->w->task, "vault_bytes_per_s", json_integer((json_int_t)bytes_per_s));
	lb_target_task_set(c->w->task, "data_bytes", json_integer((json_int_t)data_bytes));
	add(c, "ok", "vault: point of %s with %s of data is there; it is read at %s/s",
	    lb_time_format(ret_point->time_ns, when), lb_size_format(data_bytes, data),
	    lb_size_format(bytes_per_s, rate));
	return 0;
}

/* Is it the right disk? Only where all are there: otherwise they would be made. */
static int check_content(struct checking *c, const struct lb_point *point)
{
	uint64_t data_bytes;
	int r;

	if (c->wrong || c->made)
		return 0;
	r = lb_target_work_disks(c->w);
	r = r < 0 ? r : lb_target_check(c->w->target, point, &data_bytes);
	if (r < 0)
		add(c, "error", "%s", lb_err_text());
	else
		add(c, "ok", "the disks are the machine's own, or blank, or may be written over");
	return 0;
}

static int tell(struct checking *c)
{
	const json_t *one;
	size_t i;

	lb_target_task_set(c->w->task, "findings", json_incref(c->findings));
	json_array_foreach(c->findings, i, one)
	{
		if (strcmp(json_string_value(json_object_get(one, "level")), "error") == 0)
			return lb_fail(-EINVAL, "%s", json_string_value(json_object_get(one, "text")));
	}
	lb_target_task_say(c->w->task, "nothing is in the way");
	return 0;
}

int lb_target_do_check(struct lb_target_work *w)
{
	_cleanup_(checking_end) struct checking c = {.w = w, .findings = json_array()};
	struct lb_point point;
	int r;

	if (c.findings == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	lb_target_task_say(w->task, "looks at the vault and the disks");
	r = lb_target_work_vault(w);
	if (r < 0 && r != -ENOMEM) {
		add(&c, "error", "%s", lb_err_text());
		return tell(&c);
	}
	r = r < 0 ? r : check_disks(&c);
	if (r < 0)
		return r;
	check_undo_room(&c);
	r = check_vault(&c, &point);
	r = r < 0 ? r : check_content(&c, &point);
	return r < 0 ? r : tell(&c);
}
