/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/agent_config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/conf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "capture/capture.h"
#include "mobility/group_wire.h"
#include "mobility/quiet.h"
#include "hrl/hrl.h"

static int copy_text(const json_t *object, const char *member, bool required, char *ret_text, size_t text_bytes)
{
	if (!required && !json_is_string(json_object_get(object, member))) {
		ret_text[0] = '\0';
		return 0;
	}
	return lb_json_get_text(object, member, ret_text, text_bytes);
}

static int parse_disk(const json_t *object, struct lb_agent_disk *ret_disk)
{
	struct lb_agent_disk disk = {0};
	uint64_t id;
	int r;

	r = lb_json_get_u64(object, "id", &id);
	if (r < 0)
		return r;
	if (id >= LB_HRL_DISKS_MAX)
		return lb_fail(-EBADMSG, "disk id %lu is past the limit of %d", (unsigned long)id, LB_HRL_DISKS_MAX);
	disk.id = (uint16_t)id;
	r = copy_text(object, "name", true, disk.name, sizeof(disk.name));
	if (r < 0)
		return r;
	r = copy_text(object, "path", false, disk.path, sizeof(disk.path));
	if (r < 0)
		return r;
	r = copy_text(object, "serial", false, disk.serial, sizeof(disk.serial));
	if (r < 0)
		return r;
	if (json_object_get(object, "size_bytes") != NULL) {
		r = lb_json_get_u64(object, "size_bytes", &disk.size_bytes);
		if (r < 0)
			return r;
	}
	*ret_disk = disk;
	return 0;
}

static int parse_disks(const json_t *list, struct lb_agent_config *config)
{
	uint64_t ids = 0;
	int r;

	if (list == NULL)
		return 0;
	if (!json_is_array(list) || json_array_size(list) > LB_CAPTURE_DISKS_MAX)
		return lb_fail(-EBADMSG, "\"disks\" is not a list of at most %d disks", LB_CAPTURE_DISKS_MAX);
	for (size_t i = 0; i < json_array_size(list); i++) {
		r = parse_disk(json_array_get(list, i), &config->disks[i]);
		if (r < 0)
			return r;
		if (ids & (UINT64_C(1) << config->disks[i].id))
			return lb_fail(-EBADMSG, "two disks have the id %u", config->disks[i].id);
		ids |= UINT64_C(1) << config->disks[i].id;
	}
	config->n_disks = (unsigned int)json_array_size(list);
	return 0;
}

static void trim_slashes(char *url)
{
	size_t n = strlen(url);

	while (n > 0 && url[n - 1] == '/')
		url[--n] = '\0';
}

static int parse_order(const json_t *order, struct lb_agent_config *config)
{
	int r;

	if (!json_is_object(order))
		return 0;
	r = lb_json_get_u64(order, "generation", &config->point_generation);
	return r < 0 ? r : lb_json_get_bool(order, "app", &config->point_app);
}

static int parse_mend(const json_t *order, struct lb_mend_order *mend)
{
	int r;

	if (!json_is_object(order))
		return 0;
	r = lb_json_get_u64(order, "generation", &mend->generation);
	if (r == 0)
		r = lb_json_get_bool(order, "network", &mend->network);
	return r == 0 ? lb_json_get_bool(order, "initramfs", &mend->initramfs) : r;
}

int lb_agent_config_parse(const json_t *object, struct lb_agent_config *ret_config)
{
	struct lb_agent_config config = {.policy = lb_policy_default};
	const json_t *policy = json_object_get(object, "policy");
	int r;

	r = lb_json_get_uuid(object, "machine", &config.machine);
	if (r < 0)
		return r;
	r = lb_json_get_bool(object, "enabled", &config.enabled);
	if (r < 0)
		return r;
	if (config.enabled) {
		r = lb_json_get_uuid(object, "vault_id", &config.vault);
		if (r < 0)
			return r;
	}
	r = copy_text(object, "process_url", config.enabled, config.process_url, sizeof(config.process_url));
	if (r < 0)
		return r;
	trim_slashes(config.process_url);
	r = parse_disks(json_object_get(object, "disks"), &config);
	if (r < 0)
		return r;
	if (json_is_object(policy)) {
		r = lb_policy_parse(policy, false, &config.policy);
		if (r < 0)
			return r;
	}
	if (json_object_get(object, "resync_generation") != NULL) {
		r = lb_json_get_u64(object, "resync_generation", &config.resync_generation);
		if (r < 0)
			return r;
	}
	r = parse_order(json_object_get(object, "point_order"), &config);
	if (r == 0)
		r = lb_group_roster_parse(json_object_get(object, "group"), &config.group);
	if (r < 0)
		return r;
	r = parse_mend(json_object_get(object, "mend"), &config.mend);
	if (r < 0)
		return r;
	if (json_object_get(object, "check_ns") != NULL) {
		r = lb_json_get_i64(object, "check_ns", &config.check_ns);
		if (r < 0)
			return r;
	}
	*ret_config = config;
	return 0;
}

