/* SPDX-License-Identifier: Apache-2.0 */
/* lifeboat-config: the configuration server. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "config/daemon.h"
#include "config/init.h"

#define EXIT_USAGE 2

static const char usage[] = "lifeboat-config [--config FILE] [--check] [--debug] | --version | --help\n"
			    "lifeboat-config init --vault URL --admin-identity FOLDER [--config FILE] [--state-folder "
			    "FOLDER] [--passphrase-file FILE]\n"
			    "                     [--admin-name NAME] [--public-host NAME[,NAME]] [--address ADDRESS] "
			    "[--port PORT] [--process-port PORT]\n"
			    "                     [--fabric auto|qemu|libvirt]\n";

static int run(struct lb_env *env, const char *path, bool check)
{
	_cleanup_(lb_settings_free) struct lb_settings settings = {0};
	int r;

	r = lb_settings_read(env, path, &settings);
	if (r < 0 || check)
		return r;
	return lb_daemon_run(env, &settings);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
		{"debug", no_argument, NULL, 'd'},        {"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
	};
	const char *path = LB_SETTINGS_PATH;
	enum lb_log_level level = LB_LOG_INFO;
	bool check = false;
	int c, r;

	if (argc > 1 && strcmp(argv[1], "init") == 0) {
		lb_log_init("lifeboat-config", LB_LOG_WARNING);
		r = lb_init_command(lb_env_real(), argc - 1, argv + 1);
		if (r < 0)
			fprintf(stderr, "lifeboat-config: %s\n", lb_err_text());
		return r < 0 ? 1 : 0;
	}
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			path = optarg;
			break;
		case 'k':
			check = true;
			break;
		case 'd':
			level = LB_LOG_DEBUG;
			break;
		case 'v':
			printf("lifeboat-config %s\n", LB_VERSION);
			return 0;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	lb_log_init("lifeboat-config", level);
	r = run(lb_env_real(), path, check);
	if (r < 0)
		lb_error("%s", lb_err_text());
	return r < 0 ? 1 : 0;
}
