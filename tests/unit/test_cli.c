/* SPDX-License-Identifier: Apache-2.0 */
/* What a command line is taken for, and that the reference tells of every command. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "cli/cli.h"

#define WORDS_MAX 16
#define TEXT_BYTES_MAX (1u << 20)

/* Parses "machine list -o json"; words are parted by single spaces. */
static int parse(struct cli *c, const char *line)
{
	static char text[512];
	static char *argv[WORDS_MAX + 2];
	char *rest = text;
	int argc = 1;

	memset(c, 0, sizeof(*c));
	lb_err_clear();
	snprintf(text, sizeof(text), "%s", line);
	argv[0] = (char *)(uintptr_t) "lifeboat";
	while (argc <= WORDS_MAX && (argv[argc] = strsep(&rest, " ")) != NULL)
		argc++;
	return cli_parse(c, argc, argv);
}

static void assert_says(const char *line, const char *said)
{
	struct cli c;

	assert_int_equal(parse(&c, line), -EINVAL);
	if (strstr(lb_err_text(), said) == NULL)
		fail_msg("`lifeboat %s` says \"%s\", which doesn't hold \"%s\"", line, lb_err_text(), said);
}

static void an_unknown_noun_is_refused_with_where_the_list_is(void **s)
{
	(void)s;
	assert_says("sever list", "lifeboat --help");
	assert_says("--server x status", "lifeboat --help");
}

static void an_unknown_verb_is_refused_with_those_that_there_are(void **s)
{
	(void)s;
	assert_says("vault crate", "create, verify, fold, cost, receipt, repair, passphrase");
	assert_says("vault", "create, verify, fold, cost, receipt, repair, passphrase");
	assert_says("vault --deep", "create, verify, fold, cost, receipt, repair, passphrase");
}

static void an_unknown_option_is_refused_with_where_the_options_are(void **s)
{
	(void)s;
	assert_says("vault verify --deeper", "`lifeboat vault verify --help`");
	assert_says("status --forward=1:2", "--forward");
	assert_says("status -x", "-x");
}

static void an_option_takes_its_value_from_the_next_word_or_after_the_sign(void **s)
{
	struct cli c;

	(void)s;
	assert_int_equal(parse(&c, "point list db1 --limit 7 --from=2026-01-31T08:15:00Z"), 0);
	assert_string_equal(c.args[0], "db1");
	assert_string_equal(cli_value(&c, "limit"), "7");
	assert_string_equal(cli_value(&c, "from"), "2026-01-31T08:15:00Z");
	assert_null(cli_value(&c, "to"));
	assert_int_equal(parse(&c, "status --vault=dir:/a=b"), 0);
	assert_string_equal(c.vault_url, "dir:/a=b");
}

static void an_option_without_its_value_or_with_one_too_many_is_refused(void **s)
{
	(void)s;
	assert_says("point list db1 --limit", "needs a value");
	assert_says("status --vault", "needs a value");
	assert_says("vault verify --deep=yes", "takes no value");
	assert_says("status --dry-run=yes", "takes no value");
}

static void a_flag_is_told_from_its_absence(void **s)
{
	struct cli c;

	(void)s;
	assert_int_equal(parse(&c, "vault verify --deep --dry-run"), 0);
	assert_non_null(cli_value(&c, "deep"));
	assert_true(c.dry_run);
	assert_int_equal(parse(&c, "vault verify"), 0);
	assert_null(cli_value(&c, "deep"));
	assert_false(c.dry_run);
}

static void too_many_and_too_few_arguments_are_refused_with_the_form(void **s)
{
	(void)s;
	assert_says("status db1 db2", "lifeboat status [MACHINE]");
	assert_says("point pin db1", "lifeboat point pin MACHINE NAME");
	assert_says("machine list db1", "lifeboat machine list");
}

static void what_can_not_be_a_name_goes_no_further(void **s)
{
	struct cli c;

	(void)s;
	assert_says("machine remove ../../etc", "machine");
	assert_says("machine pause db1?x=1", "machine");
	assert_says("failover cleanup .hidden", "double");
	assert_says("point pin db1 a/b", "name");
	assert_int_equal(parse(&c, "point export db1 vda /tmp/a?b/c"), 0);
	assert_int_equal(parse(&c, "status 6d1f0f54-7a4c-4f0e-9d4e-0d8a4c1f2b3a"), 0);
}

static void json_is_asked_for_in_either_form_and_holds_for_errors_too(void **s)
{
	struct cli c;

	(void)s;
	assert_int_equal(parse(&c, "status -o json"), 0);
	assert_true(c.json);
	assert_int_equal(parse(&c, "status -ojson"), 0);
	assert_true(c.json);
	assert_int_equal(parse(&c, "status -o text"), 0);
	assert_false(c.json);
	assert_says("status -o yaml", "json or text");
	assert_says("status -o", "json or text");
	assert_int_equal(parse(&c, "nothing at all -o json"), -EINVAL);
	assert_true(c.json);
}

