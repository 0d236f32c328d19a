/* SPDX-License-Identifier: Apache-2.0 */
#include "target/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "wire/renew.h"

#define URL_BYTES 600

static const struct lb_target_settings *settings(const struct lb_target_link *link)
{
	return link->service->settings;
}

/* -EACCES: we are known and not wanted; a TLS failure is none of that, it may be the server's own. */
static int get_orders(struct lb_target_link *link, json_t **ret_config)
{
	_cleanup_(lb_http_response_wipe) struct lb_http_response response = {0};
	char url[URL_BYTES];
	const struct lb_http_request request = {.method = "GET",
						.url = url,
						.response_bytes_max = LB_TARGET_ORDERS_BYTES_MAX,
						.timeout_s = LB_TARGET_LINK_TIMEOUT_S};
	int r;

	snprintf(url, sizeof(url), "%s/v1/target/orders", settings(link)->config_url);
	r = lb_http_send(link->client, &request, &response);
	if (r < 0)
		return r == -EACCES ? -EPROTO : r;
	if (response.status == 401 || response.status == 403)
		return lb_fail(-EACCES,
			       "the configuration server does not accept this target server's certificate: %.200s",
			       response.body.data != NULL ? (const char *)response.body.data : "");
	if (response.status != 200)
		return lb_fail(-EREMOTEIO, "%s answered %u: %.200s", url, response.status,
			       response.body.data != NULL ? (const char *)response.body.data : "");
	r = lb_json_parse(response.body.data, response.body.size_bytes, LB_TARGET_ORDERS_BYTES_MAX, ret_config);
	return r < 0 ? lb_wrap(r, "answer of %s", url) : 0;
}

static int send_report(struct lb_target_link *link)
{
	_cleanup_json_ json_t *report = NULL;
	char url[URL_BYTES];
	int r;

	snprintf(url, sizeof(url), "%s/v1/target/report", settings(link)->config_url);
	r = lb_target_service_report(link->service, &report);
	return r < 0 ? r : lb_http_json(link->client, "POST", url, report, NULL);
}

static void note(bool *said, int r, const char *what)
{
	if (r < 0 && !*said)
		lb_warning("%s: %s; it is tried again", what, lb_err_text());
	else if (r == 0 && *said)
		lb_notice("%s: well again", what);
	*said = r < 0;
}

/* ---- the certificate ------------------------------------------------------------------------------------- */

static int new_client(struct lb_target_link *link)
{
	const struct lb_http_client_options options = {.identity_folder = settings(link)->identity_folder,
						       .connect_timeout_s = 5};

	return lb_http_client_new(&options, &link->client);
}

static int renew(struct lb_target_link *link)
{
	const char *folder = settings(link)->identity_folder;
	struct lb_env *env = link->service->env;
	_cleanup_json_ json_t *reply = NULL;
	char url[URL_BYTES];
	int r;

	snprintf(url, sizeof(url), "%s/v1/target/renew", settings(link)->config_url);
	r = lb_renew_ask(env, link->client, folder, url, NULL, &reply);
	if (r < 0 || reply == NULL)
		return r;
	r = lb_renew_keep(env, folder, reply);
	if (r < 0)
		return r;
	lb_notice("the certificate was renewed");
	lb_http_client_free(lb_steal_ptr(link->client));
	return new_client(link);
}

static void renew_if_due(struct lb_target_link *link)
{
	int64_t now_ns = lb_mono_ns(link->service->env);

	if (now_ns < link->renew_due_ns)
		return;
	link->renew_due_ns = now_ns + LB_RENEW_RETRY_S * LB_NS_PER_S;
	if (renew(link) < 0)
		lb_warning("renewal of the certificate: %s", lb_err_text());
}

/* ---- rounds ---------------------------------------------------------------------------------------------- */

void lb_target_link_round(struct lb_target_link *link)
{
	_cleanup_json_ json_t *config = NULL;
	int r;

	if (link->client == NULL && new_client(link) < 0)
		return;
	r = get_orders(link, &config);
	note(&link->down, r, "configuration server");
	if (r == -EACCES)
		lb_target_service_revoke(link->service, lb_err_text());
	if (r < 0)
		return;
	renew_if_due(link);
	r = lb_target_service_take(link->service, config);
	note(&link->refused, r, "orders");
	link->booted = link->booted || lb_target_service_has_booted(link->service);
	if (link->client == NULL)
		return;
	r = send_report(link);
	if (r < 0)
		lb_debug("report: %s", lb_err_text());
	link->told = link->told || (link->booted && r == 0);
}

int lb_target_link_open(struct lb_target_service *service, struct lb_target_link *ret_link)
{
	*ret_link = (struct lb_target_link){.service = service};
	return new_client(ret_link);
}

void lb_target_link_last(struct lb_target_link *link)
{
	lb_target_service_stop(link->service);
	if (link->client != NULL && !link->down && send_report(link) < 0)
		lb_debug("report: %s", lb_err_text());
}

void lb_target_link_close(struct lb_target_link *link)
{
	if (link->client != NULL)
		lb_http_client_free(lb_steal_ptr(link->client));
}
