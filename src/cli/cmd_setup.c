/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lifeboat setup`: vault, source, target, configuration server, policy, agent, first test failover. Each step looks
 * first whether it is done, so that an interrupted setup is finished by running it again.
 */
#include "cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "cli/service.h"
#include "cli/setup_ask.h"
#include "cli/setup_steps.h"

#define NAME_BYTES_MAX 64
#define ARGUMENTS_MAX 24

static const char *value_or(const struct cli *c, const char *name, const char *otherwise)
{
	return cli_value(c, name) != NULL ? cli_value(c, name) : otherwise;
}

static int make_vault(struct cli *c)
{
	_cleanup_passphrase_ char *passphrase = NULL;
	struct lb_uuid id;
	int r;

	r = lb_store_open(c->env, c->vault_url, true, &c->store);
	if (r < 0)
		return r;
	if (c->store->credentials_by_environment)
		return lb_fail(
			-EINVAL,
			"the servers don't have this shell's variables: write the store's credentials to a file that "
			"root and the group lifeboat can read (chmod 640), and give it by credentials=FILE in the "
			"address, or write them to /etc/lifeboat/store.credentials");
	r = lb_store_prove(c->store);
	if (r < 0)
		return r;
	r = cli_passphrase(c, true, &passphrase);
	if (r < 0)
		return r;
	r = lb_vault_create(c->store, passphrase, &id);
	return r == -EEXIST ? lb_vault_open(c->store, passphrase, &c->vault) : r;
}

static int run_config_init(const struct cli *c, const char *const *argv)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return lb_fail(-errno, "can't start lifeboat-config: %s", strerror(errno));
	if (pid == 0) {
		if (c->json) /* standard output is for our one object */
			dup2(STDERR_FILENO, STDOUT_FILENO);
		cli_exec("config", argv);
		fprintf(stderr, "lifeboat: lifeboat-config is not on this host; install the package lifeboat\n");
		_exit(CLI_EXIT_ABSENT);
	}
	if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return lb_fail(-EIO,
			       "`lifeboat-config init` failed; its message is above; mend it and run setup again");
	return 0;
}

/* What `lifeboat-config init` is run with. `conf` and `state` must stay. */
static void init_arguments(const struct cli *c, const char *state, const char *conf, const char *argv[ARGUMENTS_MAX])
{
	static char host[NAME_BYTES_MAX + 1] = "localhost";
	const char *const passed[][2] = {
		{"--config", conf},
		{"--state-folder", state},
		{"--vault", c->vault_url},
		{"--passphrase-file", c->passphrase_file},
		{"--admin-identity", c->identity_folder},
		{"--public-host", value_or(c, "public-host", host)},
		{"--address", cli_value(c, "address")},
		{"--port", value_or(c, "port", "443")},
		{"--process-port", value_or(c, "process-port", "9443")},
		{"--fabric", cli_value(c, "fabric")},
	};
	size_t n = 0;

	_Static_assert(2 + 2 * LB_ARRAY_LEN(passed) < ARGUMENTS_MAX, "room for all arguments");
	gethostname(host, sizeof(host) - 1);
	argv[n++] = "lifeboat-config";
	argv[n++] = "init";
	for (size_t i = 0; i < LB_ARRAY_LEN(passed); i++) {
		if (passed[i][1] == NULL)
			continue;
		argv[n++] = passed[i][0];
		argv[n++] = passed[i][1];
	}
	argv[n] = NULL;
}

/* What is there already, and what would be made. */
static int would_set_up(struct cli *c, const char *state, const char *conf)
{
	bool vault, config = access(conf, F_OK) == 0;
	int r;

	r = lb_store_open(c->env, c->vault_url, false, &c->store);
	if (r == 0)
		r = lb_vault_open_keyless(c->store, &c->vault);
	if (r < 0 && r != -ENOENT)
		return r;
	vault = r == 0;
	return cli_would(c, "%s the vault in %s; %s the configuration server in %s, with its settings in %s",
			 vault ? "keep" : "make", c->vault_url, config ? "keep" : "make", state, conf);
}

/* ---- what was answered before counts until it is answered anew ------------------------------------------------- */

static const char *const kept[] = {"state-folder", "public-host", "port",    "process-port",
				   "address",      "fabric",      "machine", "policy"};

static const char *answer(const json_t *answers, const char *name)
{
	return json_string_value(json_object_get(answers, name));
}

static int take_answers(struct cli *c, json_t *answers)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(kept); i++)
		if (cli_value(c, kept[i]) != NULL)
			r = lb_json_set_str(answers, kept[i], cli_value(c, kept[i]));
	if (r == 0 && c->vault_url != NULL)
		r = lb_json_set_str(answers, "vault", c->vault_url);
	if (r == 0 && c->passphrase_file != NULL)
		r = lb_json_set_str(answers, "passphrase-file", c->passphrase_file);
	if (r < 0)
		return lb_fail(-ENOMEM, "out of memory for the setup");
	c->vault_url = answer(answers, "vault");
	c->passphrase_file = answer(answers, "passphrase-file");
	/* as if all had been given now */
	for (size_t i = 0; i < LB_ARRAY_LEN(kept); i++)
		for (size_t k = 0; k < CLI_OPTIONS_MAX && c->command->options[k].name != NULL; k++)
			if (strcmp(c->command->options[k].name, kept[i]) == 0)
				c->values[k] = answer(answers, kept[i]);
	return 0;
}

static int check_answers(const struct cli *c)
{
	int r;

	if (c->vault_url == NULL)
		return lb_fail(-EINVAL,
			       "where shall the vault be? Give --vault URL, for example --vault dir:/srv/vault");
	if (c->passphrase_file == NULL)
		return lb_fail(-EINVAL, "the servers read the vault's passphrase from a file at each start: write it "
					"to one that only root "
					"can read, and give --passphrase-file FILE");
	r = cli_value(c, "machine") != NULL ? lb_name_check("machine", cli_value(c, "machine")) : 0;
	return r == 0 && cli_value(c, "policy") != NULL ? lb_name_check("policy", cli_value(c, "policy")) : r;
}

/* Run by root for the whole host, it leaves to the service's user what is the service's. */
static int first_steps(struct cli *c, struct cli_setup *s, const char *state, const char *const *argv)
{
	int r;

	r = make_vault(c);
	if (r == 0)
		r = cli_setup_step(c, s, 1, "Vault", true,
				   "in %s. Only its passphrase opens it; keep that where the servers are not",
				   c->vault_url);
	if (r == 0)
		r = cli_setup_step(c, s, 2, "Source", s->machine != NULL,
				   s->machine != NULL ? "physical servers; the first is %s"
						      : "say which machine is the first: --machine NAME%s",
				   s->machine != NULL ? s->machine : "");
	if (r == 0)
		r = cli_setup_step(c, s, 3, "Target", true, "doubles are made on this host (%s)",
				   value_or(c, "fabric", "auto"));
	if (r == 0)
		r = lb_folder_make(c->env, s->etc, 0755);
	if (r == 0)
		r = cli_setup_keep(c, s->etc, s->answers);
	if (r == 0)
		r = run_config_init(c, argv);
	if (r < 0 || strcmp(s->etc, CLI_ETC_FOLDER) != 0)
		return r;
	r = cli_service_give_vault(c->vault_url);
	if (r == 0)
		r = cli_service_give(state);
	return r < 0 ? r : cli_service_passphrase(c->env, c->passphrase_file);
}

/* The first name that reaches the server from here. */
static const char *local_host(const struct cli *c, char host[256])
{
	const char *address = cli_value(c, "address");

	if (address != NULL && strcmp(address, "0.0.0.0") != 0 && strcmp(address, "::") != 0)
		return address;
	if (cli_value(c, "public-host") != NULL)
		snprintf(host, 256, "%.*s", (int)strcspn(cli_value(c, "public-host"), ","),
			 cli_value(c, "public-host"));
	else
		gethostname(host, 255);
	return host;
}

/* What was said now, before, or is said when it is asked for. */
static int all_answers(struct cli *c, const struct cli_setup *s, const char *conf, json_t **answers)
{
	int r;

	r = cli_setup_answers(c, s->etc, answers);
	if (r == 0)
		r = take_answers(c, *answers);
	if (r == 0 && cli_setup_may_ask(c)) {
		printf("Seven steps lead from an empty host to a machine whose recovery was proven. Each looks first "
		       "whether it is\n"
		       "done; `lifeboat setup` goes on where it stopped.\n");
		r = cli_setup_ask(c, s->etc, access(conf, F_OK) == 0, *answers);
		if (r == 0)
			r = take_answers(c, *answers);
	}
	return r < 0 ? r : check_answers(c);
}

int cmd_setup(struct cli *c)
{
	_cleanup_json_ json_t *answers = NULL, *steps = json_array();
	struct cli_setup s = {.etc = value_or(c, "etc-folder", CLI_ETC_FOLDER), .steps = steps};
	const char *state, *argv[ARGUMENTS_MAX];
	char conf[PATH_MAX], host[256] = "localhost";
	int r;

	if (snprintf(conf, sizeof(conf), "%s/config.conf", s.etc) >= (int)sizeof(conf))
		return lb_fail(-ENAMETOOLONG, "--etc-folder is too long");
	r = all_answers(c, &s, conf, &answers);
	if (r < 0)
		return r;
	s.answers = answers;
	state = value_or(c, "state-folder", "/var/lib/lifeboat");
	if (c->dry_run)
		return would_set_up(c, state, conf);
	s.machine = cli_value(c, "machine");
	s.policy = value_or(c, "policy", "default");
	s.test = cli_value(c, "test-failover") != NULL;
	s.port = value_or(c, "port", "443");
	s.host = local_host(c, host);
	init_arguments(c, state, conf, argv);
	r = first_steps(c, &s, state, argv);
	if (r == 0)
		r = cli_setup_rest(c, &s);
	if (r < 0 || !c->json)
		return r;
	return cli_print_json("setup", json_pack("{s:s,s:s,s:s,s:s,s:O}", "vault", c->vault_url, "state_folder", state,
						 "config", conf, "identity", c->identity_folder, "steps", steps));
}
