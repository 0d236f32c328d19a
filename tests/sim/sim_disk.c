/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "sim/sim.h"

struct sim *sim;

uint64_t sim_random(void)
{
	uint64_t z = sim->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

bool sim_chance(unsigned int parts)
{
	return sim_random() % 1024 < parts;
}

void sim_fail(const char *fmt, ...)
{
	va_list ap;

	if (sim->failure[0] != '\0')
		return;
	va_start(ap, fmt);
	vsnprintf(sim->failure, sizeof(sim->failure), fmt, ap);
	va_end(ap);
}

void sim_kill_point(void)
{
	if (!sim->can_die || sim->kill_after < 0)
		return;
	if (sim->kill_after-- == 0)
		longjmp(sim->killed, 1);
}

static void remember(struct sim_history *h, uint64_t index, uint64_t value)
{
	if (h->n == h->room) {
		h->room = h->room > 0 ? h->room * 2 : 4;
		h->versions = realloc(h->versions, h->room * sizeof(h->versions[0]));
		assert(h->versions != NULL);
	}
	h->versions[h->n++] = (struct sim_version){.index = index, .value = value};
}

static void note_ended(uint64_t index)
{
	if (sim->n_ended > 0 && sim->ended[sim->n_ended - 1].index >= index)
		return;
	if (sim->n_ended == sim->ended_room) {
		sim->ended_room = sim->ended_room > 0 ? sim->ended_room * 2 : 256;
		sim->ended = realloc(sim->ended, sim->ended_room * sizeof(sim->ended[0]));
		assert(sim->ended != NULL);
	}
	sim->ended[sim->n_ended++] = (struct sim_ended){.mono_ns = sim->mono_ns, .index = index};
}

uint64_t sim_ended_by(int64_t mono_ns)
{
	size_t low = 0, high = sim->n_ended;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (sim->ended[middle].mono_ns <= mono_ns)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 ? sim->ended[low - 1].index + 1 : 0;
}

static uint64_t value_of(const uint8_t *block)
{
	uint64_t first = lb_get_le64(block);

	return memcmp(block, block + 8, SIM_BLOCK_BYTES - 8) == 0 ? first : UINT64_MAX; /* torn */
}

static void fill(uint8_t *block, uint64_t value, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 8)
		lb_put_le64(block + i, value);
}

void sim_new(uint64_t seed)
{
	sim = calloc(1, sizeof(*sim));
	assert(sim != NULL);
	sim->random = seed;
	sim->mono_ns = 1000 * LB_NS_PER_S;
	sim->next_index = 1;
	sim->kill_after = -1;
	sim->request_ns = LB_NS_PER_MS;
	sim->ns_per_kib = 2000;
	for (unsigned int d = 0; d < SIM_DISKS; d++) {
		sim->disks[d].data = calloc(1, SIM_DISK_BYTES);
		sim->disks[d].size_bytes = SIM_DISK_BYTES;
		sim->process.image[d] = calloc(1, SIM_DISK_BYTES);
		sim->process.frozen[d] = calloc(1, SIM_DISK_BYTES);
		assert(sim->disks[d].data != NULL && sim->process.image[d] != NULL && sim->process.frozen[d] != NULL);
		for (unsigned int b = 0; b < SIM_BLOCKS; b++) {
			/* a quarter is written before protection begins */
			uint64_t value = sim_chance(256) ? sim->next_index : 0;

			fill(sim->disks[d].data + b * SIM_BLOCK_BYTES, value, SIM_BLOCK_BYTES);
			remember(&sim->disks[d].history[b], 0, value);
		}
	}
	sim->next_index++;
}

void sim_free(void)
{
	sim_kernel_forget();
	sim_process_free();
	for (unsigned int d = 0; d < SIM_DISKS; d++) {
		for (unsigned int b = 0; b < SIM_BLOCKS; b++)
			free(sim->disks[d].history[b].versions);
		free(sim->disks[d].data);
		free(sim->process.image[d]);
		free(sim->process.frozen[d]);
	}
	free(sim->ended);
	free(sim);
	sim = NULL;
}

/* ---- writes ------------------------------------------------------------------------------------------ */

static bool busy(unsigned int disk, uint64_t block, uint64_t n_blocks)
{
	for (unsigned int i = 0; i < SIM_WRITES_MAX; i++) {
		const struct sim_write *w = &sim->writes[i];

		if (w->stage != SIM_FREE && w->disk == disk && block < w->block + w->n_blocks &&
		    w->block < block + n_blocks)
			return true;
	}
	return false;
}

static void put(unsigned int disk, uint64_t block, uint64_t n_blocks, uint64_t value, size_t bytes)
{
	for (uint64_t b = block; b < block + n_blocks; b++)
		fill(sim->disks[disk].data + b * SIM_BLOCK_BYTES, value, bytes);
}

