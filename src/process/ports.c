/* SPDX-License-Identifier: Apache-2.0 */
#include "process/ports.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"
#include "base/log.h"

#define MEMORY_NAME "port"
#define MEMORY_BYTES_MAX 64
#define PATH_BYTES 4096

static int memory_path(const struct lb_ports *p, char path[PATH_BYTES])
{
	if (snprintf(path, PATH_BYTES, "%s/" MEMORY_NAME, p->options.identity_folder) >= PATH_BYTES)
		return lb_fail(-ENAMETOOLONG, "identity_folder is too long");
	return 0;
}

/* What was remembered counts only as long as the settings say the same as then. */
static uint16_t remembered(struct lb_ports *p)
{
	_cleanup_free_ uint8_t *text = NULL;
	unsigned int of_settings, port;
	char path[PATH_BYTES];
	size_t size_bytes;

	if (memory_path(p, path) < 0 || lb_file_read(p->env, path, MEMORY_BYTES_MAX, &text, &size_bytes) < 0 ||
	    sscanf((const char *)text, "%u %u", &of_settings, &port) != 2 || of_settings != p->options.port ||
	    port == 0 || port > UINT16_MAX)
		return p->options.port;
	return (uint16_t)port;
}

static void remember(struct lb_ports *p, uint16_t port)
{
	char path[PATH_BYTES], text[MEMORY_BYTES_MAX];
	int n = snprintf(text, sizeof(text), "%u %u\n", p->options.port, port);

	if (remembered(p) == port)
		return;
	if (memory_path(p, path) < 0 || lb_file_write(p->env, path, text, (size_t)n, 0644) < 0)
		lb_warning("port %u is not remembered for the next start: %s", port, lb_err_text());
}

static int open_port(struct lb_ports *p, uint16_t port)
{
	struct lb_http_server_options options = p->options;
	int r;

	options.port = port;
	r = lb_http_server_start(&options, &p->servers[p->n]);
	if (r < 0)
		return r;
	p->n++;
	lb_info("agents are served on port %u", lb_http_server_port(p->servers[p->n - 1]));
	return 0;
}

int lb_ports_start(struct lb_env *env, const struct lb_http_server_options *options, struct lb_ports *ret_ports)
{
	uint16_t port;
	int r;

	*ret_ports = (struct lb_ports){.env = env, .options = *options};
	port = remembered(ret_ports);
	r = open_port(ret_ports, port);
	if (r < 0 && port != options->port) {
		lb_warning("port %u, which was the last, can't be opened: %s", port, lb_err_text());
		r = open_port(ret_ports, options->port);
	}
	return r;
}

static bool is_open(const struct lb_ports *p, uint16_t port)
{
	for (unsigned int i = 0; i < p->n; i++)
		if (lb_http_server_port(p->servers[i]) == port)
			return true;
	return false;
}

static bool is_named(const json_t *list, uint16_t port)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_integer_value(json_array_get(list, i)) == port)
			return true;
	return false;
}

static void close_others(struct lb_ports *p, const json_t *list)
{
	for (unsigned int i = 0; i < p->n && p->n > 1;) {
		uint16_t port = lb_http_server_port(p->servers[i]);

		if (is_named(list, port)) {
			i++;
			continue;
		}
		lb_http_server_stop(p->servers[i]);
		p->servers[i] = p->servers[--p->n];
		lb_info("port %u is closed: agents are served on another", port);
	}
}

void lb_ports_follow(struct lb_ports *p, const json_t *config)
{
	const json_t *list = json_object_get(config, "ports");

	p->error[0] = '\0';
	if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > LB_PORTS_MAX)
		return; /* a server that knows of no changes */
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_int_t port = json_integer_value(json_array_get(list, i));

		if (port <= 0 || port > UINT16_MAX || is_open(p, (uint16_t)port))
			continue;
		if (p->n == LB_PORTS_MAX)
			close_others(p, list);
		if (p->n < LB_PORTS_MAX && open_port(p, (uint16_t)port) < 0)
			snprintf(p->error, sizeof(p->error), "%s", lb_err_text());
	}
	if (!is_open(p, (uint16_t)json_integer_value(json_array_get(list, 0))))
		return;
	close_others(p, list);
	remember(p, (uint16_t)json_integer_value(json_array_get(list, 0)));
}

int lb_ports_report(const struct lb_ports *p, json_t *report)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < p->n; i++)
		if (json_array_append_new(list, json_integer(lb_http_server_port(p->servers[i]))) < 0) {
			json_decref(list);
			return lb_fail(-ENOMEM, "out of memory for a report");
		}
	if (json_object_set_new(report, "ports", list) < 0 ||
	    json_object_set_new(report, "port_error", json_string(p->error)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a report");
	return 0;
}

int lb_ports_reload(struct lb_ports *p)
{
	int r = 0;

	for (unsigned int i = 0; i < p->n && r == 0; i++)
		r = lb_http_server_reload(p->servers[i]);
	return r;
}

void lb_ports_stop(struct lb_ports *p)
{
	while (p->n > 0)
		lb_http_server_stop(p->servers[--p->n]);
}
