/* SPDX-License-Identifier: Apache-2.0 */
/* lifeboat-mobility: the agent on a protected machine. Runs without privileges; lifeboat-capture has them. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "mobility/proof.h"
#include "mobility/agent_config.h"
#include "mobility/assess.h"
#include "mobility/daemon.h"
#include "mobility/enrol.h"
#include "mobility/mend.h"
#include "mobility/mend_order.h"
#include "mobility/report.h"

#define STATUS_AGE_NS (30 * LB_NS_PER_S)

enum exit_status { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DEGRADED = 3 };

struct arguments {
	const char *config_path;
	struct lb_enrol enrol;
	struct lb_assess assess;
	bool check, json;
	const char *what; /* to mend */
	const char *root; /* below which; empty: this machine */
};

static const char usage_text[] =
	"usage: lifeboat-mobility [run] [--config FILE] [--check]\n"
	"       lifeboat-mobility enrol --config-url URL --ca-fingerprint HEX --token-file FILE [--name NAME] "
	"[--wait SECONDS] [--config FILE]\n"
	"       lifeboat-mobility status [--config FILE] [--json]\n"
	"       lifeboat-mobility prove [--config FILE]\n"
	"       lifeboat-mobility assess [--seconds N] [--socket PATH] [--json]\n"
	"       lifeboat-mobility mend initramfs|network\n"
	"       lifeboat-mobility mend ordered [--root FOLDER] [--config FILE]\n"
	"       lifeboat-mobility --version | --help\n"
	"\n"
	"run      protect this machine, as the configuration server asks (the default)\n"
	"enrol    get this machine's certificate against a one-time token (FILE - reads standard input)\n"
	"status   what the running agent is doing\n"
	"prove    on a double: say on a serial port which word its disk carries, so that a drill can check it\n"
	"assess   churn, fitness, and the ring and link that protection would need; needs nothing installed\n"
	"mend     put right what a double of this machine would lack: drivers in the initramfs, a card's name\n"
	"         (ordered: what the configuration server asked this agent for; run by lifeboat-mend.service)\n"
	"\n"
	"--wait SECONDS  how long enrol tries to reach the configuration server (0: once)\n"
	"--config FILE   " LB_AGENT_SETTINGS_PATH " unless given\n"
	"--check         read the configuration and exit\n";

enum {
	OPT_CONFIG = 256,
	OPT_CHECK,
	OPT_VERSION,
	OPT_URL,
	OPT_CA,
	OPT_TOKEN,
	OPT_NAME,
	OPT_SECONDS,
	OPT_SOCKET,
	OPT_JSON,
	OPT_ROOT,
	OPT_WAIT
};

static const struct option options[] = {
	{"config", required_argument, NULL, OPT_CONFIG},
	{"check", no_argument, NULL, OPT_CHECK},
	{"version", no_argument, NULL, OPT_VERSION},
	{"help", no_argument, NULL, 'h'},
	{"config-url", required_argument, NULL, OPT_URL},
	{"ca-fingerprint", required_argument, NULL, OPT_CA},
	{"token-file", required_argument, NULL, OPT_TOKEN},
	{"name", required_argument, NULL, OPT_NAME},
	{"seconds", required_argument, NULL, OPT_SECONDS},
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"json", no_argument, NULL, OPT_JSON},
	{"root", required_argument, NULL, OPT_ROOT},
	{"wait", required_argument, NULL, OPT_WAIT},
	{NULL, 0, NULL, 0},
};

