/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>
#include <openssl/ssl.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/notify.h"
#include "wire/client.h"
#include "wire/pki.h"
#include "wire/policy.h"
#include "wire/routes.h"
#include "wire/server.h"

#define BODY_BYTES_MAX (16u << 20)
#define SMALL_BODY_BYTES_MAX 100
#define TOTAL_BYTES_MAX (32u << 20)
#define DAY_NS (INT64_C(86400) * LB_NS_PER_S)

static char folder[64];
static struct lb_env *env;
static struct lb_http_server *server;
static char base_url[64];
static atomic_int calls;
static atomic_bool gate_open, gate_reached;
static struct lb_digest revoked;

/* --- handlers --- */

static int who(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	(void)arg;
	atomic_fetch_add(&calls, 1);
	reply->json = json_pack("{s:s,s:s,s:s,s:b}", "name", call->peer.name, "role", lb_role_name(call->peer.role),
				"address", call->peer.address, "expired", call->peer.expired);
	return 0;
}

static int digest(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_digest d;

	(void)arg;
	atomic_fetch_add(&calls, 1);
	lb_sha256(call->body, call->body_bytes, &d);
	reply->json = json_object();
	return lb_json_set_digest(reply->json, "sha256", &d);
}

static int fail_with(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	uint64_t code = 0;

	(void)arg;
	(void)reply;
	if (lb_u64_parse(call->params[0], 4095, &code) < 0)
		return -EINVAL;
	return lb_fail(-(int)code, "disk %s is not there; look for it", call->params[1]);
}

static int hold(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	(void)arg;
	(void)call;
	atomic_store(&gate_reached, true);
	while (!atomic_load(&gate_open))
		sched_yield();
	reply->json = json_object();
	return 0;
}

static int large(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	(void)arg;
	(void)call;
	reply->bytes = LB_BUF(1u << 20);
	reply->content_type = "application/octet-stream";
	for (int i = 0; i < 1024; i++)
		if (lb_buf_append(&reply->bytes, "0123456789abcdef0123456789abcdef", 32) < 0)
			return -ENOMEM;
	return 0;
}

#define MACHINE LB_ROLE_BIT(LB_ROLE_MACHINE)
#define ADMIN LB_ROLE_BIT(LB_ROLE_ADMIN)
static const struct lb_http_route routes[] = {
	{"GET", "/v1/who", MACHINE | ADMIN, 0, who, false},
	{"GET", "/v1/open", LB_ROLE_BIT(LB_ROLE_NONE) | MACHINE, 0, who, false},
	{"GET", "/v1/renew", MACHINE, 0, who, true},
	{"GET", "/v1/administrator", ADMIN, 0, who, false},
	{"PUT", "/v1/body", MACHINE, BODY_BYTES_MAX, digest, false},
	{"PUT", "/v1/hold", MACHINE, TOTAL_BYTES_MAX, hold, false},
	{"PUT", "/v1/small", MACHINE, SMALL_BODY_BYTES_MAX, digest, false},
	{"GET", "/v1/fail/{}/{}", MACHINE, 0, fail_with, false},
	{"GET", "/v1/large", MACHINE, 0, large, false},
};

static bool peer_allowed(void *arg, const struct lb_http_peer *peer)
{
	(void)arg;
	return !lb_equal_ct(peer->fingerprint.bytes, revoked.bytes, LB_DIGEST_BYTES);
}

/* --- the site: a CA, a server, identities --- */

