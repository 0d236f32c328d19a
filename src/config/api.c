/* SPDX-License-Identifier: Apache-2.0 */
#include "config/api.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"

#define NONE LB_ROLE_BIT(LB_ROLE_NONE)
#define MACHINE LB_ROLE_BIT(LB_ROLE_MACHINE)
#define PROCESS LB_ROLE_BIT(LB_ROLE_PROCESS)
#define TARGET LB_ROLE_BIT(LB_ROLE_TARGET)
#define ADMIN LB_ROLE_BIT(LB_ROLE_ADMIN)
#define OPERATOR (LB_ROLE_BIT(LB_ROLE_OPERATOR) | ADMIN)
#define READER (LB_ROLE_BIT(LB_ROLE_READER) | OPERATOR)
/* who enrols may hold a certificate already */
#define ANYBODY (NONE | MACHINE | PROCESS | TARGET | READER)

#define ORDER_BYTES_MAX (64u << 10)
#define ENROL_BYTES_MAX (256u << 10)
#define PLAN_BYTES_MAX LB_HTTP_JSON_BYTES_MAX
#define AGENT_REPORT_BYTES_MAX (256u << 10)
#define TARGET_REPORT_BYTES_MAX (256u << 10)

/* Orders leave a trace: who, what, with which result. */
#define AUDITED(name)                                                                                                  \
	static LB_API_HANDLER(name##_audited)                                                                          \
	{                                                                                                              \
		int r = name(arg, call, reply);                                                                        \
                                                                                                                       \
		lb_audit(arg, call, r);                                                                                \
		return r;                                                                                              \
	}
AUDITED(lb_api_enrol)
AUDITED(lb_api_renew)
AUDITED(lb_api_token_create)
AUDITED(lb_api_cert_revoke)
AUDITED(lb_api_machine_enable)
AUDITED(lb_api_machine_target)
AUDITED(lb_api_server_port)
AUDITED(lb_api_machine_disable)
AUDITED(lb_api_machine_resync)
AUDITED(lb_api_machine_remove)
AUDITED(lb_api_machine_move)
AUDITED(lb_api_machine_mend)
AUDITED(lb_api_server_drain)
AUDITED(lb_api_server_remove)
AUDITED(lb_api_server_order)
AUDITED(lb_api_install)
AUDITED(lb_api_point_pin)
AUDITED(lb_api_point_unpin)
AUDITED(lb_api_point_create)
AUDITED(lb_api_group_create)
AUDITED(lb_api_group_set)
AUDITED(lb_api_group_delete)
AUDITED(lb_api_group_add)
AUDITED(lb_api_group_remove)
AUDITED(lb_api_group_point)
AUDITED(lb_api_policy_put)
AUDITED(lb_api_job_cancel)
AUDITED(lb_api_failover_start)
AUDITED(lb_api_failover_cleanup)
AUDITED(lb_api_failover_commit)
AUDITED(lb_api_failover_reprotect)
AUDITED(lb_api_failover_unreprotect)
AUDITED(lb_api_failover_failback)
AUDITED(lb_api_failover_home)
AUDITED(lb_api_failover_stay)
AUDITED(lb_api_failover_repoint)
AUDITED(lb_api_failover_undo)
AUDITED(lb_api_drill_start)
AUDITED(lb_api_drill_schedule)
AUDITED(lb_api_drill_unschedule)
AUDITED(lb_api_plan_create)
AUDITED(lb_api_plan_put)
AUDITED(lb_api_plan_remove)
AUDITED(lb_api_plan_test)
AUDITED(lb_api_plan_failover)
AUDITED(lb_api_plan_commit)
AUDITED(lb_api_plan_reprotect)
AUDITED(lb_api_plan_failback)
AUDITED(lb_api_plan_home)
AUDITED(lb_api_plan_cleanup)
AUDITED(lb_api_plan_confirm)

const struct lb_http_route lb_config_routes[] = {
	{"POST", "/v1/enrol", ANYBODY, ENROL_BYTES_MAX, lb_api_enrol_audited, true},
	{"POST", "/v1/enrol/double", NONE, ENROL_BYTES_MAX, lb_api_enrol_double, false},
	{"POST", "/v1/token", ADMIN, ORDER_BYTES_MAX, lb_api_token_create_audited, false},
	{"GET", "/v1/certificate", ADMIN, 0, lb_api_cert_list, false},
	{"POST", "/v1/certificate/{}/revoke", ADMIN, ORDER_BYTES_MAX, lb_api_cert_revoke_audited, false},

	{"GET", "/v1/agent/config", MACHINE, 0, lb_api_agent_config, false},
	{"POST", "/v1/agent/group-point", MACHINE, ORDER_BYTES_MAX, lb_api_agent_group_point, false},
	{"POST", "/v1/agent/report", MACHINE, AGENT_REPORT_BYTES_MAX, lb_api_agent_report, false},
	{"POST", "/v1/agent/renew", MACHINE, ORDER_BYTES_MAX, lb_api_renew_audited, true},
	{"GET", "/v1/process/config", PROCESS, 0, lb_api_process_config, false},
	{"POST", "/v1/process/report", PROCESS, LB_HTTP_JSON_BYTES_MAX, lb_api_process_report, false},
	{"POST", "/v1/process/install/{}", PROCESS, ORDER_BYTES_MAX, lb_api_install_report, false},
	{"POST", "/v1/process/renew", PROCESS, ORDER_BYTES_MAX, lb_api_renew_audited, true},
	{"GET", "/v1/target/orders", TARGET, 0, lb_api_target_orders, false},
	{"POST", "/v1/target/report", TARGET, TARGET_REPORT_BYTES_MAX, lb_api_target_report, false},
	{"POST", "/v1/target/renew", TARGET, ORDER_BYTES_MAX, lb_api_renew_audited, true},
	{"POST", "/v1/user/renew", READER, ORDER_BYTES_MAX, lb_api_renew_audited, false},

	{"GET", "/v1/status", READER, 0, lb_api_status, false},
	{"GET", "/v1/event", READER, 0, lb_api_event_list, false},
	{"GET", "/v1/audit", ADMIN, 0, lb_api_audit_list, false},

	{"GET", "/v1/machine", READER, 0, lb_api_machine_list, false},
	{"GET", "/v1/machine/{}", READER, 0, lb_api_machine_get, false},
	{"DELETE", "/v1/machine/{}", ADMIN, 0, lb_api_machine_remove_audited, false},
	{"PUT", "/v1/machine/{}/target", OPERATOR, ORDER_BYTES_MAX, lb_api_machine_target_audited, false},
	{"POST", "/v1/machine/{}/check", OPERATOR, ORDER_BYTES_MAX, lb_api_machine_check, false},
	{"POST", "/v1/machine/{}/mend", ADMIN, ORDER_BYTES_MAX, lb_api_machine_mend_audited, false},
	{"POST", "/v1/machine/{}/enable", OPERATOR, ORDER_BYTES_MAX, lb_api_machine_enable_audited, false},
	{"POST", "/v1/machine/{}/disable", OPERATOR, ORDER_BYTES_MAX, lb_api_machine_disable_audited, false},
	{"POST", "/v1/machine/{}/resync", OPERATOR, ORDER_BYTES_MAX, lb_api_machine_resync_audited, false},
	{"POST", "/v1/machine/{}/move", OPERATOR, ORDER_BYTES_MAX, lb_api_machine_move_audited, false},
	{"GET", "/v1/machine/{}/preview", READER, 0, lb_api_failover_preview, false},
	{"GET", "/v1/machine/{}/point", READER, 0, lb_api_point_list, false},
	{"POST", "/v1/machine/{}/point", OPERATOR, ORDER_BYTES_MAX, lb_api_point_pin_audited, false},
	{"POST", "/v1/machine/{}/point/create", OPERATOR, ORDER_BYTES_MAX, lb_api_point_create_audited, false},
	{"DELETE", "/v1/machine/{}/point/{}", OPERATOR, 0, lb_api_point_unpin_audited, false},

	{"GET", "/v1/group", READER, 0, lb_api_group_list, false},
	{"POST", "/v1/group", OPERATOR, ORDER_BYTES_MAX, lb_api_group_create_audited, false},
	{"GET", "/v1/group/{}", READER, 0, lb_api_group_get, false},
	{"PUT", "/v1/group/{}", OPERATOR, ORDER_BYTES_MAX, lb_api_group_set_audited, false},
	{"DELETE", "/v1/group/{}", OPERATOR, 0, lb_api_group_delete_audited, false},
	{"POST", "/v1/group/{}/add", OPERATOR, ORDER_BYTES_MAX, lb_api_group_add_audited, false},
	{"POST", "/v1/group/{}/remove", OPERATOR, ORDER_BYTES_MAX, lb_api_group_remove_audited, false},
	{"POST", "/v1/group/{}/point", OPERATOR, ORDER_BYTES_MAX, lb_api_group_point_audited, false},
	{"GET", "/v1/policy", READER, 0, lb_api_policy_list, false},
	{"GET", "/v1/policy/{}", READER, 0, lb_api_policy_get, false},
	{"PUT", "/v1/policy/{}", ADMIN, ORDER_BYTES_MAX, lb_api_policy_put_audited, false},
	{"GET", "/v1/server", READER, 0, lb_api_server_list, false},
	{"GET", "/v1/anchor", READER, 0, lb_api_anchor_list, false},
	{"GET", "/v1/server/{}", READER, 0, lb_api_server_get, false},
	{"POST", "/v1/server/{}/order", OPERATOR, ORDER_BYTES_MAX, lb_api_server_order_audited, false},
	{"DELETE", "/v1/server/{}", ADMIN, 0, lb_api_server_remove_audited, false},
	{"PUT", "/v1/server/{}/port", ADMIN, ORDER_BYTES_MAX, lb_api_server_port_audited, false},
	{"POST", "/v1/server/{}/drain", OPERATOR, ORDER_BYTES_MAX, lb_api_server_drain_audited, false},

	{"POST", "/v1/install", ADMIN, ORDER_BYTES_MAX, lb_api_install_audited, false},
	{"GET", "/v1/job", READER, 0, lb_api_job_list, false},
	{"GET", "/v1/job/{}", READER, 0, lb_api_job_get, false},
	{"POST", "/v1/job/{}/cancel", OPERATOR, ORDER_BYTES_MAX, lb_api_job_cancel_audited, false},
	{"GET", "/v1/failover", READER, 0, lb_api_failover_list, false},
	{"POST", "/v1/failover", OPERATOR, ORDER_BYTES_MAX, lb_api_failover_start_audited, false},
	{"POST", "/v1/failover/{}/cleanup", OPERATOR, ORDER_BYTES_MAX, lb_api_failover_cleanup_audited, false},
	{"POST", "/v1/failover/{}/commit", OPERATOR, ORDER_BYTES_MAX, lb_api_failover_commit_audited, false},
	{"POST", "/v1/failover/{}/reprotect", OPERATOR, ORDER_BYTES_MAX, lb_api_failover_reprotect_audited, false},
	{"DELETE", "/v1/failover/{}/reprotect", OPERATOR, 0, lb_api_failover_unreprotect_audited, false},
	{"POST", "/v1/failover/{}/failback", OPERATOR, ORDER_BYTES_MAX, lb_api_failover_failback_audited, false},
	{"POST", "/v1/failover/{}/failback/undo", OPERATOR, ORDER_BYTES_MAX, lb_api_failover_stay_audited, false},
	{"POST", "/v1/failover/{}/home", OPERATOR, ORDER_BYTES_MAX, lb_api_failover_home_audited, false},
	{"POST", "/v1/failover/{}/repoint", OPERATOR, ORDER_BYTES_MAX, lb_api_failover_repoint_audited, false},
	{"POST", "/v1/failover/{}/undo", OPERATOR, ORDER_BYTES_MAX, lb_api_failover_undo_audited, false},

	{"GET", "/v1/drill", READER, 0, lb_api_drill_list, false},
	{"POST", "/v1/drill", OPERATOR, ORDER_BYTES_MAX, lb_api_drill_start_audited, false},
	{"GET", "/v1/drill/{}", READER, 0, lb_api_drill_get, false},
	{"GET", "/v1/drill/{}/screen", OPERATOR, 0, lb_api_drill_screen, false},
	{"GET", "/v1/drill/{}/console", OPERATOR, 0, lb_api_drill_console, false},
	{"GET", "/v1/drill-schedule", READER, 0, lb_api_drill_schedules, false},
	{"PUT", "/v1/drill-schedule/{}/{}", OPERATOR, ORDER_BYTES_MAX, lb_api_drill_schedule_audited, false},
	{"DELETE", "/v1/drill-schedule/{}/{}", OPERATOR, 0, lb_api_drill_unschedule_audited, false},

	{"GET", "/v1/plan", READER, 0, lb_api_plan_list, false},
	{"POST", "/v1/plan", OPERATOR, PLAN_BYTES_MAX, lb_api_plan_create_audited, false},
	{"GET", "/v1/plan/{}", READER, 0, lb_api_plan_get, false},
	{"PUT", "/v1/plan/{}", OPERATOR, PLAN_BYTES_MAX, lb_api_plan_put_audited, false},
	{"DELETE", "/v1/plan/{}", OPERATOR, 0, lb_api_plan_remove_audited, false},
	{"POST", "/v1/plan/{}/test", OPERATOR, ORDER_BYTES_MAX, lb_api_plan_test_audited, false},
	{"POST", "/v1/plan/{}/failover", OPERATOR, ORDER_BYTES_MAX, lb_api_plan_failover_audited, false},
	{"POST", "/v1/plan/{}/commit", OPERATOR, ORDER_BYTES_MAX, lb_api_plan_commit_audited, false},
	{"POST", "/v1/plan/{}/reprotect", OPERATOR, PLAN_BYTES_MAX, lb_api_plan_reprotect_audited, false},
	{"POST", "/v1/plan/{}/failback", OPERATOR, PLAN_BYTES_MAX, lb_api_plan_failback_audited, false},
	{"POST", "/v1/plan/{}/home", OPERATOR, ORDER_BYTES_MAX, lb_api_plan_home_audited, false},
	{"POST", "/v1/plan/{}/cleanup", OPERATOR, ORDER_BYTES_MAX, lb_api_plan_cleanup_audited, false},
	{"POST", "/v1/plan/{}/confirm", OPERATOR, ORDER_BYTES_MAX, lb_api_plan_confirm_audited, false},
};
const size_t lb_config_routes_n = LB_ARRAY_LEN(lb_config_routes);

bool lb_api_peer_allowed(void *arg, const struct lb_http_peer *peer)
{
	struct lb_site *site = arg;

	return lb_reg_cert_check(site->db, &peer->fingerprint, peer->name, lb_now_ns(site->env)) == 0;
}

int lb_api_body(const struct lb_http_call *call, json_t **ret_object)
{
	if (call->body_bytes > 0)
		return lb_json_parse(call->body, call->body_bytes, LB_HTTP_JSON_BYTES_MAX, ret_object);
	*ret_object = json_object();
	return *ret_object != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a request");
}

int lb_api_optional_str(const json_t *object, const char *member, const char **ret_text)
{
	const json_t *v = json_object_get(object, member);

	if (v == NULL || json_is_null(v)) {
		*ret_text = NULL;
		return 0;
	}
	return lb_json_get_str(object, member, ret_text);
}

int lb_api_query_i64(const struct lb_http_call *call, const char *name, int64_t otherwise, int64_t *ret_value)
{
	const char *text = lb_http_query(call, name);
	uint64_t value;
	int r;

	if (text == NULL) {
		*ret_value = otherwise;
		return 0;
	}
	r = lb_u64_parse(text, INT64_MAX, &value);
	if (r < 0)
		return lb_wrap(-EINVAL, "query argument %s", name);
	*ret_value = (int64_t)value;
	return 0;
}

int lb_api_reply_list(struct lb_http_reply *reply, const char *name, json_t *list)
{
	reply->json = json_pack("{s:o}", name, list);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* The host of the request's own Host header, if it is one of ours: that way this very caller reaches this host. */
static bool host_of_call(const struct lb_site *site, const struct lb_http_call *call, const char **ret_host)
{
	const char *header = lb_http_header(call, "Host");
	size_t length;

	if (header == NULL)
		return false;
	if (header[0] == '[') {
		header++;
		length = strcspn(header, "]");
	} else {
		length = strcspn(header, ":");
	}
	for (unsigned int i = 0; i < site->settings.n_hosts; i++) {
		if (strlen(site->settings.hosts[i]) != length ||
		    strncasecmp(site->settings.hosts[i], header, length) != 0)
			continue;
		*ret_host = site->settings.hosts[i];
		return true;
	}
	if (strlen(lb_double_host(&site->settings)) != length ||
	    strncasecmp(lb_double_host(&site->settings), header, length) != 0)
		return false;
	*ret_host = lb_double_host(&site->settings);
	return true;
}

int lb_api_process_url(struct lb_site *site, const char *process, const struct lb_http_call *call, char url[1100])
{
	struct lb_reg_process p;
	char first[256];
	const char *host = first;
	int r;

	r = lb_reg_process_find(site->db, process, &p);
	if (r < 0)
		return r;
	snprintf(first, sizeof(first), "%.*s", (int)strcspn(p.hosts, ","), p.hosts);
	if ((p.local || p.temporary) && !host_of_call(site, call, &host))
		host = first;
	snprintf(url, 1100, strchr(host, ':') != NULL ? "https://[%s]:%u" : "https://%s:%u", host, p.port);
	return 0;
}
