/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/peer_client.h"

#include <errno.h>
#include <string.h>

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/err.h"
#include "wire/pki.h"

static bool names(X509 *cert, int nid, const char *text)
{
	char value[LB_SUBJECT_BYTES];
	X509_NAME *subject = X509_get_subject_name(cert);
	int n = X509_NAME_get_text_by_NID(subject, nid, value, sizeof(value));

	return n > 0 && (size_t)n == strlen(text) && strcmp(value, text) == 0;
}

/* OpenSSL's own verification, for the purpose that a machine's certificate has, and then whose it is. */
static int verify(X509_STORE_CTX *ctx, void *arg)
{
	X509 *cert = X509_STORE_CTX_get0_cert(ctx);

	if (X509_VERIFY_PARAM_set_purpose(X509_STORE_CTX_get0_param(ctx), X509_PURPOSE_SSL_CLIENT) != 1) {
		X509_STORE_CTX_set_error(ctx, X509_V_ERR_OUT_OF_MEM);
		return 0;
	}
	if (X509_verify_cert(ctx) != 1)
		return 0;
	if (cert != NULL && names(cert, NID_commonName, arg) &&
	    names(cert, NID_organizationalUnitName, lb_role_name(LB_ROLE_MACHINE)))
		return 1;
	X509_STORE_CTX_set_error(ctx, X509_V_ERR_HOSTNAME_MISMATCH);
	return 0;
}

static CURLcode use_verify(CURL *curl, void *ssl_ctx, void *arg)
{
	(void)curl;
	SSL_CTX_set_cert_verify_callback(ssl_ctx, verify, arg);
	return CURLE_OK;
}

int lb_peer_client(CURL *curl, const char *name)
{
	if (curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L) != CURLE_OK ||
	    curl_easy_setopt(curl, CURLOPT_SSL_CTX_FUNCTION, use_verify) != CURLE_OK ||
	    curl_easy_setopt(curl, CURLOPT_SSL_CTX_DATA, (void *)name) != CURLE_OK)
		return lb_fail(-EOPNOTSUPP,
			       "this libcurl can't check another machine's certificate; install libcurl4 (its "
			       "OpenSSL flavour)");
	return 0;
}
