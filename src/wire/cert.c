/* SPDX-License-Identifier: Apache-2.0 */
/* Reading certificates: whom they name, until when, their fingerprint. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include <openssl/err.h>

#include "base/bytes.h"
#include "base/err.h"
#include "wire/pki.h"
#include "wire/x509.h"

static int fingerprint_of(X509 *cert, struct lb_digest *ret_fingerprint)
{
	struct lb_digest digest;

	if (X509_digest(cert, EVP_sha256(), digest.bytes, NULL) != 1)
		return lb_x509_fail(-EIO, "can't take a certificate's fingerprint");
	*ret_fingerprint = digest;
	return 0;
}

int lb_cert_fingerprint(const char *pem, struct lb_digest *ret_fingerprint)
{
	_cleanup_(X509_freep) X509 *cert = NULL;
	int r;

	r = lb_x509_load(lb_env_real(), pem, &cert);
	if (r < 0)
		return r;
	return fingerprint_of(cert, ret_fingerprint);
}

static int time_of(const ASN1_TIME *time, int64_t *ret_ns)
{
	struct tm tm;

	if (ASN1_TIME_to_tm(time, &tm) != 1)
		return lb_x509_fail(-EBADMSG, "a certificate has no readable time");
	*ret_ns = (int64_t)timegm(&tm) * LB_NS_PER_S;
	return 0;
}

int lb_cert_read(struct lb_env *env, const char *pem, struct lb_cert_info *ret_info)
{
	_cleanup_(X509_freep) X509 *cert = NULL;
	struct lb_cert_info info = {0};
	char role[LB_SUBJECT_BYTES];
	int r;

	r = lb_x509_load(env, pem, &cert);
	if (r == 0)
		r = fingerprint_of(cert, &info.fingerprint);
	if (r == 0)
		r = time_of(X509_get0_notBefore(cert), &info.not_before_ns);
	if (r == 0)
		r = time_of(X509_get0_notAfter(cert), &info.not_after_ns);
	if (r < 0)
		return r;
	if (X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, info.common_name,
				      sizeof(info.common_name)) < 0)
		return lb_fail(-EBADMSG, "a certificate names nobody");
	if (X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_organizationalUnitName, role, sizeof(role)) >= 0)
		info.role = lb_role_parse(role);
	*ret_info = info;
	return 0;
}

bool lb_cert_renewal_due(const struct lb_cert_info *info, int64_t now_ns)
{
	int64_t life_ns = info->not_after_ns - info->not_before_ns;

	return now_ns >= info->not_before_ns + life_ns / 3 * 2;
}
