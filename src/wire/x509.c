/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/x509.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/io.h"
#include "wire/pki.h"

int lb_x509_fail(int code, const char *fmt, ...)
{
	char text[512], detail[200];
	unsigned long error = ERR_peek_last_error();
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ERR_clear_error();
	if (error == 0)
		return lb_fail(code, "%s", text);
	ERR_error_string_n(error, detail, sizeof(detail));
	return lb_fail(code, "%s (%s)", text, detail);
}

int lb_x509_path(char path[LB_IDENTITY_PATH_BYTES], const char *folder, const char *file)
{
	if (snprintf(path, LB_IDENTITY_PATH_BYTES, "%s/%s", folder, file) >= LB_IDENTITY_PATH_BYTES)
		return lb_fail(-ENAMETOOLONG, "identity folder has too long a path: %.80s...", folder);
	return 0;
}

static bool is_text(const char *pem)
{
	return strncmp(pem, "-----", 5) == 0;
}

int lb_x509_load(struct lb_env *env, const char *pem, X509 **ret_cert)
{
	_cleanup_free_ uint8_t *file = NULL;
	_cleanup_(BIO_free_allp) BIO *bio = NULL;
	const char *what = is_text(pem) ? "certificate text" : pem;
	size_t size_bytes;
	X509 *cert;
	int r;

	if (!is_text(pem)) {
		r = lb_file_read(env, pem, LB_PEM_BYTES_MAX, &file, &size_bytes);
		if (r < 0)
			return r;
	} else {
		size_bytes = strnlen(pem, LB_PEM_BYTES_MAX + 1);
		if (size_bytes > LB_PEM_BYTES_MAX)
			return lb_fail(-EMSGSIZE, "certificate text is longer than %u bytes", LB_PEM_BYTES_MAX);
	}
	bio = BIO_new_mem_buf(file != NULL ? (const char *)file : pem, (int)size_bytes);
	cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, (void *)"") : NULL;
	if (cert == NULL)
		return lb_x509_fail(-EBADMSG, "%s is not a PEM certificate", what);
	*ret_cert = cert;
	return 0;
}

int lb_x509_load_key(struct lb_env *env, const char *path, EVP_PKEY **ret_key)
{
	_cleanup_free_ uint8_t *file = NULL;
	_cleanup_(BIO_free_allp) BIO *bio = NULL;
	size_t size_bytes;
	EVP_PKEY *key;
	int r;

	r = lb_file_read(env, path, LB_PEM_BYTES_MAX, &file, &size_bytes);
	if (r < 0)
		return r;
	bio = BIO_new_mem_buf(file, (int)size_bytes);
	/* the empty passphrase: never ask at a terminal */
	key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL;
	lb_wipe(file, size_bytes);
	if (key == NULL)
		return lb_x509_fail(-EBADMSG, "%s is not a PEM private key", path);
	*ret_key = key;
	return 0;
}

int lb_x509_text(BIO *bio, char **ret_text)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_PEM_BYTES_MAX);
	char *data;
	long n = BIO_get_mem_data(bio, &data);
	int r;

	r = lb_buf_append(&text, data, (size_t)n);
	if (r < 0)
		return r;
	*ret_text = (char *)lb_buf_steal(&text);
	return 0;
}

int lb_x509_new_key(struct lb_env *env, const char *path, EVP_PKEY **ret_key)
{
	_cleanup_(EVP_PKEY_freep) EVP_PKEY *key = EVP_EC_gen("P-256");
	_cleanup_(BIO_free_allp) BIO *bio = BIO_new(BIO_s_secmem());
	char *data;
	long n;
	int r;

	if (key == NULL || bio == NULL)
		return lb_x509_fail(-EIO, "can't make a key for %s", path);
	if (PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
		return lb_x509_fail(-EIO, "can't write the key of %s", path);
	n = BIO_get_mem_data(bio, &data);
	r = lb_file_write_new(env, path, data, (size_t)n, 0600);
	lb_wipe(data, (size_t)n);
	if (r < 0)
		return r;
	*ret_key = lb_steal_ptr(key);
	return 0;
}