static const char *in(const char *name)
{
	static __thread char paths[4][256];
	static __thread unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static void issue(const char *ca, const char *identity, const char *name, enum lb_role role, int64_t now_ns,
		  uint32_t days)
{
	static const char *const san[] = {"DNS:localhost", "IP:127.0.0.1", NULL};
	struct lb_issue i = {.common_name = name,
			     .role = role,
			     .now_ns = now_ns,
			     .valid_days = days,
			     .san = role == LB_ROLE_CONFIG ? san : NULL};

	assert_int_equal(lb_ca_issue_here(env, in(ca), in(identity), &i), 0);
}

static void start(uint32_t idle_timeout_s)
{
	struct lb_http_server_options o = {.address = "127.0.0.1",
					   .identity_folder = in("server"),
					   .routes = routes,
					   .n_routes = LB_ARRAY_LEN(routes),
					   .peer_allowed = peer_allowed,
					   .idle_timeout_s = idle_timeout_s,
					   .body_bytes_total_max = TOTAL_BYTES_MAX};

	assert_int_equal(lb_http_server_start(&o, &server), 0);
	snprintf(base_url, sizeof(base_url), "https://127.0.0.1:%u", lb_http_server_port(server));
}

static int setup(void **state)
{
	(void)state;
	env = lb_env_real();
	lb_log_init("test_wire", LB_LOG_ERROR);
	strcpy(folder, "/tmp/lb-test-wire.XXXXXX");
	if (mkdtemp(folder) == NULL)
		return -1;
	atomic_store(&calls, 0);
	atomic_store(&gate_open, false);
	atomic_store(&gate_reached, false);
	memset(&revoked, 0, sizeof(revoked));
	assert_int_equal(lb_ca_open(env, in("ca"), lb_now_ns(env)), 0);
	issue("ca", "server", "config", LB_ROLE_CONFIG, lb_now_ns(env), 30);
	issue("ca", "machine", "machine-1", LB_ROLE_MACHINE, lb_now_ns(env), 30);
	start(0);
	return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	lb_http_server_stop(server);
	return nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static struct lb_http_client *client(const char *identity)
{
	struct lb_http_client_options o = {.identity_folder = in(identity)};
	struct lb_http_client *c = NULL;

	assert_int_equal(lb_http_client_new(&o, &c), 0);
	return c;
}

static const char *url(const char *path)
{
	static __thread char text[256];

	snprintf(text, sizeof(text), "%s%s", base_url, path);
	return text;
}

static int get(const char *identity, const char *path, json_t **ret_reply)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client(identity);

	return lb_http_json(c, "GET", url(path), NULL, ret_reply);
}

/* An identity that has the CA, but no certificate of its own. */
static void make_stranger(const char *name)
{
	_cleanup_free_ uint8_t *ca = NULL;
	char path[300];
	size_t size_bytes;

	assert_int_equal(lb_folder_make(env, in(name), 0700), 0);
	assert_int_equal(lb_file_read(env, in("ca/ca.pem"), LB_PEM_BYTES_MAX, &ca, &size_bytes), 0);
	snprintf(path, sizeof(path), "%s/ca.pem", in(name));
	assert_int_equal(lb_file_write(env, path, ca, size_bytes, 0644), 0);
}

/* --- who may --- */

static void a_certificate_of_our_authority_says_who_calls(void **state)
{
	_cleanup_json_ json_t *reply = NULL;

	(void)state;
	assert_int_equal(get("machine", "/v1/who", &reply), 0);
	assert_string_equal(json_string_value(json_object_get(reply, "name")), "machine-1");
	assert_string_equal(json_string_value(json_object_get(reply, "role")), "machine");
	assert_string_equal(json_string_value(json_object_get(reply, "address")), "127.0.0.1");
}

static void a_client_without_a_certificate_gets_only_what_is_open_to_all(void **state)
{
	_cleanup_json_ json_t *reply = NULL;

	(void)state;
	make_stranger("stranger");
	assert_int_equal(get("stranger", "/v1/who", NULL), -EACCES);
	assert_int_equal(atomic_load(&calls), 0);
	assert_int_equal(get("stranger", "/v1/open", &reply), 0);
	assert_string_equal(json_string_value(json_object_get(reply, "role")), "none");
}

static void a_certificate_of_another_authority_is_refused_everywhere(void **state)
{
	_cleanup_free_ uint8_t *ca = NULL;
	size_t size_bytes;

	(void)state;
	assert_int_equal(lb_ca_open(env, in("other-ca"), lb_now_ns(env)), 0);
	issue("other-ca", "foreign", "machine-1", LB_ROLE_MACHINE, lb_now_ns(env), 30);
	/* it trusts our server, as an attacker would */
	assert_int_equal(lb_file_read(env, in("ca/ca.pem"), LB_PEM_BYTES_MAX, &ca, &size_bytes), 0);
	assert_int_equal(lb_file_write(env, in("foreign/ca.pem"), ca, size_bytes, 0644), 0);
	assert_int_equal(get("foreign", "/v1/who", NULL), -EACCES);
	assert_int_equal(get("foreign", "/v1/open", NULL), -EACCES);
	assert_int_equal(atomic_load(&calls), 0);
}

static void a_server_of_another_authority_is_refused_by_the_client(void **state)
{
	(void)state;
	assert_int_equal(lb_ca_open(env, in("other-ca"), lb_now_ns(env)), 0);
	issue("other-ca", "elsewhere", "machine-1", LB_ROLE_MACHINE, lb_now_ns(env), 30);
	assert_int_equal(get("elsewhere", "/v1/open", NULL), -EACCES);
	assert_int_equal(atomic_load(&calls), 0);
}

static void a_machine_can_not_pose_as_a_server(void **state)
{
	(void)state;
	lb_http_server_stop(server);
	issue("ca", "server", "machine-2", LB_ROLE_MACHINE, lb_now_ns(env), 30);
	start(0);
	assert_int_equal(get("machine", "/v1/who", NULL), -EACCES);
	assert_int_equal(atomic_load(&calls), 0);
}

static void a_role_that_may_not_is_refused(void **state)
{
	(void)state;
	assert_int_equal(get("machine", "/v1/administrator", NULL), -EACCES);
	assert_non_null(strstr(lb_err_text(), "machine"));
	assert_int_equal(atomic_load(&calls), 0);
	issue("ca", "admin", "someone", LB_ROLE_ADMIN, lb_now_ns(env), 30);
	assert_int_equal(get("admin", "/v1/administrator", NULL), 0);
}

static void a_revoked_certificate_is_refused_on_a_connection_that_is_open(void **state)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");

	(void)state;
	assert_int_equal(lb_http_json(c, "GET", url("/v1/who"), NULL, NULL), 0);
	assert_int_equal(lb_cert_fingerprint(in("machine/cert.pem"), &revoked), 0);
	assert_int_equal(lb_http_json(c, "GET", url("/v1/who"), NULL, NULL), -EACCES);
	assert_non_null(strstr(lb_err_text(), "revoked"));
}

