/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "vault_site.h"

#define RACERS 16

static struct site s;

static int make_store(void **state)
{
	(void)state;
	memset(&s, 0, sizeof(s));
	site_open_store(&s);
	return 0;
}

static int remove_store(void **state)
{
	(void)state;
	lb_store_free(s.store);
	site_folder_remove(s.folder);
	return 0;
}

struct racer {
	pthread_t thread;
	struct lb_store *store; /* a handle of its own, as another process has */
	pthread_barrier_t *start;
	uint8_t value;
	int result;
};

static void racers_start(struct racer racers[RACERS], pthread_barrier_t *start, void *(*run)(void *))
{
	char url[80];

	snprintf(url, sizeof(url), "dir:%s", s.folder);
	assert_int_equal(pthread_barrier_init(start, NULL, RACERS), 0);
	for (uint8_t i = 0; i < RACERS; i++) {
		racers[i] = (struct racer){.start = start, .value = i};
		ok(lb_store_open(lb_env_real(), url, false, &racers[i].store));
		assert_int_equal(pthread_create(&racers[i].thread, NULL, run, &racers[i]), 0);
	}
	for (uint8_t i = 0; i < RACERS; i++) {
		pthread_join(racers[i].thread, NULL);
		lb_store_free(racers[i].store);
	}
	pthread_barrier_destroy(start);
}

static void *race_to_put(void *arg)
{
	struct racer *r = arg;
	uint8_t data[3000];

	memset(data, r->value, sizeof(data));
	pthread_barrier_wait(r->start);
	r->result = lb_store_put_new(r->store, "race/for/it", data, sizeof(data));
	return NULL;
}

static void of_sixteen_that_put_one_name_exactly_one_succeeds_whole(void **state)
{
	_cleanup_buf_ struct lb_buf got = LB_BUF(3000);
	struct racer racers[RACERS];
	pthread_barrier_t start;
	int winner = -1;

	(void)state;
	racers_start(racers, &start, race_to_put);
	for (int i = 0; i < RACERS; i++) {
		if (racers[i].result == 0) {
			assert_int_equal(winner, -1);
			winner = i;
		} else {
			assert_int_equal(racers[i].result, -EEXIST);
		}
	}
	assert_true(winner >= 0);
	ok(lb_store_get(s.store, "race/for/it", 0, 3000, &got));
	for (size_t i = 0; i < 3000; i++)
		assert_int_equal(got.data[i], winner);
}

static void *race_to_count(void *arg)
{
	struct racer *r = arg;
	char etag[LB_STORE_ETAG_BYTES], text[16];
	uint64_t size_bytes;

	pthread_barrier_wait(r->start);
	for (int done = 0; done < 10;) {
		_cleanup_buf_ struct lb_buf b = LB_BUF(16);

		r->result = lb_store_stat(r->store, "counter", &size_bytes, etag);
		if (r->result == 0)
			r->result = lb_store_get_all(r->store, "counter", 16, &b);
		if (r->result < 0)
			return NULL;
		snprintf(text, sizeof(text), "%d", atoi((char *)b.data) + 1);
		r->result = lb_store_replace(r->store, "counter", etag, text, strlen(text));
		if (r->result == 0)
			done++;
		else if (r->result != -ESTALE)
			return NULL;
	}
	return NULL;
}

static void sixteen_that_replace_by_condition_lose_no_update(void **state)
{
	_cleanup_buf_ struct lb_buf b = LB_BUF(16);
	struct racer racers[RACERS];
	pthread_barrier_t start;

	(void)state;
	ok(lb_store_replace(s.store, "counter", NULL, "0", 1));
	racers_start(racers, &start, race_to_count);
	for (int i = 0; i < RACERS; i++)
		if (racers[i].result != 0)
			fail_msg("racer %d: %s", i, strerror(-racers[i].result));
	ok(lb_store_get_all(s.store, "counter", 16, &b));
	assert_string_equal((char *)b.data, "160");
}

/* Asks, in the middle of a replacement, for the lock that another process would need. */
static int lock_asked = 1;

static int asking_rename(struct lb_env *env, const char *from, const char *to)
{
	char path[512];
	int fd;

	site_path(&s, ".lock", path);
	fd = env->ops->open(env, path, O_RDWR, 0);
	lock_asked = env->ops->lock(env, fd);
	env->ops->close(env, fd);
	return lb_env_real()->ops->rename(env, from, to);
}

