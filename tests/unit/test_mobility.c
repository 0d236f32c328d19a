/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's session on a simulated machine, network and process server (tests/sim), on a clock that the test holds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "sim/sim.h"

#define S LB_NS_PER_S

static struct sim_agent agent;

static int begin(void **state)
{
	(void)state;
	sim_new(7);
	memset(&agent, 0, sizeof(agent));
	sim_agent_start(&agent);
	return 0;
}

static int end(void **state)
{
	(void)state;
	sim_agent_stop(&agent);
	sim_free();
	return 0;
}

static void run(int64_t ns)
{
	sim_agent_until(&agent, NULL, ns);
}

static void well(void)
{
	if (sim->failure[0] != '\0')
		fail_msg("%s", sim->failure);
}

static struct lb_session_status status(void)
{
	struct lb_session_status st;

	lb_session_status(agent.session, &st);
	return st;
}

static void become_protected(void)
{
	assert_true(sim_agent_until(&agent, sim_agent_protected, 120 * S));
	well();
}

static void catch_up(void)
{
	sim->writes_per_ms = 0;
	sim_quiesce();
	if (!sim_agent_until(&agent, sim_agent_caught_up, 300 * S))
		fail_msg("%s: %s %s", sim->failure, lb_session_state_name(status().state), status().text);
	well();
}

static void write_some(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		sim_submit(i % SIM_DISKS, 8 + (uint64_t)i * 16 % (SIM_BLOCKS - 16), 4, false);
		sim_quiesce();
	}
}

static void a_new_machine_is_copied_while_it_writes_and_then_protected(void **state)
{
	(void)state;
	sim->writes_per_ms = 8;
	become_protected();
	assert_int_equal(sim->process.n_epochs, 1);
	assert_true(sim->process.points > 0);
	assert_int_equal(sim->process.compared + sim->process.settled, 0);
	catch_up();
}

static void the_first_copy_sends_no_zero_blocks(void **state)
{
	(void)state;
	for (unsigned int d = 0; d < SIM_DISKS; d++)
		for (uint64_t b = 0; b < SIM_BLOCKS; b += 16)
			sim_submit(d, b, 16, true), sim_quiesce();
	write_some(2);
	become_protected();
	assert_true(sim->process.data_bytes < 512 << 10);
	catch_up();
}

static void every_boundary_after_the_scan_is_a_point(void **state)
{
	uint64_t puts, points;

	(void)state;
	become_protected();
	puts = sim->process.puts;
	points = sim->process.points;
	sim->writes_per_ms = 3;
	run(20 * S);
	assert_true(sim->process.puts - puts >= 15);
	assert_int_equal(sim->process.puts - puts, sim->process.points - points);
	well();
}

/* Rules 1, 3 and 4: what does not fit is marked, the epoch is drained to it and closed, the next one scans it. */
static void what_does_not_fit_is_scanned_in_a_new_epoch(void **state)
{
	(void)state;
	become_protected();
	sim->network_down = true;
	sim->writes_per_ms = 60;
	run(5 * S);
	sim->writes_per_ms = 0;
	assert_int_equal(lb_session_state_name(status().state)[0], 'c'); /* connecting */
	assert_true(status().dirty_bytes > 0);
	sim->network_down = false;
	catch_up();
	assert_int_equal(sim->process.n_epochs, 2);
	assert_int_equal(sim->process.compared + sim->process.settled, 0);
}

/* Rule 2: the disk holds something else than what was captured. */
static void a_write_that_failed_is_read_again_from_the_disk(void **state)
{
	(void)state;
	become_protected();
	sim->p_fail = 1024;
	sim_submit(0, 100, 4, false);
	sim->p_fail = 0;
	sim_quiesce();
	catch_up();
	assert_int_equal(sim->process.n_epochs, 2);
}

