/* SPDX-License-Identifier: Apache-2.0 */
/* An order as JSON: of the API, of a recovery plan's machine. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "fabric/failover.h"

/* "tcp:[ADDRESS:]HOSTPORT:GUESTPORT" */
static int read_forward(const char *text, struct lb_vm_forward *f)
{
	_cleanup_free_ char *copy = NULL;
	char *guest, *host, *address;
	uint64_t guest_port, host_port;

	if (text == NULL || strncmp(text, "tcp:", 4) != 0 || (copy = strdup(text + 4)) == NULL)
		return lb_fail(-EINVAL, "a forward is written tcp:HOSTPORT:GUESTPORT");
	guest = strrchr(copy, ':');
	if (guest == NULL)
		return lb_fail(-EINVAL, "a forward is written tcp:HOSTPORT:GUESTPORT, not \"%.60s\"", text);
	*guest++ = '\0';
	host = strrchr(copy, ':');
	address = host != NULL ? copy : NULL;
	if (host != NULL)
		*host++ = '\0';
	else
		host = copy;
	if (lb_u64_parse(host, UINT16_MAX, &host_port) < 0 || lb_u64_parse(guest, UINT16_MAX, &guest_port) < 0)
		return lb_wrap(-EINVAL, "a forward is written tcp:HOSTPORT:GUESTPORT, not \"%.60s\"", text);
	*f = (struct lb_vm_forward){.host_port = (uint16_t)host_port, .guest_port = (uint16_t)guest_port};
	if (address != NULL && strlen(address) >= sizeof(f->address))
		return lb_fail(-EINVAL, "a forward's address is too long: \"%.60s\"", text);
	if (address != NULL)
		memcpy(f->address, address, strlen(address) + 1);
	return 0;
}

static int read_forwards(const json_t *body, struct lb_vm_forward *forwards, uint32_t *ret_n)
{
	const json_t *list = json_object_get(body, "forwards"), *one;
	size_t i;
	int r;

	if (list != NULL && !json_is_array(list))
		return lb_fail(-EINVAL, "\"forwards\" is not a list");
	if (json_array_size(list) > LB_VM_FORWARDS_MAX)
		return lb_fail(-EINVAL, "at most %d ports can be forwarded", LB_VM_FORWARDS_MAX);
	json_array_foreach(list, i, one)
	{
		r = read_forward(json_string_value(one), &forwards[i]);
		if (r < 0)
			return r;
	}
	*ret_n = (uint32_t)json_array_size(list);
	return 0;
}

static int optional_bool(const json_t *body, const char *member, bool *ret_value)
{
	const json_t *value = json_object_get(body, member);

	return value == NULL || json_is_null(value) ? 0 : lb_json_get_bool(body, member, ret_value);
}

static int read_numbers(const json_t *body, struct lb_failover_request *q)
{
	uint64_t cpus = 0, port = 0, wait_s = 0;
	int r = 0;

	if (json_object_get(body, "memory_bytes") != NULL)
		r = lb_json_get_u64(body, "memory_bytes", &q->memory_bytes);
	if (r == 0 && json_object_get(body, "cpus") != NULL)
		r = lb_json_get_u64(body, "cpus", &cpus);
	if (r == 0 && json_object_get(body, "probe_port") != NULL)
		r = lb_json_get_u64(body, "probe_port", &port);
	if (r == 0 && json_object_get(body, "wait_s") != NULL)
		r = lb_json_get_u64(body, "wait_s", &wait_s);
	if (r == 0)
		r = optional_bool(body, "no_pull", &q->no_pull);
	if (r == 0)
		r = optional_bool(body, "mend", &q->mend);
	if (r == 0)
		r = optional_bool(body, "mend_required", &q->mend_required);
	if (r == 0 && q->mend_required && json_is_false(json_object_get(body, "mend")))
		r = lb_fail(-EINVAL, "\"mend\" is false and \"mend_required\" true");
	if (r < 0)
		return r;
	if (cpus > LB_VM_CPUS_MAX || port > UINT16_MAX || wait_s > 24 * 3600)
		return lb_fail(-EINVAL, "cpus, probe_port or wait_s is beyond its limit");
	q->cpus = (uint32_t)cpus;
	q->probe_port = (uint16_t)port;
	q->wait_s = (uint32_t)wait_s;
	return 0;
}

static int optional_str(const json_t *body, const char *member, const char **ret_text)
{
	const json_t *value = json_object_get(body, member);

	return value == NULL || json_is_null(value) ? 0 : lb_json_get_str(body, member, ret_text);
}

static int check_network(const struct lb_failover_request *q)
{
	char mac[LB_MAC_TEXT_BYTES];
	int r = 0;

	if (q->network != NULL)
		r = lb_network_check(q->network);
	if (r == 0 && q->mac != NULL)
		r = lb_mac_read(q->mac, mac);
	return r < 0 || q->address == NULL ? r : lb_address_read(q->address, NULL, NULL);
}

int lb_failover_request_parse(const json_t *body, struct lb_failover_request *q, struct lb_vm_forward *forwards)
{
	const char *kind;
	int r;

	r = lb_json_get_str(body, "machine", &q->machine);
	r = r < 0 ? r : lb_json_get_str(body, "kind", &kind);
	r = r < 0 ? r : optional_str(body, "point", &q->point);
	r = r < 0 ? r : optional_str(body, "name", &q->vm_name);
	r = r < 0 ? r : optional_str(body, "bus", &q->bus);
	r = r < 0 ? r : optional_str(body, "bus_unmended", &q->bus_unmended);
	r = r < 0 ? r : optional_str(body, "network", &q->network);
	r = r < 0 ? r : optional_str(body, "mac", &q->mac);
	r = r < 0 ? r : optional_str(body, "address", &q->address);
	r = r < 0 ? r : optional_str(body, "probe_send", &q->probe_send);
	r = r < 0 ? r : check_network(q);
	r = r < 0 ? r : read_numbers(body, q);
	r = r < 0 ? r : read_forwards(body, forwards, &q->n_forwards);
	if (r < 0)
		return r;
	if (strcmp(kind, "test") != 0 && strcmp(kind, "live") != 0)
		return lb_fail(-EINVAL, "a failover is of kind test or live, not \"%.40s\"", kind);
	q->forwards = forwards;
	q->kind = strcmp(kind, "live") == 0 ? LB_FAILOVER_LIVE : LB_FAILOVER_TEST;
	q->isolated = q->kind == LB_FAILOVER_TEST && q->network == NULL;
	return 0;
}
