/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/notify.h"
#include "mobility/double.h"
#include "mobility/enrol.h"
#include "mobility/hardware.h"
#include "mobility/manager.h"
#include "mobility/own.h"
#include "mobility/points.h"
#include "mobility/report.h"
#include "mobility/session.h"
#include "wire/client.h"
#include "wire/pki.h"

#define PATH_BYTES 512
#define CONFIRM_NAME "unconfirmed"

static volatile sig_atomic_t stopping;
static int wake_fd = -1;

static void on_signal(int sig)
{
	const uint64_t one = 1;
	int saved = errno;

	(void)sig;
	stopping = 1;
	if (write(wake_fd, &one, sizeof(one)) < 0)
		stopping = 1;
	errno = saved;
}

struct daemon {
	struct lb_env *env;
	const struct lb_agent_settings *settings; /* with the identity that it works by */
	const struct lb_agent_settings *host_settings;
	struct lb_uuid source; /* of a double with an identity of its own */
	struct lb_own own;
	bool is_own;
	char hardware[LB_HARDWARE_HEX_BYTES];
	char name[65];
	char confirm_path[PATH_BYTES];
	struct lb_http_client *client;
	struct lb_session *session;
	struct lb_manager *manager;
	struct lb_mark *mark;
	struct lb_points *points;
	struct lb_group_run *group;
	enum lb_session_state shown;
	int64_t show_mono_ns;
};

static void daemon_close(struct daemon *d)
{
	if (d->manager != NULL)
		lb_manager_stop(d->manager);
	/* who waits for a point hears that none comes any more */
	if (d->mark != NULL)
		lb_mark_shut(d->mark, "the agent ends");
	if (d->points != NULL)
		lb_points_stop(d->points);
	if (d->group != NULL)
		lb_group_run_stop(d->group);
	if (d->session != NULL)
		lb_session_free(d->session);
	if (d->mark != NULL)
		lb_mark_free(d->mark);
	if (d->client != NULL)
		lb_http_client_free(d->client);
}

static int find_disk(void *arg, const struct lb_agent_disk *disk, char ret_name[64], uint64_t *ret_size_bytes)
{
	struct daemon *d = arg;
	struct lb_inventory_disk found;
	int r;

	r = lb_disk_find(d->env, "", disk->serial, disk->name, disk->path, &found);
	if (r < 0)
		return r;
	memcpy(ret_name, found.name, sizeof(found.name));
	*ret_size_bytes = found.size_bytes;
	return 0;
}

static int identify(struct daemon *d)
{
	enum lb_hardware_source source;
	char path[PATH_BYTES];
	int r;

	r = lb_hardware_source_load(d->env, d->settings->identity_folder, &source);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/" LB_UUID_COPY_NAME, d->settings->run_folder);
	r = lb_hardware_fingerprint(d->env, "", path, source, d->hardware, NULL);
	if (r < 0)
		return r;
	if (d->settings->name != NULL)
		snprintf(d->name, sizeof(d->name), "%s", d->settings->name);
	else if (gethostname(d->name, sizeof(d->name) - 1) < 0)
		return lb_fail(-errno, "this host has no name: %m");
	return 0;
}

static int make_session(struct daemon *d)
{
	const struct lb_http_client_options client = {.identity_folder = d->settings->identity_folder};
	struct lb_session_options options = {
		.env = d->env,
		.capture_socket = d->settings->capture_socket,
		.confirm_path = d->confirm_path,
		.hardware = d->hardware,
		.find_disk = find_disk,
		.arg = d,
	};
	struct lb_agent_config config;
	int r;

	r = lb_folder_make(d->env, d->settings->run_folder, 0755);
	if (r < 0)
		return r;
	snprintf(d->confirm_path, sizeof(d->confirm_path), "%s/" CONFIRM_NAME, d->settings->run_folder);
	r = lb_http_client_new(&client, &d->client);
	if (r < 0)
		return r;
	options.client = d->client;
	r = lb_mark_new(d->env, &d->mark);
	if (r < 0)
		return r;
	options.mark = d->mark;
	r = lb_session_new(&options, &d->session);
	if (r < 0)
		return r;
	r = lb_agent_config_load(d->env, d->settings->state_folder, &config);
	if (r == 0)
		lb_session_configure(d->session, &config);
	else if (r != -ENOENT)
		lb_warning("the last configuration can't be used, the server's is awaited: %s", lb_err_text());
	return 0;
}

