/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/client.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include <curl/curl.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/json.h"
#include "base/text.h"
#include "wire/first_contact.h"
#include "wire/peer_client.h"
#include "wire/pki.h"
#include "wire/server.h"
#include "wire/x509.h"

#define CONNECT_TIMEOUT_S_DEFAULT 10
#define REQUEST_TIMEOUT_S_DEFAULT 60
#define CONNECTION_AGE_S_MAX 60 /* below the server's idle timeout, so that a kept one is rarely a dead one */
#define CONNECTIONS_KEPT_MAX 4
#define RETRY_AFTER_S_MAX 3600
#define URL_BYTES_MAX 4096
#define ERROR_TEXT_BYTES_MAX 600

LB_DEFINE_CLEANUP(struct curl_slist *, curl_slist_free_all);

struct curl_client {
	struct lb_http_client base;
	CURL *curl;
	char key_path[LB_IDENTITY_PATH_BYTES], cert_path[LB_IDENTITY_PATH_BYTES], ca_path[LB_IDENTITY_PATH_BYTES];
	struct lb_digest ca;
	bool first_contact;
	char peer_name[LB_SUBJECT_BYTES]; /* empty: a server */
	uint32_t connect_timeout_s;
	char text[CURL_ERROR_SIZE];
};

void lb_http_response_free(struct lb_http_response *r)
{
	lb_buf_free(&r->body);
}

void lb_http_response_wipe(struct lb_http_response *r)
{
	if (r->body.data != NULL)
		lb_wipe(r->body.data, r->body.size_bytes);
	lb_http_response_free(r);
}

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
	struct lb_http_response *response = arg;

	return lb_buf_append(&response->body, data, size * n) < 0 ? 0 : size * n;
}

/* The text of an error names host and port, not the path: messages of ours say what was asked. */
static int curl_fail(const struct curl_client *c, CURLcode code, const char *url)
{
	const char *why = c->text[0] != '\0' ? c->text : curl_easy_strerror(code);

	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return lb_fail(-EHOSTUNREACH, "%s: %s; check the name", url, why);
	case CURLE_COULDNT_CONNECT:
		return lb_fail(-ECONNREFUSED, "%s: %s; check that the service runs and that no firewall is between",
			       url, why);
	case CURLE_OPERATION_TIMEDOUT:
		return lb_fail(-ETIMEDOUT, "%s: %s", url, why);
	case CURLE_PEER_FAILED_VERIFICATION:
		if (c->first_contact)
			return lb_fail(-EACCES,
				       "%s: the server doesn't show the certificate authority with the expected "
				       "fingerprint (%s); compare it with what `lifeboat setup` printed there",
				       url, why);
		return lb_fail(-EACCES, "%s: the server's certificate is not accepted: %s", url, why);
	case CURLE_SSL_CONNECT_ERROR:
		/* as a server that dies within the handshake makes it: one that turns us away says so in HTTP */
		return lb_fail(-EPROTO, "%s: TLS failed: %s", url, why);
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CIPHER:
		return lb_fail(-EACCES, "%s: TLS failed: %s", url, why);
	case CURLE_WRITE_ERROR:
		return lb_fail(-EMSGSIZE, "%s: the answer is larger than it may be", url);
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return lb_fail(-EINVAL, "\"%s\" is not an https:// address", url);
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
		return lb_fail(-ECONNRESET, "%s: the connection broke: %s", url, why);
	case CURLE_OUT_OF_MEMORY:
		return lb_fail(-ENOMEM, "%s: out of memory", url);
	default:
		return lb_fail(-EIO, "%s: %s", url, why);
	}
}

static int add_header(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);

	if (longer == NULL)
		return lb_fail(-ENOMEM, "out of memory for an HTTP header");
	*list = longer;
	return 0;
}

static int make_headers(const struct lb_http_request *request, struct curl_slist **list)
{
	char line[160];
	int r = 0;

	if (request->body != NULL) {
		snprintf(line, sizeof(line), "Content-Type: %s",
			 request->content_type != NULL ? request->content_type : "application/json");
		r = add_header(list, line);
	}
	for (size_t i = 0; r == 0 && request->headers != NULL && request->headers[i] != NULL; i++)
		r = add_header(list, request->headers[i]);
	return r;
}

