/* SPDX-License-Identifier: Apache-2.0 */
/* lifeboat-target: brings machines home, onto the disks of this host. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/notify.h"
#include "fabric/domain.h"
#include "target/console.h"
#include "target/join.h"
#include "target/link.h"
#include "target/task.h"

#define EXIT_USAGE 2
#define EXIT_RETRY 6 /* join: nothing is wrong for good */
#define TELL_S 300   /* a machine does not wait for longer until the server knows that it starts */

static void usage(FILE *out)
{
	fputs("usage: lifeboat-target [--config FILE] [--check] [--rescue] [--verbose] [--version]\n"
	      "       lifeboat-target join NAME --server URL --ca-fingerprint HEX --token-file FILE [--config FILE]\n"
	      "                            [--identity FOLDER] [--state FOLDER]\n"
	      "       lifeboat-target " LB_TARGET_LOOK_DOMAIN
	      " URI NAME DISK...   whether a libvirt domain is off and has them\n"
	      "       lifeboat-target " LB_TARGET_START_DOMAIN " URI NAME   starts a libvirt domain unless it runs\n"
	      "       lifeboat-target " LB_TARGET_HALT_DOMAIN " URI NAME    turns it off at once\n"
	      "  --config FILE  settings (" LB_TARGET_SETTINGS_PATH ")\n"
	      "  --check        read the settings, say whether they are right, and exit\n"
	      "  --rescue       on a rescue medium: say how far things are; end when an order starts the machine\n"
	      "  --verbose      log more\n",
	      out);
}

/* One on these records at a time. One that is ending is waited for; 1: we are to end ourselves. */
static int lock_state(struct lb_env *env, const struct lb_target_settings *settings, const sigset_t *ends, int *ret_fd)
{
	const struct timespec interval = {.tv_nsec = 100 * LB_NS_PER_MS};
	char path[PATH_MAX];
	bool told = false;
	int fd, r;

	r = lb_folder_make(env, settings->state_folder, 0700);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/lock", settings->state_folder);
	fd = env->ops->open(env, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return lb_fail(fd, "can't open %s: %s", path, strerror(-fd));
	while ((r = env->ops->lock(env, fd)) == -EWOULDBLOCK) {
		if (!told)
			lb_notice("another lifeboat-target works in %s; it is waited for", settings->state_folder);
		told = true;
		if (sigtimedwait(ends, NULL, &interval) > 0) {
			env->ops->close(env, fd);
			return 1;
		}
	}
	*ret_fd = fd;
	return r < 0 ? lb_fail(r, "can't lock %s: %s", path, strerror(-r)) : 0;
}

/* An order started this host's machine: there is nothing left to do here, as soon as the server knows it. */
static bool is_home(const struct lb_target_link *link, int64_t *booted_ns)
{
	int64_t now_ns = lb_mono_ns(link->service->env);

	if (!link->booted)
		return false;
	if (*booted_ns == 0)
		*booted_ns = now_ns;
	return link->told || now_ns - *booted_ns > TELL_S * LB_NS_PER_S;
}

static void rounds(struct lb_target_link *link, const sigset_t *ends, bool rescue)
{
	const struct timespec interval = {.tv_sec = LB_TARGET_LINK_S};
	_cleanup_free_ struct lb_target_console *console = rescue ? calloc(1, sizeof(*console)) : NULL;
	int64_t booted_ns = 0;
	int n;

	do {
		lb_target_link_round(link);
		if (console != NULL)
			lb_target_console_tell(console, link->service);
		if (rescue && is_home(link, &booted_ns))
			return;
		n = sigtimedwait(ends, NULL, &interval);
	} while (n < 0);
	lb_info("ends by signal %d", n);
}

static int serve(struct lb_env *env, const struct lb_target_settings *settings, bool rescue)
{
	struct lb_target_service service = {0};
	struct lb_target_link link;
	sigset_t ends;
	int fd = -1, r;

	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	/* before any thread is made, so that all inherit it */
	pthread_sigmask(SIG_BLOCK, &ends, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = lock_state(env, settings, &ends, &fd);
	if (r != 0)
		return r < 0 ? r : 0;
	r = lb_target_service_init(env, settings, &service);
	r = r < 0 ? r : lb_target_link_open(&service, &link);
	if (r == 0) {
		lb_info("ready, orders come from %s", settings->config_url);
		if (lb_notify("READY=1") < 0)
			lb_warning("%s", lb_err_text());
		rounds(&link, &ends, rescue);
		lb_notify("STOPPING=1");
		lb_target_link_last(&link);
		lb_target_link_close(&link);
	}
	lb_target_service_end(&service);
	env->ops->close(env, fd);
	return r;
}

static const struct option options[] = {{"config", required_argument, NULL, 'c'},
					{"check", no_argument, NULL, 'k'},
					{"verbose", no_argument, NULL, 'v'},
					{"version", no_argument, NULL, 'V'},
					{"help", no_argument, NULL, 'h'},
					{"rescue", no_argument, NULL, 'r'},
					{"server", required_argument, NULL, 's'},
					{"ca-fingerprint", required_argument, NULL, 'f'},
					{"token-file", required_argument, NULL, 't'},
					{"identity", required_argument, NULL, 'i'},
					{"state", required_argument, NULL, 'S'},
					{0}};

struct asked {
	const char *config;
	bool check, help, rescue, version;
	enum lb_log_level level;
	struct lb_target_join join;
};

static int read_options(int argc, char **argv, struct asked *a)
{
	const char **values[128] = {
		['c'] = &a->config,          ['s'] = &a->join.server_url,      ['f'] = &a->join.ca_fingerprint,
		['t'] = &a->join.token_file, ['i'] = &a->join.identity_folder, ['S'] = &a->join.state_folder};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == '?')
			return -EINVAL;
		if (values[c] != NULL)
			*values[c] = optarg;
		a->check = a->check || c == 'k';
		a->help = a->help || c == 'h';
		a->rescue = a->rescue || c == 'r';
		a->version = a->version || c == 'V';
		if (c == 'v')
			a->level = LB_LOG_DEBUG;
	}
	return 0;
}

