/* SPDX-License-Identifier: Apache-2.0 */
/* `lifeboat setup` at a terminal: what was not said is asked, each answer is kept at once. */
#include "cli/setup_ask.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "vault/vault.h"

#define LINE_BYTES 512
#define TRIES_MAX 5

static int check_url(struct cli *c, const char *text)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;

	return lb_store_open(c->env, text, true, &store);
}

static int check_machine(struct cli *c, const char *text)
{
	(void)c;
	return lb_name_check("machine", text);
}

static int check_policy(struct cli *c, const char *text)
{
	(void)c;
	return lb_name_check("policy", text);
}

static int check_port(struct cli *c, const char *text)
{
	uint64_t port;
	int r = lb_u64_parse(text, UINT16_MAX, &port);

	(void)c;
	return r < 0 || port == 0 ? lb_fail(-EINVAL, "a port is a number from 1 to 65535") : 0;
}

static int check_fabric(struct cli *c, const char *text)
{
	(void)c;
	if (strcmp(text, "auto") == 0 || strcmp(text, "qemu") == 0 || strcmp(text, "libvirt") == 0)
		return 0;
	return lb_fail(-EINVAL, "that is auto, libvirt or qemu");
}

static int check_hosts(struct cli *c, const char *text)
{
	(void)c;
	return strpbrk(text, " \t/") == NULL ? 0 : lb_fail(-EINVAL, "names and addresses, with commas between them");
}

static const struct question {
	const char *answer, *words, *ask, *otherwise; /* what Enter means; NULL: it may stay open */
	bool server;                                  /* only while there is no configuration server yet */
	int (*check)(struct cli *c, const char *text);
} questions[] = {
	{"vault",
	 "1. Vault. All that recovery needs lies in one storage account, sealed by a passphrase: a folder (dir:/PATH), "
	 "Azure\n"
	 "   Blob Storage (azure:...) or S3 (s3:...). It should be where a fire at this site doesn't reach.",
	 "Where shall the vault be", "dir:/srv/lifeboat-vault", true, check_url},
	{"machine",
	 "2. Source. Physical servers (and virtual ones) are protected by an agent. It is best to begin with one.",
	 "Name of the first machine (Enter: later)", NULL, false, check_machine},
	{"fabric", "3. Target. Doubles are virtual machines, made on this host by libvirt or by QEMU alone.",
	 "What makes them: auto, libvirt, qemu", "auto", true, check_fabric},
	{"public-host",
	 "4. Configuration server. Machines and operators reach it by HTTPS, and machines send their writes to the "
	 "process\n"
	 "   server, which it starts too.",
	 "Names and addresses by which they reach this host", "", true, check_hosts},
	{"port", NULL, "Port of the API", "443", true, check_port},
	{"process-port", NULL, "Port of the process server", "9443", true, check_port},
	{"policy",
	 "5. Policy. It says how old the newest recovery point may get, how long points are kept, and what is sent "
	 "when.",
	 "Name of the policy; it is made if it isn't there", "default", false, check_policy},
};

static int read_line(const char *ask, const char *otherwise, char line[LINE_BYTES])
{
	if (otherwise != NULL)
		printf("   %s [%s]: ", ask, otherwise);
	else
		printf("   %s: ", ask);
	fflush(stdout);
	if (fgets(line, LINE_BYTES, stdin) == NULL) {
		printf("\n");
		return lb_fail(-ECANCELED, "the setup was broken off; `lifeboat setup` goes on with what was answered");
	}
	if (strchr(line, '\n') == NULL)
		return lb_fail(-EINVAL, "that line is too long");
	line[strcspn(line, "\r\n")] = '\0';
	if (line[0] == '\0' && otherwise != NULL)
		snprintf(line, LINE_BYTES, "%s", otherwise);
	return 0;
}

