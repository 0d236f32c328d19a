/* SPDX-License-Identifier: Apache-2.0 */
#include "config/anchors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"

#define KEY_BYTES 64
#define WRITE_INTERVAL_NS (20 * LB_NS_PER_S) /* an anchor is this much behind at most; the database is spared */
#define ANCHOR_BYTES_MAX 1024

static void make_key(const char *machine, char key[KEY_BYTES])
{
	snprintf(key, KEY_BYTES, "anchor/%s", machine);
}

static int parse(const char *text, struct lb_anchor *a, int64_t *ret_noted_ns)
{
	_cleanup_json_ json_t *j = NULL;
	int r;

	r = lb_json_parse(text, strlen(text), ANCHOR_BYTES_MAX, &j);
	if (r < 0 || (r = lb_json_get_u64(j, "epoch", &a->position.epoch)) < 0 ||
	    (r = lb_json_get_u64(j, "seq", &a->position.seq)) < 0 ||
	    (r = lb_json_get_digest(j, "digest", &a->digest)) < 0 ||
	    (r = lb_json_get_i64(j, "time_ns", &a->time_ns)) < 0)
		return r;
	return lb_json_get_i64(j, "noted_ns", ret_noted_ns);
}

static int read_anchor(struct lb_site *site, const char *machine, struct lb_anchor *a, int64_t *ret_noted_ns)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	char key[KEY_BYTES];
	int r;
	LB_DB_SCOPE(site->db);

	make_key(machine, key);
	r = lb_db_query(site->db, &rows, "SELECT value FROM meta WHERE key = ?", "s", key);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r == 0)
		return -ENOENT;
	return r < 0 ? r : parse(lb_db_text(rows, 0), a, ret_noted_ns);
}

static int write_anchor(struct lb_site *site, const char *machine, const struct lb_anchor *a, int64_t now_ns)
{
	_cleanup_json_ json_t *j = json_object();
	char key[KEY_BYTES];
	int r;

	if (j == NULL)
		return lb_fail(-ENOMEM, "out of memory for an anchor");
	if ((r = lb_json_set_u64(j, "epoch", a->position.epoch)) < 0 ||
	    (r = lb_json_set_u64(j, "seq", a->position.seq)) < 0 ||
	    (r = lb_json_set_digest(j, "digest", &a->digest)) < 0 ||
	    (r = lb_json_set_i64(j, "time_ns", a->time_ns)) < 0 || (r = lb_json_set_i64(j, "noted_ns", now_ns)) < 0)
		return r;
	make_key(machine, key);
	return lb_db_run(site->db,
			 "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = "
			 "excluded.value",
			 "sj", key, j);
}

static bool is_after(const struct lb_position *a, const struct lb_position *b)
{
	return a->epoch > b->epoch || (a->epoch == b->epoch && a->seq > b->seq);
}

/* The anchor stays where it was: it is what tells. */
static void went_back(struct lb_site *site, const char *machine, const struct lb_anchor *had,
		      const struct lb_anchor *now)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	const char *name = lb_reg_machine_find(site->db, machine, &m) == 0 ? m.name : machine;

	lb_event(site, "critical", name,
		 "the vault holds this machine's journal up to %" PRIu64 ":%" PRIu64 " and held it up to %" PRIu64
		 ":%" PRIu64 " before: it was rolled back, or its tail cut; run `lifeboat vault verify`",
		 now->position.epoch, now->position.seq, had->position.epoch, had->position.seq);
}

