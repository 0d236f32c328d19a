/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/manager.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "capture/capture.h"
#include "mobility/hardware.h"
#include "mobility/ready.h"
#include "mobility/renew.h"
#include "mobility/report.h"
#include "wire/client.h"
#include "wire/pki.h"

#define URL_BYTES 512

struct lb_manager {
	struct lb_manager_options o;
	pthread_t thread;
	int stop_fd;

	/* the thread's own */
	struct lb_http_client *client;
	int64_t report_due_ns, renew_due_ns;
	enum lb_session_state reported;
	json_t *readiness; /* what was found, or NULL */
	bool readiness_told;
	uint64_t mending, mended; /* generations: the order under way, the last that came to its end */
	int64_t mending_since_ns;
	json_t *mend_outcome;                 /* of the last, or NULL */
	int64_t ready_due_ns, checked_for_ns; /* the order that the last check answers */
	char last_error[LB_ERR_TEXT_BYTES_MAX];

	pthread_mutex_t lock; /* what follows */
	struct lb_agent_config config;
	bool changed, renewed, refused;
	struct lb_session_status status;
	struct lb_points *points;   /* NULL: nobody makes any */
	struct lb_group_run *group; /* the same */
};

static void url_of(const struct lb_manager *m, const char *path, char url[URL_BYTES])
{
	snprintf(url, URL_BYTES, "%s%s", m->o.settings->config_url, path);
}

static void publish(struct lb_manager *m, const struct lb_agent_config *config)
{
	const uint64_t one = 1;
	bool changed;

	pthread_mutex_lock(&m->lock);
	/* zeroed by the parser, so bytes can be compared; at worst the session reads one setting again */
	// NOLINTNEXTLINE(bugprone-suspicious-memory-comparison)
	changed = memcmp(&m->config, config, sizeof(*config)) != 0;
	if (changed) {
		/* told soon: see set_process_url() */
		if (strcmp(m->config.process_url, config->process_url) != 0)
			m->report_due_ns = 0;
		m->config = *config;
		m->changed = true;
	}
	pthread_mutex_unlock(&m->lock);
	if (changed && write(m->o.wake_fd, &one, sizeof(one)) < 0)
		lb_debug("the session could not be woken: %m");
}

static void note_refused(struct lb_manager *m)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&m->lock);
	m->refused = true;
	pthread_mutex_unlock(&m->lock);
	if (write(m->o.wake_fd, &one, sizeof(one)) < 0)
		lb_debug("the session could not be woken: %m");
}

static int ask(struct lb_manager *m)
{
	_cleanup_json_ json_t *reply = NULL;
	struct lb_agent_config config;
	char url[URL_BYTES];
	int r;

	snprintf(url, URL_BYTES, "%s/v1/agent/config?group_port=%" PRIu64 "%s%s", m->o.settings->config_url,
		 m->o.settings->group_port, m->o.settings->group_host != NULL ? "&group_host=" : "",
		 m->o.settings->group_host != NULL ? m->o.settings->group_host : "");
	r = lb_http_json(m->client, "GET", url, NULL, &reply);
	if (r == -EACCES)
		note_refused(m);
	if (r < 0)
		return r;
	memset(&config, 0, sizeof(config));
	r = lb_agent_config_parse(reply, &config);
	if (r < 0)
		return lb_wrap(r, "answer of %s", url);
	publish(m, &config);
	r = lb_agent_config_save(m->o.env, m->o.settings->state_folder, reply);
	if (r < 0)
		return lb_wrap(r, "the configuration could not be kept for the next start");
	return 0;
}

/* Where the segments go now: a server whose port changes keeps the old one open until all have followed. */
static int set_process_url(struct lb_manager *m, json_t *body)
{
	LB_LOCK_SCOPE(&m->lock);

	return lb_json_set_str(body, "process_url", m->config.process_url) < 0
		       ? lb_fail(-ENOMEM, "out of memory for the report")
		       : 0;
}

static int open_privileged(void *arg, const char *path)
{
	const struct lb_manager *m = arg;
	int fd = -1, r = lb_capture_boot_file(m->o.settings->capture_socket, path, &fd);

	return r < 0 ? r : fd;
}

