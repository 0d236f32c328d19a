/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <stdio.h>

#include "base/json.h"

int cmd_server_list(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *s;
	size_t i;
	int r;

	r = cli_call(c, "GET", "/v1/server", NULL, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("servers", json_incref(reply));
	printf("%-24s %-10s %-38s %-10s %s\n", "NAME", "KIND", "ID", "HEALTH", "");
	json_array_foreach(json_object_get(reply, "servers"), i, s)
		printf("%-24s %-10s %-38s %-10s %s\n", cli_text(s, "name"), cli_text(s, "kind"), cli_text(s, "id"),
		       cli_text(s, "health"), cli_text(s, "text"));
	return 0;
}
