/* SPDX-License-Identifier: Apache-2.0 */
#include "process/pushes.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "base/bytes.h"
#include "base/env.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "process/push.h"
#include "wire/client.h"
#include "wire/login.h"

#define REPORT_TIMEOUT_S 20
#define REPORT_ATTEMPTS_MAX 15 /* of the last report; past them it is told when it is asked for */
#define TEXT_BYTES 1024

struct slot {
	struct lb_pushes *pushes;
	pthread_t thread;
	bool used, ended;
	json_t *order;
	char id[LB_UUID_TEXT_BYTES];
	char state[16], step[64], text[TEXT_BYTES]; /* what was told last, or was to be */
	json_t *fitness;
	struct lb_http_client *client;
};

struct lb_pushes {
	char *url, *identity_folder, *package;
	char known_hosts[PATH_MAX];
	pthread_mutex_t lock; /* of the slots, but for `order` and `client`: these are their threads' */
	struct slot slots[LB_PUSHES_MAX];
};

int lb_pushes_new(const char *config_url, const char *identity_folder, const char *package,
		  struct lb_pushes **ret_pushes)
{
	_cleanup_(lb_pushes_freep) struct lb_pushes *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return lb_fail(-ENOMEM, "out of memory for push installs");
	pthread_mutex_init(&p->lock, NULL);
	p->url = strdup(config_url);
	for (size_t n = p->url != NULL ? strlen(p->url) : 0; n > 0 && p->url[n - 1] == '/';)
		p->url[--n] = '\0';
	p->identity_folder = strdup(identity_folder);
	p->package = strdup(package);
	if (p->url == NULL || p->identity_folder == NULL || p->package == NULL)
		return lb_fail(-ENOMEM, "out of memory for push installs");
	if (snprintf(p->known_hosts, PATH_MAX, "%s/known_hosts", identity_folder) >= PATH_MAX)
		return lb_fail(-ENAMETOOLONG, "identity_folder is too long");
	*ret_pushes = lb_steal_ptr(p);
	return 0;
}

static void slot_clear(struct slot *slot)
{
	pthread_join(slot->thread, NULL);
	lb_install_order_wipe(slot->order);
	json_decref(slot->order);
	json_decref(slot->fitness);
	lb_http_client_free(slot->client);
	memset(slot, 0, sizeof(*slot));
}

void lb_pushes_free(struct lb_pushes *p)
{
	for (unsigned int i = 0; i < LB_PUSHES_MAX; i++)
		if (p->slots[i].used)
			slot_clear(&p->slots[i]);
	pthread_mutex_destroy(&p->lock);
	free(p->url);
	free(p->identity_folder);
	free(p->package);
	free(p);
}

static int post(struct lb_pushes *p, struct lb_http_client *client, const char *id, const json_t *body)
{
	char url[1200];

	if (body == NULL)
		return lb_fail(-ENOMEM, "out of memory for a report");
	snprintf(url, sizeof(url), "%s/v1/process/install/%s", p->url, id);
	return lb_http_json(client, "POST", url, body, NULL);
}

/* Under the lock. */
static json_t *as_told(const struct slot *slot)
{
	return json_pack("{s:s,s:s,s:s,s:O*}", "state", slot->state, "step", slot->step, "text", slot->text, "fitness",
			 slot->fitness);
}

static int report(struct slot *slot, const char *state, const char *step, const char *text, json_t *fitness)
{
	_cleanup_json_ json_t *body = NULL;

	pthread_mutex_lock(&slot->pushes->lock);
	snprintf(slot->state, sizeof(slot->state), "%s", state);
	snprintf(slot->step, sizeof(slot->step), "%s", step);
	snprintf(slot->text, sizeof(slot->text), "%s", text);
	if (fitness != NULL && slot->fitness == NULL)
		slot->fitness = json_incref(fitness);
	body = as_told(slot);
	pthread_mutex_unlock(&slot->pushes->lock);
	return post(slot->pushes, slot->client, slot->id, body);
}

static json_t *what_became_of(struct lb_pushes *p, const char *id)
{
	LB_LOCK_SCOPE(&p->lock);

	for (unsigned int i = 0; i < LB_PUSHES_MAX; i++)
		if (p->slots[i].used && strcmp(p->slots[i].id, id) == 0)
			return as_told(&p->slots[i]);
	return json_pack("{s:s,s:s,s:s}", "state", "failed", "step", "", "text",
			 "the login that was given was in memory only, and is gone with a restart: order it again");
}

