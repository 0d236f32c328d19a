/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lifeboat setup`: vault, certificates, configuration. Each step looks first whether it is done, so that an
 * interrupted setup is finished by running it again.
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
	if (r == -EEXIST) {
		r = lb_vault_open(c->store, passphrase, &c->vault);
		if (r == 0 && !c->json)
			printf("1. Vault: there already, in %s.\n", c->vault_url);
		return r;
	}
	if (r == 0 && !c->json)
		printf("1. Vault: made in %s. Only its passphrase opens it; keep that where the servers are not.\n",
		       c->vault_url);
	return r;
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

int cmd_setup(struct cli *c)
{
	const char *state = value_or(c, "state-folder", "/var/lib/lifeboat"),
		   *etc = value_or(c, "etc-folder", "/etc/lifeboat");
	char conf[PATH_MAX];
	const char *argv[ARGUMENTS_MAX];
	int r;

	if (c->vault_url == NULL)
		return lb_fail(-EINVAL,
			       "where shall the vault be? Give --vault URL, for example --vault dir:/srv/vault");
	if (c->passphrase_file == NULL)
		return lb_fail(-EINVAL, "the servers read the vault's passphrase from a file at each start: write it "
					"to one that only root "
					"can read, and give --passphrase-file FILE");
	if (snprintf(conf, sizeof(conf), "%s/config.conf", etc) >= (int)sizeof(conf))
		return lb_fail(-ENAMETOOLONG, "--etc-folder is too long");
	if (c->dry_run)
		return would_set_up(c, state, conf);
	init_arguments(c, state, conf, argv);
	r = make_vault(c);
	if (r == 0)
		r = lb_folder_make(c->env, etc, 0755);
	if (r == 0)
		r = run_config_init(c, argv);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("setup", json_pack("{s:s,s:s,s:s,s:s}", "vault", c->vault_url, "state_folder",
							 state, "config", conf, "identity", c->identity_folder));
	printf("2. Configuration server: its certificates and database are in %s, its settings in %s.\n"
	       "3. You: your key and certificate are in %s.\n\n"
	       "Next: start it (`systemctl enable --now lifeboat-config`, or `lifeboat-config --config %s`),\n"
	       "then `lifeboat token create` for the first machine, and `lifeboat status` to see it.\n",
	       state, conf, c->identity_folder, conf);
	return 0;
}
