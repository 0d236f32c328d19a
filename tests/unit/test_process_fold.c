/* SPDX-License-Identifier: Apache-2.0 */
/* The server that folds by itself: points thin out beside ingest, and what nothing happens to costs nothing. */
#include "process_help.h"

#include "process/fold.h"
#include "vault/internal.h"
#include "vault/points.h"
#include "vault/verify.h"

#define HOUR_S 3600
#define STEP_S 600
#define POINTS_MAX 128

static struct lb_folder folder_thread;
static struct lb_digest models[POINTS_MAX]; /* the disk after segment i */
static int64_t waited_ns;

static void pass(int64_t time_s)
{
	now_shift_ns += time_s * LB_NS_PER_S;
	mono_shift_ns += time_s * LB_NS_PER_S;
	site_work();
}

/* Nobody waits here: the time passes at once. */
static int wait_on_the_shifted_clock(struct lb_env *env, int64_t mono_ns, MAYBE int wake_fd)
{
	int64_t left_ns = LB_MAX(mono_ns - lb_mono_ns(env), (int64_t)0);

	waited_ns += left_ns;
	now_shift_ns += left_ns;
	mono_shift_ns += left_ns;
	return 0;
}

static unsigned int fold(void)
{
	unsigned int n = 0;
	int64_t next;

	while (lb_folder_next(&folder_thread, &next))
		assert_true(++n < 100);
	return n;
}

/* The ladder's steps are hours of the clock: a test that began at another minute would see others. */
static void begin_at_midnight(void)
{
	const int64_t day_ns = 24 * HOUR_S * LB_NS_PER_S, left_ns = day_ns - lb_now_ns(&world) % day_ns;

	now_shift_ns += left_ns;
	mono_shift_ns += left_ns;
}

static int fold_begin(void **state)
{
	int r = site_begin(state);

	begin_at_midnight();
	world_ops.wait_until = wait_on_the_shifted_clock;
	folder_thread = (struct lb_folder){.process = site.p, .wake_fd = -1};
	site.retention = "all:2h 1h:12h";
	if (r == 0)
		site_configure();
	return r;
}

static void write_one(struct agent *a, unsigned int i)
{
	assert_true(a->seq < POINTS_MAX);
	send(a, 4096u * (i * 7 % 20), 16384, (uint8_t)(i + 1));
	assert_int_equal(lb_sha256(a->disk, sizeof(a->disk), &models[a->seq - 1]), 0);
}

/* As an agent would for `n` points, with the server folding when it is due. */
static void live(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		write_one(&site.a, (unsigned int)site.a.seq);
		pass(STEP_S);
		fold();
	}
}

struct points {
	unsigned int n;
	struct lb_point point[POINTS_MAX];
};

static int note_point(void *arg, const struct lb_point *point)
{
	struct points *points = arg;

	assert_true(points->n < POINTS_MAX);
	points->point[points->n++] = *point;
	return 0;
}

static void list_points(struct points *ret)
{
	ret->n = 0;
	assert_int_equal(lb_points_list(site.owner, &site.a.id, 0, INT64_MAX, note_point, ret), 0);
}

static void assert_point(const struct lb_position *at)
{
	static uint8_t got[DISK_BYTES];
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	struct lb_digest digest;

	assert_int_equal(lb_image_open(site.owner, &site.a.id, at, LB_IMAGE_CACHE_BYTES_DEFAULT, &image), 0);
	assert_int_equal(lb_image_pread(image, 0, got, sizeof(got), 0), 0);
	assert_int_equal(lb_sha256(got, sizeof(got), &digest), 0);
	assert_memory_equal(&digest, &models[at->seq], sizeof(digest));
}

static int count_object(void *arg, MAYBE const char *name, MAYBE uint64_t size_bytes)
{
	++*(unsigned int *)arg;
	return 0;
}

static unsigned int objects_of(const struct agent *a, const char *below)
{
	char id[LB_UUID_TEXT_BYTES], prefix[128];
	unsigned int n = 0;

	lb_uuid_format(&a->id, id);
	snprintf(prefix, sizeof(prefix), "m/%s/%s", id, below);
	assert_int_equal(lb_store_list(site.store, prefix, count_object, &n), 0);
	return n;
}

static void note_finding(void *arg, const struct lb_verify_finding *f)
{
	/* catalog entries are the configuration server's to put */
	if (f->is_note || strstr(f->object, "/item/") != NULL)
		return;
	print_error("%s: %s\n", f->object, f->text);
	++*(unsigned int *)arg;
}

static void assert_verified(void)
{
	struct lb_verify_report report;
	unsigned int n = 0;

	assert_int_equal(lb_vault_verify(site.owner, &site.a.id, true, NULL, note_finding, &n, &report), 0);
	assert_int_equal(n, 0);
}

