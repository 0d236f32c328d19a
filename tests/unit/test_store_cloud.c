/* SPDX-License-Identifier: Apache-2.0 */
/* What stores in the cloud are made of, without a network: addresses, credentials, signatures, listings. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/err.h"
#include "store/credentials.h"
#include "store/listing.h"
#include "store/sign.h"
#include "store/store.h"
#include "store/url.h"

/* 2013-05-24T00:00:00Z, the time of AWS's published examples */
#define EXAMPLE_NS (INT64_C(1369353600) * LB_NS_PER_S)

static void fails_naming(int r, int code, const char *text)
{
	if (r != code || strstr(lb_err_text(), text) == NULL)
		fail_msg("%d with \"%s\", not %d with \"%s\"", r, lb_err_text(), code, text);
}

/* ---- signatures ------------------------------------------------------------------------------------------ */

static void a_signature_of_aws_is_the_published_one(void **state)
{
	const struct lb_s3_identity id = {.access_key = "AKIAIOSFODNN7EXAMPLE",
					  .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
					  .region = "us-east-1",
					  .host = "examplebucket.s3.amazonaws.com"};
	struct lb_cloud_request get = {.method = "GET", .path = "/test.txt"}, list = {.method = "GET", .path = "/"};

	(void)state;
	assert_int_equal(lb_fields_add(&get.headers, "range", "bytes=0-9"), 0);
	assert_int_equal(lb_s3_sign(&get, &id, EXAMPLE_NS), 0);
	assert_string_equal(lb_fields_get(&get.headers, "authorization"),
			    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
			    "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
			    "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
	assert_int_equal(lb_fields_add(&list.query, "prefix", "J"), 0);
	assert_int_equal(lb_fields_add(&list.query, "max-keys", "2"), 0);
	assert_int_equal(lb_s3_sign(&list, &id, EXAMPLE_NS), 0);
	assert_non_null(strstr(lb_fields_get(&list.headers, "authorization"),
			       "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
	lb_fields_clear(&get.headers);
	lb_fields_clear(&list.headers);
	lb_fields_clear(&list.query);
}

/* The expected one was computed by Python's hmac over the text that the documentation prescribes. */
static void a_shared_key_signature_covers_headers_resource_and_query(void **state)
{
	struct lb_cloud_request q = {.method = "PUT", .path = "/acc/vault/m/1", .body = "hello", .body_bytes = 5};

	(void)state;
	assert_int_equal(lb_fields_add(&q.headers, "if-none-match", "*"), 0);
	assert_int_equal(lb_fields_add(&q.headers, "x-ms-blob-type", "BlockBlob"), 0);
	assert_int_equal(lb_fields_add(&q.query, "timeout", "9"), 0);
	assert_int_equal(lb_azure_sign(&q, "acc", "a2V5a2V5a2V5", EXAMPLE_NS), 0);
	assert_string_equal(lb_fields_get(&q.headers, "x-ms-date"), "Fri, 24 May 2013 00:00:00 GMT");
	assert_string_equal(lb_fields_get(&q.headers, "authorization"),
			    "SharedKey acc:O9er8HdlRJoO8Hmh8s5GsH/3VPt9VAhgK7MWjZtt37E=");
	lb_fields_clear(&q.headers);
	lb_fields_clear(&q.query);
	fails_naming(lb_azure_sign(&q, "acc", "not base64!", EXAMPLE_NS), -EACCES, "account key");
	lb_fields_clear(&q.headers);
}

/* ---- addresses ------------------------------------------------------------------------------------------- */

static void an_address_is_taken_apart(void **state)
{
	struct lb_store_url u = {0};

	(void)state;
	assert_int_equal(
		lb_store_url_parse("s3",
				   "b?endpoint=https%3A%2F%2Fs3.example:9000/&region=eu-west-1&ca=/etc/ca.pem&"
				   "proxy=http://p:3128&credentials=/c&style=host&checksum=md5&connections=4&timeout=5",
				   &u),
		0);
	assert_string_equal(u.place, "b");
	assert_string_equal(u.endpoint, "https://s3.example:9000");
	assert_string_equal(u.region, "eu-west-1");
	assert_string_equal(u.ca, "/etc/ca.pem");
	assert_string_equal(u.proxy, "http://p:3128");
	assert_string_equal(u.credentials, "/c");
	assert_true(u.host_style);
	assert_true(u.checksum_md5);
	assert_int_equal(u.connections, 4);
	assert_int_equal(u.timeout_s, 5);
	lb_store_url_clear(&u);
}

static void an_address_with_a_secret_or_a_mistake_is_refused_without_showing_it(void **state)
{
	static const struct {
		const char *text, *told;
	} bad[] = {
		{"a/c?sv=2021&sig=hidden", "secrets"},
		{"a/c?account_key=hidden", "secrets"},
		{"a/c?endpoint=ftp://x", "https://host"},
		{"a/c?endpoint=https://user:hidden@x", "https://host"},
		{"a/c?endpoint=https://x/?a", "https://host"},
		{"a/c?proxy=http://user:hidden@x", "credentials file"},
		{"a/c?ca=relative", "absolute"},
		{"a/c?connections=65", "from 1 to 64"},
		{"a/c?connections=0", "from 1 to 64"},
		{"a/c?timeout=x", "from 1 to 600"},
		{"a/c?checksum=crc32", "checksum must be md5"},
		{"a/c?region=eu%0Awest", "percent"},
		{"a/c?region=%zz", "percent"},
		{"a/c?regoin=x", "regoin"},
		{"a/c?region", "name=value"},
	};

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++) {
		struct lb_store_url u = {0};

		fails_naming(lb_store_url_parse("azure", bad[i].text, &u), -EINVAL, bad[i].told);
		assert_null(strstr(lb_err_text(), "hidden"));
		assert_null(u.place);
	}
}

static void a_place_that_the_provider_can_not_have_is_refused(void **state)
{
	static const char *const bad[] = {
		"azure:acc", "azure:Acc/vault", "azure:acc/va--ult", "azure:acc/-vault", "azure:acc/a/b", "s3:UPPER",
		"s3:ab",     "s3:a..b",         "s3:-abc",           "s3:bucket/x",      "ftp:x"};
	struct lb_store *s;

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++)
		assert_int_equal(lb_store_open(lb_env_real(), bad[i], false, &s), -EINVAL);
}

/* ---- credentials ------------------------------------------------------------------------------------------ */

static char path[64];

static int make_path(void **state)
{
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/lb-credentials.XXXXXX");
	fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
	(void)state;
	return unlink(path);
}

static void write_file(const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void changed_credentials_are_read_again_and_broken_ones_leave_the_old(void **state)
{
	struct lb_credentials_source *s;
	struct lb_credentials c = {0};
	uint64_t first, second;

	(void)state;
	write_file("access_key = one\nsecret_key = secret\n");
	assert_int_equal(lb_credentials_open(lb_env_real(), LB_PROVIDER_S3, path, &s), 0);
	assert_int_equal(lb_credentials_get(s, false, &c, &first), 0);
	assert_string_equal(c.access_key, "one");
	lb_credentials_clear(&c);
	write_file("access_key = two\nsecret_key = secret\n"); /* perhaps within one tick of the file system's clock */
	assert_int_equal(lb_credentials_get(s, true, &c, &second), 0);
	assert_string_equal(c.access_key, "two");
	assert_true(second > first);
	lb_credentials_clear(&c);
	write_file("access_key = three\n");
	assert_int_equal(lb_credentials_get(s, true, &c, &first), 0);
	assert_string_equal(c.access_key, "two");
	assert_int_equal(first, second);
	lb_credentials_clear(&c);
	lb_credentials_close(s);
}

static void credentials_that_others_may_read_or_that_are_incomplete_are_refused_without_showing_them(void **state)
{
	static const char *const bad[] = {"hidden",
					  "hiden = hidden",
					  "account_key = hidden\nsas = sig=hidden\n",
					  "access_key = hidden\n",
					  "sas = https://acc.example/vault?sig=hidden\n",
					  "account_key =\n",
					  ""};
	struct lb_credentials_source *s;

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++) {
		write_file(bad[i]);
		fails_naming(lb_credentials_open(lb_env_real(), LB_PROVIDER_AZURE, path, &s), -EACCES, path);
		assert_null(strstr(lb_err_text(), "hidden"));
	}
	write_file("account_key = a2V5\n");
	assert_int_equal(chmod(path, 0644), 0);
	fails_naming(lb_credentials_open(lb_env_real(), LB_PROVIDER_AZURE, path, &s), -EACCES, "chmod 600");
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(lb_credentials_open(lb_env_real(), LB_PROVIDER_AZURE, path, &s), 0);
	lb_credentials_close(s);
	fails_naming(lb_credentials_open(lb_env_real(), LB_PROVIDER_AZURE, "/nowhere/at/all", &s), -EACCES,
		     "account_key");
}

/* ---- listings -------------------------------------------------------------------------------------------- */

static const char azure_page[] =
	"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"c\"><Prefix/><Blobs>"
	"<Blob><Name>a/b</Name><Properties><Etag>x</Etag><Content-Length>5</Content-Length></Properties></Blob>"
	"<BlobPrefix><Name>m/</Name></BlobPrefix></Blobs><NextMarker>2!76</NextMarker></EnumerationResults>";
static const char s3_page[] =
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
	"<Name>b</Name><IsTruncated>true</IsTruncated><Contents><Key>a/b</Key><Size>5</Size></Contents>"
	"<CommonPrefixes><Prefix>m/</Prefix></CommonPrefixes><NextContinuationToken>t</NextContinuationToken>"
	"</ListBucketResult>";

static void a_page_of_a_listing_is_read(void **state)
{
	const struct {
		enum lb_listing_format format;
		const char *page, *next;
	} pages[] = {{LB_LISTING_AZURE, azure_page, "2!76"}, {LB_LISTING_S3, s3_page, "t"}};

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(pages); i++) {
		struct lb_listing l = {0};

		assert_int_equal(lb_listing_parse(pages[i].format, pages[i].page, strlen(pages[i].page), &l), 0);
		assert_int_equal(l.n_items, 1);
		assert_string_equal(l.items[0].name, "a/b");
		assert_int_equal(l.items[0].size_bytes, 5);
		assert_int_equal(l.n_folders, 1);
		assert_string_equal(l.folders[0], "m/");
		assert_string_equal(l.next, pages[i].next);
		lb_listing_clear(&l);
	}
}

