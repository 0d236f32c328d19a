/* SPDX-License-Identifier: Apache-2.0 */
#include "target/order.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"

#define OUTCOME_FILE "outcome.json"
#define CHOICE_FILE "choice.json"
#define KEPT_BYTES_MAX (64u << 10)

void lb_target_order_clear(struct lb_target_order *o)
{
	lb_keyring_wipe(&o->keys);
	json_decref(o->body);
	o->body = NULL;
}

static int take_key(json_t *object, struct lb_target_order *o)
{
	static const char *const secrets[] = {"key", NULL};
	_cleanup_free_ uint8_t *bytes = NULL;
	const char *text;
	size_t size_bytes = 0;
	int r;

	if (json_object_get(object, "key") == NULL)
		return 0;
	r = lb_json_get_str(object, "key", &text);
	r = r < 0 ? r : lb_base64_decode(text, LB_KEYRING_BYTES_MAX, &bytes, &size_bytes);
	r = r < 0 ? r : lb_keyring_parse(bytes, size_bytes, &o->keys);
	if (bytes != NULL)
		lb_wipe(bytes, size_bytes);
	lb_json_wipe(object, secrets);
	o->has_keys = r == 0;
	return r;
}

int lb_target_order_parse(json_t *object, struct lb_target_order *ret_order)
{
	_cleanup_(lb_target_order_clear) struct lb_target_order o = {0};
	json_t *body = json_object_get(object, "body");
	struct lb_uuid id;
	int r;

	r = take_key(object, &o);
	r = r < 0 ? r : lb_json_get_uuid(object, "id", &id);
	r = r < 0 ? r : lb_json_get_uuid(object, "machine", &o.machine);
	r = r < 0 ? r : lb_json_get_text(object, "machine_name", o.machine_name, sizeof(o.machine_name));
	r = r < 0 ? r : lb_json_get_text(object, "kind", o.kind, sizeof(o.kind));
	if (r == 0 && !json_is_object(body))
		r = lb_fail(-EBADMSG, "an order without a body");
	if (r < 0)
		return r;
	lb_uuid_format(&id, o.id);
	lb_uuid_format(&o.machine, o.machine_text);
	o.body = json_incref(body);
	*ret_order = o;
	memset(&o, 0, sizeof(o));
	return 0;
}

static int write_for(struct lb_env *env, const char *folder, const char *name, const json_t *object)
{
	_cleanup_free_ char *text = NULL;
	char path[PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	r = lb_json_dump(object, &text);
	return r < 0 ? r : lb_file_write(env, path, text, strlen(text), 0600);
}

static int read_for(struct lb_env *env, const char *folder, const char *name, const char *order, json_t **ret_object)
{
	_cleanup_free_ uint8_t *text = NULL;
	_cleanup_json_ json_t *j = NULL;
	char path[PATH_MAX];
	size_t size_bytes;
	const char *id;
	int r;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	r = lb_file_read(env, path, KEPT_BYTES_MAX, &text, &size_bytes);
	if (r == -ENOENT)
		return r;
	r = r < 0 ? r : lb_json_parse(text, size_bytes, KEPT_BYTES_MAX, &j);
	r = r < 0 ? r : lb_json_get_str(j, "id", &id);
	if (r < 0)
		return lb_wrap(r, "%s", path);
	if (strcmp(id, order) != 0)
		return -ENOENT;
	*ret_object = lb_steal_ptr(j);
	return 0;
}

int lb_target_outcome_write(struct lb_env *env, const char *folder, const json_t *report)
{
	return write_for(env, folder, OUTCOME_FILE, report);
}

int lb_target_outcome_read(struct lb_env *env, const char *folder, const char *order, json_t **ret_report)
{
	return read_for(env, folder, OUTCOME_FILE, order, ret_report);
}

int lb_target_choice_write(struct lb_env *env, const char *folder, const json_t *choice)
{
	return write_for(env, folder, CHOICE_FILE, choice);
}

int lb_target_choice_read(struct lb_env *env, const char *folder, const char *order, json_t **ret_choice)
{
	return read_for(env, folder, CHOICE_FILE, order, ret_choice);
}
