/* SPDX-License-Identifier: Apache-2.0 */
#include "config/target.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "config/api.h"
#include "config/readiness.h"
#include "fabric/double_settings.h"
#include "fabric/mender.h"

static const char *const texts[] = {"network", "mac", "address", "test_network", "test_mac", "test_address", "bus"};

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text != NULL ? text : "";
}

int lb_target_get(struct lb_site *site, const char *machine, json_t **ret_target)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	json_t *target = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, "SELECT target FROM machine WHERE id = ?", "s", machine);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r < 0)
		return r;
	if (r == 1)
		target = lb_db_json(rows, 0);
	*ret_target = target != NULL ? target : json_object();
	return *ret_target != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a target");
}

int lb_target_put(struct lb_site *site, const char *machine, const json_t *target)
{
	return lb_db_run(site->db, "UPDATE machine SET target = ? WHERE id = ?", "js", target, machine);
}

static int check_number(const json_t *target, const char *member, uint64_t min, uint64_t max)
{
	uint64_t value = 0;
	int r;

	if (json_object_get(target, member) == NULL)
		return 0;
	r = lb_json_get_u64(target, member, &value);
	if (r < 0 || value < min || value > max)
		return lb_fail(-EINVAL, "target: %s must be from %llu to %llu", member, (unsigned long long)min,
			       (unsigned long long)max);
	return 0;
}

static int check_text(const char *member, const json_t *value)
{
	const char *text = json_string_value(value);
	int r;

	if (text == NULL)
		return lb_fail(-EINVAL, "target: %s is no text", member);
	if (strcmp(member, "bus") == 0) {
		if (strcmp(text, "virtio") == 0 || strcmp(text, "scsi") == 0 || strcmp(text, "sata") == 0)
			return 0;
		return lb_fail(-EINVAL, "target: bus is virtio, scsi or sata, not \"%.40s\"", text);
	}
	if (strstr(member, "mac") != NULL)
		r = lb_double_mac_check(text);
	else if (strstr(member, "address") != NULL)
		r = lb_address_read(text, NULL, NULL);
	else
		r = lb_network_check(text);
	return r < 0 ? lb_wrap(r, "target: %s", member) : 0;
}

int lb_target_check(const json_t *target)
{
	const char *member;
	json_t *value;
	int r;

	json_object_foreach((json_t *)target, member, value)
	{
		bool text = false;

		for (size_t i = 0; i < LB_ARRAY_LEN(texts); i++)
			text = text || strcmp(member, texts[i]) == 0;
		if (strcmp(member, "mend") == 0 && !json_is_boolean(value))
			return lb_fail(-EINVAL, "target: mend is true or false");
		if (!text && strcmp(member, "cpus") != 0 && strcmp(member, "memory_bytes") != 0 &&
		    strcmp(member, "mend") != 0)
			return lb_fail(-EINVAL, "a target has no setting \"%.60s\"", member);
		r = text ? check_text(member, value) : 0;
		if (r < 0)
			return r;
	}
	r = check_number(target, "cpus", 1, LB_VM_CPUS_MAX);
	return r < 0 ? r : check_number(target, "memory_bytes", LB_VM_MEMORY_BYTES_MIN, INT64_MAX);
}

bool lb_target_wants_sata(struct lb_site *site, const char *machine)
{
	_cleanup_json_ json_t *readiness = NULL;
	const json_t *one;
	size_t i;

	if (lb_readiness_get(site, machine, &readiness) < 0)
		return false;
	json_array_foreach(json_object_get(readiness, "findings"), i, one)
	{
		if (strcmp(text_of(one, "mend"), "sata") == 0)
			return true;
	}
	return false;
}

int lb_target_fill(struct lb_site *site, json_t *body)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *target = NULL;
	struct lb_double_source source = {0};
	int r;

	/* what is wrong with the order is told by who reads it; a machine may be in the vault only */
	if (lb_reg_machine_find(site->db, text_of(body, "machine"), &m) < 0)
		return lb_double_fill(body, &source);
	r = lb_target_get(site, m.id, &target);
	if (r < 0)
		return r;
	source = (struct lb_double_source){.target = target,
					   .cards = json_object_get(m.inventory, "cards"),
					   .sata = lb_target_wants_sata(site, m.id)};
	return lb_double_fill(body, &source);
}

/* Not for a change of something else: a network that has gone meanwhile is told by the readiness. */
static bool names_network(const json_t *body)
{
	static const char *const members[] = {"network", "mac", "address", "test_network", "test_mac", "test_address"};

	for (size_t i = 0; i < LB_ARRAY_LEN(members); i++)
		if (json_is_string(json_object_get(body, members[i])))
			return true;
	return false;
}

/* What the body names changes; null takes a setting away. */
int lb_api_machine_target(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *body = NULL, *target = NULL;
	const char *member;
	json_t *value;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_machine_find(site->db, call->params[0], &m);
	if (r == 0)
		r = lb_target_get(site, m.id, &target);
	if (r < 0)
		return r;
	json_object_foreach(body, member, value)
	{
		if (json_is_null(value))
			json_object_del(target, member);
		else if (json_object_set(target, member, value) < 0)
			return lb_fail(-ENOMEM, "out of memory for a target");
	}
	r = lb_target_check(target);
	if (r == 0 && names_network(body))
		r = lb_target_networks_check(site, m.id, target);
	if (r == 0 && json_is_true(json_object_get(body, "mend")))
		r = lb_mender_check();
	if (r == 0)
		r = lb_target_put(site, m.id, target);
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r == 0)
		r = lb_vault_copy_write(site);
	if (r < 0)
		return r;
	if (lb_readiness_look_again(site, &m) < 0)
		lb_warning("machine %s: its readiness can't be looked at again: %s", m.name, lb_err_text());
	lb_event(site, "info", m.name, "its doubles' settings were changed by %s", call->peer.name);
	reply->json = json_incref(target);
	return 0;
}
