/* SPDX-License-Identifier: Apache-2.0 */
/* What the mender says, and what an order for mending becomes. */
#include "fabric/mender.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/json.h"
#include "fabric/double_settings.h"
#include "fabric/failover.h"

static int outcome(const char *output, struct lb_mender_result *result)
{
	return lb_mender_outcome(output, strlen(output), result);
}

static void what_was_mended_is_told_in_its_order(void **s)
{
	struct lb_mender_result result = {0};

	(void)s;
	assert_int_equal(outcome("noise\r\nsay one\r\nsay two\nend ok\n", &result), 0);
	assert_string_equal(result.done, "one; two");
	assert_int_equal(outcome("say one\nend nothing\n", &result), 0);
	assert_string_equal(result.done, "nothing to mend: one");
	assert_string_equal(result.left, "");
}

static void what_could_not_be_mended_beside_the_rest_is_told_apart(void **s)
{
	struct lb_mender_result result = {0};

	(void)s;
	assert_int_equal(outcome("left two\nsay one\nleft three\nend ok\n", &result), 0);
	assert_string_equal(result.done, "one");
	assert_string_equal(result.left, "two; three");
}

static void a_mender_that_fails_or_ends_early_is_an_error_with_its_words(void **s)
{
	struct lb_mender_result result = {.done = "untouched", .left = "as well"};

	(void)s;
	assert_int_equal(outcome("say one\nwarn no room\nwarn nor time\nend failed\n", &result), -EOPNOTSUPP);
	assert_string_equal(lb_err_text(), "no room; nor time");
	assert_int_equal(outcome("end failed\n", &result), -EOPNOTSUPP);
	assert_int_equal(outcome("say one\n", &result), -EIO);
	assert_int_equal(outcome("say one\nend ok", &result), -EIO);
	assert_int_equal(outcome("end okay then\n", &result), -EIO);
	assert_int_equal(outcome("", &result), -EIO);
	assert_string_equal(result.done, "untouched");
	assert_string_equal(result.left, "as well");
}

/* It has looked at a stranger's disks. */
static void what_it_says_is_bounded_and_printable(void **s)
{
	static char output[256 << 10];
	struct lb_mender_result result;
	size_t n = 0;

	(void)s;
	for (int i = 0; i < 300; i++) {
		memcpy(output + n, "say ", 4);
		memset(output + n + 4, i % 2 == 0 ? '\033' : 'x', 700);
		output[n + 704] = '\n';
		n += 705;
	}
	memcpy(output + n, "end ok\n", 7);
	assert_int_equal(lb_mender_outcome(output, n + 7, &result), 0);
	assert_true(strlen(result.done) < LB_MENDER_TEXT_BYTES);
	assert_null(strchr(result.done, '\033'));
}

static void an_order_takes_the_machines_setting_unless_it_says_otherwise(void **s)
{
	_cleanup_json_ json_t *target = json_loads("{\"mend\":true}", 0, NULL);
	const struct lb_double_source source = {.target = target, .sata = true};
	const struct {
		const char *order;
		bool mend, required;
		const char *bus, *bus_unmended;
	} cases[] = {
		{"{\"machine\":\"m\",\"kind\":\"live\"}", true, false, NULL, "sata"},
		{"{\"machine\":\"m\",\"kind\":\"live\",\"mend\":false}", false, false, "sata", NULL},
		{"{\"machine\":\"m\",\"kind\":\"test\",\"mend_required\":true}", false, true, NULL, "sata"},
		{"{\"machine\":\"m\",\"kind\":\"test\",\"bus\":\"scsi\"}", true, false, "scsi", NULL},
	};

	(void)s;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_cleanup_json_ json_t *body = json_loads(cases[i].order, 0, NULL);
		struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX];
		struct lb_failover_request q = {0};

		assert_int_equal(lb_double_fill(body, &source), 0);
		assert_int_equal(lb_failover_request_parse(body, &q, forwards), 0);
		assert_int_equal(q.mend, cases[i].mend);
		assert_int_equal(q.mend_required, cases[i].required);
		assert_true((q.bus == NULL) == (cases[i].bus == NULL));
		assert_true((q.bus_unmended == NULL) == (cases[i].bus_unmended == NULL));
	}
}

static void an_order_that_contradicts_itself_is_refused(void **s)
{
	static const char *const orders[] = {
		"{\"machine\":\"m\",\"kind\":\"live\",\"mend\":\"yes\"}",
		"{\"machine\":\"m\",\"kind\":\"live\",\"mend_required\":1}",
		"{\"machine\":\"m\",\"kind\":\"live\",\"mend\":false,\"mend_required\":true}",
	};

	(void)s;
	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		_cleanup_json_ json_t *body = json_loads(orders[i], 0, NULL);
		struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX];
		struct lb_failover_request q = {0};

		assert_true(lb_failover_request_parse(body, &q, forwards) < 0);
		assert_non_null(strstr(lb_err_text(), "mend"));
	}
}

static void a_host_without_a_mender_says_what_makes_it(void **s)
{
	(void)s;
	setenv("LIFEBOAT_MENDER", "/nonexistent/mender", 1);
	assert_int_equal(lb_mender_check(), -ENOENT);
	assert_non_null(strstr(lb_err_text(), "lifeboat rescue mender"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_mended_is_told_in_its_order),
		cmocka_unit_test(what_could_not_be_mended_beside_the_rest_is_told_apart),
		cmocka_unit_test(a_mender_that_fails_or_ends_early_is_an_error_with_its_words),
		cmocka_unit_test(what_it_says_is_bounded_and_printable),
		cmocka_unit_test(an_order_takes_the_machines_setting_unless_it_says_otherwise),
		cmocka_unit_test(an_order_that_contradicts_itself_is_refused),
		cmocka_unit_test(a_host_without_a_mender_says_what_makes_it),
	};

	return cmocka_run_group_tests_name("mender", tests, NULL, NULL);
}
