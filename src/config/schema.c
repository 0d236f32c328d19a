/* SPDX-License-Identifier: Apache-2.0 */
#include "config/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"

/* Step n makes version n + 1. A step that was released is never changed: a new one is added. */
static const char *const steps[] = {
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);"
	"CREATE TABLE policy (name TEXT PRIMARY KEY, body TEXT NOT NULL, updated_ns INTEGER NOT NULL);"
	"CREATE TABLE process ("
	"  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, hosts TEXT NOT NULL, port INTEGER NOT NULL,"
	"  local INTEGER NOT NULL, created_ns INTEGER NOT NULL, seen_ns INTEGER NOT NULL DEFAULT 0, report TEXT);"
	"CREATE TABLE machine ("
	"  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, hardware TEXT NOT NULL, policy TEXT NOT NULL,"
	"  enabled INTEGER NOT NULL DEFAULT 0, fenced INTEGER NOT NULL DEFAULT 0,"
	"  process TEXT REFERENCES process(id), resync_generation INTEGER NOT NULL DEFAULT 0,"
	"  disks TEXT NOT NULL DEFAULT '[]', inventory TEXT, state TEXT NOT NULL DEFAULT '', error TEXT,"
	"  created_ns INTEGER NOT NULL, enabled_ns INTEGER, seen_ns INTEGER NOT NULL DEFAULT 0,"
	"  proven_ns INTEGER, proven_point_ns INTEGER, health TEXT NOT NULL DEFAULT '');"
	"CREATE INDEX machine_hardware ON machine(hardware);"
	"CREATE TABLE certificate ("
	"  fingerprint TEXT PRIMARY KEY, holder TEXT NOT NULL, role TEXT NOT NULL, not_after_ns INTEGER NOT NULL,"
	"  issued_ns INTEGER NOT NULL, used_ns INTEGER, revoked_ns INTEGER, reason TEXT);"
	"CREATE INDEX certificate_holder ON certificate(holder);"
	"CREATE TABLE token ("
	"  hash BLOB PRIMARY KEY, kind TEXT NOT NULL, name TEXT, role TEXT, replaces INTEGER NOT NULL, made_by TEXT "
	"NOT NULL,"
	"  created_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL, used_ns INTEGER, used_by TEXT, used_key BLOB);"
	"CREATE TABLE job ("
	"  id TEXT PRIMARY KEY, kind TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL, request TEXT NOT NULL,"
	"  result TEXT, error TEXT, progress INTEGER NOT NULL DEFAULT 0, cancel INTEGER NOT NULL DEFAULT 0,"
	"  made_by TEXT NOT NULL, created_ns INTEGER NOT NULL, started_ns INTEGER, ended_ns INTEGER);"
	"CREATE TABLE job_step ("
	"  job TEXT NOT NULL REFERENCES job(id) ON DELETE CASCADE, n INTEGER NOT NULL, name TEXT NOT NULL, state TEXT "
	"NOT NULL,"
	"  text TEXT NOT NULL DEFAULT '', started_ns INTEGER NOT NULL, ended_ns INTEGER, PRIMARY KEY (job, n));"
	"CREATE TABLE event ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, level TEXT NOT NULL, subject TEXT NOT NULL,"
	"  text TEXT NOT NULL);"
	"CREATE TABLE audit ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, who TEXT NOT NULL, role TEXT NOT NULL,"
	"  address TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, result TEXT NOT NULL);",
	"ALTER TABLE policy ADD COLUMN version INTEGER NOT NULL DEFAULT 1;"
	"ALTER TABLE machine ADD COLUMN target TEXT;"
	"ALTER TABLE machine ADD COLUMN readiness TEXT;",

	/* recovery plans, drills, and jobs that wait for jobs */
	"ALTER TABLE job ADD COLUMN parent TEXT;"
	"ALTER TABLE job ADD COLUMN woken INTEGER NOT NULL DEFAULT 0;"
	"CREATE INDEX job_parent ON job(parent);"
	"CREATE INDEX job_target ON job(target);"
	"CREATE TABLE plan (name TEXT PRIMARY KEY, body TEXT NOT NULL, updated_ns INTEGER NOT NULL);"
	"CREATE TABLE plan_double ("
	"  double TEXT PRIMARY KEY, plan TEXT NOT NULL, machine TEXT NOT NULL, kind TEXT NOT NULL, made_ns INTEGER NOT "
	"NULL);"
	"CREATE TABLE plan_confirmation ("
	"  job TEXT NOT NULL REFERENCES job(id) ON DELETE CASCADE, action TEXT NOT NULL, who TEXT NOT NULL,"
	"  time_ns INTEGER NOT NULL, PRIMARY KEY (job, action));"
	"CREATE TABLE drill (id TEXT PRIMARY KEY, machine TEXT NOT NULL, started_ns INTEGER NOT NULL, body TEXT NOT "
	"NULL);"
	"CREATE TABLE drill_schedule ("
	"  target TEXT PRIMARY KEY, body TEXT NOT NULL, next_ns INTEGER NOT NULL, made_by TEXT NOT NULL);",
	"CREATE TABLE point_order ("
	"  machine TEXT PRIMARY KEY, generation INTEGER NOT NULL, app INTEGER NOT NULL, job TEXT NOT NULL,"
	"  made_ns INTEGER NOT NULL, result TEXT);"
	"CREATE TABLE point_note ("
	"  machine TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, frozen_ns INTEGER NOT NULL,"
	"  shared TEXT NOT NULL, PRIMARY KEY (machine, epoch, seq));",

	"CREATE TABLE move ("
	"  machine TEXT PRIMARY KEY REFERENCES machine(id) ON DELETE CASCADE, from_process TEXT NOT NULL, state TEXT "
	"NOT "
	"NULL,"
	"  changed_ns INTEGER NOT NULL);",
	"ALTER TABLE process ADD COLUMN port_next INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE process ADD COLUMN port_old INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE process ADD COLUMN port_until_ns INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE process ADD COLUMN port_keep_s INTEGER NOT NULL DEFAULT 0;",

	/* replication groups */
	"CREATE TABLE replication_group ("
	"  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, interval_s INTEGER NOT NULL,"
	"  app_interval_s INTEGER NOT NULL, created_ns INTEGER NOT NULL);"
	"CREATE TABLE group_member (machine TEXT PRIMARY KEY, grp TEXT NOT NULL);"
	"CREATE INDEX group_member_grp ON group_member(grp);"
	"CREATE TABLE group_order ("
	"  grp TEXT PRIMARY KEY, generation INTEGER NOT NULL, app INTEGER NOT NULL, job TEXT NOT NULL, result TEXT);"
	"CREATE TABLE shared_point ("
	"  id TEXT PRIMARY KEY, grp TEXT NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL, made_ns INTEGER NOT NULL);"
	"CREATE INDEX shared_point_grp ON shared_point(grp, made_ns);",

	/* master target servers */
	"CREATE TABLE target_server ("
	"  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, local INTEGER NOT NULL, created_ns INTEGER NOT NULL,"
	"  seen_ns INTEGER NOT NULL DEFAULT 0, report TEXT);"
	"CREATE TABLE target_order ("
	"  id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, server TEXT NOT NULL, machine TEXT NOT NULL, kind TEXT NOT "
	"NULL,"
	"  body TEXT NOT NULL, state TEXT NOT NULL, report TEXT, made_by TEXT NOT NULL, made_ns INTEGER NOT NULL,"
	"  changed_ns INTEGER NOT NULL);"
	"CREATE INDEX target_order_server ON target_order(server, state);",

	/* doubles on their way back */
	"ALTER TABLE process ADD COLUMN temporary INTEGER NOT NULL DEFAULT 0;"
	"CREATE TABLE reprotect ("
	"  double TEXT PRIMARY KEY, machine TEXT NOT NULL, name TEXT NOT NULL, back_name TEXT NOT NULL UNIQUE,"
	"  back TEXT NOT NULL DEFAULT '', key TEXT NOT NULL DEFAULT '', process TEXT NOT NULL DEFAULT '', state TEXT "
	"NOT NULL,"
	"  request TEXT NOT NULL, job TEXT NOT NULL, made_ns INTEGER NOT NULL);",

	/* which doubles are of which plan is found by their machines */
	"DROP TABLE plan_double;",

	/* what was not well with the double that proved a machine */
	"ALTER TABLE machine ADD COLUMN proven_warning TEXT NOT NULL DEFAULT '';",
};

