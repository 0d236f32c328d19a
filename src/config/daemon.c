/* SPDX-License-Identifier: Apache-2.0 */
#include "config/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "base/notify.h"
#include "config/api.h"
#include "config/drills.h"
#include "config/failovers.h"
#include "config/jobs.h"
#include "config/moves.h"
#include "config/process_child.h"
#include "config/reprotect.h"
#include "config/secrets.h"
#include "config/site.h"
#include "config/status.h"
#include "config/temporary.h"

#define WATCH_INTERVAL_S 10
#define RENEW_INTERVAL_S 3600
#define CONNECTIONS_MAX 2048
#define FILES_MAX 16384

static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= FILES_MAX)
		return;
	limit.rlim_cur = LB_MIN((rlim_t)FILES_MAX, limit.rlim_max);
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		lb_info("the limit of open files stays at %llu: %s", (unsigned long long)limit.rlim_cur,
			strerror(errno));
}

/* Jobs are one server's: a second one on the same database would do them twice. The lock lives as long as the process.
 */
static int lock_state(struct lb_site *site, int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];
	int r;

	r = lb_site_path(path, site->settings.state_folder, "lock");
	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return lb_fail(-errno, "can't open %s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return lb_fail(-EBUSY, "another lifeboat-config works in %s; stop it first",
			       site->settings.state_folder);
	*ret_fd = lb_steal_fd(fd);
	return 0;
}

static int restore(struct lb_site *site)
{
	unsigned int n;
	int r;

	r = lb_vault_copy_restore(site, &n);
	if (r == 0 && n > 0)
		lb_event(site, "warning", "registry",
			 "%u machines were taken from the vault's copy: they must enrol again to go on", n);
	return r < 0 ? r : lb_reg_policy_init(site->db, lb_now_ns(site->env));
}

static int start_server(struct lb_site *site)
{
	struct lb_http_server_options options = {.address = site->settings.address,
						 .port = (uint16_t)site->settings.port,
						 .identity_folder = site->identity_folder,
						 .routes = lb_config_routes,
						 .n_routes = lb_config_routes_n,
						 .arg = site,
						 .connections_max = CONNECTIONS_MAX,
						 .peer_allowed = lb_api_peer_allowed};
	bool renewed;
	int r;

	r = lb_site_identity_renew(site, &renewed);
	return r < 0 ? r : lb_http_server_start(&options, &site->server);
}

static int start(struct lb_site *site)
{
	int r;

	r = restore(site);
	if (r == 0)
		r = lb_jobs_start(site, lb_job_kinds, &site->jobs);
	if (r == 0)
		r = start_server(site);
	if (r == 0 && site->settings.process_server)
		r = lb_process_child_local(site, &site->child);
	if (r == 0 && site->settings.target_server)
		r = lb_target_child_local(site, &site->target_child);
	return r < 0 ? r : lb_temporary_resume(site);
}

static void stop(struct lb_site *site)
{
	/* the child first: it still reports to us while it ends */
	if (site->target_child != NULL)
		lb_process_child_stop(lb_steal_ptr(site->target_child));
	if (site->child != NULL)
		lb_process_child_stop(lb_steal_ptr(site->child));
	lb_temporary_stop(site);
	if (site->server != NULL)
		lb_http_server_stop(lb_steal_ptr(site->server));
	if (site->jobs != NULL)
		lb_jobs_stop(site->jobs);
}

static void renew(struct lb_site *site)
{
	bool renewed = false;
	int r;

	r = lb_site_identity_renew(site, &renewed);
	if (r == 0 && renewed)
		r = lb_http_server_reload(site->server);
	if (r == 0 && site->child != NULL) {
		r = lb_site_process_identity_renew(site, &renewed);
		if (r == 0 && renewed)
			lb_process_child_restart(site->child);
	}
	if (r == 0 && site->target_child != NULL) {
		r = lb_site_target_identity_renew(site, &renewed);
		if (r == 0 && renewed)
			lb_process_child_restart(site->target_child);
	}
	if (r == 0)
		r = lb_temporary_renew(site);
	if (r < 0)
		lb_event(site, "warning", "certificates", "renewal failed: %s", lb_err_text());
}

/* Keys that `lifeboat vault rotate` made; process servers are given them with their next configuration. */
static void follow_keys(struct lb_site *site, bool anyway, bool *failing)
{
	int r = lb_vault_keyrings_follow(site->vault, anyway);

	if (r < 0 && !*failing)
		lb_warning("whether machines have new keys can't be seen: %s", lb_err_text());
	*failing = r < 0;
}

static void look_after(struct lb_site *site, int64_t *renew_due_ns)
{
	static bool keys_failing;
	int64_t now_ns = lb_mono_ns(site->env);

	follow_keys(site, now_ns >= *renew_due_ns, &keys_failing);
	if (lb_status_watch(site) < 0)
		lb_warning("the machines' health can't be looked at: %s", lb_err_text());
	if (lb_moves_watch(site) < 0)
		lb_warning("machines of lost process servers can't be moved: %s", lb_err_text());
	if (lb_reprotect_wake(site) < 0)
		lb_warning("jobs of doubles on their way back can't be woken: %s", lb_err_text());
	lb_drills_tick(site);
	if (now_ns < *renew_due_ns)
		return;
	renew(site);
	*renew_due_ns = now_ns + RENEW_INTERVAL_S * LB_NS_PER_S;
}

static void serve(struct lb_site *site, const sigset_t *signals)
{
	const struct timespec interval = {.tv_sec = WATCH_INTERVAL_S};
	int64_t renew_due_ns = lb_mono_ns(site->env) + RENEW_INTERVAL_S * LB_NS_PER_S;

	lb_notice("ready: https://%s:%u, vault %s, authority %s", site->settings.address,
		  lb_http_server_port(site->server), site->settings.vault, site->ca_fingerprint);
	if (lb_notify("READY=1") < 0)
		lb_warning("%s", lb_err_text());
	for (;;) {
		int n = sigtimedwait(signals, NULL, &interval);

		if (n == SIGTERM || n == SIGINT)
			break;
		if (n < 0 && errno == EAGAIN)
			look_after(site, &renew_due_ns);
	}
	lb_notice("ending");
	lb_notify("STOPPING=1");
}

int lb_daemon_run(struct lb_env *env, struct lb_settings *settings)
{
	_cleanup_(lb_site_freep) struct lb_site *site = NULL;
	_cleanup_close_ int lock_fd = -1;
	sigset_t signals;
	int r;

	/* before there are threads, which inherit it */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	lb_secrets_harden();
	raise_file_limit();
	r = lb_site_open(env, settings, &site);
	if (r == 0)
		r = lock_state(site, &lock_fd);
	if (r < 0)
		return r;
	r = start(site);
	if (r == 0)
		serve(site, &signals);
	stop(site);
	return r;
}