static void assert_reported(unsigned int points)
{
	_cleanup_json_ json_t *report = NULL;
	const json_t *folded;
	uint32_t cursor = 0;

	assert_int_equal(lb_report(site.p, &cursor, &report), 0);
	folded = json_object_get(json_array_get(json_object_get(report, "machines"), 0), "folded");
	/* what is announced is gone from lists before it is pruned */
	assert_in_range(json_integer_value(json_object_get(folded, "points")), points - 6, points + 6);
	assert_true(json_integer_value(json_object_get(folded, "points_pruned")) > 40);
	assert_true(json_integer_value(json_object_get(folded, "taken_bytes")) > 96 * 16384);
	assert_true(json_integer_value(json_object_get(folded, "deleted_bytes")) > 0);
	assert_true(json_real_value(json_object_get(folded, "write_ratio")) >= 1);
	assert_true(json_real_value(json_object_get(folded, "space_ratio")) >= 1);
}

static void points_thin_out_beside_ingest_and_those_that_stay_are_exact(void **state)
{
	static struct points points;
	const struct lb_machine *m = machine_of(&site.a);
	unsigned int old = 0;

	(void)state;
	begin_epoch(&site.a);
	live(96);
	list_points(&points);
	assert_reported(points.n);
	for (unsigned int i = 0; i < points.n; i++) {
		assert_point(&points.point[i].position);
		old += points.point[i].until_ns < lb_now_ns(&world) - 3 * HOUR_S * LB_NS_PER_S;
	}
	assert_int_equal(points.point[points.n - 1].position.seq, 95);
	/* 13 slots of an hour at most, and all of the last hours */
	assert_in_range(old, 8, 14);
	assert_true(points.n < 40);
	assert_true(m->folded.points_pruned > 40);
	assert_true(m->folded.deleted_objects > 0);
	assert_true(objects_of(&site.a, "e/") < 96);
	assert_verified();
}

/* Opened from the newest checkpoint. */
static void checkpoints_that_build_on_others_need_nothing_that_was_deleted(void **state)
{
	bool written;

	(void)state;
	begin_epoch(&site.a);
	send(&site.a, 0, 128 << 10, 200); /* the end of it stays, and moves when its object is mostly dead */
	for (unsigned int i = 0; i < 60; i++) {
		live(1);
		assert_int_equal(lb_checkpoint_write(site.p->vault, &site.a.id, true, &written), 0);
		assert_image(&site.a, 1, site.a.seq - 1);
	}
	assert_true(machine_of(&site.a)->folded.deleted_objects > 0);
	assert_verified();
}

static void a_restart_goes_on_with_what_was_folded(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	live(48);
	site_restart();
	folder_thread = (struct lb_folder){.process = site.p, .wake_fd = -1};
	live(24);
	assert_in_vault(&site.a, 1, 71);
	assert_image(&site.a, 1, 71);
	assert_verified();
}

/* ---- a server that dies while it folds ---- */

static const struct lb_store_ops *whole_ops;
static struct lb_store_ops mortal_ops;
static int64_t changes_left;

static bool dies(void)
{
	return changes_left-- <= 0;
}

static int mortal_put_new(struct lb_store *s, const char *name, const void *data, size_t size_bytes)
{
	return dies() ? lb_fail(-EIO, "the server was killed") : whole_ops->put_new(s, name, data, size_bytes);
}

static int mortal_replace(struct lb_store *s, const char *name, const char *etag, const void *data, size_t size_bytes)
{
	return dies() ? lb_fail(-EIO, "the server was killed") : whole_ops->replace(s, name, etag, data, size_bytes);
}

static int mortal_remove(struct lb_store *s, const char *name)
{
	return dies() ? lb_fail(-EIO, "the server was killed") : whole_ops->remove(s, name);
}

/* A server that folds, and can change the store `changes` times before it is gone; whether it lived. */
static bool fold_until_killed(int64_t changes)
{
	struct lb_store *store = site.p->vault->store;
	bool lived;

	whole_ops = store->ops;
	mortal_ops = *whole_ops;
	mortal_ops.put_new = mortal_put_new;
	mortal_ops.replace = mortal_replace;
	mortal_ops.remove = mortal_remove;
	changes_left = changes;
	store->ops = &mortal_ops;
	fold();
	lived = changes_left >= 0;
	store->ops = whole_ops;
	return lived;
}

