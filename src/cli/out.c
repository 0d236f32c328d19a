/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/text.h"

#define BAR_CELLS 24
#define WOULD_TEXT_BYTES 1024

int cli_print_json(const char *kind, json_t *data)
{
	_cleanup_json_ json_t *j = json_pack("{s:s,s:s,s:o}", "api", "lifeboat/v1", "kind", kind, "data", data);
	_cleanup_free_ char *text = NULL;
	int r;

	if (j == NULL)
		return lb_fail(-ENOMEM, "out of memory for JSON");
	r = lb_json_dump(j, &text);
	if (r < 0)
		return r;
	printf("%s\n", text);
	return 0;
}

int cli_did(const struct cli *c, const char *kind, json_t *data, const char *fmt, ...)
{
	va_list ap;

	if (c->json)
		return cli_print_json(kind, data);
	json_decref(data);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	return 0;
}

int cli_would(const struct cli *c, const char *fmt, ...)
{
	char text[WOULD_TEXT_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return cli_did(c, "dry-run", json_pack("{s:s}", "would", text), "would %s", text);
}

const char *cli_text(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text != NULL ? text : "";
}

json_int_t cli_number(const json_t *object, const char *member)
{
	return json_integer_value(json_object_get(object, member));
}

const char *cli_age(int64_t age_ns, char text[CLI_AGE_BYTES])
{
	int64_t s = age_ns / LB_NS_PER_S;

	if (s < 0)
		s = 0;
	if (s < 120)
		snprintf(text, CLI_AGE_BYTES, "%" PRId64 " s", s);
	else if (s < 7200)
		snprintf(text, CLI_AGE_BYTES, "%" PRId64 " min", s / 60);
	else if (s < 2 * 86400)
		snprintf(text, CLI_AGE_BYTES, "%" PRId64 " h %" PRId64 " min", s / 3600, s / 60 % 60);
	else
		snprintf(text, CLI_AGE_BYTES, "%" PRId64 " d", s / 86400);
	return text;
}

void cli_progress(const struct cli *c, const char *what, uint64_t done, uint64_t total, bool bytes)
{
	char bar[BAR_CELLS + 1], a[LB_SIZE_TEXT_BYTES], b[LB_SIZE_TEXT_BYTES];
	size_t cells = total > 0 ? (size_t)((double)done / (double)total * BAR_CELLS) : 0;

	if (c->json || !isatty(STDERR_FILENO))
		return;
	if (cells > BAR_CELLS)
		cells = BAR_CELLS;
	memset(bar, '.', BAR_CELLS);
	memset(bar, '#', cells);
	bar[BAR_CELLS] = '\0';
	if (total == 0)
		fprintf(stderr, "\r%s %s\033[K", what, bytes && done > 0 ? lb_size_format(done, a) : "");
	else if (bytes)
		fprintf(stderr, "\r%s [%s] %s of %s\033[K", what, bar, lb_size_format(done, a),
			lb_size_format(total, b));
	else
		fprintf(stderr, "\r%s [%s] %" PRIu64 " of %" PRIu64 "\033[K", what, bar, done, total);
}

void cli_progress_end(const struct cli *c)
{
	if (!c->json && isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
}

int cli_confirm(const struct cli *c, const char *act, const char *name)
{
	char line[256];
	size_t length;

	if (c->dry_run)
		return 0;
	if (c->confirm != NULL) {
		if (strcmp(c->confirm, name) != 0)
			return lb_fail(-ECANCELED, "--confirm says \"%.60s\", but this would %s %s: nothing was done",
				       c->confirm, act, name);
		return 0;
	}
	if (!isatty(STDIN_FILENO))
		return lb_fail(-ECANCELED, "this would %s %s: add --confirm %s", act, name, name);
	fprintf(stderr, "This will %s %s. Type its name to go on: ", act, name);
	if (fgets(line, sizeof(line), stdin) == NULL)
		line[0] = '\0';
	length = strcspn(line, "\n");
	line[length] = '\0';
	if (strcmp(line, name) != 0)
		return lb_fail(-ECANCELED, "that is not \"%s\": nothing was done", name);
	return 0;
}

static int ask_hidden(const char *prompt, char *line, size_t size_bytes)
{
	struct termios shown, hidden;
	char *got;

	if (tcgetattr(STDIN_FILENO, &shown) < 0)
		return lb_fail(-EINVAL, "no passphrase: there is no terminal to ask on; give --passphrase-file FILE");
	hidden = shown;
	hidden.c_lflag &= (tcflag_t)~ECHO;
	/* hidden before it is asked for: who types at once must neither be shown nor lose what was typed */
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
	fprintf(stderr, "%s: ", prompt);
	got = fgets(line, (int)size_bytes, stdin);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
	fprintf(stderr, "\n");
	if (got == NULL)
		return lb_fail(-ECANCELED, "no passphrase was given");
	line[strcspn(line, "\n")] = '\0';
	return 0;
}

static int passphrase_of_file(const struct cli *c, char **ret_passphrase)
{
	uint8_t *data;
	size_t size_bytes;
	int r;

	r = lb_file_read(c->env, c->passphrase_file, LB_PASSPHRASE_BYTES_MAX, &data, &size_bytes);
	if (r < 0)
		return lb_wrap(r, "passphrase");
	data[strcspn((char *)data, "\r\n")] = '\0';
	*ret_passphrase = (char *)data;
	return 0;
}

void cli_passphrase_wipe(char **passphrase)
{
	if (*passphrase != NULL)
		lb_wipe(*passphrase, strlen(*passphrase));
	free(*passphrase);
}

int cli_passphrase(const struct cli *c, bool twice, char **ret_passphrase)
{
	char first[LB_PASSPHRASE_BYTES_MAX + 2] = "", second[LB_PASSPHRASE_BYTES_MAX + 2] = "";
	int r;

	if (c->passphrase_file != NULL)
		return passphrase_of_file(c, ret_passphrase);
	r = ask_hidden("Vault passphrase", first, sizeof(first));
	if (r == 0 && twice)
		r = ask_hidden("The same again", second, sizeof(second));
	if (r == 0 && twice && strcmp(first, second) != 0)
		r = lb_fail(-EINVAL, "the two passphrases differ: nothing was done");
	if (r == 0) {
		*ret_passphrase = strdup(first);
		if (*ret_passphrase == NULL)
			r = lb_fail(-ENOMEM, "out of memory");
	}
	lb_wipe(first, sizeof(first));
	lb_wipe(second, sizeof(second));
	return r;
}
