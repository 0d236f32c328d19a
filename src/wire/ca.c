/* SPDX-License-Identifier: Apache-2.0 */
/* The site's certificate authority: one self-signed P-256 certificate that signs everybody's. */
#include <errno.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/text.h"
#include "wire/pki.h"
#include "wire/x509.h"

#define SERIAL_BYTES 16
#define SAN_BYTES_MAX (8u << 10)
#define SECONDS_PER_DAY 86400

static int set_serial(struct lb_env *env, X509 *cert)
{
	_cleanup_(BN_freep) BIGNUM *number = NULL;
	uint8_t bytes[SERIAL_BYTES];
	int r;

	r = env->ops->random(env, bytes, sizeof(bytes));
	if (r < 0)
		return lb_fail(r, "no random bytes for a certificate's serial number: %s", strerror(-r));
	bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive and of full length */
	number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	if (number == NULL || BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) == NULL)
		return lb_x509_fail(-EIO, "can't set a certificate's serial number");
	return 0;
}

static int set_times(X509 *cert, int64_t now_ns, uint32_t valid_days)
{
	time_t now_s = (time_t)(now_ns / LB_NS_PER_S);

	if (ASN1_TIME_set(X509_getm_notBefore(cert), now_s - LB_CERT_BACKDATE_S) == NULL ||
	    ASN1_TIME_set(X509_getm_notAfter(cert), now_s + (time_t)valid_days * SECONDS_PER_DAY) == NULL)
		return lb_x509_fail(-EIO, "can't set a certificate's times");
	return 0;
}

static int set_subject(X509 *cert, const char *common_name, const char *unit)
{
	X509_NAME *name = X509_get_subject_name(cert);

	if (strlen(common_name) >= LB_SUBJECT_BYTES || *common_name == '\0')
		return lb_fail(-EINVAL, "a certificate's name must have 1 to %d characters", LB_SUBJECT_BYTES - 1);
	if (X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1, 0) != 1 ||
	    X509_NAME_add_entry_by_txt(name, "OU", MBSTRING_UTF8, (const unsigned char *)unit, -1, -1, 0) != 1)
		return lb_x509_fail(-EINVAL, "\"%.64s\" can't be a certificate's name", common_name);
	return 0;
}

static int add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509_EXTENSION *extension;
	X509V3_CTX ctx;
	int ok;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	if (extension == NULL)
		return lb_x509_fail(-EINVAL, "a certificate can't say \"%.200s\"", value);
	ok = X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
	return ok == 1 ? 0 : lb_x509_fail(-EIO, "can't extend a certificate");
}

static int write_cert(struct lb_env *env, const char *path, X509 *cert)
{
	_cleanup_(BIO_free_allp) BIO *bio = BIO_new(BIO_s_mem());
	_cleanup_free_ char *text = NULL;
	int r;

	if (bio == NULL || PEM_write_bio_X509(bio, cert) != 1)
		return lb_x509_fail(-EIO, "can't write %s", path);
	r = lb_x509_text(bio, &text);
	if (r < 0)
		return r;
	return lb_file_write(env, path, text, strlen(text), 0644);
}

static int make_ca_cert(struct lb_env *env, EVP_PKEY *key, int64_t now_ns, X509 **ret_cert)
{
	_cleanup_(X509_freep) X509 *cert = X509_new();
	int r;

	if (cert == NULL || X509_set_version(cert, X509_VERSION_3) != 1 || X509_set_pubkey(cert, key) != 1)
		return lb_x509_fail(-EIO, "can't make the certificate authority");
	r = set_serial(env, cert);
	if (r == 0)
		r = set_times(cert, now_ns, LB_CA_VALID_DAYS);
	if (r == 0)
		r = set_subject(cert, "Lifeboat site authority", "authority");
	if (r < 0)
		return r;
	if (X509_set_issuer_name(cert, X509_get_subject_name(cert)) != 1)
		return lb_x509_fail(-EIO, "can't make the certificate authority");
	r = add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
	if (r == 0)
		r = add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign");
	if (r == 0)
		r = add_extension(cert, cert, NID_subject_key_identifier, "hash");
	if (r < 0)
		return r;
	if (X509_sign(cert, key, EVP_sha256()) <= 0)
		return lb_x509_fail(-EIO, "can't sign the certificate authority");
	*ret_cert = lb_steal_ptr(cert);
	return 0;
}

static int ca_load(struct lb_env *env, const char *folder, X509 **ret_cert, EVP_PKEY **ret_key)
{
	_cleanup_(X509_freep) X509 *cert = NULL;
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *key = NULL;
	char path[LB_IDENTITY_PATH_BYTES];
	int r;

	r = lb_x509_path(path, folder, "ca-key.pem");
	if (r == 0)
		r = lb_x509_load_key(env, path, &key);
	if (r < 0)
		return r;
	r = lb_x509_path(path, folder, "ca.pem");
	if (r == 0)
		r = lb_x509_load(env, path, &cert);
	if (r < 0)
		return r;
	if (X509_check_private_key(cert, key) != 1)
		return lb_x509_fail(-EBADMSG,
				    "%s/ca.pem and ca-key.pem don't belong together; restore both from one backup",
				    folder);
	*ret_cert = lb_steal_ptr(cert);
	*ret_key = lb_steal_ptr(key);
	return 0;
}