/* Rule 5. */
static void a_chunk_is_not_read_while_an_old_write_is_on_its_way(void **state)
{
	(void)state;
	/* attached and announced, then a write that doesn't end is submitted before the flip of a new epoch */
	become_protected();
	sim->kernel.stuck = true;
	for (unsigned int i = 0; i < 8; i++)
		sim_submit(0, 16 * i, 4, false);
	sim_pass(100 * LB_NS_PER_MS);
	agent.config.resync_generation++;
	lb_session_configure(agent.session, &agent.config);
	run(20 * S);
	assert_int_equal(status().state, LB_SESSION_SCANNING);
	assert_int_equal(status().scan_done_bytes, 0);
	/* past LB_CAPTURE_STUCK_S the queue is drained, which fails here, and the scan waits on */
	run(40 * S);
	assert_int_equal(status().state, LB_SESSION_SCANNING);
	sim->kernel.stuck = false;
	sim_quiesce();
	become_protected();
	catch_up();
}

/* Rule 5, of what a resync asks about: it lies anywhere, far from where the scan is. */
static void a_piece_elsewhere_is_not_hashed_while_an_old_write_to_it_is_on_its_way(void **state)
{
	const uint64_t first = SIM_BLOCKS - LB_CAPTURE_CHUNK_BYTES / SIM_BLOCK_BYTES; /* of the last chunk of disk 1 */
	const struct sim_settle *settle = &sim->process.settle;

	(void)state;
	become_protected();
	for (uint64_t b = 0; b < 12; b++)
		sim_submit(0, 8 + 4 * b, 4, false), sim_quiesce();
	for (uint64_t b = first; b + 4 <= SIM_BLOCKS; b += 4)
		sim_submit(1, b, 4, false), sim_quiesce();
	catch_up();
	sim->kernel.stuck = true;
	sim_submit(1, first + 4, 4, false);
	sim_pass(100 * LB_NS_PER_MS);
	agent.config.resync_generation++;
	lb_session_configure(agent.session, &agent.config);
	run(60 * S);
	assert_int_equal(status().state, LB_SESSION_SCANNING);
	for (uint64_t b = first; b < SIM_BLOCKS; b++)
		assert_true(settle->block[1][b] == SIM_UNASKED || settle->block[1][b] == SIM_ASKED);
	/* it was asked, and where the scan is nothing is in the way */
	assert_true(settle->n_heaps > 0 && sim->kernel.inflight[0][0] == 0);
	assert_int_equal(status().scan_done_bytes, 0);
	sim->kernel.stuck = false;
	sim_quiesce();
	become_protected();
	catch_up();
	assert_true(sim->process.settled > 0);
}

/* Rule 6. */
static void no_point_comes_before_the_writes_made_during_the_scan(void **state)
{
	(void)state;
	sim->ns_per_kib = 500000;
	sim->writes_per_ms = 4;
	become_protected();
	catch_up();
}

static void a_write_that_capture_did_not_see_ends_the_points_until_the_disk_is_scanned(void **state)
{
	(void)state;
	become_protected();
	sim_submit_unseen(0, 55);
	sim_submit(0, 900, 4, false);
	catch_up();
	assert_int_equal(sim->process.n_epochs, 2);
}

static void skipped_runs_of_the_program_are_a_loss_of_every_disk(void **state)
{
	(void)state;
	become_protected();
	run(10 * S);
	sim->kernel.skipped++;
	run(10 * S);
	catch_up();
	assert_int_equal(sim->process.n_epochs, 2);
}

static void the_agent_may_die_anywhere_and_nothing_is_scanned_again(void **state)
{
	(void)state;
	become_protected();
	for (int64_t i = 0; i < 150; i++) {
		sim->writes_per_ms = 1;
		sim->kill_after = i % 20;
		run(3 * S);
		well();
	}
	sim->kill_after = -1;
	assert_in_range(agent.deaths, 100, 150);
	catch_up();
	assert_int_equal(sim->process.n_epochs, 1);
	assert_int_equal(status().scan_total_bytes, SIM_DISKS * SIM_DISK_BYTES);
}

static void the_agent_may_die_anywhere_while_an_epoch_begins(void **state)
{
	(void)state;
	for (int64_t i = 0; i < 60; i++) {
		sim_agent_stop(&agent);
		sim_free();
		begin(state);
		sim->writes_per_ms = 4;
		sim->kill_after = i;
		run(3 * S);
		sim->kill_after = -1;
		catch_up();
	}
}

static void a_short_outage_is_ridden_out_in_the_ring(void **state)
{
	(void)state;
	become_protected();
	sim->network_down = true;
	write_some(20);
	run(60 * S);
	assert_true(status().backlog_bytes > 0);
	sim->network_down = false;
	catch_up();
	assert_int_equal(sim->process.n_epochs, 1);
}

