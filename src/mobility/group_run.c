/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/group_run.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "mobility/group.h"
#include "mobility/group_part.h"
#include "mobility/group_wire.h"
#include "wire/client.h"
#include "wire/server.h"

#define STEP_NS (500 * LB_NS_PER_MS)
#define PATH "/v1/group/message"
#define CONNECT_S 2
#define CONNECTIONS_MAX 128

/* A connection to one member, kept from message to message. */
struct peer {
	struct lb_uuid id;
	struct lb_http_client *client;
};

struct outcome {
	uint64_t number;
	json_t *json;
};

struct lb_group_run {
	struct lb_group_run_options o;
	pthread_t thread;
	int wake_fd;
	struct lb_uuid me;
	struct lb_group *group;
	struct lb_group_part *part;
	struct lb_http_server *server;
	struct peer peers[LB_GROUP_MEMBERS_MAX];
	unsigned int n_peers;
	bool leads;
	int64_t hello_ns, due_ns, app_due_ns;
	uint64_t obeyed; /* generation of the last order */
	char said[LB_ERR_TEXT_BYTES_MAX];

	pthread_mutex_t lock; /* what follows */
	bool stopping, renewed;
	struct lb_group_roster roster;
	struct lb_uuid machine;
	struct outcome outcomes[LB_GROUP_TOLD_MAX];
	unsigned int n_outcomes;
	uint64_t number;
};

/* ---- calls to others
 * ------------------------------------------------------------------------------------------------- */

static void no_answer(struct lb_group_reply *reply, int error)
{
	*reply = (struct lb_group_reply){.result = error < 0 ? error : -EIO};
	snprintf(reply->text, sizeof(reply->text), "%s", lb_err_text());
}

struct caller {
	struct lb_group_run *run;
	struct lb_group_call *call;
	struct lb_http_client *client;
	uint32_t timeout_ms;
	pthread_t thread;
	bool started;
};

static int send_message(struct caller *c, struct lb_group_reply *ret_reply)
{
	_cleanup_(lb_http_response_free) struct lb_http_response response = {0};
	_cleanup_json_ json_t *body = NULL, *answer = NULL;
	_cleanup_free_ char *text = NULL;
	const struct lb_group_member *to = c->call->to;
	char url[LB_GROUP_HOST_BYTES + 64];
	struct lb_http_request request = {.method = "POST", .url = url, .timeout_ms = c->timeout_ms};
	int r;

	if (to->host[0] == '\0')
		return lb_fail(-EHOSTUNREACH, "its agent has not told where it can be reached");
	snprintf(url, sizeof(url), strchr(to->host, ':') != NULL ? "https://[%s]:%u" PATH : "https://%s:%u" PATH,
		 to->host, to->port);
	r = lb_group_message_print(&c->call->message, &body);
	if (r == 0)
		r = lb_json_dump(body, &text);
	if (r < 0 || text == NULL)
		return r < 0 ? r : -ENOMEM;
	request.body = text;
	request.body_bytes = strlen(text);
	request.response_bytes_max = LB_GROUP_MESSAGE_BYTES_MAX;
	r = lb_http_send(c->client, &request, &response);
	if (r < 0)
		return r;
	if (response.status != 200)
		return lb_fail(-EREMOTEIO, "%s answered with status %u: %.200s", url, response.status,
			       response.body.data != NULL ? (const char *)response.body.data : "");
	r = lb_json_parse(response.body.data, response.body.size_bytes, LB_GROUP_MESSAGE_BYTES_MAX, &answer);
	return r < 0 ? r : lb_group_reply_parse(answer, ret_reply);
}

static void *call_one(void *arg)
{
	struct caller *c = arg;
	int r;

	lb_err_clear();
	if (lb_uuid_equal(&c->call->to->id, &c->run->me)) {
		lb_group_handle(c->run->group, &c->call->message, &c->call->reply);
		return NULL;
	}
	r = c->client != NULL ? send_message(c, &c->call->reply) : lb_fail(-ENOMEM, "no client for it");
	if (r < 0)
		no_answer(&c->call->reply, r);
	return NULL;
}

static struct lb_http_client *client_of(struct lb_group_run *run, const struct lb_uuid *id)
{
	char name[LB_UUID_TEXT_BYTES];
	struct lb_http_client_options options = {
		.identity_folder = run->o.settings->identity_folder, .connect_timeout_s = CONNECT_S, .peer_name = name};
	struct peer *p;

	for (unsigned int i = 0; i < run->n_peers; i++)
		if (lb_uuid_equal(&run->peers[i].id, id))
			return run->peers[i].client;
	if (run->n_peers == LB_GROUP_MEMBERS_MAX)
		return NULL;
	lb_uuid_format(id, name);
	p = &run->peers[run->n_peers];
	if (lb_http_client_new(&options, &p->client) < 0)
		return NULL;
	p->id = *id;
	run->n_peers++;
	return p->client;
}

