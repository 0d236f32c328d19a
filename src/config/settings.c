/* SPDX-License-Identifier: Apache-2.0 */
#include "config/settings.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/conf.h"
#include "base/err.h"
#include "fabric/hook.h"

#define HOST_BYTES_MAX 253
#define CACHE_BYTES_MIN LB_MIB(64)

static const struct {
	size_t offset;
	const char *value;
} defaults[] = {
	{offsetof(struct lb_settings, address), "0.0.0.0"},
	{offsetof(struct lb_settings, state_folder), "/var/lib/lifeboat/config"},
	{offsetof(struct lb_settings, public_host), "localhost"},
	{offsetof(struct lb_settings, process_cache_folder), "/var/lib/lifeboat/process"},
	{offsetof(struct lb_settings, vm_folder), "/var/lib/lifeboat/vm"},
	{offsetof(struct lb_settings, fabric), "auto"},
	{offsetof(struct lb_settings, hook_folder), "/etc/lifeboat/hooks"},
};

static int set_defaults(struct lb_settings *s)
{
	for (size_t i = 0; i < LB_ARRAY_LEN(defaults); i++) {
		char **member = (char **)((char *)s + defaults[i].offset);

		*member = strdup(defaults[i].value);
		if (*member == NULL)
			return lb_fail(-ENOMEM, "out of memory for settings");
	}
	s->port = 443;
	s->process_server = true;
	s->target_server = true;
	s->process_port = 9443;
	s->process_lost_s = LB_PROCESS_LOST_S_DEFAULT;
	s->temporary_port = LB_TEMPORARY_PORT_DEFAULT;
	s->process_cache_bytes_max = LB_GIB(16);
	s->hook_timeout_s = LB_HOOK_TIMEOUT_S_DEFAULT;
	return 0;
}

bool lb_host_is_address(const char *host)
{
	unsigned char address[16];

	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static int check_host(const char *host)
{
	size_t length = strlen(host);

	if (lb_host_is_address(host))
		return 0;
	if (length == 0 || length > HOST_BYTES_MAX || host[0] == '-' || host[0] == '.' ||
	    strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != length)
		return lb_fail(-EINVAL, "\"%.80s\" is neither a host's name nor an address", host);
	return 0;
}

int lb_hosts_split(const char *list, char *hosts[LB_PUBLIC_HOSTS_MAX], unsigned int *ret_n)
{
	_cleanup_free_ char *copy = strdup(list);
	char *rest = copy, *host;
	unsigned int n = 0;
	int r = 0;

	if (copy == NULL)
		return lb_fail(-ENOMEM, "out of memory for host names");
	while (r == 0 && (host = strsep(&rest, ",")) != NULL) {
		host += strspn(host, " \t");
		for (size_t length = strlen(host); length > 0 && strchr(" \t", host[length - 1]) != NULL;)
			host[--length] = '\0';
		r = n == LB_PUBLIC_HOSTS_MAX ? lb_fail(-E2BIG, "more than %d public host names", LB_PUBLIC_HOSTS_MAX)
					     : check_host(host);
		if (r == 0 && (hosts[n] = strdup(host)) == NULL)
			r = lb_fail(-ENOMEM, "out of memory for host names");
		n += r == 0;
	}
	if (r < 0) {
		while (n > 0) {
			free(hosts[--n]);
			hosts[n] = NULL;
		}
		return r;
	}
	*ret_n = n;
	return 0;
}

static int check(const struct lb_settings *s, const char *path)
{
	if (s->vault == NULL)
		return lb_fail(-EINVAL,
			       "%s: `vault` is missing: the address of the storage account, for example "
			       "dir:/srv/vault or azure:ACCOUNT/CONTAINER",
			       path);
	if (s->state_folder[0] != '/' || s->vm_folder[0] != '/' || s->process_cache_folder[0] != '/' ||
	    s->hook_folder[0] != '/')
		return lb_fail(-EINVAL, "%s: folders must be absolute paths", path);
	if (strcmp(s->fabric, "auto") != 0 && strcmp(s->fabric, "qemu") != 0 && strcmp(s->fabric, "libvirt") != 0)
		return lb_fail(-EINVAL, "%s: fabric must be auto, qemu or libvirt", path);
	return 0;
}

const char *lb_double_host(const struct lb_settings *s)
{
	return s->double_host != NULL ? s->double_host : LB_DOUBLE_HOST_DEFAULT;
}

int lb_settings_read(struct lb_env *env, const char *path, struct lb_settings *ret_settings)
{
	struct lb_settings *s = ret_settings;
	const struct lb_conf_key keys[] = {
		{"address", LB_CONF_STR, &s->address, 0, 0},
		{"port", LB_CONF_U64, &s->port, 1, 65535},
		{"state_folder", LB_CONF_STR, &s->state_folder, 0, 0},
		{"public_host", LB_CONF_STR, &s->public_host, 0, 0},
		{"vault", LB_CONF_STR, &s->vault, 0, 0},
		{"passphrase_file", LB_CONF_STR, &s->passphrase_file, 0, 0},
		{"process_server", LB_CONF_BOOL, &s->process_server, 0, 0},
		{"process_port", LB_CONF_U64, &s->process_port, 1, 65535},
		{"process_lost_s", LB_CONF_U64, &s->process_lost_s, LB_PROCESS_LOST_S_MIN, 86400},
		{"process_cache_folder", LB_CONF_STR, &s->process_cache_folder, 0, 0},
		{"process_cache_bytes_max", LB_CONF_SIZE, &s->process_cache_bytes_max, CACHE_BYTES_MIN, UINT64_MAX},
		{"agent_package", LB_CONF_STR, &s->agent_package, 0, 0},
		{"target_server", LB_CONF_BOOL, &s->target_server, 0, 0},
		{"target_program", LB_CONF_STR, &s->target_program, 0, 0},
		{"process_program", LB_CONF_STR, &s->process_program, 0, 0},
		{"vm_folder", LB_CONF_STR, &s->vm_folder, 0, 0},
		{"fabric", LB_CONF_STR, &s->fabric, 0, 0},
		{"hook_folder", LB_CONF_STR, &s->hook_folder, 0, 0},
		{"hook_timeout_s", LB_CONF_U64, &s->hook_timeout_s, 1, LB_HOOK_TIMEOUT_S_MAX},
		{"double_host", LB_CONF_STR, &s->double_host, 0, 0},
		{"temporary_port", LB_CONF_U64, &s->temporary_port, 0, 65535},
	};
	int r;

	memset(s, 0, sizeof(*s));
	r = set_defaults(s);
	if (r == 0)
		r = lb_conf_read(env, path, keys, LB_ARRAY_LEN(keys));
	if (r == 0)
		r = check(s, path);
	if (r == 0)
		r = lb_hosts_split(s->public_host, s->hosts, &s->n_hosts);
	if (r == 0 && s->double_host != NULL)
		r = check_host(s->double_host);
	return r;
}

void lb_settings_free(struct lb_settings *s)
{
	free(s->address);
	free(s->state_folder);
	free(s->public_host);
	free(s->vault);
	free(s->passphrase_file);
	free(s->process_cache_folder);
	free(s->agent_package);
	free(s->process_program);
	free(s->target_program);
	free(s->vm_folder);
	free(s->fabric);
	free(s->hook_folder);
	free(s->double_host);
	for (unsigned int i = 0; i < s->n_hosts; i++)
		free(s->hosts[i]);
	memset(s, 0, sizeof(*s));
}