static void an_expired_certificate_can_only_be_renewed(void **state)
{
	_cleanup_json_ json_t *reply = NULL;

	(void)state;
	issue("ca", "late", "machine-1", LB_ROLE_MACHINE, lb_now_ns(env) - 40 * DAY_NS, 30);
	assert_int_equal(get("late", "/v1/who", NULL), -EACCES);
	assert_non_null(strstr(lb_err_text(), "expired"));
	assert_int_equal(get("late", "/v1/renew", &reply), 0);
	assert_true(json_is_true(json_object_get(reply, "expired")));
}

static void a_certificate_of_the_future_is_refused(void **state)
{
	(void)state;
	issue("ca", "early", "machine-1", LB_ROLE_MACHINE, lb_now_ns(env) + 40 * DAY_NS, 30);
	assert_int_equal(get("early", "/v1/renew", NULL), -EACCES);
	assert_non_null(strstr(lb_err_text(), "clock"));
}

static SSL *tls_connect(const char *identity, int version_max, int *ret_fd)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons(lb_http_server_port(server)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	char path[300];
	SSL *ssl;

	SSL_CTX_set_max_proto_version(ctx, version_max);
	snprintf(path, sizeof(path), "%s/cert.pem", in(identity));
	assert_int_equal(SSL_CTX_use_certificate_file(ctx, path, SSL_FILETYPE_PEM), 1);
	snprintf(path, sizeof(path), "%s/key.pem", in(identity));
	assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM), 1);
	ssl = SSL_new(ctx);
	SSL_CTX_free(ctx);
	*ret_fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(*ret_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	SSL_set_fd(ssl, *ret_fd);
	if (SSL_connect(ssl) == 1)
		return ssl;
	SSL_free(ssl);
	close(*ret_fd);
	return NULL;
}

static void tls_1_2_is_refused(void **state)
{
	SSL *ssl;
	int fd;

	(void)state;
	assert_null(tls_connect("machine", TLS1_2_VERSION, &fd));
	ssl = tls_connect("machine", TLS1_3_VERSION, &fd);
	assert_non_null(ssl);
	SSL_free(ssl);
	close(fd);
}

/* --- bodies --- */

static void a_body_arrives_whole(void **state)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");
	_cleanup_(lb_http_response_free) struct lb_http_response response = {0};
	_cleanup_free_ uint8_t *body = malloc(BODY_BYTES_MAX);
	_cleanup_json_ json_t *reply = NULL;
	struct lb_http_request q = {.method = "PUT",
				    .body = body,
				    .body_bytes = BODY_BYTES_MAX,
				    .response_bytes_max = 1024,
				    .content_type = "application/octet-stream"};
	struct lb_digest expected, got;

	(void)state;
	q.url = url("/v1/body");
	for (size_t i = 0; i < BODY_BYTES_MAX; i++)
		body[i] = (uint8_t)(i * 2654435761u >> 24);
	lb_sha256(body, BODY_BYTES_MAX, &expected);
	assert_int_equal(lb_http_send(c, &q, &response), 0);
	assert_int_equal(response.status, 200);
	assert_int_equal(lb_json_parse(response.body.data, response.body.size_bytes, 1024, &reply), 0);
	assert_int_equal(lb_json_get_digest(reply, "sha256", &got), 0);
	assert_memory_equal(got.bytes, expected.bytes, LB_DIGEST_BYTES);
}