static int ask_one(struct cli *c, const char *etc, json_t *answers, const struct question *q)
{
	char line[LINE_BYTES], host[HOST_NAME_MAX + 1] = "localhost";
	const char *otherwise = q->otherwise;
	int r;

	if (otherwise != NULL && otherwise[0] == '\0' && gethostname(host, sizeof(host) - 1) == 0)
		otherwise = host;
	if (q->words != NULL)
		printf("%s\n", q->words);
	for (unsigned int tries = 0;; tries++) {
		r = read_line(q->ask, otherwise, line);
		if (r < 0)
			return r;
		if (line[0] == '\0')
			return 0;
		r = q->check(c, line);
		if (r == 0)
			break;
		if (tries + 1 == TRIES_MAX)
			return r;
		printf("   %s\n", lb_err_text());
		lb_err_clear();
	}
	r = lb_json_set_str(answers, q->answer, line);
	return r < 0 ? lb_fail(-ENOMEM, "out of memory for the setup") : cli_setup_keep(c, etc, answers);
}

/* Whether it opens the vault that is there; anything opens one that is not. */
static int try_passphrase(struct cli *c, const char *url, const char *passphrase)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	_cleanup_(lb_vault_freep) struct lb_vault *vault = NULL;
	int r;

	if (strlen(passphrase) < LB_PASSPHRASE_BYTES_MIN)
		return lb_fail(-EINVAL, "a passphrase has at least %d characters", LB_PASSPHRASE_BYTES_MIN);
	r = lb_store_open(c->env, url, true, &store);
	r = r < 0 ? r : lb_vault_open(store, passphrase, &vault);
	return r == -ENOENT ? 0 : r;
}

static int ask_passphrase(struct cli *c, const char *etc, json_t *answers)
{
	const char *url = json_string_value(json_object_get(answers, "vault"));
	char path[PATH_MAX], text[LB_PASSPHRASE_BYTES_MAX + 2];
	int r;

	if (snprintf(path, sizeof(path), "%s/" CLI_SETUP_PASSPHRASE, etc) >= (int)sizeof(path))
		return lb_fail(-ENAMETOOLONG, "--etc-folder is too long");
	printf("   Whoever has the passphrase has all data, and without it nobody has. The servers read it at each "
	       "start from\n"
	       "   %s (only root reads that); keep it in a safe place elsewhere too.\n",
	       path);
	for (unsigned int tries = 0; access(path, F_OK) < 0; tries++) {
		_cleanup_passphrase_ char *passphrase = NULL;

		r = cli_passphrase(c, true, &passphrase);
		r = r < 0 ? r : try_passphrase(c, url, passphrase);
		if (r == 0) {
			snprintf(text, sizeof(text), "%s\n", passphrase);
			r = lb_file_write(c->env, path, text, strlen(text), 0600);
			lb_wipe(text, sizeof(text));
			if (r < 0)
				return r;
			break;
		}
		if ((r != -EINVAL && r != -EKEYREJECTED) || tries + 1 == TRIES_MAX)
			return r;
		printf("   %s\n", lb_err_text());
		lb_err_clear();
	}
	r = lb_json_set_str(answers, "passphrase-file", path);
	return r < 0 ? lb_fail(-ENOMEM, "out of memory for the setup") : cli_setup_keep(c, etc, answers);
}

bool cli_setup_may_ask(const struct cli *c)
{
	return !c->json && !c->dry_run && cli_value(c, "no-ask") == NULL && isatty(STDIN_FILENO) &&
	       isatty(STDOUT_FILENO);
}

int cli_setup_ask(struct cli *c, const char *etc, bool has_server, json_t *answers)
{
	int r = lb_folder_make(c->env, etc, 0755);

	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(questions); i++) {
		const struct question *q = &questions[i];

		if (json_object_get(answers, q->answer) == NULL && !(q->server && has_server))
			r = ask_one(c, etc, answers, q);
		if (r == 0 && strcmp(q->answer, "vault") == 0 && json_object_get(answers, "vault") != NULL &&
		    json_object_get(answers, "passphrase-file") == NULL)
			r = ask_passphrase(c, etc, answers);
	}
	return r;
}

int cli_setup_ask_yes(struct cli *c, const char *words, bool *ret_yes)
{
	char line[LINE_BYTES];
	int r;

	(void)c;
	r = read_line(words, "yes", line);
	if (r == 0)
		*ret_yes = line[0] == 'y' || line[0] == 'Y';
	return r;
}
