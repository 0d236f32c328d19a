/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The configuration server's database: SQLite in WAL mode, synchronous=FULL, so that what a call has answered survives
 * a power loss. One connection, used by one thread at a time: whoever works with it holds LB_DB_SCOPE(db), which may
 * nest. Parameters and columns are bound, never pasted. Errors: -EEXIST for a uniqueness that is broken, -ENOSPC, -EIO.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>
#include <sqlite3.h>

#include "base/cleanup.h"

#define LB_DB_SCHEMA_VERSION 11
#define LB_DB_BUSY_MS 10000

struct lb_db {
	sqlite3 *sqlite;
	pthread_mutex_t lock; /* recursive */
	unsigned int depth;   /* of nested transactions */
};

/* Opens or makes the file (0600) and brings its schema up to date; -EPROTONOSUPPORT when it is newer than this program.
 */
int lb_db_open(const char *path, struct lb_db **ret_db);
void lb_db_free(struct lb_db *db);
LB_DEFINE_CLEANUP(struct lb_db *, lb_db_free);

#define LB_DB_SCOPE(db) LB_LOCK_SCOPE(&(db)->lock)

/*
 * Binds by `types`, one letter per parameter: 's' const char * (NULL: null), 'i' int64_t, 'b' const void * + size_t,
 * 'j' const json_t * (as text; NULL: null).
 */
int lb_db_run(struct lb_db *db, const char *sql, const char *types, ...);
/* The same, with the number of rows that it changed. */
int lb_db_run_changes(struct lb_db *db, int64_t *ret_changes, const char *sql, const char *types, ...);

typedef sqlite3_stmt lb_db_rows;
int lb_db_query(struct lb_db *db, lb_db_rows **ret_rows, const char *sql, const char *types, ...);
/* 1: a row is there; 0: no more. */
int lb_db_next(struct lb_db *db, lb_db_rows *rows);
/* Columns of the current row; texts are valid until the next lb_db_next(). A null text is NULL. */
const char *lb_db_text(lb_db_rows *rows, int column);
int64_t lb_db_int(lb_db_rows *rows, int column);
bool lb_db_null(lb_db_rows *rows, int column);
/* NULL where the column is null or no JSON object or array; the caller's own reference. */
json_t *lb_db_json(lb_db_rows *rows, int column);
static inline void lb_db_rows_freep(lb_db_rows **rows)
{
	sqlite3_finalize(*rows);
}
#define _cleanup_rows_ _cleanup_(lb_db_rows_freep)

/* One value of one row; -ENOENT when there is none. */
int lb_db_get_int(struct lb_db *db, int64_t *ret_value, const char *sql, const char *types, ...);

/*
 * A transaction, held with the database's lock from begin to commit (or the end of the scope, which rolls back).
 * Transactions within transactions belong to the outermost.
 *
 *     _cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
 *     r = lb_db_begin(db, &txn); ... return lb_db_commit(&txn);
 */
struct lb_db_txn {
	struct lb_db *db;
};
int lb_db_begin(struct lb_db *db, struct lb_db_txn *txn);
int lb_db_commit(struct lb_db_txn *txn);
void lb_db_endp(struct lb_db_txn *txn);
