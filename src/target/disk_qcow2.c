/* SPDX-License-Identifier: Apache-2.0 */
/* A qcow2 image: qemu-nbd, which ends with our connection, and libnbd. */
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "fabric/proc.h"
#include "target/disk.h"

#define REQUEST_BYTES_MAX (4u << 20)
#define MAKE_WAIT_S 60

static int failed(const struct lb_target_disk *d, const char *what)
{
	int error = nbd_get_errno();

	if (error == ENOSPC)
		return lb_fail(-ENOSPC,
			       "no space left for %s; make room and run the same again: it goes on where it was",
			       d->path);
	return lb_fail(error > 0 ? -error : -EIO, "can't %s %s: %s", what, d->path, nbd_get_error());
}

static int read_at(struct lb_target_disk *d, void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	for (size_t at = 0; at < size_bytes; at += REQUEST_BYTES_MAX)
		if (nbd_pread(d->nbd, (uint8_t *)buf + at, LB_MIN(size_bytes - at, (size_t)REQUEST_BYTES_MAX),
			      offset_bytes + at, 0) < 0)
			return failed(d, "read");
	return 0;
}

static int write_at(struct lb_target_disk *d, const void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	for (size_t at = 0; at < size_bytes; at += REQUEST_BYTES_MAX)
		if (nbd_pwrite(d->nbd, (const uint8_t *)buf + at, LB_MIN(size_bytes - at, (size_t)REQUEST_BYTES_MAX),
			       offset_bytes + at, 0) < 0)
			return failed(d, "write");
	return 0;
}

static int zero_at(struct lb_target_disk *d, uint64_t size_bytes, uint64_t offset_bytes)
{
	for (uint64_t at = 0; at < size_bytes; at += REQUEST_BYTES_MAX)
		if (nbd_zero(d->nbd, LB_MIN(size_bytes - at, (uint64_t)REQUEST_BYTES_MAX), offset_bytes + at, 0) < 0)
			return failed(d, "write zeroes to");
	return 0;
}

/* Reading zeroes out of an image costs little; asking for its map would cost more code. */
static int next_data(struct lb_target_disk *d, uint64_t offset_bytes, uint64_t *ret_offset_bytes)
{
	(void)d;
	*ret_offset_bytes = offset_bytes;
	return 0;
}

static int flush(struct lb_target_disk *d)
{
	return nbd_flush(d->nbd, 0) < 0 ? failed(d, "make durable") : 0;
}

static void close_nbd(struct lb_target_disk *d)
{
	if (d->nbd != NULL) {
		nbd_shutdown(d->nbd, 0);
		nbd_close(d->nbd);
	}
	d->nbd = NULL;
}

static const struct lb_target_disk_ops qcow2_ops = {.pread = read_at,
						    .pwrite = write_at,
						    .zero = zero_at,
						    .next_data = next_data,
						    .flush = flush,
						    .close = close_nbd};

int lb_target_qcow2_make(struct lb_env *env, const char *path, uint64_t size_bytes)
{
	char size[24];
	const char *const argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", path, size, NULL};

	snprintf(size, sizeof(size), "%llu", (unsigned long long)size_bytes);
	return lb_proc_run(env, &(struct lb_proc_run){.argv = argv, .keep_fd = -1, .timeout_s = MAKE_WAIT_S}, NULL);
}

/* The descriptor was there to look at the file; from now on qemu-nbd has it, with locks of its own. */
int lb_target_qcow2_open(struct lb_target_disk *d)
{
	char program[] = "qemu-nbd", format[] = "-f", qcow2[] = "qcow2", discard[] = "--discard=unmap";
	char *argv[] = {program, format, qcow2, discard, d->path, NULL};
	int64_t size_bytes;

	d->env->ops->close(d->env, d->fd);
	d->fd = -1;
	d->kind = LB_TARGET_QCOW2;
	d->ops = &qcow2_ops;
	d->nbd = nbd_create();
	if (d->nbd == NULL)
		return lb_fail(-ENOMEM, "out of memory for an NBD connection");
	if (nbd_connect_systemd_socket_activation(d->nbd, argv) < 0)
		return lb_fail(-EBUSY, "qemu-nbd can't open %s (is it in use, is qemu-utils installed?): %s", d->path,
			       nbd_get_error());
	size_bytes = nbd_get_size(d->nbd);
	if (size_bytes < 0)
		return failed(d, "tell the size of");
	d->size_bytes = (uint64_t)size_bytes;
	return 0;
}
