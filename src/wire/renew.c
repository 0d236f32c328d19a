/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/renew.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "wire/pki.h"

int lb_renew_ask(struct lb_env *env, struct lb_http_client *client, const char *identity_folder, const char *url,
		 const char *hardware, json_t **ret_reply)
{
	_cleanup_json_ json_t *body = NULL;
	_cleanup_free_ char *csr = NULL;
	struct lb_cert_info info;
	char path[PATH_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/cert.pem", identity_folder) >= (int)sizeof(path))
		return lb_fail(-ENAMETOOLONG, "the path of the identity is too long");
	r = lb_cert_read(env, path, &info);
	if (r < 0)
		return r;
	if (!lb_cert_renewal_due(&info, lb_now_ns(env))) {
		*ret_reply = NULL;
		return 0;
	}
	r = lb_pki_request(env, identity_folder, info.common_name, &csr);
	if (r < 0)
		return r;
	body = json_pack("{s:s,s:s*}", "csr_pem", csr, "hardware", hardware);
	if (body == NULL)
		return lb_fail(-ENOMEM, "out of memory for the renewal");
	r = lb_http_json(client, "POST", url, body, ret_reply);
	return r < 0 ? lb_wrap(r, "renewal of the certificate") : 0;
}

int lb_renew_keep(struct lb_env *env, const char *identity_folder, const json_t *reply)
{
	const char *cert, *ca;
	int r;

	r = lb_json_get_str(reply, "cert_pem", &cert);
	r = r < 0 ? r : lb_json_get_str(reply, "ca_pem", &ca);
	r = r < 0 ? r : lb_pki_install(env, identity_folder, cert, ca, NULL);
	return r < 0 ? lb_wrap(r, "renewal of the certificate") : 0;
}
