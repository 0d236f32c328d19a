/* SPDX-License-Identifier: Apache-2.0 */
#include "store/credentials.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/conf.h"
#include "base/crypto.h"
#include "base/err.h"

#define SYSTEMD_CREDENTIAL "store-credentials"

struct lb_credentials_source {
	struct lb_env *env;
	enum lb_provider provider;
	char path[PATH_MAX]; /* empty: the environment */
	bool by_environment;
	pthread_mutex_t lock; /* of what follows */
	struct stat seen;
	struct lb_credentials now;
	uint64_t generation; /* 0: none were read yet */
};

#define MEMBERS 7
_Static_assert(sizeof(struct lb_credentials) == MEMBERS * sizeof(char *), "all members are texts");

static char **members(struct lb_credentials *c)
{
	return (char **)c;
}

void lb_credentials_clear(struct lb_credentials *c)
{
	for (size_t i = 0; i < MEMBERS; i++) {
		char *text = members(c)[i];

		if (text != NULL)
			lb_wipe(text, strlen(text));
		free(text);
		members(c)[i] = NULL;
	}
}

static int copy(struct lb_credentials *from, struct lb_credentials *ret)
{
	_cleanup_(lb_credentials_clear) struct lb_credentials c = {0};

	for (size_t i = 0; i < MEMBERS; i++) {
		if (members(from)[i] == NULL)
			continue;
		members(&c)[i] = strdup(members(from)[i]);
		if (members(&c)[i] == NULL)
			return lb_fail(-ENOMEM, "out of memory for credentials");
	}
	*ret = c;
	c = (struct lb_credentials){0};
	return 0;
}

static bool equal(struct lb_credentials *a, struct lb_credentials *b)
{
	for (size_t i = 0; i < MEMBERS; i++) {
		const char *x = members(a)[i], *y = members(b)[i];

		if ((x == NULL) != (y == NULL) || (x != NULL && strcmp(x, y) != 0))
			return false;
	}
	return true;
}

/* ---- what is in them ------------------------------------------------------------------------------------ */

/* A SAS goes into an address as it is: what would end or split that is no SAS. */
static int check_sas(char *sas)
{
	if (sas[0] == '?')
		memmove(sas, sas + 1, strlen(sas));
	if (strstr(sas, "sig=") == NULL || strpbrk(sas, " \t\"'#?/\\") != NULL)
		return lb_fail(-EACCES,
			       "`sas` is no shared access signature: copy the token whole, without the address "
			       "before its '?'");
	return 0;
}

static int check(enum lb_provider provider, struct lb_credentials *c)
{
	for (size_t i = 0; i < MEMBERS; i++)
		if (members(c)[i] != NULL && members(c)[i][0] == '\0')
			return lb_fail(-EACCES, "a value of the credentials is empty");
	if (provider == LB_PROVIDER_S3)
		return c->access_key != NULL && c->secret_key != NULL
			       ? 0
			       : lb_fail(-EACCES, "`access_key` and `secret_key` are needed");
	if ((c->account_key != NULL) == (c->sas != NULL))
		return lb_fail(-EACCES, "either `account_key` or `sas` is needed");
	return c->sas != NULL ? check_sas(c->sas) : 0;
}

static int check_mode(const struct lb_credentials_source *s, struct stat *ret)
{
	if (stat(s->path, ret) < 0)
		return lb_fail(errno == ENOENT ? -ENOENT : -EACCES, "can't read the store's credentials %s: %s",
			       s->path, strerror(errno));
	if (!S_ISREG(ret->st_mode) || (ret->st_mode & 077 & ~(mode_t)040) != 0)
		return lb_fail(-EACCES,
			       "%s may be read or written by others: `chmod 600` it (640 for a service's group)",
			       s->path);
	return 0;
}

static int read_file(struct lb_credentials_source *s, struct lb_credentials *ret)
{
	_cleanup_(lb_credentials_clear) struct lb_credentials c = {0};
	const struct lb_conf_key keys[] = {
		{"account_key", LB_CONF_STR, &c.account_key, 0, 0},
		{"sas", LB_CONF_STR, &c.sas, 0, 0},
		{"access_key", LB_CONF_STR, &c.access_key, 0, 0},
		{"secret_key", LB_CONF_STR, &c.secret_key, 0, 0},
		{"session_token", LB_CONF_STR, &c.session_token, 0, 0},
		{"proxy_user", LB_CONF_STR, &c.proxy_user, 0, 0},
		{"proxy_password", LB_CONF_STR, &c.proxy_password, 0, 0},
	};
	int r = lb_conf_read(s->env, s->path, keys, LB_ARRAY_LEN(keys));

	if (r == -EINVAL) /* the line that it would show may be a secret */
		r = lb_fail(-EACCES, "it must have lines of `name = value`, with the names account_key or sas (Azure), "
				     "access_key, secret_key, session_token (S3), proxy_user, proxy_password");
	if (r == 0)
		r = check(s->provider, &c);
	if (r < 0)
		return lb_wrap(r, "the store's credentials in %s can't be used", s->path);
	*ret = c;
	c = (struct lb_credentials){0};
	return 0;
}

