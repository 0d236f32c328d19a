/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "cli/cli.h"
#include "fabric/mender.h"

#define SCRIPT "lifeboat-rescue-build"
#define ARGUMENTS_MAX 16

/* In the source's tree, when we are in its build folder; else installed. */
static void become_script(const char **argv)
{
	char self[PATH_MAX], path[PATH_MAX + 128];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[n > 0 ? n : 0] = '\0';
	if (strrchr(self, '/') != NULL)
		*strrchr(self, '/') = '\0';
	snprintf(path, sizeof(path), "%s/../../../packaging/rescue/" SCRIPT, self);
	if (access(path, X_OK) < 0)
		snprintf(path, sizeof(path), "/usr/lib/lifeboat/rescue/" SCRIPT);
	argv[0] = path;
	execv(path, (char *const *)argv);
	fprintf(stderr, "lifeboat: %s is not there; install the package lifeboat\n", path);
	_exit(CLI_EXIT_ABSENT);
}

static int run_script(const struct cli *c, const char **argv, const char *what)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return lb_fail(-errno, "no process can be made: %s", strerror(errno));
	if (pid == 0) {
		if (c->json)
			dup2(STDERR_FILENO, STDOUT_FILENO);
		become_script(argv);
	}
	if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return lb_fail(-EIO, "%s not built; the reason is above", what);
	return 0;
}

int cmd_rescue_mender(struct cli *c)
{
	const char *folder = c->n_args > 0 ? c->args[0] : LB_MENDER_FOLDER;
	const char *argv[ARGUMENTS_MAX] = {SCRIPT, "--mender"};
	unsigned int n = 2;
	int r;

	if (cli_value(c, "kernel") != NULL) {
		argv[n++] = "--kernel";
		argv[n++] = cli_value(c, "kernel");
	}
	argv[n++] = "--";
	argv[n] = folder;
	if (c->dry_run)
		return cli_would(c, "make a mender in %s", folder);
	r = run_script(c, argv, "the mender was");
	return r < 0 ? r
		     : cli_did(c, "mender", json_pack("{s:s}", "folder", folder),
			       "Doubles can be mended with what is in %s.", folder);
}

int cmd_rescue_build(struct cli *c)
{
	static const char *const passed[][2] = {
		{"config", "--config"}, {"kernel", "--kernel"}, {"console", "--console"}, {"parts", "--parts"}};
	const char *argv[ARGUMENTS_MAX] = {SCRIPT};
	unsigned int n = 1;
	int r;

	for (size_t i = 0; i < LB_ARRAY_LEN(passed); i++) {
		if (cli_value(c, passed[i][0]) == NULL)
			continue;
		argv[n++] = passed[i][1];
		argv[n++] = cli_value(c, passed[i][0]);
	}
	argv[n++] = "--";
	argv[n] = c->args[0];
	if (access(c->args[0], F_OK) == 0)
		return lb_fail(-EEXIST, "%s is there already", c->args[0]);
	if (c->dry_run)
		return cli_would(c, "build a rescue medium as %s", c->args[0]);
	r = run_script(c, argv, "the rescue medium was");
	if (r < 0)
		return r;
	return cli_did(c, "rescue", json_pack("{s:s}", "file", c->args[0]),
		       "%s is a bootable rescue medium: write it to a USB stick or attach it as a CD.", c->args[0]);
}
