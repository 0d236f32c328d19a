/* SPDX-License-Identifier: Apache-2.0 */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/text.h"

#define LOCK_LOOK_MS 5

struct open_file {
	struct lb_env *env;
	int fd;
};

static void open_file_close(struct open_file *f)
{
	if (f->fd >= 0)
		f->env->ops->close(f->env, f->fd);
}

int lb_pread_full(struct lb_env *env, int fd, void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	uint8_t *p = buf;

	while (size_bytes > 0) {
		ssize_t n = env->ops->pread(env, fd, p, size_bytes, offset_bytes);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return -ENODATA;
		p += n;
		size_bytes -= (size_t)n;
		offset_bytes += (uint64_t)n;
	}
	return 0;
}

int lb_pwrite_full(struct lb_env *env, int fd, const void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	const uint8_t *p = buf;

	while (size_bytes > 0) {
		ssize_t n = env->ops->pwrite(env, fd, p, size_bytes, offset_bytes);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return -EIO;
		p += n;
		size_bytes -= (size_t)n;
		offset_bytes += (uint64_t)n;
	}
	return 0;
}

int lb_file_read(struct lb_env *env, const char *path, size_t size_bytes_max, uint8_t **ret_data,
		 size_t *ret_size_bytes)
{
	_cleanup_(open_file_close) struct open_file f = {.env = env, .fd = -1};
	_cleanup_free_ uint8_t *data = NULL;
	size_t used = 0, room = 4096;

	f.fd = env->ops->open(env, path, O_RDONLY, 0);
	if (f.fd < 0)
		return lb_fail(f.fd, "can't open %s: %s", path, strerror(-f.fd));
	/* files of /proc and /sys have no size to go by */
	for (;;) {
		uint8_t *grown = realloc(data, room + 1);
		ssize_t n;

		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory reading %s", path);
		data = grown;
		n = env->ops->pread(env, f.fd, data + used, room - used, used);
		if (n < 0)
			return lb_fail((int)n, "can't read %s: %s", path, strerror((int)-n));
		if (n == 0)
			break;
		used += (size_t)n;
		if (used > size_bytes_max)
			return lb_fail(-EFBIG, "%s is larger than %zu bytes", path, size_bytes_max);
		if (used == room)
			room *= 2;
	}
	data[used] = '\0';
	*ret_size_bytes = used;
	*ret_data = lb_steal_ptr(data);
	return 0;
}

