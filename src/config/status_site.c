/* SPDX-License-Identifier: Apache-2.0 */
/* The status of all machines and servers together, and the watch over it. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/status.h"

static const char *health_of(const json_t *object)
{
	const char *health = json_string_value(json_object_get(object, "health"));

	return health != NULL ? health : "critical";
}

static int rank(const json_t *object)
{
	const char *health = health_of(object);

	if (strcmp(health, "critical") == 0)
		return 0;
	return strcmp(health, "warning") == 0 ? 1 : 2;
}

int lb_status_process(struct lb_site *site, const struct lb_reg_process *p, json_t **ret_object)
{
	_cleanup_json_ json_t *report = NULL;
	int64_t told_ns, used, room, now_ns = lb_now_ns(site->env);
	const char *health = "ok", *cure = "";
	char text[200];
	int r;

	r = lb_live_process_get(site->live, p->id, &report, &told_ns);
	if (r < 0)
		return r;
	used = json_integer_value(json_object_get(report, "cache_bytes"));
	room = json_integer_value(json_object_get(report, "cache_bytes_max"));
	if (told_ns == 0 || now_ns - told_ns > LB_STATUS_SILENT_S * LB_NS_PER_S) {
		health = "critical";
		snprintf(text, sizeof(text), "does not answer: what its machines write waits on them");
		cure = p->local ? "journalctl -u lifeboat-config" : "on it: systemctl restart lifeboat-process";
	} else if (room > 0 && used > room / 10 * 8) {
		health = "warning";
		snprintf(text, sizeof(text), "its cache is %" PRId64 "%% full: the vault is slower than the machines",
			 used * 100 / room);
		cure = "look at the link to the storage account, or raise cache_bytes_max";
	} else {
		snprintf(text, sizeof(text), "%" PRId64 " machines, cache %" PRId64 " of %" PRId64 " MiB", p->machines,
			 used >> 20, room >> 20);
	}
	*ret_object = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:b,s:b,s:I,s:I}", "id", p->id, "name", p->name,
				"kind", "process", "health", health, "text", text, "cure", cure, "hosts", p->hosts,
				"port", (int)p->port, "local", p->local, "temporary", p->temporary, "machines",
				(json_int_t)p->machines, "seen_ns", (json_int_t)LB_MAX(told_ns, p->seen_ns));
	return *ret_object != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a status");
}

struct collect {
	struct lb_site *site;
	json_t *list;
};

static int collect_id(void *arg, const struct lb_reg_machine *m)
{
	return json_array_append_new(arg, json_string(m->id)) < 0 ? lb_fail(-ENOMEM, "out of memory for a status") : 0;
}

/* The vault is read without the database's lock: it may be far away. */
static int collect_machines(struct lb_site *site, json_t *list)
{
	_cleanup_json_ json_t *ids = json_array();
	const json_t *id;
	size_t i;
	int r;

	r = lb_reg_machines(site->db, collect_id, ids);
	if (r < 0)
		return r;
	json_array_foreach(ids, i, id)
	{
		_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
		json_t *one;

		r = lb_reg_machine_find(site->db, json_string_value(id), &m);
		if (r == -ENOENT)
			continue; /* removed meanwhile */
		if (r == 0)
			r = lb_status_machine(site, &m, &one);
		if (r == 0 && json_array_append_new(list, one) < 0)
			r = lb_fail(-ENOMEM, "out of memory for a status");
		if (r < 0)
			return r;
	}
	return 0;
}

static int collect_process(void *arg, const struct lb_reg_process *p)
{
	struct collect *c = arg;
	json_t *one;
	int r;

	r = lb_status_process(c->site, p, &one);
	if (r < 0)
		return r;
	return json_array_append_new(c->list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for a status") : 0;
}

/* Stable: equals keep the order of their names. */
static int sort_worst_first(json_t *list)
{
	_cleanup_json_ json_t *sorted = json_array();
	json_t *one;
	size_t i;

	for (int wanted = 0; wanted <= 2; wanted++)
		json_array_foreach(list, i, one)
		{
			if (rank(one) == wanted && json_array_append(sorted, one) < 0)
				return lb_fail(-ENOMEM, "out of memory for a status");
		}
	json_array_clear(list);
	return json_array_extend(list, sorted) < 0 ? lb_fail(-ENOMEM, "out of memory for a status") : 0;
}

int lb_status_all(struct lb_site *site, json_t **ret_object)
{
	_cleanup_json_ json_t *machines = json_array(), *servers = json_array();
	struct collect c = {site, servers};
	json_int_t recoverable = 0;
	json_t *one, *object;
	size_t i;
	int r;

	r = collect_machines(site, machines);
	if (r == 0)
		r = lb_reg_processes(site->db, collect_process, &c);
	if (r == 0)
		r = sort_worst_first(machines);
	if (r == 0)
		r = sort_worst_first(servers);
	if (r < 0)
		return r;
	json_array_foreach(machines, i, one) recoverable += json_is_true(json_object_get(one, "recoverable"));
	object = json_pack("{s:{s:I,s:I},s:O,s:O}", "summary", "machines", (json_int_t)json_array_size(machines),
			   "recoverable", recoverable, "machines", machines, "servers", servers);
	if (object == NULL)
		return lb_fail(-ENOMEM, "out of memory for a status");
	*ret_object = object;
	return 0;
}

static int tell_change(struct lb_site *site, const json_t *machine)
{
	const char *id = json_string_value(json_object_get(machine, "id")),
		   *name = json_string_value(json_object_get(machine, "name"));
	const char *why =
		json_string_value(json_object_get(json_array_get(json_object_get(machine, "reasons"), 0), "text"));
	const char *health = health_of(machine);
	int64_t changes;
	int r;

	r = lb_db_run_changes(site->db, &changes, "UPDATE machine SET health = ? WHERE id = ? AND health <> ?", "sss",
			      health, id, health);
	if (r < 0 || changes == 0)
		return r;
	lb_event(site, strcmp(health, "ok") == 0 ? "info" : health, name, "%s%s%s", health, why != NULL ? ": " : "",
		 why != NULL ? why : "");
	return 0;
}

int lb_status_watch(struct lb_site *site)
{
	_cleanup_json_ json_t *machines = json_array();
	const json_t *one;
	size_t i;
	int r;

	r = collect_machines(site, machines);
	json_array_foreach(machines, i, one) if (r == 0) r = tell_change(site, one);
	return r;
}