static void nobody_else_can_replace_between_the_comparison_and_the_rename(void **state)
{
	struct lb_env_ops ops = *lb_env_real()->ops;
	struct lb_env env = {.ops = &ops};
	char url[80], etag[LB_STORE_ETAG_BYTES];
	struct lb_store *store;
	uint64_t size_bytes;

	(void)state;
	ops.rename = asking_rename;
	snprintf(url, sizeof(url), "dir:%s", s.folder);
	ok(lb_store_put_new(s.store, "a", "one", 3));
	ok(lb_store_stat(s.store, "a", &size_bytes, etag));
	ok(lb_store_open(&env, url, false, &store));
	ok(lb_store_replace(store, "a", etag, "two", 3));
	lb_store_free(store);
	assert_int_equal(lock_asked, -EWOULDBLOCK);
}

static void replacing_needs_the_etag_of_what_is_there(void **state)
{
	char etag[LB_STORE_ETAG_BYTES];
	uint64_t size_bytes;

	(void)state;
	ok(lb_store_put_new(s.store, "a", "one", 3));
	assert_int_equal(lb_store_replace(s.store, "a", NULL, "x", 1), -EEXIST);
	ok(lb_store_stat(s.store, "a", &size_bytes, etag));
	assert_int_equal(size_bytes, 3);
	ok(lb_store_replace(s.store, "a", etag, "two", 3));
	assert_int_equal(lb_store_replace(s.store, "a", etag, "three", 5), -ESTALE);
	ok(lb_store_remove(s.store, "a"));
	assert_int_equal(lb_store_replace(s.store, "a", etag, "three", 5), -ESTALE);
	assert_int_equal(lb_store_remove(s.store, "a"), -ENOENT);
}

static void names_that_could_leave_the_store_are_refused(void **state)
{
	static const char *const bad[] = {"",  "/a",     "a/",        "a//b", "../a", "a/../b",
					  ".", ".tmp/x", "a/.hidden", "a b",  "a\nb", "\xc3\xa4"};
	char long_name[LB_STORE_NAME_BYTES_MAX + 2];

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++)
		assert_int_equal(lb_store_put_new(s.store, bad[i], "x", 1), -EINVAL);
	memset(long_name, 'a', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	assert_int_equal(lb_store_put_new(s.store, long_name, "x", 1), -EINVAL);
	long_name[LB_STORE_NAME_BYTES_MAX] = '\0';
	assert_int_equal(lb_store_stat(s.store, long_name, &(uint64_t){0}, NULL), -ENOENT);
	assert_int_equal(lb_store_put_new(s.store, "big", "x", LB_STORE_OBJECT_BYTES_MAX + 1), -EMSGSIZE);
}

struct listed {
	char text[1024];
	unsigned int stop_after;
};

static int note_object(void *arg, const char *name, uint64_t size_bytes)
{
	struct listed *l = arg;
	size_t used = strlen(l->text);

	snprintf(l->text + used, sizeof(l->text) - used, "%s=%llu ", name, (unsigned long long)size_bytes);
	return l->stop_after > 0 && --l->stop_after == 0 ? 42 : 0;
}

static int note_folder(void *arg, const char *folder)
{
	return note_object(arg, folder, 0);
}

static void put_some(void)
{
	static const char *const names[] = {"m/b/e/2", "m/a/e/1", "m/a-b", "m/a.c", "m/a/c", "m/ab/x", "z", "m/a/e/10"};

	for (size_t i = 0; i < LB_ARRAY_LEN(names); i++)
		ok(lb_store_put_new(s.store, names[i], "12345678", i));
}

static void listing_goes_by_whole_names_and_by_any_prefix(void **state)
{
	struct listed all = {0}, some = {0}, middle = {0}, none = {0}, first = {.stop_after = 2};

	(void)state;
	put_some();
	ok(lb_store_list(s.store, "", note_object, &all));
	assert_string_equal(all.text, "m/a-b=2 m/a.c=3 m/a/c=4 m/a/e/1=1 m/a/e/10=7 m/ab/x=5 m/b/e/2=0 z=6 ");
	ok(lb_store_list(s.store, "m/a/", note_object, &some));
	assert_string_equal(some.text, "m/a/c=4 m/a/e/1=1 m/a/e/10=7 ");
	ok(lb_store_list(s.store, "m/a/e/1", note_object, &middle));
	assert_string_equal(middle.text, "m/a/e/1=1 m/a/e/10=7 ");
	ok(lb_store_list(s.store, "no/such/", note_object, &none));
	assert_string_equal(none.text, "");
	assert_int_equal(lb_store_list(s.store, "m/", note_object, &first), 42);
	assert_string_equal(first.text, "m/a-b=2 m/a.c=3 ");
}