static void forget_peers(struct lb_group_run *run)
{
	while (run->n_peers > 0)
		lb_http_client_free(run->peers[--run->n_peers].client);
}

/* All at once: what one of them takes delays no other. The last one is called on this thread. */
static void op_call(void *arg, struct lb_group_call *calls, size_t n, uint32_t timeout_ms)
{
	struct caller callers[LB_GROUP_MEMBERS_MAX];
	struct lb_group_run *run = arg;

	for (size_t i = 0; i < n; i++) {
		callers[i] = (struct caller){.run = run, .call = &calls[i], .timeout_ms = timeout_ms};
		if (!lb_uuid_equal(&calls[i].to->id, &run->me))
			callers[i].client = client_of(run, &calls[i].to->id);
		callers[i].started = i + 1 < n && pthread_create(&callers[i].thread, NULL, call_one, &callers[i]) == 0;
		if (!callers[i].started)
			call_one(&callers[i]);
	}
	for (size_t i = 0; i < n; i++)
		if (callers[i].started)
			pthread_join(callers[i].thread, NULL);
}

static int op_prepare(void *arg, bool app)
{
	return lb_group_part_prepare(((struct lb_group_run *)arg)->part, app);
}

static int op_settle(void *arg, uint32_t max_ms)
{
	return lb_group_part_settle(((struct lb_group_run *)arg)->part, max_ms);
}

static int op_freeze(void *arg, uint32_t max_ms)
{
	return lb_group_part_freeze(((struct lb_group_run *)arg)->part, max_ms);
}

static int op_mark(void *arg)
{
	return lb_group_part_mark(((struct lb_group_run *)arg)->part);
}

static int op_thaw(void *arg, int64_t *ret_frozen_ns)
{
	return lb_group_part_thaw(((struct lb_group_run *)arg)->part, ret_frozen_ns);
}

static int op_commit(void *arg, bool app)
{
	return lb_group_part_commit(((struct lb_group_run *)arg)->part, app);
}

static int op_result(void *arg, uint64_t *ret_epoch, uint64_t *ret_seq)
{
	return lb_group_part_result(((struct lb_group_run *)arg)->part, ret_epoch, ret_seq);
}

static void op_end(void *arg)
{
	lb_group_part_end(((struct lb_group_run *)arg)->part);
}

static const struct lb_group_ops ops = {.prepare = op_prepare,
					.settle = op_settle,
					.freeze = op_freeze,
					.mark = op_mark,
					.thaw = op_thaw,
					.commit = op_commit,
					.result = op_result,
					.end = op_end,
					.call = op_call};

/* ---- the port
 * ---------------------------------------------------------------------------------------------------------- */

static int post_message(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_group_run *run = arg;
	_cleanup_json_ json_t *body = NULL;
	struct lb_group_message m;
	struct lb_group_reply answer;
	struct lb_uuid peer;
	int r;

	r = lb_json_parse(call->body, call->body_bytes, LB_GROUP_MESSAGE_BYTES_MAX, &body);
	if (r == 0)
		r = lb_group_message_parse(body, &m);
	if (r < 0)
		return r;
	if (lb_uuid_parse(call->peer.name, &peer) < 0 || !lb_uuid_equal(&peer, &m.from))
		return lb_fail(-EACCES, "machine %s speaks in another's name", call->peer.name);
	lb_group_handle(run->group, &m, &answer);
	/* who does not belong here learns nothing */
	if (answer.result == -EACCES)
		return lb_fail(-EACCES, "machine %s is not in this machine's replication group", call->peer.name);
	return lb_group_reply_print(&answer, &reply->json);
}

static const struct lb_http_route routes[] = {
	{"POST", PATH, LB_ROLE_BIT(LB_ROLE_MACHINE), LB_GROUP_MESSAGE_BYTES_MAX, post_message, false},
};

static int open_port(struct lb_group_run *run)
{
	const struct lb_http_server_options options = {.address = run->o.settings->group_address,
						       .port = (uint16_t)run->o.settings->group_port,
						       .identity_folder = run->o.settings->identity_folder,
						       .routes = routes,
						       .n_routes = LB_ARRAY_LEN(routes),
						       .arg = run,
						       .connections_max = CONNECTIONS_MAX,
						       .body_bytes_total_max =
							       CONNECTIONS_MAX * LB_GROUP_MESSAGE_BYTES_MAX};

	return lb_http_server_start(&options, &run->server);
}

