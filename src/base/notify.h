/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Tells the service manager how a daemon stands, by the datagram socket that $NOTIFY_SOCKET names. */

/*
 * Sends one state line ("READY=1", "STOPPING=1", "STATUS=..."). 0 when sent, and when nobody asked; a negative errno
 * with text when the socket refused it. Thread-safe as long as nobody changes the environment.
 */
int lb_notify(const char *state);
