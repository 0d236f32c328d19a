/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The steps of `lifeboat setup` from the running configuration server on, and the answers that are kept in
 * <etc folder>/setup.json, so that a later run goes on without being told again. No secret is among them.
 */
#include "cli/cli.h"

struct cli_setup {
	const char *etc;     /* folder */
	const char *machine; /* the first to be protected; NULL: not said yet */
	const char *policy;
	const char *host; /* of the server here */
	const char *port;
	bool test;       /* may make the first test failover */
	json_t *answers; /* the caller's */
	json_t *steps;   /* [{"n","name","done","text"}] */
};

/* What was answered before; an empty object when nothing was. */
int cli_setup_answers(struct cli *c, const char *etc, json_t **ret_answers);
int cli_setup_keep(struct cli *c, const char *etc, const json_t *answers);
/* Notes a step, and prints it unless JSON was asked for. */
int cli_setup_step(struct cli *c, struct cli_setup *s, int n, const char *name, bool done, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
/* Steps 4 to 7: each is looked at first, done if it can be, and the first that needs a person ends it. */
int cli_setup_rest(struct cli *c, struct cli_setup *s);
