/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's life: its head comes, and before a byte of the body is taken route, peer, role, length and room are
 * decided; the body comes; the handler runs. A refusal is told at once where that reaches the client (it waits for
 * "100 Continue", or sends little), else the connection ends.
 */
#include "wire/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/log.h"
#include "base/text.h"
#include "wire/peer.h"
#include "wire/reply.h"
#include "wire/routes.h"
#include "wire/x509.h"

#define TLS_PRIORITIES                                                                                                 \
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM:+CHACHA20-POLY1305:"                      \
	"-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1"
#define CONNECTION_MEMORY_BYTES (64u << 10) /* head of a request, and what is read of a body at once */
#define BODY_BYTES_TOTAL_DEFAULT ((size_t)64 << 20)
#define DRAIN_BYTES_MAX (64u << 10) /* of a refused body, so that the client gets to read the refusal */
#define BUSY_RETRY_AFTER_S 1

struct lb_http_server {
	struct lb_http_server_options options;
	char *identity_folder;
	char *address;
	struct MHD_Daemon *daemon;
	struct lb_peer_trust *trust;
	atomic_size_t body_bytes;
	uint16_t port;
};

/* Kept per TLS connection: the peer is verified once, and again when its certificate's time is over. */
struct connection_state {
	struct lb_http_peer peer;
	int64_t until_ns;
	bool known;
};

struct request {
	struct lb_http_server *server;
	const struct lb_http_route *route;
	struct lb_http_call call;
	uint8_t *body;
	size_t body_bytes_expected, body_bytes_got, reserved_bytes;
	int64_t started_ns;
	/* why it is refused; `error` 0: it is not */
	int error;
	unsigned int status;
	uint32_t retry_after_s;
	char text[LB_ERR_TEXT_BYTES_MAX];
};

const char *lb_http_query(const struct lb_http_call *call, const char *name)
{
	return MHD_lookup_connection_value(call->connection, MHD_GET_ARGUMENT_KIND, name);
}

const char *lb_http_header(const struct lb_http_call *call, const char *name)
{
	return MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, name);
}

static void read_address(struct MHD_Connection *connection, char address[64])
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr *sa = info != NULL ? info->client_addr : NULL;

	address[0] = '\0';
	if (sa != NULL && sa->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)sa)->sin_addr, address, 64);
	else if (sa != NULL && sa->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)sa)->sin6_addr, address, 64);
}

static void notify_connection(void *arg, struct MHD_Connection *connection, void **context,
			      enum MHD_ConnectionNotificationCode code)
{
	(void)arg;
	(void)connection;
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		*context = calloc(1, sizeof(struct connection_state));
	else
		free(*context);
}

static int read_peer(struct lb_http_server *s, struct MHD_Connection *connection, struct lb_http_peer *ret_peer)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct connection_state *state = info != NULL ? info->socket_context : NULL;
	int64_t now_ns = lb_now_ns(lb_env_real());
	int r;

	if (state == NULL)
		return lb_fail(-ENOMEM, "out of memory for a connection");
	if (!state->known || now_ns >= state->until_ns) {
		read_address(connection, state->peer.address);
		info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
		if (info == NULL || info->tls_session == NULL)
			return lb_fail(-EACCES, "the connection is not encrypted");
		r = lb_peer_read(s->trust, info->tls_session, now_ns, &state->peer, &state->until_ns);
		if (r < 0)
			return r;
		state->known = true;
	}
	*ret_peer = state->peer;
	return 0;
}

static int check_peer(struct lb_http_server *s, const struct lb_http_route *route, const struct lb_http_peer *peer)
{
	if (peer->role == LB_ROLE_NONE && !(route->roles & LB_ROLE_BIT(LB_ROLE_NONE)))
		return lb_fail(-EACCES, "this needs a client certificate; enrol first");
	if (!(route->roles & LB_ROLE_BIT(peer->role)))
		return lb_fail(-EACCES, "the role \"%s\" may not do this", lb_role_name(peer->role));
	if (peer->role == LB_ROLE_NONE)
		return 0;
	if (peer->expired && !route->expired_ok)
		return lb_fail(-EACCES, "the certificate of %s has expired; renew it", peer->name);
	if (s->options.peer_allowed != NULL && !s->options.peer_allowed(s->options.arg, peer))
		return lb_fail(-EACCES, "the certificate of %s has been revoked; enrol again", peer->name);
	return 0;
}

