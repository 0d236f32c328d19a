/* SPDX-License-Identifier: Apache-2.0 */
/* Proof of what belongs to no machine: vault.json, heartbeats, the site's own objects, names that no vault has. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "vault/site.h"
#include "vault/slots.h"
#include "vault/verify_parts.h"

struct beats {
	struct lb_verify *w;
	const struct lb_uuid *only;
};

static bool is_zero(const struct lb_uuid *id)
{
	return lb_uuid_equal(id, &(struct lb_uuid){{0}});
}

static int beat(void *arg, const char *object, const struct lb_heartbeat *b, const char *wrong)
{
	struct lb_verify_witness witness = {.machine = b->machine, .position = b->position, .time_ns = b->time_ns};
	const struct beats *beats = arg;

	if (beats->only != NULL && !is_zero(&b->machine) && !lb_uuid_equal(&b->machine, beats->only))
		return 0;
	if (wrong == NULL) {
		snprintf(witness.object, sizeof(witness.object), "%s", object);
		return lb_verify_witness_add(beats->w, &witness);
	}
	beats->w->machine = b->machine;
	lb_verify_find(beats->w, object,
		       "a heartbeat in it can't be used (%s): it costs no point; the newest point of an idle machine "
		       "looks older than it is until its process server writes the next one",
		       wrong);
	return 0;
}

static int beat_object(void *arg, const char *object, uint64_t size_bytes)
{
	const struct beats *beats = arg;
	char folder[LB_UUID_TEXT_BYTES];
	struct lb_uuid process;

	beats->w->report.done.objects++;
	beats->w->report.done.bytes += size_bytes;
	snprintf(folder, sizeof(folder), "%s", object + strlen("ps/"));
	if (lb_uuid_parse(folder, &process) == 0 && strcmp(object + strlen("ps/") + strlen(folder), "/heartbeat") == 0)
		return lb_heartbeats_read(beats->w->v, object, beat, arg);
	if (beats->only == NULL)
		lb_verify_find(beats->w, object, "it is no object of a vault: foreign; it costs nothing; remove it");
	return 0;
}

int lb_verify_beats(struct lb_verify *w, const struct lb_uuid *only)
{
	struct beats beats = {.w = w, .only = only};
	int r = lb_store_list(w->v->store, "ps/", beat_object, &beats);

	w->n_beats = w->witnesses.n;
	w->machine = (struct lb_uuid){{0}};
	return r;
}

/* What was parsed and printed again must be the bytes that are there: anything else was put there by somebody. */
static int check_vault_json(struct lb_verify *w)
{
	_cleanup_buf_ struct lb_buf json = LB_BUF(LB_VAULT_JSON_BYTES_MAX), again = LB_BUF(LB_VAULT_JSON_BYTES_MAX);
	struct lb_slots slots = {0};
	unsigned int used = 0;
	int r;

	r = lb_store_get_all(w->v->store, LB_VAULT_JSON, LB_VAULT_JSON_BYTES_MAX, &json);
	if (r == 0)
		r = lb_slots_parse(json.data, json.size_bytes, &slots);
	if (lb_verify_is_damage(r)) {
		lb_verify_find(
			w, LB_VAULT_JSON,
			"%s: the vault can't be opened any more; `lifeboat vault repair --receipt FILE` puts it back",
			lb_err_text());
		return 0;
	}
	if (r == 0)
		r = lb_slots_print(&slots, &again);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < LB_SLOTS; i++)
		used += slots.slot[i].used;
	if (!lb_uuid_equal(&slots.vault, &w->v->id) || again.size_bytes != json.size_bytes ||
	    memcmp(again.data, json.data, json.size_bytes) != 0)
		lb_verify_find(w, LB_VAULT_JSON, "it was altered since Lifeboat wrote it");
	if (slots.has_previous)
		lb_verify_note(w, LB_VAULT_JSON,
			       "a change of the vault key was interrupted: the one before is still in use; `lifeboat "
			       "vault rotate --vault-key` finishes it");
	if (used > 1)
		lb_verify_note(
			w, LB_VAULT_JSON,
			"two passphrases open the vault: a change of the passphrase was interrupted, or an older "
			"vault.json was put back; `lifeboat vault passphrase` empties the other slot");
	return 0;
}

static int site_object(struct lb_verify *w, const char *object)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_SITE_BYTES_MAX);
	int r;

	if (!w->v->has_key)
		return 0;
	r = lb_vault_site_get(w->v, object + strlen("site/"), &plain);
	w->report.done.bytes += plain.size_bytes;
	if (!lb_verify_is_damage(r) && r != -EINVAL)
		return r;
	lb_verify_find(w, object,
		       "%s: it costs no point; a new configuration server can't take policies and machines from it "
		       "(the running one writes it anew)",
		       lb_err_text());
	return 0;
}

static bool is_of_a_machine(const char *object)
{
	char uuid[LB_UUID_TEXT_BYTES];
	struct lb_uuid machine;

	if (strncmp(object, "m/", 2) != 0)
		return false;
	snprintf(uuid, sizeof(uuid), "%s", object + 2);
	return lb_uuid_parse(uuid, &machine) == 0 && object[2 + strlen(uuid)] == '/';
}

static int any_object(void *arg, const char *object, uint64_t size_bytes)
{
	struct lb_verify *w = arg;

	(void)size_bytes;
	if (is_of_a_machine(object) || strncmp(object, "ps/", 3) == 0)
		return 0; /* seen already */
	w->report.done.objects++;
	if (strcmp(object, LB_VAULT_JSON) == 0)
		return check_vault_json(w);
	if (strncmp(object, "site/", 5) == 0)
		return site_object(w, object);
	if (strncmp(object, "evidence/", 9) == 0 && strlen(object) == 9 + 32)
		lb_verify_note(w, object, "a damaged vault.json that a repair replaced; it may be removed");
	else if (strncmp(object, "probe/", 6) == 0 && strlen(object) == 6 + 32)
		lb_verify_note(w, object, "left over from a proof of the store; it may be removed");
	else
		lb_verify_find(w, object, "it is no object of a vault: foreign; it costs nothing; remove it");
	return 0;
}

int lb_verify_site(struct lb_verify *w)
{
	w->machine = (struct lb_uuid){{0}};
	return lb_store_list(w->v->store, "", any_object, w);
}
