/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An object store: named, immutable byte strings. Backends: a directory (dir.c), Azure Blob (azure.c), S3 (s3.c).
 * Names: components of [A-Za-z0-9._-], joined by '/', at most LB_STORE_NAME_BYTES_MAX, no component starting with a
 * dot. All functions may be called from any thread. A successful put is durable. A put that failed, or one whose first
 * attempt is still on its way, may come into force later (signatures are good for about 15 minutes), even after the
 * object was removed: the same bytes then are there again, and never others, as names are not used twice. Errors name
 * store and object: -ENOENT no such object, -EEXIST taken, -ESTALE condition not met, -EACCES credentials or
 * permissions, -ENOSPC full, -EIO other.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/env.h"

#define LB_STORE_NAME_BYTES_MAX 200
#define LB_STORE_OBJECT_BYTES_MAX (64u << 20)
#define LB_STORE_ETAG_BYTES 72

struct lb_store;

/* Called per object in the order of names; a non-zero return ends the listing and is passed on. */
typedef int (*lb_store_list_fn)(void *arg, const char *name, uint64_t size_bytes);

/* Called per folder name ("m/" may have "0b1c..."), in order, without slashes. */
typedef int (*lb_store_folder_fn)(void *arg, const char *folder);

struct lb_store_ops {
	const char *scheme;
	int (*put_new)(struct lb_store *s, const char *name, const void *data, size_t size_bytes);
	/* `etag` of an earlier stat(): replaced only if it is still that one (-ESTALE); NULL: only if absent (-EEXIST).
	 */
	int (*replace)(struct lb_store *s, const char *name, const char *etag, const void *data, size_t size_bytes);
	int (*get)(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes, struct lb_buf *out);
	int (*stat)(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag);
	int (*list)(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg);
	int (*list_folders)(struct lb_store *s, const char *prefix, lb_store_folder_fn fn, void *arg);
	/* -ENOENT when it is gone already, perhaps by an attempt of this very call whose answer got lost. */
	int (*remove)(struct lb_store *s, const char *name);
	int (*now)(struct lb_store *s, int64_t *ret_now_ns); /* the store's own clock */
	void (*free)(struct lb_store *s);
};

struct lb_store {
	const struct lb_store_ops *ops;
	char *url;                       /* as a person wrote it, without secrets */
	bool credentials_by_environment; /* of this process: a service would not find them */
	struct lb_env *env;
};

/*
 * "dir:/absolute/path", "azure:ACCOUNT/CONTAINER?...", "s3:BUCKET?..." (url.h: parameters; credentials.h: secrets).
 * `create` makes the container where it is missing.
 */
int lb_store_open(struct lb_env *env, const char *url, bool create, struct lb_store **ret_store);
void lb_store_free(struct lb_store *s);
LB_DEFINE_CLEANUP(struct lb_store *, lb_store_free);

/* A backend's own way in; lb_store_open() picks it by the scheme. `path` is absolute. */
int lb_store_dir_open(struct lb_env *env, const char *path, bool create, struct lb_store **ret_store);
int lb_store_azure_open(struct lb_env *env, const char *place, bool create, struct lb_store **ret_store);
int lb_store_s3_open(struct lb_env *env, const char *place, bool create, struct lb_store **ret_store);

/* -EINVAL for what is no name. A prefix may be empty, end in a slash or in the middle of a component. */
int lb_store_name_check(const char *name, bool is_prefix);

/* These check names and bounds and then call the backend. */
/* -EEXIST promises that the object that has the name is durable, too. */
int lb_store_put_new(struct lb_store *s, const char *name, const void *data, size_t size_bytes);
int lb_store_replace(struct lb_store *s, const char *name, const char *etag, const void *data, size_t size_bytes);
/* Appends exactly `size_bytes` from `offset_bytes`; -ENODATA when the object is shorter. */
int lb_store_get(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes, struct lb_buf *out);
/* A whole object of at most `size_bytes_max`. */
int lb_store_get_all(struct lb_store *s, const char *name, size_t size_bytes_max, struct lb_buf *out);
/* `ret_etag` has LB_STORE_ETAG_BYTES, or is NULL where only the size is wanted: the etag may cost a read of the object.
 */
int lb_store_stat(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag);
/* Every object whose name begins with `prefix` (may be empty). Other objects may be read and put during the listing. */
int lb_store_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg);
/* The folders directly under `prefix`, which is empty or ends in a slash; not what is in them. */
int lb_store_list_folders(struct lb_store *s, const char *prefix, lb_store_folder_fn fn, void *arg);
int lb_store_remove(struct lb_store *s, const char *name);
int lb_store_now(struct lb_store *s, int64_t *ret_now_ns);

/*
 * Proves that conditions are kept: puts a probe twice and replaces it twice, -EOPNOTSUPP from a store that takes both.
 */
int lb_store_prove(struct lb_store *s);
