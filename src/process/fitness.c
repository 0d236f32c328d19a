/* SPDX-License-Identifier: Apache-2.0 */
#include "process/fitness.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/text.h"

#define FACTS_MAX 32
#define VALUE_BYTES_MAX 200
#define ROOM_KIB_MIN (64u << 10)
#define MEMORY_KIB_MIN (192u << 10) /* the agent and its smallest rings */
#define CLOCK_SKEW_S_MAX 300

/* Facts are lines "lb:name=value"; whatever else a login prints is passed over. */
const char lb_fitness_script[] =
	"say() { printf 'lb:%s=%s\\n' \"$1\" \"$2\"; }\n"
	"ID=unknown; VERSION_ID=; [ ! -r /etc/os-release ] || . /etc/os-release\n"
	"say os \"$ID $VERSION_ID\"\n"
	"say machine \"$(uname -m)\"\n"
	"say kernel \"$(uname -r)\"\n"
	"if [ -r /sys/kernel/btf/vmlinux ]; then say btf yes; else say btf no; fi\n"
	"if command -v dpkg >/dev/null; then say dpkg \"$(dpkg --print-architecture)\"; else say dpkg no; fi\n"
	"if [ -d /run/systemd/system ]; then say systemd yes; else say systemd no; fi\n"
	"say memory_kib \"$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)\"\n"
	"say room_kib \"$(df -Pk /var | awk 'END {print $4}')\"\n"
	"say time_s \"$(date +%s)\"\n"
	"say installed \"$(dpkg-query -W -f '${Version}' lifeboat-mobility 2>/dev/null)\"\n";

/* What a host prints is shown to people and put into JSON. */
static void printable(char *text)
{
	for (; *text != '\0'; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

static int take_facts(const char *output, json_t *facts)
{
	for (const char *line = output; *line != '\0';) {
		size_t length = strcspn(line, "\n");
		const char *equals = memchr(line, '=', length);
		char name[32], value[VALUE_BYTES_MAX];

		if (strncmp(line, "lb:", 3) == 0 && equals != NULL && (size_t)(equals - line) < sizeof(name) + 3 &&
		    json_object_size(facts) < FACTS_MAX) {
			snprintf(name, sizeof(name), "%.*s", (int)(equals - line - 3), line + 3);
			snprintf(value, sizeof(value), "%.*s", (int)(line + length - equals - 1), equals + 1);
			printable(name);
			printable(value);
			if (json_object_set_new(facts, name, json_string(value)) < 0)
				return lb_fail(-ENOMEM, "out of memory for a fitness report");
		}
		line += length + (line[length] != '\0');
	}
	return 0;
}

static const char *fact(const json_t *facts, const char *name)
{
	const char *text = json_string_value(json_object_get(facts, name));

	return text != NULL ? text : "";
}

static void find(json_t *findings, bool blocks, const char *cure, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static void find(json_t *findings, bool blocks, const char *cure, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_array_append_new(findings, json_pack("{s:s,s:s,s:b}", "text", text, "cure", cure, "blocks", blocks));
}

static void judge_system(const json_t *facts, const char *architecture, json_t *findings)
{
	if (strcmp(fact(facts, "dpkg"), "no") == 0)
		find(findings, true, "install the agent's programs by hand, see docs/operations.md",
		     "it has no dpkg (%s): the agent comes as a Debian package", fact(facts, "os"));
	else if (strcmp(fact(facts, "dpkg"), architecture) != 0)
		find(findings, true, "put the agent's package for its architecture on the process server",
		     "its packages are for %s, ours is for %s", fact(facts, "dpkg"), architecture);
	if (strcmp(fact(facts, "btf"), "yes") != 0)
		find(findings, true, "use a kernel with CONFIG_DEBUG_INFO_BTF, as distributions ship them",
		     "its kernel %s has no BTF, which capture needs", fact(facts, "kernel"));
	if (strcmp(fact(facts, "systemd"), "yes") != 0)
		find(findings, false, "start lifeboat-capture and lifeboat-mobility by what it has instead",
		     "systemd does not run there: the agent is installed and enrolled, but not started");
}

static void judge_room(const json_t *facts, int64_t now_s, json_t *findings)
{
	uint64_t room_kib = 0, memory_kib = 0, time_s = 0;

	if (lb_u64_parse(fact(facts, "room_kib"), UINT64_MAX, &room_kib) < 0 || room_kib < ROOM_KIB_MIN)
		find(findings, true, "make room in /var", "%" PRIu64 " MiB are free in /var, the agent needs %u",
		     room_kib >> 10, ROOM_KIB_MIN >> 10);
	if (lb_u64_parse(fact(facts, "memory_kib"), UINT64_MAX, &memory_kib) < 0 || memory_kib < MEMORY_KIB_MIN)
		find(findings, false, "give the machine more memory, or its policy a smaller ring",
		     "%" PRIu64 " MiB of memory are free: the ring will be small", memory_kib >> 10);
	if (lb_u64_parse(fact(facts, "time_s"), INT64_MAX, &time_s) < 0 ||
	    llabs((long long)time_s - (long long)now_s) > CLOCK_SKEW_S_MAX)
		find(findings, false, "set its clock (NTP): certificates depend on it",
		     "its clock differs from ours by %lld s", (long long)time_s - (long long)now_s);
}

int lb_fitness_judge(const char *output, const char *architecture, int64_t now_s, json_t **ret_fitness)
{
	_cleanup_json_ json_t *facts = json_object(), *findings = json_array();
	const json_t *one;
	bool fit = true;
	size_t i;
	int r;

	if (facts == NULL || findings == NULL)
		return lb_fail(-ENOMEM, "out of memory for a fitness report");
	r = take_facts(output, facts);
	if (r < 0)
		return r;
	if (json_object_get(facts, "kernel") == NULL)
		return lb_fail(-EBADMSG, "the host's shell did not tell what it was asked: is it a POSIX shell?");
	judge_system(facts, architecture, findings);
	judge_room(facts, now_s, findings);
	json_array_foreach(findings, i, one) fit = fit && !json_is_true(json_object_get(one, "blocks"));
	*ret_fitness = json_pack("{s:O,s:O,s:b}", "facts", facts, "findings", findings, "fit", fit);
	return *ret_fitness != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a fitness report");
}