/* Open while there are others to hear. */
static void tend_port(struct lb_group_run *run, bool wanted, bool renewed)
{
	int r = 0;

	if (wanted && run->server == NULL)
		r = open_port(run);
	else if (wanted && renewed)
		r = lb_http_server_reload(run->server);
	if (!wanted && run->server != NULL)
		lb_http_server_stop(lb_steal_ptr(run->server));
	if (r < 0 && strcmp(run->said, lb_err_text()) != 0)
		lb_warning("the replication group is not heard on this machine: %s", lb_err_text());
	snprintf(run->said, sizeof(run->said), "%s", r < 0 ? lb_err_text() : "");
}

/* ---- points
 * --------------------------------------------------------------------------------------------------------------- */

static void keep(struct lb_group_run *run, const struct lb_group_outcome *o, uint64_t generation)
{
	json_t *json;

	if (lb_group_outcome_print(o, generation, &json) < 0) {
		lb_warning("%s", lb_err_text());
		return;
	}
	LB_LOCK_SCOPE(&run->lock);
	if (run->n_outcomes == LB_GROUP_TOLD_MAX) {
		json_decref(run->outcomes[0].json);
		memmove(run->outcomes, run->outcomes + 1, --run->n_outcomes * sizeof(run->outcomes[0]));
	}
	run->outcomes[run->n_outcomes++] = (struct outcome){.number = ++run->number, .json = json};
}

static double ms(int64_t ns)
{
	return (double)ns / (double)LB_NS_PER_MS;
}

/* False: this is no coordinator any more, nothing was made. */
static bool make(struct lb_group_run *run, bool app, uint64_t generation)
{
	_cleanup_free_ struct lb_group_outcome *o = calloc(1, sizeof(*o));
	int r;

	if (o == NULL)
		return false;
	lb_err_clear();
	r = lb_group_round(run->group, app, o);
	if (r == -EAGAIN && o->roster.n == 0)
		return false;
	if (r == 0)
		lb_notice("group %s: shared %s point; frozen for %.1f ms (all members froze in %.1f, marked in %.1f, "
			  "thawed "
			  "in %.1f ms)",
			  o->roster.name, app ? "application-consistent" : "crash-consistent", ms(o->frozen_ns),
			  ms(o->phase_ns[LB_GROUP_FREEZE]), ms(o->phase_ns[LB_GROUP_MARK]),
			  ms(o->phase_ns[LB_GROUP_THAW]));
	else
		lb_warning("group %s: no shared point: %s", o->roster.name, o->text);
	keep(run, o, generation);
	return r == 0;
}

static void schedule(struct lb_group_run *run, int64_t *due_ns, uint32_t interval_s, bool made)
{
	const int64_t now = lb_mono_ns(run->o.env);

	*due_ns = now + (made ? interval_s : LB_MIN(interval_s, (uint32_t)LB_GROUP_RETRY_S)) * LB_NS_PER_S;
}

static void take_lead(struct lb_group_run *run, bool leads, const struct lb_group_roster *roster)
{
	const int64_t first_ns = lb_mono_ns(run->o.env) + LB_GROUP_FIRST_S * LB_NS_PER_S;

	if (leads == run->leads)
		return;
	run->leads = leads;
	run->due_ns = first_ns;
	run->app_due_ns = lb_mono_ns(run->o.env) + roster->app_interval_s * LB_NS_PER_S;
	if (leads)
		lb_info("group %s: this machine coordinates it", roster->name);
}

static void make_what_is_due(struct lb_group_run *run, const struct lb_group_roster *roster)
{
	const int64_t now = lb_mono_ns(run->o.env);

	if (roster->order_generation != 0 && roster->order_generation != run->obeyed) {
		run->obeyed = roster->order_generation;
		make(run, roster->order_app, roster->order_generation);
	} else if (roster->app_interval_s != 0 && now >= run->app_due_ns) {
		schedule(run, &run->app_due_ns, roster->app_interval_s, make(run, true, 0));
	} else if (roster->interval_s != 0 && now >= run->due_ns) {
		schedule(run, &run->due_ns, roster->interval_s, make(run, false, 0));
	}
}

static bool take_config(struct lb_group_run *run, struct lb_group_roster *roster, bool *ret_renewed)
{
	LB_LOCK_SCOPE(&run->lock);

	*roster = run->roster;
	*ret_renewed = run->renewed;
	run->renewed = false;
	return !run->stopping;
}

/* The state machine is made once it is known who we are. */
static bool have_group(struct lb_group_run *run)
{
	if (run->group != NULL)
		return true;
	pthread_mutex_lock(&run->lock);
	run->me = run->machine;
	pthread_mutex_unlock(&run->lock);
	if (lb_group_new(run->o.env, &run->me, &ops, run, &run->group) < 0)
		lb_warning("%s", lb_err_text());
	return run->group != NULL;
}

