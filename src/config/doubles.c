/* SPDX-License-Identifier: Apache-2.0 */
#include "config/doubles.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/err.h"
#include "wire/told.h"

struct one {
	char name[LB_SUBJECT_BYTES];
	char digest[LB_TOLD_HEX_BYTES];
	int64_t asked_ns;
};

struct lb_doubles {
	pthread_mutex_t lock;
	struct one list[LB_DOUBLES_MAX];
	unsigned int n;
	int64_t looked_mono_ns; /* 0: never */
};

int lb_doubles_new(struct lb_doubles **ret_doubles)
{
	struct lb_doubles *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return lb_fail(-ENOMEM, "out of memory for the list of doubles");
	pthread_mutex_init(&d->lock, NULL);
	*ret_doubles = d;
	return 0;
}

void lb_doubles_free(struct lb_doubles *d)
{
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static struct one *by_name(struct lb_doubles *d, const char *name)
{
	for (unsigned int i = 0; i < d->n; i++)
		if (strcmp(d->list[i].name, name) == 0)
			return &d->list[i];
	return NULL;
}

/* All of them are compared, in constant time. */
static struct one *by_digest(struct lb_doubles *d, const char *digest)
{
	struct one *found = NULL;

	for (unsigned int i = 0; i < d->n; i++)
		if (lb_equal_ct((const uint8_t *)d->list[i].digest, (const uint8_t *)digest, LB_TOLD_HEX_BYTES))
			found = &d->list[i];
	return found;
}

static int look_at(void *arg, const char *name, bool is_dir)
{
	struct lb_site *site = arg;
	struct lb_doubles *d = site->doubles;
	_cleanup_(lb_told_wipe) struct lb_told told = {0};
	struct one *one = by_name(d, name);
	char path[PATH_MAX];

	if (!is_dir || strlen(name) >= sizeof(one->name) ||
	    snprintf(path, sizeof(path), "%s/%s/" LB_TOLD_FILE, site->settings.vm_folder, name) >= (int)sizeof(path) ||
	    lb_told_read(site->env, path, &told) < 0)
		return 0;
	if (one == NULL && d->n == LB_DOUBLES_MAX)
		return 0;
	if (one == NULL) {
		one = &d->list[d->n++];
		memset(one, 0, sizeof(*one));
		memcpy(one->name, name, strlen(name));
	}
	return lb_told_digest(told.secret, one->digest);
}

/* Whether it is there and still has this secret: the file says so, not what is remembered. */
static bool is_there(struct lb_site *site, const struct one *one)
{
	_cleanup_(lb_told_wipe) struct lb_told told = {0};
	char path[PATH_MAX], digest[LB_TOLD_HEX_BYTES];

	if (snprintf(path, sizeof(path), "%s/%s/" LB_TOLD_FILE, site->settings.vm_folder, one->name) >=
		    (int)sizeof(path) ||
	    lb_told_read(site->env, path, &told) < 0 || lb_told_digest(told.secret, digest) < 0)
		return false;
	return lb_equal_ct((const uint8_t *)one->digest, (const uint8_t *)digest, LB_TOLD_HEX_BYTES);
}

/* A double that was made again under its name has another secret; one that is gone asks no more. */
static void look_again(struct lb_site *site)
{
	struct lb_doubles *d = site->doubles;
	int64_t now_ns = lb_mono_ns(site->env);

	if (d->looked_mono_ns != 0 && now_ns - d->looked_mono_ns < LB_DOUBLES_LOOK_MS * LB_NS_PER_MS)
		return;
	d->looked_mono_ns = now_ns;
	for (unsigned int i = 0; i < d->n;)
		if (is_there(site, &d->list[i]))
			i++;
		else
			d->list[i] = d->list[--d->n];
	site->env->ops->list(site->env, site->settings.vm_folder, look_at, site);
	lb_err_clear();
}

int lb_doubles_asked(struct lb_site *site, const char *secret, char double_name[LB_SUBJECT_BYTES])
{
	struct lb_doubles *d = site->doubles;
	char digest[LB_TOLD_HEX_BYTES] = "";
	struct one *one;
	int r;

	r = lb_told_digest(secret, digest);
	if (r < 0)
		return r;
	LB_LOCK_SCOPE(&d->lock);
	one = by_digest(d, digest);
	if (one == NULL || !is_there(site, one)) {
		look_again(site);
		one = by_digest(d, digest);
	}
	if (one == NULL || !is_there(site, one))
		return lb_fail(-EACCES, "no double of this server has this secret");
	one->asked_ns = lb_now_ns(site->env);
	memcpy(double_name, one->name, sizeof(one->name));
	return 0;
}

int64_t lb_doubles_asked_ns(struct lb_site *site, const char *double_name)
{
	struct lb_doubles *d = site->doubles;
	const struct one *one;

	LB_LOCK_SCOPE(&d->lock);
	one = by_name(d, double_name);
	return one != NULL ? one->asked_ns : 0;
}