static unsigned int put_status(struct lb_http_client *c, const char *path, size_t size_bytes, const char *header)
{
	_cleanup_(lb_http_response_free) struct lb_http_response response = {0};
	_cleanup_free_ uint8_t *body = calloc(1, size_bytes);
	const char *headers[] = {header, NULL};
	struct lb_http_request q = {.method = "PUT",
				    .body = body,
				    .body_bytes = size_bytes,
				    .response_bytes_max = 4096,
				    .headers = headers};

	q.url = url(path);
	assert_int_equal(lb_http_send(c, &q, &response), 0);
	return response.status;
}

static void a_body_over_the_limit_is_refused_before_it_is_taken(void **state)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");

	(void)state;
	assert_int_equal(put_status(c, "/v1/small", SMALL_BODY_BYTES_MAX, NULL), 200);
	assert_int_equal(put_status(c, "/v1/small", SMALL_BODY_BYTES_MAX + 1, NULL), 413);
	assert_int_equal(put_status(c, "/v1/body", BODY_BYTES_MAX + 1, NULL), 413);
	assert_int_equal(put_status(c, "/v1/small", SMALL_BODY_BYTES_MAX, NULL), 200);
	assert_int_equal(atomic_load(&calls), 2);
}

static void a_body_of_unknown_length_is_refused(void **state)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");

	(void)state;
	assert_int_equal(put_status(c, "/v1/small", 10, "Transfer-Encoding: chunked"), 411);
	assert_int_equal(atomic_load(&calls), 0);
}

static void a_truncated_body_never_reaches_its_handler(void **state)
{
	static const char head[] = "PUT /v1/small HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nonly these";
	char answer[64];
	SSL *ssl;
	int fd;

	(void)state;
	ssl = tls_connect("machine", TLS1_3_VERSION, &fd);
	assert_non_null(ssl);
	assert_true(SSL_write(ssl, head, sizeof(head) - 1) > 0);
	shutdown(fd, SHUT_WR);
	assert_true(SSL_read(ssl, answer, sizeof(answer)) <= 0);
	SSL_free(ssl);
	close(fd);
	/* stopping waits for whatever still runs */
	lb_http_server_stop(server);
	assert_int_equal(atomic_load(&calls), 0);
	start(0);
}

static void *hold_one(void *arg)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");

	(void)arg;
	return (void *)(uintptr_t)put_status(c, "/v1/hold", TOTAL_BYTES_MAX - 50, NULL);
}

static void bodies_over_the_limit_of_all_are_told_to_come_later(void **state)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");
	pthread_t thread;
	void *status;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, hold_one, NULL), 0);
	while (!atomic_load(&gate_reached))
		sched_yield();
	assert_int_equal(put_status(c, "/v1/small", 51, NULL), 503);
	assert_int_equal(put_status(c, "/v1/small", 50, NULL), 200);
	atomic_store(&gate_open, true);
	pthread_join(thread, &status);
	assert_int_equal((uintptr_t)status, 200);
	assert_int_equal(put_status(c, "/v1/small", 51, NULL), 200);
}

/* --- connections --- */

#define THREADS 48
#define IDLE_TRIES 20
#define REQUESTS_PER_THREAD 20

static void *many_requests(void *arg)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");
	uintptr_t good = 0;

	(void)arg;
	for (int i = 0; i < REQUESTS_PER_THREAD; i++)
		good += put_status(c, "/v1/small", (size_t)i + 1, NULL) == 200;
	return (void *)good;
}

static void many_connections_at_once_are_all_served(void **state)
{
	pthread_t threads[THREADS];
	uintptr_t good = 0;

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, many_requests, NULL), 0);
	for (int i = 0; i < THREADS; i++) {
		void *n;

		pthread_join(threads[i], &n);
		good += (uintptr_t)n;
	}
	assert_int_equal(good, THREADS * REQUESTS_PER_THREAD);
	assert_int_equal(atomic_load(&calls), THREADS * REQUESTS_PER_THREAD);
}

static void an_idle_connection_is_closed_by_the_server(void **state)
{
	unsigned int tries = 0;
	char byte;
	SSL *ssl;
	int fd;

	(void)state;
	lb_http_server_stop(server);
	start(1);
	/* on a busy machine the handshake itself may take too long for such a server */
	do
		ssl = tls_connect("machine", TLS1_3_VERSION, &fd);
	while (ssl == NULL && ++tries < IDLE_TRIES);
	assert_non_null(ssl);
	/* returns only when the server closes */
	assert_true(SSL_read(ssl, &byte, 1) <= 0);
	SSL_free(ssl);
	close(fd);
}

