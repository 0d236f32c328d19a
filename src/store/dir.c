/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory store. A put is a temporary file in `.tmp`, synced, linked to its name (of two that race exactly
 * one succeeds) and unlinked; then the folder is synced. Conditional replacement and removal hold the lock of `.lock`.
 * A crash leaves at most a file in `.tmp`, which no listing shows and which a later writer clears when it is a day old.
 */
#include "store/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/io.h"
#include "base/text.h"

#define PUT_ATTEMPTS_MAX 4
#define LOCK_WAIT_NS (30 * LB_NS_PER_S)
#define LOCK_POLL_NS (5 * LB_NS_PER_MS)
#define TEMPORARY_AGE_NS_MAX (24 * 3600 * LB_NS_PER_S)
#define FOLDER_MODE 0700
#define FILE_MODE 0600

struct open_file {
	struct lb_env *env;
	int fd;
};

static void open_file_close(struct open_file *f)
{
	if (f->fd >= 0)
		f->env->ops->close(f->env, f->fd);
}

#define _cleanup_file_ _cleanup_(open_file_close)

int lb_dir_fail(struct lb_dir_store *d, int code, const char *doing, const char *name)
{
	const char *url = d->store.url;

	int r;

	switch (code) {
	case -ENOENT:
		r = lb_dir_check_mounted(d);
		if (r < 0)
			return r;
		return lb_fail(-ENOENT, "%s: there is no object %s", url, name);
	case -EEXIST:
		return lb_fail(-EEXIST, "%s: object %s is there already", url, name);
	case -ENOSPC:
	case -EDQUOT:
		return lb_fail(-ENOSPC, "%s: no room to %s object %s; free space in that file system or enlarge it",
			       url, doing, name);
	case -EACCES:
	case -EPERM:
	case -EROFS:
		return lb_fail(-EACCES,
			       "%s: can't %s object %s: %s; give this user read and write access to the folder", url,
			       doing, name, strerror(-code));
	case -ENOMEM:
		return lb_fail(-ENOMEM, "%s: out of memory for object %s", url, name);
	default:
		return lb_fail(-EIO, "%s: can't %s object %s: %s", url, doing, name, strerror(-code));
	}
}

static void note_witness(struct lb_dir_store *d, const char *name)
{
	if (strchr(name, '/') != NULL)
		return;
	LB_LOCK_SCOPE(&d->lock);
	if (d->witness == NULL)
		d->witness = strdup(name);
}

static void forget_witness(struct lb_dir_store *d, const char *name)
{
	LB_LOCK_SCOPE(&d->lock);

	if (d->witness == NULL || strcmp(d->witness, name) != 0)
		return;
	free(d->witness);
	d->witness = NULL;
}

/* Under a mount point that lost its file system we would write into the disk below it, for nobody to find. */
int lb_dir_check_mounted(struct lb_dir_store *d)
{
	char path[PATH_MAX];
	uint64_t size_bytes;
	int r = -ENOENT;

	{
		LB_LOCK_SCOPE(&d->lock);
		if (d->witness != NULL)
			r = lb_dir_path(d, d->witness, path);
	}
	if (r < 0)
		return 0;
	r = lb_dir_size(d, path, &size_bytes);
	if (r != -ENOENT)
		return 0;
	return lb_fail(-EIO,
		       "%s: %s is gone, which was there before: is its file system mounted? Mount it again; nothing is "
		       "written "
		       "until then",
		       d->store.url, path);
}

int lb_dir_path(struct lb_dir_store *d, const char *name, char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/%s", d->root, name) >= PATH_MAX)
		return lb_fail(-EINVAL, "%s: path of object %s is too long", d->store.url, name);
	return 0;
}

int lb_dir_size(struct lb_dir_store *d, const char *path, uint64_t *ret_size_bytes)
{
	_cleanup_file_ struct open_file f = {.env = d->store.env, .fd = -1};

	f.fd = f.env->ops->open(f.env, path, O_RDONLY, 0);
	return f.fd < 0 ? f.fd : f.env->ops->size(f.env, f.fd, ret_size_bytes);
}

