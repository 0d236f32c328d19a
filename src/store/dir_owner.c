/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What root makes in a folder of another user is that user's: a command that an administrator runs on the servers'
 * vault must leave nothing behind that the servers can't read or replace. It is made with that user's rights instead of
 * being given to him afterwards: he could put something else in its place meanwhile.
 */
#include <errno.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "store/dir.h"

/* Of this thread alone. */
struct owner {
	bool became;
};

static void become(struct owner *o, const char *folder)
{
	struct stat st;

	if (geteuid() != 0 || stat(folder, &st) < 0 || st.st_uid == 0)
		return;
	setfsgid(st.st_gid);
	setfsuid(st.st_uid);
	o->became = true;
}

static void come_back(struct owner *o)
{
	if (!o->became)
		return;
	setfsuid(geteuid());
	setfsgid(getegid());
	o->became = false;
}

/* Where he may not make it (a mount that he can't reach), root does. */
static bool try_as_root(const struct owner *o, int result)
{
	return o->became && (result == -EACCES || result == -EPERM);
}

int lb_dir_open_new(struct lb_env *env, const char *folder, const char *path, int flags, mode_t mode)
{
	_cleanup_(come_back) struct owner o = {0};
	int r;

	become(&o, folder);
	r = env->ops->open(env, path, flags, mode);
	if (!try_as_root(&o, r))
		return r;
	come_back(&o);
	return env->ops->open(env, path, flags, mode);
}

int lb_dir_mkdir(struct lb_env *env, const char *folder, const char *path, mode_t mode)
{
	_cleanup_(come_back) struct owner o = {0};
	int r;

	become(&o, folder);
	r = env->ops->mkdir(env, path, mode);
	if (!try_as_root(&o, r))
		return r;
	come_back(&o);
	return env->ops->mkdir(env, path, mode);
}