static void a_server_that_is_killed_at_any_change_goes_on_where_it_was(void **state)
{
	static struct points points;
	int64_t most = -1; /* changes before a death */

	(void)state;
	begin_epoch(&site.a);
	live(24);
	for (int64_t round = 0; round < 36; round++) {
		const int64_t changes = round % 9;

		write_one(&site.a, (unsigned int)site.a.seq);
		pass(2 * STEP_S);
		if (!fold_until_killed(changes))
			most = LB_MAX(most, changes);
		site_restart();
		folder_thread = (struct lb_folder){.process = site.p, .wake_fd = -1};
		list_points(&points);
		for (unsigned int i = 0; i < points.n; i++)
			assert_point(&points.point[i].position);
		assert_int_equal(points.point[points.n - 1].position.seq, site.a.seq - 1);
	}
	assert_true(most >= 3);
	live(8);
	assert_image(&site.a, 1, site.a.seq - 1);
	assert_verified();
}

/* A failover pins its point. */
static void a_point_that_is_being_recovered_outlives_the_ladder(void **state)
{
	static struct points points;
	struct lb_point point = {0};

	(void)state;
	begin_epoch(&site.a);
	live(24);
	list_points(&points);
	for (unsigned int i = points.n - 4; i < points.n;
	     i++) /* in the window now, on no rung later: not an hour's first */
		if (points.point[i].time_ns / LB_NS_PER_S / HOUR_S ==
		    points.point[i - 1].time_ns / LB_NS_PER_S / HOUR_S)
			point = points.point[i];
	assert_int_equal(lb_point_pin(site.owner, &site.a.id, &point, "failover"), 0);
	for (unsigned int i = 0; i < 12; i++) {
		live(5);
		assert_point(&point.position);
	}
	assert_true(machine_of(&site.a)->folded.deleted_objects > 0);
	assert_int_equal(lb_point_unpin(site.owner, &site.a.id, "failover"), 0);
	live(6);
	list_points(&points);
	for (unsigned int i = 0; i < points.n; i++)
		assert_int_not_equal(points.point[i].position.seq, point.position.seq);
	assert_verified();
}

static void pruned_ground_of_an_epoch_means_that_everything_differs(void **state)
{
	uint8_t hashes[3 * LB_DIGEST_BYTES] = {0}, differ[1] = {0};
	struct lb_compare_request q = {.block_bytes = LB_COMPARE_BLOCK_BYTES_MIN, .n = 3, .hashes = hashes};
	struct lb_settle_question question = {.length_bytes = 8192};
	static struct lb_settle_answer answer;
	struct lb_position ground;

	(void)state;
	begin_epoch(&site.a);
	live(8);
	ground = (struct lb_position){.epoch = 1, .seq = site.a.seq - 1};
	begin_epoch(&site.a);
	for (unsigned int i = 0; i < 100; i++) {
		send(&site.a, 0, 4096, (uint8_t)i);
		pass(STEP_S);
		fold();
	}
	q.epoch = 2;
	assert_int_equal(lb_image_open(site.owner, &site.a.id, &ground, LB_IMAGE_CACHE_BYTES_DEFAULT,
				       &(struct lb_image *){NULL}),
			 -ENOENT);
	assert_int_equal(lb_compare_blocks(machine_of(&site.a), &q, differ), 0);
	assert_int_equal(differ[0], 7);
	assert_int_equal(lb_compare_settle(machine_of(&site.a), 2, &question, &answer), 0);
	assert_true(answer.settled && answer.units == 2 && (answer.send[0] & 3) == 3);
}

static void a_fenced_machine_s_journal_is_left_alone(void **state)
{
	static struct points points;

	(void)state;
	begin_epoch(&site.a);
	for (unsigned int i = 0; i < 24; i++) {
		write_one(&site.a, i);
		pass(STEP_S);
	}
	site.fenced = true;
	site_configure();
	for (unsigned int i = 0; i < 20; i++) {
		pass(HOUR_S / 2);
		fold();
	}
	list_points(&points);
	assert_int_equal(points.n, 24);
	assert_int_equal(objects_of(&site.a, "f/"), 0);
}

static void a_clock_that_jumped_prunes_nothing_until_it_has_gone_on_for_a_day(void **state)
{
	static struct points points;

	(void)state;
	begin_epoch(&site.a);
	live(6);
	list_points(&points);
	assert_int_equal(points.n, 6);
	now_shift_ns += 10 * HOUR_S * LB_NS_PER_S;
	live(1); /* a new point, by the wrong clock: the others look old */
	for (unsigned int i = 0; i < 8; i++)
		live(2);
	list_points(&points);
	assert_int_equal(points.n, 23);
	for (unsigned int i = 0; i < 5 * 24; i++) {
		pass(LB_FOLDER_PAUSE_S / 100);
		fold();
	}
	live(3);
	list_points(&points);
	assert_true(points.n < 23);
	assert_verified();
}

static void the_policys_bandwidth_holds_folding_back(void **state)
{
	(void)state;
	begin_epoch(&site.a);
	site.bandwidth_bytes_per_s = LB_BANDWIDTH_BYTES_PER_S_MIN;
	site_configure();
	waited_ns = 0;
	live(40);
	assert_true(waited_ns > 0);
	assert_true(machine_of(&site.a)->folded.points_pruned > 0);
	assert_verified();
}