static int sync_folder(struct lb_env *env, const char *folder)
{
	_cleanup_file_ struct open_file f = {.env = env, .fd = -1};

	f.fd = env->ops->open(env, folder, O_RDONLY | O_DIRECTORY, 0);
	return f.fd < 0 ? f.fd : env->ops->fsync(env, f.fd);
}

static size_t folder_slot(const char *folder)
{
	uint32_t hash = 2166136261u;

	for (; *folder != '\0'; folder++)
		hash = (hash ^ (uint8_t)*folder) * 16777619u;
	return hash % LB_DIR_FOLDERS_KNOWN;
}

static bool is_folder_known(struct lb_dir_store *d, const char *folder)
{
	const char *known;

	LB_LOCK_SCOPE(&d->lock);
	known = d->folders_known[folder_slot(folder)];
	return known != NULL && strcmp(known, folder) == 0;
}

/* NULL in place of the name forgets it. Out of memory only means that it is made sure of again. */
static void folder_note(struct lb_dir_store *d, const char *folder, bool known)
{
	char **slot = &d->folders_known[folder_slot(folder)];

	LB_LOCK_SCOPE(&d->lock);
	free(*slot);
	*slot = known ? strdup(folder) : NULL;
}

static void folder_of(const char *path, char folder[PATH_MAX])
{
	snprintf(folder, PATH_MAX, "%.*s", (int)(strrchr(path, '/') - path), path);
}

/*
 * Makes the folders above `path` and syncs each one's parent, even of those that are there: whoever made them may not
 * have come to that yet.
 */
static int make_folders(struct lb_dir_store *d, const char *path)
{
	struct lb_env *env = d->store.env;
	char folder[PATH_MAX], part[PATH_MAX];
	size_t done = strlen(d->root);
	int r = 0;

	folder_of(path, folder);
	if (is_folder_known(d, folder))
		return 0;
	while (r == 0 && folder[done] != '\0') {
		snprintf(part, sizeof(part), "%.*s", (int)done, folder);
		done += 1 + strcspn(folder + done + 1, "/");
		char next[PATH_MAX];

		snprintf(next, sizeof(next), "%.*s", (int)done, folder);
		r = lb_dir_mkdir(env, part, next, FOLDER_MODE);
		if (r == 0 || r == -EEXIST)
			r = sync_folder(env, part);
	}
	if (r == 0)
		folder_note(d, folder, true);
	return r;
}

struct cleaning {
	struct lb_dir_store *d;
	int64_t now_ns;
};

/* Taking a temporary file from a put that is under way only makes it start again. */
static int clean_one(void *arg, const char *name, bool is_dir)
{
	struct cleaning *c = arg;
	char path[PATH_MAX];
	int64_t age_ns;

	if (is_dir || strlen(name) < 17 || name[16] != '-')
		return 0;
	age_ns = c->now_ns - (int64_t)strtoull(name, NULL, 16);
	if (age_ns < TEMPORARY_AGE_NS_MAX && age_ns > -TEMPORARY_AGE_NS_MAX)
		return 0;
	if (snprintf(path, sizeof(path), "%s/.tmp/%s", c->d->root, name) < (int)sizeof(path))
		c->d->store.env->ops->unlink(c->d->store.env, path);
	return 0;
}

static void clean_once(struct lb_dir_store *d)
{
	struct cleaning c = {.d = d, .now_ns = lb_now_ns(d->store.env)};
	char path[PATH_MAX];

	{
		LB_LOCK_SCOPE(&d->lock);
		if (d->cleaned)
			return;
		d->cleaned = true;
	}
	if (lb_dir_path(d, ".tmp", path) == 0)
		d->store.env->ops->list(d->store.env, path, clean_one, &c);
}

static int open_temporary(struct lb_dir_store *d, char path[PATH_MAX])
{
	struct lb_env *env = d->store.env;
	uint8_t nonce[12];
	char hex[2 * sizeof(nonce) + 1], folder[PATH_MAX];
	int r;

	r = env->ops->random(env, nonce, sizeof(nonce));
	if (r < 0)
		return r;
	lb_hex_encode(nonce, sizeof(nonce), hex);
	if (snprintf(folder, sizeof(folder), "%s/.tmp", d->root) >= PATH_MAX ||
	    snprintf(path, PATH_MAX, "%s/.tmp/%016llx-%s", d->root, (unsigned long long)lb_now_ns(env), hex) >=
		    PATH_MAX)
		return -ENAMETOOLONG;
	r = lb_dir_open_new(env, folder, path, O_WRONLY | O_CREAT | O_EXCL, FILE_MODE);
	if (r != -ENOENT)
		return r;
	r = lb_dir_mkdir(env, d->root, folder, FOLDER_MODE);
	if (r < 0 && r != -EEXIST)
		return r;
	return lb_dir_open_new(env, folder, path, O_WRONLY | O_CREAT | O_EXCL, FILE_MODE);
}

