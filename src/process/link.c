/* SPDX-License-Identifier: Apache-2.0 */
#include "process/link.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "process/report.h"

#define URL_BYTES 1024

static int get_config(struct lb_link *link, json_t **ret_config)
{
	_cleanup_(lb_http_response_wipe) struct lb_http_response response = {0};
	char url[URL_BYTES];
	const struct lb_http_request request = {.method = "GET",
						.url = url,
						.response_bytes_max = LB_PROCESS_CONFIG_BYTES_MAX,
						.timeout_s = LB_LINK_TIMEOUT_S};
	int r;

	snprintf(url, sizeof(url), "%s/v1/process/config", link->url);
	r = lb_http_send(link->client, &request, &response);
	if (r < 0)
		return r;
	if (response.status != 200)
		return lb_fail(-EREMOTEIO, "%s answered %u: %.200s", url, response.status,
			       response.body.data != NULL ? (const char *)response.body.data : "");
	r = lb_json_parse(response.body.data, response.body.size_bytes, LB_PROCESS_CONFIG_BYTES_MAX, ret_config);
	return r < 0 ? lb_wrap(r, "answer of %s", url) : 0;
}

static int send_report(struct lb_link *link)
{
	uint32_t cursor = 0;
	char url[URL_BYTES];
	int r;

	snprintf(url, sizeof(url), "%s/v1/process/report", link->url);
	for (;;) {
		_cleanup_json_ json_t *report = NULL;

		r = lb_report(link->process, &cursor, &report);
		if (r < 0 || report == NULL)
			return r;
		if (link->ports != NULL)
			r = lb_ports_report(link->ports, report);
		if (r == 0)
			r = lb_http_json(link->client, "POST", url, report, NULL);
		/* a part that is not full is the last: also the only, empty one of a server without machines */
		if (r < 0 || json_array_size(json_object_get(report, "machines")) < LB_REPORT_MACHINES_MAX)
			return r;
	}
}

/* Says once that something is amiss, and once that it is well again. */
static void note(bool *said, int r, const char *what)
{
	if (r < 0 && !*said)
		lb_warning("%s: %s; it is tried again, the last good configuration stands", what, lb_err_text());
	else if (r == 0 && *said)
		lb_notice("%s: well again", what);
	*said = r < 0;
}

static int client_new(const char *identity_folder, struct lb_http_client **ret_client)
{
	const struct lb_http_client_options options = {.identity_folder = identity_folder, .connect_timeout_s = 5};

	return lb_http_client_new(&options, ret_client);
}

static int renew(struct lb_link *link)
{
	struct lb_env *env = link->process->env;
	_cleanup_json_ json_t *reply = NULL;
	struct lb_http_client *client;
	char url[URL_BYTES];
	int r;

	snprintf(url, sizeof(url), "%s/v1/process/renew", link->url);
	r = lb_renew_ask(env, link->client, link->identity_folder, url, NULL, &reply);
	if (r < 0 || reply == NULL)
		return r;
	r = lb_renew_keep(env, link->identity_folder, reply);
	r = r < 0 || link->ports == NULL ? r : lb_ports_reload(link->ports);
	r = r < 0 ? r : client_new(link->identity_folder, &client);
	if (r < 0)
		return r;
	lb_http_client_free(link->client);
	link->client = client;
	lb_notice("the certificate is renewed");
	return 0;
}

static void renew_if_due(struct lb_link *link)
{
	struct lb_env *env = link->process->env;

	if (lb_mono_ns(env) < link->renew_due_ns)
		return;
	link->renew_due_ns = lb_mono_ns(env) + LB_RENEW_RETRY_S * LB_NS_PER_S;
	note(&link->outdated, renew(link), "certificate");
}

int lb_link_round(struct lb_link *link)
{
	_cleanup_json_ json_t *config = NULL;
	int r;

	renew_if_due(link);
	r = get_config(link, &config);
	note(&link->down, r, "configuration server");
	if (r < 0)
		return r;
	if (link->ports != NULL)
		lb_ports_follow(link->ports, config);
	r = lb_process_configure(link->process, config);
	note(&link->refused, r, "configuration");
	if (link->pushes != NULL)
		lb_pushes_tell(link->pushes, json_object_get(config, "installs_asked"));
	if (link->pushes != NULL)
		lb_pushes_take(link->pushes, json_object_get(config, "installs"));
	if (send_report(link) < 0)
		lb_debug("report: %s", lb_err_text());
	lb_compare_sweep(link->process);
	return r;
}

static void *run(void *arg)
{
	struct lb_link *link = arg;
	struct lb_env *env = link->process->env;
	uint64_t stop;

	for (;;) {
		int64_t next = lb_mono_ns(env) + LB_LINK_INTERVAL_S * LB_NS_PER_S;

		lb_link_round(link);
		env->ops->wait_until(env, next, link->stop_fd);
		if (read(link->stop_fd, &stop, sizeof(stop)) > 0)
			return NULL;
	}
}

int lb_link_start(struct lb_process *p, const char *config_url, const char *identity_folder, struct lb_ports *ports,
		  struct lb_pushes *pushes, struct lb_link *ret_link)
{
	size_t length = strlen(config_url);
	int r;

	*ret_link = (struct lb_link){.process = p, .ports = ports, .pushes = pushes, .stop_fd = -1};
	ret_link->renew_due_ns = lb_mono_ns(p->env);
	while (length > 0 && config_url[length - 1] == '/')
		length--;
	if (length == 0 || length > URL_BYTES - 64)
		return lb_fail(-EINVAL, "config_url \"%.80s\" is no URL", config_url);
	r = client_new(identity_folder, &ret_link->client);
	if (r < 0)
		return r;
	ret_link->url = strndup(config_url, length);
	ret_link->identity_folder = strdup(identity_folder);
	ret_link->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ret_link->url == NULL || ret_link->identity_folder == NULL || ret_link->stop_fd < 0) {
		lb_link_stop(ret_link);
		return lb_fail(-ENOMEM, "no room for the link to the configuration server");
	}
	r = pthread_create(&ret_link->thread, NULL, run, ret_link);
	if (r != 0) {
		lb_link_stop(ret_link);
		return lb_fail(-r, "can't start the link to the configuration server: %s", strerror(r));
	}
	ret_link->running = true;
	return 0;
}

void lb_link_stop(struct lb_link *link)
{
	uint64_t one = 1;

	if (link->running && write(link->stop_fd, &one, sizeof(one)) > 0)
		pthread_join(link->thread, NULL);
	link->running = false;
	if (link->client != NULL)
		lb_http_client_free(lb_steal_ptr(link->client));
	if (link->stop_fd >= 0)
		close(lb_steal_fd(link->stop_fd));
	free(lb_steal_ptr(link->url));
	free(lb_steal_ptr(link->identity_folder));
}
