/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and the one-time tokens against which they are issued. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "config/registry.h"

int lb_reg_cert_put(struct lb_db *db, const struct lb_cert_info *info, const char *holder, int64_t now_ns)
{
	char fingerprint[LB_REG_HEX_BYTES];

	lb_hex_encode(info->fingerprint.bytes, LB_DIGEST_BYTES, fingerprint);
	return lb_db_run(
		db, "INSERT INTO certificate (fingerprint, holder, role, not_after_ns, issued_ns) VALUES (?,?,?,?,?)",
		"sssii", fingerprint, holder, lb_role_name(info->role), info->not_after_ns, now_ns);
}

int lb_reg_certs_revoke(struct lb_db *db, const char *holder, const char *keep, const char *reason, int64_t now_ns)
{
	return lb_db_run(db,
			 "UPDATE certificate SET revoked_ns = ?, reason = ? WHERE holder = ? AND revoked_ns IS NULL AND"
			 " fingerprint <> ifnull(?, '')",
			 "isss", now_ns, reason, holder, keep);
}

int lb_reg_certs_reinstate(struct lb_db *db, const char *holder, const char *reason, int64_t now_ns)
{
	return lb_db_run(db,
			 "UPDATE certificate SET revoked_ns = NULL, reason = NULL WHERE holder = ? AND reason = ?"
			 " AND used_ns IS NOT NULL AND not_after_ns > ?",
			 "ssi", holder, reason, now_ns);
}

int lb_reg_cert_check(struct lb_db *db, const struct lb_digest *fingerprint, const char *holder, int64_t now_ns)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	char hex[LB_REG_HEX_BYTES];
	int r;

	lb_hex_encode(fingerprint->bytes, LB_DIGEST_BYTES, hex);
	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows,
			"SELECT revoked_ns, reason, used_ns FROM certificate WHERE fingerprint = ? AND holder = ?",
			"ss", hex, holder);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r < 0)
		return r;
	if (r == 0)
		return lb_fail(-EACCES, "the certificate of %s is not known here", holder);
	if (!lb_db_null(rows, 0))
		return lb_fail(-EACCES, "the certificate of %s was revoked: %s", holder, lb_db_text(rows, 1));
	if (!lb_db_null(rows, 2))
		return 0;
	return lb_db_run(db, "UPDATE certificate SET used_ns = ? WHERE fingerprint = ?", "is", now_ns, hex);
}

int lb_reg_cert_current(struct lb_db *db, const char *holder, char ret_fingerprint[LB_REG_HEX_BYTES])
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows,
			"SELECT fingerprint FROM certificate WHERE holder = ? AND revoked_ns IS NULL"
			" ORDER BY used_ns IS NOT NULL DESC, issued_ns DESC, rowid DESC LIMIT 1",
			"s", holder);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r < 0)
		return r;
	if (r == 0)
		return lb_fail(-ENOENT, "%s has no certificate that counts", holder);
	snprintf(ret_fingerprint, LB_REG_HEX_BYTES, "%s", lb_db_text(rows, 0));
	return 0;
}

int lb_reg_token_make(struct lb_site *site, const struct lb_reg_token *token, const char *made_by,
		      char ret_text[LB_TOKEN_TEXT_BYTES])
{
	uint8_t bytes[LB_TOKEN_BYTES];
	char text[LB_TOKEN_TEXT_BYTES];
	struct lb_digest hash;
	int r;

	r = site->env->ops->random(site->env, bytes, sizeof(bytes));
	if (r < 0)
		return lb_fail(r, "no random bytes for a token: %s", strerror(-r));
	lb_hex_encode(bytes, sizeof(bytes), text);
	lb_wipe(bytes, sizeof(bytes));
	r = lb_sha256(text, strlen(text), &hash);
	if (r == 0)
		r = lb_db_run(site->db,
			      "INSERT INTO token (hash, kind, name, role, replaces, made_by, created_ns, expires_ns)"
			      " VALUES (?,?,?,?,?,?,?,?)",
			      "bsssisii", hash.bytes, sizeof(hash.bytes), token->kind,
			      token->name[0] != '\0' ? token->name : NULL, lb_role_name(token->role),
			      (int64_t)token->replaces, made_by, lb_now_ns(site->env), token->expires_ns);
	if (r == 0)
		memcpy(ret_text, text, sizeof(text));
	lb_wipe(text, sizeof(text));
	return r;
}

static int check_token(lb_db_rows *rows, const char *kind, const struct lb_digest *key, int64_t now_ns)
{
	if (strcmp(lb_db_text(rows, 0), kind) != 0)
		return lb_fail(-EACCES, "this token is for a %s, not for a %s", lb_db_text(rows, 0), kind);
	if (now_ns >= lb_db_int(rows, 4))
		return lb_fail(-EACCES, "this token has expired; `lifeboat token create` makes another");
	if (!lb_db_null(rows, 5) && (sqlite3_column_bytes(rows, 6) != LB_DIGEST_BYTES ||
				     !lb_equal_ct(sqlite3_column_blob(rows, 6), key->bytes, LB_DIGEST_BYTES)))
		return lb_fail(-EACCES, "this token was used already; `lifeboat token create` makes another");
	return 0;
}

int lb_reg_token_take(struct lb_db *db, const char *text, const char *kind, const struct lb_digest *key, int64_t now_ns,
		      struct lb_reg_token *ret_token)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	struct lb_reg_token t = {0};
	struct lb_digest hash;
	int r;

	LB_DB_SCOPE(db);
	r = lb_sha256(text, strlen(text), &hash);
	if (r == 0)
		r = lb_db_query(db, &rows,
				"SELECT kind, name, role, replaces, expires_ns, used_ns, used_key, used_by FROM token "
				"WHERE hash = ?",
				"b", hash.bytes, sizeof(hash.bytes));
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r < 0)
		return r;
	if (r == 0)
		return lb_fail(-EACCES, "this token is not known here; `lifeboat token create` makes one");
	r = check_token(rows, kind, key, now_ns);
	if (r < 0)
		return r;
	snprintf(t.kind, sizeof(t.kind), "%s", lb_db_text(rows, 0));
	if (!lb_db_null(rows, 1))
		snprintf(t.name, sizeof(t.name), "%s", lb_db_text(rows, 1));
	if (!lb_db_null(rows, 2))
		t.role = lb_role_parse(lb_db_text(rows, 2));
	t.replaces = lb_db_int(rows, 3) != 0;
	t.expires_ns = lb_db_int(rows, 4);
	if (!lb_db_null(rows, 7))
		snprintf(t.used_by, sizeof(t.used_by), "%s", lb_db_text(rows, 7));
	*ret_token = t;
	return 0;
}

int lb_reg_token_used(struct lb_db *db, const char *text, const struct lb_digest *key, const char *used_by,
		      int64_t now_ns)
{
	struct lb_digest hash;
	int64_t changes;
	int r;

	r = lb_sha256(text, strlen(text), &hash);
	if (r == 0)
		r = lb_db_run_changes(db, &changes,
				      "UPDATE token SET used_ns = ?, used_by = ?, used_key = ? WHERE hash = ?", "isbb",
				      now_ns, used_by, key->bytes, sizeof(key->bytes), hash.bytes, sizeof(hash.bytes));
	if (r != 0)
		return r;
	return changes == 1 ? 0 : lb_fail(-EACCES, "this token is not known here");
}
