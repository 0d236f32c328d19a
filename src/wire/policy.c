/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/policy.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"

const struct lb_policy lb_policy_default = {
	.name = LB_POLICY_NAME_DEFAULT,
	.rpo_threshold_s = 60,
	.consistency_interval_s = 5,
	.upload_interval_s = 15,
	.zstd_level = 1,
	.ring_bytes = 256u << 20,
	.heartbeat_interval_s = 5,
	.retention =
		{.n = 4,
		 .rungs = {{0, 2 * 3600}, {3600, 24 * 3600}, {2 * 3600, 7 * 24 * 3600}, {4 * 3600, 15 * 24 * 3600}}},
	.delete_delay_s = 24 * 3600,
	.bandwidth.time_zone = "UTC",
};

static const struct member {
	const char *name;
	size_t offset;
	size_t size_bytes; /* 4 or 8 */
	uint64_t min, max;
} members[] = {
#define MEMBER(m, lo, hi)                                                                                              \
	{                                                                                                              \
#m, offsetof(struct lb_policy, m), sizeof(((struct lb_policy *)NULL)->m), lo, hi                       \
	}
	MEMBER(rpo_threshold_s, 1, LB_POLICY_RPO_THRESHOLD_S_MAX),
	MEMBER(consistency_interval_s, 1, LB_POLICY_INTERVAL_S_MAX),
	MEMBER(upload_interval_s, 1, LB_POLICY_INTERVAL_S_MAX),
	MEMBER(zstd_level, 0, LB_POLICY_ZSTD_LEVEL_MAX),
	MEMBER(ring_bytes, LB_POLICY_RING_BYTES_MIN, LB_POLICY_RING_BYTES_MAX),
	MEMBER(heartbeat_interval_s, 1, LB_POLICY_INTERVAL_S_MAX),
	MEMBER(budget_ns_per_kib, 0, INT64_MAX),
	MEMBER(bandwidth_bytes_per_s, 0, INT64_MAX),
	MEMBER(app_consistent_interval_s, 0, LB_POLICY_APP_INTERVAL_S_MAX),
	MEMBER(app_retention_days, 0, LB_POLICY_RETENTION_DAYS_MAX),
	MEMBER(delete_delay_s, 0, LB_POLICY_DELETE_DELAY_S_MAX),
	MEMBER(early_deletion_days, 0, LB_POLICY_LOCK_DAYS_MAX),
	MEMBER(object_lock_days, 0, LB_POLICY_LOCK_DAYS_MAX),
#undef MEMBER
};

static uint64_t member_get(const struct lb_policy *policy, const struct member *m)
{
	const uint8_t *p = (const uint8_t *)policy + m->offset;

	return m->size_bytes == 4 ? *(const uint32_t *)p : *(const uint64_t *)p;
}

static void member_set(struct lb_policy *policy, const struct member *m, uint64_t value)
{
	uint8_t *p = (uint8_t *)policy + m->offset;

	if (m->size_bytes == 4)
		*(uint32_t *)p = (uint32_t)value;
	else
		*(uint64_t *)p = value;
}

static int member_check(const struct member *m, uint64_t value)
{
	if (value < m->min || value > m->max)
		return lb_fail(-EINVAL, "policy: %s must be from %" PRIu64 " to %" PRIu64 ", not %" PRIu64, m->name,
			       m->min, m->max, value);
	return 0;
}

int lb_policy_check(const struct lb_policy *policy)
{
	int r;

	r = lb_name_check("policy", policy->name);
	if (r < 0)
		return r;
	for (size_t i = 0; i < LB_ARRAY_LEN(members); i++) {
		r = member_check(&members[i], member_get(policy, &members[i]));
		if (r < 0)
			return r;
	}
	if (policy->app_consistent_interval_s != 0 && policy->app_consistent_interval_s < LB_POLICY_APP_INTERVAL_S_MIN)
		return lb_fail(-EINVAL, "policy: app_consistent_interval_s must be 0 (off) or from %d to %d, not %u",
			       LB_POLICY_APP_INTERVAL_S_MIN, LB_POLICY_APP_INTERVAL_S_MAX,
			       policy->app_consistent_interval_s);
	if (policy->bandwidth_bytes_per_s != 0 && policy->bandwidth_bytes_per_s < LB_BANDWIDTH_BYTES_PER_S_MIN)
		return lb_fail(-EINVAL, "policy: bandwidth_bytes_per_s must be 0 (no limit) or at least %d",
			       LB_BANDWIDTH_BYTES_PER_S_MIN);
	if ((policy->ring_bytes & (policy->ring_bytes - 1)) != 0)
		return lb_fail(-EINVAL, "policy: ring_bytes must be a power of two, not %" PRIu64, policy->ring_bytes);
	return 0;
}

static int refuse_unknown(const json_t *object)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)object, name, value)
	{
		bool known = strcmp(name, "name") == 0 || strcmp(name, "retention") == 0 ||
			     strcmp(name, "bandwidth_windows") == 0 || strcmp(name, "time_zone") == 0;

		for (size_t i = 0; i < LB_ARRAY_LEN(members); i++)
			known = known || strcmp(name, members[i].name) == 0;
		if (!known)
			return lb_fail(-EINVAL, "a policy has no setting \"%.60s\"", name);
	}
	return 0;
}