static void listing_folders_does_not_enter_them(void **state)
{
	struct listed top = {0}, under = {0};

	(void)state;
	put_some();
	ok(lb_store_list_folders(s.store, "", note_folder, &top));
	assert_string_equal(top.text, "m=0 ");
	ok(lb_store_list_folders(s.store, "m/", note_folder, &under));
	assert_string_equal(under.text, "a=0 ab=0 b=0 ");
}

static void reading_past_the_end_is_told_and_leaves_the_buffer_alone(void **state)
{
	_cleanup_buf_ struct lb_buf b = LB_BUF(64);

	(void)state;
	ok(lb_store_put_new(s.store, "a", "0123456789", 10));
	ok(lb_store_get(s.store, "a", 4, 3, &b));
	assert_string_equal((char *)b.data, "456");
	fails_naming(lb_store_get(s.store, "a", 8, 3, &b), -ENODATA, "object a is truncated");
	assert_int_equal(b.size_bytes, 3);
	assert_int_equal(lb_store_get_all(s.store, "a", 9, &b), -EMSGSIZE);
	fails_naming(lb_store_get(s.store, "b", 0, 1, &b), -ENOENT, "no object b");
}

/* The environment as it is, but with a clock of ours. */
static int64_t late_now_ns(struct lb_env *env)
{
	return lb_env_real()->ops->now_ns(env) + 2 * 24 * 3600 * LB_NS_PER_S;
}

static int64_t early_now_ns(struct lb_env *env)
{
	return lb_env_real()->ops->now_ns(env) - 2 * 24 * 3600 * LB_NS_PER_S;
}

static int count_entry(void *arg, const char *name, bool is_dir)
{
	(void)name;
	(void)is_dir;
	++*(unsigned int *)arg;
	return 0;
}

static unsigned int leftovers(void)
{
	struct lb_env *env = lb_env_real();
	char path[512];
	unsigned int n = 0;

	site_path(&s, ".tmp", path);
	env->ops->list(env, path, count_entry, &n);
	return n;
}

static void put_with_clock(int64_t (*now_ns)(struct lb_env *env), const char *name)
{
	struct lb_env_ops ops = *lb_env_real()->ops;
	struct lb_env env = {.ops = &ops};
	struct lb_store *store;
	char url[80];

	ops.now_ns = now_ns;
	snprintf(url, sizeof(url), "dir:%s", s.folder);
	ok(lb_store_open(&env, url, false, &store));
	ok(lb_store_put_new(store, name, "x", 1));
	lb_store_free(store);
}

static void what_a_crash_leaves_is_never_listed_and_cleared_after_a_day(void **state)
{
	struct listed l = {0};
	char from[600], to[600];

	(void)state;
	ok(lb_store_put_new(s.store, "a", "x", 1));
	/* a writer that was killed between writing its temporary file and giving it its name */
	snprintf(from, sizeof(from), "%s/a", s.folder);
	snprintf(to, sizeof(to), "%s/.tmp/%016llx-00", s.folder, (unsigned long long)lb_now_ns(lb_env_real()));
	assert_int_equal(link(from, to), 0);
	ok(lb_store_list(s.store, "", note_object, &l));
	assert_string_equal(l.text, "a=1 ");
	put_with_clock(lb_env_real()->ops->now_ns, "b");
	assert_int_equal(leftovers(), 1);
	put_with_clock(late_now_ns, "c");
	assert_int_equal(leftovers(), 0);
	assert_int_equal(link(from, to), 0);
	put_with_clock(early_now_ns, "d"); /* from a clock that was two days ahead */
	assert_int_equal(leftovers(), 0);
}

/* Clears .tmp between the write and the link, once, as another process's clearing can. */
static bool clearing;

static int clearing_link(struct lb_env *env, const char *from, const char *to)
{
	if (clearing) {
		clearing = false;
		unlink(from);
	}
	return lb_env_real()->ops->link(env, from, to);
}

static void a_put_whose_temporary_file_is_cleared_under_it_starts_again(void **state)
{
	struct lb_env_ops ops = *lb_env_real()->ops;
	struct lb_env env = {.ops = &ops};
	_cleanup_buf_ struct lb_buf b = LB_BUF(8);
	struct lb_store *store;
	char url[80];

	(void)state;
	ops.link = clearing_link;
	clearing = true;
	snprintf(url, sizeof(url), "dir:%s", s.folder);
	ok(lb_store_open(&env, url, false, &store));
	ok(lb_store_put_new(store, "a/b", "x", 1));
	lb_store_free(store);
	assert_false(clearing);
	ok(lb_store_get_all(s.store, "a/b", 8, &b));
}