static void a_client_outlives_a_restart_of_its_server(void **state)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");

	(void)state;
	assert_int_equal(lb_http_json(c, "GET", url("/v1/who"), NULL, NULL), 0);
	lb_http_server_stop(server);
	start(0);
	assert_int_equal(lb_http_json(c, "GET", url("/v1/who"), NULL, NULL), 0);
}

static void a_server_that_is_gone_is_told_with_its_address(void **state)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");

	(void)state;
	lb_http_server_stop(server);
	assert_int_equal(lb_http_json(c, "GET", url("/v1/who"), NULL, NULL), -ECONNREFUSED);
	assert_non_null(strstr(lb_err_text(), base_url));
	start(0);
}

static void a_renewed_certificate_is_shown_on_the_same_port(void **state)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");
	uint16_t port = lb_http_server_port(server);
	struct lb_digest before, shown;
	X509 *cert;
	SSL *ssl;
	int fd;

	(void)state;
	assert_int_equal(lb_cert_fingerprint(in("server/cert.pem"), &before), 0);
	issue("ca", "server", "config", LB_ROLE_CONFIG, lb_now_ns(env), 60);
	assert_int_equal(lb_http_server_reload(server), 0);
	assert_int_equal(lb_http_server_port(server), port);
	ssl = tls_connect("machine", TLS1_3_VERSION, &fd);
	assert_non_null(ssl);
	cert = SSL_get1_peer_certificate(ssl);
	assert_int_equal(X509_digest(cert, EVP_sha256(), shown.bytes, NULL), 1);
	assert_memory_not_equal(shown.bytes, before.bytes, LB_DIGEST_BYTES);
	X509_free(cert);
	SSL_free(ssl);
	close(fd);
	assert_int_equal(lb_http_json(c, "GET", url("/v1/who"), NULL, NULL), 0);
}

static void a_reload_with_files_that_do_not_fit_changes_nothing(void **state)
{
	(void)state;
	issue("ca", "strange", "config", LB_ROLE_CONFIG, lb_now_ns(env), 30);
	assert_int_equal(env->ops->rename(env, in("strange/key.pem"), in("server/key.pem")), 0);
	assert_int_equal(lb_http_server_reload(server), -EBADMSG);
	assert_int_equal(get("machine", "/v1/who", NULL), 0);
}

/* --- routes and errors --- */

static void errors_of_handlers_arrive_as_code_and_message(void **state)
{
	static const struct {
		int code, status, seen;
	} cases[] = {
		{ENOENT, 404, -ENOENT}, {EEXIST, 409, -EEXIST},    {ESTALE, 409, -EEXIST}, {EACCES, 403, -EACCES},
		{EINVAL, 400, -EINVAL}, {EBADMSG, 400, -EINVAL},   {EAGAIN, 429, -EAGAIN}, {ENOSPC, 507, -ENOSPC},
		{EIO, 500, -EREMOTEIO}, {ENOMEM, 500, -EREMOTEIO},
	};

	(void)state;
	lb_log_init("test_wire", 0); /* these failures are meant */
	for (size_t i = 0; i < LB_ARRAY_LEN(cases); i++) {
		char path[64];

		snprintf(path, sizeof(path), "/v1/fail/%d/vda", cases[i].code);
		assert_int_equal(lb_http_status_of(-cases[i].code), cases[i].status);
		assert_int_equal(get("machine", path, NULL), cases[i].seen);
		assert_string_equal(lb_err_text(), "disk vda is not there; look for it");
	}
}

static void unknown_paths_and_methods_are_told_apart(void **state)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");

	(void)state;
	assert_int_equal(lb_http_json(c, "GET", url("/v1/nothing"), NULL, NULL), -ENOENT);
	assert_int_equal(put_status(c, "/v1/who", 1, NULL), 405);
	assert_int_equal(atomic_load(&calls), 0);
}

static void a_route_takes_path_components_in_order_and_no_more(void **state)
{
	static const struct lb_http_route table[] = {
		{"GET", "/v1/machine/{}", 0, 0, who, false},
		{"POST", "/v1/machine/{}/enable", 0, 0, who, false},
		{"PUT", "/v1/journal/{}/{}", 0, 0, who, false},
	};
	char params[LB_HTTP_PARAMS_MAX][LB_HTTP_PARAM_BYTES], path[400];
	const struct lb_http_route *route;

	(void)state;
	assert_int_equal(lb_route_find(table, 3, "PUT", "/v1/journal/7/12", &route, params), 0);
	assert_ptr_equal(route, &table[2]);
	assert_string_equal(params[0], "7");
	assert_string_equal(params[1], "12");
	assert_int_equal(lb_route_find(table, 3, "POST", "/v1/machine/x/enable", &route, params), 0);
	assert_ptr_equal(route, &table[1]);
	assert_int_equal(lb_route_find(table, 3, "GET", "/v1/machine/", &route, params), -ENOENT);
	assert_int_equal(lb_route_find(table, 3, "GET", "/v1/machine/x/", &route, params), -ENOENT);
	assert_int_equal(lb_route_find(table, 3, "GET", "/v1/machine", &route, params), -ENOENT);
	assert_int_equal(lb_route_find(table, 3, "GET", "/v1/machine/x/enable", &route, params), -EOPNOTSUPP);
	snprintf(path, sizeof(path), "/v1/machine/%0200d", 1);
	assert_int_equal(lb_route_find(table, 3, "GET", path, &route, params), -ENOENT);
}