/* Reserves the body's bytes of the server's total; `ret_status` is set with errors that have no errno of their own. */
static int take_length(struct request *q, struct MHD_Connection *connection)
{
	const char *text = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
	size_t total_max = q->server->options.body_bytes_total_max;
	uint64_t length = 0;

	if (MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Transfer-Encoding") != NULL) {
		q->status = 411;
		return lb_fail(-EINVAL, "a body must announce its Content-Length");
	}
	if (text != NULL && lb_u64_parse(text, INT64_MAX, &length) < 0)
		return -EINVAL;
	q->body_bytes_expected = length;
	if (length > q->route->body_bytes_max)
		return lb_fail(-EMSGSIZE, "a body of %" PRIu64 " bytes exceeds the limit of %zu", length,
			       q->route->body_bytes_max);
	if (atomic_fetch_add(&q->server->body_bytes, length) + length > total_max) {
		atomic_fetch_sub(&q->server->body_bytes, length);
		q->status = 503;
		q->retry_after_s = BUSY_RETRY_AFTER_S;
		return lb_fail(-EAGAIN, "too many requests at once; try again");
	}
	q->reserved_bytes = length;
	q->body = malloc(length + 1);
	if (q->body == NULL)
		return lb_fail(-ENOMEM, "out of memory for a body of %" PRIu64 " bytes", length);
	return 0;
}

static int decide(struct request *q, struct MHD_Connection *connection)
{
	struct lb_http_server *s = q->server;
	int r;

	r = read_peer(s, connection, &q->call.peer);
	if (r < 0)
		return r;
	r = lb_route_find(s->options.routes, s->options.n_routes, q->call.method, q->call.path, &q->route,
			  q->call.params);
	if (r == -EOPNOTSUPP)
		q->status = 405;
	if (r < 0)
		return r;
	r = check_peer(s, q->route, &q->call.peer);
	if (r < 0)
		return r;
	return take_length(q, connection);
}

static enum MHD_Result refuse(struct request *q, struct MHD_Connection *connection)
{
	lb_fail(q->error, "%s", q->text);
	lb_info("%s %s (%s) refused %s %s: %s", q->call.peer.address, q->call.peer.name,
		lb_role_name(q->call.peer.role), q->call.method, q->call.path, q->text);
	return lb_reply_error(connection, q->status, q->error, q->retry_after_s);
}

static enum MHD_Result request_begin(struct lb_http_server *s, struct MHD_Connection *connection, const char *path,
				     const char *method, void **context)
{
	struct request *q = calloc(1, sizeof(*q));
	const char *expect = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Expect");

	if (q == NULL)
		return MHD_NO;
	*context = q;
	q->server = s;
	q->call.path = path;
	q->call.method = method;
	q->call.connection = connection;
	q->started_ns = lb_mono_ns(lb_env_real());
	q->error = decide(q, connection);
	if (q->error == 0)
		return MHD_YES;
	snprintf(q->text, sizeof(q->text), "%s", lb_err_text());
	if (expect != NULL || q->body_bytes_expected > DRAIN_BYTES_MAX)
		return refuse(q, connection);
	return MHD_YES;
}

static enum MHD_Result request_body(struct request *q, const char *data, size_t *size_bytes)
{
	size_t n = *size_bytes, max = q->error != 0 ? DRAIN_BYTES_MAX : q->body_bytes_expected;

	if (n > max - q->body_bytes_got ||
	    lb_mono_ns(lb_env_real()) - q->started_ns > LB_HTTP_BODY_TIMEOUT_S * LB_NS_PER_S)
		return MHD_NO;
	if (q->error == 0)
		memcpy(q->body + q->body_bytes_got, data, n);
	q->body_bytes_got += n;
	*size_bytes = 0;
	return MHD_YES;
}

static void body_release(struct request *q)
{
	if (q->body != NULL && q->body_bytes_got <= LB_HTTP_JSON_BYTES_MAX)
		lb_wipe(q->body, q->body_bytes_got); /* tokens */
	free(q->body);
	q->body = NULL;
	atomic_fetch_sub(&q->server->body_bytes, q->reserved_bytes);
	q->reserved_bytes = 0;
}

static void log_failure(const struct request *q, int error)
{
	enum lb_log_level level = lb_http_status_of(error) >= 500 ? LB_LOG_ERROR : LB_LOG_INFO;

	lb_log(level, "%s %s: %s %s: %s", q->call.peer.address, q->call.peer.name, q->call.method, q->call.path,
	       lb_err_text());
}

static enum MHD_Result request_end(struct request *q, struct MHD_Connection *connection)
{
	struct lb_http_reply reply = {0};
	int r;

