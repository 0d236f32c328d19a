/* SPDX-License-Identifier: Apache-2.0 */
#include "config/readiness.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/target.h"

#define TEXT_BYTES_MAX 1024
#define REFUSAL_BYTES 1024
#define CHECK_NETWORK "double network"

static const char *const members[] = {"check", "level", "text", "effect", "cure", "mend"};

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text != NULL ? text : "";
}

static bool is(const json_t *finding, const char *level)
{
	return strcmp(text_of(finding, "level"), level) == 0;
}

/* Only what is known, bounded: it goes on to people's screens. */
static int copy_finding(const json_t *finding, json_t *list)
{
	json_t *one = json_object();

	for (size_t i = 0; i < LB_ARRAY_LEN(members); i++) {
		const char *text = json_string_value(json_object_get(finding, members[i]));

		if (text == NULL || strlen(text) > TEXT_BYTES_MAX) {
			json_decref(one);
			return lb_fail(-EBADMSG, "a finding of the readiness has no \"%s\" of at most %d bytes",
				       members[i], TEXT_BYTES_MAX);
		}
		json_object_set_new(one, members[i], json_string(text));
	}
	return json_array_append_new(list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for the readiness") : 0;
}

static int copy_readiness(const json_t *readiness, json_t **ret_copy)
{
	const json_t *findings = json_object_get(readiness, "findings"), *one;
	_cleanup_json_ json_t *list = json_array();
	int64_t checked_ns = 0;
	size_t i;
	int r;

	r = lb_json_get_i64(readiness, "checked_ns", &checked_ns);
	if (r < 0)
		return r;
	if (!json_is_array(findings) || json_array_size(findings) > LB_READINESS_FINDINGS_MAX)
		return lb_fail(-EBADMSG, "the readiness is no list of at most %d findings", LB_READINESS_FINDINGS_MAX);
	json_array_foreach(findings, i, one)
	{
		r = copy_finding(one, list);
		if (r < 0)
			return r;
	}
	*ret_copy = json_pack("{s:I,s:O}", "checked_ns", (json_int_t)checked_ns, "findings", list);
	return *ret_copy != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for the readiness");
}

static int load(struct lb_site *site, const char *machine, json_t **ret_readiness)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, "SELECT readiness FROM machine WHERE id = ?", "s", machine);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r < 0)
		return r;
	*ret_readiness = r == 1 ? lb_db_json(rows, 0) : NULL;
	return 0;
}

static bool was_there(const json_t *before, const json_t *finding)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(before, "findings"), i, one)
	{
		if (strcmp(text_of(one, "check"), text_of(finding, "check")) == 0 &&
		    strcmp(text_of(one, "text"), text_of(finding, "text")) == 0 &&
		    strcmp(text_of(one, "level"), text_of(finding, "level")) == 0)
			return true;
	}
	return false;
}

/* At the first look only what stops the double is news: the rest is shown when one looks. */
static void tell_worse(struct lb_site *site, const char *name, const json_t *before, const json_t *now)
{
	unsigned int told = 0;
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(now, "findings"), i, one)
	{
		bool error = is(one, "error");

		if ((!error && (before == NULL || !is(one, "warning"))) || was_there(before, one))
			continue;
		if (++told > LB_READINESS_EVENTS_MAX)
			break;
		lb_event(site, error ? "critical" : "warning", name, "readiness: %s; at a failover %s",
			 text_of(one, "text"), text_of(one, "effect"));
	}
}

/* What only this side can tell: whether the network that the doubles are to join is there, and theirs alone. */
static int add_network(struct lb_site *site, const struct lb_reg_machine *m, json_t *readiness)
{
	_cleanup_json_ json_t *target = NULL;
	json_t *findings = json_object_get(readiness, "findings"), *one;
	size_t i, n = json_array_size(findings);
	int r;

	for (i = n; i > 0; i--)
		if (strcmp(text_of(json_array_get(findings, i - 1), "check"), CHECK_NETWORK) == 0)
			json_array_remove(findings, i - 1);
	r = lb_target_get(site, m->id, &target);
	if (r < 0)
		return r;
	if (lb_target_networks_check(site, m->id, target) == 0)
		return 0;
	one = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "check", CHECK_NETWORK, "level", "warning", "text", lb_err_text(),
			"effect", "the double is refused", "cure",
			"make that network, or choose another one with `lifeboat machine target`", "mend", "");
	lb_err_clear();
	return json_array_append_new(findings, one) < 0 ? lb_fail(-ENOMEM, "out of memory for the readiness") : 0;
}

