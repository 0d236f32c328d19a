/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

void cli_exec(const char *build_folder, const char *const *argv)
{
	char self[PATH_MAX], path[PATH_MAX + 128];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		const char *folder;

		self[n] = '\0';
		folder = dirname(self);
		snprintf(path, sizeof(path), "%s/%s", folder, argv[0]);
		execv(path, (char *const *)argv);
		snprintf(path, sizeof(path), "%s/../%s/%s", folder, build_folder, argv[0]);
		execv(path, (char *const *)argv);
	}
	execvp(argv[0], (char *const *)argv);
}