	if (q->error != 0)
		return refuse(q, connection);
	if (q->body_bytes_got != q->body_bytes_expected)
		return MHD_NO;
	q->body[q->body_bytes_got] = '\0';
	q->call.body = q->body;
	q->call.body_bytes = q->body_bytes_got;
	lb_err_clear();
	r = q->route->handler(q->server->options.arg, &q->call, &reply);
	/* before the answer goes out: who has it may count on the room */
	body_release(q);
	if (r >= 0)
		return lb_reply_send(connection, &reply);
	json_decref(reply.json);
	lb_buf_free(&reply.bytes);
	log_failure(q, r);
	return lb_reply_error(connection, 0, r, reply.retry_after_s > 0 ? reply.retry_after_s : r == -EAGAIN);
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
			      const char *version, const char *upload, size_t *upload_bytes, void **context)
{
	struct request *q = *context;

	(void)version;
	if (q == NULL)
		return request_begin(arg, connection, path, method, context);
	if (*upload_bytes > 0)
		return request_body(q, upload, upload_bytes);
	return request_end(q, connection);
}

static void request_completed(void *arg, struct MHD_Connection *connection, void **context,
			      enum MHD_RequestTerminationCode code)
{
	struct request *q = *context;

	(void)arg;
	(void)connection;
	(void)code;
	if (q == NULL)
		return;
	body_release(q);
	free(q);
	*context = NULL;
}

static void log_library(void *arg, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void log_library(void *arg, const char *fmt, va_list ap)
{
	char line[512];

	(void)arg;
	vsnprintf(line, sizeof(line), fmt, ap);
	lb_debug("HTTP: %s", line);
}

/* Key, certificate and CA as texts; libmicrohttpd copies what it needs. */
struct identity {
	char *key, *chain, *ca;
};

static void identity_free(struct identity *i)
{
	if (i->key != NULL)
		lb_wipe(i->key, strlen(i->key));
	free(i->key);
	free(i->chain);
	free(i->ca);
}

static int read_pem(const char *folder, const char *file, char **ret_text)
{
	char path[LB_IDENTITY_PATH_BYTES];
	size_t size_bytes;
	int r;

	r = lb_x509_path(path, folder, file);
	if (r < 0)
		return r;
	return lb_file_read(lb_env_real(), path, LB_PEM_BYTES_MAX, (uint8_t **)ret_text, &size_bytes);
}

/* That key and certificate are a pair is checked here: libmicrohttpd would only say that it can't start. */
static int check_pair(const struct identity *i, const char *folder)
{
	gnutls_datum_t key = {(unsigned char *)i->key, (unsigned int)strlen(i->key)};
	gnutls_datum_t chain = {(unsigned char *)i->chain, (unsigned int)strlen(i->chain)};
	gnutls_certificate_credentials_t credentials;
	int r;

	if (gnutls_certificate_allocate_credentials(&credentials) < 0)
		return lb_fail(-ENOMEM, "out of memory for certificates");
	r = gnutls_certificate_set_x509_key_mem(credentials, &chain, &key, GNUTLS_X509_FMT_PEM);
	gnutls_certificate_free_credentials(credentials);
	if (r < 0)
		return lb_fail(-EBADMSG, "%s: key.pem and cert.pem are not a pair: %s", folder, gnutls_strerror(r));
	return 0;
}

static int identity_read(const char *folder, struct identity *i)
{
	_cleanup_free_ char *cert = NULL;
	int r;

	r = read_pem(folder, "key.pem", &i->key);
	if (r == 0)
		r = read_pem(folder, "cert.pem", &cert);
	if (r == 0)
		r = read_pem(folder, "ca.pem", &i->ca);
	if (r < 0)
		return lb_wrap(r, "no identity to serve with");
	/* the CA is shown too, so that first contact can compare its fingerprint */
	if (asprintf(&i->chain, "%s\n%s", cert, i->ca) < 0) {
		i->chain = NULL;
		return lb_fail(-ENOMEM, "out of memory for certificates");
	}
	return check_pair(i, folder);
}

struct listen_address {
	struct sockaddr_storage sa;
	unsigned int flags;
};

static int parse_address(const char *address, uint16_t port, struct listen_address *ret)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&ret->sa;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret->sa;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, address, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		return 0;
	}
	if (inet_pton(AF_INET6, address, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		ret->flags = strcmp(address, "::") == 0 ? MHD_USE_DUAL_STACK : MHD_USE_IPv6;
		return 0;
	}
	return lb_fail(-EINVAL, "\"%.60s\" is no address to listen on; write 0.0.0.0, :: or one of this host's",
		       address);
}

/* `listen_fd` -1: opens its own port. */
static int daemon_start(struct lb_http_server *s, const struct identity *identity, int listen_fd,
			struct MHD_Daemon **ret_daemon)
{
	const struct lb_http_server_options *o = &s->options;
	struct listen_address a;
	struct MHD_OptionItem where[2] = {{MHD_OPTION_SOCK_ADDR, 0, &a.sa}, {MHD_OPTION_END, 0, NULL}};
	struct MHD_Daemon *daemon;
	int r;

