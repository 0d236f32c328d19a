/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Loop devices for tests, on memory or on a file, that go away by themselves. */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOOP_TRIES 64

struct loop_disk {
	int fd; /* O_RDWR | O_DIRECT */
	int backing;
	char name[32];
	char path[40];
	uint64_t size_bytes;
};

/* Takes `backing` over. LO_FLAGS_AUTOCLEAR: the kernel removes it with its last user. */
static inline int loop_disk_make(struct loop_disk *d, int backing, uint64_t size_bytes)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return -errno;
	*d = (struct loop_disk){.fd = -1, .backing = backing, .size_bytes = size_bytes};
	int r = -EBUSY;
	for (int i = 0; i < LOOP_TRIES && r != 0; i++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(d->name, sizeof(d->name), "loop%d", number);
		snprintf(d->path, sizeof(d->path), "/dev/loop%d", number);
		d->fd = open(d->path, O_RDWR | O_DIRECT | O_CLOEXEC);
		struct loop_config config = {.fd = (uint32_t)backing, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
		if (d->fd < 0) {
			r = -errno;
			break;
		}
		if (ioctl(d->fd, LOOP_CONFIGURE, &config) == 0) {
			r = 0;
		} else {
			r = -errno;
			close(d->fd);
			d->fd = -1;
			if (r != -EBUSY)
				break;
		}
	}
	close(control);
	return r;
}

static inline int loop_disk_in_memory(struct loop_disk *d, uint64_t size_bytes)
{
	int backing = memfd_create("lifeboat-test-disk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (backing < 0 || ftruncate(backing, (off_t)size_bytes) < 0)
		return -errno;
	return loop_disk_make(d, backing, size_bytes);
}

static inline void loop_disk_end(struct loop_disk *d)
{
	if (d->fd >= 0)
		close(d->fd);
	if (d->backing >= 0)
		close(d->backing);
	*d = (struct loop_disk){.fd = -1, .backing = -1};
}