static int write_temporary(struct lb_dir_store *d, const void *data, size_t size_bytes, char path[PATH_MAX])
{
	_cleanup_file_ struct open_file f = {.env = d->store.env, .fd = -1};
	int r;

	clean_once(d);
	f.fd = open_temporary(d, path);
	if (f.fd < 0)
		return f.fd;
	r = lb_pwrite_full(f.env, f.fd, data, size_bytes, 0);
	if (r == 0)
		r = f.env->ops->fsync(f.env, f.fd);
	if (r < 0)
		f.env->ops->unlink(f.env, path);
	return r;
}

static int put_once(struct lb_dir_store *d, const char *path, const void *data, size_t size_bytes)
{
	struct lb_env *env = d->store.env;
	char temporary[PATH_MAX], folder[PATH_MAX];
	int r, r_sync;

	r = make_folders(d, path);
	if (r < 0)
		return r;
	folder_of(path, folder);
	r = write_temporary(d, data, size_bytes, temporary);
	if (r < 0)
		return r;
	r = env->ops->link(env, temporary, path);
	env->ops->unlink(env, temporary);
	if (r == -ENOENT)
		folder_note(d, folder, false); /* the folder went, or the temporary file did: see PUT_ATTEMPTS_MAX */
	if (r < 0 && r != -EEXIST)
		return r;
	r_sync = sync_folder(env, folder);
	return r_sync < 0 ? r_sync : r;
}

static int dir_put_new(struct lb_store *s, const char *name, const void *data, size_t size_bytes)
{
	struct lb_dir_store *d = lb_dir_of(s);
	char path[PATH_MAX];
	int r;

	r = lb_dir_path(d, name, path);
	if (r < 0)
		return r;
	r = -ENOENT;
	for (int i = 0; i < PUT_ATTEMPTS_MAX && r == -ENOENT; i++) {
		if (lb_dir_check_mounted(d) < 0)
			return -EIO;
		r = put_once(d, path, data, size_bytes);
	}
	/* also if that happened meanwhile */
	if (r == 0 && lb_dir_check_mounted(d) < 0)
		return -EIO;
	if (r == -ENOENT)
		return lb_fail(-EIO, "%s: can't write object %s: the folder %s is gone; is its file system mounted?",
			       s->url, name, d->root);
	if (r < 0)
		return lb_dir_fail(d, r, "write", name);
	note_witness(d, name);
	return 0;
}

static int take_lock(struct lb_dir_store *d, struct open_file *ret_file)
{
	_cleanup_file_ struct open_file f = {.env = d->store.env, .fd = -1};
	struct lb_env *env = d->store.env;
	int64_t end_ns = lb_mono_ns(env) + LOCK_WAIT_NS;
	char path[PATH_MAX];
	int r;

	r = lb_dir_check_mounted(d);
	if (r == 0)
		r = lb_dir_path(d, ".lock", path);
	if (r < 0)
		return r;
	f.fd = lb_dir_open_new(env, d->root, path, O_RDWR | O_CREAT, FILE_MODE);
	if (f.fd < 0)
		return lb_dir_fail(d, f.fd, "lock", ".lock");
	while ((r = env->ops->lock(env, f.fd)) == -EWOULDBLOCK && lb_mono_ns(env) < end_ns)
		env->ops->wait_until(env, lb_mono_ns(env) + LOCK_POLL_NS, -1);
	if (r == -EWOULDBLOCK)
		return lb_fail(-EIO, "%s: another process has held the lock %s for %d s; end it and try again",
			       d->store.url, path, (int)(LOCK_WAIT_NS / LB_NS_PER_S));
	if (r < 0)
		return lb_dir_fail(d, r, "lock", ".lock");
	*ret_file = f;
	f.fd = -1;
	return 0;
}

