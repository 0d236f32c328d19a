/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The REST API, by noun: handlers of one noun in one api_<noun>.c, all of them in the table of api.c. The argument is
 * the struct lb_site. docs/openapi.yaml describes each path; a test holds it against the table.
 */
#include "config/registry.h"
#include "config/site.h"

extern const struct lb_http_route lb_config_routes[];
extern const size_t lb_config_routes_n;

/* For the HTTPS server: certificates that are unknown or revoked don't count. */
bool lb_api_peer_allowed(void *arg, const struct lb_http_peer *peer);

/* The body as an object; an empty body is an empty object. */
int lb_api_body(const struct lb_http_call *call, json_t **ret_object);
/* An optional member: `ret_text` NULL when it is absent or null. */
int lb_api_optional_str(const json_t *object, const char *member, const char **ret_text);
int lb_api_query_i64(const struct lb_http_call *call, const char *name, int64_t otherwise, int64_t *ret_value);
/* Puts {name: list} into the reply; takes `list` over. */
int lb_api_reply_list(struct lb_http_reply *reply, const char *name, json_t *list);
/* The URL of a process server as the caller of `call` can be expected to reach it. */
int lb_api_process_url(struct lb_site *site, const char *process, const struct lb_http_call *call, char url[1100]);

/* machine_orders.c: what operators order, apart from HTTP. */
/* Disks named in `names` (NULL: all fit ones) of the machine's inventory get their lasting ids in machine->disks. */
int lb_disks_choose(struct lb_reg_machine *machine, const json_t *names);
/* Machine key, catalog entry: what recovery needs in the vault. */
int lb_machine_publish(struct lb_site *site, const struct lb_reg_machine *machine);

/* vault_copy.c: the registry's copy in the vault. */
int lb_vault_copy_write(struct lb_site *site);
/* The same where the deed comes first: a vault that is away keeps the older words until the next change. */
void lb_vault_copy_try(struct lb_site *site);
/* Takes machines and policies from the vault's copy when the database has none; says how many. */
int lb_vault_copy_restore(struct lb_site *site, unsigned int *ret_machines);

#define LB_API_HANDLER(name) int name(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
LB_API_HANDLER(lb_api_enrol);
LB_API_HANDLER(lb_api_enrol_double);
LB_API_HANDLER(lb_api_renew);
LB_API_HANDLER(lb_api_token_create);
LB_API_HANDLER(lb_api_cert_list);
LB_API_HANDLER(lb_api_cert_revoke);
LB_API_HANDLER(lb_api_agent_config);
LB_API_HANDLER(lb_api_agent_report);
LB_API_HANDLER(lb_api_process_config);
LB_API_HANDLER(lb_api_process_report);
LB_API_HANDLER(lb_api_machine_list);
LB_API_HANDLER(lb_api_machine_get);
LB_API_HANDLER(lb_api_machine_check);
LB_API_HANDLER(lb_api_machine_target);
LB_API_HANDLER(lb_api_machine_enable);
LB_API_HANDLER(lb_api_machine_disable);
LB_API_HANDLER(lb_api_machine_resync);
LB_API_HANDLER(lb_api_machine_remove);
LB_API_HANDLER(lb_api_machine_move);
LB_API_HANDLER(lb_api_point_list);
LB_API_HANDLER(lb_api_point_pin);
LB_API_HANDLER(lb_api_point_unpin);
LB_API_HANDLER(lb_api_point_create);
LB_API_HANDLER(lb_api_agent_group_point);
LB_API_HANDLER(lb_api_group_list);
LB_API_HANDLER(lb_api_group_get);
LB_API_HANDLER(lb_api_group_create);
LB_API_HANDLER(lb_api_group_set);
LB_API_HANDLER(lb_api_group_delete);
LB_API_HANDLER(lb_api_group_add);
LB_API_HANDLER(lb_api_group_remove);
LB_API_HANDLER(lb_api_group_point);
LB_API_HANDLER(lb_api_policy_list);
LB_API_HANDLER(lb_api_policy_get);
LB_API_HANDLER(lb_api_policy_put);
LB_API_HANDLER(lb_api_server_list);
LB_API_HANDLER(lb_api_server_port);
LB_API_HANDLER(lb_api_anchor_list);
LB_API_HANDLER(lb_api_machine_mend);
LB_API_HANDLER(lb_api_server_drain);
LB_API_HANDLER(lb_api_server_remove);
LB_API_HANDLER(lb_api_server_get);
LB_API_HANDLER(lb_api_server_order);
LB_API_HANDLER(lb_api_target_orders);
LB_API_HANDLER(lb_api_target_report);
LB_API_HANDLER(lb_api_install);
LB_API_HANDLER(lb_api_install_report);
LB_API_HANDLER(lb_api_job_list);
LB_API_HANDLER(lb_api_job_get);
LB_API_HANDLER(lb_api_job_cancel);
LB_API_HANDLER(lb_api_failover_start);
LB_API_HANDLER(lb_api_failover_list);
LB_API_HANDLER(lb_api_failover_preview);
LB_API_HANDLER(lb_api_failover_cleanup);
LB_API_HANDLER(lb_api_failover_commit);
LB_API_HANDLER(lb_api_failover_reprotect);
LB_API_HANDLER(lb_api_failover_unreprotect);
LB_API_HANDLER(lb_api_failover_failback);
LB_API_HANDLER(lb_api_failover_home);
LB_API_HANDLER(lb_api_failover_repoint);
LB_API_HANDLER(lb_api_failover_undo);
LB_API_HANDLER(lb_api_failover_stay);
LB_API_HANDLER(lb_api_plan_list);
LB_API_HANDLER(lb_api_plan_get);
LB_API_HANDLER(lb_api_plan_create);
LB_API_HANDLER(lb_api_plan_put);
LB_API_HANDLER(lb_api_plan_remove);
LB_API_HANDLER(lb_api_plan_test);
LB_API_HANDLER(lb_api_plan_failover);
LB_API_HANDLER(lb_api_plan_commit);
LB_API_HANDLER(lb_api_plan_reprotect);
LB_API_HANDLER(lb_api_plan_failback);
LB_API_HANDLER(lb_api_plan_home);
LB_API_HANDLER(lb_api_plan_cleanup);
LB_API_HANDLER(lb_api_plan_confirm);
LB_API_HANDLER(lb_api_drill_start);
LB_API_HANDLER(lb_api_drill_list);
LB_API_HANDLER(lb_api_drill_get);
LB_API_HANDLER(lb_api_drill_screen);
LB_API_HANDLER(lb_api_drill_console);
LB_API_HANDLER(lb_api_drill_schedule);
LB_API_HANDLER(lb_api_drill_unschedule);
LB_API_HANDLER(lb_api_drill_schedules);
LB_API_HANDLER(lb_api_status);
LB_API_HANDLER(lb_api_event_list);
LB_API_HANDLER(lb_api_audit_list);
