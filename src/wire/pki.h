/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Certificates: the configuration server's own CA (ECDSA P-256) and what it issues. A certificate's subject says who:
 * CN = the holder's UUID (or user name), OU = its role. SAN carries host names and addresses of servers.
 * Texts are PEM, allocated. Private keys are written to files of mode 0600 only.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/env.h"

#define LB_PEM_BYTES_MAX (32u << 10)
#define LB_SUBJECT_BYTES 65
#define LB_CA_VALID_DAYS 3650
#define LB_CERT_VALID_DAYS_DEFAULT 365
#define LB_CERT_BACKDATE_S 3600 /* certificates are valid from an hour before: clocks differ */

enum lb_role {
	LB_ROLE_NONE,
	LB_ROLE_CONFIG,
	LB_ROLE_PROCESS,
	LB_ROLE_MACHINE,
	LB_ROLE_TARGET,
	LB_ROLE_READER,
	LB_ROLE_OPERATOR,
	LB_ROLE_ADMIN
};
const char *lb_role_name(enum lb_role role); /* "config", "process", "machine", "reader", "operator", "administrator" */
enum lb_role lb_role_parse(const char *name); /* LB_ROLE_NONE when unknown */

/* An identity folder: key.pem (0600), cert.pem, ca.pem. */
/* Makes key.pem if it is missing and returns a certificate request for it. */
int lb_pki_request(struct lb_env *env, const char *folder, const char *common_name, char **ret_csr_pem);
/*
 * Keeps what enrolment or renewal gave: proves that `ca_pem` has the fingerprint (NULL: equals the ca.pem that is
 * there), that it signed `cert_pem` and that this is for key.pem; -EACCES otherwise. Then writes ca.pem and cert.pem.
 */
int lb_pki_install(struct lb_env *env, const char *folder, const char *cert_pem, const char *ca_pem,
		   const char *ca_fingerprint_hex);
/* Whom a certificate names; a PEM file or text, as below. */
struct lb_cert_info {
	char common_name[LB_SUBJECT_BYTES];
	enum lb_role role;
	int64_t not_before_ns, not_after_ns;
	struct lb_digest fingerprint;
};
int lb_cert_read(struct lb_env *env, const char *pem, struct lb_cert_info *ret_info);
/* Two thirds of its life are over: time to renew. */
bool lb_cert_renewal_due(const struct lb_cert_info *info, int64_t now_ns);

struct lb_issue {
	const char *common_name;
	enum lb_role role;
	const char *hardware; /* NULL, or the hex fingerprint that the certificate is bound to (kept by the registry) */
	const char *const *san; /* "DNS:name" / "IP:address", NULL-terminated, or NULL */
	int64_t now_ns;
	uint32_t valid_days;
};
/* CA: `folder` holds ca.pem and ca-key.pem (0600); made if missing. */
int lb_ca_open(struct lb_env *env, const char *folder, int64_t now_ns);
/* Signs a request; its own subject is ignored, only its key is taken, its signature checked. */
int lb_ca_issue(struct lb_env *env, const char *folder, const char *csr_pem, const struct lb_issue *issue,
		char **ret_cert_pem);
/* SHA-256 of the public key in a request (its SubjectPublicKeyInfo), the signature checked: who asks. */
int lb_pki_request_key(const char *csr_pem, struct lb_digest *ret_key);
/* Issues straight into an identity folder on this machine. */
int lb_ca_issue_here(struct lb_env *env, const char *ca_folder, const char *identity_folder,
		     const struct lb_issue *issue);
/* SHA-256 over the DER certificate in a PEM file (a path) or text (it begins with "-----"). */
int lb_cert_fingerprint(const char *pem, struct lb_digest *ret_fingerprint);