static void a_listing_that_is_cut_or_damaged_anywhere_is_never_taken_for_a_shorter_one(void **state)
{
	(void)state;
	for (size_t n = 0; n < strlen(s3_page); n++) {
		struct lb_listing l = {0};

		assert_int_equal(lb_listing_parse(LB_LISTING_S3, s3_page, n, &l), -EBADMSG);
		assert_null(l.items);
	}
	for (size_t n = 0; n < strlen(azure_page); n++)
		assert_int_equal(lb_listing_parse(LB_LISTING_AZURE, azure_page, n, &(struct lb_listing){0}), -EBADMSG);
}

static void a_listing_with_a_document_type_or_another_meaning_is_refused(void **state)
{
	static const char *const bad[] = {
		"<!DOCTYPE x [<!ENTITY e \"aaaa\">]><ListBucketResult><Contents><Key>&e;</Key><Size>1</Size></Contents>"
		"</ListBucketResult>",
		"<ListBucketResult><Contents><Key>a&e;</Key><Size>1</Size></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>a</Key><Size>99999999999999999999</Size></Contents></"
		"ListBucketResult>",
		"<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
		"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
		"<Error><Code>x</Code></Error>",
		"<html/>",
	};

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++)
		assert_int_equal(lb_listing_parse(LB_LISTING_S3, bad[i], strlen(bad[i]), &(struct lb_listing){0}),
				 -EBADMSG);
}