static void a_lost_acknowledgement_never_makes_two_segments_of_one_number(void **state)
{
	(void)state;
	become_protected();
	sim->p_drop_answer = 400;
	for (int i = 0; i < 30; i++) {
		write_some(1);
		run(2 * S);
	}
	sim->p_drop_answer = 0;
	catch_up();
	assert_int_equal(sim->process.n_epochs, 1);
}

static void a_busy_process_server_is_waited_for_as_long_as_it_says(void **state)
{
	uint64_t requests;

	(void)state;
	become_protected();
	sim->process.status = 429;
	write_some(3);
	run(2 * S);
	requests = sim->process.requests;
	run(30 * S);
	assert_true(sim->process.requests - requests <= 30);
	assert_int_equal(status().state, LB_SESSION_PROTECTED);
	sim->process.status = 507;
	run(30 * S);
	assert_int_equal(status().state, LB_SESSION_PROTECTED);
	assert_true(status().text[0] != '\0');
	sim->process.status = 0;
	catch_up();
	assert_int_equal(sim->process.n_epochs, 1);
}

static void a_lost_cache_costs_what_was_in_it_and_no_resync(void **state)
{
	uint64_t bytes;

	(void)state;
	become_protected();
	catch_up();
	sim_process_vault(sim->process.n);
	/* heard with the next acknowledgements: two turns of the bitmaps */
	for (int i = 0; i < 4; i++) {
		write_some(1);
		run(3 * S);
		sim_process_vault(sim->process.n);
	}
	write_some(2);
	run(3 * S);
	bytes = sim->process.data_bytes;
	sim_process_lose_cache();
	catch_up();
	assert_int_equal(sim->process.compared + sim->process.settled, 0);
	assert_true(sim->process.data_bytes - bytes < SIM_DISK_BYTES);
	assert_int_equal(sim->process.n_epochs, 2);
}

static void a_lost_cache_is_noticed_by_an_idle_machine(void **state)
{
	(void)state;
	become_protected();
	write_some(2);
	run(5 * S);
	sim_process_vault(1);
	sim_process_lose_cache();
	run((LB_SESSION_AUDIT_S + 10) * S);
	catch_up();
}

static void a_lost_cache_and_a_lost_bitmap_mean_a_comparison(void **state)
{
	(void)state;
	become_protected();
	write_some(2);
	run(3 * S);
	sim_process_vault(1);
	sim_process_lose_cache();
	lb_session_free(agent.session);
	unlink(agent.confirm_path);
	sim_agent_start(&agent);
	catch_up();
	assert_true(sim->process.settled > 0);
	assert_int_equal(sim->process.compared, 0);
}

static void reboot_with_changes(void)
{
	uint64_t bytes;

	sim->writes_per_ms = 3;
	become_protected();
	catch_up();
	bytes = sim->process.data_bytes;
	lb_session_free(agent.session);
	sim_reboot();
	unlink(agent.confirm_path);
	/* written before the agent is back, unseen by anybody */
	write_some(3);
	sim_agent_start(&agent);
	become_protected();
	catch_up();
	assert_true(sim->process.data_bytes - bytes < 1 << 20);
}

static void after_a_reboot_only_what_differs_is_sent(void **state)
{
	(void)state;
	reboot_with_changes();
	assert_true(sim->process.settled > 0);
	assert_int_equal(sim->process.compared, 0);
}

static void after_a_reboot_an_older_process_server_compares_blocks(void **state)
{
	(void)state;
	sim->process.old = true;
	reboot_with_changes();
	assert_int_equal(sim->process.settled, 0);
	assert_int_equal(sim->process.compared, SIM_DISKS * SIM_DISK_BYTES / (64 << 10));
}

static void a_resync_that_is_killed_at_every_step_misses_nothing(void **state)
{
	(void)state;
	sim->writes_per_ms = 2;
	become_protected();
	catch_up();
	for (unsigned int i = 0; i < 40; i++) {
		lb_session_free(agent.session);
		sim_reboot();
		unlink(agent.confirm_path);
		write_some(1);
		sim_agent_start(&agent);
		for (unsigned int k = 0; k < 6; k++) {
			sim->kill_after = (int64_t)(sim_random() % 60);
			run(S / 10);
		}
		sim->kill_after = -1;
		become_protected();
		catch_up();
	}
	assert_true(agent.deaths > 40);
	assert_true(sim->process.settled > 0);
}

