/* SPDX-License-Identifier: Apache-2.0 */
#include "files/untar.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/text.h"
#include "files/restore_parts.h"

#define BLOCK 512

enum state { HEADER, TEXT, DATA, SKIP, OVER };

/* A folder that gets its attributes when all in it is there. */
struct folder {
	char *path;
	struct lb_ext_file file;
};

struct lb_untar {
	int folder_fd, root_fd;
	const char *name;
	struct lb_restore *r;
	enum state state;
	uint8_t block[BLOCK];
	size_t filled;         /* of the block */
	uint64_t left, padded; /* of the entry's data; with what fills its last block */
	char text_type;        /* 'L', 'K' or 'x': what `text` collects */
	struct lb_buf text;
	/* the entry under way */
	char *path, *target; /* from headers before it, or NULL */
	uint64_t size_bytes; /* from a pax header */
	bool has_size;
	struct lb_ext_file file;
	int fd, parent_fd;
	char *base;
	uint64_t at;
	struct folder *folders;
	size_t n_folders, room_folders;
};

static int damaged(const char *what)
{
	return lb_fail(-EBADMSG, "what came of the filesystem is no sound archive: %s", what);
}

static void entry_clear(struct lb_untar *t)
{
	free(lb_steal_ptr(t->path));
	free(lb_steal_ptr(t->target));
	free(lb_steal_ptr(t->base));
	t->has_size = false;
	if (t->fd >= 0)
		close(lb_steal_fd(t->fd));
	if (t->parent_fd >= 0)
		close(lb_steal_fd(t->parent_fd));
}

int lb_untar_new(int folder_fd, const char *name, struct lb_restore *r, struct lb_untar **ret_untar)
{
	struct lb_untar *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	t->folder_fd = folder_fd;
	t->name = name;
	t->r = r;
	t->root_fd = t->fd = t->parent_fd = -1;
	t->text = LB_BUF(LB_UNTAR_TEXT_BYTES_MAX + 1);
	*ret_untar = t;
	return 0;
}

void lb_untar_free(struct lb_untar *t)
{
	entry_clear(t);
	for (size_t i = 0; i < t->n_folders; i++)
		free(t->folders[i].path);
	free(t->folders);
	lb_buf_free(&t->text);
	if (t->root_fd >= 0)
		close(t->root_fd);
	free(t);
}

/* ---- numbers and names of a header ---- */

/* Octal, or GNU's base 256. */
static int number(const uint8_t *p, size_t n, uint64_t *ret)
{
	uint64_t value = 0;

	if ((p[0] & 0x80) != 0) {
		for (size_t i = 0; i < n; i++) {
			uint8_t byte = i == 0 ? p[0] & 0x7f : p[i];

			if (value >> 55 != 0)
				return damaged("a number is out of bounds");
			value = value << 8 | byte;
		}
		*ret = value;
		return 0;
	}
	for (size_t i = 0; i < n && p[i] != '\0'; i++) {
		if (p[i] == ' ')
			continue;
		if (p[i] < '0' || p[i] > '7')
			return damaged("a number is none");
		value = value << 3 | (uint64_t)(p[i] - '0');
	}
	*ret = value;
	return 0;
}

static bool sum_fits(const uint8_t *h)
{
	uint64_t told, sum = 0;

	for (size_t i = 0; i < BLOCK; i++)
		sum += i >= 148 && i < 156 ? ' ' : h[i];
	return number(h + 148, 8, &told) == 0 && told == sum;
}

