/* SPDX-License-Identifier: Apache-2.0 */
#include "process/process.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "process/assign.h"
#include "process/join.h"
#include "process/schedule.h"

int lb_process_new(struct lb_env *env, const struct lb_process_options *options, struct lb_process **ret_process)
{
	struct lb_process *p = calloc(1, sizeof(*p));
	int r;

	if (p == NULL)
		return lb_fail(-ENOMEM, "out of memory for the process server");
	p->env = env;
	p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->wake_fd < 0) {
		r = lb_fail(-errno, "can't make an event descriptor: %s", strerror(errno));
		free(p);
		return r;
	}
	r = lb_process_cache_open(env, options->cache_folder, options->cache_bytes_max, &p->cache);
	if (r < 0) {
		close(p->wake_fd);
		free(p);
		return r;
	}
	if (options->vault_url != NULL && options->vault_url[0] != '\0')
		p->vault_url = strdup(options->vault_url);
	lb_gate_init(&p->gate, options->seal_bytes_max);
	lb_compare_init(&p->compare);
	pthread_mutex_init(&p->lock, NULL);
	*ret_process = p;
	return 0;
}

void lb_process_free(struct lb_process *p)
{
	lb_compare_destroy(&p->compare);
	for (uint32_t i = 0; i < p->n_machines; i++) {
		assert(p->machines[i]->refs == 1);
		lb_machine_free(p->machines[i]);
	}
	if (p->vault != NULL)
		lb_vault_free(p->vault);
	if (p->store != NULL)
		lb_store_free(p->store);
	lb_gate_destroy(&p->gate);
	lb_process_cache_close(&p->cache);
	pthread_mutex_destroy(&p->lock);
	close(p->wake_fd);
	free(p->released);
	free(p->vault_url);
	free(p);
}

struct lb_vault *lb_process_vault(struct lb_process *p)
{
	LB_LOCK_SCOPE(&p->lock);

	return p->vault;
}

bool lb_process_configured(struct lb_process *p)
{
	LB_LOCK_SCOPE(&p->lock);

	return p->configured;
}

/* ---- the vault ---------------------------------------------------------------------------------------- */

static int check_vault_id(struct lb_vault *v, const struct lb_uuid *expected)
{
	char have[LB_UUID_TEXT_BYTES], want[LB_UUID_TEXT_BYTES];

	if (lb_uuid_equal(lb_vault_id(v), expected))
		return 0;
	lb_uuid_format(lb_vault_id(v), have);
	lb_uuid_format(expected, want);
	return lb_fail(-EINVAL,
		       "%s holds vault %s, but the configuration server speaks of vault %s; correct the vault's URL",
		       lb_vault_store(v)->url, have, want);
}

static int open_vault(struct lb_process *p, const char *url, const struct lb_uuid *id)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	_cleanup_(lb_vault_freep) struct lb_vault *vault = NULL;
	int r;

	r = lb_store_open(p->env, url, false, &store);
	if (r < 0)
		return r;
	r = lb_vault_open_keyless(store, &vault);
	if (r == 0)
		r = check_vault_id(vault, id);
	if (r < 0)
		return r;
	lb_info("the vault in %s is open", url);
	LB_LOCK_SCOPE(&p->lock);
	p->store = lb_steal_ptr(store);
	p->vault = lb_steal_ptr(vault);
	return 0;
}

/* The vault stays the one that was opened first: another one needs a restart. */
static int have_vault(struct lb_process *p, const json_t *config)
{
	struct lb_uuid id;
	const char *url;
	int r;

	r = lb_json_get_uuid(config, "vault_id", &id);
	if (r == 0)
		r = lb_json_get_str(config, "vault_url", &url);
	if (r != 0)
		return r;
	if (p->vault_url != NULL)
		url = p->vault_url;
	if (p->vault != NULL)
		return check_vault_id(p->vault, &id);
	return open_vault(p, url, &id);
}

/* ---- machines ----------------------------------------------------------------------------------------- */