int lb_anchor_note(struct lb_site *site, const char *machine, const json_t *report)
{
	struct lb_anchor now = {0}, had = {0};
	int64_t noted_ns = 0, now_ns = lb_now_ns(site->env);
	int r;

	if (lb_json_get_u64(report, "vault_epoch", &now.position.epoch) < 0 || now.position.epoch == 0 ||
	    lb_json_get_u64(report, "vault_seq", &now.position.seq) < 0 ||
	    lb_json_get_digest(report, "vault_digest", &now.digest) < 0 ||
	    lb_json_get_i64(report, "rpo_vault_ns", &now.time_ns) < 0) {
		lb_err_clear();
		return 0; /* nothing is in the vault yet, or it is not asked yet */
	}
	r = read_anchor(site, machine, &had, &noted_ns);
	if (r < 0 && r != -ENOENT && r != -EBADMSG)
		return r;
	if (r == 0 && is_after(&had.position, &now.position)) {
		if (noted_ns + WRITE_INTERVAL_NS > now_ns)
			return 0;
		went_back(site, machine, &had, &now);
		return write_anchor(site, machine, &had, now_ns); /* says so again after a while */
	}
	if (r == 0 && (!is_after(&now.position, &had.position) || noted_ns + WRITE_INTERVAL_NS > now_ns))
		return 0;
	return write_anchor(site, machine, &now, now_ns);
}

int lb_anchor_get(struct lb_site *site, const struct lb_uuid *machine, struct lb_anchor *ret_anchor)
{
	struct lb_anchor a = {.machine = *machine};
	char id[LB_UUID_TEXT_BYTES];
	int64_t noted_ns;
	int r;

	lb_uuid_format(machine, id);
	r = read_anchor(site, id, &a, &noted_ns);
	if (r == -ENOENT)
		return lb_fail(r, "nobody told yet what the vault holds of machine %s", id);
	if (r < 0)
		return r;
	*ret_anchor = a;
	return 0;
}

void lb_anchor_forget(struct lb_site *site, const char *machine)
{
	char key[KEY_BYTES];

	make_key(machine, key);
	lb_db_run(site->db, "DELETE FROM meta WHERE key = ?", "s", key);
}

int lb_anchor_freshness(struct lb_site *site, const struct lb_uuid *machine, json_t **ret_freshness)
{
	struct lb_anchor_result result = {.state = LB_ANCHOR_HOLDS};
	const char *state = "anchored", *text = "the vault holds everything that this server knows of";
	struct lb_anchor anchor;
	int r;

	r = lb_anchor_get(site, machine, &anchor);
	if (r == -ENOENT) {
		state = "unproven";
		text = "freshness unproven: this server does not know what the vault held";
		r = 0;
	} else if (r == 0) {
		r = lb_anchor_check(site->vault, &anchor, &result);
	}
	if (r < 0)
		return r;
	lb_err_clear();
	if (result.state != LB_ANCHOR_HOLDS) {
		state = "older";
		text = result.text;
	}
	*ret_freshness = json_pack("{s:s,s:s}", "state", state, "text", text);
	return *ret_freshness != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* ---- API ------------------------------------------------------------------------------------------------- */

static int add_anchor(void *arg, const char *id, const struct lb_anchor *a)
{
	json_t *one = json_pack("{s:s,s:I,s:I,s:I}", "machine", id, "epoch", (json_int_t)a->position.epoch, "seq",
				(json_int_t)a->position.seq, "time_ns", (json_int_t)a->time_ns);

	if (one == NULL || lb_json_set_digest(one, "digest", &a->digest) < 0 || json_array_append_new(arg, one) < 0)
		return lb_fail(-ENOMEM, "out of memory for an answer");
	return 0;
}

int lb_api_anchor_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_json_ json_t *list = json_array();
	char vault_id[LB_UUID_TEXT_BYTES];
	int r;
	LB_DB_SCOPE(site->db);

	(void)call;
	r = lb_db_query(site->db, &rows, "SELECT key, value FROM meta WHERE key LIKE 'anchor/%' ORDER BY key", "");
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1) {
		struct lb_anchor a = {0};
		int64_t noted_ns;

		r = parse(lb_db_text(rows, 1), &a, &noted_ns);
		if (r == 0)
			r = add_anchor(list, lb_db_text(rows, 0) + strlen("anchor/"), &a);
	}
	if (r < 0)
		return r;
	lb_uuid_format(lb_vault_id(site->vault), vault_id);
	reply->json = json_pack("{s:s,s:O}", "vault", vault_id, "anchors", list);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}
