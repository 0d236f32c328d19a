/* SPDX-License-Identifier: Apache-2.0 */
/* `lifeboat machine target`: what a machine's doubles are made like. */
#include "cli/cli.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"

static const struct {
	const char *option, *member;
	enum { NUMBER, SIZE, TEXT, SWITCH } kind;
} settings[] = {
	{"cpus", "cpus", NUMBER},     {"memory", "memory_bytes", SIZE},
	{"network", "network", TEXT}, {"test-network", "test_network", TEXT},
	{"mac", "mac", TEXT},         {"test-mac", "test_mac", TEXT},
	{"address", "address", TEXT}, {"test-address", "test_address", TEXT},
	{"bus", "bus", TEXT},         {"mend", "mend", SWITCH},
};

static int set_one(const struct cli *c, json_t *body, size_t k)
{
	const char *text = cli_value(c, settings[k].option);
	uint64_t value;
	int r;

	if (text == NULL)
		return 0;
	if (strcmp(text, "default") == 0)
		return json_object_set_new(body, settings[k].member, json_null()) < 0
			       ? lb_fail(-ENOMEM, "out of memory")
			       : 0;
	if (settings[k].kind == SWITCH) {
		if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
			return lb_fail(-EINVAL, "--%s is on or off, not \"%.40s\"", settings[k].option, text);
		return lb_json_set_bool(body, settings[k].member, strcmp(text, "on") == 0);
	}
	if (settings[k].kind == TEXT)
		return lb_json_set_str(body, settings[k].member, text);
	r = settings[k].kind == SIZE ? lb_size_parse(text, &value) : lb_u64_parse(text, INT64_MAX, &value);
	return r < 0 ? lb_wrap(-EINVAL, "--%s", settings[k].option) : lb_json_set_u64(body, settings[k].member, value);
}

int cmd_machine_target(struct cli *c)
{
	_cleanup_json_ json_t *body = json_object(), *reply = NULL;
	int r;

	for (size_t k = 0; k < sizeof(settings) / sizeof(settings[0]); k++) {
		r = set_one(c, body, k);
		if (r < 0)
			return r;
	}
	if (json_object_size(body) == 0)
		return lb_fail(-EINVAL, "nothing to set; see `lifeboat machine target --help`");
	if (c->dry_run) {
		r = cli_callf(c, "GET", NULL, &reply, "/v1/machine/%s", c->args[0]);
		return r < 0 ? r : cli_would(c, "change what doubles of %s are made like", c->args[0]);
	}
	r = cli_callf(c, "PUT", body, &reply, "/v1/machine/%s/target", c->args[0]);
	return r < 0 ? r
		     : cli_did(c, "target", json_incref(reply), "Doubles of %s are made so from now on.", c->args[0]);
}
