/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The few primitives that Lifeboat uses, all of them OpenSSL 3's: SHA-256, HMAC-SHA-256, HKDF-SHA-256,
 * AES-256-GCM, scrypt. Keys are plain 32-byte arrays that their owner wipes with lb_wipe().
 * Thread-safe as long as no two threads share an output.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_KEY_BYTES 32
#define LB_DIGEST_BYTES 32
#define LB_NONCE_BYTES 12
#define LB_TAG_BYTES 16
#define LB_SALT_BYTES 16

struct lb_key {
	uint8_t bytes[LB_KEY_BYTES];
};

struct lb_digest {
	uint8_t bytes[LB_DIGEST_BYTES];
};

void lb_wipe(void *p, size_t size_bytes);
void lb_key_wipe(struct lb_key *key); /* for _cleanup_(lb_key_wipe) */
void lb_secret_free(char **secret);   /* a text: wipes, frees, sets to NULL; for _cleanup_() */
/* Of a process that holds keys: neither core dumps nor debuggers get at its memory from now on. */
int lb_secret_memory(void);
/* Constant time. */
bool lb_equal_ct(const void *a, const void *b, size_t size_bytes);

int lb_sha256(const void *data, size_t size_bytes, struct lb_digest *ret_digest);
/* The digest of two pieces in a row. */
int lb_sha256_2(const void *a, size_t a_bytes, const void *b, size_t b_bytes, struct lb_digest *ret_digest);
int lb_hmac_sha256(const struct lb_key *key, const void *data, size_t size_bytes, struct lb_digest *ret_digest);
/* One 32-byte key from another by HKDF (RFC 5869); `info` separates uses. */
int lb_hkdf(const struct lb_key *key, const void *salt, size_t salt_bytes, const char *info, struct lb_key *ret_key);
/* scrypt (RFC 7914); memory is 128 * r * n bytes and at most LB_SCRYPT_MEMORY_BYTES_MAX. */
#define LB_SCRYPT_MEMORY_BYTES_MAX (1024u << 20)
int lb_scrypt(const char *passphrase, const uint8_t *salt, size_t salt_bytes, uint64_t n, uint32_t r, uint32_t p,
	      struct lb_key *ret_key);

/* AES-256-GCM with one key used for many nonces: the key schedule is kept. Not shared between threads. */
struct lb_gcm;
int lb_gcm_new(const struct lb_key *key, struct lb_gcm **ret_gcm);
void lb_gcm_free(struct lb_gcm *gcm);
/* `out` takes size_bytes + LB_TAG_BYTES (the tag last); in place is fine. A nonce is never used twice with one key. */
int lb_gcm_seal(struct lb_gcm *gcm, const uint8_t nonce[LB_NONCE_BYTES], const void *aad, size_t aad_bytes,
		const void *in, size_t size_bytes, void *out);
/* `in` is size_bytes + LB_TAG_BYTES long. -EBADMSG, and `out` wiped, when it is not authentic. */
int lb_gcm_open(struct lb_gcm *gcm, const uint8_t nonce[LB_NONCE_BYTES], const void *aad, size_t aad_bytes,
		const void *in, size_t size_bytes, void *out);
