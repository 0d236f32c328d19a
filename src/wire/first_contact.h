/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * First contact: a server whose CA we don't have yet, only its fingerprint, as the operator copied it. Inside src/wire.
 * The server shows its CA in its chain; the one certificate there whose SHA-256 is the fingerprint (compared in
 * constant time) becomes the only anchor, and the chain, its times, purpose and host name are then checked as always -
 * in the handshake of the very connection that is used.
 */
#include <curl/curl.h>

#include "base/crypto.h"

/* `ca` must outlive the handle. -EOPNOTSUPP when this libcurl is not built with OpenSSL. */
int lb_first_contact(CURL *curl, const struct lb_digest *ca);