static void an_error_is_read_in_its_first_line_and_made_printable(void **state)
{
	static const char text[] = "<Error><Code>Busy</Code><Message>wait\xc3\xa4\n and more</Message></Error>";
	char code[LB_CLOUD_CODE_BYTES], message[LB_CLOUD_MESSAGE_BYTES];

	(void)state;
	lb_cloud_error_parse(text, strlen(text), code, message);
	assert_string_equal(code, "Busy");
	assert_string_equal(message, "wait??");
	lb_cloud_error_parse("<html>", 6, code, message);
	assert_string_equal(code, "");
	assert_string_equal(message, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_signature_of_aws_is_the_published_one),
		cmocka_unit_test(a_shared_key_signature_covers_headers_resource_and_query),
		cmocka_unit_test(an_address_is_taken_apart),
		cmocka_unit_test(an_address_with_a_secret_or_a_mistake_is_refused_without_showing_it),
		cmocka_unit_test(a_place_that_the_provider_can_not_have_is_refused),
		cmocka_unit_test_setup_teardown(changed_credentials_are_read_again_and_broken_ones_leave_the_old,
						make_path, remove_path),
		cmocka_unit_test_setup_teardown(
			credentials_that_others_may_read_or_that_are_incomplete_are_refused_without_showing_them,
			make_path, remove_path),
		cmocka_unit_test(a_page_of_a_listing_is_read),
		cmocka_unit_test(a_listing_that_is_cut_or_damaged_anywhere_is_never_taken_for_a_shorter_one),
		cmocka_unit_test(a_listing_with_a_document_type_or_another_meaning_is_refused),
		cmocka_unit_test(an_error_is_read_in_its_first_line_and_made_printable),
	};

	return cmocka_run_group_tests_name("store_cloud", tests, NULL, NULL);
}
