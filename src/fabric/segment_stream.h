/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Devices of a segment whose VM can't take a descriptor (libvirt starts it): its QEMU connects to a socket, and
 * Ethernet frames go over that, each after its length (4 bytes, big-endian): -netdev stream. The device lives as long
 * as the connection. One thread; nothing here waits but what lb_streams_wait() polls.
 */
#include <poll.h>
#include <stdbool.h>

#define LB_STREAMS_MAX 128
#define LB_STREAM_NAME_BYTES 16
#define LB_STREAM_COME_S 120 /* for the QEMU to connect */

struct lb_streams;
/* NULL: out of memory. */
struct lb_streams *lb_streams_new(void);
/*
 * Takes both descriptors over, also on failure: a listening socket for one QEMU, and the device of that name. -EMFILE
 * beyond LB_STREAMS_MAX, -ENOMEM.
 */
int lb_streams_add(struct lb_streams *s, const char *name, int listener, int tap);
/* Lets the device of that name go, whose VM has another try. */
void lb_streams_drop(struct lb_streams *s, const char *name);
/* Carries frames until `fd` can be read (true) or the time is over. */
bool lb_streams_wait(struct lb_streams *s, int fd, int wait_ms);