static void an_operators_resync_compares_everything_once(void **state)
{
	(void)state;
	become_protected();
	agent.config.resync_generation = 3;
	lb_session_configure(agent.session, &agent.config);
	run(5 * S);
	catch_up();
	assert_int_equal(sim->process.n_epochs, 2);
	assert_true(sim->process.settled > 0);
	/* and not again when the agent is restarted */
	sim->kill_after = 0;
	run(10 * S);
	catch_up();
	assert_int_equal(sim->process.n_epochs, 2);
}

static void an_idle_machine_sends_heartbeats_and_no_segments(void **state)
{
	uint64_t puts, beats;
	int64_t point_ns;

	(void)state;
	become_protected();
	run(5 * S);
	puts = sim->process.puts;
	beats = sim->process.beats;
	point_ns = status().point_ns;
	run(60 * S);
	assert_int_equal(sim->process.puts, puts);
	assert_true(sim->process.beats - beats >= 25);
	assert_true(status().point_ns - point_ns >= 55 * S);
	well();
}

static void sustained_overload_still_makes_points_and_tells_the_rpo_it_holds(void **state)
{
	uint64_t points;

	(void)state;
	become_protected();
	/* far more is written than the link carries, over and over in the same places */
	sim->ns_per_kib = 400000;
	sim->writes_per_ms = 60;
	run(60 * S);
	points = sim->process.points;
	run(240 * S);
	assert_true(sim->process.points - points >= 3);
	assert_true(status().held_rpo_ns > 0);
	sim->ns_per_kib = 2000;
	catch_up();
}

static void a_refused_machine_says_why_and_asks_more_and_more_slowly(void **state)
{
	uint64_t requests;

	(void)state;
	become_protected();
	sim->process.status = 403;
	write_some(1);
	run(200 * S);
	assert_int_equal(status().state, LB_SESSION_REFUSED);
	assert_non_null(strstr(status().text, "403"));
	requests = sim->process.requests;
	run(240 * S);
	assert_in_range(sim->process.requests - requests, 3, 6);
	sim->process.status = 0;
	run(LB_SESSION_REFUSED_S_MAX * S);
	catch_up();
	assert_int_equal(sim->process.n_epochs, 1);
}

static void a_fenced_journal_is_never_extended(void **state)
{
	size_t n;

	(void)state;
	become_protected();
	n = sim->process.n;
	sim->process.status = 409;
	write_some(1);
	run(30 * S);
	assert_int_equal(status().state, LB_SESSION_REFUSED);
	assert_int_equal(sim->process.n, n);
}

static void a_disk_that_vanishes_is_named(void **state)
{
	(void)state;
	become_protected();
	sim->disks[1].gone = true;
	sim_submit(0, 5, 2, false);
	run(10 * S);
	assert_int_equal(status().state, LB_SESSION_REFUSED);
	assert_non_null(strstr(status().text, "sim1"));
	sim->disks[1].gone = false;
	run(2 * LB_SESSION_REFUSED_S_MAX * S);
	catch_up();
}

static void a_disk_of_another_size_is_refused_with_both_sizes(void **state)
{
	(void)state;
	become_protected();
	sim->disks[0].size_bytes = 2 * SIM_DISK_BYTES;
	sim_submit(0, 5, 2, false);
	run(10 * S);
	assert_int_equal(status().state, LB_SESSION_REFUSED);
	assert_non_null(strstr(status().text, "8.0 MiB"));
	assert_non_null(strstr(status().text, "4.0 MiB"));
	sim->disks[0].size_bytes = SIM_DISK_BYTES;
	run(2 * LB_SESSION_REFUSED_S_MAX * S);
	catch_up();
}

static void another_agent_with_our_identity_stops_us_until_an_operator_decides(void **state)
{
	struct sim_process *p = &sim->process;

	(void)state;
	become_protected();
	p->epochs[p->n_epochs] = (struct sim_epoch){.epoch = p->n_epochs + 1, .instance = {.bytes = {0xee}}};
	p->n_epochs++;
	write_some(1);
	run(20 * S);
	assert_int_equal(status().state, LB_SESSION_REFUSED);
	assert_non_null(strstr(status().text, "another agent"));
	agent.config.resync_generation++;
	lb_session_configure(agent.session, &agent.config);
	catch_up();
	assert_true(p->settled > 0);
}