/* ---- economy ------------------------------------------------------------------------------------------- */

static void beat_idle(struct agent *a)
{
	_cleanup_json_ json_t *body =
		json_pack("{s:I,s:I,s:b,s:s,s:s}", "epoch", (json_int_t)a->epoch, "seq", (json_int_t)(a->seq - 1),
			  "idle", 1, "mode", "protected", "hardware", a->hardware);
	_cleanup_free_ char *text = json_dumps(body, 0);
	const struct lb_http_call c = {.body = text, .body_bytes = strlen(text)};
	struct lb_http_reply reply;

	assert_int_equal(call(a, "POST", "/v1/heartbeat", &c, &reply), 0);
	json_decref(reply.json);
}

static unsigned int n_written;

/* Objects get their names by links and renames. */
static void count_written(const char *path)
{
	char of_machine[128], id[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&site.a.id, id);
	snprintf(of_machine, sizeof(of_machine), "%s/m/%s/", vault_folder, id);
	n_written += strncmp(path, of_machine, strlen(of_machine)) == 0;
}

static int counting_link(struct lb_env *env, const char *from, const char *to)
{
	count_written(to);
	return lb_env_real()->ops->link(env, from, to);
}

static int counting_rename(struct lb_env *env, const char *from, const char *to)
{
	count_written(to);
	return watched_rename(env, from, to);
}

static void idle(unsigned int intervals)
{
	for (unsigned int i = 0; i < intervals; i++) {
		pass(HOUR_S / 2);
		beat_idle(&site.a);
		assert_int_equal(fold(), 1);
	}
}

static void an_idle_machine_writes_no_object_over_many_intervals(void **state)
{
	unsigned int objects;

	(void)state;
	begin_epoch(&site.a);
	live(3);
	world_ops.link = counting_link;
	world_ops.rename = counting_rename;
	n_written = 0;
	write_one(&site.a, 9);
	idle(60); /* until all that was is folded and deleted */
	assert_true(n_written > 0);
	n_written = 0;
	objects = objects_of(&site.a, "");
	idle(60);
	world_ops.link = lb_env_real()->ops->link;
	world_ops.rename = watched_rename;
	assert_int_equal(n_written, 0);
	assert_int_equal(objects_of(&site.a, ""), objects);
}

static void small_segments_of_one_interval_travel_in_one_object(void **state)
{
	unsigned int before;

	(void)state;
	begin_epoch(&site.a);
	site_work();
	before = objects_of(&site.a, "e/");
	for (unsigned int i = 0; i < 300; i++)
		send(&site.a, 512u * (i % 100), 512, (uint8_t)i);
	site_work();
	assert_int_equal(objects_of(&site.a, "e/"), before);
	pass(16);
	assert_in_vault(&site.a, 1, 299);
	assert_int_equal(objects_of(&site.a, "e/"), before + 1);
}

static void a_ladder_that_is_shortened_is_followed_at_once(void **state)
{
	const struct lb_machine *m = machine_of(&site.a);
	uint64_t before;

	(void)state;
	begin_epoch(&site.a);
	for (unsigned int i = 0; i < 8; i++) {
		write_one(&site.a, (unsigned int)site.a.seq);
		pass(30);
	}
	fold();
	before = m->folded.points_pruned;
	pass(30);
	assert_int_equal(fold(), 0); /* by the old one it is due in half an hour */
	site.retention = "all:1m 1h:12h";
	site_configure();
	pass(30);
	assert_true(fold() > 0);
	pass(30);
	fold();
	assert_true(m->folded.points_pruned > before);
}

#define T(name) cmocka_unit_test_setup_teardown(name, fold_begin, site_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(points_thin_out_beside_ingest_and_those_that_stay_are_exact),
		T(checkpoints_that_build_on_others_need_nothing_that_was_deleted),
		T(a_restart_goes_on_with_what_was_folded),
		T(a_server_that_is_killed_at_any_change_goes_on_where_it_was),
		T(a_point_that_is_being_recovered_outlives_the_ladder),
		T(pruned_ground_of_an_epoch_means_that_everything_differs),
		T(a_fenced_machine_s_journal_is_left_alone),
		T(a_clock_that_jumped_prunes_nothing_until_it_has_gone_on_for_a_day),
		T(the_policys_bandwidth_holds_folding_back),
		T(a_ladder_that_is_shortened_is_followed_at_once),
		T(an_idle_machine_writes_no_object_over_many_intervals),
		T(small_segments_of_one_interval_travel_in_one_object),
	};

	return cmocka_run_group_tests_name("process_fold", tests, world_begin, world_end);
}