int lb_ca_open(struct lb_env *env, const char *folder, int64_t now_ns)
{
	_cleanup_(X509_freep) X509 *cert = NULL, *made = NULL;
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *key = NULL;
	char key_path[LB_IDENTITY_PATH_BYTES], cert_path[LB_IDENTITY_PATH_BYTES];
	int r;

	r = lb_x509_path(key_path, folder, "ca-key.pem");
	if (r == 0)
		r = lb_x509_path(cert_path, folder, "ca.pem");
	if (r == 0)
		r = lb_folder_make(env, folder, 0700);
	if (r < 0)
		return r;
	/* The key is made first: a key without its certificate was left by a crash in between. */
	r = lb_x509_load_key(env, key_path, &key);
	if (r == -ENOENT) {
		_cleanup_free_ uint8_t *there = NULL;
		size_t size_bytes;

		if (lb_file_read(env, cert_path, LB_PEM_BYTES_MAX, &there, &size_bytes) == 0)
			return lb_fail(-ENOKEY,
				       "%s has a certificate authority but its key ca-key.pem is gone; restore it "
				       "from a backup, or move ca.pem away and enrol every machine again",
				       folder);
		r = lb_x509_new_key(env, key_path, &key);
	}
	if (r < 0)
		return r;
	r = lb_x509_load(env, cert_path, &cert);
	if (r == -ENOENT) {
		r = make_ca_cert(env, key, now_ns, &made);
		if (r == 0)
			r = write_cert(env, cert_path, made);
	}
	if (r < 0)
		return r;
	X509_free(cert);
	EVP_PKEY_free(key);
	cert = NULL;
	key = NULL;
	return ca_load(env, folder, &cert, &key);
}

/* Only curves that every TLS 1.3 peer of ours speaks: what we make ourselves is P-256. */
static int check_request_key(EVP_PKEY *key)
{
	char group[32];
	size_t length;

	if (!EVP_PKEY_is_a(key, "EC") || EVP_PKEY_get_group_name(key, group, sizeof(group), &length) != 1 ||
	    (strcmp(group, "prime256v1") != 0 && strcmp(group, "secp384r1") != 0))
		return lb_fail(-EINVAL, "a certificate request's key must be ECDSA on P-256 or P-384");
	return 0;
}

static int read_request(const char *csr_pem, EVP_PKEY **ret_key)
{
	_cleanup_(BIO_free_allp) BIO *bio = NULL;
	_cleanup_(X509_REQ_freep) X509_REQ *request = NULL;
	size_t size_bytes = strnlen(csr_pem, LB_PEM_BYTES_MAX + 1);
	EVP_PKEY *key;
	int r;

	if (size_bytes > LB_PEM_BYTES_MAX)
		return lb_fail(-EINVAL, "a certificate request may have %u bytes at most", LB_PEM_BYTES_MAX);
	bio = BIO_new_mem_buf(csr_pem, (int)size_bytes);
	request = bio != NULL ? PEM_read_bio_X509_REQ(bio, NULL, NULL, (void *)"") : NULL;
	key = request != NULL ? X509_REQ_get0_pubkey(request) : NULL;
	if (key == NULL)
		return lb_x509_fail(-EINVAL, "that is no certificate request");
	r = check_request_key(key);
	if (r < 0)
		return r;
	if (X509_REQ_verify(request, key) != 1)
		return lb_x509_fail(-EINVAL, "the certificate request was altered: its own signature is wrong");
	EVP_PKEY_up_ref(key);
	*ret_key = key;
	return 0;
}

int lb_pki_request_key(const char *csr_pem, struct lb_digest *ret_key)
{
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *key = NULL;
	unsigned char *der = NULL;
	int n, r;

	r = read_request(csr_pem, &key);
	if (r < 0)
		return r;
	n = i2d_PUBKEY(key, &der);
	if (n <= 0)
		return lb_x509_fail(-EIO, "can't read the key of a certificate request");
	r = lb_sha256(der, (size_t)n, ret_key);
	OPENSSL_free(der);
	return r;
}

static int add_san(X509 *cert, X509 *ca, const char *const *san)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(SAN_BYTES_MAX);
	int r = 0;

	for (size_t i = 0; r == 0 && san[i] != NULL; i++) {
		if (strpbrk(san[i], ", \n") != NULL)
			return lb_fail(-EINVAL, "\"%.80s\" can't be a server's name", san[i]);
		r = lb_buf_printf(&text, "%s%s", i > 0 ? "," : "", san[i]);
	}
	if (r < 0 || text.size_bytes == 0)
		return r;
	return add_extension(cert, ca, NID_subject_alt_name, (const char *)text.data);
}

