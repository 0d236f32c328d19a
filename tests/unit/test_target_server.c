/* SPDX-License-Identifier: Apache-2.0 */
/* The orders of a target server: whose turn it is, what is kept of them, what may be written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "target/service.h"

#define WAIT_S 60
#define FIRST "11111111-1111-4111-8111-111111111111"
#define SECOND "22222222-2222-4222-8222-222222222222"

struct place {
	char folder[64], hooks[96], go[96], ran[96];
	struct lb_target_settings settings;
	struct lb_target_service service;
};

static void ok(int r)
{
	if (r < 0)
		fail_msg("%d: %s", r, lb_err_text());
}

/* A script that waits until it is let go, and counts its runs. */
static void write_hook(struct place *p)
{
	char path[160];
	FILE *f;

	snprintf(path, sizeof(path), "%s/power-on", p->hooks);
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "#!/bin/sh\necho once >>%s\nwhile [ ! -e %s ]; do sleep 0.05; done\necho done\n", p->ran, p->go);
	fclose(f);
	assert_int_equal(chmod(path, 0700), 0);
}

static int place_make(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	snprintf(p->folder, sizeof(p->folder), "/tmp/lbtarget.XXXXXX");
	assert_non_null(mkdtemp(p->folder));
	snprintf(p->hooks, sizeof(p->hooks), "%s/hooks", p->folder);
	snprintf(p->go, sizeof(p->go), "%s/go", p->folder);
	snprintf(p->ran, sizeof(p->ran), "%s/ran", p->folder);
	assert_int_equal(mkdir(p->hooks, 0700), 0);
	write_hook(p);
	p->settings =
		(struct lb_target_settings){.state_folder = p->folder, .hook_folder = p->hooks, .machines_max = 1};
	ok(lb_target_service_init(lb_env_real(), &p->settings, &p->service));
	*state = p;
	return 0;
}

static int place_free(void **state)
{
	struct place *p = *state;
	char command[128];

	lb_target_service_end(&p->service);
	snprintf(command, sizeof(command), "rm -rf '%s'", p->folder);
	assert_int_equal(system(command), 0);
	free(p);
	return 0;
}

static json_t *boot(const char *id, const char *machine)
{
	char key[] = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="; /* 32 bytes */

	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:{s:s}}", "id", id, "machine", machine, "machine_name", "db", "kind",
			 "boot", "key", key, "body", "hook", "power-on");
}

static json_t *answer(json_t *first, json_t *second)
{
	json_t *orders = json_array();

	if (first != NULL)
		json_array_append_new(orders, first);
	if (second != NULL)
		json_array_append_new(orders, second);
	return json_pack("{s:s,s:s,s:o}", "vault_id", FIRST, "vault_url", "dir:/none", "orders", orders);
}

static void take(struct place *p, json_t *config)
{
	ok(lb_target_service_take(&p->service, config));
	json_decref(config);
}

/* What is reported of an order: a member, as the caller's own copy. */
static void told(struct place *p, const char *id, const char *member, char text[300])
{
	json_t *report, *one;
	size_t i;

	ok(lb_target_service_report(&p->service, &report));
	text[0] = '\0';
	json_array_foreach(json_object_get(report, "orders"), i, one)
	{
		if (strcmp(json_string_value(json_object_get(one, "id")), id) == 0)
			snprintf(text, 300, "%s", json_string_value(json_object_get(one, member)));
	}
	json_decref(report);
}

/* As the daemon does, it is told in every round what there is to do. */
static void wait_for(struct place *p, const char *id, const char *state)
{
	int64_t end_ns = lb_mono_ns(lb_env_real()) + WAIT_S * LB_NS_PER_S;
	char text[300];

	for (told(p, id, "state", text); strcmp(text, state) != 0; told(p, id, "state", text)) {
		if (lb_mono_ns(lb_env_real()) > end_ns)
			fail_msg("order %s is %s, not %s", id, text, state);
		usleep(20000);
		take(p, answer(NULL, boot(id, id)));
	}
}

static void let_go(struct place *p)
{
	int fd = open(p->go, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static void orders_beyond_the_limit_wait_their_turn_and_say_so(void **state)
{
	struct place *p = *state;
	char text[300];

	take(p, answer(boot(FIRST, FIRST), boot(SECOND, SECOND)));
	told(p, SECOND, "text", text);
	assert_non_null(strstr(text, "waits for its turn"));
	let_go(p);
	wait_for(p, FIRST, "done");
	wait_for(p, SECOND, "done");
	told(p, FIRST, "state", text);
	assert_string_equal(text, "");
}

static void what_became_of_an_order_outlives_a_restart_and_is_not_done_twice(void **state)
{
	struct place *p = *state;
	struct stat st;

	let_go(p);
	take(p, answer(boot(FIRST, FIRST), NULL));
	wait_for(p, FIRST, "done");
	lb_target_service_end(&p->service);
	ok(lb_target_service_init(lb_env_real(), &p->settings, &p->service));
	take(p, answer(boot(FIRST, FIRST), NULL));
	wait_for(p, FIRST, "done");
	assert_int_equal(stat(p->ran, &st), 0);
	assert_int_equal(st.st_size, strlen("once\n"));
}

static void an_order_that_is_listed_no_more_is_let_go_of(void **state)
{
	struct place *p = *state;
	char text[300];

	take(p, answer(boot(FIRST, FIRST), NULL));
	for (int64_t end_ns = lb_mono_ns(lb_env_real()) + WAIT_S * LB_NS_PER_S; p->service.n_tasks > 0; usleep(20000)) {
		take(p, answer(NULL, NULL));
		assert_true(lb_mono_ns(lb_env_real()) < end_ns);
	}
	told(p, FIRST, "state", text);
	assert_string_equal(text, "");
}

static void keys_are_wiped_from_the_answer_that_brought_them(void **state)
{
	struct place *p = *state;
	json_t *config = answer(boot(FIRST, FIRST), NULL);
	const char *key =
		json_string_value(json_object_get(json_array_get(json_object_get(config, "orders"), 0), "key"));

	let_go(p);
	ok(lb_target_service_take(&p->service, config));
	assert_null(strstr(key, "MDEy"));
	json_decref(config);
	wait_for(p, FIRST, "done");
}

static void only_paths_that_are_allowed_may_be_written(void **state)
{
	struct place *p = *state;
	char allow[] = "/dev/vg0/*, /srv/images/*.raw";

	assert_int_equal(lb_target_settings_allow(&p->settings, "/dev/sda"), 0);
	p->settings.allow = allow;
	assert_int_equal(lb_target_settings_allow(&p->settings, "/dev/vg0/db1"), 0);
	assert_int_equal(lb_target_settings_allow(&p->settings, "/srv/images/a.raw"), 0);
	assert_int_equal(lb_target_settings_allow(&p->settings, "/dev/sda"), -EPERM);
	assert_int_equal(lb_target_settings_allow(&p->settings, "/srv/images/deep/a.raw"), -EPERM);
	assert_int_equal(lb_target_settings_allow(&p->settings, "/srv/images/../../etc/a.raw"), -EPERM);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, place_make, place_free)
	const struct CMUnitTest tests[] = {
		T(orders_beyond_the_limit_wait_their_turn_and_say_so),
		T(what_became_of_an_order_outlives_a_restart_and_is_not_done_twice),
		T(an_order_that_is_listed_no_more_is_let_go_of),
		T(keys_are_wiped_from_the_answer_that_brought_them),
		T(only_paths_that_are_allowed_may_be_written),
	};

	return cmocka_run_group_tests_name("target_server", tests, NULL, NULL);
}