static void parse(int argc, char **argv, struct arguments *a)
{
	uint64_t seconds;
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case OPT_CONFIG:
			a->config_path = optarg;
			break;
		case OPT_CHECK:
			a->check = true;
			break;
		case OPT_VERSION:
			puts("lifeboat-mobility " LB_VERSION);
			exit(EXIT_DONE);
		case 'h':
			fputs(usage_text, stdout);
			exit(EXIT_DONE);
		case OPT_URL:
			a->enrol.config_url = optarg;
			break;
		case OPT_CA:
			a->enrol.ca_fingerprint_hex = optarg;
			break;
		case OPT_TOKEN:
			a->enrol.token_file = optarg;
			break;
		case OPT_NAME:
			a->enrol.name = optarg;
			break;
		case OPT_SECONDS:
			if (lb_u64_parse(optarg, LB_ASSESS_SECONDS_MAX, &seconds) < 0 || seconds == 0) {
				fprintf(stderr, "lifeboat-mobility: --seconds is 1 to %d\n", LB_ASSESS_SECONDS_MAX);
				exit(EXIT_USAGE);
			}
			a->assess.seconds = (unsigned int)seconds;
			break;
		case OPT_WAIT:
			if (lb_u64_parse(optarg, LB_ENROL_WAIT_S_MAX, &a->enrol.wait_s) < 0) {
				fprintf(stderr, "lifeboat-mobility: --wait is 0 to %d\n", LB_ENROL_WAIT_S_MAX);
				exit(EXIT_USAGE);
			}
			break;
		case OPT_SOCKET:
			a->assess.capture_socket = optarg;
			break;
		case OPT_ROOT:
			a->root = optarg;
			break;
		case OPT_JSON:
			a->json = a->assess.json = true;
			break;
		default:
			fputs(usage_text, stderr);
			exit(EXIT_USAGE);
		}
	}
}

static int say_failed(void)
{
	fprintf(stderr, "lifeboat-mobility: %s\n", lb_err_text());
	return EXIT_FAILED;
}

static int do_run(struct lb_env *env, const struct arguments *a)
{
	_cleanup_(lb_agent_settings_free) struct lb_agent_settings settings = {0};

	if (lb_agent_settings_read(env, a->config_path, &settings) < 0)
		return say_failed();
	if (a->check) {
		printf("%s is well\n", a->config_path);
		return EXIT_DONE;
	}
	if (lb_daemon_run(env, &settings) < 0) {
		lb_error("%s", lb_err_text());
		return EXIT_FAILED;
	}
	return EXIT_DONE;
}

/* Its unit calls it on every machine: one that is no double has nothing to say, and that is no failure. */
static int do_prove(struct lb_env *env, const struct arguments *a)
{
	_cleanup_(lb_agent_settings_free) struct lb_agent_settings settings = {0};
	int r;

	if (lb_agent_settings_read(env, a->config_path, &settings) < 0)
		return say_failed();
	r = lb_proof_tell(env, &settings);
	return r == 0 || r == -ENOENT ? EXIT_DONE : say_failed();
}

static int do_enrol(struct lb_env *env, struct arguments *a)
{
	a->enrol.config_path = a->config_path;
	if (a->enrol.config_url == NULL || a->enrol.ca_fingerprint_hex == NULL || a->enrol.token_file == NULL) {
		fputs("lifeboat-mobility: enrol needs --config-url, --ca-fingerprint and --token-file\n", stderr);
		return EXIT_USAGE;
	}
	return lb_enrol(env, &a->enrol) < 0 ? say_failed() : EXIT_DONE;
}

static void print_status(const json_t *o)
{
	const char *text = json_string_value(json_object_get(o, "text"));
	char point[LB_TIME_TEXT_BYTES], size[LB_SIZE_TEXT_BYTES];
	int64_t point_ns = 0;
	uint64_t done = 0, total = 0, backlog = 0;

	(void)lb_json_get_i64(o, "point_ns", &point_ns);
	(void)lb_json_get_u64(o, "scan_done_bytes", &done);
	(void)lb_json_get_u64(o, "scan_total_bytes", &total);
	(void)lb_json_get_u64(o, "backlog_bytes", &backlog);
	printf("state           %s\n", json_string_value(json_object_get(o, "state")));
	if (text != NULL && text[0] != '\0')
		printf("                %s\n", text);
	printf("newest point    %s\n", point_ns != 0 ? lb_time_format(point_ns, point) : "none by this agent yet");
	printf("scan            %u%% of %s\n", total != 0 ? (unsigned int)(done * 100 / total) : 100,
	       lb_size_format(total, size));
	printf("waiting         %s in the ring\n", lb_size_format(backlog, size));
}

