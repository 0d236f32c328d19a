/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The operator's command: `lifeboat NOUN VERB [NAME]`. A command's function returns 0 or a negative errno with its text
 * in lb_err_text(); main turns that into a message and an exit status. Single-threaded.
 */
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "vault/catalog.h"
#include "vault/vault.h"

/* Documented in docs/operations.md and printed by `lifeboat help exit`. */
enum cli_exit {
	CLI_EXIT_DONE = 0,
	CLI_EXIT_FAILED = 1,
	CLI_EXIT_USAGE = 2,
	CLI_EXIT_DEGRADED = 3, /* done, or answered, but something needs a person */
	CLI_EXIT_ABSENT = 4,
	CLI_EXIT_REFUSED = 5,
	CLI_EXIT_RETRY = 6, /* nothing is wrong for good: try again later */
};

#define CLI_OPTIONS_MAX 24
#define CLI_ARGS_MAX 4

struct cli_option {
	const char *name;
	const char *value; /* what the value is called in the help; NULL: the option takes none */
	const char *help;
};

struct cli;

struct cli_command {
	const char *noun;
	const char *verb; /* NULL: the noun alone */
	const char *args; /* as the help shows them */
	const char *summary;
	unsigned int n_args_min, n_args_max;
	int (*run)(struct cli *c);
	struct cli_option options[CLI_OPTIONS_MAX];
};

struct cli {
	struct lb_env *env;
	const struct cli_command *command;
	const char *args[CLI_ARGS_MAX];
	unsigned int n_args;
	const char *values[CLI_OPTIONS_MAX]; /* of command->options; "" for a flag that was given */
	bool json, dry_run;
	const char *confirm;
	const char *server_url, *identity_folder;
	const char *vault_url, *passphrase_file;
	bool degraded;
	struct lb_http_client *client;
	struct lb_store *store;
	struct lb_vault *vault;
};

extern const struct cli_command cli_commands[];
extern const unsigned int cli_n_commands;

/* args.c: fills the command, its arguments and its options. -EINVAL with a text for misuse, 1 when help was asked for.
 */
int cli_parse(struct cli *c, int argc, char **argv);
/* Fills what wasn't given from the environment. */
void cli_defaults(struct cli *c);
/* The value of an option of the command, NULL when it wasn't given. */
const char *cli_value(const struct cli *c, const char *name);
int cli_value_u64(const struct cli *c, const char *name, uint64_t max, uint64_t *ret_value);
void cli_help(const struct cli_command *command);
void cli_help_all(void);

