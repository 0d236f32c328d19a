/* SPDX-License-Identifier: Apache-2.0 */
/* The holder's side: roles by name, a key of one's own, requests, and keeping what the CA answered. */
#include "wire/pki.h"

#include <errno.h>
#include <string.h>

#include <openssl/pem.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/text.h"
#include "wire/x509.h"

static const char *const role_names[] = {
	[LB_ROLE_NONE] = "none",           [LB_ROLE_CONFIG] = "config", [LB_ROLE_PROCESS] = "process",
	[LB_ROLE_MACHINE] = "machine",     [LB_ROLE_READER] = "reader", [LB_ROLE_OPERATOR] = "operator",
	[LB_ROLE_ADMIN] = "administrator", [LB_ROLE_TARGET] = "target",
};

const char *lb_role_name(enum lb_role role)
{
	return (size_t)role < LB_ARRAY_LEN(role_names) ? role_names[role] : role_names[LB_ROLE_NONE];
}

enum lb_role lb_role_parse(const char *name)
{
	for (size_t i = LB_ROLE_NONE + 1; i < LB_ARRAY_LEN(role_names); i++)
		if (strcmp(name, role_names[i]) == 0)
			return (enum lb_role)i;
	return LB_ROLE_NONE;
}

static int key_open_or_make(struct lb_env *env, const char *folder, EVP_PKEY **ret_key)
{
	char path[LB_IDENTITY_PATH_BYTES];
	int r;

	r = lb_x509_path(path, folder, "key.pem");
	if (r == 0)
		r = lb_folder_make(env, folder, 0700);
	if (r < 0)
		return r;
	r = lb_x509_load_key(env, path, ret_key);
	if (r != -ENOENT)
		return r;
	r = lb_x509_new_key(env, path, ret_key);
	return r == -EEXIST ? lb_x509_load_key(env, path, ret_key) : r;
}

int lb_pki_request(struct lb_env *env, const char *folder, const char *common_name, char **ret_csr_pem)
{
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *key = NULL;
	_cleanup_(X509_REQ_freep) X509_REQ *request = NULL;
	_cleanup_(X509_NAME_freep) X509_NAME *name = NULL;
	_cleanup_(BIO_free_allp) BIO *bio = NULL;
	int r;

	r = key_open_or_make(env, folder, &key);
	if (r < 0)
		return r;
	request = X509_REQ_new();
	name = X509_NAME_new();
	bio = BIO_new(BIO_s_mem());
	if (request == NULL || name == NULL || bio == NULL)
		return lb_fail(-ENOMEM, "out of memory for a certificate request");
	if (X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1, 0) != 1 ||
	    X509_REQ_set_version(request, X509_REQ_VERSION_1) != 1 || X509_REQ_set_subject_name(request, name) != 1 ||
	    X509_REQ_set_pubkey(request, key) != 1 || X509_REQ_sign(request, key, EVP_sha256()) <= 0 ||
	    PEM_write_bio_X509_REQ(bio, request) != 1)
		return lb_x509_fail(-EIO, "can't make a certificate request for \"%.64s\"", common_name);
	return lb_x509_text(bio, ret_csr_pem);
}

/* The CA that answered is the one we mean: by fingerprint, or the one we have. */
static int check_ca(const char *ca_path, const char *ca_pem, const char *ca_fingerprint_hex)
{
	struct lb_digest given, expected;
	int r;

	r = lb_cert_fingerprint(ca_pem, &given);
	if (r < 0)
		return r;
	if (ca_fingerprint_hex != NULL)
		r = lb_hex_decode(ca_fingerprint_hex, LB_DIGEST_BYTES, expected.bytes);
	else
		r = lb_cert_fingerprint(ca_path, &expected);
	if (r < 0)
		return lb_wrap(r, "the expected certificate authority");
	if (!lb_equal_ct(given.bytes, expected.bytes, LB_DIGEST_BYTES))
		return lb_fail(-EACCES,
			       "the certificate authority is another one than expected; compare its fingerprint with "
			       "what the configuration server prints at `lifeboat setup`");
	return 0;
}

int lb_pki_install(struct lb_env *env, const char *folder, const char *cert_pem, const char *ca_pem,
		   const char *ca_fingerprint_hex)
{
	_cleanup_(X509_freep) X509 *cert = NULL, *ca = NULL;
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *key = NULL;
	char key_path[LB_IDENTITY_PATH_BYTES], cert_path[LB_IDENTITY_PATH_BYTES], ca_path[LB_IDENTITY_PATH_BYTES];
	int r;

	r = lb_x509_path(key_path, folder, "key.pem");
	if (r == 0)
		r = lb_x509_path(cert_path, folder, "cert.pem");
	if (r == 0)
		r = lb_x509_path(ca_path, folder, "ca.pem");
	if (r == 0)
		r = check_ca(ca_path, ca_pem, ca_fingerprint_hex);
	if (r == 0)
		r = lb_x509_load(env, ca_pem, &ca);
	if (r == 0)
		r = lb_x509_load(env, cert_pem, &cert);
	if (r == 0)
		r = lb_x509_load_key(env, key_path, &key);
	if (r < 0)
		return r;
	if (X509_verify(cert, X509_get0_pubkey(ca)) != 1)
		return lb_x509_fail(-EACCES,
				    "the certificate that was issued is not signed by its certificate authority");
	if (X509_check_private_key(cert, key) != 1)
		return lb_x509_fail(-EACCES, "the certificate that was issued is for another key than %s", key_path);
	r = lb_file_write(env, ca_path, ca_pem, strlen(ca_pem), 0644);
	if (r < 0)
		return r;
	return lb_file_write(env, cert_path, cert_pem, strlen(cert_pem), 0644);
}