static struct lb_machine *registered(struct lb_process *p, const struct lb_uuid *id)
{
	LB_LOCK_SCOPE(&p->lock);

	for (uint32_t i = 0; i < p->n_machines; i++)
		if (lb_uuid_equal(&p->machines[i]->id, id))
			return p->machines[i];
	return NULL;
}

static int add_machine(struct lb_process *p, const struct lb_assignment *a)
{
	struct lb_machine *m;
	int r;

	r = lb_vault_machine_key_give(p->vault, &a->id, &a->keys);
	if (r == 0)
		r = lb_machine_new(p, a, &m);
	if (r != 0)
		return r;
	m->due_mono_ns = lb_mono_ns(p->env);
	lb_info("machine %s (%s) is assigned to this process server", a->name, m->id_text);
	LB_LOCK_SCOPE(&p->lock);
	if (p->n_machines == LB_PROCESS_MACHINES_MAX) {
		lb_machine_free(m);
		return lb_fail(-E2BIG, "more than %d machines are assigned; add a process server",
			       LB_PROCESS_MACHINES_MAX);
	}
	p->machines[p->n_machines++] = m;
	p->beats_due_mono_ns = m->due_mono_ns; /* its policy may want them sooner */
	lb_schedule_wake(p);
	return 0;
}

static int change_machine(struct lb_process *p, struct lb_machine *m, const struct lb_assignment *a)
{
	bool fence, unfence, stopped, paced, handover, flush;
	int r;

	r = lb_vault_machine_key_give(p->vault, &a->id, &a->keys);
	if (r < 0)
		return r;
	pthread_mutex_lock(&m->lock);
	/* an operator's word, and nothing else, lets a machine that was taken over go on */
	stopped = m->state == LB_MACHINE_FENCED || m->state == LB_MACHINE_DIVERGED;
	unfence =
		!a->fenced && (m->assigned.fenced || (stopped && a->resync_generation > m->assigned.resync_generation));
	fence = a->fenced && !m->assigned.fenced;
	/* both zeroed before they were filled; at worst the machine is looked at once more */
	// NOLINTNEXTLINE(bugprone-suspicious-memory-comparison)
	paced = memcmp(&a->policy, &m->assigned.policy, sizeof(a->policy)) != 0;
	handover = a->handover && !m->assigned.handover;
	flush = a->flush_ns > m->assigned.flush_ns;
	m->assigned = *a;
	m->unfence = m->unfence || unfence;
	pthread_mutex_unlock(&m->lock);
	/* a failover, a move or a test waits for what was acknowledged to reach the vault */
	if (fence || unfence || paced || handover || flush)
		lb_schedule(m, 0);
	return 0;
}

static int apply(struct lb_process *p, const struct lb_assignment *a)
{
	struct lb_machine *m = registered(p, &a->id);

	if (m == NULL)
		return add_machine(p, a);
	if (m->gone)
		return lb_fail(-EAGAIN, "it was removed and is still being released");
	return change_machine(p, m, a);
}

static void remove_machine(struct lb_process *p, struct lb_machine *m)
{
	pthread_mutex_lock(&p->lock);
	m->gone = true;
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_lock(&m->lock);
	lb_info("machine %s (%s) is no longer assigned to this process server", m->assigned.name, m->id_text);
	lb_assignment_wipe(&m->assigned);
	pthread_mutex_unlock(&m->lock);
	lb_vault_machine_key_forget(p->vault, &m->id);
}

/* Machines that went and that nobody works on any more. */
static void free_gone(struct lb_process *p)
{
	LB_LOCK_SCOPE(&p->lock);

	for (uint32_t i = 0; i < p->n_machines;) {
		struct lb_machine *m = p->machines[i];

		if (!m->gone || m->refs > 1) {
			i++;
			continue;
		}
		p->machines[i] = p->machines[--p->n_machines];
		lb_machine_free(m);
	}
}