/* out.c */
/* Prints {"api":"lifeboat/v1","kind":kind,"data":data}; takes `data` over. */
int cli_print_json(const char *kind, json_t *data);
/* What was done: the sentence as text, or `data` as JSON of this kind; takes `data` over. */
int cli_did(const struct cli *c, const char *kind, json_t *data, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* What --dry-run left undone: "would ...", or JSON of kind "dry-run". */
int cli_would(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A member that is a string, else "". */
const char *cli_text(const json_t *object, const char *member);
json_int_t cli_number(const json_t *object, const char *member);
/* "in 3 s", "12 s", "4 min", "2 h 10 min", "3 d". */
#define CLI_AGE_BYTES 32
const char *cli_age(int64_t age_ns, char text[CLI_AGE_BYTES]);
/* One line, rewritten in place on a terminal, silent elsewhere and in JSON. `total` 0: not known, so no bar. */
void cli_progress(const struct cli *c, const char *what, uint64_t done, uint64_t total, bool bytes);
void cli_progress_end(const struct cli *c);
/* A destructive act goes on only when the name is typed, or given by --confirm NAME. */
int cli_confirm(const struct cli *c, const char *act, const char *name);

/* Reads a passphrase from the terminal without showing it, or from the file; for _cleanup_passphrase_. */
int cli_passphrase(const struct cli *c, bool twice, char **ret_passphrase);
void cli_passphrase_wipe(char **passphrase);
#define _cleanup_passphrase_ _cleanup_(cli_passphrase_wipe)

/* api.c: the configuration server. Errors name it and the cure. */
bool cli_has_server(const struct cli *c);
int cli_call(struct cli *c, const char *method, const char *path, const json_t *body, json_t **ret_reply);
int cli_callf(struct cli *c, const char *method, const json_t *body, json_t **ret_reply, const char *path_fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* Follows a job to its end with progress; 0 when it is done, -ECANCELED, -EIO with the job's own words. */
int cli_job_follow(struct cli *c, const char *job_id, json_t **ret_job);
/* The end of an order whose answer names its job: with --no-wait it is said that it has begun (1), else it is followed
 * to its end (0). */
int cli_order_follow(struct cli *c, const json_t *reply, json_t **ret_job);

/* direct.c: the vault alone (--vault, --passphrase-file), every server gone. */
bool cli_is_direct(const struct cli *c);
int cli_vault_open(struct cli *c);
/* Opens the vault and looks a machine up in it, by name or id. */
int cli_vault_machine(struct cli *c, const char *name, struct lb_catalog_item *ret_item);
/* What a person calls the machine by whose id the vault speaks. The last one is kept: they come in rows. */
struct cli_machine_name {
	bool known;
	struct lb_uuid machine;
	char id[LB_UUID_TEXT_BYTES];
	char name[LB_MACHINE_NAME_BYTES]; /* "": the vault has none that is authentic */
	char label[LB_MACHINE_LABEL_BYTES];
};
void cli_machine_name(struct cli *c, const struct lb_uuid *machine, struct cli_machine_name *name);
/* A disk of a machine by its name or number; -ENOENT tells those there are. */
int cli_disk_find(const struct lb_catalog_item *item, const char *text, const struct lb_catalog_disk **ret_disk);
/* For the commands that only a vault can answer: $LIFEBOAT_VAULT counts also when a server is known. */
int cli_vault_need(struct cli *c);

/* cmd_failback_order.c: --target SERVER was given; orders that kind of it and follows the job. */
bool cli_is_ordered(const struct cli *c);
int cli_target_order(struct cli *c, const char *kind);
/* --to, --some, --overwrite, --keep-points, --keep as members of an order. */
int cli_target_disks(const struct cli *c, json_t *body);

/* cmd_reprotect.c: follows a job, and prints what its look found, also when it was not content. */
int cli_follow_findings(struct cli *c, const char *id, json_t **ret_job);

/* exec.c: becomes another program of ours: beside this one, in the build's folder, or on the path. Returns when there
 * is none. */
void cli_exec(const char *build_folder, const char *const *argv);

/* The commands, by noun. */
int cmd_status(struct cli *c);
int cmd_setup(struct cli *c);
int cmd_vault_create(struct cli *c);
int cmd_vault_verify(struct cli *c);
int cmd_vault_fold(struct cli *c);
int cmd_vault_cost(struct cli *c);
int cmd_vault_receipt(struct cli *c);
int cmd_vault_repair(struct cli *c);
int cmd_vault_passphrase(struct cli *c);
int cmd_vault_rotate(struct cli *c);
int cmd_machine_list(struct cli *c);
int cmd_machine_show(struct cli *c);
int cmd_machine_assess(struct cli *c);
int cmd_machine_target(struct cli *c);
int cmd_machine_check(struct cli *c);
int cmd_machine_mend(struct cli *c);
int cmd_machine_protect(struct cli *c);
int cmd_machine_pause(struct cli *c);
int cmd_machine_resync(struct cli *c);
int cmd_machine_remove(struct cli *c);
int cmd_machine_move(struct cli *c);
int cmd_machine_install(struct cli *c);
int cmd_point_list(struct cli *c);
int cmd_point_create(struct cli *c);
int cmd_group_list(struct cli *c);
int cmd_group_show(struct cli *c);
int cmd_group_create(struct cli *c);
int cmd_group_set(struct cli *c);
int cmd_group_add(struct cli *c);
int cmd_group_remove(struct cli *c);
int cmd_group_delete(struct cli *c);
int cmd_point_pin(struct cli *c);
int cmd_point_unpin(struct cli *c);
int cmd_point_hold(struct cli *c);
int cmd_point_release(struct cli *c);
int cmd_point_export(struct cli *c);
int cmd_file_ls(struct cli *c);
int cmd_file_get(struct cli *c);
int cmd_failover_list(struct cli *c);
int cmd_failover_preview(struct cli *c);
int cmd_failover_test(struct cli *c);
int cmd_failover_start(struct cli *c);
int cmd_failover_cleanup(struct cli *c);
int cmd_failover_repoint(struct cli *c);
int cmd_failover_undo(struct cli *c);
int cmd_failover_commit(struct cli *c);
int cmd_failover_reprotect(struct cli *c);
int cmd_drill_start(struct cli *c);
int cmd_drill_list(struct cli *c);
int cmd_drill_show(struct cli *c);
int cmd_drill_schedule(struct cli *c);
int cmd_drill_unschedule(struct cli *c);
int cmd_drill_schedules(struct cli *c);
int cmd_plan_list(struct cli *c);
int cmd_plan_show(struct cli *c);
int cmd_plan_create(struct cli *c);
int cmd_plan_update(struct cli *c);
int cmd_plan_delete(struct cli *c);
int cmd_plan_test(struct cli *c);
int cmd_plan_failover(struct cli *c);
int cmd_plan_commit(struct cli *c);
int cmd_plan_cleanup(struct cli *c);
int cmd_plan_reprotect(struct cli *c);
int cmd_plan_failback(struct cli *c);
int cmd_plan_failback_commit(struct cli *c);
int cmd_plan_confirm(struct cli *c);
int cmd_failback_commit(struct cli *c);
int cmd_failback_start(struct cli *c);
int cmd_failback_undo(struct cli *c);
int cmd_failback_restore(struct cli *c);
int cmd_failback_finish(struct cli *c);
int cmd_failback_status(struct cli *c);
int cmd_failback_back(struct cli *c);
int cmd_failback_drop(struct cli *c);
int cmd_failback_boot(struct cli *c);
int cmd_failback_halt(struct cli *c);
int cmd_rescue_build(struct cli *c);
int cmd_rescue_mender(struct cli *c);
int cmd_policy_list(struct cli *c);
int cmd_policy_show(struct cli *c);
int cmd_policy_set(struct cli *c);
int cmd_server_port(struct cli *c);
int cmd_server_list(struct cli *c);
int cmd_server_show(struct cli *c);
int cmd_server_add(struct cli *c);
int cmd_server_drain(struct cli *c);
int cmd_server_remove(struct cli *c);
int cmd_token_create(struct cli *c);
int cmd_token_use(struct cli *c);
int cmd_job_list(struct cli *c);
int cmd_job_watch(struct cli *c);
int cmd_job_cancel(struct cli *c);
