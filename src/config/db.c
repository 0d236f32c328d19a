/* SPDX-License-Identifier: Apache-2.0 */
#include "config/db.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/schema.h"

static int db_fail(struct lb_db *db, const char *what)
{
	int code = sqlite3_errcode(db->sqlite);
	const char *text = sqlite3_errmsg(db->sqlite);

	switch (code & 0xff) {
	case SQLITE_CONSTRAINT:
		return lb_fail(-EEXIST, "%s: the database has one like it already (%s)", what, text);
	case SQLITE_FULL:
		return lb_fail(-ENOSPC, "%s: no space left for the database; make room in the state folder", what);
	case SQLITE_NOMEM:
		return lb_fail(-ENOMEM, "%s: out of memory", what);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return lb_fail(-EBUSY, "%s: another program holds the database; only one lifeboat-config may use it",
			       what);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return lb_fail(-EBADMSG,
			       "%s: the database is damaged (%s); move it away and start again: machines, policies and "
			       "points come back from the vault",
			       what, text);
	default:
		return lb_fail(-EIO, "%s: %s", what, text);
	}
}

static int bind_one(sqlite3_stmt *stmt, int n, char type, va_list *ap)
{
	_cleanup_free_ char *dump = NULL;
	const json_t *json;
	const void *data;
	size_t size_bytes;

	switch (type) {
	case 's':
		return sqlite3_bind_text(stmt, n, va_arg(*ap, const char *), -1, SQLITE_TRANSIENT);
	case 'i':
		return sqlite3_bind_int64(stmt, n, va_arg(*ap, int64_t));
	case 'b':
		data = va_arg(*ap, const void *);
		size_bytes = va_arg(*ap, size_t);
		return sqlite3_bind_blob64(stmt, n, data, size_bytes, SQLITE_TRANSIENT);
	case 'j':
		json = va_arg(*ap, const json_t *);
		if (json == NULL)
			return sqlite3_bind_null(stmt, n);
		dump = json_dumps(json, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);
		return dump == NULL ? SQLITE_NOMEM : sqlite3_bind_text(stmt, n, dump, -1, SQLITE_TRANSIENT);
	}
	assert(!"unknown parameter type");
	return SQLITE_MISUSE;
}

static int prepare(struct lb_db *db, lb_db_rows **ret_rows, const char *sql, const char *types, va_list *ap)
{
	_cleanup_rows_ sqlite3_stmt *stmt = NULL;

	if (sqlite3_prepare_v2(db->sqlite, sql, -1, &stmt, NULL) != SQLITE_OK)
		return db_fail(db, "a statement of ours is wrong");
	assert((size_t)sqlite3_bind_parameter_count(stmt) == strlen(types));
	for (int i = 0; types[i] != '\0'; i++)
		if (bind_one(stmt, i + 1, types[i], ap) != SQLITE_OK)
			return db_fail(db, "a value can't be bound");
	*ret_rows = lb_steal_ptr(stmt);
	return 0;
}

int lb_db_query(struct lb_db *db, lb_db_rows **ret_rows, const char *sql, const char *types, ...)
{
	va_list ap;
	int r;

	va_start(ap, types);
	r = prepare(db, ret_rows, sql, types, &ap);
	va_end(ap);
	return r;
}

int lb_db_next(struct lb_db *db, lb_db_rows *rows)
{
	switch (sqlite3_step(rows)) {
	case SQLITE_ROW:
		return 1;
	case SQLITE_DONE:
		return 0;
	default:
		return db_fail(db, "database");
	}
}

static int run(struct lb_db *db, int64_t *ret_changes, const char *sql, const char *types, va_list *ap)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = prepare(db, &rows, sql, types, ap);
	while (r == 0 && (r = lb_db_next(db, rows)) == 1)
		r = 0;
	if (r == 0 && ret_changes != NULL)
		*ret_changes = sqlite3_changes64(db->sqlite);
	return r;
}

int lb_db_run(struct lb_db *db, const char *sql, const char *types, ...)
{
	va_list ap;
	int r;

	va_start(ap, types);
	r = run(db, NULL, sql, types, &ap);
	va_end(ap);
	return r;
}