static int catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake_fd < 0)
		return lb_fail(-errno, "no event descriptor: %m");
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

static int make_points(struct daemon *d)
{
	const struct lb_points_options options = {
		.env = d->env, .mark = d->mark, .capture_socket = d->settings->capture_socket, .wake_fd = wake_fd};
	const struct lb_group_run_options group = {
		.env = d->env, .settings = d->settings, .mark = d->mark, .wake_fd = wake_fd};
	int r;

	/* pages that were used once stay: none is to be fetched from a frozen filesystem */
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		lb_debug("memory can't be locked: %m");
	r = lb_points_start(&options, &d->points);
	if (r == 0)
		r = lb_group_run_start(&group, &d->group);
	if (r == 0)
		lb_manager_points(d->manager, d->points, d->group);
	return r;
}

static int start(struct daemon *d)
{
	struct lb_manager_options manager = {
		.env = d->env, .settings = d->settings, .hardware = d->hardware, .name = d->name};
	int r;

	r = identify(d);
	if (r < 0)
		return r;
	r = make_session(d);
	if (r < 0)
		return r;
	manager.wake_fd = wake_fd;
	r = lb_manager_start(&manager, &d->manager);
	return r < 0 ? r : make_points(d);
}

/* Its identity is still the one of the machine whose disks it started from. */
static bool has_identity_of(struct daemon *d, const struct lb_uuid *source)
{
	struct lb_cert_info info;
	struct lb_uuid mine;
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/cert.pem", d->settings->identity_folder);
	return lb_cert_read(d->env, path, &info) == 0 && lb_uuid_parse(info.common_name, &mine) == 0 &&
	       lb_uuid_equal(&mine, source);
}

static void show_waiting(struct daemon *d, const char *text, char shown[LB_SESSION_TEXT_BYTES])
{
	struct lb_session_status status = {.state = LB_SESSION_REFUSED, .cost_ns_per_kib = -1};

	snprintf(status.text, sizeof(status.text), "%s", text);
	if (strcmp(shown, status.text) != 0)
		lb_notice("%s", status.text);
	memcpy(shown, status.text, sizeof(status.text));
	if (lb_status_write(d->env, d->settings->run_folder, &status) < 0)
		lb_debug("%s", lb_err_text());
}

/* One that is told of a configuration server asks it; another one waits for a person. */
static bool ask_for_own(struct daemon *d, const struct lb_uuid *source, char text[LB_SESSION_TEXT_BYTES])
{
	char server[LB_OWN_TEXT_BYTES], id[LB_UUID_TEXT_BYTES];
	int r = lb_own_find(d->env, d->host_settings, &d->own);

	if (r == -EAGAIN)
		r = lb_own_ask(d->env, d->host_settings, source, server);
	lb_uuid_format(source, id);
	if (r == -ENOENT)
		snprintf(text, LB_SESSION_TEXT_BYTES,
			 "this machine is the double of machine %s and has its identity: it replicates nothing; to "
			 "protect it as a machine of its own, run `lifeboat-mobility enrol`",
			 id);
	else if (r < 0)
		snprintf(text, LB_SESSION_TEXT_BYTES,
			 "this machine is the double of machine %s: it replicates nothing; %.300s", id,
			 r == -EAGAIN ? server : lb_err_text());
	return r == 0;
}

/* A double replicates nothing into its source's journal: it waits until it is a machine of its own. */
static void wait_while_double(struct daemon *d, const struct lb_uuid *source)
{
	char text[LB_SESSION_TEXT_BYTES], shown[LB_SESSION_TEXT_BYTES] = "";
	bool was = lb_own_was(d->env, d->host_settings, source);

	while (!stopping && (was || has_identity_of(d, source)) && !ask_for_own(d, source, text)) {
		if (shown[0] == '\0' && lb_notify("READY=1") < 0)
			lb_warning("%s", lb_err_text());
		show_waiting(d, text, shown);
		d->env->ops->wait_until(d->env, lb_mono_ns(d->env) + LB_OWN_RETRY_S * LB_NS_PER_S, wake_fd);
	}
}