static int folder_of(const char *path, char folder[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	size_t length = slash == NULL ? 0 : (size_t)(slash - path);

	if (length >= PATH_MAX)
		return lb_fail(-ENAMETOOLONG, "path is too long: %.80s...", path);
	if (slash == NULL)
		snprintf(folder, PATH_MAX, ".");
	else
		snprintf(folder, PATH_MAX, "%.*s", length > 0 ? (int)length : 1, path);
	return 0;
}

int lb_folder_sync(struct lb_env *env, const char *path)
{
	_cleanup_(open_file_close) struct open_file f = {.env = env, .fd = -1};
	char folder[PATH_MAX];
	int r;

	r = folder_of(path, folder);
	if (r < 0)
		return r;
	f.fd = env->ops->open(env, folder, O_RDONLY | O_DIRECTORY, 0);
	if (f.fd < 0)
		return lb_fail(f.fd, "can't open folder %s: %s", folder, strerror(-f.fd));
	r = env->ops->fsync(env, f.fd);
	if (r < 0)
		return lb_fail(r, "can't make folder %s durable: %s", folder, strerror(-r));
	return 0;
}

/* Writes and syncs a file of a fresh name beside `path`. */
static int write_beside(struct lb_env *env, const char *path, const void *data, size_t size_bytes, mode_t mode,
			char temporary[PATH_MAX])
{
	_cleanup_(open_file_close) struct open_file f = {.env = env, .fd = -1};
	uint8_t nonce[8];
	char hex[17];
	int r;

	r = env->ops->random(env, nonce, sizeof(nonce));
	if (r < 0)
		return lb_fail(r, "no random bytes: %s", strerror(-r));
	lb_hex_encode(nonce, sizeof(nonce), hex);
	if (snprintf(temporary, PATH_MAX, "%s.%s.tmp", path, hex) >= PATH_MAX)
		return lb_fail(-ENAMETOOLONG, "path is too long: %.80s...", path);
	f.fd = env->ops->open(env, temporary, O_WRONLY | O_CREAT | O_EXCL, mode);
	if (f.fd < 0)
		return lb_fail(f.fd, "can't create %s: %s", temporary, strerror(-f.fd));
	r = lb_pwrite_full(env, f.fd, data, size_bytes, 0);
	if (r == 0)
		r = env->ops->fsync(env, f.fd);
	if (r < 0) {
		env->ops->unlink(env, temporary);
		return lb_fail(r, "can't write %s: %s", path, strerror(-r));
	}
	return 0;
}

int lb_file_write(struct lb_env *env, const char *path, const void *data, size_t size_bytes, mode_t mode)
{
	char temporary[PATH_MAX];
	int r;

	r = write_beside(env, path, data, size_bytes, mode, temporary);
	if (r < 0)
		return r;
	r = env->ops->rename(env, temporary, path);
	if (r < 0) {
		env->ops->unlink(env, temporary);
		return lb_fail(r, "can't put %s in place: %s", path, strerror(-r));
	}
	return lb_folder_sync(env, path);
}

int lb_file_write_new(struct lb_env *env, const char *path, const void *data, size_t size_bytes, mode_t mode)
{
	char temporary[PATH_MAX];
	int r;

	r = write_beside(env, path, data, size_bytes, mode, temporary);
	if (r < 0)
		return r;
	r = env->ops->link(env, temporary, path);
	env->ops->unlink(env, temporary);
	if (r == -EEXIST)
		return lb_fail(r, "%s is there already", path);
	if (r < 0)
		return lb_fail(r, "can't put %s in place: %s", path, strerror(-r));
	return lb_folder_sync(env, path);
}

void lb_file_wait_released(struct lb_env *env, const char *path, uint32_t wait_ms)
{
	_cleanup_(open_file_close) struct open_file f = {.env = env, .fd = env->ops->open(env, path, O_RDONLY, 0)};
	int64_t now_ns = lb_mono_ns(env), end_ns = now_ns + (int64_t)wait_ms * LB_NS_PER_MS;

	while (f.fd >= 0 && now_ns < end_ns) {
		struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

		if (fcntl(f.fd, F_OFD_GETLK, &all) < 0 || all.l_type == F_UNLCK)
			return;
		env->ops->wait_until(env, now_ns + LOCK_LOOK_MS * LB_NS_PER_MS, -1);
		now_ns = lb_mono_ns(env);
	}
}

/* What is above a private folder may have other folders in it, of other users. */
#define FOLDER_ABOVE_MODE 0755

int lb_folder_make(struct lb_env *env, const char *path, mode_t mode)
{
	char part[PATH_MAX];
	size_t length = strlen(path);
	int r;

	while (length > 1 && path[length - 1] == '/')
		length--;
	if (length == 0 || length >= sizeof(part))
		return lb_fail(-ENAMETOOLONG, "folder name of %zu characters can't be made", length);
	for (size_t i = 1; i <= length; i++) {
		if (i < length && path[i] != '/')
			continue;
		snprintf(part, sizeof(part), "%.*s", (int)i, path);
		r = env->ops->mkdir(env, part, i < length ? FOLDER_ABOVE_MODE : mode);
		if (r == -EEXIST)
			continue;
		if (r < 0)
			return lb_fail(r, "can't make folder %s: %s", part, strerror(-r));
		r = lb_folder_sync(env, part);
		if (r < 0)
			return r;
	}
	return 0;
}
