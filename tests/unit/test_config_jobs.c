/* SPDX-License-Identifier: Apache-2.0 */
#include "config_site.h"

/* --- jobs --- */

static atomic_int job_runs, at_once, at_once_max;
static int hold_fd = -1; /* a job of kind "hold" waits for a byte, or for ever */
static int told_fd = -1;

static int run_three_steps(struct lb_job *job)
{
	int r;

	atomic_fetch_add(&job_runs, 1);
	for (int i = 0; i < 3; i++) {
		r = lb_job_step(job, i == 0 ? "first" : i == 1 ? "second" : "third");
		if (r < 0)
			return r;
		if (i == 1 && told_fd >= 0) {
			char byte = 'x';

			/* in the second step: say so, and wait for what may never come */
			assert_int_equal(write(told_fd, &byte, 1), 1);
			if (read(hold_fd, &byte, 1) < 0)
				return -errno;
		}
	}
	return json_object_set_new(job->result, "answer", json_integer(42));
}

static int run_counting(struct lb_job *job)
{
	int n = atomic_fetch_add(&at_once, 1) + 1;

	if (n > atomic_load(&at_once_max))
		atomic_store(&at_once_max, n);
	for (int i = 0; i < 20; i++) {
		int r = lb_job_step(job, "count");

		if (r < 0)
			return r;
	}
	atomic_fetch_sub(&at_once, 1);
	return 0;
}

static int run_until_cancelled(struct lb_job *job)
{
	int r = 0;

	atomic_fetch_add(&job_runs, 1);
	while (r == 0)
		r = lb_job_step(job, "work");
	return r;
}

static int run_failing(struct lb_job *job)
{
	int r = lb_job_step(job, "try");

	return r < 0 ? r : lb_fail(-EIO, "the disk vda of web1 can't be read; look at its cable");
}

static const struct lb_job_kind kinds[] = {{"steps", run_three_steps},
					   {"count", run_counting},
					   {"endless", run_until_cancelled},
					   {"fail", run_failing},
					   {NULL, NULL}};

/* Waits for a state that the job must come to; the test's own time limit ends a wait that is in vain. */
static json_t *job_in_state(const char *id, const char *wanted)
{
	for (;;) {
		json_t *job = NULL;

		assert_int_equal(lb_job_json(site, id, &job), 0);
		if (strcmp(json_string_value(json_object_get(job, "state")), wanted) == 0)
			return job;
		json_decref(job);
		env->ops->wait_until(env, lb_mono_ns(env) + 5 * LB_NS_PER_MS, -1);
	}
}

static void submit(const char *kind, const char *target, char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_json_ json_t *request = json_object();

	assert_int_equal(lb_job_submit(site, kind, target, request, "tester", id), 0);
}

static const char *step_state(const json_t *job, size_t n)
{
	return json_string_value(json_object_get(json_array_get(json_object_get(job, "steps"), n), "state"));
}

static void a_job_that_was_killed_goes_on_at_the_next_start(void **state)
{
	_cleanup_json_ json_t *job = NULL;
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES], byte;
	int told[2], status;
	pid_t child;

	(void)state;
	lb_site_free(site);
	site = NULL;
	assert_int_equal(pipe(told), 0);
	child = fork();
	if (child == 0) {
		int never[2];

		told_fd = told[1];
		if (pipe(never) < 0)
			_exit(1);
		hold_fd = never[0];
		site = open_site();
		assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
		submit("steps", "web1", id);
		(void)!write(told[1], id, sizeof(id));
		pause();
		_exit(1);
	}
	/* its id and the word from its second step come in any order of their own: the id is longer */
	for (size_t got = 0, seen = 0; got < sizeof(id) || seen == 0;) {
		assert_int_equal(read(told[0], &byte, 1), 1);
		if (byte == 'x')
			seen = 1;
		else
			id[got++] = byte;
	}
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	close(told[0]);
	close(told[1]);

	site = open_site();
	job = job_in_state(id, "running"); /* nobody works on it, and it is not forgotten */
	assert_string_equal(step_state(job, 0), "done");
	assert_string_equal(step_state(job, 1), "running");
	json_decref(job);
	atomic_store(&job_runs, 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	job = job_in_state(id, "done");
	assert_int_equal(atomic_load(&job_runs), 1);
	assert_string_equal(step_state(job, 0), "done");
	assert_string_equal(step_state(job, 1), "interrupted");
	assert_int_equal(json_array_size(json_object_get(job, "steps")), 5);
	assert_string_equal(step_state(job, 4), "done");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(job, "result"), "answer")), 42);
	lb_jobs_stop(jobs);
}

static void a_stopped_server_takes_its_jobs_up_again(void **state)
{
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	atomic_store(&job_runs, 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	submit("endless", "web1", id);
	json_decref(job_in_state(id, "running"));
	lb_jobs_stop(jobs);
	json_decref(job_in_state(id, "running"));
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	while (atomic_load(&job_runs) < 2)
		sched_yield();
	assert_int_equal(lb_job_cancel(site, id), 0);
	json_decref(job_in_state(id, "cancelled"));
	lb_jobs_stop(jobs);
}

static void a_cancelled_job_ends_at_its_next_step(void **state)
{
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	submit("endless", "web1", id);
	json_decref(job_in_state(id, "running"));
	assert_int_equal(lb_job_cancel(site, id), 0);
	json_decref(job_in_state(id, "cancelled"));
	assert_int_equal(lb_job_cancel(site, id), -EINVAL);
	assert_int_equal(lb_job_cancel(site, "nothing"), -ENOENT);
	lb_jobs_stop(jobs);
}

static void jobs_on_one_target_run_one_after_another(void **state)
{
	struct lb_jobs *jobs;
	char ids[6][LB_UUID_TEXT_BYTES];

	(void)state;
	atomic_store(&at_once_max, 0);
	atomic_store(&at_once, 0);
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	for (int i = 0; i < 6; i++)
		submit("count", "web1", ids[i]);
	for (int i = 0; i < 6; i++)
		json_decref(job_in_state(ids[i], "done"));
	assert_int_equal(atomic_load(&at_once_max), 1);
	lb_jobs_stop(jobs);
}

static void a_failed_job_tells_why(void **state)
{
	_cleanup_json_ json_t *job = NULL;
	struct lb_jobs *jobs;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	assert_int_equal(lb_jobs_start(site, kinds, &jobs), 0);
	submit("fail", "web1", id);
	job = job_in_state(id, "failed");
	assert_string_equal(json_string_value(json_object_get(job, "error")),
			    "the disk vda of web1 can't be read; look at its cable");
	assert_string_equal(step_state(job, 0), "failed");
	lb_jobs_stop(jobs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_job_that_was_killed_goes_on_at_the_next_start),
		T(a_stopped_server_takes_its_jobs_up_again),
		T(a_cancelled_job_ends_at_its_next_step),
		T(jobs_on_one_target_run_one_after_another),
		T(a_failed_job_tells_why),
	};

	return cmocka_run_group_tests_name("config_jobs", tests, NULL, NULL);
}