static bool is_there(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

static int set_tls(struct curl_client *c)
{
	CURL *h = c->curl;

	curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3 | (long)CURL_SSLVERSION_MAX_TLSv1_3);
	curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 2L);
	/* no other authority than our own: the system's list vouches for nobody here */
	curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(h, CURLOPT_CAINFO, c->first_contact ? NULL : c->ca_path);
	if (is_there(c->key_path) && is_there(c->cert_path)) {
		curl_easy_setopt(h, CURLOPT_SSLKEY, c->key_path);
		curl_easy_setopt(h, CURLOPT_SSLCERT, c->cert_path);
	}
	if (c->peer_name[0] != '\0')
		return lb_peer_client(h, c->peer_name);
	return c->first_contact ? lb_first_contact(h, &c->ca) : 0;
}

/* A test's way to see them all run out without waiting for minutes. */
static long at_most_told(uint32_t timeout_ms)
{
#ifdef LB_FAULT_INJECTION
	const char *told = getenv("LIFEBOAT_FAULT_TIMEOUT_MS");

	if (told != NULL)
		return LB_MIN((long)timeout_ms, strtol(told, NULL, 10));
#endif
	return (long)timeout_ms;
}

static void set_limits(struct curl_client *c, uint32_t timeout_ms)
{
	CURL *h = c->curl;

	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_PROXY, "");
	curl_easy_setopt(h, CURLOPT_MAXCONNECTS, (long)CONNECTIONS_KEPT_MAX);
	curl_easy_setopt(h, CURLOPT_MAXAGE_CONN, (long)CONNECTION_AGE_S_MAX);
	curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, at_most_told(c->connect_timeout_s * 1000));
	curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, at_most_told(timeout_ms));
	curl_easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(h, CURLOPT_ERRORBUFFER, c->text);
}

static uint32_t retry_after_s(CURL *h)
{
	curl_off_t s = 0;

	if (curl_easy_getinfo(h, CURLINFO_RETRY_AFTER, &s) != CURLE_OK || s <= 0)
		return 0;
	return (uint32_t)LB_MIN(s, (curl_off_t)RETRY_AFTER_S_MAX);
}

static int curl_send(struct lb_http_client *base, const struct lb_http_request *request,
		     struct lb_http_response *ret_response)
{
	struct curl_client *c = (struct curl_client *)base;
	_cleanup_(lb_http_response_free) struct lb_http_response response = {
		.body = LB_BUF(request->response_bytes_max)};
	_cleanup_(curl_slist_free_allp) struct curl_slist *headers = NULL;
	CURLcode code;
	long status = 0;
	int r;

	if (strnlen(request->url, URL_BYTES_MAX) >= URL_BYTES_MAX)
		return lb_fail(-EINVAL, "address is longer than %d bytes: %.60s...", URL_BYTES_MAX, request->url);
	if (response.body.size_bytes_max == 0)
		response.body.size_bytes_max = LB_HTTP_JSON_BYTES_MAX;
	curl_easy_reset(c->curl); /* options only: connections stay */
	c->text[0] = '\0';
	r = set_tls(c);
	if (r == 0)
		r = make_headers(request, &headers);
	if (r < 0)
		return r;
	set_limits(c, request->timeout_ms > 0  ? request->timeout_ms
		      : request->timeout_s > 0 ? request->timeout_s * 1000
					       : REQUEST_TIMEOUT_S_DEFAULT * 1000);
	curl_easy_setopt(c->curl, CURLOPT_URL, request->url);
	if (request->body != NULL || strcmp(request->method, "POST") == 0 || strcmp(request->method, "PUT") == 0) {
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, request->body != NULL ? request->body : "");
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_bytes);
	}
	curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, request->method);
	curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &response);
	code = curl_easy_perform(c->curl);
	if (code != CURLE_OK)
		return curl_fail(c, code, request->url);
	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
	response.status = (unsigned int)status;
	response.retry_after_s = retry_after_s(c->curl);
	*ret_response = response;
	response.body = (struct lb_buf){0};
	return 0;
}

static void curl_free_client(struct lb_http_client *base)
{
	struct curl_client *c = (struct curl_client *)base;

	if (c->curl != NULL)
		curl_easy_cleanup(c->curl);
	free(c);
}

static const struct lb_http_client_ops curl_ops = {.send = curl_send, .free = curl_free_client};

