/* SPDX-License-Identifier: Apache-2.0 */
#include "process/assign.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/text.h"
#include "process/record.h"

static int take_key(const json_t *object, struct lb_keyring *ret_ring)
{
	_cleanup_free_ uint8_t *data = NULL;
	const char *text;
	size_t size_bytes;
	int r;

	r = lb_json_get_str(object, "key", &text);
	if (r < 0)
		return r;
	r = lb_base64_decode(text, LB_KEYRING_BYTES_MAX, &data, &size_bytes);
	if (r < 0)
		return lb_fail(-EBADMSG, "\"key\" is not base64 of at most %d bytes", LB_KEYRING_BYTES_MAX);
	r = lb_keyring_parse(data, size_bytes, ret_ring);
	lb_wipe(data, size_bytes);
	return r < 0 ? lb_wrap(-EBADMSG, "\"key\"") : 0;
}

static int take_name(const json_t *object, char name[LB_PROCESS_NAME_BYTES])
{
	const char *text;
	int r;

	r = lb_json_get_str(object, "name", &text);
	if (r < 0)
		return r;
	if (strlen(text) >= LB_PROCESS_NAME_BYTES)
		return lb_fail(-EBADMSG, "\"name\" is longer than %d characters", LB_PROCESS_NAME_BYTES - 1);
	memcpy(name, text, strlen(text) + 1);
	return 0;
}

static int take_hardware(const json_t *object, char hardware[LB_HARDWARE_BYTES])
{
	const char *text = json_string_value(json_object_get(object, "hardware"));
	struct lb_digest digest;

	hardware[0] = '\0';
	if (text == NULL || *text == '\0')
		return 0;
	if (lb_hex_decode(text, LB_DIGEST_BYTES, digest.bytes) < 0)
		return lb_fail(-EBADMSG, "\"hardware\" is not a SHA-256 digest");
	lb_hex_encode(digest.bytes, LB_DIGEST_BYTES, hardware);
	return 0;
}

static int take_rest(const json_t *object, struct lb_assignment *a)
{
	const json_t *generation = json_object_get(object, "resync_generation");
	const json_t *flush = json_object_get(object, "flush_ns");
	int r;

	a->handover = json_is_true(json_object_get(object, "handover"));
	r = lb_json_get_digest(object, "cert_fingerprint", &a->cert_fingerprint);
	if (r == 0)
		r = lb_json_get_bool(object, "enabled", &a->enabled);
	if (r == 0)
		r = lb_json_get_bool(object, "fenced", &a->fenced);
	if (r == 0 && generation != NULL)
		r = lb_json_get_u64(object, "resync_generation", &a->resync_generation);
	if (r == 0 && flush != NULL)
		r = lb_json_get_i64(object, "flush_ns", &a->flush_ns);
	if (r == 0)
		r = lb_disks_parse(json_object_get(object, "disks"), &a->disks);
	if (r == 0)
		r = lb_policy_parse(json_object_get(object, "policy"), false, &a->policy);
	return r;
}

int lb_assignment_parse(const json_t *object, struct lb_assignment *ret_assignment)
{
	_cleanup_(lb_assignment_wipe) struct lb_assignment a = {0};
	int r;

	r = take_key(object, &a.keys);
	if (r == 0)
		r = lb_json_get_uuid(object, "id", &a.id);
	if (r == 0)
		r = take_name(object, a.name);
	if (r == 0)
		r = take_hardware(object, a.hardware);
	if (r == 0)
		r = take_rest(object, &a);
	if (r < 0)
		return r;
	*ret_assignment = a;
	return 0;
}
