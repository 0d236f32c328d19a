/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/json.h"
#include "base/text.h"

#define RECORD_BYTES_MAX (1u << 20)
#define PIN_RANDOM_BYTES 16
#define LOCK_TRIES_MAX 8 /* its owner removes it when it ends */

static int lock(struct cli_plan_record *record)
{
	struct stat opened, there;
	int r;

	for (unsigned int i = 0; i < LOCK_TRIES_MAX; i++) {
		record->lock_fd = open(record->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (record->lock_fd < 0)
			return lb_fail(-errno, "can't open %s: %s", record->lock_path, strerror(errno));
		r = record->env->ops->lock(record->env, record->lock_fd);
		if (r < 0) {
			close(record->lock_fd); /* it is the other one's to remove */
			record->lock_fd = -1;
			return lb_fail(r == -EWOULDBLOCK ? -EBUSY : r,
				       "another `lifeboat plan` is at work on this plan here; wait until it has ended");
		}
		if (fstat(record->lock_fd, &opened) == 0 && stat(record->lock_path, &there) == 0 &&
		    opened.st_ino == there.st_ino)
			return 0;
		close(record->lock_fd);
		record->lock_fd = -1;
	}
	return lb_fail(-EBUSY, "%s can't be locked; try again", record->lock_path);
}

static int load(struct cli_plan_record *record)
{
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes;
	int r;

	r = lb_file_read(record->env, record->path, RECORD_BYTES_MAX, &text, &size_bytes);
	if (r == -ENOENT) {
		lb_err_clear();
		return 0;
	}
	r = r < 0 ? r : lb_json_parse(text, size_bytes, RECORD_BYTES_MAX, &record->body);
	if (r < 0 || !json_is_object(json_object_get(record->body, "plan")) ||
	    !json_is_object(json_object_get(record->body, "points")) ||
	    !json_is_object(json_object_get(record->body, "done")) ||
	    !json_is_string(json_object_get(record->body, "point")))
		return lb_fail(
			-EBADMSG,
			"%s, which tells how far the plan has come, can't be read; remove it to begin anew: what "
			"runs already is left alone",
			record->path);
	record->goes_on = true;
	return 0;
}

int cli_plan_record_open(struct lb_env *env, const char *vm_folder, const char *plan, bool live,
			 struct cli_plan_record *ret_record)
{
	struct cli_plan_record *record = ret_record;
	const char *kind = live ? "failover" : "test";
	int r;

	*record = (struct cli_plan_record){.env = env, .lock_fd = -1};
	if (snprintf(record->path, PATH_MAX, "%s/plan-%s-%s.json", vm_folder, plan, kind) >= PATH_MAX ||
	    snprintf(record->lock_path, PATH_MAX, "%s/plan-%s-%s.lock", vm_folder, plan, kind) >= PATH_MAX)
		return lb_fail(-ENAMETOOLONG, "the folder's path is too long");
	r = lb_folder_make(env, vm_folder, 0711);
	r = r < 0 ? r : lock(record);
	return r < 0 ? r : load(record);
}

static int save(struct cli_plan_record *record)
{
	_cleanup_free_ char *text = json_dumps(record->body, JSON_INDENT(1));

	return text == NULL ? lb_fail(-ENOMEM, "out of memory")
			    : lb_file_write(record->env, record->path, text, strlen(text), 0600);
}

int cli_plan_record_begin(struct cli_plan_record *record, const json_t *plan, const char *point, const json_t *points)
{
	uint8_t random[PIN_RANDOM_BYTES];
	char hex[2 * PIN_RANDOM_BYTES + 1];
	int r;

	r = record->env->ops->random(record->env, random, sizeof(random));
	if (r < 0)
		return lb_fail(r, "there are no random numbers for a name: %s", strerror(-r));
	lb_hex_encode(random, sizeof(random), hex);
	record->body = json_pack("{s:O,s:s,s:O,s:o,s:b,s:{},s:I}", "plan", plan, "point", point, "points", points,
				 "pin", json_sprintf("plan-%s", hex), "pinned", 0, "done", "begun_ns",
				 (json_int_t)lb_now_ns(record->env));
	return record->body == NULL ? lb_fail(-ENOMEM, "out of memory") : save(record);
}

int cli_plan_record_pinned(struct cli_plan_record *record)
{
	if (json_object_set_new(record->body, "pinned", json_true()) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	return save(record);
}

int cli_plan_record_done(struct cli_plan_record *record, const char *action)
{
	int r;

	if (json_object_set_new(json_object_get(record->body, "done"), action, json_true()) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	r = save(record);
	lb_fault_place("plan: %s is done", action);
	return r;
}

bool cli_plan_record_is_done(const struct cli_plan_record *record, const char *action)
{
	return json_is_true(json_object_get(json_object_get(record->body, "done"), action));
}

int cli_plan_record_remove(struct cli_plan_record *record)
{
	int r = record->env->ops->unlink(record->env, record->path);

	return r < 0 && r != -ENOENT ? lb_fail(r, "can't remove %s: %s", record->path, strerror(-r)) : 0;
}

void cli_plan_record_close(struct cli_plan_record *record)
{
	json_decref(record->body);
	record->body = NULL;
	if (record->lock_fd < 0)
		return;
	(void)record->env->ops->unlink(record->env, record->lock_path);
	lb_closep(&record->lock_fd);
	record->lock_fd = -1;
}
