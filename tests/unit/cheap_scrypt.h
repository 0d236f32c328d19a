/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* scrypt at a cost that hundreds of openings can pay; the test is linked with --wrap=lb_scrypt. */
#include "base/crypto.h"

static bool is_cheap;

int __real_lb_scrypt(const char *passphrase, const uint8_t *salt, size_t salt_bytes, uint64_t n, uint32_t r, uint32_t p,
		     struct lb_key *ret_key);
int __wrap_lb_scrypt(const char *passphrase, const uint8_t *salt, size_t salt_bytes, uint64_t n, uint32_t r, uint32_t p,
		     struct lb_key *ret_key);

int __wrap_lb_scrypt(const char *passphrase, const uint8_t *salt, size_t salt_bytes, uint64_t n, uint32_t r, uint32_t p,
		     struct lb_key *ret_key)
{
	return __real_lb_scrypt(passphrase, salt, salt_bytes, is_cheap ? 16 : n, r, p, ret_key);
}