static void take_identity(struct daemon *d)
{
	char path[PATH_BYTES];
	int r;

	snprintf(path, sizeof(path), "%s/" LB_SMBIOS_COPY_NAME, d->host_settings->run_folder);
	r = lb_double_of(d->env, "", path, &d->source);
	if (r == -ENOENT && lb_own_remove_all(d->env, d->host_settings) < 0)
		lb_warning("what a double left on this machine's disk stays there: %s", lb_err_text());
	if (r < 0)
		return;
	wait_while_double(d, &d->source);
	d->is_own = !stopping && lb_own_find(d->env, d->host_settings, &d->own) == 0;
	if (d->is_own)
		d->settings = &d->own.settings;
}

/*
 * The machine that this double was is no more wanted, or enrolled again: said by the server that knows its secret,
 * not by a refusal alone. Its capture ends with it.
 */
static bool is_dismissed(struct daemon *d)
{
	const struct lb_agent_config none = {0};
	char text[LB_OWN_TEXT_BYTES];
	int r;

	if (!d->is_own || !lb_manager_refused(d->manager))
		return false;
	r = lb_own_ask(d->env, d->host_settings, &d->source, text);
	if (r != 0 && r != -EAGAIN)
		return false;
	lb_notice("this double is no longer the machine that it was: %s", r == 0 ? "it is enrolled anew" : text);
	lb_session_configure(d->session, &none);
	if (r != 0 && lb_own_forget(d->env, &d->own) < 0)
		lb_warning("%s", lb_err_text());
	return true;
}

static void take_renewed(struct daemon *d)
{
	const struct lb_http_client_options options = {.identity_folder = d->settings->identity_folder};
	struct lb_http_client *client;

	if (lb_http_client_new(&options, &client) < 0) {
		lb_warning("the renewed certificate can't be used yet: %s", lb_err_text());
		return;
	}
	lb_session_use_client(d->session, client);
	lb_http_client_free(d->client);
	d->client = client;
	lb_group_run_renewed(d->group);
}

static void show(struct daemon *d)
{
	struct lb_session_status status;
	int64_t now = lb_mono_ns(d->env);

	lb_session_status(d->session, &status);
	if (status.state == d->shown && now < d->show_mono_ns)
		return;
	d->shown = status.state;
	d->show_mono_ns = now + LB_STATUS_INTERVAL_S * LB_NS_PER_S;
	lb_manager_tell(d->manager, &status);
	if (lb_status_write(d->env, d->settings->run_folder, &status) < 0)
		lb_debug("%s", lb_err_text());
}

static int work(struct daemon *d)
{
	struct lb_agent_config config;
	int64_t wake_mono_ns;
	uint64_t woken;

	while (!stopping) {
		if (lb_manager_config(d->manager, &config)) {
			lb_session_configure(d->session, &config);
			lb_points_configure(d->points, &config);
			lb_group_run_configure(d->group, &config);
		}
		if (lb_manager_renewed(d->manager))
			take_renewed(d);
		if (is_dismissed(d))
			return -EAGAIN;
		lb_session_step(d->session, &wake_mono_ns);
		show(d);
		if (wake_mono_ns > lb_mono_ns(d->env))
			d->env->ops->wait_until(d->env, wake_mono_ns, wake_fd);
		while (read(wake_fd, &woken, sizeof(woken)) > 0)
			;
	}
	return 0;
}

/* By one identity. -EAGAIN: it has another one now, or none. */
static int live(struct lb_env *env, const struct lb_agent_settings *settings)
{
	_cleanup_(daemon_close) struct daemon d = {
		.env = env, .settings = settings, .host_settings = settings, .shown = LB_SESSION_STATES};
	int r;

	take_identity(&d);
	r = stopping ? 0 : start(&d);
	if (r < 0 || stopping)
		return r;
	lb_notice("ready: machine %s, configuration server %s", d.name, d.settings->config_url);
	if (lb_notify("READY=1") < 0)
		lb_warning("%s", lb_err_text());
	r = work(&d);
	if (r == 0)
		(void)lb_notify("STOPPING=1");
	return r;
}

int lb_daemon_run(struct lb_env *env, const struct lb_agent_settings *settings)
{
	int r;

	r = catch_signals();
	if (r < 0)
		return r;
	do {
		r = live(env, settings);
	} while (r == -EAGAIN && !stopping);
	if (r == 0)
		lb_notice("stopped; the kernel goes on capturing until the agent is back, protection is disabled or "
			  "the machine restarts");
	close(wake_fd);
	wake_fd = -1;
	return r == -EAGAIN ? 0 : r;
}