/* Reads `size_bytes` at the offset; UINT64_MAX: all there is from it. */
static int read_part(struct lb_dir_store *d, const char *name, uint64_t offset_bytes, uint64_t size_bytes,
		     struct lb_buf *out)
{
	_cleanup_file_ struct open_file f = {.env = d->store.env, .fd = -1};
	uint64_t there_bytes;
	char path[PATH_MAX];
	int r;

	r = lb_dir_path(d, name, path);
	if (r < 0)
		return r;
	f.fd = f.env->ops->open(f.env, path, O_RDONLY, 0);
	if (f.fd < 0)
		return lb_dir_fail(d, f.fd, "read", name);
	if (size_bytes == UINT64_MAX) {
		r = f.env->ops->size(f.env, f.fd, &there_bytes);
		if (r < 0)
			return lb_dir_fail(d, r, "read", name);
		size_bytes = there_bytes - LB_MIN(offset_bytes, there_bytes);
	}
	r = lb_buf_reserve(out, size_bytes);
	if (r < 0)
		return r;
	r = lb_pread_full(f.env, f.fd, out->data + out->size_bytes, size_bytes, offset_bytes);
	if (r == -ENODATA)
		return lb_fail(-ENODATA, "%s: object %s is truncated: it ends before byte %llu", d->store.url, name,
			       (unsigned long long)(offset_bytes + size_bytes));
	if (r < 0)
		return lb_dir_fail(d, r, "read", name);
	out->size_bytes += size_bytes;
	out->data[out->size_bytes] = '\0';
	note_witness(d, name);
	return 0;
}

static int dir_get(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes, struct lb_buf *out)
{
	return read_part(lb_dir_of(s), name, offset_bytes, size_bytes, out);
}

static int read_etag(struct lb_dir_store *d, const char *name, uint64_t *ret_size_bytes,
		     char ret_etag[LB_STORE_ETAG_BYTES])
{
	_cleanup_buf_ struct lb_buf b = LB_BUF(LB_STORE_OBJECT_BYTES_MAX);
	struct lb_digest digest;
	int r;

	r = read_part(d, name, 0, UINT64_MAX, &b);
	if (r < 0)
		return r;
	r = lb_sha256(b.data, b.size_bytes, &digest);
	if (r < 0)
		return r;
	lb_hex_encode(digest.bytes, sizeof(digest.bytes), ret_etag);
	*ret_size_bytes = b.size_bytes;
	return 0;
}

/* The etag is the digest of the content: times of files repeat within a tick and inodes are used again. */
static int dir_stat(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag)
{
	struct lb_dir_store *d = lb_dir_of(s);
	char path[PATH_MAX];
	int r;

	if (ret_etag != NULL)
		return read_etag(d, name, ret_size_bytes, ret_etag);
	r = lb_dir_path(d, name, path);
	if (r < 0)
		return r;
	r = lb_dir_size(d, path, ret_size_bytes);
	return r < 0 ? lb_dir_fail(d, r, "read", name) : 0;
}

static int replace_locked(struct lb_dir_store *d, const char *name, const char *path, const void *data,
			  size_t size_bytes)
{
	struct lb_env *env = d->store.env;
	char temporary[PATH_MAX], folder[PATH_MAX];
	int r;

	folder_of(path, folder);
	r = write_temporary(d, data, size_bytes, temporary);
	if (r < 0)
		return lb_dir_fail(d, r, "replace", name);
	r = env->ops->rename(env, temporary, path);
	if (r < 0)
		env->ops->unlink(env, temporary);
	else
		r = sync_folder(env, folder);
	return r < 0 ? lb_dir_fail(d, r == -ENOENT ? -EIO : r, "replace", name) : 0;
}

