/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What proves a double: it shows the word that its disk carries (vault/proof.h), its console asks for a login, ports of
 * it answer, the operator's script is content. Looked at until all that was asked holds or the time is over.
 *
 *   {"nonce": true, "login": "login:", "ports": [22, {"port": 80, "send": "GET / HTTP/1.0\r\n\r\n"}], "script":
 * "try-shop", "timeout_s": 300}
 */
#include <jansson.h>

#include "fabric/failover.h"

#define LB_CHECK_PORTS_MAX LB_VM_FORWARDS_MAX
#define LB_CHECK_TIMEOUT_S_DEFAULT 300
#define LB_CHECK_TIMEOUT_S_MAX (6 * 3600)
#define LB_CONSOLE_TAIL_BYTES (64u << 10)

/* -EINVAL says what is wrong with it. The full form; NULL or an empty object asks for the word and a login. */
int lb_check_read(const json_t *body, json_t **ret_check);
/* The forwards that its ports need, on this host's loopback, beside those that `forwards` has; -E2BIG. */
int lb_check_forwards(const json_t *check, struct lb_vm_forward *forwards, uint32_t *n);

struct lb_check_run {
	const json_t *check; /* the full form */
	const char *hook_folder;
	uint32_t limit_s; /* whatever the check says; 0: none */
	int (*idle)(void *arg);
	void *arg;
};
/*
 * {"passed": true|false, "nonce": {"passed", "text", "time_ns"}, "login": {...}, "ports": [{"port", "passed", "text"}],
 * "script": {...}}: what was not asked is not there. 0 also when it has not passed; an error when it could not be
 * tried.
 */
int lb_failover_check(struct lb_failover *f, const struct lb_check_run *run, json_t **ret_result);

/* The screen as <folder>/<base>.png or .ppm, the end of the consoles as <base>.txt. Makes what it can; "" for what not.
 */
int lb_failover_picture(struct lb_failover *f, const char *folder, char ret_screen_type[8]);
#define LB_PICTURE_SCREEN "screen" /* with its type behind a dot */
#define LB_PICTURE_CONSOLE "console.txt"

/* Turns a VM off whatever works on it: what has outlived its time. The record stays for whoever cleans up. */
int lb_failover_kill(struct lb_env *env, const char *vm_folder, const char *vm_name);