static int config_path(const char *state_folder, char path[LB_AGENT_TEXT_BYTES])
{
	if ((size_t)snprintf(path, LB_AGENT_TEXT_BYTES, "%s/" LB_AGENT_CONFIG_NAME, state_folder) >=
	    LB_AGENT_TEXT_BYTES)
		return lb_fail(-ENAMETOOLONG, "the state folder's name is too long: %s", state_folder);
	return 0;
}

int lb_agent_config_load(struct lb_env *env, const char *state_folder, struct lb_agent_config *ret_config)
{
	_cleanup_json_ json_t *object = NULL;
	_cleanup_free_ uint8_t *text = NULL;
	char path[LB_AGENT_TEXT_BYTES];
	size_t size_bytes;
	int r;

	r = config_path(state_folder, path);
	if (r < 0)
		return r;
	r = lb_file_read(env, path, LB_AGENT_CONFIG_BYTES_MAX, &text, &size_bytes);
	if (r < 0)
		return r;
	r = lb_json_parse(text, size_bytes, LB_AGENT_CONFIG_BYTES_MAX, &object);
	if (r < 0)
		return lb_wrap(r, "%s", path);
	r = lb_agent_config_parse(object, ret_config);
	if (r < 0)
		return lb_wrap(r, "%s", path);
	return 0;
}

int lb_agent_config_save(struct lb_env *env, const char *state_folder, const json_t *object)
{
	_cleanup_free_ uint8_t *old = NULL;
	_cleanup_free_ char *text = NULL;
	char path[LB_AGENT_TEXT_BYTES];
	size_t old_bytes;
	int r;

	r = config_path(state_folder, path);
	if (r < 0)
		return r;
	r = lb_json_dump(object, &text);
	if (r < 0)
		return r;
	r = lb_file_read(env, path, LB_AGENT_CONFIG_BYTES_MAX, &old, &old_bytes);
	if (r == 0 && old_bytes == strlen(text) && memcmp(old, text, old_bytes) == 0)
		return 0;
	/* the next answer is kept instead */
	if (!lb_write_begin())
		return 0;
	r = lb_file_write(env, path, text, strlen(text), 0600);
	lb_write_end();
	return r;
}

int lb_agent_settings_read(struct lb_env *env, const char *path, struct lb_agent_settings *ret_settings)
{
	_cleanup_(lb_agent_settings_free) struct lb_agent_settings s = {.group_port = LB_GROUP_PORT_DEFAULT};
	const struct lb_conf_key keys[] = {
		{"config_url", LB_CONF_STR, &s.config_url},
		{"identity_folder", LB_CONF_STR, &s.identity_folder},
		{"capture_socket", LB_CONF_STR, &s.capture_socket},
		{"state_folder", LB_CONF_STR, &s.state_folder},
		{"run_folder", LB_CONF_STR, &s.run_folder},
		{"mend_folder", LB_CONF_STR, &s.mend_folder},
		{"name", LB_CONF_STR, &s.name},
		{"group_address", LB_CONF_STR, &s.group_address},
		{"group_host", LB_CONF_STR, &s.group_host},
		{"group_port", LB_CONF_U64, &s.group_port, 1, UINT16_MAX},
	};
	int r;

	r = lb_conf_read(env, path, keys, LB_ARRAY_LEN(keys));
	if (r == -ENOENT)
		return lb_fail(r, "%s is missing; run `lifeboat-mobility enrol` to make it", path);
	if (r < 0)
		return r;
	if (s.config_url == NULL || s.config_url[0] == '\0')
		return lb_fail(-EINVAL, "%s: config_url is missing; run `lifeboat-mobility enrol` to set it", path);
	trim_slashes(s.config_url);
	if (lb_conf_default(&s.identity_folder, "/var/lib/lifeboat/mobility") < 0 ||
	    lb_conf_default(&s.capture_socket, LB_CAPTURE_SOCKET) < 0 ||
	    lb_conf_default(&s.state_folder, "/var/lib/lifeboat/mobility") < 0 ||
	    lb_conf_default(&s.run_folder, "/run/lifeboat-mobility") < 0 ||
	    lb_conf_default(&s.mend_folder, LB_MEND_FOLDER) < 0 || lb_conf_default(&s.group_address, "0.0.0.0") < 0)
		return -ENOMEM;
	*ret_settings = s;
	s = (struct lb_agent_settings){0};
	return 0;
}

void lb_agent_settings_free(struct lb_agent_settings *s)
{
	free(s->config_url);
	free(s->identity_folder);
	free(s->capture_socket);
	free(s->state_folder);
	free(s->run_folder);
	free(s->mend_folder);
	free(s->name);
	free(s->group_address);
	free(s->group_host);
	*s = (struct lb_agent_settings){0};
}
