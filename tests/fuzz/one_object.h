/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A store in memory that holds one object, and a vault over it: for targets that read it through the public functions.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "vault/internal.h"

struct one_object {
	struct lb_store store;
	char name[LB_OBJECT_NAME_BYTES];
	const uint8_t *data;
	size_t size_bytes;
	struct lb_vault *vault; /* it knows the key of `machine` */
	struct lb_uuid machine;
};

static inline int one_get(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes,
			  struct lb_buf *out)
{
	struct one_object *o = (struct one_object *)s;

	if (strcmp(name, o->name) != 0)
		return lb_fail(-ENOENT, "there is no %s", name);
	if (offset_bytes > o->size_bytes || size_bytes > o->size_bytes - offset_bytes)
		return lb_fail(-ENODATA, "%s is shorter", name);
	return lb_buf_append(out, o->data + offset_bytes, size_bytes);
}

static inline int one_stat(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag)
{
	struct one_object *o = (struct one_object *)s;

	if (strcmp(name, o->name) != 0)
		return lb_fail(-ENOENT, "there is no %s", name);
	if (ret_etag != NULL)
		strcpy(ret_etag, "1");
	*ret_size_bytes = o->size_bytes;
	return 0;
}

static inline int one_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg)
{
	struct one_object *o = (struct one_object *)s;

	return strncmp(o->name, prefix, strlen(prefix)) == 0 ? fn(arg, o->name, o->size_bytes) : 0;
}

static inline int one_list_folders(struct lb_store *s, const char *prefix, lb_store_folder_fn fn, void *arg)
{
	struct one_object *o = (struct one_object *)s;
	char folder[LB_OBJECT_NAME_BYTES];
	const char *rest = o->name + strlen(prefix), *slash;

	if (strncmp(o->name, prefix, strlen(prefix)) != 0 || (slash = strchr(rest, '/')) == NULL)
		return 0;
	memcpy(folder, rest, (size_t)(slash - rest));
	folder[slash - rest] = '\0';
	return fn(arg, folder);
}

static inline int one_remove(struct lb_store *s, const char *name)
{
	struct one_object *o = (struct one_object *)s;

	return strcmp(name, o->name) == 0 ? 0 : lb_fail(-ENOENT, "there is no %s", name);
}

static const struct lb_store_ops one_ops = {.scheme = "one",
					    .get = one_get,
					    .stat = one_stat,
					    .list = one_list,
					    .list_folders = one_list_folders,
					    .remove = one_remove};

static inline struct one_object *one_object(void)
{
	static struct one_object o;
	struct lb_keyring keys = {.n = 2, .key = {{{41}}, {{42}}}};

	if (o.vault != NULL)
		return &o;
	o.store = (struct lb_store){.ops = &one_ops, .url = (char *)"one:", .env = lb_env_real()};
	o.machine.bytes[0] = 2;
	o.vault = calloc(1, sizeof(*o.vault));
	if (o.vault == NULL)
		abort();
	o.vault->store = &o.store;
	o.vault->id.bytes[0] = 1;
	o.vault->has_key = true;
	o.vault->now.key.bytes[0] = 43;
	pthread_mutex_init(&o.vault->lock, NULL);
	if (lb_vault_machine_key_give(o.vault, &o.machine, &keys) < 0)
		abort();
	return &o;
}

/* From now on the store holds these bytes under this name. */
static inline void one_object_is(struct one_object *o, const char *name, const void *data, size_t size_bytes)
{
	strcpy(o->name, name);
	o->data = data;
	o->size_bytes = size_bytes;
}