static void a_number_out_of_its_bounds_is_refused_with_its_option(void **s)
{
	struct cli c;
	uint64_t value = 3;

	(void)s;
	assert_int_equal(parse(&c, "machine assess --seconds 10x"), 0);
	assert_int_equal(cli_value_u64(&c, "seconds", 60, &value), -EINVAL);
	assert_non_null(strstr(lb_err_text(), "--seconds"));
	assert_int_equal(parse(&c, "machine assess --seconds 61"), 0);
	assert_int_equal(cli_value_u64(&c, "seconds", 60, &value), -EINVAL);
	assert_int_equal(parse(&c, "machine assess"), 0);
	assert_int_equal(cli_value_u64(&c, "seconds", 60, &value), 0);
	assert_int_equal(value, 3);
}

/* What `lifeboat LINE` prints. */
static void printed(const char *line, char *text, size_t size_bytes)
{
	int kept = dup(STDOUT_FILENO), got;
	FILE *file = tmpfile();
	struct cli c;
	size_t n;

	assert_non_null(file);
	fflush(stdout);
	dup2(fileno(file), STDOUT_FILENO);
	got = parse(&c, line);
	fflush(stdout);
	dup2(kept, STDOUT_FILENO);
	close(kept);
	rewind(file);
	n = fread(text, 1, size_bytes - 1, file);
	text[n] = '\0';
	fclose(file);
	assert_int_equal(got, 1);
}

static void the_help_of_each_command_lists_its_options_and_the_exit_statuses(void **s)
{
	char text[8192], line[128], option[64];

	(void)s;
	for (unsigned int i = 0; i < cli_n_commands; i++) {
		const struct cli_command *k = &cli_commands[i];

		snprintf(line, sizeof(line), "%s%s%s --help", k->noun, k->verb != NULL ? " " : "",
			 k->verb != NULL ? k->verb : "");
		printed(line, text, sizeof(text));
		assert_non_null(strstr(text, k->summary));
		assert_non_null(strstr(text, "Exit status: 0 done"));
		for (unsigned int n = 0; n < CLI_OPTIONS_MAX && k->options[n].name != NULL; n++) {
			snprintf(option, sizeof(option), "--%s", k->options[n].name);
			if (strstr(text, option) == NULL || strstr(text, k->options[n].help) == NULL)
				fail_msg("`lifeboat %s` doesn't tell of %s", line, option);
		}
	}
}

static void the_help_of_a_noun_lists_its_verbs(void **s)
{
	char text[8192];

	(void)s;
	printed("failover --help", text, sizeof(text));
	assert_non_null(strstr(text, "failover repoint DOUBLE"));
	assert_null(strstr(text, "vault create"));
	printed("--help", text, sizeof(text));
	assert_non_null(strstr(text, "vault create"));
}

/* The reference has a heading "### lifeboat NOUN VERB ARGS" for each, and names each option below it. */
static void the_reference_tells_of_each_command_and_option(void **s)
{
	char heading[256], option[64];
	size_t size_bytes;
	uint8_t *reference;

	(void)s;
	assert_int_equal(lb_file_read(lb_env_real(), LB_CLI_REFERENCE, TEXT_BYTES_MAX, &reference, &size_bytes), 0);
	for (unsigned int i = 0; i < cli_n_commands; i++) {
		const struct cli_command *k = &cli_commands[i];
		char *section, *end;

		snprintf(heading, sizeof(heading), "### `lifeboat %s%s%s%s%s`\n", k->noun, k->verb != NULL ? " " : "",
			 k->verb != NULL ? k->verb : "", k->args[0] != '\0' ? " " : "", k->args);
		section = strstr((char *)reference, heading);
		if (section == NULL) {
			fail_msg("docs/cli.md has no heading: %s", heading);
			return;
		}
		end = strstr(section + 1, "\n#");
		if (end != NULL)
			*end = '\0';
		for (unsigned int n = 0; n < CLI_OPTIONS_MAX && k->options[n].name != NULL; n++) {
			snprintf(option, sizeof(option), "`--%s", k->options[n].name);
			if (strstr(section, option) == NULL)
				fail_msg("docs/cli.md: %s doesn't tell of %s", heading, option);
		}
		if (end != NULL)
			*end = '\n';
	}
	free(reference);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_unknown_noun_is_refused_with_where_the_list_is),
		cmocka_unit_test(an_unknown_verb_is_refused_with_those_that_there_are),
		cmocka_unit_test(an_unknown_option_is_refused_with_where_the_options_are),
		cmocka_unit_test(an_option_takes_its_value_from_the_next_word_or_after_the_sign),
		cmocka_unit_test(an_option_without_its_value_or_with_one_too_many_is_refused),
		cmocka_unit_test(a_flag_is_told_from_its_absence),
		cmocka_unit_test(too_many_and_too_few_arguments_are_refused_with_the_form),
		cmocka_unit_test(what_can_not_be_a_name_goes_no_further),
		cmocka_unit_test(json_is_asked_for_in_either_form_and_holds_for_errors_too),
		cmocka_unit_test(a_number_out_of_its_bounds_is_refused_with_its_option),
		cmocka_unit_test(the_help_of_each_command_lists_its_options_and_the_exit_statuses),
		cmocka_unit_test(the_help_of_a_noun_lists_its_verbs),
		cmocka_unit_test(the_reference_tells_of_each_command_and_option),
	};

	return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
