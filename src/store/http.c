/* SPDX-License-Identifier: Apache-2.0 */
#include "store/http.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <curl/curl.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/text.h"
#include "store/url.h"

#define CONNECTION_AGE_S_MAX 60
#define BYTES_PER_S_WORST (32u << 10) /* a request may take the timeout and its bytes at this rate */
#define UPLOAD_BUFFER_BYTES (512u << 10)
#define DOWNLOAD_BUFFER_BYTES (256u << 10)
#define RETRY_AFTER_S_MAX 3600
#define HEADER_LINE_BYTES_MAX (LB_FIELD_BYTES_MAX + 64)

LB_DEFINE_CLEANUP(struct curl_slist *, curl_slist_free_all);

struct lb_http_pool {
	unsigned int n;
	uint32_t timeout_s;
	char *proxy, *ca_path;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t returned;
	unsigned int n_idle;
	CURL *idle[LB_STORE_CONNECTIONS_MAX]; /* the last one back is the first one out: its connection is the freshest
					       */
};

/* One exchange under way. */
struct flight {
	CURL *curl;
	const struct lb_exchange *x;
	struct lb_answer answer;
	bool too_large;
	char text[CURL_ERROR_SIZE];
};

void lb_answer_clear(struct lb_answer *a)
{
	lb_buf_free(&a->error);
}

/* ---- the pool -------------------------------------------------------------------------------------------- */

static void global_init(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

int lb_http_pool_new(const struct lb_http_pool_options *options, struct lb_http_pool **ret_pool)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	_cleanup_(lb_http_pool_freep) struct lb_http_pool *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return lb_fail(-ENOMEM, "out of memory for connections");
	pthread_once(&once, global_init);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->returned, NULL);
	p->timeout_s = options->timeout_s;
	if ((options->proxy != NULL && (p->proxy = strdup(options->proxy)) == NULL) ||
	    (options->ca_path != NULL && (p->ca_path = strdup(options->ca_path)) == NULL))
		return lb_fail(-ENOMEM, "out of memory for connections");
	for (; p->n < LB_MIN(options->connections, (unsigned int)LB_STORE_CONNECTIONS_MAX); p->n++) {
		p->idle[p->n_idle] = curl_easy_init();
		if (p->idle[p->n_idle] == NULL)
			return lb_fail(-ENOMEM, "out of memory for connections");
		p->n_idle++;
	}
	*ret_pool = lb_steal_ptr(p);
	return 0;
}

void lb_http_pool_free(struct lb_http_pool *p)
{
	for (unsigned int i = 0; i < p->n_idle; i++)
		curl_easy_cleanup(p->idle[i]);
	pthread_cond_destroy(&p->returned);
	pthread_mutex_destroy(&p->lock);
	free(p->proxy);
	free(p->ca_path);
	free(p);
}

/* Waits for as long as all are in use: each has its own end. */
static CURL *take(struct lb_http_pool *p)
{
	LB_LOCK_SCOPE(&p->lock);

	while (p->n_idle == 0)
		pthread_cond_wait(&p->returned, &p->lock);
	return p->idle[--p->n_idle];
}

static void give_back(struct lb_http_pool *p, CURL *curl)
{
	curl_easy_reset(curl); /* options only: its connection stays */
	LB_LOCK_SCOPE(&p->lock);
	p->idle[p->n_idle++] = curl;
	pthread_cond_signal(&p->returned);
}

/* ---- what comes back --------------------------------------------------------------------------------------- */

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
	struct flight *f = arg;
	long status = 0;
	struct lb_buf *to;

	curl_easy_getinfo(f->curl, CURLINFO_RESPONSE_CODE, &status);
	to = status >= 200 && status < 300 ? f->x->out : &f->answer.error;
	if (to == NULL)
		return size * n;
	if (lb_buf_append(to, data, size * n) == 0)
		return size * n;
	f->too_large = true;
	return 0;
}

static void take_range(struct lb_answer *a, const char *value)
{
	unsigned long long first, last, total;
	char end;

	/* "bytes 0-9/100" */
	if (sscanf(value, "bytes %llu-%llu/%llu%c", &first, &last, &total, &end) != 3) // NOLINT(cert-err34-c)
		return;
	a->has_range = true;
	a->range_first = first;
	a->range_total_bytes = total;
}

