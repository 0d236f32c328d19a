/* SPDX-License-Identifier: Apache-2.0 */
#include "process/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/log.h"

#define RECORD_BYTES_MAX (64u << 10)

uint64_t lb_process_cache_rounded(uint64_t size_bytes)
{
	return (size_bytes + LB_CACHE_BLOCK_BYTES - 1) / LB_CACHE_BLOCK_BYTES * LB_CACHE_BLOCK_BYTES;
}

/* ---- room --------------------------------------------------------------------------------------------- */

void lb_process_cache_share(struct lb_process_cache *c, uint32_t machines)
{
	LB_LOCK_SCOPE(&c->lock);

	c->machines = machines;
}

uint64_t lb_process_cache_bytes(struct lb_process_cache *c)
{
	LB_LOCK_SCOPE(&c->lock);

	return c->bytes;
}

int lb_process_cache_admit(struct lb_process_cache *c, uint64_t machine_bytes, size_t size_bytes)
{
	uint64_t need = lb_process_cache_rounded(size_bytes), soft, share;
	char used[LB_SIZE_TEXT_BYTES], max[LB_SIZE_TEXT_BYTES];
	LB_LOCK_SCOPE(&c->lock);

	soft = c->bytes_max / 100 * LB_CACHE_SOFT_PERCENT;
	share = (c->bytes_max - soft) / LB_MAX(c->machines, 1u);
	if (c->bytes + need > c->bytes_max || (c->bytes + need > soft && machine_bytes + need > share))
		return lb_fail(
			-EAGAIN,
			"the cache in %s holds %s of at most %s: the vault is behind; replication continues by itself "
			"when it has caught up, or raise cache_bytes_max",
			c->folder, lb_size_format(c->bytes, used), lb_size_format(c->bytes_max, max));
	c->bytes += need;
	return 0;
}

void lb_process_cache_give_back(struct lb_process_cache *c, size_t size_bytes)
{
	uint64_t rounded = lb_process_cache_rounded(size_bytes);
	LB_LOCK_SCOPE(&c->lock);

	c->bytes -= LB_MIN(rounded, c->bytes);
}

/* ---- names -------------------------------------------------------------------------------------------- */

static int machine_folder(struct lb_process_cache *c, const struct lb_machine *m, char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/%s", c->folder, m->id_text) >= PATH_MAX)
		return lb_fail(-ENAMETOOLONG, "cache folder name is too long: %.80s...", c->folder);
	return 0;
}

static int file_path(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_process_cache_file *file,
		     char path[PATH_MAX])
{
	int n;

	if (file->record)
		n = snprintf(path, PATH_MAX, "%s/%s/%08" PRIx64 ".epoch", c->folder, m->id_text, file->at.epoch);
	else
		n = snprintf(path, PATH_MAX, "%s/%s/%08" PRIx64 "-%010" PRIx64 ".hrl", c->folder, m->id_text,
			     file->at.epoch, file->at.seq);
	if (n >= PATH_MAX)
		return lb_fail(-ENAMETOOLONG, "cache folder name is too long: %.80s...", c->folder);
	return 0;
}

static bool parse_hex(const char **text, unsigned int digits_min, uint64_t *ret_value)
{
	uint64_t v = 0;
	unsigned int n = 0;

	for (; n < 16; n++, (*text)++) {
		char ch = **text;

		if (ch >= '0' && ch <= '9')
			v = v << 4 | (uint64_t)(ch - '0');
		else if (ch >= 'a' && ch <= 'f')
			v = v << 4 | (uint64_t)(ch - 'a' + 10);
		else
			break;
	}
	*ret_value = v;
	return n >= digits_min;
}

static bool parse_name(const char *name, struct lb_process_cache_file *ret_file)
{
	struct lb_process_cache_file file = {0};

	if (!parse_hex(&name, 8, &file.at.epoch))
		return false;
	if (strcmp(name, ".epoch") == 0) {
		file.record = true;
	} else {
		if (*name++ != '-' || !parse_hex(&name, 10, &file.at.seq) || strcmp(name, ".hrl") != 0)
			return false;
	}
	*ret_file = file;
	return true;
}

/* ---- opening ------------------------------------------------------------------------------------------ */

struct tidy {
	struct lb_process_cache *cache;
	const char *folder;
	uint64_t bytes;
	uint32_t leftovers;
};