static int dir_replace(struct lb_store *s, const char *name, const char *etag, const void *data, size_t size_bytes)
{
	_cleanup_file_ struct open_file lock = {.env = s->env, .fd = -1};
	struct lb_dir_store *d = lb_dir_of(s);
	char path[PATH_MAX], etag_now[LB_STORE_ETAG_BYTES];
	uint64_t size_now_bytes;
	int r;

	if (etag == NULL)
		return dir_put_new(s, name, data, size_bytes);
	r = lb_dir_path(d, name, path);
	if (r < 0)
		return r;
	r = take_lock(d, &lock);
	if (r < 0)
		return r;
	r = read_etag(d, name, &size_now_bytes, etag_now);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT || strcmp(etag, etag_now) != 0)
		return lb_fail(-ESTALE,
			       "%s: object %s was changed by another writer meanwhile; read it again and retry", s->url,
			       name);
	return replace_locked(d, name, path, data, size_bytes);
}

static int dir_remove(struct lb_store *s, const char *name)
{
	_cleanup_file_ struct open_file lock = {.env = s->env, .fd = -1};
	struct lb_dir_store *d = lb_dir_of(s);
	char path[PATH_MAX], folder[PATH_MAX];
	int r;

	r = lb_dir_path(d, name, path);
	if (r < 0)
		return r;
	r = take_lock(d, &lock);
	if (r < 0)
		return r;
	folder_of(path, folder);
	forget_witness(d, name);
	r = s->env->ops->unlink(s->env, path);
	if (r == 0)
		r = sync_folder(s->env, folder);
	return r < 0 ? lb_dir_fail(d, r, "remove", name) : 0;
}

static int dir_now(struct lb_store *s, int64_t *ret_now_ns)
{
	*ret_now_ns = lb_now_ns(s->env);
	return 0;
}

static void dir_free(struct lb_store *s)
{
	struct lb_dir_store *d = lb_dir_of(s);

	for (size_t i = 0; i < LB_DIR_FOLDERS_KNOWN; i++)
		free(d->folders_known[i]);
	pthread_mutex_destroy(&d->lock);
	free(d->witness);
	free(d->root);
	free(s->url);
	free(d);
}

static const struct lb_store_ops dir_ops = {
	.scheme = "dir",
	.put_new = dir_put_new,
	.replace = dir_replace,
	.get = dir_get,
	.stat = dir_stat,
	.list = lb_dir_list,
	.list_folders = lb_dir_list_folders,
	.remove = dir_remove,
	.now = dir_now,
	.free = dir_free,
};

static int make_root(struct lb_env *env, const char *root, bool create)
{
	_cleanup_file_ struct open_file f = {.env = env, .fd = -1};
	int r;

	if (create) {
		r = lb_folder_make(env, root, FOLDER_MODE);
		if (r < 0)
			return lb_wrap(r, "dir:%s can't be made", root);
	}
	f.fd = env->ops->open(env, root, O_RDONLY | O_DIRECTORY, 0);
	if (f.fd == -ENOENT)
		return lb_fail(
			-ENOENT,
			"dir:%s: there is no such folder; is its file system mounted? `lifeboat vault create` makes it",
			root);
	if (f.fd < 0)
		return lb_fail(f.fd == -EACCES ? -EACCES : -EIO, "dir:%s can't be opened: %s", root, strerror(-f.fd));
	return 0;
}

int lb_store_dir_open(struct lb_env *env, const char *path, bool create, struct lb_store **ret_store)
{
	_cleanup_free_ char *root = strdup(path);
	struct lb_dir_store *d;
	int r;

	if (root == NULL)
		return lb_fail(-ENOMEM, "out of memory for a store");
	for (size_t n = strlen(root); n > 1 && root[n - 1] == '/'; n--)
		root[n - 1] = '\0';
	if (strlen(root) > PATH_MAX - LB_STORE_NAME_BYTES_MAX - 64)
		return lb_fail(-EINVAL, "the folder of a store may have at most %d characters",
			       PATH_MAX - LB_STORE_NAME_BYTES_MAX - 64);
	r = make_root(env, root, create);
	if (r < 0)
		return r;
	d = calloc(1, sizeof(*d));
	if (d == NULL || asprintf(&d->store.url, "dir:%s", root) < 0) {
		free(d);
		return lb_fail(-ENOMEM, "out of memory for a store");
	}
	d->store.ops = &dir_ops;
	d->store.env = env;
	d->root = lb_steal_ptr(root);
	pthread_mutex_init(&d->lock, NULL);
	*ret_store = &d->store;
	return 0;
}
