/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A replication policy: what an operator asks of a machine's replication. One JSON shape from the configuration
 * server's API to process servers and agents:
 *
 *   {"name", "rpo_threshold_s", "consistency_interval_s", "upload_interval_s", "zstd_level", "ring_bytes",
 *    "heartbeat_interval_s", "budget_ns_per_kib", "bandwidth_bytes_per_s", "app_consistent_interval_s",
 *    "retention", "app_retention_days", "delete_delay_s", "early_deletion_days", "object_lock_days",
 *    "bandwidth_windows", "time_zone"}
 *
 * To process servers and agents "zone" is added, {"offset_s", "change_s", "next_offset_s"}: what time_zone means now.
 *
 * Pure functions; nothing is shared between threads.
 */
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/ladder.h"
#include "wire/bandwidth.h"

#define LB_POLICY_NAME_BYTES 65
#define LB_POLICY_NAME_DEFAULT "default"
#define LB_POLICY_INTERVAL_S_MAX 3600
#define LB_POLICY_RPO_THRESHOLD_S_MAX (7 * 24 * 3600)
#define LB_POLICY_ZSTD_LEVEL_MAX 9
#define LB_POLICY_APP_INTERVAL_S_MIN 10
#define LB_POLICY_APP_INTERVAL_S_MAX (24 * 3600)
#define LB_POLICY_DELETE_DELAY_S_MAX (90 * 24 * 3600)
#define LB_POLICY_RETENTION_DAYS_MAX 365
#define LB_POLICY_LOCK_DAYS_MAX 3650
#define LB_POLICY_RING_BYTES_MIN (16u << 20)
#define LB_POLICY_RING_BYTES_MAX (2048u << 20)

struct lb_policy {
	char name[LB_POLICY_NAME_BYTES];
	uint32_t rpo_threshold_s;           /* an older newest point in the vault raises an alert; 1 s to 7 days */
	uint32_t consistency_interval_s;    /* a segment closes after it; 1..3600 */
	uint32_t upload_interval_s;         /* an object goes to the vault after it; 1..3600 */
	uint32_t zstd_level;                /* 0 (none) .. 9 */
	uint64_t ring_bytes;                /* of the capture ring: a power of two, 16 MiB .. 2 GiB */
	uint32_t heartbeat_interval_s;      /* 1..3600 */
	uint32_t app_consistent_interval_s; /* an application-consistent point this often; 0: only on demand */
	uint64_t budget_ns_per_kib;         /* capture's cost above which the agent only marks; 0: no budget */
	uint64_t bandwidth_bytes_per_s;     /* outside of the windows; 0: unlimited */
	struct lb_ladder retention;         /* of recovery points: "all:2h 1h:1d 2h:7d 4h:15d" */
	uint32_t app_retention_days;        /* application-consistent points are all kept this long; 0: as others */
	uint32_t delete_delay_s;      /* between letting go of an object and deleting it, for readers without leases */
	uint32_t early_deletion_days; /* the store bills younger objects to this age: they are left alone */
	uint32_t object_lock_days;    /* the store refuses to delete younger objects */
	struct lb_bandwidth bandwidth;
};

extern const struct lb_policy lb_policy_default;

/*
 * Members that are missing keep the value of `lb_policy_default` (the name too). `strict` refuses members that no
 * policy has, as what a person wrote; a peer's newer members are passed over. -EINVAL names the member and its limits.
 */
int lb_policy_parse(const json_t *object, bool strict, struct lb_policy *ret_policy);
/* -EINVAL names the member that is out of its limits. */
int lb_policy_check(const struct lb_policy *policy);
int lb_policy_print(const struct lb_policy *policy, json_t **ret_object);
/* The same with "zone", for peers: works out what the time zone means at `time_ns`. */
int lb_policy_print_for_peer(struct lb_env *env, const struct lb_policy *policy, json_t **ret_object);

/* What a machine may send at `time_ns`, in bytes per second; 0: unlimited. */
static inline uint64_t lb_policy_bandwidth(const struct lb_policy *policy, int64_t time_ns)
{
	return lb_bandwidth_at(&policy->bandwidth, policy->bandwidth_bytes_per_s, time_ns);
}