static void a_clock_that_jumps_a_day_loses_nothing(void **state)
{
	uint64_t points;

	(void)state;
	become_protected();
	sim->writes_per_ms = 2;
	for (int i = 0; i < 4; i++) {
		sim->wall_skew_ns = (i % 2 == 0 ? 1 : -1) * 86400 * S;
		points = sim->process.points;
		run(10 * S);
		assert_true(sim->process.points - points >= 7);
		well();
	}
	catch_up();
	assert_int_equal(sim->process.n_epochs, 1);
}

static void disabling_leaves_nothing_in_the_kernel(void **state)
{
	(void)state;
	become_protected();
	agent.config.enabled = false;
	lb_session_configure(agent.session, &agent.config);
	assert_false(sim->kernel.attached);
	assert_int_equal(status().state, LB_SESSION_DISABLED);
	run(10 * S);
	agent.config.enabled = true;
	lb_session_configure(agent.session, &agent.config);
	become_protected();
	catch_up();
}

static void a_capture_detached_behind_the_agents_back_is_attached_anew(void **state)
{
	(void)state;
	become_protected();
	sim_kernel_forget();
	write_some(3);
	run(60 * S);
	assert_true(sim->kernel.attached);
	become_protected();
	catch_up();
}

static void a_missing_helper_is_waited_for_and_named(void **state)
{
	(void)state;
	sim->kernel.helper_away = true;
	run(10 * S);
	assert_int_equal(status().state, LB_SESSION_ATTACHING);
	assert_non_null(strstr(status().text, "lifeboat-capture"));
	sim->kernel.helper_away = false;
	run(60 * S);
	catch_up();
}

static void begin_to_mark(void)
{
	agent.config.policy.consistency_interval_s = 3600;
	lb_session_configure(agent.session, &agent.config);
	become_protected();
	write_some(2);
	run(5 * S);
}

static void a_mark_closes_the_segment_at_once_where_it_was_set(void **state)
{
	struct lb_marked marked;
	uint64_t puts, position;

	(void)state;
	begin_to_mark();
	puts = sim->process.puts;
	run(5 * S);
	assert_int_equal(sim->process.puts, puts);
	assert_int_equal(lb_mark_set(agent.mark), 0);
	position = sim->kernel.producer;
	write_some(3);
	run(S);
	assert_int_equal(sim->process.puts, puts);
	assert_int_equal(lb_mark_release(agent.mark, LB_HRL_MARK_APP), 0);
	run(S);
	assert_int_equal(sim->process.puts, puts + 1);
	assert_int_equal(lb_mark_wait(agent.mark, 0, &marked), 0);
	assert_true(sim->process.last_flags & LB_HRL_MARK_APP);
	assert_int_equal(sim->process.last_ring_cut, position);
	well();
	agent.config.policy.consistency_interval_s = 1;
	lb_session_configure(agent.session, &agent.config);
	run(3600 * S);
	catch_up();
}

static void a_mark_that_nobody_releases_holds_the_journal_up_only_for_a_while(void **state)
{
	struct lb_marked marked;

	(void)state;
	become_protected();
	assert_int_equal(lb_mark_set(agent.mark), 0);
	write_some(5);
	run((LB_MARK_HELD_S + 5) * S);
	assert_int_equal(lb_mark_release(agent.mark, LB_HRL_MARK_APP), -EAGAIN);
	assert_int_equal(lb_mark_wait(agent.mark, 0, &marked), -EAGAIN);
	catch_up();
}

static void a_mark_fails_when_writes_are_lost_before_it_is_cut(void **state)
{
	struct lb_marked marked;

	(void)state;
	become_protected();
	assert_int_equal(lb_mark_set(agent.mark), 0);
	write_some(200); /* more than the ring holds */
	run(S);
	assert_int_equal(lb_mark_wait(agent.mark, 0, &marked), -EAGAIN);
	catch_up();
}

