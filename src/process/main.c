/* SPDX-License-Identifier: Apache-2.0 */
/* lifeboat-process: takes segments from agents, keeps them safe, brings them into the vault. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/log.h"
#include "base/notify.h"
#include "process/api.h"
#include "process/fold.h"
#include "process/link.h"
#include "process/settings.h"
#include "process/upload.h"

#define EXIT_USAGE 2
#define CACHE_BUSY_MS 100 /* between two looks at a cache that another one holds */

struct daemon {
	struct lb_settings settings;
	struct lb_process *process;
	struct lb_ports ports;
	struct lb_upload_pool pool;
	struct lb_folder folder;
	struct lb_pushes *pushes;
	struct lb_link link;
	bool uploading, linked;
};

static void usage(FILE *out)
{
	fputs("usage: lifeboat-process [--config FILE] [--check] [--verbose] [--version]\n"
	      "  --config FILE  settings (" LB_SETTINGS_PATH ")\n"
	      "  --check        read the settings, say whether they are right, and exit\n"
	      "  --verbose      log more\n",
	      out);
}

static bool peer_allowed(void *arg, const struct lb_http_peer *peer)
{
	/* handlers look at the certificate again, with better words */
	(void)arg;
	return peer->role == LB_ROLE_MACHINE;
}

static int start_server(struct daemon *d)
{
	const struct lb_http_server_options options = {
		.address = d->settings.address,
		.port = (uint16_t)d->settings.port,
		.identity_folder = d->settings.identity_folder,
		.routes = lb_process_routes,
		.n_routes = lb_process_routes_n,
		.arg = d->process,
		.connections_max = LB_PROCESS_MACHINES_MAX,
		.body_bytes_total_max = d->settings.memory_bytes_max / 2,
		.peer_allowed = peer_allowed,
	};

	return lb_ports_start(lb_env_real(), &options, &d->ports);
}

/*
 * One that is ending, or whose configuration server was killed, still finishes what it took: it is waited for. 1: we
 * are to end ourselves.
 */
static int open_process(struct daemon *d, const struct lb_process_options *options, const sigset_t *ends)
{
	const struct timespec interval = {.tv_nsec = CACHE_BUSY_MS * LB_NS_PER_MS};
	bool told = false;
	int r;

	while ((r = lb_process_new(lb_env_real(), options, &d->process)) == -EBUSY) {
		if (!told)
			lb_notice("%s; it is waited for", lb_err_text());
		told = true;
		if (sigtimedwait(ends, NULL, &interval) > 0)
			return 1;
	}
	return r;
}

static int start(struct daemon *d, const sigset_t *ends)
{
	const struct lb_process_options options = {
		.cache_folder = d->settings.cache_folder,
		.cache_bytes_max = d->settings.cache_bytes_max,
		.vault_url = d->settings.vault,
		.seal_bytes_max = d->settings.memory_bytes_max / 2,
	};
	int r;

	r = open_process(d, &options, ends);
	if (r != 0)
		return r;
	r = lb_upload_start(d->process, (unsigned int)d->settings.uploads_max, &d->pool);
	if (r < 0)
		return r;
	d->uploading = true;
	r = lb_folder_start(d->process, &d->folder);
	if (r < 0)
		return r;
	r = start_server(d);
	if (r < 0)
		return r;
	r = lb_pushes_new(d->settings.config_url, d->settings.identity_folder, d->settings.agent_package, &d->pushes);
	if (r < 0)
		return r;
	r = lb_link_start(d->process, d->settings.config_url, d->settings.identity_folder, &d->ports, d->pushes,
			  &d->link);
	d->linked = r == 0;
	return r;
}

static void stop(struct daemon *d)
{
	if (d->linked)
		lb_link_stop(&d->link);
	if (d->pushes != NULL)
		lb_pushes_free(d->pushes);
	lb_ports_stop(&d->ports);
	lb_folder_stop(&d->folder);
	if (d->uploading)
		lb_upload_stop(&d->pool);
	if (d->process != NULL)
		lb_process_free(d->process);
	lb_settings_free(&d->settings);
}

static int serve(struct daemon *d)
{
	sigset_t ends;
	int signal_number, r;

	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	/* before any thread is made, so that all inherit it */
	pthread_sigmask(SIG_BLOCK, &ends, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = start(d, &ends);
	if (r != 0)
		return r < 0 ? r : 0;
	lb_info("ready on %s, port %u", d->settings.address, lb_http_server_port(d->ports.servers[0]));
	if (lb_notify("READY=1") < 0)
		lb_warning("%s", lb_err_text());
	sigwait(&ends, &signal_number);
	lb_info("ends by signal %d", signal_number);
	if (lb_notify("STOPPING=1") < 0)
		lb_warning("%s", lb_err_text());
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
		{"verbose", no_argument, NULL, 'v'},      {"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},         {0}};
	const char *path = LB_SETTINGS_PATH;
	enum lb_log_level level = LB_LOG_INFO;
	struct daemon d = {0};
	bool check = false;
	int c, r;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			path = optarg;
			break;
		case 'k':
			check = true;
			break;
		case 'v':
			level = LB_LOG_DEBUG;
			break;
		case 'V':
			puts("lifeboat-process " LB_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	lb_log_init("lifeboat-process", level);
	r = optind < argc ? lb_fail(-EINVAL, "unexpected argument \"%s\"", argv[optind]) : lb_secret_memory();
	if (r == 0)
		r = lb_settings_read(lb_env_real(), path, &d.settings);
	if (r == 0 && check)
		puts("the settings are right");
	if (r == 0 && !check)
		r = serve(&d);
	if (r < 0)
		lb_error("%s", lb_err_text());
	stop(&d);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
