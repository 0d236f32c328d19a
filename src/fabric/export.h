/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A disk at a recovery point as an image file. The file appears whole and durable, or not at all. */
#include "vault/image.h"

#define LB_EXPORT_THREADS 4
#define LB_EXPORT_CHUNK_BYTES (4u << 20)

enum lb_export_format { LB_EXPORT_RAW, LB_EXPORT_QCOW2 };

/* Counts data only: holes cost nothing. Called from the calling thread. */
typedef void (*lb_export_progress_fn)(void *arg, uint64_t done_bytes, uint64_t total_bytes);

/*
 * `disk` is an id of `item`. -EEXIST when `path` is there, -ENOSPC before or while writing: then nothing is left.
 * `progress` may be NULL.
 */
int lb_point_export(struct lb_vault *v, const struct lb_catalog_item *item, const struct lb_position *position,
		    uint16_t disk, const char *path, enum lb_export_format format, lb_export_progress_fn progress,
		    void *arg);