static int open_size(struct lb_env *env, const char *path, uint64_t *ret_size_bytes)
{
	int fd, r;

	fd = env->ops->open(env, path, O_RDONLY, 0);
	if (fd < 0)
		return lb_fail(fd, "can't open %s: %s", path, strerror(-fd));
	r = env->ops->size(env, fd, ret_size_bytes);
	env->ops->close(env, fd);
	return r < 0 ? lb_fail(r, "can't tell the size of %s: %s", path, strerror(-r)) : 0;
}

static bool ends_with(const char *text, const char *end)
{
	size_t a = strlen(text), b = strlen(end);

	return a >= b && strcmp(text + a - b, end) == 0;
}

static int tidy_file(void *arg, const char *name, bool is_dir)
{
	struct tidy *t = arg;
	struct lb_env *env = t->cache->env;
	char path[PATH_MAX];
	uint64_t size_bytes;
	int r;

	if (is_dir)
		return 0;
	if (snprintf(path, sizeof(path), "%s/%s", t->folder, name) >= (int)sizeof(path))
		return lb_fail(-ENAMETOOLONG, "name in the cache is too long: %.80s", name);
	if (ends_with(name, ".tmp")) {
		/* written when we were killed, never acknowledged */
		t->leftovers++;
		r = env->ops->unlink(env, path);
		return r < 0 ? lb_fail(r, "can't remove %s: %s", path, strerror(-r)) : 0;
	}
	r = open_size(env, path, &size_bytes);
	if (r < 0)
		return r;
	t->bytes += lb_process_cache_rounded(size_bytes);
	return 0;
}

static int tidy_folder(void *arg, const char *name, bool is_dir)
{
	struct tidy *t = arg, inner = *t;
	struct lb_uuid machine;
	char path[PATH_MAX];
	int r;

	if (!is_dir || lb_uuid_parse(name, &machine) < 0)
		return 0;
	if (snprintf(path, sizeof(path), "%s/%s", t->cache->folder, name) >= (int)sizeof(path))
		return lb_fail(-ENAMETOOLONG, "name in the cache is too long: %.80s", name);
	inner.folder = path;
	r = t->cache->env->ops->list(t->cache->env, path, tidy_file, &inner);
	t->bytes = inner.bytes;
	t->leftovers = inner.leftovers;
	return r;
}

