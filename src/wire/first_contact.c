/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/first_contact.h"

#include <errno.h>

#include <openssl/ssl.h>

#include "base/err.h"
#include "wire/x509.h"

LB_DEFINE_CLEANUP(X509_STORE *, X509_STORE_free);
LB_DEFINE_CLEANUP(X509_STORE_CTX *, X509_STORE_CTX_free);

static X509 *find_anchor(STACK_OF(X509) * chain, const struct lb_digest *ca)
{
	struct lb_digest digest;
	X509 *found = NULL;

	for (int i = 0; i < sk_X509_num(chain); i++) {
		X509 *cert = sk_X509_value(chain, i);

		if (X509_digest(cert, EVP_sha256(), digest.bytes, NULL) == 1 &&
		    lb_equal_ct(digest.bytes, ca->bytes, LB_DIGEST_BYTES) && X509_check_ca(cert) == 1)
			found = cert;
	}
	return found;
}

/* OpenSSL's own verification of the peer's chain, with the anchor that the fingerprint names. */
static int verify(X509_STORE_CTX *given, void *arg)
{
	_cleanup_(X509_STORE_freep) X509_STORE *store = X509_STORE_new();
	_cleanup_(X509_STORE_CTX_freep) X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_untrusted(given);
	X509 *anchor = find_anchor(chain, arg);
	int ok = 0;

	if (anchor == NULL) {
		X509_STORE_CTX_set_error(given, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN);
		return 0;
	}
	if (store == NULL || ctx == NULL || X509_STORE_add_cert(store, anchor) != 1 ||
	    X509_STORE_CTX_init(ctx, store, X509_STORE_CTX_get0_cert(given), chain) != 1 ||
	    X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_SERVER) != 1) {
		X509_STORE_CTX_set_error(given, X509_V_ERR_OUT_OF_MEM);
		return 0;
	}
	ok = X509_verify_cert(ctx) == 1;
	X509_STORE_CTX_set_error(given, ok ? X509_V_OK : X509_STORE_CTX_get_error(ctx));
	return ok;
}

static CURLcode use_verify(CURL *curl, void *ssl_ctx, void *arg)
{
	(void)curl;
	SSL_CTX_set_cert_verify_callback(ssl_ctx, verify, arg);
	return CURLE_OK;
}

int lb_first_contact(CURL *curl, const struct lb_digest *ca)
{
	if (curl_easy_setopt(curl, CURLOPT_SSL_CTX_FUNCTION, use_verify) != CURLE_OK ||
	    curl_easy_setopt(curl, CURLOPT_SSL_CTX_DATA, (void *)ca) != CURLE_OK)
		return lb_fail(-EOPNOTSUPP, "this libcurl can't check a fingerprint at first contact; install libcurl4 "
					    "(its OpenSSL flavour)");
	return 0;
}
