/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/export.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "fabric/export_qcow2.h"

#define PIECE_BYTES_MAX (1u << 20) /* read and written at once by a thread */
#define PROGRESS_MS 100

/* What the threads of one export share. */
struct raw_export {
	struct lb_env *env;
	struct lb_image *image;
	uint16_t disk;
	uint64_t size_bytes;
	int fd;
	atomic_uint_least64_t next_chunk; /* to be taken */
	atomic_uint_least64_t done_bytes;
	atomic_uint threads; /* that still work */
	pthread_mutex_t mutex;
	int error; /* the first one, with its text, under `mutex` */
	char text[LB_ERR_TEXT_BYTES_MAX];
};

struct worker {
	struct raw_export *x;
	uint8_t *piece;
};

static int count_extent(void *arg, const struct lb_image_extent *extent)
{
	uint64_t *data_bytes = arg;

	*data_bytes += extent->zero ? 0 : extent->length_bytes;
	return 0;
}

static int copy_extent(void *arg, const struct lb_image_extent *extent)
{
	struct worker *w = arg;
	struct raw_export *x = w->x;
	uint64_t at = extent->offset_bytes, end = at + extent->length_bytes;
	int r = 0;

	while (!extent->zero && r == 0 && at < end) {
		size_t n = LB_MIN(end - at, (uint64_t)PIECE_BYTES_MAX);

		r = lb_image_pread(x->image, x->disk, w->piece, n, at);
		if (r < 0)
			return r;
		r = lb_pwrite_full(x->env, x->fd, w->piece, n, at);
		if (r < 0)
			return lb_fail(r, "can't write the image: %s", strerror(-r));
		at += n;
		atomic_fetch_add(&x->done_bytes, n);
	}
	return r;
}

static void note_error(struct raw_export *x, int error)
{
	LB_LOCK_SCOPE(&x->mutex);

	if (x->error == 0) {
		x->error = error;
		snprintf(x->text, sizeof(x->text), "%s", lb_err_text());
	}
	/* nobody takes another chunk */
	atomic_store(&x->next_chunk, UINT64_MAX / LB_EXPORT_CHUNK_BYTES);
}

static void *work(void *arg)
{
	struct raw_export *x = arg;
	struct worker w = {.x = x, .piece = malloc(PIECE_BYTES_MAX)};
	int r = w.piece == NULL ? lb_fail(-ENOMEM, "out of memory") : 0;

	while (r == 0) {
		uint64_t at = atomic_fetch_add(&x->next_chunk, 1) * LB_EXPORT_CHUNK_BYTES;

		if (at >= x->size_bytes)
			break;
		r = lb_image_extents(x->image, x->disk, at, LB_MIN(x->size_bytes - at, (uint64_t)LB_EXPORT_CHUNK_BYTES),
				     copy_extent, &w);
	}
	if (r < 0)
		note_error(x, r);
	free(w.piece);
	atomic_fetch_sub(&x->threads, 1);
	return NULL;
}

