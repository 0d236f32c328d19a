/* SPDX-License-Identifier: Apache-2.0 */
/* What a failover from a point would lose, before anything is done. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/failovers.h"
#include "config/live.h"
#include "config/target.h"
#include "vault/catalog.h"
#include "vault/points.h"

static int64_t holds_until(const struct lb_point *p)
{
	return LB_MAX(p->time_ns, p->until_ns);
}

/* The newest write that anybody knows of: the vault's newest point, or what its process server says it holds. */
static int64_t newest_known(struct lb_site *site, const char *id, const struct lb_point *newest)
{
	struct lb_live_machine live = {0};
	int64_t ns = holds_until(newest);

	if (lb_live_get(site->live, id, &live) == 0) {
		ns = LB_MAX(ns, (int64_t)json_integer_value(json_object_get(live.process, "rpo_vault_ns")));
		lb_live_machine_clear(&live);
	}
	return LB_MIN(ns, lb_now_ns(site->env));
}

/* Where the double would be; "network_error" when that can't be had: then nothing would be started. */
static int add_network(struct lb_site *site, const struct lb_http_call *call, const char *name, json_t *reply)
{
	const char *kind = lb_http_query(call, "kind"), *network = lb_http_query(call, "network");
	_cleanup_json_ json_t *body =
		json_pack("{s:s,s:s,s:s*}", "machine", name, "kind", kind != NULL ? kind : "live", "network", network);
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX] = {0};
	struct lb_failover_request q;
	int r;

	if (body == NULL)
		return -ENOMEM;
	r = lb_failover_request_read(site, body, &q, forwards);
	r = r < 0 ? r : lb_target_network_check(site, q.network);
	if (r < 0)
		return json_object_set_new(reply, "network_error", json_string(lb_err_text()));
	return json_object_update_new(
		reply, json_pack("{s:s*,s:s*,s:s*}", "network", q.network, "mac", q.mac, "address", q.address));
}

int lb_api_failover_preview(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	const char *text = lb_http_query(call, "point");
	struct lb_point point, newest;
	char id[LB_UUID_TEXT_BYTES];
	bool doubled = false;
	int64_t known_ns, now_ns = lb_now_ns(site->env);
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_catalog_find(site->vault, call->params[0], item);
	r = r < 0 ? r : lb_point_find(site->vault, &item->machine, text != NULL ? text : "latest", &point);
	r = r < 0 ? r : lb_point_find(site->vault, &item->machine, "latest", &newest);
	if (r < 0)
		return r;
	lb_uuid_format(&item->machine, id);
	r = lb_failovers_live_of(site, id, NULL, &doubled);
	if (r < 0)
		return r;
	/* a machine that only the vault knows was never proven here */
	if (lb_reg_machine_find(site->db, id, &m) < 0)
		lb_err_clear();
	known_ns = newest_known(site, id, &newest);
	reply->json = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:b}", "machine", id, "machine_name",
				item->name, "epoch", (json_int_t)point.position.epoch, "seq",
				(json_int_t)point.position.seq, "point_ns", (json_int_t)point.time_ns, "until_ns",
				(json_int_t)holds_until(&point), "newest_ns", (json_int_t)known_ns, "loses_known_ns",
				(json_int_t)LB_MAX(known_ns - holds_until(&point), (int64_t)0), "loses_at_most_ns",
				(json_int_t)LB_MAX(now_ns - holds_until(&point), (int64_t)0), "proven_ns",
				(json_int_t)m.proven_ns, "proven_point_ns", (json_int_t)m.proven_point_ns,
				"proven_warning", m.proven_warning, "has_live_double", (int)doubled);
	if (reply->json != NULL && add_network(site, call, item->name, reply->json) < 0)
		return lb_fail(-ENOMEM, "out of memory for an answer");
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}