static void an_answer_over_the_limit_is_refused_by_the_client(void **state)
{
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = client("machine");
	_cleanup_(lb_http_response_free) struct lb_http_response response = {0};
	struct lb_http_request q = {.method = "GET", .response_bytes_max = 32767};

	(void)state;
	q.url = url("/v1/large");
	assert_int_equal(lb_http_send(c, &q, &response), -EMSGSIZE);
	q.response_bytes_max = 32768;
	assert_int_equal(lb_http_send(c, &q, &response), 0);
	assert_int_equal(response.body.size_bytes, 32768);
}

/* --- the authority --- */

static void a_request_that_was_altered_is_refused(void **state)
{
	struct lb_issue i = {.common_name = "m", .role = LB_ROLE_MACHINE, .now_ns = lb_now_ns(env), .valid_days = 1};
	_cleanup_free_ char *csr = NULL, *cert = NULL;
	size_t refused = 0, length;

	(void)state;
	assert_int_equal(lb_pki_request(env, in("new"), "m", &csr), 0);
	length = strlen(csr);
	/* any one base64 digit of it changed */
	for (size_t at = strlen("-----BEGIN CERTIFICATE REQUEST-----\n"); at < length - 40; at += 7) {
		char kept = csr[at];

		if (kept == '\n' || kept == '=')
			continue;
		csr[at] = kept == 'A' ? 'B' : 'A';
		assert_int_equal(lb_ca_issue(env, in("ca"), csr, &i, &cert), -EINVAL);
		assert_null(cert);
		csr[at] = kept;
		refused++;
	}
	assert_true(refused > 30);
	assert_int_equal(lb_ca_issue(env, in("ca"), csr, &i, &cert), 0);
}

static void a_request_can_not_choose_its_name_or_role(void **state)
{
	struct lb_issue i = {
		.common_name = "machine-9", .role = LB_ROLE_MACHINE, .now_ns = lb_now_ns(env), .valid_days = 1};
	_cleanup_free_ char *csr = NULL, *cert = NULL;
	struct lb_cert_info info;

	(void)state;
	assert_int_equal(lb_pki_request(env, in("new"), "administrator", &csr), 0);
	assert_int_equal(lb_ca_issue(env, in("ca"), csr, &i, &cert), 0);
	assert_int_equal(lb_cert_read(env, cert, &info), 0);
	assert_string_equal(info.common_name, "machine-9");
	assert_int_equal(info.role, LB_ROLE_MACHINE);
}

