/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/conf.h"
#include "base/crypto.h"
#include "base/env.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/text.h"

static char folder[] = "/tmp/lb-test-base.XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder + sizeof(folder) - 7, "XXXXXX");
	return mkdtemp(folder) == NULL;
}

static int remove_one(void *arg, const char *name, bool is_dir)
{
	char path[512];

	(void)arg;
	(void)is_dir;
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return unlink(path);
}

static int remove_folder(void **state)
{
	struct lb_env *env = lb_env_real();

	(void)state;
	return env->ops->list(env, folder, remove_one, NULL) | rmdir(folder);
}

static void a_buffer_refuses_to_grow_past_its_ceiling(void **state)
{
	_cleanup_buf_ struct lb_buf b = LB_BUF(8);

	(void)state;
	assert_int_equal(lb_buf_append(&b, "12345678", 8), 0);
	assert_int_equal(lb_buf_append(&b, "9", 1), -EMSGSIZE);
	assert_string_equal((char *)b.data, "12345678");
}

static void wrapping_an_error_keeps_its_cause(void **state)
{
	(void)state;
	lb_fail(-EIO, "disk sda is gone");
	assert_int_equal(lb_wrap(-EIO, "machine web1"), -EIO);
	assert_string_equal(lb_err_text(), "machine web1: disk sda is gone");
}

static void a_new_file_never_replaces_one_that_is_there(void **state)
{
	struct lb_env *env = lb_env_real();
	_cleanup_free_ uint8_t *data = NULL;
	size_t size_bytes;
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/object", folder);
	assert_int_equal(lb_file_write_new(env, path, "one", 3, 0600), 0);
	assert_int_equal(lb_file_write_new(env, path, "two", 3, 0600), -EEXIST);
	assert_int_equal(lb_file_read(env, path, 16, &data, &size_bytes), 0);
	assert_string_equal((char *)data, "one");
}

static void only_the_last_folder_is_private_those_above_can_be_passed(void **state)
{
	char path[128], above[128];
	struct stat st;
	mode_t mask = umask(022);

	(void)state;
	snprintf(above, sizeof(above), "%s/above", folder);
	snprintf(path, sizeof(path), "%s/above/private/", folder);
	assert_int_equal(lb_folder_make(lb_env_real(), path, 0700), 0);
	umask(mask);
	assert_int_equal(stat(above, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0755);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(above), 0);
}

static void a_file_above_the_limit_is_not_read(void **state)
{
	struct lb_env *env = lb_env_real();
	uint8_t *data = NULL;
	size_t size_bytes;
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/large", folder);
	assert_int_equal(lb_file_write(env, path, "12345", 5, 0600), 0);
	assert_int_equal(lb_file_read(env, path, 4, &data, &size_bytes), -EFBIG);
	assert_null(data);
}

static void sealed_bytes_open_only_unaltered_and_with_their_context(void **state)
{
	struct lb_key key = {{7}};
	uint8_t nonce[LB_NONCE_BYTES] = {1}, sealed[5 + LB_TAG_BYTES], opened[5];
	struct lb_gcm *gcm;

	(void)state;
	assert_int_equal(lb_gcm_new(&key, &gcm), 0);
	assert_int_equal(lb_gcm_seal(gcm, nonce, "ctx", 3, "hello", 5, sealed), 0);
	assert_int_equal(lb_gcm_open(gcm, nonce, "ctx", 3, sealed, 5, opened), 0);
	assert_memory_equal(opened, "hello", 5);
	assert_int_equal(lb_gcm_open(gcm, nonce, "ctX", 3, sealed, 5, opened), -EBADMSG);
	sealed[0] ^= 1;
	assert_int_equal(lb_gcm_open(gcm, nonce, "ctx", 3, sealed, 5, opened), -EBADMSG);
	lb_gcm_free(gcm);
}

static void scrypt_and_hkdf_match_their_published_vectors(void **state)
{
	/* RFC 7914, section 12, the first 32 bytes of its second vector */
	static const char scrypt_hex[] = "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162";
	struct lb_key key;
	char hex[65];

	(void)state;
	assert_int_equal(lb_scrypt("password", (const uint8_t *)"NaCl", 4, 1024, 8, 16, &key), 0);
	lb_hex_encode(key.bytes, sizeof(key.bytes), hex);
	assert_string_equal(hex, scrypt_hex);
}

