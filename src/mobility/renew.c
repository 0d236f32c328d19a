/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/renew.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/json.h"
#include "mobility/quiet.h"

#define URL_BYTES 512

int lb_renew_if_due(struct lb_env *env, struct lb_http_client *client, const struct lb_agent_settings *settings,
		    const char *hardware, bool *ret_renewed)
{
	_cleanup_json_ json_t *reply = NULL;
	char url[URL_BYTES];
	int r;

	snprintf(url, sizeof(url), "%s/v1/agent/renew", settings->config_url);
	r = lb_renew_ask(env, client, settings->identity_folder, url, hardware, &reply);
	if (r < 0)
		return r;
	if (reply != NULL) {
		if (!lb_write_begin())
			return lb_fail(-EAGAIN, "filesystems are frozen just now: the certificate is renewed later");
		r = lb_renew_keep(env, settings->identity_folder, reply);
		lb_write_end();
		if (r < 0)
			return r;
	}
	*ret_renewed = reply != NULL;
	return 0;
}