/* Daily, and when an operator asks. What can't be looked at is told as a finding; only memory can fail it. */
static void look_at_readiness(struct lb_manager *m)
{
	struct lb_ready_options options = {.env = m->o.env, .root = "", .open_privileged = open_privileged, .arg = m};
	json_t *readiness;
	int64_t order_ns;

	pthread_mutex_lock(&m->lock);
	order_ns = m->config.check_ns;
	if (m->status.ring_bytes == 0)
		options.ring_bytes = m->config.policy.ring_bytes;
	pthread_mutex_unlock(&m->lock);
	if (lb_mono_ns(m->o.env) < m->ready_due_ns && order_ns == m->checked_for_ns)
		return;
	if (lb_ready_check(&options, &readiness) < 0) {
		lb_warning("the readiness can't be looked at: %s", lb_err_text());
		return;
	}
	json_decref(m->readiness);
	m->readiness = readiness;
	m->readiness_told = false;
	m->checked_for_ns = order_ns;
	m->ready_due_ns = lb_mono_ns(m->o.env) + LB_READY_INTERVAL_S * LB_NS_PER_S;
}

/* What an operator asked for: done by root, told when it is done. */
static void follow_mend(struct lb_manager *m)
{
	struct lb_mend_order order;
	json_t *outcome = NULL;

	pthread_mutex_lock(&m->lock);
	order = m->config.mend;
	pthread_mutex_unlock(&m->lock);
	if (order.generation == 0 && m->mending != m->mended) {
		lb_mend_withdraw(m->o.env, m->o.settings->run_folder);
		m->mending = m->mended;
	}
	if (order.generation == 0 || order.generation == m->mended)
		return;
	if (order.generation != m->mending) {
		m->mending = order.generation;
		m->mending_since_ns = 0;
	}
	if (lb_mend_follow(m->o.env, m->o.settings->run_folder, m->o.settings->mend_folder, &order,
			   &m->mending_since_ns, &outcome) < 0) {
		lb_warning("what is to be mended can't be ordered: %s", lb_err_text());
		m->mending = 0;
	}
	if (outcome == NULL)
		return;
	json_decref(m->mend_outcome);
	m->mend_outcome = outcome;
	m->mended = order.generation;
	m->report_due_ns = 0;
	m->ready_due_ns = 0; /* it may be ready now */
}

