/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/peer.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include <gnutls/x509.h>

#include "base/bytes.h"
#include "base/err.h"

struct lb_peer_trust {
	gnutls_x509_trust_list_t list;
};

static void crt_deinitp(gnutls_x509_crt_t *crt)
{
	if (*crt != NULL)
		gnutls_x509_crt_deinit(*crt);
}

int lb_peer_trust_new(const char *ca_pem, struct lb_peer_trust **ret_trust)
{
	gnutls_datum_t pem = {(unsigned char *)ca_pem, (unsigned int)strlen(ca_pem)};
	struct lb_peer_trust *trust = calloc(1, sizeof(*trust));

	if (trust == NULL || gnutls_x509_trust_list_init(&trust->list, 0) < 0) {
		free(trust);
		return lb_fail(-ENOMEM, "out of memory for the list of trusted authorities");
	}
	if (gnutls_x509_trust_list_add_trust_mem(trust->list, &pem, NULL, GNUTLS_X509_FMT_PEM, 0, 0) != 1) {
		lb_peer_trust_free(trust);
		return lb_fail(-EBADMSG, "ca.pem must hold exactly one certificate authority");
	}
	*ret_trust = trust;
	return 0;
}

void lb_peer_trust_free(struct lb_peer_trust *trust)
{
	gnutls_x509_trust_list_deinit(trust->list, 1);
	free(trust);
}

static int check_signature(struct lb_peer_trust *trust, gnutls_x509_crt_t crt, unsigned int flags,
			   unsigned int *ret_status)
{
	gnutls_typed_vdata_st purpose = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
					 .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT};

	if (gnutls_x509_trust_list_verify_crt2(trust->list, &crt, 1, &purpose, 1, flags, ret_status, NULL) < 0)
		return lb_fail(-EACCES, "a client certificate can't be verified");
	return 0;
}

static int check_chain(struct lb_peer_trust *trust, gnutls_x509_crt_t crt, bool *ret_expired)
{
	unsigned int status = GNUTLS_CERT_INVALID;
	bool expired = false;
	int r;

	r = check_signature(trust, crt, 0, &status);
	if (r == 0 && (status & GNUTLS_CERT_EXPIRED) && !(status & GNUTLS_CERT_NOT_ACTIVATED)) {
		expired = true;
		r = check_signature(trust, crt, GNUTLS_VERIFY_DISABLE_TIME_CHECKS, &status);
	}
	if (r < 0)
		return r;
	if (status & GNUTLS_CERT_NOT_ACTIVATED)
		return lb_fail(-EACCES, "the client certificate is not valid yet; compare the clocks of both machines");
	if (status != 0)
		return lb_fail(
			-EACCES,
			"the client certificate is not of this site's certificate authority; enrol at this site");
	*ret_expired = expired;
	return 0;
}

static int read_subject(gnutls_x509_crt_t crt, struct lb_http_peer *peer)
{
	char role[LB_SUBJECT_BYTES];
	size_t role_bytes = sizeof(role), name_bytes = sizeof(peer->name);

	if (gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, peer->name, &name_bytes) < 0 ||
	    gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_ORGANIZATIONAL_UNIT_NAME, 0, 0, role, &role_bytes) < 0)
		return lb_fail(-EACCES, "the client certificate doesn't say who it is for");
	peer->role = lb_role_parse(role);
	if (peer->role == LB_ROLE_NONE)
		return lb_fail(-EACCES, "the client certificate has no role that is known here");
	return 0;
}

int lb_peer_read(struct lb_peer_trust *trust, gnutls_session_t session, int64_t now_ns, struct lb_http_peer *ret_peer,
		 int64_t *ret_until_ns)
{
	_cleanup_(crt_deinitp) gnutls_x509_crt_t crt = NULL;
	struct lb_http_peer peer = *ret_peer;
	const gnutls_datum_t *certs;
	unsigned int n = 0;
	time_t until_s;
	int r;

	peer.role = LB_ROLE_NONE;
	certs = gnutls_certificate_get_peers(session, &n);
	if (certs == NULL || n == 0) {
		*ret_peer = peer;
		*ret_until_ns = INT64_MAX;
		return 0;
	}
	if (gnutls_x509_crt_init(&crt) < 0)
		return lb_fail(-ENOMEM, "out of memory for a client certificate");
	if (gnutls_x509_crt_import(crt, &certs[0], GNUTLS_X509_FMT_DER) < 0)
		return lb_fail(-EACCES, "the client certificate is malformed");
	r = check_chain(trust, crt, &peer.expired);
	if (r == 0)
		r = read_subject(crt, &peer);
	if (r == 0)
		r = lb_sha256(certs[0].data, certs[0].size, &peer.fingerprint);
	if (r < 0)
		return r;
	until_s = gnutls_x509_crt_get_expiration_time(crt);
	*ret_until_ns = peer.expired || until_s < 0 ? now_ns : (int64_t)until_s * LB_NS_PER_S;
	*ret_peer = peer;
	return 0;
}