	r = parse_address(s->address, s->port > 0 ? s->port : o->port, &a);
	if (r < 0)
		return r;
	if (listen_fd >= 0)
		where[0] = (struct MHD_OptionItem){MHD_OPTION_LISTEN_SOCKET, listen_fd, NULL};
	errno = 0;
	daemon = MHD_start_daemon(
		a.flags | MHD_USE_TLS | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
			MHD_USE_ITC | MHD_USE_ERROR_LOG,
		s->port > 0 ? s->port : o->port, NULL, NULL, handle, s, MHD_OPTION_EXTERNAL_LOGGER, log_library,
		NULL, /* first: later options may log */
		MHD_OPTION_ARRAY, where, MHD_OPTION_HTTPS_MEM_KEY, identity->key, MHD_OPTION_HTTPS_MEM_CERT,
		identity->chain, MHD_OPTION_HTTPS_MEM_TRUST, identity->ca, MHD_OPTION_HTTPS_PRIORITIES, TLS_PRIORITIES,
		MHD_OPTION_CONNECTION_LIMIT, o->connections_max, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
		o->connections_max_per_address, MHD_OPTION_CONNECTION_TIMEOUT, o->idle_timeout_s,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_NOTIFY_CONNECTION,
		notify_connection, s, MHD_OPTION_NOTIFY_COMPLETED, request_completed, s, MHD_OPTION_STRICT_FOR_CLIENT,
		1, MHD_OPTION_END);
	if (daemon == NULL)
		return lb_fail(errno != 0 ? -errno : -EIO, "can't listen on %s port %u: %s", s->address,
			       s->port > 0 ? s->port : o->port,
			       errno != 0 ? strerror(errno) : "the HTTP library refused to start");
	*ret_daemon = daemon;
	return 0;
}

static void server_free(struct lb_http_server *s)
{
	if (s->trust != NULL)
		lb_peer_trust_free(s->trust);
	free(s->identity_folder);
	free(s->address);
	free(s);
}

static struct lb_http_server *server_new(const struct lb_http_server_options *options)
{
	struct lb_http_server *s = calloc(1, sizeof(*s));
	struct lb_http_server_options *o;

	if (s == NULL)
		return NULL;
	s->options = *options;
	s->identity_folder = strdup(options->identity_folder);
	s->address = strdup(options->address);
	o = &s->options;
	o->identity_folder = s->identity_folder;
	o->address = s->address;
	if (o->connections_max == 0)
		o->connections_max = LB_HTTP_CONNECTIONS_MAX_DEFAULT;
	if (o->idle_timeout_s == 0)
		o->idle_timeout_s = LB_HTTP_IDLE_TIMEOUT_S_DEFAULT;
	if (o->body_bytes_total_max == 0)
		o->body_bytes_total_max = BODY_BYTES_TOTAL_DEFAULT;
	if (s->identity_folder == NULL || s->address == NULL) {
		server_free(s);
		return NULL;
	}
	return s;
}

int lb_http_server_start(const struct lb_http_server_options *options, struct lb_http_server **ret_server)
{
	_cleanup_(identity_free) struct identity identity = {0};
	struct lb_http_server *s = server_new(options);
	const union MHD_DaemonInfo *info;
	int r;

	if (s == NULL)
		return lb_fail(-ENOMEM, "out of memory for an HTTPS server");
	r = identity_read(s->identity_folder, &identity);
	if (r == 0)
		r = lb_peer_trust_new(identity.ca, &s->trust);
	if (r == 0)
		r = daemon_start(s, &identity, -1, &s->daemon);
	if (r < 0) {
		server_free(s);
		return r;
	}
	info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
	s->port = info != NULL ? info->port : options->port;
	*ret_server = s;
	return 0;
}

uint16_t lb_http_server_port(const struct lb_http_server *s)
{
	return s->port;
}

int lb_http_server_reload(struct lb_http_server *s)
{
	_cleanup_(identity_free) struct identity identity = {0};
	struct MHD_Daemon *daemon = NULL;
	int fd, r;

	r = identity_read(s->identity_folder, &identity);
	if (r < 0)
		return r;
	fd = MHD_quiesce_daemon(s->daemon);
	if (fd < 0)
		return lb_fail(-EIO, "the HTTPS server doesn't give its port up; restart the service");
	r = daemon_start(s, &identity, fd, &daemon);
	MHD_stop_daemon(s->daemon);
	s->daemon = daemon;
	return r;
}

void lb_http_server_stop(struct lb_http_server *s)
{
	if (s->daemon != NULL)
		MHD_stop_daemon(s->daemon);
	server_free(s);
}