static void private_keys_are_readable_by_their_owner_only(void **state)
{
	static const char *const keys[] = {"ca/ca-key.pem", "server/key.pem", "machine/key.pem"};
	struct stat st;

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(keys); i++) {
		assert_int_equal(stat(in(keys[i]), &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
}

static void an_authority_without_its_key_is_not_made_anew(void **state)
{
	(void)state;
	assert_int_equal(unlink(in("ca/ca-key.pem")), 0);
	assert_int_equal(lb_ca_open(env, in("ca"), lb_now_ns(env)), -ENOKEY);
}

static void renewal_is_due_after_two_thirds_of_a_certificates_life(void **state)
{
	struct lb_cert_info info = {.not_before_ns = 0, .not_after_ns = 30 * DAY_NS};

	(void)state;
	assert_false(lb_cert_renewal_due(&info, 20 * DAY_NS - 1));
	assert_true(lb_cert_renewal_due(&info, 20 * DAY_NS));
}

static int first_contact(const char *fingerprint_hex)
{
	struct lb_http_client_options o = {.identity_folder = in("empty"), .ca_fingerprint_hex = fingerprint_hex};
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = NULL;

	assert_int_equal(lb_http_client_new(&o, &c), 0);
	return lb_http_json(c, "GET", url("/v1/open"), NULL, NULL);
}

static void first_contact_accepts_only_the_authority_with_the_fingerprint(void **state)
{
	char hex[2 * LB_DIGEST_BYTES + 1];
	struct lb_digest d;

	(void)state;
	assert_int_equal(lb_cert_fingerprint(in("ca/ca.pem"), &d), 0);
	lb_hex_encode(d.bytes, LB_DIGEST_BYTES, hex);
	assert_int_equal(first_contact(hex), 0);
	hex[10] = hex[10] == '0' ? '1' : '0';
	assert_int_equal(first_contact(hex), -EACCES);
	assert_non_null(strstr(lb_err_text(), "fingerprint"));
	/* the server's own certificate is no authority */
	assert_int_equal(lb_cert_fingerprint(in("server/cert.pem"), &d), 0);
	lb_hex_encode(d.bytes, LB_DIGEST_BYTES, hex);
	assert_int_equal(first_contact(hex), -EACCES);
	assert_int_equal(atomic_load(&calls), 1);
}

/* Takes one connection, hears the beginning of the handshake and is gone. */
static void *die_in_handshake(void *arg)
{
	const struct linger reset = {.l_onoff = 1};
	int fd = accept(*(int *)arg, NULL, NULL);
	char first;

	assert_true(fd >= 0);
	assert_int_equal(read(fd, &first, 1), 1);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	return NULL;
}

static void a_server_that_dies_in_the_handshake_refuses_nobody(void **state)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct lb_http_client_options o = {.identity_folder = in("machine")};
	_cleanup_(lb_http_client_freep) struct lb_http_client *c = NULL;
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t n = sizeof(address);
	char text[64];
	pthread_t thread;
	int r;

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&address, n), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
	assert_int_equal(pthread_create(&thread, NULL, die_in_handshake, &fd), 0);
	assert_int_equal(lb_http_client_new(&o, &c), 0);
	snprintf(text, sizeof(text), "https://127.0.0.1:%u/v1/open", ntohs(address.sin_port));
	r = lb_http_json(c, "GET", text, NULL, NULL);
	pthread_join(thread, NULL);
	assert_true(r == -EPROTO || r == -ECONNRESET);
}

static char *read_text(const char *path)
{
	uint8_t *data = NULL;
	size_t size_bytes;

	assert_int_equal(lb_file_read(env, path, LB_PEM_BYTES_MAX, &data, &size_bytes), 0);
	return (char *)data;
}

static void only_what_belongs_together_is_installed(void **state)
{
	_cleanup_free_ char *ca = read_text(in("ca/ca.pem")), *cert = read_text(in("machine/cert.pem")),
			    *other_ca = NULL, *other_cert = NULL;
	char hex[2 * LB_DIGEST_BYTES + 1];
	struct lb_digest d;

	(void)state;
	assert_int_equal(lb_ca_open(env, in("other-ca"), lb_now_ns(env)), 0);
	issue("other-ca", "other", "machine-1", LB_ROLE_MACHINE, lb_now_ns(env), 30);
	other_ca = read_text(in("other-ca/ca.pem"));
	other_cert = read_text(in("other/cert.pem"));
	lb_cert_fingerprint(ca, &d);
	lb_hex_encode(d.bytes, LB_DIGEST_BYTES, hex);
	assert_int_equal(lb_pki_install(env, in("machine"), cert, other_ca, hex), -EACCES);
	assert_int_equal(lb_pki_install(env, in("machine"), cert, other_ca, NULL), -EACCES);
	assert_int_equal(lb_pki_install(env, in("machine"), other_cert, ca, hex), -EACCES);
	assert_int_equal(lb_pki_install(env, in("other"), cert, ca, hex), -EACCES);
	assert_int_equal(lb_pki_install(env, in("machine"), cert, ca, hex), 0);
}

/* --- policies, notification --- */

static int parse_policy(const char *text, bool strict, struct lb_policy *policy)
{
	_cleanup_json_ json_t *j = NULL;

	assert_int_equal(lb_json_parse(text, strlen(text), 4096, &j), 0);
	return lb_policy_parse(j, strict, policy);
}

