/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A machine that calls another machine: what answers must show a certificate of our CA that names exactly that machine.
 * Machines' certificates are for clients and name no host: the name and the role stand in the place of the host's.
 * Inside src/wire.
 */
#include <curl/curl.h>

/* `name`: the certificate's CN; must outlive the handle. */
int lb_peer_client(CURL *curl, const char *name);