static int step_up(struct lb_db *db, int64_t version)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	struct timespec now;
	int r;

	r = lb_db_begin(db, &txn);
	if (r < 0)
		return r;
	if (sqlite3_exec(db->sqlite, steps[version], NULL, NULL, NULL) != SQLITE_OK)
		return lb_fail(-EIO, "the database can't be brought to version %" PRId64 ": %s", version + 1,
			       sqlite3_errmsg(db->sqlite));
	clock_gettime(CLOCK_REALTIME, &now);
	r = lb_db_run(db, "INSERT INTO migration (version, done_ns) VALUES (?, ?)", "ii", version + 1,
		      (int64_t)now.tv_sec * LB_NS_PER_S + now.tv_nsec);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_schema_update(struct lb_db *db)
{
	int64_t version;
	int r;

	_Static_assert(LB_ARRAY_LEN(steps) == LB_DB_SCHEMA_VERSION, "one step per version");
	r = lb_db_run(
		db, "CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY, done_ns INTEGER NOT NULL)", "");
	if (r == 0)
		r = lb_db_get_int(db, &version, "SELECT ifnull(max(version), 0) FROM migration", "");
	if (r != 0)
		return r;
	if (version > LB_DB_SCHEMA_VERSION)
		return lb_fail(-EPROTONOSUPPORT,
			       "the database is of version %" PRId64 ", this program knows %d: install the newer "
			       "lifeboat-config again",
			       version, LB_DB_SCHEMA_VERSION);
	for (; r == 0 && version < LB_DB_SCHEMA_VERSION; version++)
		r = step_up(db, version);
	return r;
}
