/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "config/registry.h"

#define AUDITS_MAX 100000
#define TEXT_BYTES_MAX 1024

void lb_event(struct lb_site *site, const char *level, const char *subject, const char *fmt, ...)
{
	char text[TEXT_BYTES_MAX];
	va_list ap;
	int r;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	lb_notice("%s: %s", subject, text);
	LB_DB_SCOPE(site->db);
	r = lb_db_run(site->db, "INSERT INTO event (time_ns, level, subject, text) VALUES (?,?,?,?)", "isss",
		      lb_now_ns(site->env), level, subject, text);
	if (r == 0)
		r = lb_db_run(site->db, "DELETE FROM event WHERE id <= last_insert_rowid() - ?", "i",
			      (int64_t)LB_EVENTS_MAX);
	if (r < 0)
		lb_error("an event can't be kept: %s", lb_err_text());
}

void lb_audit(struct lb_site *site, const struct lb_http_call *call, int result)
{
	char kept[LB_ERR_TEXT_BYTES_MAX];
	int r;

	/* the answer still needs this thread's text */
	snprintf(kept, sizeof(kept), "%s", lb_err_text());
	LB_DB_SCOPE(site->db);
	r = lb_db_run(site->db,
		      "INSERT INTO audit (time_ns, who, role, address, method, path, result) VALUES (?,?,?,?,?,?,?)",
		      "issssss", lb_now_ns(site->env), call->peer.name, lb_role_name(call->peer.role),
		      call->peer.address, call->method, call->path, result < 0 ? kept : "done");
	if (r == 0)
		r = lb_db_run(site->db, "DELETE FROM audit WHERE id <= last_insert_rowid() - ?", "i",
			      (int64_t)AUDITS_MAX);
	if (r < 0)
		lb_error("the audit trail can't be written: %s", lb_err_text());
	if (result < 0)
		lb_fail(result, "%s", kept);
}
