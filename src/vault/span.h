/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The maps of spans (manifest.h): putting, loading, laying one over another, counting what they refer to. */
#include "vault/checkpoint.h"
#include "vault/manifest.h"

/*
 * Puts a map under a new name of version `version` and fills in map, map_bytes and data_bytes of `span`, whose point
 * says where it ends.
 */
int lb_span_put(struct lb_vault *v, const struct lb_uuid *machine, uint64_t version, const struct lb_map *map,
		struct lb_span *span);
int lb_span_load(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_span *span,
		 struct lb_map **ret_map);
/* Lays `above`, of later segments, over `map`. */
int lb_map_overlay(struct lb_map *map, const struct lb_map *above);
/* The image at the end of span `last`: all maps up to it, one over the other. */
int lb_spans_load(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_manifest *m, size_t last,
		  struct lb_map **ret_map, uint64_t *ret_bytes);

/* Calls `fn` with the raw bytes that the map's extents have in each object; in no order. */
int lb_map_objects(const struct lb_map *map, int (*fn)(void *arg, uint64_t epoch, uint64_t number, uint64_t raw_bytes),
		   void *arg);