static bool listed(const struct lb_machine *m, const json_t *machines)
{
	for (size_t i = 0; i < json_array_size(machines); i++) {
		const char *id = json_string_value(json_object_get(json_array_get(machines, i), "id"));

		/* an entry without an id may be any machine */
		if (id == NULL || strcmp(id, m->id_text) == 0)
			return true;
	}
	return false;
}

static void take_machine(struct lb_process *p, json_t *object)
{
	_cleanup_(lb_assignment_wipe) struct lb_assignment a = {0};
	const char *id = json_string_value(json_object_get(object, "id"));
	int r;

	r = lb_assignment_parse(object, &a);
	if (r == 0)
		r = apply(p, &a);
	if (r < 0)
		lb_warning("the configuration server's entry of machine %.40s is left out: %s", id != NULL ? id : "?",
			   lb_err_text());
}

/* The journal of a machine that was ours goes on elsewhere, says who decides that: what is left here is void. */
static int drop_released(struct lb_process *p, const struct lb_uuid *id)
{
	struct lb_assignment a = {.id = *id};
	struct lb_machine *m;
	int r;

	if (registered(p, id) != NULL)
		return 0; /* still being let go of; said again next time */
	r = lb_machine_new(p, &a, &m);
	if (r < 0)
		return r;
	r = lb_join_drop(m);
	lb_machine_free(m);
	return r;
}

static int release_machines(struct lb_process *p, const json_t *list)
{
	struct lb_uuid *released = NULL, *before;
	size_t n = json_array_size(list);
	int r = 0;

	if (n > 0 && (released = calloc(n, sizeof(*released))) == NULL)
		return lb_fail(-ENOMEM, "out of memory for the machines that moved away");
	for (size_t i = 0; r == 0 && i < n; i++) {
		const char *id = json_string_value(json_array_get(list, i));

		r = lb_uuid_parse(id != NULL ? id : "", &released[i]);
		if (r == 0)
			r = drop_released(p, &released[i]);
	}
	pthread_mutex_lock(&p->lock);
	before = p->released;
	p->released = released;
	p->n_released = n;
	pthread_mutex_unlock(&p->lock);
	free(before);
	return r;
}

/* Whatever became of the configuration, no key stays behind in its text. */
static void wipe_keys(json_t **config)
{
	const json_t *machines = json_object_get(*config, "machines");

	for (size_t i = 0; i < json_array_size(machines); i++) {
		const char *key = json_string_value(json_object_get(json_array_get(machines, i), "key"));

		if (key != NULL)
			lb_wipe((char *)key, strlen(key));
	}
}

int lb_process_configure(struct lb_process *p, json_t *config)
{
	_cleanup_(wipe_keys) __attribute__((unused)) json_t *wiped = config;
	json_t *machines = json_object_get(config, "machines");
	struct lb_uuid id;
	uint32_t n = 0;
	int r;

	r = lb_json_get_uuid(config, "process_id", &id);
	if (r == 0 && !json_is_array(machines))
		r = lb_fail(-EBADMSG, "\"machines\" is missing or no list");
	if (r == 0)
		r = have_vault(p, config);
	if (r < 0)
		return r;
	pthread_mutex_lock(&p->lock);
	p->id = id;
	pthread_mutex_unlock(&p->lock);
	free_gone(p);
	for (size_t i = 0; i < json_array_size(machines); i++)
		take_machine(p, json_array_get(machines, i));
	for (uint32_t i = 0; i < p->n_machines; i++) {
		struct lb_machine *m = p->machines[i];

		if (!m->gone && !listed(m, machines))
			remove_machine(p, m);
		n += !m->gone;
	}
	if (release_machines(p, json_object_get(config, "released")) < 0)
		lb_warning("a machine that moved away still has files in the cache: %s", lb_err_text());
	lb_process_cache_share(&p->cache, n);
	pthread_mutex_lock(&p->lock);
	p->configured = true;
	pthread_mutex_unlock(&p->lock);
	return 0;
}
