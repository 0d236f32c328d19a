/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/hook.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/text.h"

#define HOOK_OUTPUT_BYTES_MAX (16u << 10)

static int check_owner(const char *path, const struct stat *st)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return lb_fail(-EACCES, "%s belongs to neither root nor this server: it is not run", path);
	if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0)
		return lb_fail(-EACCES, "%s can be written to by others than its owner: it is not run (chmod go-w)",
			       path);
	return 0;
}

static int look(const char *folder, const char *name, char path[PATH_MAX])
{
	struct stat st;
	int r;

	r = lb_name_check("script", name);
	if (r < 0)
		return r;
	if (stat(folder, &st) < 0 || !S_ISDIR(st.st_mode))
		return lb_fail(-ENOENT, "there is no folder %s for scripts (hook_folder)", folder);
	r = check_owner(folder, &st);
	if (r < 0)
		return r;
	if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
		return lb_fail(-ENAMETOOLONG, "the path of script %s is too long", name);
	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return lb_fail(-ENOENT, "there is no script %s in %s", name, folder);
	if (access(path, X_OK) < 0)
		return lb_fail(-EACCES, "%s can't be executed (chmod u+x)", path);
	return check_owner(path, &st);
}

int lb_hook_check(const char *folder, const char *name)
{
	char path[PATH_MAX];

	return look(folder, name, path);
}

static void last_line(const struct lb_buf *out, char line[LB_PROC_LAST_LINE_BYTES])
{
	const char *text = (const char *)out->data, *end = text + out->size_bytes, *begin;

	while (end > text && strchr(" \r\n", end[-1]) != NULL)
		end--;
	for (begin = end; begin > text && begin[-1] != '\n'; begin--)
		;
	snprintf(line, LB_PROC_LAST_LINE_BYTES, "%.*s",
		 (int)LB_MIN(end - begin, (ptrdiff_t)LB_PROC_LAST_LINE_BYTES - 1), begin);
	/* it goes into logs, answers and terminals */
	for (char *p = line; *p != '\0'; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
}

int lb_hook_run(struct lb_env *env, const struct lb_hook *hook, char line[LB_PROC_LAST_LINE_BYTES])
{
	_cleanup_buf_ struct lb_buf out = LB_BUF(HOOK_OUTPUT_BYTES_MAX);
	const char *environment[LB_HOOK_VALUES_MAX + 2] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
	char path[PATH_MAX];
	const char *argv[] = {path, NULL};
	unsigned int n = 1;
	int r;

	r = look(hook->folder, hook->name, path);
	if (r < 0)
		return r;
	for (unsigned int i = 0; hook->values != NULL && hook->values[i] != NULL && n <= LB_HOOK_VALUES_MAX; i++)
		environment[n++] = hook->values[i];
	r = lb_proc_run(
		env,
		&(struct lb_proc_run){.argv = argv,
				      .keep_fd = -1,
				      .timeout_s = hook->timeout_s != 0 ? hook->timeout_s : LB_HOOK_TIMEOUT_S_DEFAULT,
				      .idle = hook->idle,
				      .arg = hook->arg,
				      .environment = environment,
				      .group = true},
		&out);
	line[0] = '\0';
	if (out.size_bytes > 0)
		last_line(&out, line);
	return r;
}
