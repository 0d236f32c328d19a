/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/text.h"

#define WORD_BYTES 24

struct global {
	const char *name, *value, *help;
};

static const struct global globals[] = {
	{"o", "json", "print JSON of a stable shape instead of text"},
	{"dry-run", NULL, "say what would be done, and do nothing"},
	{"confirm", "NAME", "the name that a destructive command asks for"},
	{"server", "URL", "the configuration server (default $LIFEBOAT_CONFIG_URL)"},
	{"identity", "FOLDER", "your key and certificate (default $LIFEBOAT_IDENTITY)"},
	{"vault", "URL", "work on the vault alone, without any server (default $LIFEBOAT_VAULT)"},
	{"passphrase-file", "FILE", "the vault's passphrase (default $LIFEBOAT_PASSPHRASE_FILE, or asked for)"},
	{"help", NULL, "this text"},
};

static void help_option(const char *dashes, const char *name, const char *value, const char *help)
{
	char left[64];

	snprintf(left, sizeof(left), "%s%s%s%s", dashes, name, value != NULL ? " " : "", value != NULL ? value : "");
	printf("  %-34s %s\n", left, help);
}

static void help_globals(void)
{
	printf("\nEvery command takes:\n");
	for (size_t i = 0; i < sizeof(globals) / sizeof(globals[0]); i++)
		help_option(strlen(globals[i].name) == 1 ? "-" : "--", globals[i].name, globals[i].value,
			    globals[i].help);
	printf("\nExit status: 0 done, 1 failed, 2 usage, 3 degraded (done or answered, but something needs you),\n"
	       "4 absent, 5 refused, 6 try again later.\n");
}

void cli_help(const struct cli_command *command)
{
	printf("lifeboat %s%s%s %s\n\n%s.\n", command->noun, command->verb != NULL ? " " : "",
	       command->verb != NULL ? command->verb : "", command->args, command->summary);
	if (command->options[0].name != NULL)
		printf("\nOptions:\n");
	for (size_t i = 0; i < CLI_OPTIONS_MAX && command->options[i].name != NULL; i++)
		help_option("--", command->options[i].name, command->options[i].value, command->options[i].help);
	help_globals();
}

static void help_line(const struct cli_command *k)
{
	char left[80];

	snprintf(left, sizeof(left), "%s%s%s %s", k->noun, k->verb != NULL ? " " : "", k->verb != NULL ? k->verb : "",
		 k->args);
	printf("  %-34s %s\n", left, k->summary);
}

void cli_help_all(void)
{
	printf("lifeboat NOUN VERB [NAME]: a bootable double of every server, a few seconds behind it.\n\n");
	for (unsigned int i = 0; i < cli_n_commands; i++)
		help_line(&cli_commands[i]);
	help_globals();
}

static int fail_nouns(const char *noun, const char *verb)
{
	char verbs[256] = "";

	for (unsigned int i = 0; i < cli_n_commands; i++)
		if (strcmp(cli_commands[i].noun, noun) == 0 && cli_commands[i].verb != NULL)
			snprintf(verbs + strlen(verbs), sizeof(verbs) - strlen(verbs), "%s%s",
				 verbs[0] != '\0' ? ", " : "", cli_commands[i].verb);
	if (verbs[0] == '\0')
		return lb_fail(-EINVAL, "there is no \"%.40s\"; `lifeboat --help` lists the commands", noun);
	if (verb == NULL)
		return lb_fail(-EINVAL, "what of %s? One of: %s", noun, verbs);
	return lb_fail(-EINVAL, "%s has no \"%.40s\", but: %s", noun, verb, verbs);
}

static int find_command(struct cli *c, int argc, char **argv, int *ret_used)
{
	const char *verb = argc > 2 && argv[2][0] != '-' ? argv[2] : NULL;

	for (unsigned int i = 0; i < cli_n_commands; i++) {
		const struct cli_command *k = &cli_commands[i];

		if (strcmp(k->noun, argv[1]) != 0)
			continue;
		if (k->verb != NULL && (verb == NULL || strcmp(k->verb, verb) != 0))
			continue;
		c->command = k;
		*ret_used = k->verb != NULL ? 3 : 2;
		return 0;
	}
	return fail_nouns(argv[1], verb);
}

/* Where an option of this name stores its value; NULL when the command knows no such option. */
static const char **option_slot(struct cli *c, const char *name, size_t length, bool *ret_takes_value, bool **ret_flag)
{
	const struct {
		const char *name;
		const char **value;
		bool *flag;
	} slots[] = {
		{"dry-run", NULL, &c->dry_run},   {"confirm", &c->confirm, NULL},
		{"server", &c->server_url, NULL}, {"identity", &c->identity_folder, NULL},
		{"vault", &c->vault_url, NULL},   {"passphrase-file", &c->passphrase_file, NULL},
	};

	*ret_flag = NULL;
	for (size_t i = 0; i < CLI_OPTIONS_MAX && c->command->options[i].name != NULL; i++)
		if (strlen(c->command->options[i].name) == length &&
		    memcmp(c->command->options[i].name, name, length) == 0) {
			*ret_takes_value = c->command->options[i].value != NULL;
			return &c->values[i];
		}
	for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++)
		if (strlen(slots[i].name) == length && memcmp(slots[i].name, name, length) == 0) {
			*ret_takes_value = slots[i].value != NULL;
			*ret_flag = slots[i].flag;
			return slots[i].value;
		}
	*ret_takes_value = false;
	return NULL;
}