static void take_value(struct lb_answer *a, const char *name, const char *value)
{
	const struct {
		const char *name;
		char *to;
		size_t room;
	} texts[] = {
		{"etag", a->etag, sizeof(a->etag)},
		{"x-ms-meta-lbput", a->nonce, sizeof(a->nonce)},
		{"x-amz-meta-lbput", a->nonce, sizeof(a->nonce)},
		{"x-ms-error-code", a->code, sizeof(a->code)},
		{"x-ms-request-id", a->request_id, sizeof(a->request_id)},
		{"x-amz-request-id", a->request_id, sizeof(a->request_id)},
		{"x-amz-bucket-region", a->region, sizeof(a->region)},
	};

	for (size_t i = 0; i < LB_ARRAY_LEN(texts); i++)
		if (strcasecmp(name, texts[i].name) == 0 && strlen(value) < texts[i].room)
			memcpy(texts[i].to, value, strlen(value) + 1);
	if (strcasecmp(name, "content-length") == 0)
		a->has_length = lb_u64_parse(value, INT64_MAX, &a->length_bytes) == 0;
	else if (strcasecmp(name, "content-range") == 0)
		take_range(a, value);
	else if (strcasecmp(name, "date") == 0) {
		time_t t = curl_getdate(value, NULL);

		a->date_ns = t > 0 && t < INT64_MAX / LB_NS_PER_S ? (int64_t)t * LB_NS_PER_S : 0;
	}
}

static size_t take_header(char *data, size_t size, size_t n, void *arg)
{
	char line[HEADER_LINE_BYTES_MAX];
	struct flight *f = arg;
	size_t length = size * n;
	char *value;

	if (length >= sizeof(line))
		return length;
	for (; length > 0 && strchr(" \t\r\n", data[length - 1]) != NULL; length--)
		;
	memcpy(line, data, length);
	line[length] = '\0';
	for (size_t i = 0; i < length; i++)
		if (line[i] != '\t' && (line[i] < ' ' || line[i] == 0x7f))
			return size * n;
	if (strncmp(line, "HTTP/", 5) == 0) { /* of a later answer, such as the one behind a proxy's */
		struct lb_buf error = f->answer.error;

		f->answer = (struct lb_answer){.error = error};
	}
	value = strchr(line, ':');
	if (value == NULL)
		return size * n;
	*value++ = '\0';
	take_value(&f->answer, line, value + strspn(value, " \t"));
	return size * n;
}

/* ---- what goes out ------------------------------------------------------------------------------------------ */

static int add_line(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);

	if (longer == NULL)
		return lb_fail(-ENOMEM, "out of memory for a request to the store");
	*list = longer;
	return 0;
}

static int make_headers(const struct lb_exchange *x, struct curl_slist **list)
{
	/* "Expect" costs a round trip, the others are only ours to give */
	static const char *const none[] = {"Expect:", "Accept:", "Content-Type:"};
	char line[HEADER_LINE_BYTES_MAX];
	int r = 0;

	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(none); i++)
		if (i < 2 || lb_fields_get(x->headers, "content-type") == NULL)
			r = add_line(list, none[i]);
	for (size_t i = 0; r == 0 && i < x->headers->n; i++) {
		snprintf(line, sizeof(line), "%s: %s", x->headers->at[i].name, x->headers->at[i].value);
		r = add_line(list, line);
	}
	lb_wipe(line, sizeof(line));
	return r;
}

static void set_network(const struct lb_http_pool *p, struct flight *f)
{
	CURL *h = f->curl;

	curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 2L);
	if (p->ca_path != NULL) {
		curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
		curl_easy_setopt(h, CURLOPT_CAINFO, p->ca_path);
	}
	if (p->proxy != NULL) {
		curl_easy_setopt(h, CURLOPT_PROXY, p->proxy);
		curl_easy_setopt(h, CURLOPT_NOPROXY, "");
	}
	if (f->x->proxy_user != NULL)
		curl_easy_setopt(h, CURLOPT_PROXYUSERNAME, f->x->proxy_user);
	if (f->x->proxy_password != NULL)
		curl_easy_setopt(h, CURLOPT_PROXYPASSWORD, f->x->proxy_password);
	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(h, CURLOPT_MAXCONNECTS, 1L);
	curl_easy_setopt(h, CURLOPT_MAXAGE_CONN, (long)CONNECTION_AGE_S_MAX);
}

static void set_limits(const struct lb_http_pool *p, struct flight *f)
{
	size_t bytes = f->x->body_bytes;
	CURL *h = f->curl;

	if (f->x->out != NULL)
		bytes += f->x->out->size_bytes_max;
	curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)LB_MIN(p->timeout_s, (uint32_t)LB_HTTP_CONNECT_S));
	curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, (long)LB_HTTP_BYTES_PER_S_MIN);
	curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, (long)p->timeout_s);
	curl_easy_setopt(
		h, CURLOPT_TIMEOUT,
		(long)(2 * p->timeout_s + LB_MIN(bytes, (size_t)LB_STORE_OBJECT_BYTES_MAX) / BYTES_PER_S_WORST));
	curl_easy_setopt(h, CURLOPT_ERRORBUFFER, f->text);
	curl_easy_setopt(h, CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_BUFFER_BYTES);
	curl_easy_setopt(h, CURLOPT_BUFFERSIZE, (long)DOWNLOAD_BUFFER_BYTES);
}