static void a_folder_that_may_not_be_written_is_told_with_the_cure(void **state)
{
	int status;
	pid_t child;

	(void)state;
	assert_int_equal(chmod(s.folder, 0755), 0);
	child = fork();
	if (child == 0) {
		int r;

		if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
			_exit(2);
		if (geteuid() != 65534)
			chmod(s.folder, 0555);
		r = lb_store_put_new(s.store, "a", "x", 1);
		_exit(r == -EACCES && strstr(lb_err_text(), "give this user") != NULL ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	chmod(s.folder, 0755);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define OWNER 65534

static int assert_owned(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)type;
	(void)ftw;
	if (st->st_uid != OWNER || st->st_gid != OWNER)
		print_error("%s is of %u:%u\n", path, st->st_uid, st->st_gid);
	return st->st_uid != OWNER || st->st_gid != OWNER;
}

/* The servers run as another user than the administrator who pins, repairs or rotates. */
static void what_root_writes_into_another_users_store_is_that_users(void **state)
{
	char etag[LB_STORE_ETAG_BYTES];
	uint64_t size_bytes;
	int status;
	pid_t child;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(chown(s.folder, OWNER, OWNER), 0);
	ok(lb_store_put_new(s.store, "a/b/pin", "one", 3));
	ok(lb_store_put_new(s.store, "a/gone", "x", 1));
	ok(lb_store_stat(s.store, "a/b/pin", &size_bytes, etag));
	ok(lb_store_replace(s.store, "a/b/pin", etag, "two", 3));
	ok(lb_store_remove(s.store, "a/gone"));
	assert_int_equal(nftw(s.folder, assert_owned, 16, FTW_PHYS), 0);
	child = fork();
	if (child == 0) {
		_cleanup_buf_ struct lb_buf b = LB_BUF(8);

		_exit(setresgid(OWNER, OWNER, OWNER) < 0 || setresuid(OWNER, OWNER, OWNER) < 0 ||
		      lb_store_get_all(s.store, "a/b/pin", 8, &b) < 0 ||
		      lb_store_put_new(s.store, "a/b/next", "x", 1) < 0 ||
		      lb_store_stat(s.store, "a/b/pin", &size_bytes, etag) < 0 ||
		      lb_store_replace(s.store, "a/b/pin", etag, "three", 5) < 0 ||
		      lb_store_remove(s.store, "a/b/pin") < 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A folder of root's own that is in the way, as commands of before left them; root still can. */
static void where_the_owner_may_not_write_root_does(void **state)
{
	struct stat st;
	char path[512];

	(void)state;
	if (geteuid() != 0)
		skip();
	ok(lb_store_put_new(s.store, "a/b", "x", 1)); /* root's */
	assert_int_equal(chown(s.folder, OWNER, OWNER), 0);
	site_path(&s, "a", path);
	assert_int_equal(chown(path, OWNER, OWNER), 0);
	assert_int_equal(chmod(path, 0500), 0);
	ok(lb_store_put_new(s.store, "a/c/d", "x", 1));
	site_path(&s, "a/c", path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, 0);
	assert_int_equal(setfsuid((uid_t)-1), 0); /* and is root again */
}

static ssize_t full_pwrite(struct lb_env *env, int fd, const void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	(void)env;
	(void)fd;
	(void)buf;
	(void)size_bytes;
	(void)offset_bytes;
	return -ENOSPC;
}

static void a_full_file_system_is_told_and_leaves_nothing(void **state)
{
	struct lb_env_ops ops = *lb_env_real()->ops;
	struct lb_env env = {.ops = &ops};
	struct lb_store *store;
	char url[80];

	(void)state;
	ops.pwrite = full_pwrite;
	snprintf(url, sizeof(url), "dir:%s", s.folder);
	ok(lb_store_open(&env, url, false, &store));
	fails_naming(lb_store_put_new(store, "a", "x", 1), -ENOSPC, "free space");
	lb_store_free(store);
	assert_int_equal(leftovers(), 0);
	assert_int_equal(lb_store_stat(s.store, "a", &(uint64_t){0}, NULL), -ENOENT);
}

static int forgetful_link(struct lb_env *env, const char *from, const char *to)
{
	return lb_env_real()->ops->rename(env, from, to) < 0 ? -EIO : lb_env_real()->ops->link(env, to, from);
}

static void a_store_that_takes_a_name_twice_is_refused(void **state)
{
	struct lb_env_ops ops = *lb_env_real()->ops;
	struct lb_env env = {.ops = &ops};
	struct lb_store *store;
	char url[80];

	(void)state;
	ok(lb_store_prove(s.store));
	ops.link = forgetful_link; /* a file system whose link() overwrites */
	snprintf(url, sizeof(url), "dir:%s", s.folder);
	ok(lb_store_open(&env, url, false, &store));
	fails_naming(lb_store_prove(store), -EOPNOTSUPP, "two objects of one name");
	lb_store_free(store);
}

static void a_missing_folder_is_not_made_unless_asked_for(void **state)
{
	struct lb_store *store;
	char url[96];

	(void)state;
	snprintf(url, sizeof(url), "dir:%s/deep/er", s.folder);
	fails_naming(lb_store_open(lb_env_real(), url, false, &store), -ENOENT, "is its file system mounted");
	ok(lb_store_open(lb_env_real(), url, true, &store));
	ok(lb_store_put_new(store, "a", "x", 1));
	lb_store_free(store);
	assert_int_equal(lb_store_open(lb_env_real(), "dir:relative", false, &store), -EINVAL);
	assert_int_equal(lb_store_open(lb_env_real(), "ftp://x", false, &store), -EINVAL);
}

/* What of a put reaches the disk, in order: d folder synced, w data written, f file synced, l linked. */
static char reached[64];
static int folder_fd;

static void note_reached(char what)
{
	size_t used = strlen(reached);

	assert_true(used + 1 < sizeof(reached));
	reached[used] = what;
}

static int noting_open(struct lb_env *env, const char *path, int flags, mode_t mode)
{
	int fd = lb_env_real()->ops->open(env, path, flags, mode);

	if ((flags & O_DIRECTORY) != 0)
		folder_fd = fd;
	else if (fd == folder_fd)
		folder_fd = -1;
	return fd;
}

static ssize_t noting_pwrite(struct lb_env *env, int fd, const void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	note_reached('w');
	return lb_env_real()->ops->pwrite(env, fd, buf, size_bytes, offset_bytes);
}

static int noting_fsync(struct lb_env *env, int fd)
{
	note_reached(fd == folder_fd ? 'd' : 'f');
	return lb_env_real()->ops->fsync(env, fd);
}

static int noting_link(struct lb_env *env, const char *from, const char *to)
{
	note_reached('l');
	return lb_env_real()->ops->link(env, from, to);
}

static void a_put_is_durable_before_it_returns_and_so_is_what_it_finds_in_its_place(void **state)
{
	struct lb_env_ops ops = *lb_env_real()->ops;
	struct lb_env env = {.ops = &ops};
	struct lb_store *store;
	char url[80];

	(void)state;
	ops.open = noting_open;
	ops.pwrite = noting_pwrite;
	ops.fsync = noting_fsync;
	ops.link = noting_link;
	snprintf(url, sizeof(url), "dir:%s", s.folder);
	ok(lb_store_open(&env, url, false, &store));
	memset(reached, 0, sizeof(reached));
	ok(lb_store_put_new(store, "a/b/c", "x", 1));
	assert_string_equal(reached, "ddwfld"); /* two new folders, then data before name before folder */
	memset(reached, 0, sizeof(reached));
	assert_int_equal(lb_store_put_new(store, "a/b/c", "y", 1), -EEXIST);
	assert_string_equal(reached, "wfld");
	lb_store_free(store);
}

#define with_store(f) cmocka_unit_test_setup_teardown(f, make_store, remove_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_store(of_sixteen_that_put_one_name_exactly_one_succeeds_whole),
		with_store(sixteen_that_replace_by_condition_lose_no_update),
		with_store(nobody_else_can_replace_between_the_comparison_and_the_rename),
		with_store(replacing_needs_the_etag_of_what_is_there),
		with_store(names_that_could_leave_the_store_are_refused),
		with_store(listing_goes_by_whole_names_and_by_any_prefix),
		with_store(listing_folders_does_not_enter_them),
		with_store(reading_past_the_end_is_told_and_leaves_the_buffer_alone),
		with_store(what_a_crash_leaves_is_never_listed_and_cleared_after_a_day),
		with_store(a_put_whose_temporary_file_is_cleared_under_it_starts_again),
		with_store(a_put_is_durable_before_it_returns_and_so_is_what_it_finds_in_its_place),
		with_store(a_folder_that_may_not_be_written_is_told_with_the_cure),
		with_store(what_root_writes_into_another_users_store_is_that_users),
		with_store(where_the_owner_may_not_write_root_does),
		with_store(a_full_file_system_is_told_and_leaves_nothing),
		with_store(a_store_that_takes_a_name_twice_is_refused),
		with_store(a_missing_folder_is_not_made_unless_asked_for),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
