/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/lease.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"

#define LEASE_BYTES_MAX 512
#define ID_BYTES 8

struct lb_lease {
	struct lb_vault *v;
	struct lb_uuid machine;
	uint64_t deletable;
	char name[LB_OBJECT_NAME_BYTES];
	int wake_fd;
	bool has_thread;
	pthread_t thread;
};

/* Puts it, or replaces what stands there: its name stays, so that a listing never passes it by. */
static int put(struct lb_lease *l, bool is_new)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LEASE_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES);
	struct lb_store *store = l->v->store;
	_cleanup_json_ json_t *object = json_object();
	_cleanup_free_ char *text = NULL;
	char etag[LB_STORE_ETAG_BYTES];
	uint64_t size_bytes;
	int r;

	if (object == NULL)
		return lb_fail(-ENOMEM, "out of memory for a lease");
	if ((r = lb_json_set_u64(object, "deletable", l->deletable)) < 0 ||
	    (r = lb_json_set_i64(object, "expires_ns", lb_now_ns(store->env) + LB_LEASE_S * LB_NS_PER_S)) < 0 ||
	    (r = lb_json_dump(object, &text)) < 0 ||
	    (r = lb_vault_seal_small(l->v, &l->machine, l->name, text, strlen(text), &sealed)) < 0)
		return r;
	if (is_new)
		return lb_store_put_new(store, l->name, sealed.data, sealed.size_bytes);
	r = lb_store_stat(store, l->name, &size_bytes, etag);
	return r < 0 ? r : lb_store_replace(store, l->name, etag, sealed.data, sealed.size_bytes);
}

static void renew(struct lb_lease *l)
{
	if (put(l, false) < 0)
		lb_warning("a lease on the vault can't be renewed, what it protects may be deleted in %d s: %s",
			   LB_LEASE_S, lb_err_text());
}

static void *keep(void *arg)
{
	struct lb_lease *l = arg;
	struct lb_env *env = l->v->store->env;

	for (;;) {
		int64_t due_ns = lb_mono_ns(env) + LB_LEASE_S / 4 * LB_NS_PER_S;
		uint64_t count;

		env->ops->wait_until(env, due_ns, l->wake_fd);
		if (read(l->wake_fd, &count, sizeof(count)) == sizeof(count))
			return NULL;
		if (lb_mono_ns(env) >= due_ns)
			renew(l);
	}
}

int lb_lease_take(struct lb_vault *v, const struct lb_uuid *machine, struct lb_lease **ret_lease)
{
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	char hex[2 * ID_BYTES + 1];
	uint8_t id[ID_BYTES];
	struct lb_lease *l;
	int r;

	r = lb_manifest_read(v, machine, &m);
	if (r < 0)
		return r;
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return lb_fail(-ENOMEM, "out of memory for a lease");
	*l = (struct lb_lease){.v = v, .machine = *machine, .deletable = m->deletable};
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->wake_fd < 0) {
		free(l);
		return lb_fail(-errno, "can't make an event descriptor: %s", strerror(errno));
	}
	r = lb_vault_random(v, id, sizeof(id));
	lb_hex_encode(id, sizeof(id), hex);
	if (r == 0)
		r = lb_vault_name(l->name, machine, "l/%s", hex);
	if (r == 0)
		r = put(l, true);
	if (r < 0) {
		lb_debug("reading the vault without a lease: %s", lb_err_text());
		lb_err_clear();
		close(l->wake_fd);
		free(l);
		return 0;
	}
	/* on a clock of a test nothing runs beside it */
	if (v->store->env == lb_env_real())
		l->has_thread = pthread_create(&l->thread, NULL, keep, l) == 0;
	*ret_lease = l;
	return 0;
}

void lb_lease_release(struct lb_lease *l)
{
	uint64_t one = 1;

	if (l == NULL)
		return;
	if (l->has_thread && write(l->wake_fd, &one, sizeof(one)) == sizeof(one))
		pthread_join(l->thread, NULL);
	lb_store_remove(l->v->store, l->name); /* what stays expires */
	close(l->wake_fd);
	free(l);
}

struct reading {
	struct lb_vault *v;
	const struct lb_uuid *machine;
	int64_t now_ns;
	uint64_t deletable;
	unsigned int n;
	char expired[64][LB_OBJECT_NAME_BYTES];
	unsigned int n_expired;
};

static int parse(const struct lb_buf *text, uint64_t *ret_deletable, int64_t *ret_expires_ns)
{
	_cleanup_json_ json_t *object = NULL;
	int r;

	r = lb_json_parse(text->data, text->size_bytes, LEASE_BYTES_MAX, &object);
	if (r == 0)
		r = lb_json_get_u64(object, "deletable", ret_deletable);
	return r == 0 ? lb_json_get_i64(object, "expires_ns", ret_expires_ns) : r;
}

static int look_at(void *arg, const char *name, uint64_t size_bytes)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LEASE_BYTES_MAX);
	struct reading *rd = arg;
	uint64_t deletable = 0;
	int64_t expires_ns = INT64_MAX;
	int r;

	(void)size_bytes;
	if (++rd->n > LB_LEASES_MAX)
		return lb_fail(-EOVERFLOW, "more than %d leases; remove those of m/*/l/ that nobody holds",
			       LB_LEASES_MAX);
	r = lb_small_get(rd->v, rd->machine, name, &text);
	if (r == 0)
		r = parse(&text, &deletable, &expires_ns);
	if (r == -ENOENT) {
		lb_err_clear();
		return 0; /* released meanwhile */
	}
	if (r == -EBADMSG) {
		lb_warning("%s: lease %s can't be read: nothing is deleted while it is there; remove it: %s",
			   rd->v->store->url, name, lb_err_text());
		rd->deletable = 0;
		return 0;
	}
	if (r < 0)
		return r;
	/* twice its time: clocks differ */
	if (expires_ns < rd->now_ns - LB_LEASE_S * LB_NS_PER_S) {
		if (rd->n_expired < LB_ARRAY_LEN(rd->expired))
			snprintf(rd->expired[rd->n_expired++], LB_OBJECT_NAME_BYTES, "%s", name);
		return 0;
	}
	rd->deletable = LB_MIN(rd->deletable, deletable);
	return 0;
}

int lb_leases_read(struct lb_vault *v, const struct lb_uuid *machine, int64_t now_ns, uint64_t *ret_deletable)
{
	struct reading rd = {.v = v, .machine = machine, .now_ns = now_ns, .deletable = UINT64_MAX};
	char prefix[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_vault_name(prefix, machine, "l/");
	if (r == 0)
		r = lb_store_list(v->store, prefix, look_at, &rd);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < rd.n_expired; i++)
		lb_store_remove(v->store, rd.expired[i]);
	*ret_deletable = rd.deletable;
	return 0;
}