static int take_long(struct cli *c, int argc, char **argv, int *i)
{
	const char *name = argv[*i] + 2, *equals = strchr(name, '=');
	size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
	bool takes_value, *flag;
	const char **slot = option_slot(c, name, length, &takes_value, &flag);

	if (slot == NULL && flag == NULL)
		return lb_fail(-EINVAL, "unknown option --%.*s; see `lifeboat %s%s%s --help`", (int)length, name,
			       c->command->noun, c->command->verb != NULL ? " " : "",
			       c->command->verb != NULL ? c->command->verb : "");
	if (!takes_value && equals != NULL)
		return lb_fail(-EINVAL, "option --%.*s takes no value", (int)length, name);
	if (flag != NULL)
		*flag = true;
	else if (!takes_value)
		*slot = "";
	else if (equals != NULL)
		*slot = equals + 1;
	else if (*i + 1 < argc)
		*slot = argv[++*i];
	else
		return lb_fail(-EINVAL, "option --%s needs a value", name);
	return 0;
}

static int take_output(struct cli *c, int argc, char **argv, int *i)
{
	const char *format = argv[*i][2] != '\0' ? argv[*i] + 2 : *i + 1 < argc ? argv[++*i] : "";

	if (strcmp(format, "json") != 0 && strcmp(format, "text") != 0)
		return lb_fail(-EINVAL, "-o takes json or text, not \"%.40s\"", format);
	c->json = format[0] == 'j';
	return 0;
}

static int take(struct cli *c, int argc, char **argv, int *i)
{
	if (strncmp(argv[*i], "-o", 2) == 0)
		return take_output(c, argc, argv, i);
	if (strncmp(argv[*i], "--", 2) == 0 && argv[*i][2] != '\0')
		return take_long(c, argc, argv, i);
	if (argv[*i][0] == '-' && argv[*i][1] != '\0')
		return lb_fail(-EINVAL, "unknown option %s", argv[*i]);
	if (c->n_args == c->command->n_args_max || c->n_args == CLI_ARGS_MAX)
		return lb_fail(-EINVAL, "\"%.60s\" is one argument too many; the form is: lifeboat %s%s%s %s", argv[*i],
			       c->command->noun, c->command->verb != NULL ? " " : "",
			       c->command->verb != NULL ? c->command->verb : "", c->command->args);
	c->args[c->n_args++] = argv[*i];
	return 0;
}

static bool is_help(const char *arg)
{
	return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0 || strcmp(arg, "help") == 0;
}

/* "MACHINE DISK FILE": what the n-th argument is called in the help. */
static void word_of(const char *text, unsigned int n, char word[WORD_BYTES])
{
	size_t length;

	text += strspn(text, " [");
	for (; n > 0; n--) {
		text += strcspn(text, " ");
		text += strspn(text, " [");
	}
	length = strcspn(text, " ]");
	snprintf(word, WORD_BYTES, "%.*s", (int)length, text);
}

/* Names become part of a path, here or on the server: what is no name goes no further. */
static int check_names(const struct cli *c)
{
	char word[WORD_BYTES];
	int r;

	for (unsigned int i = 0; i < c->n_args; i++) {
		word_of(c->command->args, i, word);
		if (strcmp(word, "FILE") == 0 || strcmp(word, "PATH") == 0)
			continue;
		for (char *p = word; *p != '\0'; p++)
			*p = (char)tolower((unsigned char)*p);
		r = lb_name_check(word, c->args[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* An error before -o is reached is to be told in the form that was asked for, too. */
static bool wants_json(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "-ojson") == 0 ||
		    (strcmp(argv[i], "-o") == 0 && i + 1 < argc && strcmp(argv[i + 1], "json") == 0))
			return true;
	return false;
}

/* `lifeboat machine --help`: its verbs. */
static bool help_noun(const char *noun)
{
	bool found = false;

	for (unsigned int i = 0; i < cli_n_commands; i++)
		if (strcmp(cli_commands[i].noun, noun) == 0 && cli_commands[i].verb != NULL) {
			help_line(&cli_commands[i]);
			found = true;
		}
	if (found)
		help_globals();
	return found;
}

int cli_parse(struct cli *c, int argc, char **argv)
{
	int used = 0, r;

	if (argc < 2 || is_help(argv[1])) {
		cli_help_all();
		return 1;
	}
	c->json = wants_json(argc, argv);
	if (argc == 3 && is_help(argv[2]) && help_noun(argv[1]))
		return 1;
	r = find_command(c, argc, argv, &used);
	if (r != 0)
		return r;
	for (int i = used; i < argc; i++) {
		if (is_help(argv[i]) && argv[i][0] == '-') {
			cli_help(c->command);
			return 1;
		}
		r = take(c, argc, argv, &i);
		if (r < 0)
			return r;
	}
	if (c->n_args < c->command->n_args_min)
		return lb_fail(-EINVAL, "something is missing; the form is: lifeboat %s%s%s %s", c->command->noun,
			       c->command->verb != NULL ? " " : "", c->command->verb != NULL ? c->command->verb : "",
			       c->command->args);
	return check_names(c);
}

const char *cli_value(const struct cli *c, const char *name)
{
	for (size_t i = 0; i < CLI_OPTIONS_MAX && c->command->options[i].name != NULL; i++)
		if (strcmp(c->command->options[i].name, name) == 0)
			return c->values[i];
	return NULL;
}

int cli_value_u64(const struct cli *c, const char *name, uint64_t max, uint64_t *ret_value)
{
	const char *text = cli_value(c, name);

	if (text == NULL)
		return 0;
	if (lb_u64_parse(text, max, ret_value) < 0)
		return lb_wrap(-EINVAL, "--%s", name);
	return 0;
}
