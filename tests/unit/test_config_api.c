/* SPDX-License-Identifier: Apache-2.0 */
#include "config_site.h"

/* --- who may, and what is described --- */

static void without_a_certificate_only_enrolment_is_reached(void **state)
{
	(void)state;
	for (size_t i = 0; i < lb_config_routes_n; i++)
		if (lb_config_routes[i].roles & LB_ROLE_BIT(LB_ROLE_NONE))
			assert_true(strcmp(lb_config_routes[i].pattern, "/v1/enrol") == 0 ||
				    strcmp(lb_config_routes[i].pattern, "/v1/enrol/double") == 0);
}

static void machines_and_process_servers_reach_their_own_paths_only(void **state)
{
	(void)state;
	for (size_t i = 0; i < lb_config_routes_n; i++) {
		const struct lb_http_route *route = &lb_config_routes[i];

		if (strcmp(route->pattern, "/v1/enrol") == 0)
			continue;
		assert_int_equal(!!(route->roles & LB_ROLE_BIT(LB_ROLE_MACHINE)),
				 strncmp(route->pattern, "/v1/agent/", 10) == 0);
		assert_int_equal(!!(route->roles & LB_ROLE_BIT(LB_ROLE_PROCESS)),
				 strncmp(route->pattern, "/v1/process/", 12) == 0);
	}
}

static void readers_change_nothing(void **state)
{
	(void)state;
	for (size_t i = 0; i < lb_config_routes_n; i++) {
		const struct lb_http_route *route = &lb_config_routes[i];

		if (strcmp(route->method, "GET") == 0 || strcmp(route->pattern, "/v1/enrol") == 0 ||
		    strcmp(route->pattern, "/v1/user/renew") == 0)
			continue;
		assert_false(route->roles & LB_ROLE_BIT(LB_ROLE_READER));
	}
}

static void only_administrators_give_access(void **state)
{
	static const char *const patterns[] = {"/v1/token", "/v1/certificate", "/v1/certificate/{}/revoke",
					       "/v1/audit"};
	size_t found = 0;

	(void)state;
	for (size_t i = 0; i < lb_config_routes_n; i++)
		for (size_t k = 0; k < LB_ARRAY_LEN(patterns); k++)
			if (strcmp(lb_config_routes[i].pattern, patterns[k]) == 0) {
				assert_int_equal(lb_config_routes[i].roles, LB_ROLE_BIT(LB_ROLE_ADMIN));
				found++;
			}
	assert_int_equal(found, LB_ARRAY_LEN(patterns));
}

/* "/v1/machine/{machine}" as the route table writes it: "/v1/machine/{}" */
static void plain_path(const char *line, char path[200])
{
	size_t n = 0;

	for (line += 2; *line != ':' && *line != '\0' && n < 199; line++) {
		path[n++] = *line;
		if (*line == '{')
			line += strcspn(line, "}") - 1;
	}
	path[n] = '\0';
}

static size_t look_up(const char *method, const char *path)
{
	size_t n = 0;

	for (size_t i = 0; i < lb_config_routes_n; i++)
		n += strcasecmp(lb_config_routes[i].method, method) == 0 &&
		     strcmp(lb_config_routes[i].pattern, path) == 0;
	return n;
}

/* "      x-roles: [reader, operator]" says the same as the table. */
static void check_roles(const char *line, const char *method, const char *path)
{
	uint32_t roles = 0;

	for (int role = LB_ROLE_NONE; role <= LB_ROLE_ADMIN; role++) {
		const char *at = strstr(line, lb_role_name((enum lb_role)role));

		if (at != NULL)
			roles |= LB_ROLE_BIT(role);
	}
	for (size_t i = 0; i < lb_config_routes_n; i++)
		if (strcasecmp(lb_config_routes[i].method, method) == 0 &&
		    strcmp(lb_config_routes[i].pattern, path) == 0)
			assert_int_equal(lb_config_routes[i].roles, roles);
}

static void the_description_has_every_path_and_role_and_no_other(void **state)
{
	static const char *const methods[] = {"get", "put", "post", "delete"};
	char path[200] = "", method[16] = "";
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes, operations = 0, roles = 0;
	char *rest, *line;

	(void)state;
	assert_int_equal(lb_file_read(env, LB_OPENAPI, 1u << 20, &text, &size_bytes), 0);
	rest = (char *)text;
	while ((line = strsep(&rest, "\n")) != NULL && strcmp(line, "components:") != 0) {
		if (strncmp(line, "  /", 3) == 0)
			plain_path(line, path);
		for (size_t i = 0; i < LB_ARRAY_LEN(methods); i++)
			if (strncmp(line, "    ", 4) == 0 && strncmp(line + 4, methods[i], strlen(methods[i])) == 0 &&
			    line[4 + strlen(methods[i])] == ':') {
				snprintf(method, sizeof(method), "%s", methods[i]);
				assert_int_equal(look_up(method, path), 1);
				operations++;
			}
		if (strncmp(line, "      x-roles:", 14) == 0) {
			check_roles(line, method, path);
			roles++;
		}
	}
	assert_int_equal(operations, lb_config_routes_n);
	assert_int_equal(roles, operations);
}

/* --- settings, secrets, database --- */

static void a_passphrase_file_that_others_may_read_is_refused(void **state)
{
	_cleanup_(lb_secret_free) char *passphrase = NULL;
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(chmod(in("passphrase"), 0644), 0);
	assert_int_equal(lb_passphrase_load(env, in("passphrase"), path, &passphrase), -EPERM);
	assert_int_equal(chmod(in("passphrase"), 0600), 0);
	assert_int_equal(lb_passphrase_load(env, in("passphrase"), path, &passphrase), 0);
	assert_string_equal(passphrase, PASSPHRASE);
}

