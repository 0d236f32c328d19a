/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the folders of a directory store in the order of whole object names, entering only what the prefix leaves. */
#include "store/dir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"

#define FOLDER_ENTRIES_MAX (4u << 20)
#define FOLDER_NAMES_BYTES_MAX (256u << 20)

struct entries {
	const char *folder; /* "" or "m/0b1c/" */
	const char *prefix;
	bool folders_only;
	struct lb_buf names; /* each with its NUL; folders end in a slash, so that sorting them is sorting names */
	uint32_t *offsets;
	size_t n, room;
};

static void entries_free(struct entries *e)
{
	lb_buf_free(&e->names);
	free(e->offsets);
}

/* Whether `full` lies under the prefix, or is a folder on the way to it. */
static bool is_wanted(const char *full, const char *prefix, bool is_dir)
{
	size_t full_length = strlen(full), prefix_length = strlen(prefix);

	if (!is_dir && full_length < prefix_length)
		return false;
	return strncmp(full, prefix, LB_MIN(full_length, prefix_length)) == 0;
}

static int entry_add(void *arg, const char *name, bool is_dir)
{
	struct entries *e = arg;
	char full[LB_STORE_NAME_BYTES_MAX + 2];
	uint32_t *grown;
	int r;

	if (name[0] == '.' || (e->folders_only && !is_dir))
		return 0;
	if (snprintf(full, sizeof(full), "%s%s%s", e->folder, name, is_dir ? "/" : "") > LB_STORE_NAME_BYTES_MAX)
		return 0;
	if (lb_store_name_check(full, is_dir) < 0 || !is_wanted(full, e->prefix, is_dir))
		return 0;
	if (e->n >= FOLDER_ENTRIES_MAX)
		return -EOVERFLOW;
	if (e->n == e->room) {
		e->room = e->room > 0 ? 2 * e->room : 64;
		grown = realloc(e->offsets, e->room * sizeof(*grown));
		if (grown == NULL)
			return -ENOMEM;
		e->offsets = grown;
	}
	e->offsets[e->n++] = (uint32_t)e->names.size_bytes;
	r = lb_buf_append(&e->names, full + strlen(e->folder), strlen(full) - strlen(e->folder) + 1);
	return r;
}

static int by_name(const void *a, const void *b, void *names)
{
	const char *text = names;

	return strcmp(text + *(const uint32_t *)a, text + *(const uint32_t *)b);
}

static int collect(struct lb_dir_store *d, struct entries *e)
{
	char path[PATH_MAX];
	int r;

	r = lb_dir_check_mounted(d);
	if (r == 0)
		r = lb_dir_path(d, e->folder, path);
	if (r < 0)
		return r;
	r = d->store.env->ops->list(d->store.env, path, entry_add, e);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r == -EOVERFLOW)
		return lb_fail(-EIO, "%s: folder %s holds more than %u objects", d->store.url, e->folder,
			       FOLDER_ENTRIES_MAX);
	if (r < 0)
		return lb_dir_fail(d, r, "list", e->folder);
	lb_err_clear(); /* of names that are not ours */
	if (e->n > 0)
		qsort_r(e->offsets, e->n, sizeof(*e->offsets), by_name, e->names.data);
	return 0;
}

static int walk(struct lb_dir_store *d, const char *folder, const char *prefix, lb_store_list_fn fn, void *arg)
{
	_cleanup_(entries_free) struct entries e = {
		.folder = folder, .prefix = prefix, .names = LB_BUF(FOLDER_NAMES_BYTES_MAX)};
	char full[LB_STORE_NAME_BYTES_MAX + 1], path[PATH_MAX];
	uint64_t size_bytes;
	int r;

	r = collect(d, &e);
	for (size_t i = 0; r == 0 && i < e.n; i++) {
		snprintf(full, sizeof(full), "%s%s", folder, (char *)e.names.data + e.offsets[i]);
		if (full[strlen(full) - 1] == '/') {
			r = walk(d, full, prefix, fn, arg);
			continue;
		}
		r = lb_dir_path(d, full, path);
		if (r == 0)
			r = lb_dir_size(d, path, &size_bytes);
		if (r == -ENOENT) {
			r = 0; /* removed since */
			continue;
		}
		r = r != 0 ? lb_dir_fail(d, r, "list", full) : fn(arg, full, size_bytes);
	}
	return r;
}

int lb_dir_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg)
{
	const char *slash = strrchr(prefix, '/');
	char folder[LB_STORE_NAME_BYTES_MAX + 1];

	snprintf(folder, sizeof(folder), "%.*s", slash == NULL ? 0 : (int)(slash - prefix + 1), prefix);
	return walk(lb_dir_of(s), folder, prefix, fn, arg);
}

int lb_dir_list_folders(struct lb_store *s, const char *prefix, lb_store_folder_fn fn, void *arg)
{
	_cleanup_(entries_free) struct entries e = {
		.folder = prefix, .prefix = prefix, .folders_only = true, .names = LB_BUF(FOLDER_NAMES_BYTES_MAX)};
	int r;

	r = collect(lb_dir_of(s), &e);
	for (size_t i = 0; r == 0 && i < e.n; i++) {
		char *name = (char *)e.names.data + e.offsets[i];

		name[strlen(name) - 1] = '\0';
		r = fn(arg, name);
	}
	return r;
}