static int parse_zone(const json_t *object, struct lb_zone *ret_zone)
{
	int64_t offset = 0, next = 0, change = 0;
	int r;

	r = lb_json_get_i64(object, "offset_s", &offset);
	if (r == 0)
		r = lb_json_get_i64(object, "next_offset_s", &next);
	if (r == 0)
		r = lb_json_get_i64(object, "change_s", &change);
	if (r < 0)
		return r;
	if (offset < INT32_MIN / 2 || offset > INT32_MAX / 2 || next < INT32_MIN / 2 || next > INT32_MAX / 2)
		return lb_fail(-EBADMSG, "policy: the zone's offsets are out of bounds");
	*ret_zone = (struct lb_zone){(int32_t)offset, (int32_t)next, change};
	return 0;
}

static int parse_bandwidth(const json_t *object, struct lb_bandwidth *b)
{
	const json_t *windows = json_object_get(object, "bandwidth_windows"), *zone = json_object_get(object, "zone");
	int r = 0;

	if (json_object_get(object, "time_zone") != NULL) {
		memset(b->time_zone, 0, sizeof(b->time_zone));
		r = lb_json_get_text(object, "time_zone", b->time_zone, sizeof(b->time_zone));
		if (r == 0)
			r = lb_zone_name_check(b->time_zone);
	}
	if (r == 0 && windows != NULL)
		r = lb_bandwidth_windows_parse(windows, b);
	if (r == 0 && json_is_object(zone))
		r = parse_zone(zone, &b->zone);
	return r;
}

int lb_policy_parse(const json_t *object, bool strict, struct lb_policy *ret_policy)
{
	struct lb_policy policy = lb_policy_default;
	const char *name;
	uint64_t value;
	int r;

	if (strict) {
		r = refuse_unknown(object);
		if (r < 0)
			return r;
	}
	if (json_object_get(object, "name") != NULL) {
		r = lb_json_get_str(object, "name", &name);
		if (r == 0)
			r = lb_name_check("policy", name);
		if (r < 0)
			return r;
		memcpy(policy.name, name, strlen(name) + 1);
	}
	if (json_object_get(object, "retention") != NULL) {
		r = lb_json_get_str(object, "retention", &name);
		if (r == 0)
			r = lb_ladder_parse(name, &policy.retention);
		if (r < 0)
			return lb_wrap(r, "policy");
	}
	for (size_t i = 0; i < LB_ARRAY_LEN(members); i++) {
		if (json_object_get(object, members[i].name) == NULL)
			continue;
		r = lb_json_get_u64(object, members[i].name, &value);
		if (r == 0)
			r = member_check(&members[i], value);
		if (r < 0)
			return r;
		member_set(&policy, &members[i], value);
	}
	r = parse_bandwidth(object, &policy.bandwidth);
	if (r == 0)
		r = lb_policy_check(&policy);
	if (r < 0)
		return r;
	*ret_policy = policy;
	return 0;
}

int lb_policy_print(const struct lb_policy *policy, json_t **ret_object)
{
	_cleanup_json_ json_t *object = json_object();
	char retention[LB_LADDER_TEXT_BYTES];
	json_t *windows = NULL;
	int r;

	if (object == NULL)
		return lb_fail(-ENOMEM, "out of memory for a policy");
	r = lb_json_set_str(object, "name", policy->name);
	if (r == 0)
		r = lb_json_set_str(object, "retention", lb_ladder_format(&policy->retention, retention));
	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(members); i++)
		r = lb_json_set_u64(object, members[i].name, member_get(policy, &members[i]));
	if (r == 0)
		r = lb_json_set_str(object, "time_zone", policy->bandwidth.time_zone);
	if (r == 0)
		r = lb_bandwidth_windows_print(&policy->bandwidth, &windows);
	if (r < 0)
		return r;
	if (json_object_set_new(object, "bandwidth_windows", windows) < 0)
		return lb_fail(-ENOMEM, "out of memory for a policy");
	*ret_object = lb_steal_ptr(object);
	return 0;
}

int lb_policy_print_for_peer(struct lb_env *env, const struct lb_policy *policy, json_t **ret_object)
{
	_cleanup_json_ json_t *object = NULL;
	struct lb_zone zone;
	json_t *zone_json;
	int r;

	/* it was there when the policy was made: a host that lost it still replicates */
	if (lb_zone_find(env, policy->bandwidth.time_zone, lb_now_ns(env) / LB_NS_PER_S, &zone) < 0) {
		lb_warning("policy %s: its bandwidth windows are taken in UTC: %s", policy->name, lb_err_text());
		zone = (struct lb_zone){0};
	}
	r = lb_policy_print(policy, &object);
	if (r < 0)
		return r;
	zone_json = json_pack("{s:i,s:I,s:i}", "offset_s", zone.offset_s, "change_s", (json_int_t)zone.change_s,
			      "next_offset_s", zone.next_offset_s);
	if (json_object_set_new(object, "zone", zone_json) < 0)
		return lb_fail(-ENOMEM, "out of memory for a policy");
	*ret_object = lb_steal_ptr(object);
	return 0;
}
