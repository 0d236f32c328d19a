/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "sim/sim.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#else
#define __lsan_disable() ((void)0)
#define __lsan_enable() ((void)0)
#endif

static int find_disk(void *arg, const struct lb_agent_disk *disk, char ret_name[64], uint64_t *ret_size_bytes)
{
	(void)arg;
	if (sim->disks[disk->id].gone)
		return lb_fail(-ENODEV, "disk %s is not there", disk->name);
	snprintf(ret_name, 64, "%s", disk->name);
	*ret_size_bytes = sim->disks[disk->id].size_bytes;
	return 0;
}

static void configure(struct sim_agent *a)
{
	struct lb_agent_config *c = &a->config;

	if (c->n_disks != 0)
		return;
	*c = (struct lb_agent_config){.enabled = true, .n_disks = SIM_DISKS, .policy = lb_policy_default};
	c->policy.consistency_interval_s = 1;
	c->policy.heartbeat_interval_s = 2;
	memset(&c->machine, 7, sizeof(c->machine));
	memset(&c->vault, 9, sizeof(c->vault));
	snprintf(c->process_url, sizeof(c->process_url), "https://process:9443");
	for (unsigned int i = 0; i < SIM_DISKS; i++) {
		c->disks[i].id = (uint16_t)i;
		c->disks[i].size_bytes = SIM_DISK_BYTES;
		snprintf(c->disks[i].name, sizeof(c->disks[i].name), "sim%u", i);
	}
}

void sim_agent_start(struct sim_agent *a)
{
	static const char hardware[] = "00000000000000000000000000000000000000000000000000000000000000aa";
	struct lb_session_options options = {
		.env = sim_env(),
		.client = sim_client(),
		.capture_socket = "/nowhere",
		.hardware = hardware,
		.find_disk = find_disk,
	};

	configure(a);
	if (a->confirm_path[0] == '\0') {
		static unsigned int number;

		snprintf(a->confirm_path, sizeof(a->confirm_path), "/tmp/lb-sim-%d-%u", (int)getpid(), number++);
		unlink(a->confirm_path);
	}
	options.confirm_path = a->confirm_path;
	/* it dies with the agent */
	if (a->mark != NULL)
		lb_mark_free(a->mark);
	a->mark = NULL;
	if (lb_mark_new(sim_env(), &a->mark) < 0)
		sim_fail("no mark: %s", lb_err_text());
	options.mark = a->mark;
	if (lb_session_new(&options, &a->session) < 0)
		sim_fail("no session: %s", lb_err_text());
	else
		lb_session_configure(a->session, &a->config);
	a->wake_mono_ns = sim->mono_ns;
}

void sim_agent_stop(struct sim_agent *a)
{
	lb_session_free(a->session);
	a->session = NULL;
	lb_mark_free(a->mark);
	a->mark = NULL;
	unlink(a->confirm_path);
}

void sim_agent_step(struct sim_agent *a)
{
	/* An agent that dies leaves what it had allocated, as a killed process would: that is no leak. */
	const bool may_die = sim->kill_after >= 0;

	if (setjmp(sim->killed) != 0) {
		__lsan_enable();
		/* what it held in memory is gone; what the kernel and tmpfs hold is as it was at that instant */
		sim->can_die = false;
		sim->kill_after = -1;
		a->deaths++;
		lb_session_free(a->session);
		sim_pass((int64_t)(sim_random() % 2000) * LB_NS_PER_MS);
		sim_agent_start(a);
		return;
	}
	if (a->wake_mono_ns > sim->mono_ns)
		sim_pass(a->wake_mono_ns - sim->mono_ns);
	sim->can_die = true;
	if (may_die)
		__lsan_disable();
	lb_session_step(a->session, &a->wake_mono_ns);
	if (may_die)
		__lsan_enable();
	sim->can_die = false;
}

bool sim_agent_until(struct sim_agent *a, bool (*done)(struct sim_agent *a), int64_t within_ns)
{
	const int64_t until = sim->mono_ns + within_ns;

	while (sim->mono_ns < until && sim->failure[0] == '\0') {
		sim_agent_step(a);
		if (done != NULL && done(a))
			return true;
	}
	return false;
}

bool sim_agent_protected(struct sim_agent *a)
{
	struct lb_session_status st;

	lb_session_status(a->session, &st);
	return st.state == LB_SESSION_PROTECTED;
}

bool sim_agent_caught_up(struct sim_agent *a)
{
	struct lb_session_status st;

	lb_session_status(a->session, &st);
	if (st.state != LB_SESSION_PROTECTED || st.backlog_bytes != 0)
		return false;
	for (unsigned int d = 0; d < SIM_DISKS; d++)
		if (memcmp(sim->process.image[d], sim->disks[d].data, SIM_DISK_BYTES) != 0)
			return false;
	return true;
}
