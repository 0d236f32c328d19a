/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine by its name. Names are inside the sealed entries, so all of them are read: several at once, since a store
 * that is far away makes each of a thousand machines a few round trips.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/catalog.h"
#include "vault/internal.h"

#define THREADS 16
#define MACHINES_WITHOUT_THREADS 8

struct finding {
	struct lb_vault *v;
	const char *name;
	struct lb_uuid *machines;
	size_t n_machines, room;
	pthread_mutex_t lock; /* of what follows */
	size_t next;
	int error;
	char text[LB_ERR_TEXT_BYTES_MAX]; /* of it: texts are kept per thread */
	unsigned int n, n_unreadable;
	struct lb_catalog_item item;
	char ids[256];
};

static int note_machine(void *arg, const struct lb_uuid *machine)
{
	struct finding *f = arg;

	if (f->n_machines == f->room) {
		size_t room = f->room > 0 ? 2 * f->room : 64;
		struct lb_uuid *grown;

		if (f->n_machines >= LB_VAULT_MACHINES_MAX)
			return lb_fail(-EOVERFLOW, "a vault has at most %d machines", LB_VAULT_MACHINES_MAX);
		grown = reallocarray(f->machines, room, sizeof(*grown));
		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for a list of machines");
		f->machines = grown;
		f->room = room;
	}
	f->machines[f->n_machines++] = *machine;
	return 0;
}

/* Under the lock: what reading one entry came to. */
static void judge(struct finding *f, const struct lb_uuid *machine, int r, const struct lb_catalog_item *item)
{
	char uuid[LB_UUID_TEXT_BYTES];
	size_t used = strlen(f->ids);

	if (r == -ENOENT)
		return; /* its enrolment never ended, or its key was destroyed */
	if (r == -ENOKEY || r == -EBADMSG) {
		f->n_unreadable++; /* another one may have the name */
		return;
	}
	if (r < 0) {
		f->error = r;
		snprintf(f->text, sizeof(f->text), "%s", lb_err_text());
		return;
	}
	if (strcmp(item->name, f->name) != 0)
		return;
	lb_uuid_format(machine, uuid);
	snprintf(f->ids + used, sizeof(f->ids) - used, "%s%s", used > 0 ? ", " : "", uuid);
	f->item = *item;
	f->n++;
}

static void *look(void *arg)
{
	struct lb_catalog_item item;
	struct finding *f = arg;

	pthread_mutex_lock(&f->lock);
	while (f->error == 0 && f->next < f->n_machines) {
		const struct lb_uuid *machine = &f->machines[f->next++];
		int r;

		pthread_mutex_unlock(&f->lock);
		r = lb_catalog_get(f->v, machine, &item);
		pthread_mutex_lock(&f->lock);
		judge(f, machine, r, &item);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static void look_at_all(struct finding *f)
{
	pthread_t threads[THREADS];
	size_t n = 0;

	while (f->n_machines > MACHINES_WITHOUT_THREADS && n < THREADS &&
	       pthread_create(&threads[n], NULL, look, f) == 0)
		n++;
	look(f);
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

static int result_of(const struct finding *f, struct lb_catalog_item *ret_item)
{
	if (f->error < 0)
		return lb_fail(f->error, "%s", f->text);
	if (f->n == 0 && f->n_unreadable > 0)
		return lb_fail(
			-EBADMSG,
			"no readable machine in %s is named %s, and %u can't be read; run `lifeboat vault verify`",
			f->v->store->url, f->name, f->n_unreadable);
	if (f->n == 0)
		return lb_fail(-ENOENT, "%s holds no machine named %s; see `lifeboat machine list`", f->v->store->url,
			       f->name);
	if (f->n > 1)
		return lb_fail(-EEXIST, "%u machines in %s are named %s: %s; give the id", f->n, f->v->store->url,
			       f->name, f->ids);
	lb_err_clear();
	*ret_item = f->item;
	return 0;
}

int lb_catalog_find(struct lb_vault *v, const char *name_or_id, struct lb_catalog_item *ret_item)
{
	struct lb_uuid machine;
	struct finding *f;
	int r;

	if (lb_uuid_parse(name_or_id, &machine) == 0)
		return lb_catalog_get(v, &machine, ret_item);
	f = calloc(1, sizeof(*f));
	if (f == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	f->v = v;
	f->name = name_or_id;
	pthread_mutex_init(&f->lock, NULL);
	r = lb_vault_machines(v, note_machine, f);
	if (r == 0) {
		look_at_all(f);
		r = result_of(f, ret_item);
	}
	pthread_mutex_destroy(&f->lock);
	free(f->machines);
	free(f);
	return r;
}
