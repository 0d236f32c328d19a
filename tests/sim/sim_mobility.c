/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random sites against the oracle: `sim_mobility --seeds N [--seed FIRST] [--fault NAME]`. Without --fault every point
 * that is offered must be a prefix of the write order and in the end everything must have arrived; with it, one rule is
 * taken out and the oracle must notice within the seeds.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "sim/sim.h"

#define ROUNDS 24
#define SETTLE_NS (600 * LB_NS_PER_S)

static const struct {
	const char *name;
	uint32_t bit;
} faults[] = {
	{"no-mark", LB_FAULT_NO_MARK},
	{"no-loss-pos", LB_FAULT_NO_LOSS_POS},
	{"no-failure-debt", LB_FAULT_NO_FAILURE_DEBT},
	{"cut-past-loss", LB_FAULT_CUT_PAST_LOSS},
	{"no-grace", LB_FAULT_NO_GRACE},
	{"keep-old-generation", LB_FAULT_KEEP_OLD_GENERATION},
	{"ignore-inflight", LB_FAULT_IGNORE_INFLIGHT},
	{"point-before-sample", LB_FAULT_POINT_BEFORE_SAMPLE},
	{"drop-write", LB_FAULT_DROP_WRITE},
};

/* Figures over all seeds: a simulation that never met debt proves nothing about it. */
static struct {
	uint64_t points, epochs, deaths, reboots, caches_lost, puts, beats, compared, settled;
} seen;

static void weather(void)
{
	static const unsigned int rates[] = {0, 3, 12, 40, 200};

	sim->writes_per_ms = rates[sim_random() % LB_ARRAY_LEN(rates)];
	sim->network_down = sim_chance(128);
	sim->p_drop_request = sim_chance(256) ? 100 : 0;
	sim->p_drop_answer = sim_chance(256) ? 100 : 0;
	sim->p_busy = sim_chance(128) ? 200 : 0;
	sim->p_slow = sim_chance(384) ? 1000 : 0;
	sim->p_fail = sim_chance(128) ? 4 : 0;
	sim->p_miss = sim_chance(64) ? 2 : 0;
	sim->ns_per_kib = sim_chance(256) ? 200000 : 2000;
	sim->wall_skew_ns =
		sim_chance(128) ? ((int64_t)(sim_random() % 3) - 1) * 86400 * LB_NS_PER_S : sim->wall_skew_ns;
	sim->kill_after = sim_chance(400) ? (int64_t)(sim_random() % 200) : -1;
}

static void fair(void)
{
	sim->p_slow = 0;
	sim->writes_per_ms = sim->p_drop_request = sim->p_drop_answer = sim->p_busy = sim->p_fail = sim->p_miss = 0;
	sim->network_down = false;
	sim->ns_per_kib = 2000;
	sim->kill_after = -1;
}

static void misfortune(struct sim_agent *a)
{
	if (sim_chance(40)) {
		sim_process_lose_cache();
		seen.caches_lost++;
	}
	if (sim_chance(40)) {
		lb_session_free(a->session);
		sim_reboot();
		unlink(a->confirm_path);
		sim_agent_start(a);
		seen.reboots++;
	}
	if (sim_chance(30)) {
		a->config.resync_generation++;
		lb_session_configure(a->session, &a->config);
	}
	sim_process_vault(sim->process.n_vault + sim_random() % 40);
}

static bool run_seed(uint64_t seed, uint32_t fault)
{
	struct sim_agent a = {0};
	bool well;

	sim_new(seed);
	sim->process.old = seed % 4 == 0;
	sim->kernel.faults = fault & ~(uint32_t)LB_FAULT_DROP_WRITE;
	sim_agent_start(&a);
	for (int i = 0; i < ROUNDS && sim->failure[0] == '\0'; i++) {
		weather();
		if (fault == LB_FAULT_DROP_WRITE && i == ROUNDS / 2)
			sim->kernel.faults |= fault;
		sim_agent_until(&a, NULL, (int64_t)(sim_random() % 3000) * LB_NS_PER_MS);
		misfortune(&a);
	}
	fair();
	if (sim->failure[0] == '\0') {
		sim_quiesce();
		if (!sim_agent_until(&a, sim_agent_caught_up, SETTLE_NS) && sim->failure[0] == '\0') {
			struct lb_session_status st;

			lb_session_status(a.session, &st);
			for (unsigned int d = 0; d < SIM_DISKS; d++)
				for (size_t i = 0; i < SIM_DISK_BYTES; i += SIM_BLOCK_BYTES)
					if (memcmp(sim->process.image[d] + i, sim->disks[d].data + i,
						   SIM_BLOCK_BYTES) != 0)
						printf("disk %u block %zu: sent %lx, has %lx\n", d, i / SIM_BLOCK_BYTES,
						       (unsigned long)lb_get_le64(sim->process.image[d] + i),
						       (unsigned long)lb_get_le64(sim->disks[d].data + i));
			sim_fail("in the end the process server does not have what the disks have: %s %s, epoch %lu, "
				 "%lu bytes wait",
				 lb_session_state_name(st.state), st.text, (unsigned long)st.epoch,
				 (unsigned long)st.backlog_bytes);
		}
	}
	seen.points += sim->process.points;
	seen.epochs += sim->process.n_epochs;
	seen.puts += sim->process.puts;
	seen.beats += sim->process.beats;
	seen.compared += sim->process.compared;
	seen.settled += sim->process.settled;
	seen.deaths += a.deaths;
	well = sim->failure[0] == '\0';
	if (!well && fault == 0)
		printf("seed %lu: %s\n", (unsigned long)seed, sim->failure);
	sim_agent_stop(&a);
	sim_free();
	return well;
}

static int usage(void)
{
	fputs("usage: sim_mobility [--seeds N] [--seed FIRST] [--fault NAME] [--verbose]\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seeds", required_argument, NULL, 'n'},
		{"seed", required_argument, NULL, 's'},
		{"fault", required_argument, NULL, 'f'},
		{"verbose", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0},
	};
	uint64_t seeds = 200, first = 1, failed = 0;
	uint32_t fault = 0;
	enum lb_log_level level = LB_LOG_ERROR - 1;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'n')
			seeds = strtoull(optarg, NULL, 10);
		else if (c == 's')
			first = strtoull(optarg, NULL, 10);
		else if (c == 'v')
			level = LB_LOG_DEBUG;
		else if (c == 'f')
			for (size_t i = 0; i < LB_ARRAY_LEN(faults); i++)
				fault |= strcmp(faults[i].name, optarg) == 0 ? faults[i].bit : 0;
		else
			return usage();
		if (c == 'f' && fault == 0)
			return usage();
	}
	lb_log_init("sim", level);
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		if (!run_seed(seed, fault))
			failed++;
		if (failed > 0 && fault != 0) {
			printf("noticed at seed %lu\n", (unsigned long)seed);
			return 0;
		}
	}
	printf("%lu seeds: %lu points, %lu epochs, %lu segments, %lu heartbeats, %lu blocks compared, %lu heaps "
	       "settled, %lu deaths, %lu "
	       "reboots, %lu caches "
	       "lost: %lu failed\n",
	       (unsigned long)seeds, (unsigned long)seen.points, (unsigned long)seen.epochs, (unsigned long)seen.puts,
	       (unsigned long)seen.beats, (unsigned long)seen.compared, (unsigned long)seen.settled,
	       (unsigned long)seen.deaths, (unsigned long)seen.reboots, (unsigned long)seen.caches_lost,
	       (unsigned long)failed);
	return fault != 0 || failed > 0;
}
