/* SPDX-License-Identifier: Apache-2.0 */
#include "config/secrets.h"

#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "vault/vault.h"

#define CREDENTIAL "vault-passphrase"

/* With a finite limit and no right to pass it, locked memory would run out in the middle of the work: thread stacks
 * count. */
static bool may_lock_all(void)
{
	_cleanup_free_ uint8_t *status = NULL;
	struct rlimit limit;
	const char *line;
	size_t size_bytes;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY)
		return true;
	if (lb_file_read(lb_env_real(), "/proc/self/status", 64u << 10, &status, &size_bytes) < 0)
		return false;
	line = strstr((const char *)status, "CapEff:");
	return line != NULL && (strtoull(line + strlen("CapEff:"), NULL, 16) >> CAP_IPC_LOCK & 1) != 0;
}

void lb_secrets_harden(void)
{
	if (lb_secret_memory() < 0)
		lb_warning("%s", lb_err_text());
	/* only what is used: stacks of many threads are mostly untouched */
	if (!may_lock_all() || mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		lb_info("memory is not locked: keys may reach the swap; set LimitMEMLOCK=infinity or encrypt the swap");
}

/* The service manager's comes first: settings may name a file that only root may read. */
static int find(const char *file, char *path)
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY");
	int n = 0;

	if (folder != NULL)
		n = snprintf(path, PATH_MAX, "%s/" CREDENTIAL, folder);
	if (file != NULL && (folder == NULL || n >= PATH_MAX || access(path, F_OK) < 0))
		n = snprintf(path, PATH_MAX, "%s", file);
	if (n == 0)
		return lb_fail(
			-ENOKEY,
			"the vault's passphrase is not given: set `passphrase_file`, or LoadCredential=" CREDENTIAL
			" in the service's unit");
	return n >= PATH_MAX ? lb_fail(-ENAMETOOLONG, "the path of the passphrase file is too long") : 0;
}

int lb_passphrase_load(struct lb_env *env, const char *file, char *ret_path, char **ret_passphrase)
{
	_cleanup_(lb_secret_free) char *text = NULL;
	char path[PATH_MAX];
	size_t size_bytes;
	struct stat st;
	int r;

	r = find(file, path);
	if (r < 0)
		return r;
	if (stat(path, &st) == 0 && (st.st_mode & 077 & ~(mode_t)040) != 0)
		return lb_fail(-EPERM, "%s may be read by others; `chmod 600` it", path);
	r = lb_file_read(env, path, LB_PASSPHRASE_BYTES_MAX + 2, (uint8_t **)&text, &size_bytes);
	if (r < 0)
		return r;
	if (size_bytes > 0 && text[size_bytes - 1] == '\n')
		text[--size_bytes] = '\0';
	if (size_bytes > 0 && text[size_bytes - 1] == '\r')
		text[--size_bytes] = '\0';
	if (strlen(text) != size_bytes)
		return lb_fail(-EINVAL, "%s holds no passphrase: it has zero bytes in it", path);
	memcpy(ret_path, path, strlen(path) + 1);
	*ret_passphrase = lb_steal_ptr(text);
	return 0;
}