static int header_path(const uint8_t *h, char **ret)
{
	bool prefix = memcmp(h + 257, "ustar\0", 6) == 0 && h[345] != '\0';

	if (asprintf(ret, "%.*s%s%.*s", prefix ? 155 : 0, (const char *)h + 345, prefix ? "/" : "", 100,
		     (const char *)h) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	return 0;
}

static int pax_take(struct lb_untar *t, char *key, char *value)
{
	char **to = strcmp(key, "path") == 0 ? &t->path : strcmp(key, "linkpath") == 0 ? &t->target : NULL;

	if (to != NULL) {
		free(*to);
		*to = strdup(value);
		return *to != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
	}
	if (strcmp(key, "size") == 0) {
		t->has_size = true;
		return lb_u64_parse(value, INT64_MAX, &t->size_bytes) < 0 ? damaged("a size is none") : 0;
	}
	return 0;
}

/* "LENGTH KEY=VALUE\n", one after the other. */
static int pax_records(struct lb_untar *t)
{
	char *p = (char *)t->text.data, *end = p + t->text.size_bytes - 1; /* the NUL behind it */
	int r = 0;

	while (r == 0 && p < end) {
		char *space = memchr(p, ' ', (size_t)(end - p)), *equals;
		uint64_t length = 0;

		if (space == NULL)
			return damaged("a record has no length");
		*space = '\0';
		if (lb_u64_parse(p, LB_UNTAR_TEXT_BYTES_MAX, &length) < 0 || length > (uint64_t)(end - p) ||
		    length < (uint64_t)(space - p) + 3 || p[length - 1] != '\n')
			return damaged("a record is out of bounds");
		p[length - 1] = '\0';
		equals = strchr(space + 1, '=');
		if (equals == NULL)
			return damaged("a record has no value");
		*equals = '\0';
		r = pax_take(t, space + 1, equals + 1);
		p += length;
	}
	return r;
}

static int text_end(struct lb_untar *t)
{
	char **to = t->text_type == 'L' ? &t->path : &t->target;

	if (lb_buf_append(&t->text, "", 1) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	if (t->text_type == 'x')
		return pax_records(t);
	free(*to);
	*to = strdup((char *)t->text.data);
	return *to != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
}

/* ---- where an entry goes ---- */

static int root_open(struct lb_untar *t)
{
	return t->root_fd >= 0 ? 0 : lb_restore_folder_open(t->folder_fd, t->name, t->r, &t->root_fd);
}

/* Opens the folder that holds `path`, link by link not followed; `ret_base` is "" for the archive's own folder. */
static int parent_open(struct lb_untar *t, const char *path, int *ret_fd, char **ret_base)
{
	_cleanup_free_ char *copy = strdup(path);
	_cleanup_close_ int fd = -1;
	char *rest = copy, *part, *base = NULL;
	unsigned int depth = 0;
	int r = root_open(t);

	if (r < 0)
		return r;
	fd = fcntl(t->root_fd, F_DUPFD_CLOEXEC, 0);
	if (copy == NULL || fd < 0)
		return lb_fail(-ENOMEM, "out of memory");
	while ((part = strsep(&rest, "/")) != NULL) {
		int next;

		if (*part == '\0' || strcmp(part, ".") == 0)
			continue;
		if (strcmp(part, "..") == 0)
			return damaged("a name leads out of its folder (hostile?)");
		r = lb_restore_check(t->r, path, ++depth);
		if (r < 0)
			return r;
		if (base != NULL) {
			next = openat(fd, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (next < 0)
				return lb_restore_failed("open", base);
			close(fd);
			fd = next;
		}
		base = part;
	}
	*ret_base = strdup(base != NULL ? base : "");
	if (*ret_base == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	*ret_fd = lb_steal_fd(fd);
	return 0;
}

static int note_folder(struct lb_untar *t)
{
	if (t->n_folders == LB_UNTAR_FOLDERS_MAX)
		return lb_fail(-EOVERFLOW, "more than %u folders; export the disk instead", LB_UNTAR_FOLDERS_MAX);
	if (t->n_folders == t->room_folders) {
		size_t room = t->room_folders > 0 ? 2 * t->room_folders : 64;
		struct folder *grown = reallocarray(t->folders, room, sizeof(*grown));

		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory");
		t->folders = grown;
		t->room_folders = room;
	}
	t->folders[t->n_folders++] = (struct folder){.path = lb_steal_ptr(t->path), .file = t->file};
	return 0;
}

static int take_folder(struct lb_untar *t)
{
	_cleanup_close_ int fd = -1;
	int r = 0;

	if (t->base[0] != '\0')
		r = lb_restore_folder_open(t->parent_fd, t->base, t->r, &fd);
	if (r < 0)
		return r;
	t->r->folders++;
	return note_folder(t);
}

static int take_hard_link(struct lb_untar *t)
{
	_cleanup_free_ char *base = NULL;
	_cleanup_close_ int fd = -1;
	int r = parent_open(t, t->target, &fd, &base);

	return r < 0 ? r : lb_restore_hard_link(fd, base, t->parent_fd, t->base, t->r);
}

static int take_entry(struct lb_untar *t, char type)
{
	int r = parent_open(t, t->path, &t->parent_fd, &t->base);

	if (r < 0)
		return r;
	if (type == '5')
		return take_folder(t);
	if (t->base[0] == '\0')
		return damaged("its own folder is none");
	switch (type) {
	case '\0':
	case '0':
	case '7':
		r = lb_restore_file_open(t->parent_fd, t->base, t->r, &t->fd);
		t->at = 0;
		break;
	case '1':
		r = take_hard_link(t);
		break;
	case '2':
		r = lb_restore_symlink(t->target, &t->file, t->parent_fd, t->base, t->r);
		break;
	default:
		t->r->left_out++;
	}
	return r;
}

/* ---- the stream ---- */

static int header_fields(struct lb_untar *t, const uint8_t *h, uint64_t *ret_size)
{
	uint64_t mode, uid, gid, mtime;

	if (number(h + 100, 8, &mode) < 0 || number(h + 108, 8, &uid) < 0 || number(h + 116, 8, &gid) < 0 ||
	    number(h + 124, 12, ret_size) < 0 || number(h + 136, 12, &mtime) < 0)
		return -EBADMSG;
	if (t->has_size)
		*ret_size = t->size_bytes;
	if (*ret_size > INT64_MAX - BLOCK)
		return damaged("a size is out of bounds");
	t->file = (struct lb_ext_file){.mode = (mode_t)(mode & 07777),
				       .uid = (uint32_t)uid,
				       .gid = (uint32_t)gid,
				       .size_bytes = *ret_size,
				       .mtime_s = (int64_t)mtime};
	return 0;
}

static bool is_zero(const uint8_t *p)
{
	return p[0] == 0 && memcmp(p, p + 1, BLOCK - 1) == 0;
}

static int begin_entry(struct lb_untar *t)
{
	const uint8_t *h = t->block;
	uint64_t size_bytes = 0;
	char type = (char)h[156];
	int r;

	if (is_zero(h)) {
		t->state = OVER;
		return 0;
	}
	if (!sum_fits(h))
		return damaged("a header's sum is wrong");
	r = header_fields(t, h, &size_bytes);
	if (r < 0)
		return r;
	t->left = size_bytes;
	t->padded = (size_bytes + BLOCK - 1) / BLOCK * BLOCK;
	if (type == 'L' || type == 'K' || type == 'x') {
		t->text_type = type;
		t->text.size_bytes = 0;
		t->state = TEXT;
		return size_bytes <= LB_UNTAR_TEXT_BYTES_MAX ? 0 : damaged("a name is out of bounds");
	}
	t->state = t->padded > 0 ? SKIP : HEADER;
	if (type == 'g')
		return 0;
	if (t->path == NULL && (r = header_path(h, &t->path)) < 0)
		return r;
	if (t->target == NULL && (t->target = strndup((const char *)h + 157, 100)) == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = take_entry(t, type);
	if (r == 0 && t->fd >= 0) {
		t->state = DATA;
		return 0;
	}
	entry_clear(t);
	return r;
}

/* The last byte of what follows a header has come. */
static int end_entry(struct lb_untar *t)
{
	int r = 0;

	if (t->state == TEXT) {
		r = text_end(t); /* belongs to the entry that comes */
	} else {
		if (t->state == DATA)
			r = lb_restore_file_finish(t->fd, &t->file, t->parent_fd, t->base, t->r);
		entry_clear(t);
	}
	t->state = HEADER;
	return r;
}

static int take_body(struct lb_untar *t, const uint8_t *p, size_t n)
{
	size_t own = (size_t)LB_MIN((uint64_t)n, t->left);
	int r = 0;

	if (t->state == DATA)
		r = lb_restore_file_write(t->fd, p, own, t->at);
	else if (t->state == TEXT && lb_buf_append(&t->text, p, own) < 0)
		r = lb_fail(-ENOMEM, "out of memory");
	t->at += own;
	t->left -= own;
	t->padded -= n;
	return r;
}

static size_t take_header(struct lb_untar *t, const uint8_t *p, size_t n)
{
	size_t step = LB_MIN(n, BLOCK - t->filled);

	memcpy(t->block + t->filled, p, step);
	t->filled += step;
	return step;
}

int lb_untar_feed(struct lb_untar *t, const void *data, size_t size_bytes)
{
	const uint8_t *p = data, *end = p + size_bytes;
	int r = 0;

	while (r == 0 && t->state != OVER && (p < end || (t->state != HEADER && t->padded == 0))) {
		if (t->state == HEADER) {
			p += take_header(t, p, (size_t)(end - p));
			if (t->filled < BLOCK)
				break;
			t->filled = 0;
			r = begin_entry(t);
		} else if (t->padded > 0) {
			size_t step = (size_t)LB_MIN((uint64_t)(end - p), t->padded);

			r = take_body(t, p, step);
			p += step;
		} else {
			r = end_entry(t);
		}
	}
	return r;
}

static int end_folder(struct lb_untar *t, const struct folder *f)
{
	_cleanup_free_ char *base = NULL;
	_cleanup_close_ int parent = -1, fd = -1;
	int r = parent_open(t, f->path, &parent, &base);

	if (r < 0)
		return r;
	fd = openat(parent, base != NULL && base[0] != '\0' ? base : ".",
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? lb_restore_failed("open", f->path) : lb_restore_attributes(fd, &f->file, f->path);
}

int lb_untar_end(struct lb_untar *t)
{
	int r = 0;

	if (t->state != OVER)
		return damaged("it is cut short");
	while (r == 0 && t->n_folders > 0) {
		struct folder *f = &t->folders[t->n_folders - 1];

		r = end_folder(t, f);
		free(f->path);
		t->n_folders--;
	}
	return r;
}