static void a_policy_keeps_to_its_limits(void **state)
{
	static const char *const bad[] = {
		"{\"consistency_interval_s\":0}",
		"{\"consistency_interval_s\":3601}",
		"{\"upload_interval_s\":0}",
		"{\"zstd_level\":10}",
		"{\"zstd_level\":-1}",
		"{\"ring_bytes\":16777215}",
		"{\"ring_bytes\":50331648}",
		"{\"ring_bytes\":4294967296}",
		"{\"name\":\"../up\"}",
		"{\"name\":7}",
		"{\"rpo_threshold_s\":\"60\"}",
		"{\"rpo_treshold_s\":60}",
		"{\"app_consistent_interval_s\":9}",
		"{\"app_consistent_interval_s\":86401}",
		"{\"retention\":\"\"}",
		"{\"retention\":\"all\"}",
		"{\"retention\":\"all:2h 1h:2h\"}",
		"{\"retention\":\"2h:1d 1h:7d\"}",
		"{\"retention\":\"all:2h 1h:366d\"}",
		"{\"retention\":\"0h:1d\"}",
		"{\"retention\":7200}",
		"{\"delete_delay_s\":7776001}",
	};
	struct lb_policy policy;

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++)
		assert_true(parse_policy(bad[i], true, &policy) < 0);
	assert_int_equal(parse_policy("{\"rpo_treshold_s\":60}", false, &policy), 0);
	assert_int_equal(parse_policy("{\"ring_bytes\":2147483648,\"consistency_interval_s\":1}", true, &policy), 0);
	assert_int_equal(policy.ring_bytes, 2147483648u);
}

static void a_policy_comes_back_as_it_was_written(void **state)
{
	struct lb_policy policy = lb_policy_default, back;
	_cleanup_json_ json_t *j = NULL;

	(void)state;
	strcpy(policy.name, "gold");
	policy.budget_ns_per_kib = 77;
	policy.bandwidth_bytes_per_s = 1u << 20;
	policy.zstd_level = 0;
	policy.app_consistent_interval_s = 3600;
	assert_int_equal(lb_ladder_parse("all:90m, 6h:365d", &policy.retention), 0);
	policy.object_lock_days = 30;
	assert_int_equal(lb_policy_print(&policy, &j), 0);
	assert_int_equal(lb_policy_parse(j, true, &back), 0);
	assert_memory_equal(&policy, &back, sizeof(policy));
}

static void the_service_manager_hears_a_notification(void **state)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	char heard[32] = "";

	(void)state;
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(lb_notify("READY=1"), 0);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", in("notify"));
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	setenv("NOTIFY_SOCKET", sa.sun_path, 1);
	assert_int_equal(lb_notify("READY=1"), 0);
	assert_int_equal(recv(fd, heard, sizeof(heard) - 1, 0), 7);
	assert_string_equal(heard, "READY=1");
	setenv("NOTIFY_SOCKET", in("nobody"), 1);
	assert_int_equal(lb_notify("READY=1"), -ENOENT);
	unsetenv("NOTIFY_SOCKET");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_certificate_of_our_authority_says_who_calls),
		T(a_client_without_a_certificate_gets_only_what_is_open_to_all),
		T(a_certificate_of_another_authority_is_refused_everywhere),
		T(a_server_of_another_authority_is_refused_by_the_client),
		T(a_machine_can_not_pose_as_a_server),
		T(a_role_that_may_not_is_refused),
		T(a_revoked_certificate_is_refused_on_a_connection_that_is_open),
		T(an_expired_certificate_can_only_be_renewed),
		T(a_certificate_of_the_future_is_refused),
		T(tls_1_2_is_refused),
		T(a_body_arrives_whole),
		T(a_body_over_the_limit_is_refused_before_it_is_taken),
		T(a_body_of_unknown_length_is_refused),
		T(a_truncated_body_never_reaches_its_handler),
		T(bodies_over_the_limit_of_all_are_told_to_come_later),
		T(many_connections_at_once_are_all_served),
		T(an_idle_connection_is_closed_by_the_server),
		T(a_client_outlives_a_restart_of_its_server),
		T(a_server_that_is_gone_is_told_with_its_address),
		T(a_renewed_certificate_is_shown_on_the_same_port),
		T(a_reload_with_files_that_do_not_fit_changes_nothing),
		T(errors_of_handlers_arrive_as_code_and_message),
		T(unknown_paths_and_methods_are_told_apart),
		T(a_route_takes_path_components_in_order_and_no_more),
		T(an_answer_over_the_limit_is_refused_by_the_client),
		T(a_request_that_was_altered_is_refused),
		T(a_request_can_not_choose_its_name_or_role),
		T(private_keys_are_readable_by_their_owner_only),
		T(an_authority_without_its_key_is_not_made_anew),
		T(renewal_is_due_after_two_thirds_of_a_certificates_life),
		T(a_server_that_dies_in_the_handshake_refuses_nobody),
		T(first_contact_accepts_only_the_authority_with_the_fingerprint),
		T(only_what_belongs_together_is_installed),
		T(a_policy_keeps_to_its_limits),
		T(a_policy_comes_back_as_it_was_written),
		T(the_service_manager_hears_a_notification),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