static void set_request(struct flight *f, struct curl_slist *headers)
{
	CURL *h = f->curl;

	curl_easy_setopt(h, CURLOPT_URL, f->x->url);
	if (strcmp(f->x->method, "HEAD") == 0) {
		curl_easy_setopt(h, CURLOPT_NOBODY, 1L);
	} else if (strcmp(f->x->method, "PUT") == 0) {
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, f->x->body_bytes > 0 ? f->x->body : "");
		curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)f->x->body_bytes);
		curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, "PUT");
	} else if (strcmp(f->x->method, "GET") != 0) {
		curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, f->x->method);
	}
	curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(h, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); /* a proxy gets none of them */
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, f);
	curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(h, CURLOPT_HEADERDATA, f);
}

/* OpenSSL writes to sockets in a way that raises it, and programs that use us may not ignore it. */
static CURLcode perform(CURL *curl)
{
	const struct timespec now = {0, 0};
	sigset_t pipe, before, pending;
	CURLcode code;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	code = curl_easy_perform(curl);
	if (sigismember(&pending, SIGPIPE) == 0)
		sigtimedwait(&pipe, NULL, &now);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return code;
}

static int explain(const struct lb_http_pool *p, const struct flight *f, CURLcode code, bool *ret_landed)
{
	const char *why = f->text[0] != '\0' ? f->text : curl_easy_strerror(code);

	*ret_landed = true;
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
		*ret_landed = false;
		return lb_fail(-EAGAIN, "%s; check the address, the network and that no firewall is between", why);
	case CURLE_PROXY:
		*ret_landed = false;
		return lb_fail(-EAGAIN, "the proxy refuses: %s", why);
	case CURLE_PEER_FAILED_VERIFICATION:
		*ret_landed = false;
		return lb_fail(-EACCES,
			       "the server's certificate is not accepted (%s); for a certificate authority of "
			       "your own give ca=/path/of/its.pem in the address",
			       why);
	case CURLE_SSL_CACERT_BADFILE:
		*ret_landed = false;
		return lb_fail(-EACCES, "the certificate authority's file %s can't be read: %s",
			       p->ca_path != NULL ? p->ca_path : "of this system", why);
	case CURLE_WRITE_ERROR:
		return f->too_large ? lb_fail(-EMSGSIZE, "the answer is larger than it may be")
				    : lb_fail(-EAGAIN, "%s", why);
	case CURLE_OUT_OF_MEMORY:
		return lb_fail(-ENOMEM, "out of memory for a request to the store");
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return lb_fail(-EINVAL, "not an http:// or https:// address: %s", why);
	default:
		return lb_fail(-EAGAIN, "%s", why);
	}
}

static void take_results(struct flight *f)
{
	curl_off_t wait_s = 0;
	long status = 0;

	curl_easy_getinfo(f->curl, CURLINFO_RESPONSE_CODE, &status);
	f->answer.status = (unsigned int)status;
	if (curl_easy_getinfo(f->curl, CURLINFO_RETRY_AFTER, &wait_s) == CURLE_OK && wait_s > 0)
		f->answer.retry_after_s = (uint32_t)LB_MIN(wait_s, (curl_off_t)RETRY_AFTER_S_MAX);
}

int lb_http_exchange(struct lb_http_pool *p, const struct lb_exchange *x, struct lb_answer *ret_answer,
		     bool *ret_landed)
{
	_cleanup_(curl_slist_free_allp) struct curl_slist *headers = NULL;
	size_t before = x->out != NULL ? x->out->size_bytes : 0;
	struct flight f = {.x = x, .answer.error = LB_BUF(LB_HTTP_ERROR_BYTES_MAX)};
	CURLcode code;
	int r;

	*ret_landed = false;
	r = make_headers(x, &headers);
	if (r < 0)
		return r;
	f.curl = take(p);
	set_network(p, &f);
	set_limits(p, &f);
	set_request(&f, headers);
	code = perform(f.curl);
	take_results(&f);
	if (code != CURLE_OK)
		r = explain(p, &f, code, ret_landed);
	give_back(p, f.curl);
	if (r < 0) {
		if (x->out != NULL)
			x->out->size_bytes = before;
		lb_answer_clear(&f.answer);
		return r;
	}
	*ret_answer = f.answer;
	return 0;
}
