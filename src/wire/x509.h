/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What pki.c, ca.c and cert.c share: OpenSSL objects that free themselves, PEM in and out. Inside src/wire only. */
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/cleanup.h"
#include "base/env.h"

#define LB_IDENTITY_PATH_BYTES 4096

LB_DEFINE_CLEANUP(X509 *, X509_free);
LB_DEFINE_CLEANUP(X509_REQ *, X509_REQ_free);
LB_DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free);
LB_DEFINE_CLEANUP(BIO *, BIO_free_all);
LB_DEFINE_CLEANUP(X509_NAME *, X509_NAME_free);
LB_DEFINE_CLEANUP(ASN1_INTEGER *, ASN1_INTEGER_free);
LB_DEFINE_CLEANUP(BIGNUM *, BN_free);

/* `code` with the library's own words behind ours; its error queue is emptied. */
int lb_x509_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

int lb_x509_path(char path[LB_IDENTITY_PATH_BYTES], const char *folder, const char *file);
/* `pem` is a path, or a text that begins with "-----". */
int lb_x509_load(struct lb_env *env, const char *pem, X509 **ret_cert);
int lb_x509_load_key(struct lb_env *env, const char *path, EVP_PKEY **ret_key);
/* An allocated text of what `bio` (memory) holds, at most LB_PEM_BYTES_MAX. */
int lb_x509_text(BIO *bio, char **ret_text);
/* Makes a P-256 key and writes it (0600, durable); -EEXIST when the file is there. */
int lb_x509_new_key(struct lb_env *env, const char *path, EVP_PKEY **ret_key);