static int add_leaf_extensions(X509 *cert, X509 *ca, const struct lb_issue *issue)
{
	bool server = issue->role == LB_ROLE_CONFIG || issue->role == LB_ROLE_PROCESS;
	int r;

	r = add_extension(cert, ca, NID_basic_constraints, "critical,CA:FALSE");
	if (r == 0)
		r = add_extension(cert, ca, NID_key_usage, "critical,digitalSignature");
	if (r == 0)
		r = add_extension(cert, ca, NID_ext_key_usage, server ? "serverAuth,clientAuth" : "clientAuth");
	if (r == 0)
		r = add_extension(cert, ca, NID_subject_key_identifier, "hash");
	if (r == 0)
		r = add_extension(cert, ca, NID_authority_key_identifier, "keyid:always");
	if (r == 0 && issue->san != NULL)
		r = add_san(cert, ca, issue->san);
	return r;
}

static int issue_cert(struct lb_env *env, X509 *ca, EVP_PKEY *ca_key, EVP_PKEY *key, const struct lb_issue *issue,
		      X509 **ret_cert)
{
	_cleanup_(X509_freep) X509 *cert = X509_new();
	int r;

	if (issue->role == LB_ROLE_NONE || issue->valid_days == 0 || issue->valid_days > LB_CA_VALID_DAYS)
		return lb_fail(-EINVAL, "a certificate needs a role and a life of 1 to %d days", LB_CA_VALID_DAYS);
	if (cert == NULL || X509_set_version(cert, X509_VERSION_3) != 1 || X509_set_pubkey(cert, key) != 1 ||
	    X509_set_issuer_name(cert, X509_get_subject_name(ca)) != 1)
		return lb_x509_fail(-EIO, "can't make a certificate for \"%.64s\"", issue->common_name);
	r = set_serial(env, cert);
	if (r == 0)
		r = set_times(cert, issue->now_ns, issue->valid_days);
	if (r == 0)
		r = set_subject(cert, issue->common_name, lb_role_name(issue->role));
	if (r == 0)
		r = add_leaf_extensions(cert, ca, issue);
	if (r < 0)
		return r;
	if (X509_sign(cert, ca_key, EVP_sha256()) <= 0)
		return lb_x509_fail(-EIO, "can't sign the certificate of \"%.64s\"", issue->common_name);
	*ret_cert = lb_steal_ptr(cert);
	return 0;
}

int lb_ca_issue(struct lb_env *env, const char *folder, const char *csr_pem, const struct lb_issue *issue,
		char **ret_cert_pem)
{
	_cleanup_(X509_freep) X509 *ca = NULL, *cert = NULL;
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *ca_key = NULL, *key = NULL;
	_cleanup_(BIO_free_allp) BIO *bio = NULL;
	int r;

	r = read_request(csr_pem, &key);
	if (r == 0)
		r = ca_load(env, folder, &ca, &ca_key);
	if (r == 0)
		r = issue_cert(env, ca, ca_key, key, issue, &cert);
	if (r < 0)
		return r;
	bio = BIO_new(BIO_s_mem());
	if (bio == NULL || PEM_write_bio_X509(bio, cert) != 1)
		return lb_x509_fail(-EIO, "can't write the certificate of \"%.64s\"", issue->common_name);
	return lb_x509_text(bio, ret_cert_pem);
}

int lb_ca_issue_here(struct lb_env *env, const char *ca_folder, const char *identity_folder,
		     const struct lb_issue *issue)
{
	_cleanup_free_ char *csr_pem = NULL, *cert_pem = NULL;
	_cleanup_free_ uint8_t *ca_pem = NULL;
	char path[LB_IDENTITY_PATH_BYTES], fingerprint_hex[2 * LB_DIGEST_BYTES + 1];
	struct lb_digest fingerprint;
	size_t size_bytes;
	int r;

	r = lb_pki_request(env, identity_folder, issue->common_name, &csr_pem);
	if (r == 0)
		r = lb_ca_issue(env, ca_folder, csr_pem, issue, &cert_pem);
	if (r == 0)
		r = lb_x509_path(path, ca_folder, "ca.pem");
	if (r == 0)
		r = lb_file_read(env, path, LB_PEM_BYTES_MAX, &ca_pem, &size_bytes);
	if (r == 0)
		r = lb_cert_fingerprint((const char *)ca_pem, &fingerprint);
	if (r < 0)
		return r;
	lb_hex_encode(fingerprint.bytes, LB_DIGEST_BYTES, fingerprint_hex);
	return lb_pki_install(env, identity_folder, cert_pem, (const char *)ca_pem, fingerprint_hex);
}
