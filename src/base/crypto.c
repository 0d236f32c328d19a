/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crypto.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "base/cleanup.h"
#include "base/err.h"

struct lb_gcm {
	EVP_CIPHER_CTX *seal;
	EVP_CIPHER_CTX *open;
};

LB_DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free);
LB_DEFINE_CLEANUP(EVP_KDF *, EVP_KDF_free);
LB_DEFINE_CLEANUP(EVP_KDF_CTX *, EVP_KDF_CTX_free);
LB_DEFINE_CLEANUP(struct lb_gcm *, lb_gcm_free);

static int crypto_fail(const char *what)
{
	char text[256];

	ERR_error_string_n(ERR_get_error(), text, sizeof(text));
	return lb_fail(-EIO, "%s failed in the cryptographic library: %s", what, text);
}

void lb_wipe(void *p, size_t size_bytes)
{
	OPENSSL_cleanse(p, size_bytes);
}

void lb_secret_free(char **secret)
{
	if (*secret == NULL)
		return;
	lb_wipe(*secret, strlen(*secret));
	free(*secret);
	*secret = NULL;
}

int lb_secret_memory(void)
{
	const struct rlimit none = {0, 0};

	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
		return lb_fail(-errno, "can't switch core dumps off: %s", strerror(errno));
	return 0;
}

void lb_key_wipe(struct lb_key *key)
{
	lb_wipe(key, sizeof(*key));
}

bool lb_equal_ct(const void *a, const void *b, size_t size_bytes)
{
	return CRYPTO_memcmp(a, b, size_bytes) == 0;
}

int lb_sha256_2(const void *a, size_t a_bytes, const void *b, size_t b_bytes, struct lb_digest *ret_digest)
{
	_cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	if (ctx == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1 || EVP_DigestUpdate(ctx, a, a_bytes) != 1 ||
	    EVP_DigestUpdate(ctx, b, b_bytes) != 1 || EVP_DigestFinal_ex(ctx, ret_digest->bytes, NULL) != 1)
		return crypto_fail("SHA-256");
	return 0;
}

int lb_sha256(const void *data, size_t size_bytes, struct lb_digest *ret_digest)
{
	return lb_sha256_2(data, size_bytes, "", 0, ret_digest);
}

int lb_hmac_sha256(const struct lb_key *key, const void *data, size_t size_bytes, struct lb_digest *ret_digest)
{
	if (HMAC(EVP_sha256(), key->bytes, LB_KEY_BYTES, data, size_bytes, ret_digest->bytes, NULL) == NULL)
		return crypto_fail("HMAC-SHA-256");
	return 0;
}

static int kdf(const char *name, OSSL_PARAM *params, struct lb_key *ret_key)
{
	_cleanup_(EVP_KDF_freep) EVP_KDF *method = EVP_KDF_fetch(NULL, name, NULL);
	_cleanup_(EVP_KDF_CTX_freep) EVP_KDF_CTX *ctx = NULL;
	struct lb_key key;

	if (method == NULL)
		return crypto_fail(name);
	ctx = EVP_KDF_CTX_new(method);
	if (ctx == NULL || EVP_KDF_derive(ctx, key.bytes, sizeof(key.bytes), params) != 1)
		return crypto_fail(name);
	*ret_key = key;
	lb_key_wipe(&key);
	return 0;
}

int lb_hkdf(const struct lb_key *key, const void *salt, size_t salt_bytes, const char *info, struct lb_key *ret_key)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key->bytes, LB_KEY_BYTES),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_bytes),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, strlen(info)),
		OSSL_PARAM_construct_end(),
	};

	return kdf("HKDF", params, ret_key);
}

int lb_scrypt(const char *passphrase, const uint8_t *salt, size_t salt_bytes, uint64_t n, uint32_t r, uint32_t p,
	      struct lb_key *ret_key)
{
	uint64_t memory_bytes_max = LB_SCRYPT_MEMORY_BYTES_MAX;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, (void *)passphrase, strlen(passphrase)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_bytes),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
		OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
		OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
		OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &memory_bytes_max),
		OSSL_PARAM_construct_end(),
	};

	return kdf("SCRYPT", params, ret_key);
}

int lb_gcm_new(const struct lb_key *key, struct lb_gcm **ret_gcm)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = calloc(1, sizeof(*gcm));

	if (gcm == NULL)
		return lb_fail(-ENOMEM, "out of memory for a cipher");
	gcm->seal = EVP_CIPHER_CTX_new();
	gcm->open = EVP_CIPHER_CTX_new();
	if (gcm->seal == NULL || gcm->open == NULL)
		return lb_fail(-ENOMEM, "out of memory for a cipher");
	if (EVP_EncryptInit_ex(gcm->seal, EVP_aes_256_gcm(), NULL, key->bytes, NULL) != 1 ||
	    EVP_DecryptInit_ex(gcm->open, EVP_aes_256_gcm(), NULL, key->bytes, NULL) != 1)
		return crypto_fail("AES-256-GCM");
	*ret_gcm = lb_steal_ptr(gcm);
	return 0;
}

void lb_gcm_free(struct lb_gcm *gcm)
{
	EVP_CIPHER_CTX_free(gcm->seal);
	EVP_CIPHER_CTX_free(gcm->open);
	free(gcm);
}

int lb_gcm_seal(struct lb_gcm *gcm, const uint8_t nonce[LB_NONCE_BYTES], const void *aad, size_t aad_bytes,
		const void *in, size_t size_bytes, void *out)
{
	uint8_t *p = out;
	int n;

	assert(size_bytes <= INT_MAX && aad_bytes <= INT_MAX);
	if (EVP_EncryptInit_ex(gcm->seal, NULL, NULL, NULL, nonce) != 1 ||
	    EVP_EncryptUpdate(gcm->seal, NULL, &n, aad, (int)aad_bytes) != 1 ||
	    EVP_EncryptUpdate(gcm->seal, p, &n, in, (int)size_bytes) != 1 || (size_t)n != size_bytes ||
	    EVP_EncryptFinal_ex(gcm->seal, p + n, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(gcm->seal, EVP_CTRL_GCM_GET_TAG, LB_TAG_BYTES, p + size_bytes) != 1)
		return crypto_fail("AES-256-GCM");
	return 0;
}

int lb_gcm_open(struct lb_gcm *gcm, const uint8_t nonce[LB_NONCE_BYTES], const void *aad, size_t aad_bytes,
		const void *in, size_t size_bytes, void *out)
{
	uint8_t tag[LB_TAG_BYTES];
	uint8_t *p = out;
	int n;

	assert(size_bytes <= INT_MAX && aad_bytes <= INT_MAX);
	memcpy(tag, (const uint8_t *)in + size_bytes, sizeof(tag));
	if (EVP_DecryptInit_ex(gcm->open, NULL, NULL, NULL, nonce) != 1 ||
	    EVP_DecryptUpdate(gcm->open, NULL, &n, aad, (int)aad_bytes) != 1 ||
	    EVP_DecryptUpdate(gcm->open, p, &n, in, (int)size_bytes) != 1 || (size_t)n != size_bytes ||
	    EVP_CIPHER_CTX_ctrl(gcm->open, EVP_CTRL_GCM_SET_TAG, LB_TAG_BYTES, tag) != 1)
		return crypto_fail("AES-256-GCM");
	if (EVP_DecryptFinal_ex(gcm->open, p + n, &n) != 1) {
		ERR_clear_error();
		lb_wipe(out, size_bytes);
		return lb_fail(-EBADMSG, "bytes are not authentic: altered, or sealed under another key");
	}
	return 0;
}