int lb_db_run_changes(struct lb_db *db, int64_t *ret_changes, const char *sql, const char *types, ...)
{
	va_list ap;
	int r;

	va_start(ap, types);
	r = run(db, ret_changes, sql, types, &ap);
	va_end(ap);
	return r;
}

int lb_db_get_int(struct lb_db *db, int64_t *ret_value, const char *sql, const char *types, ...)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	va_list ap;
	int r;

	LB_DB_SCOPE(db);
	va_start(ap, types);
	r = prepare(db, &rows, sql, types, &ap);
	va_end(ap);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r < 0)
		return r;
	if (r == 0 || lb_db_null(rows, 0))
		return lb_fail(-ENOENT, "the database has no such row");
	*ret_value = lb_db_int(rows, 0);
	return 0;
}

const char *lb_db_text(lb_db_rows *rows, int column)
{
	return (const char *)sqlite3_column_text(rows, column);
}

int64_t lb_db_int(lb_db_rows *rows, int column)
{
	return sqlite3_column_int64(rows, column);
}

bool lb_db_null(lb_db_rows *rows, int column)
{
	return sqlite3_column_type(rows, column) == SQLITE_NULL;
}

json_t *lb_db_json(lb_db_rows *rows, int column)
{
	const char *text = lb_db_text(rows, column);

	return text != NULL ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

int lb_db_begin(struct lb_db *db, struct lb_db_txn *txn)
{
	int r = 0;

	pthread_mutex_lock(&db->lock);
	if (db->depth == 0)
		r = lb_db_run(db, "BEGIN IMMEDIATE", "");
	if (r < 0) {
		pthread_mutex_unlock(&db->lock);
		return r;
	}
	db->depth++;
	txn->db = db;
	return 0;
}

int lb_db_commit(struct lb_db_txn *txn)
{
	struct lb_db *db = txn->db;
	int r = 0;

	if (db->depth == 1)
		r = lb_db_run(db, "COMMIT", "");
	if (r < 0)
		return r; /* the scope's end rolls back */
	db->depth--;
	txn->db = NULL;
	pthread_mutex_unlock(&db->lock);
	return 0;
}

void lb_db_endp(struct lb_db_txn *txn)
{
	struct lb_db *db = txn->db;

	if (db == NULL)
		return;
	/* an inner failure undoes all: the outer one is told so by its own failure */
	if (--db->depth == 0)
		sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
	txn->db = NULL;
	pthread_mutex_unlock(&db->lock);
}

static int make_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return lb_fail(-errno, "can't open the database %s: %s", path, strerror(errno));
	close(fd);
	return 0;
}

static int init_lock(struct lb_db *db)
{
	pthread_mutexattr_t attr;
	int r = pthread_mutexattr_init(&attr);

	if (r != 0)
		return lb_fail(-r, "out of memory for a lock");
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	r = pthread_mutex_init(&db->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	return r != 0 ? lb_fail(-r, "out of memory for a lock") : 0;
}

int lb_db_open(const char *path, struct lb_db **ret_db)
{
	struct lb_db *db;
	int r;

	r = make_file(path);
	if (r < 0)
		return r;
	db = calloc(1, sizeof(*db));
	if (db == NULL)
		return lb_fail(-ENOMEM, "out of memory for a database");
	r = init_lock(db);
	if (r < 0) {
		free(db);
		return r;
	}
	/* SQLite's own lock besides ours: a statement's scope may end, and finalize it, after that of our lock */
	if (sqlite3_open_v2(path, &db->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, NULL) != SQLITE_OK)
		r = db_fail(db, path);
	if (r == 0) {
		sqlite3_busy_timeout(db->sqlite, LB_DB_BUSY_MS);
		if (sqlite3_exec(db->sqlite,
				 "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
				 "PRAGMA trusted_schema=OFF",
				 NULL, NULL, NULL) != SQLITE_OK)
			r = db_fail(db, path);
	}
	if (r == 0)
		r = lb_schema_update(db);
	if (r < 0) {
		lb_db_free(db);
		return r;
	}
	*ret_db = db;
	return 0;
}

void lb_db_free(struct lb_db *db)
{
	sqlite3_close(db->sqlite);
	pthread_mutex_destroy(&db->lock);
	free(db);
}