static void step(struct lb_group_run *run, const struct lb_group_roster *roster, bool renewed)
{
	if (roster->n > 0 && !have_group(run))
		return;
	if (run->group != NULL) {
		lb_group_configure(run->group, roster);
		lb_group_tick(run->group);
	}
	if (renewed)
		forget_peers(run);
	tend_port(run, roster->n > 0, renewed);
	if (roster->n == 0) {
		run->leads = false;
		return;
	}
	if (lb_mono_ns(run->o.env) >= run->hello_ns) {
		take_lead(run, lb_group_elect(run->group), roster);
		run->hello_ns = lb_mono_ns(run->o.env) + LB_GROUP_HELLO_MS * LB_NS_PER_MS;
	}
	if (run->leads)
		make_what_is_due(run, roster);
}

static void *run_group(void *arg)
{
	struct lb_group_run *run = arg;
	struct lb_group_roster roster;
	uint64_t woken;
	bool renewed;

	while (take_config(run, &roster, &renewed)) {
		step(run, &roster, renewed);
		run->o.env->ops->wait_until(run->o.env, lb_mono_ns(run->o.env) + STEP_NS, run->wake_fd);
		while (read(run->wake_fd, &woken, sizeof(woken)) > 0)
			;
	}
	return NULL;
}

/* ---- for others
 * ------------------------------------------------------------------------------------------------------------ */

static void run_free(struct lb_group_run *run)
{
	if (run->server != NULL)
		lb_http_server_stop(run->server);
	if (run->group != NULL)
		lb_group_free(run->group);
	if (run->part != NULL)
		lb_group_part_free(run->part);
	forget_peers(run);
	while (run->n_outcomes > 0)
		json_decref(run->outcomes[--run->n_outcomes].json);
	if (run->wake_fd >= 0)
		close(run->wake_fd);
	pthread_mutex_destroy(&run->lock);
	free(run);
}

int lb_group_run_start(const struct lb_group_run_options *options, struct lb_group_run **ret_run)
{
	struct lb_group_run *run = calloc(1, sizeof(*run));
	int r;

	if (run == NULL)
		return lb_fail(-ENOMEM, "out of memory for a replication group");
	run->o = *options;
	pthread_mutex_init(&run->lock, NULL);
	run->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = run->wake_fd < 0 ? lb_fail(-errno, "no event descriptor: %m")
			     : lb_group_part_new(options->env, options->mark, options->settings->capture_socket,
						 options->wake_fd, &run->part);
	if (r == 0) {
		r = -pthread_create(&run->thread, NULL, run_group, run);
		if (r < 0)
			lb_fail(r, "no thread for the replication group: %s", strerror(-r));
	}
	if (r < 0) {
		run_free(run);
		return r;
	}
	*ret_run = run;
	return 0;
}

static void wake(struct lb_group_run *run)
{
	const uint64_t one = 1;

	if (write(run->wake_fd, &one, sizeof(one)) < 0)
		lb_debug("the replication group could not be woken: %m");
}

void lb_group_run_stop(struct lb_group_run *run)
{
	pthread_mutex_lock(&run->lock);
	run->stopping = true;
	pthread_mutex_unlock(&run->lock);
	wake(run);
	pthread_join(run->thread, NULL);
	run_free(run);
}

void lb_group_run_configure(struct lb_group_run *run, const struct lb_agent_config *config)
{
	pthread_mutex_lock(&run->lock);
	if (config->enabled)
		run->roster = config->group;
	else
		memset(&run->roster, 0, sizeof(run->roster));
	run->machine = config->machine;
	pthread_mutex_unlock(&run->lock);
	wake(run);
}

void lb_group_run_renewed(struct lb_group_run *run)
{
	LB_LOCK_SCOPE(&run->lock);

	run->renewed = true;
}

int lb_group_run_outcome(struct lb_group_run *run, json_t **ret_outcome, uint64_t *ret_number)
{
	LB_LOCK_SCOPE(&run->lock);

	*ret_outcome = NULL;
	if (run->n_outcomes == 0)
		return 0;
	*ret_outcome = json_incref(run->outcomes[0].json);
	*ret_number = run->outcomes[0].number;
	return 0;
}

void lb_group_run_told(struct lb_group_run *run, uint64_t number)
{
	LB_LOCK_SCOPE(&run->lock);

	while (run->n_outcomes > 0 && run->outcomes[0].number <= number) {
		json_decref(run->outcomes[0].json);
		memmove(run->outcomes, run->outcomes + 1, --run->n_outcomes * sizeof(run->outcomes[0]));
	}
}
