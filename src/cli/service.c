/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/service.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"

#define USER "lifeboat"
#define UNIT "lifeboat-config.service"
#define DROP_IN_FOLDER "/etc/systemd/system/" UNIT ".d"
#define DROP_IN DROP_IN_FOLDER "/50-passphrase.conf"
#define DROP_IN_BYTES_MAX 8192
#define DEPTH_MAX 32

static const struct passwd *service_user(void)
{
	return geteuid() == 0 ? getpwnam(USER) : NULL;
}

static int give_below(int fd, const char *path, const struct passwd *user, unsigned int depth);

/* By its descriptor: whoever may write there can't have another file given away. */
static int give_one(int at, const char *name, const struct passwd *user, unsigned int depth)
{
	_cleanup_close_ int fd = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	int r = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : lb_fail(-errno, "can't open %s: %s", name, strerror(errno));
	if (fstat(fd, &st) < 0)
		return lb_fail(-errno, "can't look at %s: %s", name, strerror(errno));
	if (S_ISDIR(st.st_mode))
		r = give_below(fd, name, user, depth);
	else if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
		return 0;
	if (r == 0 && st.st_uid == 0 && fchownat(fd, "", user->pw_uid, user->pw_gid, AT_EMPTY_PATH) < 0)
		r = lb_fail(-errno, "%s can't be given to user %s: %s", name, USER, strerror(errno));
	return r;
}

static int give_below(int fd, const char *path, const struct passwd *user, unsigned int depth)
{
	int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	const struct dirent *entry;
	DIR *dir;

	if (depth == DEPTH_MAX) {
		if (own >= 0)
			close(own);
		return lb_fail(-ELOOP, "%s is too deep a folder", path);
	}
	dir = own >= 0 ? fdopendir(own) : NULL;
	if (dir == NULL) {
		r = lb_fail(-errno, "can't list %s: %s", path, strerror(errno));
		if (own >= 0)
			close(own);
		return r;
	}
	while (r == 0 && (entry = readdir(dir)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			r = give_one(own, entry->d_name, user, depth + 1);
	closedir(dir);
	return r;
}

int cli_service_give(const char *folder)
{
	const struct passwd *user = service_user();

	return user != NULL ? give_one(AT_FDCWD, folder, user, 0) : 0;
}

int cli_service_give_vault(const char *url)
{
	static const char scheme[] = "dir:";
	char path[PATH_MAX];
	struct stat st;

	if (strncmp(url, scheme, strlen(scheme)) != 0 || service_user() == NULL)
		return 0;
	snprintf(path, sizeof(path), "%s", url + strlen(scheme));
	return stat(path, &st) == 0 && st.st_uid == 0 ? cli_service_give(path) : 0;
}

int cli_service_passphrase(struct lb_env *env, const char *file)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-";
	_cleanup_buf_ struct lb_buf text = LB_BUF(DROP_IN_BYTES_MAX);
	int r;

	if (service_user() == NULL || access("/lib/systemd/system/" UNIT, F_OK) < 0)
		return 0;
	if (file[0] != '/' || strspn(file, plain) != strlen(file))
		return lb_fail(-EINVAL, "the passphrase file %s: give a whole path of letters, digits and ._-", file);
	r = lb_folder_make(env, DROP_IN_FOLDER, 0755);
	if (r == 0)
		r = lb_buf_printf(&text, "# written by lifeboat setup\n[Service]\nLoadCredential=vault-passphrase:%s\n",
				  file);
	r = r < 0 ? r : lb_file_write_new(env, DROP_IN, text.data, text.size_bytes, 0644);
	return r == -EEXIST ? 0 : r;
}
