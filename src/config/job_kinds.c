/* SPDX-License-Identifier: Apache-2.0 */
/* Every kind of job that the configuration server knows. */
#include "config/drills.h"
#include "config/failovers.h"
#include "config/groups.h"
#include "config/mend.h"
#include "config/moves.h"
#include "config/plans.h"
#include "config/point_orders.h"
#include "config/targets.h"

const struct lb_job_kind lb_job_kinds[] = {
	{"failover", lb_job_failover_run},
	{"cleanup", lb_job_cleanup_run},
	{"commit", lb_job_commit_run},
	{"shut", lb_job_shut_run},
	{"failback", lb_job_failback_run},
	{"failback-undo", lb_job_failback_undo_run},
	{"failback-commit", lb_job_failback_commit_run},
	{"repoint", lb_job_repoint_run},
	{"failover-undo", lb_job_failover_undo_run},
	{"reprotect", lb_job_reprotect_run},
	{"reprotect-check", lb_job_reprotect_check_run},
	{"reprotect-cancel", lb_job_reprotect_cancel_run},
	{"drill", lb_drill_run},
	{"plan-drill", lb_plan_run_drill},
	{"plan-test", lb_plan_run_test},
	{"plan-failover", lb_plan_run_failover},
	{"plan-commit", lb_plan_run_commit},
	{"plan-cleanup", lb_plan_run_cleanup},
	{"plan-reprotect", lb_plan_run_reprotect},
	{"plan-failback", lb_plan_run_failback},
	{"plan-failback-commit", lb_plan_run_failback_commit},
	{"point", lb_point_job_run},
	{"group-point", lb_group_point_job_run},
	{"pin", lb_pin_job_run},
	{"move", lb_move_run},
	{"install", lb_job_install_run},
	{"target", lb_job_target_run},
	{"mend", lb_job_mend_run},
	{NULL, NULL},
};