static int from_environment(enum lb_provider provider, struct lb_credentials *ret)
{
	static const char *const names[MEMBERS] = {"AZURE_STORAGE_KEY",
						   "AZURE_STORAGE_SAS_TOKEN",
						   "AWS_ACCESS_KEY_ID",
						   "AWS_SECRET_ACCESS_KEY",
						   "AWS_SESSION_TOKEN",
						   NULL,
						   NULL};
	_cleanup_(lb_credentials_clear) struct lb_credentials c = {0};
	int r;

	for (size_t i = 0; i < MEMBERS; i++) {
		const char *value = names[i] != NULL ? getenv(names[i]) : NULL;

		if (value == NULL || value[0] == '\0' || (i >= 2) != (provider == LB_PROVIDER_S3))
			continue;
		members(&c)[i] = strdup(value);
		if (members(&c)[i] == NULL)
			return lb_fail(-ENOMEM, "out of memory for credentials");
	}
	if (c.account_key == NULL && c.sas == NULL && c.access_key == NULL)
		return -ENOENT;
	r = check(provider, &c);
	if (r < 0)
		return lb_wrap(r, "the store's credentials in the environment can't be used");
	*ret = c;
	c = (struct lb_credentials){0};
	return 0;
}

/* ---- where they are -------------------------------------------------------------------------------------- */

static int find(struct lb_credentials_source *s, const char *file)
{
	const char *given = file != NULL ? file : getenv("LIFEBOAT_STORE_CREDENTIALS"),
		   *folder = getenv("CREDENTIALS_DIRECTORY");
	struct stat st;
	int r;

	s->by_environment = file == NULL;
	if (given != NULL && given[0] != '\0')
		return snprintf(s->path, PATH_MAX, "%s", given) < PATH_MAX ? 0
									   : lb_fail(-ENAMETOOLONG, "path too long");
	if (folder != NULL && snprintf(s->path, PATH_MAX, "%s/" SYSTEMD_CREDENTIAL, folder) < PATH_MAX &&
	    stat(s->path, &st) == 0)
		return 0;
	s->path[0] = '\0';
	r = from_environment(s->provider, &s->now);
	if (r == 0)
		s->generation = 1;
	if (r != -ENOENT)
		return r;
	s->by_environment = false;
	snprintf(s->path, PATH_MAX, "%s", LB_CREDENTIALS_PATH);
	return 0;
}

static int refresh(struct lb_credentials_source *s, bool again)
{
	_cleanup_(lb_credentials_clear) struct lb_credentials c = {0};
	struct stat st;
	int r;

	if (s->path[0] == '\0')
		return 0;
	r = check_mode(s, &st);
	if (r < 0)
		return r;
	if (!again && s->generation > 0 && st.st_mtim.tv_sec == s->seen.st_mtim.tv_sec &&
	    st.st_mtim.tv_nsec == s->seen.st_mtim.tv_nsec && st.st_ino == s->seen.st_ino &&
	    st.st_size == s->seen.st_size)
		return 0;
	r = read_file(s, &c);
	if (r < 0)
		return r;
	s->seen = st;
	if (s->generation > 0 && equal(&c, &s->now))
		return 0;
	lb_credentials_clear(&s->now);
	s->now = c;
	c = (struct lb_credentials){0};
	s->generation++;
	return 0;
}

int lb_credentials_open(struct lb_env *env, enum lb_provider provider, const char *file,
			struct lb_credentials_source **ret_source)
{
	_cleanup_(lb_credentials_closep) struct lb_credentials_source *s = calloc(1, sizeof(*s));
	int r;

	if (s == NULL)
		return lb_fail(-ENOMEM, "out of memory for credentials");
	s->env = env;
	s->provider = provider;
	pthread_mutex_init(&s->lock, NULL);
	r = find(s, file);
	if (r == 0)
		r = refresh(s, true);
	if (r == -ENOENT)
		return lb_fail(
			-EACCES,
			"there are no credentials for the store: write %s to %s (chmod 600), or name another file "
			"by credentials= in the address or by LIFEBOAT_STORE_CREDENTIALS",
			provider == LB_PROVIDER_AZURE ? "`account_key = ...` or `sas = ...`"
						      : "`access_key = ...` and `secret_key = ...`",
			s->path);
	if (r < 0)
		return r;
	*ret_source = lb_steal_ptr(s);
	return 0;
}

void lb_credentials_close(struct lb_credentials_source *s)
{
	lb_credentials_clear(&s->now);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int lb_credentials_get(struct lb_credentials_source *s, bool again, struct lb_credentials *ret_credentials,
		       uint64_t *ret_generation)
{
	int r;

	LB_LOCK_SCOPE(&s->lock);
	r = refresh(s, again);
	if (r < 0 && s->generation == 0)
		return r;
	r = copy(&s->now, ret_credentials);
	if (r == 0)
		*ret_generation = s->generation;
	return r;
}

const char *lb_credentials_where(const struct lb_credentials_source *s)
{
	return s->path[0] != '\0' ? s->path : "the environment";
}

bool lb_credentials_in_file(const struct lb_credentials_source *s)
{
	return s->path[0] != '\0';
}

bool lb_credentials_by_environment(const struct lb_credentials_source *s)
{
	return s->by_environment;
}