static int lock_folder(struct lb_env *env, const char *folder, int *ret_fd)
{
	char path[PATH_MAX];
	int fd, r;

	if (snprintf(path, sizeof(path), "%s/lock", folder) >= (int)sizeof(path))
		return lb_fail(-ENAMETOOLONG, "cache folder name is too long: %.80s...", folder);
	fd = env->ops->open(env, path, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		return lb_fail(fd, "can't open %s: %s", path, strerror(-fd));
	r = env->ops->lock(env, fd);
	if (r < 0) {
		env->ops->close(env, fd);
		return r == -EWOULDBLOCK
			       ? lb_fail(-EBUSY,
					 "another lifeboat-process works in the cache folder %s; stop it, or give this "
					 "one a cache_folder of its own",
					 folder)
			       : lb_fail(r, "can't lock %s: %s", path, strerror(-r));
	}
	*ret_fd = fd;
	return 0;
}

int lb_process_cache_open(struct lb_env *env, const char *folder, uint64_t bytes_max,
			  struct lb_process_cache *ret_cache)
{
	struct tidy t = {.cache = ret_cache};
	char text[LB_SIZE_TEXT_BYTES];
	int lock_fd, r;

	r = lb_folder_make(env, folder, 0700);
	if (r == 0)
		r = lock_folder(env, folder, &lock_fd);
	if (r != 0)
		return r;
	*ret_cache = (struct lb_process_cache){
		.env = env, .folder = strdup(folder), .lock_fd = lock_fd, .bytes_max = bytes_max};
	lb_err_clear();
	r = ret_cache->folder != NULL ? env->ops->list(env, folder, tidy_folder, &t) : -ENOMEM;
	if (r < 0) {
		free(ret_cache->folder);
		env->ops->close(env, lock_fd);
		return lb_fail(r, "can't read the cache folder %s: %s (%s)", folder, strerror(-r), lb_err_text());
	}
	ret_cache->bytes = t.bytes;
	pthread_mutex_init(&ret_cache->lock, NULL);
	lb_info("the cache in %s holds %s", folder, lb_size_format(t.bytes, text));
	if (t.leftovers > 0)
		lb_notice("removed %u leftovers of writes that were cut short and never acknowledged", t.leftovers);
	return 0;
}

void lb_process_cache_close(struct lb_process_cache *c)
{
	c->env->ops->close(c->env, c->lock_fd);
	free(c->folder);
	pthread_mutex_destroy(&c->lock);
}

/* ---- files -------------------------------------------------------------------------------------------- */

static int put(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_process_cache_file *file,
	       const void *data, size_t size_bytes)
{
	char folder[PATH_MAX], path[PATH_MAX];
	int r;

	r = machine_folder(c, m, folder);
	if (r == 0)
		r = file_path(c, m, file, path);
	if (r < 0)
		return r;
	r = lb_folder_make(c->env, folder, 0700);
	if (r == 0)
		r = lb_file_write(c->env, path, data, size_bytes, 0600);
	if (r == -ENOSPC || r == -EDQUOT)
		return lb_fail(-ENOSPC,
			       "the disk that holds the cache folder %s is full: nothing more is taken; free space "
			       "there or lower "
			       "cache_bytes_max below what the disk has",
			       c->folder);
	return r;
}

static int get(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_process_cache_file *file,
	       size_t size_bytes_max, struct lb_buf *out)
{
	_cleanup_free_ uint8_t *data = NULL;
	char path[PATH_MAX];
	size_t size_bytes;
	int r;

	r = file_path(c, m, file, path);
	if (r < 0)
		return r;
	r = lb_file_read(c->env, path, size_bytes_max, &data, &size_bytes);
	if (r < 0)
		return r;
	return lb_buf_append(out, data, size_bytes);
}

static int drop(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_process_cache_file *file)
{
	char path[PATH_MAX];
	uint64_t size_bytes;
	int r;

	r = file_path(c, m, file, path);
	if (r == 0)
		r = open_size(c->env, path, &size_bytes);
	if (r < 0)
		return r;
	r = c->env->ops->unlink(c->env, path);
	if (r < 0)
		return lb_fail(r, "can't remove %s: %s", path, strerror(-r));
	if (!file->record)
		lb_process_cache_give_back(c, size_bytes);
	return 0;
}

int lb_process_cache_segment_put(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_position *at,
				 const void *data, size_t size_bytes)
{
	return put(c, m, &(struct lb_process_cache_file){.at = *at}, data, size_bytes);
}

int lb_process_cache_segment_get(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_position *at,
				 struct lb_buf *out)
{
	return get(c, m, &(struct lb_process_cache_file){.at = *at}, LB_HRL_SEGMENT_BYTES_MAX, out);
}

int lb_process_cache_segment_size(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_position *at,
				  uint64_t *ret_size_bytes)
{
	char path[PATH_MAX];
	int r;

	r = file_path(c, m, &(struct lb_process_cache_file){.at = *at}, path);
	return r < 0 ? r : open_size(c->env, path, ret_size_bytes);
}

int lb_process_cache_segment_remove(struct lb_process_cache *c, const struct lb_machine *m,
				    const struct lb_position *at)
{
	return drop(c, m, &(struct lb_process_cache_file){.at = *at});
}

int lb_process_cache_record_put(struct lb_process_cache *c, const struct lb_machine *m, uint64_t epoch,
				const void *data, size_t size_bytes)
{
	return put(c, m, &(struct lb_process_cache_file){.at = {.epoch = epoch}, .record = true}, data, size_bytes);
}

int lb_process_cache_record_get(struct lb_process_cache *c, const struct lb_machine *m, uint64_t epoch,
				struct lb_buf *out)
{
	return get(c, m, &(struct lb_process_cache_file){.at = {.epoch = epoch}, .record = true}, RECORD_BYTES_MAX,
		   out);
}

int lb_process_cache_record_remove(struct lb_process_cache *c, const struct lb_machine *m, uint64_t epoch)
{
	return drop(c, m, &(struct lb_process_cache_file){.at = {.epoch = epoch}, .record = true});
}

static int read_head(struct lb_env *env, int fd, const char *path, struct lb_buf *out, uint64_t *ret_size_bytes)
{
	uint8_t header[LB_HRL_HEADER_BYTES];
	uint64_t size_bytes, head_bytes, total_bytes;
	int r;

	r = env->ops->size(env, fd, &size_bytes);
	if (r == 0)
		r = lb_pread_full(env, fd, header, sizeof(header), 0);
	if (r == -ENODATA)
		return lb_fail(-EBADMSG, "%s is cut short", path);
	if (r < 0)
		return lb_fail(r, "can't read %s: %s", path, strerror(-r));
	r = lb_hrl_sealed_sizes(header, &head_bytes, &total_bytes);
	if (r < 0)
		return lb_wrap(r, "%s", path);
	if (total_bytes != size_bytes || head_bytes > total_bytes)
		return lb_fail(-EBADMSG, "%s has %" PRIu64 " bytes where its header says %" PRIu64, path, size_bytes,
			       total_bytes);
	r = lb_buf_reserve(out, head_bytes);
	if (r < 0)
		return r;
	r = lb_pread_full(env, fd, out->data + out->size_bytes, head_bytes, 0);
	if (r < 0)
		return lb_fail(r, "can't read %s: %s", path, strerror(-r));
	out->size_bytes += head_bytes;
	*ret_size_bytes = size_bytes;
	return 0;
}

int lb_process_cache_segment_head(struct lb_process_cache *c, const struct lb_machine *m, const struct lb_position *at,
				  struct lb_buf *out, uint64_t *ret_size_bytes)
{
	char path[PATH_MAX];
	int fd, r;

	r = file_path(c, m, &(struct lb_process_cache_file){.at = *at}, path);
	if (r < 0)
		return r;
	fd = c->env->ops->open(c->env, path, O_RDONLY, 0);
	if (fd < 0)
		return lb_fail(fd, "can't open %s: %s", path, strerror(-fd));
	r = read_head(c->env, fd, path, out, ret_size_bytes);
	c->env->ops->close(c->env, fd);
	return r;
}

/* ---- finding what is there ---------------------------------------------------------------------------- */

struct found {
	struct lb_process_cache_file *files;
	size_t n, room;
};

static int found_add(void *arg, const char *name, bool is_dir)
{
	struct found *f = arg;
	struct lb_process_cache_file file;

	if (is_dir || !parse_name(name, &file))
		return 0;
	if (f->n == f->room) {
		size_t room = f->room > 0 ? 2 * f->room : 64;
		struct lb_process_cache_file *grown;

		if (room > LB_CACHE_FILES_MAX)
			return lb_fail(-E2BIG, "more than %u files", LB_CACHE_FILES_MAX);
		grown = realloc(f->files, room * sizeof(*grown));
		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory");
		f->files = grown;
		f->room = room;
	}
	f->files[f->n++] = file;
	return 0;
}

static int in_order(const void *a, const void *b)
{
	const struct lb_process_cache_file *x = a, *y = b;

	if (x->at.epoch != y->at.epoch)
		return x->at.epoch < y->at.epoch ? -1 : 1;
	if (x->record != y->record)
		return x->record ? -1 : 1;
	return x->at.seq < y->at.seq ? -1 : x->at.seq > y->at.seq;
}

int lb_process_cache_scan(struct lb_process_cache *c, const struct lb_machine *m,
			  struct lb_process_cache_file **ret_files, size_t *ret_n)
{
	struct found f = {0};
	char folder[PATH_MAX];
	int r;

	r = machine_folder(c, m, folder);
	if (r < 0)
		return r;
	lb_err_clear();
	r = c->env->ops->list(c->env, folder, found_add, &f);
	if (r == -ENOENT)
		r = 0;
	if (r < 0) {
		free(f.files);
		return lb_fail(r, "can't read the cache folder %s: %s (%s)", folder, strerror(-r), lb_err_text());
	}
	if (f.n > 0)
		qsort(f.files, f.n, sizeof(f.files[0]), in_order);
	*ret_files = f.files;
	*ret_n = f.n;
	return 0;
}

int lb_process_cache_put_aside(struct lb_process_cache *c, const struct lb_machine *m,
			       const struct lb_process_cache_file *file)
{
	char path[PATH_MAX], aside[PATH_MAX];
	int r;

	r = file_path(c, m, file, path);
	if (r < 0)
		return r;
	if (snprintf(aside, sizeof(aside), "%s.bad", path) >= (int)sizeof(aside))
		return lb_fail(-ENAMETOOLONG, "cache folder name is too long: %.80s...", c->folder);
	r = c->env->ops->rename(c->env, path, aside);
	if (r < 0)
		return lb_fail(r, "can't rename %s: %s", path, strerror(-r));
	return lb_folder_sync(c->env, path);
}
