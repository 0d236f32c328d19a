/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/renew.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/json.h"
#include "mobility/quiet.h"
#include "wire/pki.h"

#define PATH_BYTES 512

static int is_due(struct lb_env *env, const char *folder, bool *ret_due)
{
	struct lb_cert_info info;
	char path[PATH_BYTES];
	int r;

	snprintf(path, sizeof(path), "%s/cert.pem", folder);
	r = lb_cert_read(env, path, &info);
	if (r < 0)
		return r;
	*ret_due = lb_cert_renewal_due(&info, lb_now_ns(env));
	return 0;
}

int lb_renew_if_due(struct lb_env *env, struct lb_http_client *client, const struct lb_agent_settings *settings,
		    const char *hardware, const char *name, bool *ret_renewed)
{
	_cleanup_json_ json_t *body = NULL, *reply = NULL;
	_cleanup_free_ char *csr = NULL;
	const char *cert, *ca;
	char url[PATH_BYTES];
	bool due;
	int r;

	r = is_due(env, settings->identity_folder, &due);
	if (r < 0)
		return r;
	if (!due) {
		*ret_renewed = false;
		return 0;
	}
	r = lb_pki_request(env, settings->identity_folder, name, &csr);
	if (r < 0)
		return r;
	body = json_pack("{s:s,s:s}", "csr_pem", csr, "hardware", hardware);
	if (body == NULL)
		return lb_fail(-ENOMEM, "out of memory for the renewal");
	snprintf(url, sizeof(url), "%s/v1/agent/renew", settings->config_url);
	r = lb_http_json(client, "POST", url, body, &reply);
	if (r < 0)
		return lb_wrap(r, "renewal of the certificate");
	r = lb_json_get_str(reply, "cert_pem", &cert);
	if (r == 0)
		r = lb_json_get_str(reply, "ca_pem", &ca);
	if (r == 0 && !lb_write_begin())
		return lb_fail(-EAGAIN, "filesystems are frozen just now: the certificate is renewed later");
	if (r == 0) {
		r = lb_pki_install(env, settings->identity_folder, cert, ca, NULL);
		lb_write_end();
	}
	if (r < 0)
		return lb_wrap(r, "renewal of the certificate");
	*ret_renewed = true;
	return 0;
}
