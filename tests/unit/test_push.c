/* SPDX-License-Identifier: Apache-2.0 */
/* What a host's facts say of the agent's life there. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/json.h"
#include "process/fitness.h"

#define NOW_S 1800000000
#define GOOD                                                                                                           \
	"Welcome!\nlb:os=debian 12\nlb:machine=x86_64\nlb:kernel=6.1.0\nlb:btf=yes\nlb:dpkg=amd64\nlb:systemd=yes\n"   \
	"lb:memory_kib=900000\nlb:room_kib=900000\nlb:time_s=1800000010\nlb:installed=\n"

static json_t *judge(const char *output)
{
	json_t *fitness = NULL;

	assert_int_equal(lb_fitness_judge(output, "amd64", NOW_S, &fitness), 0);
	return fitness;
}

static const char *first_finding(const json_t *fitness)
{
	const char *text =
		json_string_value(json_object_get(json_array_get(json_object_get(fitness, "findings"), 0), "text"));

	return text != NULL ? text : "";
}

static void a_host_that_has_all_is_fit_whatever_its_login_prints(void **state)
{
	_cleanup_json_ json_t *fitness = judge(GOOD);

	(void)state;
	assert_true(json_is_true(json_object_get(fitness, "fit")));
	assert_string_equal(first_finding(fitness), "");
	assert_string_equal(json_string_value(json_object_get(json_object_get(fitness, "facts"), "os")), "debian 12");
}

/* The good facts with one said anew: the later line counts. */
static json_t *with(const char *line)
{
	char output[1024];

	snprintf(output, sizeof(output), GOOD "%s\n", line);
	return judge(output);
}

static void each_lack_is_found_and_only_those_that_block_make_it_unfit(void **state)
{
	static const struct {
		const char *line, *text;
		bool fit;
	} cases[] = {
		{"lb:btf=no", "BTF", false},
		{"lb:dpkg=no", "no dpkg", false},
		{"lb:dpkg=arm64", "packages are for arm64", false},
		{"lb:room_kib=1000", "/var", false},
		{"lb:room_kib=nonsense", "/var", false},
		{"lb:memory_kib=1000", "memory", true},
		{"lb:systemd=no", "systemd", true},
		{"lb:time_s=1800009999", "clock", true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_json_ json_t *fitness = with(cases[i].line);

		assert_non_null(strstr(first_finding(fitness), cases[i].text));
		assert_int_equal(json_is_true(json_object_get(fitness, "fit")), cases[i].fit);
	}
}

static void a_shell_that_answers_nothing_is_told_as_such_and_odd_bytes_are_made_printable(void **state)
{
	_cleanup_json_ json_t *odd = with("lb:os=\xff\xfe\x1b[2J");
	json_t *fitness = NULL;

	assert_string_equal(json_string_value(json_object_get(json_object_get(odd, "facts"), "os")), "???[2J");

	(void)state;
	assert_int_equal(lb_fitness_judge("", "amd64", NOW_S, &fitness), -EBADMSG);
	assert_int_equal(lb_fitness_judge("This account is not available.\n", "amd64", NOW_S, &fitness), -EBADMSG);
	assert_null(fitness);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_host_that_has_all_is_fit_whatever_its_login_prints),
		cmocka_unit_test(each_lack_is_found_and_only_those_that_block_make_it_unfit),
		cmocka_unit_test(a_shell_that_answers_nothing_is_told_as_such_and_odd_bytes_are_made_printable),
	};

	return cmocka_run_group_tests_name("push", tests, NULL, NULL);
}
