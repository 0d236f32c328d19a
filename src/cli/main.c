/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/cli.h"
#include "wire/client.h"

static enum cli_exit exit_of(int error)
{
	switch (-error) {
	case EINVAL:
	case ERANGE:
		return CLI_EXIT_USAGE;
	case ENOENT:
		return CLI_EXIT_ABSENT;
	case EACCES:
	case EPERM:
	case EEXIST:
	case EKEYREJECTED:
	case ECANCELED:
	case ENOTEMPTY:
		return CLI_EXIT_REFUSED;
	case EAGAIN:
	case EBUSY:
	case ETIMEDOUT:
	case ECONNREFUSED:
	case EHOSTUNREACH:
		return CLI_EXIT_RETRY;
	}
	return CLI_EXIT_FAILED;
}

static void print_error(const struct cli *c, int error)
{
	_cleanup_json_ json_t *j = NULL;
	_cleanup_free_ char *text = NULL;

	if (!c->json) {
		fprintf(stderr, "lifeboat: %s\n", lb_err_text());
		return;
	}
	j = json_pack("{s:s,s:s,s:{s:i,s:s}}", "api", "lifeboat/v1", "kind", "error", "data", "exit",
		      (int)exit_of(error), "message", lb_err_text());
	if (j != NULL && lb_json_dump(j, &text) == 0)
		fprintf(stderr, "%s\n", text);
}

static void cli_close(struct cli *c)
{
	if (c->client != NULL)
		lb_http_client_free(c->client);
	if (c->vault != NULL)
		lb_vault_free(c->vault);
	if (c->store != NULL)
		lb_store_free(c->store);
}

int main(int argc, char **argv)
{
	_cleanup_(cli_close) struct cli c = {.env = lb_env_real()};
	int r;

	/* a passphrase may pass through this process */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	lb_log_init("lifeboat", LB_LOG_WARNING);
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("lifeboat %s\n", LB_VERSION);
		return CLI_EXIT_DONE;
	}
	r = cli_parse(&c, argc, argv);
	if (r > 0)
		return CLI_EXIT_DONE;
	if (r == 0) {
		cli_defaults(&c);
		r = c.command->run(&c);
	}
	if (r == 0 && fflush(stdout) != 0)
		r = lb_fail(-EIO, "what was answered could not be written out: %s", strerror(errno));
	if (r < 0) {
		print_error(&c, r);
		return exit_of(r);
	}
	return c.degraded ? CLI_EXIT_DEGRADED : CLI_EXIT_DONE;
}