/* Whether the agent has told anything new. */
static bool same_report(const json_t *before, const json_t *now)
{
	_cleanup_json_ json_t *theirs = json_deep_copy(before);
	json_t *findings = json_object_get(theirs, "findings");

	for (size_t i = json_array_size(findings); i > 0; i--)
		if (strcmp(text_of(json_array_get(findings, i - 1), "check"), CHECK_NETWORK) == 0)
			json_array_remove(findings, i - 1);
	return json_equal(theirs, now);
}

static int store(struct lb_site *site, const struct lb_reg_machine *m, const json_t *before, const json_t *now)
{
	int r = lb_db_run(site->db, "UPDATE machine SET readiness = ? WHERE id = ?", "js", now, m->id);

	if (r == 0)
		tell_worse(site, m->name, before, now);
	return r;
}

int lb_readiness_look_again(struct lb_site *site, const struct lb_reg_machine *m)
{
	_cleanup_json_ json_t *before = NULL, *now = NULL;
	int r;

	r = load(site, m->id, &before);
	if (r < 0 || before == NULL)
		return r;
	now = json_deep_copy(before);
	r = add_network(site, m, now);
	return r < 0 || json_equal(before, now) ? r : store(site, m, before, now);
}

int lb_readiness_take(struct lb_site *site, const struct lb_reg_machine *m, const json_t *report)
{
	const json_t *readiness = json_object_get(report, "readiness");
	_cleanup_json_ json_t *now = NULL, *before = NULL;
	int r;

	if (readiness == NULL)
		return 0;
	r = copy_readiness(readiness, &now);
	if (r == 0)
		r = load(site, m->id, &before);
	if (r < 0 || same_report(before, now))
		return r;
	r = add_network(site, m, now);
	return r < 0 ? r : store(site, m, before, now);
}

static const char *verdict_of(const json_t *readiness)
{
	const char *verdict = "ready";
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(readiness, "findings"), i, one)
	{
		if (is(one, "error"))
			return "blocked";
		if (is(one, "warning"))
			verdict = "warnings";
	}
	return verdict;
}

int lb_readiness_get(struct lb_site *site, const char *machine, json_t **ret_object)
{
	_cleanup_json_ json_t *readiness = NULL;
	json_t *object;
	int r;

	r = load(site, machine, &readiness);
	if (r < 0)
		return r;
	if (readiness == NULL)
		object = json_pack("{s:s,s:n,s:[]}", "verdict", "unknown", "checked_ns", "findings");
	else
		object = json_pack("{s:s,s:O,s:O}", "verdict", verdict_of(readiness), "checked_ns",
				   json_object_get(readiness, "checked_ns"), "findings",
				   json_object_get(readiness, "findings"));
	if (object == NULL)
		return lb_fail(-ENOMEM, "out of memory for the readiness");
	*ret_object = object;
	return 0;
}

int lb_readiness_allows(struct lb_site *site, const struct lb_reg_machine *m)
{
	_cleanup_json_ json_t *readiness = NULL;
	char text[REFUSAL_BYTES] = "";
	const json_t *one;
	size_t i;
	int r;

	r = load(site, m->id, &readiness);
	if (r < 0)
		return r;
	json_array_foreach(json_object_get(readiness, "findings"), i, one)
	{
		size_t used = strlen(text);

		if (is(one, "error"))
			snprintf(text + used, sizeof(text) - used, "%s%s (%s; %s)", used > 0 ? "; " : "",
				 text_of(one, "text"), text_of(one, "effect"), text_of(one, "cure"));
	}
	if (text[0] == '\0')
		return 0;
	return lb_fail(-EPERM,
		       "a double of %s would not come up: %.700s. Mend that, then `lifeboat machine check %s`; or "
		       "protect it all the same with --force",
		       m->name, text, m->name);
}