static void uuids_sizes_and_times_survive_their_text(void **state)
{
	struct lb_uuid uuid, again;
	char text[LB_UUID_TEXT_BYTES], when[LB_TIME_TEXT_BYTES];
	uint64_t size_bytes;
	int64_t t;

	(void)state;
	for (int i = 0; i < 16; i++)
		uuid.bytes[i] = (uint8_t)(i * 17);
	lb_uuid_format(&uuid, text);
	assert_int_equal(lb_uuid_parse(text, &again), 0);
	assert_true(lb_uuid_equal(&uuid, &again));
	assert_int_equal(lb_uuid_parse("0011-", &again), -EINVAL);
	assert_int_equal(lb_size_parse("8M", &size_bytes), 0);
	assert_int_equal(size_bytes, 8 << 20);
	assert_int_equal(lb_size_parse("8Q", &size_bytes), -EINVAL);
	assert_int_equal(lb_time_parse("2026-01-31T08:15:02.250Z", &t), 0);
	assert_string_equal(lb_time_format(t, when), "2026-01-31T08:15:02.250Z");
}

static void base64_is_strict_and_bounded(void **state)
{
	_cleanup_free_ char *text = lb_base64_encode("lifeboat", 8);
	_cleanup_free_ uint8_t *data = NULL;
	size_t size_bytes;

	(void)state;
	assert_int_equal(lb_base64_decode(text, 8, &data, &size_bytes), 0);
	assert_int_equal(size_bytes, 8);
	assert_memory_equal(data, "lifeboat", 8);
	assert_int_equal(lb_base64_decode(text, 7, &data, &size_bytes), -EMSGSIZE);
	assert_int_equal(lb_base64_decode("a", 7, &data, &size_bytes), -EINVAL);
}

static void a_misspelt_setting_is_an_error_that_names_its_line(void **state)
{
	struct lb_env *env = lb_env_real();
	uint64_t port = 9443;
	const struct lb_conf_key keys[] = {
		{.name = "port", .type = LB_CONF_U64, .value = &port, .min = 1, .max = 65535}};
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/conf", folder);
	assert_int_equal(lb_file_write(env, path, "# c\nport = 77\n", 14, 0600), 0);
	assert_int_equal(lb_conf_read(env, path, keys, 1), 0);
	assert_int_equal(port, 77);
	assert_int_equal(lb_file_write(env, path, "# c\nprot = 78\n", 14, 0600), 0);
	assert_int_equal(lb_conf_read(env, path, keys, 1), -EINVAL);
	assert_non_null(strstr(lb_err_text(), "line 2"));
	assert_int_equal(port, 77);
}

static void json_with_a_member_twice_is_refused(void **state)
{
	static const char text[] = "{\"a\":1,\"a\":2}";
	json_t *object = NULL;

	(void)state;
	assert_int_equal(lb_json_parse(text, sizeof(text) - 1, 64, &object), -EBADMSG);
	assert_null(object);
}

static void json_that_does_not_fit_is_refused_by_name_and_leaves_what_was_there(void **state)
{
	static const char text[] = "{\"name\":\"abcd\",\"n\":7}";
	_cleanup_json_ json_t *object = NULL;
	char five[5] = "", four[4] = "old";
	uint32_t n = 1;

	(void)state;
	assert_int_equal(lb_json_parse(text, sizeof(text) - 1, 64, &object), 0);
	assert_int_equal(lb_json_get_text(object, "name", five, sizeof(five)), 0);
	assert_string_equal(five, "abcd");
	assert_int_equal(lb_json_get_text(object, "name", four, sizeof(four)), -EBADMSG);
	assert_non_null(strstr(lb_err_text(), "\"name\""));
	assert_string_equal(four, "old");
	assert_int_equal(lb_json_get_u32(object, "n", 6, &n), -EBADMSG);
	assert_int_equal(n, 1);
	assert_int_equal(lb_json_get_u32(object, "n", 7, &n), 0);
	assert_int_equal(n, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_buffer_refuses_to_grow_past_its_ceiling),
		cmocka_unit_test(wrapping_an_error_keeps_its_cause),
		cmocka_unit_test_setup_teardown(a_new_file_never_replaces_one_that_is_there, make_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(only_the_last_folder_is_private_those_above_can_be_passed, make_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(a_file_above_the_limit_is_not_read, make_folder, remove_folder),
		cmocka_unit_test(sealed_bytes_open_only_unaltered_and_with_their_context),
		cmocka_unit_test(scrypt_and_hkdf_match_their_published_vectors),
		cmocka_unit_test(uuids_sizes_and_times_survive_their_text),
		cmocka_unit_test(base64_is_strict_and_bounded),
		cmocka_unit_test_setup_teardown(a_misspelt_setting_is_an_error_that_names_its_line, make_folder,
						remove_folder),
		cmocka_unit_test(json_with_a_member_twice_is_refused),
		cmocka_unit_test(json_that_does_not_fit_is_refused_by_name_and_leaves_what_was_there),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