static int report(struct lb_manager *m)
{
	_cleanup_json_ json_t *body = NULL;
	struct lb_session_status status;
	struct lb_points *points;
	char url[URL_BYTES];
	json_t *made = NULL;
	uint64_t upto = 0;
	bool soon;
	int r;

	pthread_mutex_lock(&m->lock);
	status = m->status;
	points = m->points;
	pthread_mutex_unlock(&m->lock);
	soon = points != NULL && lb_points_untold(points);
	if (!soon && status.state == m->reported && m->readiness_told && lb_mono_ns(m->o.env) < m->report_due_ns)
		return 0;
	m->report_due_ns = 0; /* until it has arrived */
	r = lb_report_json(m->o.env, m->o.hardware, m->o.name, &status, &body);
	if (r == 0)
		r = set_process_url(m, body);
	if (r == 0 && points != NULL)
		r = lb_points_json(points, &made, &upto);
	if (r == 0 && made != NULL && json_object_set_new(body, "points", made) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a report");
	if (r < 0)
		return r;
	/* in each report: a server that was restored, or had no room for the last one, knows it too */
	if (m->readiness != NULL && json_object_set(body, "readiness", m->readiness) < 0)
		return lb_fail(-ENOMEM, "out of memory for the report");
	if (m->mend_outcome != NULL && json_object_set(body, "mend", m->mend_outcome) < 0)
		return lb_fail(-ENOMEM, "out of memory for the report");
	url_of(m, "/v1/agent/report", url);
	r = lb_http_json(m->client, "POST", url, body, NULL);
	if (r < 0)
		return r;
	if (points != NULL)
		lb_points_told(points, upto);
	m->reported = status.state;
	m->readiness_told = true;
	m->report_due_ns = lb_mono_ns(m->o.env) + LB_MANAGER_REPORT_S * LB_NS_PER_S;
	return 0;
}

/* What became of shared points that this machine coordinated. One that the server refuses for good is dropped. */
static int report_group(struct lb_manager *m)
{
	_cleanup_json_ json_t *outcome = NULL;
	struct lb_group_run *group;
	char url[URL_BYTES];
	uint64_t number = 0;
	int r;

	pthread_mutex_lock(&m->lock);
	group = m->group;
	pthread_mutex_unlock(&m->lock);
	r = group != NULL ? lb_group_run_outcome(group, &outcome, &number) : 0;
	if (r < 0 || outcome == NULL)
		return r;
	url_of(m, "/v1/agent/group-point", url);
	r = lb_http_json(m->client, "POST", url, outcome, NULL);
	if (r == -EINVAL || r == -EEXIST || r == -ENOENT || r == -EACCES) {
		lb_warning("the configuration server does not take a shared point: %s", lb_err_text());
		r = 0;
	}
	if (r == 0)
		lb_group_run_told(group, number);
	return r;
}

static int renew(struct lb_manager *m)
{
	const struct lb_http_client_options options = {.identity_folder = m->o.settings->identity_folder};
	struct lb_http_client *client;
	const uint64_t one = 1;
	bool renewed = false;
	int r;

	if (lb_mono_ns(m->o.env) < m->renew_due_ns)
		return 0;
	m->renew_due_ns = lb_mono_ns(m->o.env) + LB_RENEW_RETRY_S * LB_NS_PER_S;
	r = lb_renew_if_due(m->o.env, m->client, m->o.settings, m->o.hardware, &renewed);
	if (r < 0 || !renewed)
		return r;
	r = lb_http_client_new(&options, &client);
	if (r < 0)
		return r;
	lb_http_client_free(m->client);
	m->client = client;
	pthread_mutex_lock(&m->lock);
	m->renewed = true;
	pthread_mutex_unlock(&m->lock);
	lb_notice("the certificate was renewed");
	if (write(m->o.wake_fd, &one, sizeof(one)) < 0)
		lb_debug("the session could not be woken: %m");
	return 0;
}

/* Says once what is wrong, and once that it is over: the log may rest on a protected disk. */
static void tell_failure(struct lb_manager *m, int r)
{
	if (r < 0 && m->last_error[0] == '\0')
		lb_warning("the configuration server: %s; protection goes on as last configured", lb_err_text());
	if (r == 0 && m->last_error[0] != '\0')
		lb_notice("the configuration server answers again");
	snprintf(m->last_error, sizeof(m->last_error), "%s", r < 0 ? lb_err_text() : "");
}

static void *run(void *arg)
{
	struct lb_manager *m = arg;
	uint64_t stop;
	int r;

	while (read(m->stop_fd, &stop, sizeof(stop)) < 0) {
		r = ask(m);
		follow_mend(m);
		look_at_readiness(m);
		if (r == 0)
			r = report(m);
		if (r == 0)
			r = report_group(m);
		if (r == 0)
			r = renew(m);
		tell_failure(m, r);
		m->o.env->ops->wait_until(m->o.env, lb_mono_ns(m->o.env) + LB_MANAGER_POLL_S * LB_NS_PER_S, m->stop_fd);
	}
	return NULL;
}

static void manager_free(struct lb_manager *m)
{
	if (m->client != NULL)
		lb_http_client_free(m->client);
	if (m->stop_fd >= 0)
		close(m->stop_fd);
	json_decref(m->readiness);
	json_decref(m->mend_outcome);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

int lb_manager_start(const struct lb_manager_options *options, struct lb_manager **ret_manager)
{
	const struct lb_http_client_options client = {.identity_folder = options->settings->identity_folder};
	struct lb_manager *m = calloc(1, sizeof(*m));
	int r;

	if (m == NULL)
		return lb_fail(-ENOMEM, "out of memory for the manager");
	m->o = *options;
	m->reported = LB_SESSION_STATES;
	pthread_mutex_init(&m->lock, NULL);
	m->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->stop_fd < 0) {
		r = lb_fail(-errno, "no event descriptor: %m");
		goto failed;
	}
	r = lb_http_client_new(&client, &m->client);
	if (r < 0)
		goto failed;
	r = -pthread_create(&m->thread, NULL, run, m);
	if (r < 0) {
		lb_fail(r, "no thread for the configuration server: %s", strerror(-r));
		goto failed;
	}
	*ret_manager = m;
	return 0;
failed:
	manager_free(m);
	return r;
}

void lb_manager_stop(struct lb_manager *m)
{
	const uint64_t one = 1;

	if (write(m->stop_fd, &one, sizeof(one)) < 0)
		lb_debug("the manager could not be woken: %m");
	pthread_join(m->thread, NULL);
	manager_free(m);
}

bool lb_manager_config(struct lb_manager *m, struct lb_agent_config *ret_config)
{
	bool changed;
	LB_LOCK_SCOPE(&m->lock);

	changed = m->changed;
	if (changed)
		*ret_config = m->config;
	m->changed = false;
	return changed;
}

bool lb_manager_renewed(struct lb_manager *m)
{
	bool renewed;
	LB_LOCK_SCOPE(&m->lock);

	renewed = m->renewed;
	m->renewed = false;
	return renewed;
}

bool lb_manager_refused(struct lb_manager *m)
{
	bool refused;
	LB_LOCK_SCOPE(&m->lock);

	refused = m->refused;
	m->refused = false;
	return refused;
}

void lb_manager_tell(struct lb_manager *m, const struct lb_session_status *status)
{
	LB_LOCK_SCOPE(&m->lock);

	m->status = *status;
}

void lb_manager_points(struct lb_manager *m, struct lb_points *points, struct lb_group_run *group)
{
	LB_LOCK_SCOPE(&m->lock);

	m->points = points;
	m->group = group;
}