/* The program has run for it: its place in the write order is fixed, and the disk has it. */
static void record(struct sim_write *w)
{
	w->value = w->zero ? 0 : sim->next_index;
	for (uint64_t b = w->block; b < w->block + w->n_blocks; b++)
		remember(&sim->disks[w->disk].history[b], sim->next_index, w->value);
	w->index = sim->next_index++;
	sim_kernel_record(w);
	w->stage = SIM_RECORDED;
	/* the disk may have half of it before it says that it is done */
	if (sim_chance(512) && !w->fails)
		put(w->disk, w->block, w->n_blocks, w->value, SIM_BLOCK_BYTES / 2);
}

static void end(struct sim_write *w)
{
	if (!w->fails) {
		put(w->disk, w->block, w->n_blocks, w->value, SIM_BLOCK_BYTES);
		note_ended(w->index);
	} else {
		/* the disk kept what it had: that is another step of the order */
		for (uint64_t b = w->block; b < w->block + w->n_blocks; b++)
			remember(&sim->disks[w->disk].history[b], sim->next_index,
				 value_of(sim->disks[w->disk].data + b * SIM_BLOCK_BYTES));
		sim->next_index++;
	}
	sim_kernel_ends(w, w->fails);
	w->stage = SIM_FREE;
}

void sim_submit(unsigned int disk, uint64_t block, uint64_t n_blocks, bool zero)
{
	struct sim_write *w = NULL;

	for (unsigned int i = 0; i < SIM_WRITES_MAX && w == NULL; i++)
		if (sim->writes[i].stage == SIM_FREE)
			w = &sim->writes[i];
	if (w == NULL || sim->disks[disk].gone || busy(disk, block, n_blocks))
		return;
	*w = (struct sim_write){
		.stage = SIM_SUBMITTED,
		.disk = disk,
		.block = block,
		.n_blocks = n_blocks,
		.zero = zero,
		.fails = sim_chance(sim->p_fail),
		.submitted_ns = sim->mono_ns,
		/* the program reads the mode now and acts on it a little later */
		.generation = sim->kernel.generation,
		.mode = sim->kernel.mode,
	};
	for (uint64_t b = block; b < block + n_blocks; b++)
		sim->kernel.inflight[disk][b * SIM_BLOCK_BYTES / LB_CAPTURE_CHUNK_BYTES]++;
	if (sim_chance(768))
		record(w);
}

void sim_submit_unseen(unsigned int disk, uint64_t block)
{
	if (busy(disk, block, 1))
		return;
	remember(&sim->disks[disk].history[block], sim->next_index, sim->next_index);
	put(disk, block, 1, sim->next_index, SIM_BLOCK_BYTES);
	sim->disks[disk].kernel_bytes += SIM_BLOCK_BYTES;
	note_ended(sim->next_index++);
}

static void step_one(void)
{
	struct sim_write *w = &sim->writes[sim_random() % SIM_WRITES_MAX];

	if (w->stage == SIM_SUBMITTED)
		record(w);
	else if (w->stage == SIM_RECORDED && !sim->kernel.stuck && !sim_chance(sim->p_slow))
		end(w);
}

void sim_pass(int64_t ns)
{
	const int64_t until = sim->mono_ns + ns;

	while (sim->mono_ns < until) {
		sim->mono_ns += LB_MIN(until - sim->mono_ns, LB_NS_PER_MS);
		for (unsigned int i = 0; i < 6; i++)
			step_one();
		for (unsigned int i = 0; i < 4; i++) {
			uint64_t n = 1 + sim_random() % SIM_WRITE_BLOCKS_MAX;
			/* half of the writes go to a hot tenth */
			uint64_t block =
				sim_random() % (sim_chance(512) ? SIM_BLOCKS / 10 : SIM_BLOCKS - SIM_WRITE_BLOCKS_MAX);

			if (sim_chance(sim->writes_per_ms))
				sim_submit((unsigned int)(sim_random() % SIM_DISKS), block, n, sim_chance(128));
		}
		if (sim_chance(sim->p_miss))
			sim_submit_unseen(0, sim_random() % SIM_BLOCKS);
	}
}

void sim_quiesce(void)
{
	for (unsigned int i = 0; i < SIM_WRITES_MAX; i++) {
		if (sim->writes[i].stage == SIM_SUBMITTED)
			record(&sim->writes[i]);
		if (sim->writes[i].stage == SIM_RECORDED)
			end(&sim->writes[i]);
	}
}

void sim_reboot(void)
{
	for (unsigned int i = 0; i < SIM_WRITES_MAX; i++) {
		struct sim_write *w = &sim->writes[i];

		if (w->stage == SIM_RECORDED && sim_chance(512) && !w->fails)
			put(w->disk, w->block, w->n_blocks, w->value, SIM_BLOCK_BYTES);
		else if (w->stage == SIM_RECORDED)
			/* torn or absent: no filesystem minds, and a resync must bring what the disk has */
			put(w->disk, w->block, w->n_blocks, sim_chance(512) ? w->value : 0, SIM_BLOCK_BYTES);
		w->stage = SIM_FREE;
	}
	for (unsigned int d = 0; d < SIM_DISKS; d++)
		for (unsigned int b = 0; b < SIM_BLOCKS; b++) {
			struct sim_history *h = &sim->disks[d].history[b];
			uint64_t value = value_of(sim->disks[d].data + (size_t)b * SIM_BLOCK_BYTES);

			if (h->versions[h->n - 1].value != value)
				remember(h, sim->next_index, value);
		}
	sim->next_index++;
	sim_kernel_forget();
}