static void global_init(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

int lb_http_client_new(const struct lb_http_client_options *options, struct lb_http_client **ret_client)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct curl_client *c;
	int r;

	pthread_once(&once, global_init);
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return lb_fail(-ENOMEM, "out of memory for an HTTP client");
	c->base.ops = &curl_ops;
	c->connect_timeout_s = options->connect_timeout_s > 0 ? options->connect_timeout_s : CONNECT_TIMEOUT_S_DEFAULT;
	c->first_contact = options->ca_fingerprint_hex != NULL;
	if (options->peer_name != NULL)
		snprintf(c->peer_name, sizeof(c->peer_name), "%s", options->peer_name);
	r = lb_x509_path(c->key_path, options->identity_folder, "key.pem");
	if (r == 0)
		r = lb_x509_path(c->cert_path, options->identity_folder, "cert.pem");
	if (r == 0)
		r = lb_x509_path(c->ca_path, options->identity_folder, "ca.pem");
	if (r == 0 && c->first_contact)
		r = lb_hex_decode(options->ca_fingerprint_hex, LB_DIGEST_BYTES, c->ca.bytes);
	if (r == 0 && !c->first_contact && !is_there(c->ca_path))
		r = lb_fail(-ENOENT, "no identity in %s: ca.pem is missing; enrol first", options->identity_folder);
	if (r == 0) {
		c->curl = curl_easy_init();
		if (c->curl == NULL)
			r = lb_fail(-ENOMEM, "out of memory for an HTTP client");
	}
	if (r < 0) {
		curl_free_client(&c->base);
		return r;
	}
	*ret_client = &c->base;
	return 0;
}

void lb_http_client_free(struct lb_http_client *c)
{
	c->ops->free(c);
}

int lb_http_send(struct lb_http_client *c, const struct lb_http_request *request, struct lb_http_response *ret_response)
{
	return c->ops->send(c, request, ret_response);
}

static int error_of_status(unsigned int status)
{
	switch (status) {
	case 400:
		return -EINVAL;
	case 403:
		return -EACCES;
	case 404:
		return -ENOENT;
	case 409:
		return -EEXIST;
	case 429:
	case 503:
		return -EAGAIN;
	case 507:
		return -ENOSPC;
	default:
		return -EREMOTEIO;
	}
}

/* The server's own message, where it is one of ours; its printable bytes only. */
static int fail_as_told(const struct lb_http_response *response, const char *method, const char *url)
{
	_cleanup_json_ json_t *reply = NULL;
	const char *message = NULL;
	char text[ERROR_TEXT_BYTES_MAX];
	int code = error_of_status(response->status);

	if (response->body.size_bytes == 0 ||
	    lb_json_parse(response->body.data, response->body.size_bytes, LB_HTTP_JSON_BYTES_MAX, &reply) < 0 ||
	    lb_json_get_str(json_object_get(reply, "error"), "message", &message) < 0)
		return lb_fail(code, "%s %s: answered with status %u", method, url, response->status);
	snprintf(text, sizeof(text), "%s", message);
	for (char *p = text; *p != '\0'; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	return lb_fail(code, "%s", text);
}

int lb_http_json(struct lb_http_client *c, const char *method, const char *url, const json_t *body, json_t **ret_reply)
{
	/* bodies may carry tokens and keys: they are wiped, not only freed */
	_cleanup_(lb_http_response_wipe) struct lb_http_response response = {0};
	_cleanup_(lb_secret_free) char *text = NULL;
	struct lb_http_request request = {.method = method, .url = url, .response_bytes_max = LB_HTTP_JSON_BYTES_MAX};
	int r;

	if (body != NULL) {
		r = lb_json_dump(body, &text);
		if (r < 0)
			return r;
		request.body = text;
		request.body_bytes = strlen(text);
	}
	r = lb_http_send(c, &request, &response);
	if (r < 0)
		return r;
	if (response.status >= 400)
		return fail_as_told(&response, method, url);
	if (ret_reply == NULL)
		return 0;
	r = lb_json_parse(response.body.size_bytes > 0 ? (const char *)response.body.data : "",
			  response.body.size_bytes, LB_HTTP_JSON_BYTES_MAX, ret_reply);
	return r < 0 ? lb_wrap(-EREMOTEIO, "%s %s", method, url) : 0;
}