static int copy_all(struct raw_export *x, uint64_t total_bytes, lb_export_progress_fn progress, void *arg)
{
	pthread_t threads[LB_EXPORT_THREADS];
	unsigned int n = 0;

	atomic_store(&x->threads, LB_EXPORT_THREADS);
	for (; n < LB_EXPORT_THREADS; n++)
		if (pthread_create(&threads[n], NULL, work, x) != 0)
			break;
	atomic_fetch_sub(&x->threads, LB_EXPORT_THREADS - n);
	if (n == 0)
		return lb_fail(-EAGAIN, "no thread can be made");
	while (atomic_load(&x->threads) > 0) {
		if (progress != NULL)
			progress(arg, atomic_load(&x->done_bytes), total_bytes);
		x->env->ops->wait_until(x->env, lb_mono_ns(x->env) + PROGRESS_MS * LB_NS_PER_MS, -1);
	}
	for (unsigned int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	if (x->error != 0)
		return lb_fail(x->error, "%s", x->text);
	if (progress != NULL)
		progress(arg, total_bytes, total_bytes);
	return 0;
}

static int check_room(struct lb_env *env, const char *path, uint64_t data_bytes)
{
	char needed[LB_SIZE_TEXT_BYTES], there[LB_SIZE_TEXT_BYTES], folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	uint64_t free_bytes, size_bytes;
	int r;

	snprintf(folder, sizeof(folder), "%.*s", slash == NULL ? 1 : (int)LB_MAX(slash - path, 1),
		 slash == NULL ? "." : path);
	r = env->ops->room(env, folder, &free_bytes, &size_bytes);
	if (r < 0)
		return lb_fail(r, "can't look at %s: %s", folder, strerror(-r));
	if (free_bytes >= data_bytes)
		return 0;
	return lb_fail(-ENOSPC, "%s has %s free and the image holds %s of data", folder,
		       lb_size_format(free_bytes, there), lb_size_format(data_bytes, needed));
}

static int write_raw(struct raw_export *x, const char *temporary, uint64_t data_bytes, lb_export_progress_fn progress,
		     void *arg)
{
	int r;

	x->fd = x->env->ops->open(x->env, temporary, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (x->fd < 0)
		return lb_fail(x->fd, "can't make %s: %s", temporary, strerror(-x->fd));
	r = x->env->ops->ftruncate(x->env, x->fd, x->size_bytes);
	if (r < 0)
		r = lb_fail(r, "can't make %s %llu bytes large: %s", temporary, (unsigned long long)x->size_bytes,
			    strerror(-r));
	else
		r = copy_all(x, data_bytes, progress, arg);
	if (r == 0) {
		r = x->env->ops->fsync(x->env, x->fd);
		if (r < 0)
			lb_fail(r, "can't make %s durable: %s", temporary, strerror(-r));
	}
	x->env->ops->close(x->env, x->fd);
	return r;
}

/* The name appears only now, and never over a file that came meanwhile. */
static int put_in_place(struct lb_env *env, const char *temporary, const char *path)
{
	int r = env->ops->link(env, temporary, path);

	/* a file system without links */
	if ((r == -EPERM || r == -EOPNOTSUPP) && access(path, F_OK) < 0)
		r = env->ops->rename(env, temporary, path);
	else if (r == 0)
		env->ops->unlink(env, temporary);
	if (r < 0)
		return lb_fail(r, "can't put %s in place: %s", path, strerror(-r));
	return lb_folder_sync(env, path);
}

static int temporary_name(struct lb_env *env, const char *path, char **ret_name)
{
	uint8_t nonce[8];
	char hex[17];
	int r;

	r = env->ops->random(env, nonce, sizeof(nonce));
	if (r < 0)
		return lb_fail(r, "no random bytes: %s", strerror(-r));
	lb_hex_encode(nonce, sizeof(nonce), hex);
	return asprintf(ret_name, "%s.%s.tmp", path, hex) < 0 ? lb_fail(-ENOMEM, "out of memory") : 0;
}

static const struct lb_catalog_disk *find_disk(const struct lb_catalog_item *item, uint16_t id)
{
	for (uint32_t i = 0; i < item->n_disks; i++)
		if (item->disks[i].id == id)
			return &item->disks[i];
	return NULL;
}

static int export_to(struct lb_env *env, struct lb_vault *v, const struct lb_catalog_item *item,
		     const struct lb_position *position, const struct lb_catalog_disk *disk, const char *path,
		     const char *temporary, enum lb_export_format format, lb_export_progress_fn progress, void *arg)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	uint64_t data_bytes = 0;
	int r;

	r = lb_image_open(v, &item->machine, position, LB_IMAGE_CACHE_BYTES_DEFAULT, &image);
	r = r < 0 ? r : lb_image_extents(image, disk->id, 0, disk->size_bytes, count_extent, &data_bytes);
	r = r < 0 ? r : check_room(env, path, data_bytes);
	if (r < 0)
		return r;
	if (format == LB_EXPORT_RAW) {
		struct raw_export x = {.env = env,
				       .image = image,
				       .disk = disk->id,
				       .size_bytes = disk->size_bytes,
				       .mutex = PTHREAD_MUTEX_INITIALIZER};

		return write_raw(&x, temporary, data_bytes, progress, arg);
	}
	return lb_export_qcow2(env, v, item, position, disk, temporary, data_bytes, progress, arg);
}

int lb_point_export(struct lb_vault *v, const struct lb_catalog_item *item, const struct lb_position *position,
		    uint16_t disk, const char *path, enum lb_export_format format, lb_export_progress_fn progress,
		    void *arg)
{
	struct lb_env *env = lb_vault_store(v)->env;
	const struct lb_catalog_disk *found = find_disk(item, disk);
	_cleanup_free_ char *temporary = NULL;
	int r;

	if (found == NULL)
		return lb_fail(-ENOENT, "machine %s has no disk %u", item->name, disk);
	if (access(path, F_OK) == 0)
		return lb_fail(-EEXIST, "%s is there already; remove it or choose another name", path);
	r = temporary_name(env, path, &temporary);
	if (r < 0)
		return r;
	r = export_to(env, v, item, position, found, path, temporary, format, progress, arg);
	r = r < 0 ? r : put_in_place(env, temporary, path);
	if (r < 0) {
		env->ops->unlink(env, temporary);
		return lb_wrap(r, "disk %s of machine %s is not exported to %s", found->name, item->name, path);
	}
	return 0;
}
