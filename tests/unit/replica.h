/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What an agent does, in memory: image(e) = end(e-1), then scan(e), then captured(e). Tests compare it with the disk.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture/capture.h"

#define REPLICA_DISKS_MAX 4
#define REPLICA_SCAN_BYTES (1u << 20)

struct replica {
	struct lb_capture *capture;
	unsigned int disks;
	uint8_t *image[REPLICA_DISKS_MAX];    /* end(e-1) and scan(e) */
	uint8_t *captured[REPLICA_DISKS_MAX]; /* captured(e), where `fresh` says so */
	uint8_t *fresh[REPLICA_DISKS_MAX];    /* one byte per sector */
	uint64_t size_bytes[REPLICA_DISKS_MAX];
	uint64_t position;
	uint64_t records;
	uint64_t scan_cursor;
	uint8_t *buffer;
	int scan_fd; /* -1: the disk itself; else a file with the disk's content */
};

static inline void replica_free(struct replica *r)
{
	for (unsigned int i = 0; i < r->disks; i++) {
		free(r->image[i]);
		free(r->captured[i]);
		free(r->fresh[i]);
	}
	free(r->buffer);
	*r = (struct replica){0};
}

static inline int replica_init(struct replica *r, struct lb_capture *capture)
{
	struct lb_capture_info info;

	lb_capture_info(capture, &info);
	*r = (struct replica){.capture = capture, .disks = info.disk_count, .scan_fd = -1};
	if (posix_memalign((void **)&r->buffer, 4096, REPLICA_SCAN_BYTES) != 0)
		return -1;
	for (unsigned int i = 0; i < info.disk_count; i++) {
		struct lb_capture_disk d;
		if (lb_capture_disk(capture, i, &d) < 0)
			return -1;
		r->size_bytes[i] = d.size_bytes;
		r->image[i] = calloc(1, d.size_bytes);
		r->captured[i] = calloc(1, d.size_bytes);
		r->fresh[i] = calloc(1, d.size_bytes / 512);
	}
	return 0;
}

/* Folds captured(e) in: the end of an epoch, or a point. */
static inline void replica_fold(struct replica *r)
{
	for (unsigned int i = 0; i < r->disks; i++)
		for (uint64_t s = 0; s < r->size_bytes[i] / 512; s++)
			if (r->fresh[i][s]) {
				memcpy(r->image[i] + s * 512, r->captured[i] + s * 512, 512);
				r->fresh[i][s] = 0;
			}
}

static inline int replica_begin(struct replica *r, bool everything)
{
	uint32_t generation;

	replica_fold(r);
	r->scan_cursor = 0;
	return lb_capture_begin_epoch(r->capture, everything, &generation, &r->position);
}

/* Takes what is there, acknowledges it; *ret_in_debt as lb_capture_limit() says. */
static inline int replica_take(struct replica *r, bool *ret_in_debt)
{
	struct lb_capture_record record;
	uint64_t limit;
	int result;

	lb_capture_limit(r->capture, &limit, ret_in_debt);
	while ((result = lb_capture_next(r->capture, &r->position, limit, &record)) == 1) {
		uint8_t *to = r->captured[record.disk] + record.offset_bytes;
		if (record.kind == LB_CAPTURE_DATA)
			memcpy(to, record.data, record.length_bytes);
		else
			memset(to, 0, record.length_bytes);
		memset(r->fresh[record.disk] + record.offset_bytes / 512, 1, record.length_bytes / 512);
		r->records++;
	}
	if (result < 0)
		return result;
	return lb_capture_acknowledge(r->capture, r->position);
}

/* Reads the scan set; a chunk that isn't ready is drained when `patient`, else skipped (-EAGAIN at the end). */
static inline int replica_scan(struct replica *r, bool patient)
{
	struct lb_capture_range range;
	uint64_t cursor = 0;
	int skipped = 0;

	while (lb_capture_scan_next(r->capture, cursor, REPLICA_SCAN_BYTES, &range, &cursor) == 1) {
		for (int i = 0; i < 1000 && lb_capture_chunk_ready(r->capture, &range) == 0; i++)
			usleep(100);
		if (lb_capture_chunk_ready(r->capture, &range) == 0) {
			if (!patient || lb_capture_drain(r->capture, range.disk, LB_CAPTURE_DRAIN_MS_MAX) < 0) {
				skipped = -EAGAIN;
				continue;
			}
		}
		int fd = r->scan_fd >= 0 ? r->scan_fd : lb_capture_disk_fd(r->capture, range.disk);
		if (pread(fd, r->buffer, range.length_bytes, (off_t)range.offset_bytes) != (ssize_t)range.length_bytes)
			return -EIO;
		memcpy(r->image[range.disk] + range.offset_bytes, r->buffer, range.length_bytes);
		lb_capture_scan_clear(r->capture, &range);
	}
	return skipped;
}

/* 1 when a disk and its replica differ; call it when nobody writes. */
static inline int replica_differs(struct replica *r, unsigned int disk)
{
	int fd = lb_capture_disk_fd(r->capture, disk), differs = 0;

	replica_fold(r);
	for (uint64_t at = 0; at < r->size_bytes[disk] && !differs; at += REPLICA_SCAN_BYTES) {
		if (pread(fd, r->buffer, REPLICA_SCAN_BYTES, (off_t)at) != REPLICA_SCAN_BYTES)
			return 1;
		differs = memcmp(r->buffer, r->image[disk] + at, REPLICA_SCAN_BYTES) != 0;
	}
	return differs;
}