/* As the exit codes of `lifeboat`. */
static int exit_of(int error)
{
	switch (-error) {
	case EAGAIN:
	case ECONNREFUSED:
	case ECONNRESET:
	case EHOSTUNREACH:
	case ETIMEDOUT:
		return EXIT_RETRY;
	}
	return EXIT_FAILURE;
}

static int join_site(const struct asked *a, int argc, char **argv)
{
	struct lb_target_join join = a->join;
	int r;

	if (argc - optind != 2 || join.server_url == NULL || join.ca_fingerprint == NULL || join.token_file == NULL) {
		usage(stderr);
		return EXIT_USAGE;
	}
	join.name = argv[optind + 1];
	join.settings_path = a->config;
	if (join.identity_folder == NULL)
		join.identity_folder = LB_TARGET_FOLDER_DEFAULT "/identity";
	r = lb_target_join(lb_env_real(), &join);
	if (r < 0) {
		fprintf(stderr, "lifeboat-target: %s\n", lb_err_text());
		return exit_of(r);
	}
	printf("Joined as target server %s; settings are in %s.\nNow: systemctl enable --now lifeboat-target\n",
	       join.name, a->config);
	return EXIT_SUCCESS;
}

static int look_at_domain(int argc, char **argv)
{
	if (argc - optind < 3) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (lb_domain_look(argv[optind + 1], argv[optind + 2], (const char *const *)argv + optind + 3,
			   (size_t)(argc - optind - 3)) < 0) {
		fprintf(stderr, "%s\n", lb_err_text());
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

/* What the orders to start a libvirt domain and to turn it off run (boot.c). */
static int tell_domain(int argc, char **argv, int (*tell)(const char *uri, const char *name))
{
	if (argc - optind != 3) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (tell(argv[optind + 1], argv[optind + 2]) < 0) {
		fprintf(stderr, "%s\n", lb_err_text());
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct asked a = {.config = LB_TARGET_SETTINGS_PATH, .level = LB_LOG_INFO};
	_cleanup_(lb_target_settings_free) struct lb_target_settings settings = {0};
	int r;

	if (read_options(argc, argv, &a) < 0) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (a.help || a.version) {
		a.help ? usage(stdout) : (void)puts("lifeboat-target " LB_VERSION);
		return EXIT_SUCCESS;
	}
	lb_log_init("lifeboat-target", a.level);
	if (optind < argc && strcmp(argv[optind], "join") == 0)
		return join_site(&a, argc, argv);
	if (optind < argc && strcmp(argv[optind], LB_TARGET_LOOK_DOMAIN) == 0)
		return look_at_domain(argc, argv);
	if (optind < argc && strcmp(argv[optind], LB_TARGET_START_DOMAIN) == 0)
		return tell_domain(argc, argv, lb_domain_start);
	if (optind < argc && strcmp(argv[optind], LB_TARGET_HALT_DOMAIN) == 0)
		return tell_domain(argc, argv, lb_domain_halt);
	r = optind < argc ? lb_fail(-EINVAL, "unexpected argument \"%s\"", argv[optind]) : lb_secret_memory();
	r = r < 0 ? r : lb_target_settings_read(lb_env_real(), a.config, &settings);
	if (r == 0 && a.check)
		puts("the settings are right");
	else if (r == 0)
		r = serve(lb_env_real(), &settings, a.rescue);
	if (r < 0)
		lb_error("%s", lb_err_text());
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