static int do_status(struct lb_env *env, const struct arguments *a)
{
	_cleanup_(lb_agent_settings_free) struct lb_agent_settings settings = {0};
	_cleanup_json_ json_t *object = NULL;
	_cleanup_free_ uint8_t *text = NULL;
	char path[512];
	size_t size_bytes;
	int64_t time_ns = 0;
	const char *state = NULL;

	if (lb_agent_settings_read(env, a->config_path, &settings) < 0)
		return say_failed();
	snprintf(path, sizeof(path), "%s/" LB_STATUS_NAME, settings.run_folder);
	if (lb_file_read(env, path, LB_STATUS_BYTES_MAX, &text, &size_bytes) < 0) {
		fprintf(stderr,
			"lifeboat-mobility: the agent has not run since the boot (%s); run `systemctl start "
			"lifeboat-mobility`\n",
			path);
		return EXIT_FAILED;
	}
	if (lb_json_parse(text, size_bytes, LB_STATUS_BYTES_MAX, &object) < 0)
		return say_failed();
	if (a->json)
		printf("%s\n", (const char *)text);
	else
		print_status(object);
	(void)lb_json_get_i64(object, "time_ns", &time_ns);
	if (lb_now_ns(env) - time_ns > STATUS_AGE_NS) {
		fputs("lifeboat-mobility: this is old: the agent doesn't run now; run `systemctl start "
		      "lifeboat-mobility`\n",
		      stderr);
		return EXIT_DEGRADED;
	}
	(void)lb_json_get_str(object, "state", &state);
	return state != NULL && strcmp(state, "refused") == 0 ? EXIT_DEGRADED : EXIT_DONE;
}

static int mend_network(struct lb_env *env)
{
	char path[512];
	int r = lb_mend_network(env, "", path, sizeof(path));

	if (r == -ENOENT) {
		printf("%s\n", lb_err_text());
		return EXIT_DONE;
	}
	if (r < 0)
		return say_failed();
	printf("%s is written; it takes effect on a double from the next recovery point on\n", path);
	return EXIT_DONE;
}

static int mend_ordered(struct lb_env *env, const struct arguments *a)
{
	_cleanup_(lb_agent_settings_free) struct lb_agent_settings settings = {0};
	int r;

	r = lb_agent_settings_read(env, a->config_path, &settings);
	if (r == 0)
		r = lb_mend_obey(env, a->root, settings.run_folder, settings.mend_folder);
	return r < 0 ? say_failed() : EXIT_DONE;
}

static int do_mend(struct lb_env *env, const struct arguments *a)
{
	const char *const *command;

	if (a->what == NULL ||
	    (strcmp(a->what, "initramfs") != 0 && strcmp(a->what, "network") != 0 && strcmp(a->what, "ordered") != 0)) {
		fputs("lifeboat-mobility: mend what? initramfs or network\n", stderr);
		return EXIT_USAGE;
	}
	if (geteuid() != 0) {
		fputs("lifeboat-mobility: mending writes to /etc and /boot: run it as root\n", stderr);
		return EXIT_USAGE;
	}
	if (strcmp(a->what, "ordered") == 0)
		return mend_ordered(env, a);
	if (strcmp(a->what, "network") == 0)
		return mend_network(env);
	if (lb_mend_initramfs(env, "", &command) < 0 || lb_mend_run(command) < 0)
		return say_failed();
	return EXIT_DONE;
}

int main(int argc, char **argv)
{
	struct arguments a = {
		.config_path = LB_AGENT_SETTINGS_PATH,
		.root = "",
		.assess = {.seconds = LB_ASSESS_SECONDS_DEFAULT},
	};
	struct lb_env *env = lb_env_real();
	const char *verb;

	parse(argc, argv, &a);
	verb = optind < argc ? argv[optind] : "run";
	if (strcmp(verb, "mend") == 0 && optind + 1 < argc)
		a.what = argv[++optind];
	if (optind + 1 < argc) {
		fputs(usage_text, stderr);
		return EXIT_USAGE;
	}
	lb_log_init("lifeboat-mobility", LB_LOG_INFO);
	if (strcmp(verb, "run") == 0)
		return do_run(env, &a);
	if (strcmp(verb, "enrol") == 0)
		return do_enrol(env, &a);
	if (strcmp(verb, "prove") == 0)
		return do_prove(env, &a);
	if (strcmp(verb, "status") == 0)
		return do_status(env, &a);
	if (strcmp(verb, "mend") == 0)
		return do_mend(env, &a);
	if (strcmp(verb, "assess") == 0)
		return lb_assess(env, &a.assess) < 0 ? say_failed() : EXIT_DONE;
	fputs(usage_text, stderr);
	return EXIT_USAGE;
}