void lb_pushes_tell(struct lb_pushes *p, const json_t *ids)
{
	const struct lb_http_client_options options = {.identity_folder = p->identity_folder,
						       .connect_timeout_s = REPORT_TIMEOUT_S};
	_cleanup_(lb_http_client_freep) struct lb_http_client *client = NULL;
	int r = 0;

	if (json_array_size(ids) > 0)
		r = lb_http_client_new(&options, &client);
	for (size_t i = 0; r == 0 && i < json_array_size(ids); i++) {
		const char *id = json_string_value(json_array_get(ids, i));
		_cleanup_json_ json_t *body = id != NULL ? what_became_of(p, id) : NULL;

		if (id != NULL)
			r = post(p, client, id, body);
	}
	if (r < 0)
		lb_debug("push install: %s; it is asked for again", lb_err_text());
}

static void say(void *arg, const char *step, const char *text)
{
	if (report(arg, "running", step, text, NULL) < 0)
		lb_debug("push install: %s", lb_err_text());
}

static void *work(void *arg)
{
	struct slot *slot = arg;
	const struct lb_push push = {.order = slot->order,
				     .package = slot->pushes->package,
				     .known_hosts = slot->pushes->known_hosts,
				     .say = say,
				     .arg = slot};
	_cleanup_json_ json_t *fitness = NULL;
	char text[LB_ERR_TEXT_BYTES_MAX] = "";
	int r, told = -1;

	lb_err_clear();
	r = lb_push_run(&push, &fitness);
	lb_install_order_wipe(slot->order);
	if (r < 0)
		snprintf(text, sizeof(text), "%s", lb_err_text());
	for (int i = 0; told < 0 && i < REPORT_ATTEMPTS_MAX; i++) {
		told = report(slot, r < 0 ? "failed" : "done", "", text, fitness);
		if (told < 0 && i + 1 < REPORT_ATTEMPTS_MAX)
			lb_env_real()->ops->wait_until(lb_env_real(), lb_mono_ns(lb_env_real()) + 2 * LB_NS_PER_S, -1);
	}
	if (told < 0)
		lb_warning("the end of a push install can't be told: %s", lb_err_text());
	LB_LOCK_SCOPE(&slot->pushes->lock);
	slot->ended = true;
	return NULL;
}

static struct slot *free_slot(struct lb_pushes *p)
{
	LB_LOCK_SCOPE(&p->lock);

	for (unsigned int i = 0; i < LB_PUSHES_MAX; i++)
		if (!p->slots[i].used)
			return &p->slots[i];
	for (unsigned int i = 0; i < LB_PUSHES_MAX; i++) {
		if (!p->slots[i].ended)
			continue;
		slot_clear(&p->slots[i]);
		return &p->slots[i];
	}
	return NULL;
}

static int begin(struct lb_pushes *p, json_t *order)
{
	const struct lb_http_client_options options = {.identity_folder = p->identity_folder,
						       .connect_timeout_s = REPORT_TIMEOUT_S};
	struct slot *slot = free_slot(p);
	const char *id;
	int r;

	if (slot == NULL)
		return lb_fail(-EBUSY, "%d push installs run already", LB_PUSHES_MAX);
	r = lb_json_get_str(order, "id", &id);
	if (r == 0)
		r = lb_http_client_new(&options, &slot->client);
	if (r < 0)
		return r;
	pthread_mutex_lock(&p->lock);
	slot->pushes = p;
	slot->order = json_deep_copy(order);
	snprintf(slot->id, sizeof(slot->id), "%s", id);
	snprintf(slot->state, sizeof(slot->state), "running");
	r = slot->order != NULL ? -pthread_create(&slot->thread, NULL, work, slot) : -ENOMEM;
	slot->used = r == 0;
	pthread_mutex_unlock(&p->lock);
	if (r == 0)
		return 0;
	lb_install_order_wipe(slot->order);
	json_decref(slot->order);
	lb_http_client_free(slot->client);
	memset(slot, 0, sizeof(*slot));
	return lb_fail(r, "no thread for a push install: %s", strerror(-r));
}

void lb_pushes_take(struct lb_pushes *p, json_t *orders)
{
	for (size_t i = 0; i < json_array_size(orders); i++) {
		json_t *order = json_array_get(orders, i);

		if (begin(p, order) < 0)
			lb_warning("a push install is not begun: %s", lb_err_text());
		lb_install_order_wipe(order);
	}
}
