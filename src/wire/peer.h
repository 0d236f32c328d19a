/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Who is at the other end of a TLS session: the check that libmicrohttpd leaves to us. Inside src/wire. */
#include <gnutls/gnutls.h>

#include "wire/server.h"

struct lb_peer_trust;

/* The CA that vouches for peers, from `ca_pem` (text). Used by many threads at once. */
int lb_peer_trust_new(const char *ca_pem, struct lb_peer_trust **ret_trust);
void lb_peer_trust_free(struct lb_peer_trust *trust);

/*
 * Role, name and fingerprint by the session's client certificate; LB_ROLE_NONE when it showed none. -EACCES when the
 * certificate is not our CA's, not for clients, not valid yet, or names no role. An expired one is told by `expired`.
 * `ret_until_ns`: when the answer must be asked for again.
 */
int lb_peer_read(struct lb_peer_trust *trust, gnutls_session_t session, int64_t now_ns, struct lb_http_peer *ret_peer,
		 int64_t *ret_until_ns);