/* ---- the oracle -------------------------------------------------------------------------------------- */

/*
 * The prefixes [low, high] of the order at which the block was as it is: zeroes may have come more than once, so they
 * only bound a prefix that the others left open.
 */
static bool version_at(const struct sim_history *h, uint64_t prefix, uint64_t value)
{
	uint64_t at = h->versions[0].value;

	for (size_t i = 0; i < h->n && h->versions[i].index < prefix; i++)
		at = h->versions[i].value;
	return at == value;
}

static bool bound(const struct sim_history *h, uint64_t value, uint64_t *low, uint64_t *high)
{
	for (size_t i = h->n; i-- > 0;) {
		if (h->versions[i].value != value)
			continue;
		*low = LB_MAX(*low, h->versions[i].index + 1);
		if (i + 1 < h->n)
			*high = LB_MIN(*high, h->versions[i + 1].index);
		return true;
	}
	return false;
}

static bool once(const struct sim_history *h, uint64_t value)
{
	unsigned int n = 0;

	for (size_t i = 0; i < h->n; i++)
		n += h->versions[i].value == value;
	return n == 1;
}

static uint64_t values[SIM_DISKS][SIM_BLOCKS]; /* of the image that is being judged */

static bool legal_at(uint64_t prefix, unsigned int *ret_disk, unsigned int *ret_block)
{
	for (unsigned int d = 0; d < SIM_DISKS; d++)
		for (unsigned int b = 0; b < SIM_BLOCKS; b++)
			if (!version_at(&sim->disks[d].history[b], prefix, values[d][b])) {
				*ret_disk = d;
				*ret_block = b;
				return false;
			}
	return true;
}

void sim_check_point(uint8_t *const image[SIM_DISKS], uint64_t at_least, const char *what)
{
	uint64_t low = LB_MAX(at_least, sim->point_low), high = sim->next_index;
	unsigned int disk = 0, block = 0;

	for (unsigned int d = 0; d < SIM_DISKS; d++) {
		for (unsigned int b = 0; b < SIM_BLOCKS; b++) {
			const struct sim_history *h = &sim->disks[d].history[b];
			uint64_t value = value_of(image[d] + (size_t)b * SIM_BLOCK_BYTES);
			uint64_t l = 0, u = high;

			values[d][b] = value;
			if (!bound(h, value, &l, &u)) {
				sim_fail("%s: disk %u block %u holds %lx, which was never written there", what, d, b,
					 (unsigned long)value);
				return;
			}
			if (!once(h, value))
				continue;
			low = LB_MAX(low, l);
			high = LB_MIN(high, u);
			if (low > high) {
				sim_fail("%s: disk %u block %u holds write %lu: prefix %lu..%lu of the order can't be "
					 "(low %lu)",
					 what, d, b, (unsigned long)value, (unsigned long)low, (unsigned long)high,
					 (unsigned long)sim->point_low);
				return;
			}
		}
	}
	for (uint64_t prefix = low; prefix <= high; prefix++) {
		if (!legal_at(prefix, &disk, &block))
			continue;
		sim->point_low = prefix;
		return;
	}
	sim_fail("%s: no prefix %lu..%lu of the order: disk %u block %u", what, (unsigned long)low, (unsigned long)high,
		 disk, block);
}

/* ---- the environment --------------------------------------------------------------------------------- */

static int64_t now_ns(struct lb_env *env)
{
	(void)env;
	return INT64_C(1700000000) * LB_NS_PER_S + sim->mono_ns + sim->wall_skew_ns;
}

static int64_t mono_ns(struct lb_env *env)
{
	(void)env;
	return sim->mono_ns;
}

static int wait_until(struct lb_env *env, int64_t mono, int fd)
{
	(void)env;
	(void)fd;
	if (mono > sim->mono_ns)
		sim_pass(mono - sim->mono_ns);
	return 0;
}

static int random_bytes(struct lb_env *env, void *buf, size_t n)
{
	(void)env;
	for (size_t i = 0; i < n; i++)
		((uint8_t *)buf)[i] = (uint8_t)sim_random();
	return 0;
}

static ssize_t pread_disk(struct lb_env *env, int fd, void *buf, size_t n, uint64_t offset)
{
	(void)env;
	sim_kill_point();
	sim_pass(LB_NS_PER_MS / 4);
	memcpy(buf, sim->disks[fd].data + offset, n);
	sim_pass(LB_NS_PER_MS / 4);
	return (ssize_t)n;
}

struct lb_env *sim_env(void)
{
	static const struct lb_env_ops ops = {
		.now_ns = now_ns,
		.mono_ns = mono_ns,
		.wait_until = wait_until,
		.random = random_bytes,
		.pread = pread_disk,
	};
	static struct lb_env env = {.ops = &ops};

	return &env;
}