static void a_passphrase_comes_from_the_service_managers_credentials(void **state)
{
	_cleanup_(lb_secret_free) char *passphrase = NULL;
	char path[PATH_MAX];

	(void)state;
	unsetenv("CREDENTIALS_DIRECTORY");
	assert_int_equal(lb_passphrase_load(env, NULL, path, &passphrase), -ENOKEY);
	write_text("vault-passphrase", "from the credentials", 0400);
	setenv("CREDENTIALS_DIRECTORY", folder, 1);
	assert_int_equal(lb_passphrase_load(env, NULL, path, &passphrase), 0);
	assert_string_equal(passphrase, "from the credentials");
	lb_secret_free(&passphrase);
	/* also when settings name a file, which the service's user may not be able to read */
	assert_int_equal(lb_passphrase_load(env, "/root/none-such", path, &passphrase), 0);
	assert_string_equal(path, in("vault-passphrase"));
	setenv("CREDENTIALS_DIRECTORY", "/none-such", 1);
	lb_secret_free(&passphrase);
	assert_int_equal(lb_passphrase_load(env, in("passphrase"), path, &passphrase), 0);
	unsetenv("CREDENTIALS_DIRECTORY");
	assert_string_equal(passphrase, PASSPHRASE);
}

static void a_wrong_passphrase_opens_no_site(void **state)
{
	struct lb_settings settings = {0};
	struct lb_site *other = NULL;

	(void)state;
	write_text("passphrase", "another passphrase", 0600);
	assert_int_equal(lb_settings_read(env, in("config.conf"), &settings), 0);
	assert_int_equal(lb_site_open(env, &settings, &other), -EKEYREJECTED);
	lb_settings_free(&settings);
}

static void settings_that_make_no_sense_are_refused(void **state)
{
	static const char *const bad[] = {
		"state_folder = /x\n",
		"vault = dir:/v\nfabric = cloud\n",
		"vault = dir:/v\nport = 70000\n",
		"vault = dir:/v\nprot = 1\n",
		"vault = dir:/v\nstate_folder = relative\n",
		"vault = dir:/v\npublic_host = a b;c\n",
	};

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++) {
		struct lb_settings settings = {0};

		write_text("bad.conf", bad[i], 0600);
		assert_true(lb_settings_read(env, in("bad.conf"), &settings) < 0);
		lb_settings_free(&settings);
	}
}

static void a_newer_database_is_left_alone(void **state)
{
	struct lb_db *db = NULL;

	(void)state;
	assert_int_equal(lb_db_run(site->db, "INSERT INTO migration (version, done_ns) VALUES (?, 0)", "i",
				   (int64_t)LB_DB_SCHEMA_VERSION + 1),
			 0);
	assert_int_equal(lb_db_open(in("state/config.db"), &db), -EPROTONOSUPPORT);
}

static void a_transaction_that_is_not_committed_leaves_nothing(void **state)
{
	int64_t n;

	(void)state;
	{
		_cleanup_(lb_db_endp) struct lb_db_txn outer = {0};
		_cleanup_(lb_db_endp) struct lb_db_txn inner = {0};

		assert_int_equal(lb_db_begin(site->db, &outer), 0);
		assert_int_equal(lb_db_begin(site->db, &inner), 0);
		assert_int_equal(lb_db_run(site->db, "INSERT INTO meta (key, value) VALUES ('a', 'b')", ""), 0);
		assert_int_equal(lb_db_commit(&inner), 0);
	}
	assert_int_equal(lb_db_get_int(site->db, &n, "SELECT count(*) FROM meta", ""), 0);
	assert_int_equal(n, 0);
}

static void orders_leave_a_trace(void **state)
{
	_cleanup_json_ json_t *audits = NULL;
	struct lb_http_call c = {.peer = {.role = LB_ROLE_ADMIN, .name = "ann", .address = "192.0.2.7"},
				 .method = "DELETE",
				 .path = "/v1/machine/web1"};
	const json_t *first;

	(void)state;
	lb_fail(-ENOENT, "there is no machine web1");
	lb_audit(site, &c, -ENOENT);
	assert_string_equal(lb_err_text(), "there is no machine web1");
	assert_int_equal(call(lb_api_audit_list, "ann", LB_ROLE_ADMIN, NULL, NULL, &audits), 0);
	first = json_array_get(json_object_get(audits, "audits"), 0);
	assert_string_equal(json_string_value(json_object_get(first, "who")), "ann");
	assert_string_equal(json_string_value(json_object_get(first, "result")), "there is no machine web1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(without_a_certificate_only_enrolment_is_reached),
		T(machines_and_process_servers_reach_their_own_paths_only),
		T(readers_change_nothing),
		T(only_administrators_give_access),
		T(the_description_has_every_path_and_role_and_no_other),
		T(a_passphrase_file_that_others_may_read_is_refused),
		T(a_passphrase_comes_from_the_service_managers_credentials),
		T(a_wrong_passphrase_opens_no_site),
		T(settings_that_make_no_sense_are_refused),
		T(a_newer_database_is_left_alone),
		T(a_transaction_that_is_not_committed_leaves_nothing),
		T(orders_leave_a_trace),
	};

	return cmocka_run_group_tests_name("config_api", tests, NULL, NULL);
}