static void a_mark_outlives_a_lost_acknowledgement(void **state)
{
	struct lb_marked marked;

	(void)state;
	begin_to_mark();
	assert_int_equal(lb_mark_set(agent.mark), 0);
	assert_int_equal(lb_mark_release(agent.mark, LB_HRL_MARK_APP), 0);
	sim->network_down = true;
	run(20 * S);
	sim->network_down = false;
	run(20 * S);
	assert_int_equal(lb_mark_wait(agent.mark, 0, &marked), 0);
	well();
	catch_up();
}

static void no_mark_can_be_set_before_the_machine_is_protected(void **state)
{
	(void)state;
	assert_int_equal(lb_mark_set(agent.mark), -EAGAIN);
	become_protected();
	assert_int_equal(lb_mark_set(agent.mark), 0);
	assert_int_equal(lb_mark_set(agent.mark), -EAGAIN);
	lb_mark_cancel(agent.mark);
	assert_int_equal(lb_mark_set(agent.mark), 0);
	lb_mark_cancel(agent.mark);
	catch_up();
}

static void the_policys_bandwidth_slows_the_scan(void **state)
{
	(void)state;
	agent.config.policy.bandwidth_bytes_per_s = 256 << 10;
	lb_session_configure(agent.session, &agent.config);
	run(3 * S);
	assert_int_equal(status().state, LB_SESSION_SCANNING);
	assert_true(status().scan_done_bytes < status().scan_total_bytes);
	become_protected();
	catch_up();
}

#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_new_machine_is_copied_while_it_writes_and_then_protected),
		T(the_first_copy_sends_no_zero_blocks),
		T(every_boundary_after_the_scan_is_a_point),
		T(what_does_not_fit_is_scanned_in_a_new_epoch),
		T(a_write_that_failed_is_read_again_from_the_disk),
		T(a_chunk_is_not_read_while_an_old_write_is_on_its_way),
		T(a_piece_elsewhere_is_not_hashed_while_an_old_write_to_it_is_on_its_way),
		T(no_point_comes_before_the_writes_made_during_the_scan),
		T(a_write_that_capture_did_not_see_ends_the_points_until_the_disk_is_scanned),
		T(skipped_runs_of_the_program_are_a_loss_of_every_disk),
		T(the_agent_may_die_anywhere_and_nothing_is_scanned_again),
		T(the_agent_may_die_anywhere_while_an_epoch_begins),
		T(a_short_outage_is_ridden_out_in_the_ring),
		T(a_lost_acknowledgement_never_makes_two_segments_of_one_number),
		T(a_busy_process_server_is_waited_for_as_long_as_it_says),
		T(a_lost_cache_costs_what_was_in_it_and_no_resync),
		T(a_lost_cache_is_noticed_by_an_idle_machine),
		T(a_lost_cache_and_a_lost_bitmap_mean_a_comparison),
		T(after_a_reboot_only_what_differs_is_sent),
		T(after_a_reboot_an_older_process_server_compares_blocks),
		T(a_resync_that_is_killed_at_every_step_misses_nothing),
		T(an_operators_resync_compares_everything_once),
		T(an_idle_machine_sends_heartbeats_and_no_segments),
		T(sustained_overload_still_makes_points_and_tells_the_rpo_it_holds),
		T(a_refused_machine_says_why_and_asks_more_and_more_slowly),
		T(a_fenced_journal_is_never_extended),
		T(a_disk_that_vanishes_is_named),
		T(a_disk_of_another_size_is_refused_with_both_sizes),
		T(another_agent_with_our_identity_stops_us_until_an_operator_decides),
		T(a_clock_that_jumps_a_day_loses_nothing),
		T(disabling_leaves_nothing_in_the_kernel),
		T(a_capture_detached_behind_the_agents_back_is_attached_anew),
		T(a_missing_helper_is_waited_for_and_named),
		T(a_mark_closes_the_segment_at_once_where_it_was_set),
		T(a_mark_that_nobody_releases_holds_the_journal_up_only_for_a_while),
		T(a_mark_fails_when_writes_are_lost_before_it_is_cut),
		T(a_mark_outlives_a_lost_acknowledgement),
		T(no_mark_can_be_set_before_the_machine_is_protected),
		T(the_policys_bandwidth_slows_the_scan),
	};

	lb_log_init("test", LB_LOG_ERROR - 1);
	return cmocka_run_group_tests_name("mobility", tests, NULL, NULL);
}
