/* SPDX-License-Identifier: Apache-2.0 */
#include "store/cloud.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"

static bool is_this_host(const char *host)
{
	return strncmp(host, "127.", 4) == 0 || strncmp(host, "[::1]", 5) == 0 || strncmp(host, "localhost", 9) == 0;
}

int lb_cloud_endpoint(const char *endpoint, char **ret_origin, char **ret_host, char **ret_path)
{
	const char *host = strstr(endpoint, "://") + 3;
	bool tls = strncmp(endpoint, "https:", 6) == 0;
	const char *default_port = tls ? ":443" : ":80";
	size_t length = strcspn(host, "/"), port_length = strlen(default_port);
	_cleanup_free_ char *origin = strndup(endpoint, (size_t)(host - endpoint) + length),
			    *name = strndup(host, length), *path = strdup(host + length);

	if (origin == NULL || name == NULL || path == NULL)
		return lb_fail(-ENOMEM, "out of memory for a store");
	if (length > port_length && strcmp(name + length - port_length, default_port) == 0)
		name[length - port_length] = '\0';
	*ret_origin = lb_steal_ptr(origin);
	*ret_host = lb_steal_ptr(name);
	*ret_path = lb_steal_ptr(path);
	return 0;
}

static int create_container(struct lb_cloud *c)
{
	_cleanup_buf_ struct lb_buf body = LB_BUF(1024);
	_cleanup_(lb_cloud_call_clear) struct lb_cloud_call call = {.method = "PUT", .doing = "make the container"};
	_cleanup_(lb_cloud_request_clear) struct lb_cloud_request q = {0};
	_cleanup_(lb_answer_clear) struct lb_answer answer = {0};
	bool landed;
	int r;

	r = c->dialect->create_request(c, &q, &body);
	if (r < 0)
		return r;
	call.query = q.query;
	q.query.n = 0;
	call.body = body.data;
	call.body_bytes = body.size_bytes;
	r = lb_cloud_send(c, &call, &answer, &landed);
	if (r < 0)
		return r;
	/* another one may have made it meanwhile; whose it is shows when it is used */
	if ((answer.status >= 200 && answer.status < 300) || answer.status == 409)
		return 0;
	return lb_cloud_refused(c, &call, &answer);
}

int lb_cloud_container(struct lb_cloud *c, bool create)
{
	_cleanup_(lb_listing_clear) struct lb_listing page = {0};
	int r;

	r = lb_cloud_list_page(c, "vault.json", false, NULL, &page);
	if (r != -ENOENT || !create)
		return r;
	r = create_container(c);
	return r < 0 ? r : lb_cloud_list_page(c, "vault.json", false, NULL, &page);
}

int lb_cloud_open(struct lb_env *env, const struct lb_cloud_dialect *dialect, const char *url_text,
		  const struct lb_store_url *url, enum lb_provider provider, struct lb_cloud *c)
{
	int r;

	c->dialect = dialect;
	c->store.ops = dialect->ops;
	c->store.env = env;
	c->store.url = strdup(url_text);
	c->shown = strndup(url_text, strcspn(url_text, "?"));
	if (c->store.url == NULL || c->shown == NULL)
		return lb_fail(-ENOMEM, "out of memory for a store");
	c->clear_text = strncmp(c->origin, "http:", 5) == 0 && !is_this_host(c->host);
	/* TLS sees to it that nothing is damaged on the way */
	c->checksums = c->clear_text || url->checksum_md5;
	r = lb_credentials_open(env, provider, url->credentials, &c->credentials);
	if (r == 0)
		c->store.credentials_by_environment = lb_credentials_by_environment(c->credentials);
	if (r == 0)
		r = lb_http_pool_new(&(struct lb_http_pool_options){.connections = (unsigned int)url->connections,
								    .timeout_s = (uint32_t)url->timeout_s,
								    .proxy = url->proxy,
								    .ca_path = url->ca},
				     &c->http);
	return r < 0 ? lb_wrap(r, "%s", c->shown) : 0;
}
