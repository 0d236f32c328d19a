/* SPDX-License-Identifier: Apache-2.0 */
/* https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key */
#include "store/sign.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/text.h"

#define TEXT_BYTES_MAX (64u << 10)
#define KEY_BYTES_MAX 256

int lb_content_md5(const void *data, size_t size_bytes, char ret_text[25])
{
	unsigned char digest[16];

	if (EVP_Digest(data, size_bytes, digest, NULL, EVP_md5(), NULL) != 1)
		return lb_fail(-EIO, "MD5, which stores check uploads by, is not there; is OpenSSL in FIPS mode?");
	EVP_EncodeBlock((unsigned char *)ret_text, digest, sizeof(digest));
	return 0;
}

int lb_azure_date(struct lb_cloud_request *q, int64_t now_ns)
{
	time_t now_s = (time_t)(now_ns / LB_NS_PER_S);
	static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct tm tm;
	int r;

	gmtime_r(&now_s, &tm);
	r = lb_fields_add(&q->headers, "x-ms-date", "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday,
			  tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
	return r < 0 ? r : lb_fields_add(&q->headers, "x-ms-version", LB_AZURE_VERSION);
}

static int add_standard(const struct lb_cloud_request *q, struct lb_buf *text)
{
	/* in this order; ours has x-ms-date, so that "date" stays empty */
	static const char *const names[] = {"content-encoding",
					    "content-language",
					    NULL,
					    "content-md5",
					    "content-type",
					    "date",
					    "if-modified-since",
					    "if-match",
					    "if-none-match",
					    "if-unmodified-since",
					    "range"};
	int r;

	r = lb_buf_printf(text, "%s\n", q->method);
	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(names); i++) {
		const char *value = names[i] != NULL ? lb_fields_get(&q->headers, names[i]) : NULL;

		if (names[i] == NULL && q->body_bytes > 0)
			r = lb_buf_printf(text, "%zu\n", q->body_bytes);
		else
			r = lb_buf_printf(text, "%s\n", value != NULL ? value : "");
	}
	return r;
}

static int string_to_sign(struct lb_cloud_request *q, const char *account, struct lb_buf *text)
{
	int r;

	lb_fields_sort(&q->headers);
	lb_fields_sort(&q->query);
	r = add_standard(q, text);
	for (size_t i = 0; r == 0 && i < q->headers.n; i++)
		if (strncmp(q->headers.at[i].name, "x-ms-", 5) == 0)
			r = lb_buf_printf(text, "%s:%s\n", q->headers.at[i].name, q->headers.at[i].value);
	if (r == 0)
		r = lb_buf_printf(text, "/%s%s", account, q->path);
	for (size_t i = 0; r == 0 && i < q->query.n; i++)
		r = lb_buf_printf(text, "\n%s:%s", q->query.at[i].name, q->query.at[i].value);
	return r;
}

int lb_azure_sign(struct lb_cloud_request *q, const char *account, const char *key_base64, int64_t now_ns)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(TEXT_BYTES_MAX);
	unsigned char mac[32], base64[45];
	_cleanup_free_ uint8_t *key = NULL;
	size_t key_bytes;
	int r;

	r = lb_azure_date(q, now_ns);
	if (r == 0)
		r = string_to_sign(q, account, &text);
	if (r < 0)
		return r;
	r = lb_base64_decode(key_base64, KEY_BYTES_MAX, &key, &key_bytes);
	if (r < 0)
		return lb_fail(-EACCES,
			       "the account key is not base64; copy key1 or key2 of the storage account whole");
	if (HMAC(EVP_sha256(), key, (int)key_bytes, text.data, text.size_bytes, mac, NULL) == NULL)
		r = lb_fail(-EIO, "HMAC-SHA-256 failed");
	lb_wipe(key, key_bytes);
	if (r < 0)
		return r;
	EVP_EncodeBlock(base64, mac, sizeof(mac));
	return lb_fields_add(&q->headers, "authorization", "SharedKey %s:%s", account, (const char *)base64);
}
