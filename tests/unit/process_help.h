/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A process server on real folders with a clock and a disk that tests turn, a vault with its passphrase, and an
 * agent that sends what it is told. One vault for the whole run; each test has a machine and a cache of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "process/api.h"
#include "process/epoch.h"
#include "process/ingest.h"
#include "process/report.h"
#include "process/schedule.h"
#include "process/upload.h"
#include "vault/image.h"

#define MAYBE __attribute__((unused))
#define DISK_BYTES (1u << 20)
#define DAY_NS (24 * 3600 * LB_NS_PER_S)
#define PASSPHRASE "correct horse battery"

/* ---- the world ----------------------------------------------------------------------------------------- */

static struct lb_env world;
static struct lb_env_ops world_ops;
static int64_t now_shift_ns, mono_shift_ns;
static bool disk_full, vault_read_only, fsync_fails;
/* what a power cut now would take away: bytes in files, names in folders */
static bool bytes_at_risk, names_at_risk;
static int folder_fd = -1;
static char folder[64], vault_folder[80], vault_url[96], cache_folder[128];
static unsigned int n_caches;

static int64_t shifted_now(struct lb_env *env)
{
	return lb_env_real()->ops->now_ns(env) + now_shift_ns;
}

static int64_t shifted_mono(struct lb_env *env)
{
	return lb_env_real()->ops->mono_ns(env) + mono_shift_ns;
}

static ssize_t failing_pwrite(struct lb_env *env, int fd, const void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	bytes_at_risk = true;
	return disk_full ? -ENOSPC : lb_env_real()->ops->pwrite(env, fd, buf, size_bytes, offset_bytes);
}

static int failing_open(struct lb_env *env, const char *path, int flags, mode_t mode)
{
	int fd;

	if (vault_read_only && (flags & O_CREAT) != 0 && strncmp(path, vault_folder, strlen(vault_folder)) == 0)
		return -EROFS;
	fd = lb_env_real()->ops->open(env, path, flags, mode);
	if ((flags & O_DIRECTORY) != 0)
		folder_fd = fd;
	return fd;
}

static int watched_fsync(struct lb_env *env, int fd)
{
	if (fsync_fails)
		return -EIO;
	if (fd == folder_fd)
		names_at_risk = false;
	else
		bytes_at_risk = false;
	return lb_env_real()->ops->fsync(env, fd);
}

static int watched_close(struct lb_env *env, int fd)
{
	if (fd == folder_fd)
		folder_fd = -1;
	return lb_env_real()->ops->close(env, fd);
}

static int watched_rename(struct lb_env *env, const char *from, const char *to)
{
	assert_false(bytes_at_risk); /* or the name could outlive its bytes */
	names_at_risk = true;
	return lb_env_real()->ops->rename(env, from, to);
}

static int world_begin(MAYBE void **state)
{
	snprintf(folder, sizeof(folder), "/tmp/lb-test-process.XXXXXX");
	if (mkdtemp(folder) == NULL)
		return -1;
	snprintf(vault_folder, sizeof(vault_folder), "%s/vault", folder);
	snprintf(vault_url, sizeof(vault_url), "dir:%s", vault_folder);
	world_ops = *lb_env_real()->ops;
	world_ops.now_ns = shifted_now;
	world_ops.mono_ns = shifted_mono;
	world_ops.pwrite = failing_pwrite;
	world_ops.open = failing_open;
	world_ops.fsync = watched_fsync;
	world_ops.close = watched_close;
	world_ops.rename = watched_rename;
	world.ops = &world_ops;
	lb_log_init("test", getenv("LB_TEST_LOG") != NULL ? LB_LOG_DEBUG : (enum lb_log_level)0);
	return 0;
}

/* ---- the site ------------------------------------------------------------------------------------------ */

struct agent {
	struct lb_uuid id, instance;
	char hardware[LB_HARDWARE_BYTES];
	struct lb_key key;
	uint64_t epoch, seq; /* of the next segment */
	struct lb_digest prev;
	uint8_t disk[DISK_BYTES]; /* as it should be */
	struct lb_digest fingerprint;
};

struct site {
	struct lb_store *store;
	struct lb_vault *owner; /* opened with the passphrase */
	struct lb_uuid vault_id;
	struct lb_process *p;
	uint64_t cache_bytes_max;
	struct agent a, b; /* b: assigned when its id is set */
	bool disabled, fenced, unassigned;
	uint64_t resync_generation, bandwidth_bytes_per_s;
	int64_t flush_ns;
	const char *retention; /* NULL: the policy's default */
};

static struct site site;

static int remove_tree(void *arg, const char *name, bool is_dir)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", (const char *)arg, name);
	if (!is_dir)
		return unlink(path);
	return lb_env_real()->ops->list(lb_env_real(), path, remove_tree, path) | rmdir(path);
}

static int world_end(MAYBE void **state)
{
	lb_vault_free(site.owner);
	lb_store_free(site.store);
	return lb_env_real()->ops->list(lb_env_real(), folder, remove_tree, folder) | rmdir(folder);
}

static void random_uuid(struct lb_uuid *ret_uuid)
{
	assert_int_equal(world.ops->random(&world, ret_uuid, sizeof(*ret_uuid)), 0);
}

static void agent_begin(struct agent *a)
{
	struct lb_digest hardware;

	memset(a, 0, sizeof(*a));
	random_uuid(&a->id);
	random_uuid(&a->instance);
	assert_int_equal(lb_sha256(&a->id, sizeof(a->id), &hardware), 0);
	lb_hex_encode(hardware.bytes, sizeof(hardware.bytes), a->hardware);
	memset(a->fingerprint.bytes, 0x42, sizeof(a->fingerprint.bytes));
	assert_int_equal(lb_vault_machine_key(site.owner, &a->id, true, &a->key), 0);
}

static json_t *assignment(const struct agent *a)
{
	_cleanup_free_ char *key = lb_base64_encode(a->key.bytes, LB_KEY_BYTES);
	char id[LB_UUID_TEXT_BYTES], fingerprint[2 * LB_DIGEST_BYTES + 1];

	lb_uuid_format(&a->id, id);
	lb_hex_encode(a->fingerprint.bytes, LB_DIGEST_BYTES, fingerprint);
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:b,s:b,s:I,s:I,s:[{s:i,s:s,s:I}],s:{s:i,s:I,s:s,s:i}}", "id", id,
			 "name", "web1", "key", key, "hardware", a->hardware, "cert_fingerprint", fingerprint,
			 "enabled", !site.disabled, "fenced", site.fenced, "resync_generation",
			 (json_int_t)site.resync_generation, "flush_ns", (json_int_t)site.flush_ns, "disks", "id", 0,
			 "name", "vda", "size_bytes", (json_int_t)DISK_BYTES, "policy", "upload_interval_s", 15,
			 "bandwidth_bytes_per_s", (json_int_t)site.bandwidth_bytes_per_s, "retention",
			 site.retention != NULL ? site.retention : LB_LADDER_DEFAULT, "delete_delay_s", 3600);
}

static MAYBE json_t *site_config(void)
{
	static const struct lb_uuid nobody;
	char vault_id[LB_UUID_TEXT_BYTES];
	json_t *machines = json_array(), *config;

	lb_uuid_format(&site.vault_id, vault_id);
	if (!site.unassigned)
		json_array_append_new(machines, assignment(&site.a));
	if (!lb_uuid_equal(&site.b.id, &nobody))
		json_array_append_new(machines, assignment(&site.b));
	config = json_pack("{s:s,s:s,s:s,s:o}", "vault_id", vault_id, "vault_url", vault_url, "process_id",
			   "00000000-0000-4000-8000-000000000001", "machines", machines);
	assert_non_null(config);
	return config;
}

static void site_configure(void)
{
	_cleanup_json_ json_t *config = site_config();

	assert_int_equal(lb_process_configure(site.p, config), 0);
}

/* Runs what is due until nothing is; returns how many rounds ran. */
static unsigned int site_work(void)
{
	unsigned int n = 0;
	int64_t next;

	while (lb_upload_next(site.p, &next))
		assert_true(++n < 1000);
	return n;
}

/* Lets the time pass after which everything, backoff too, is due. */
static MAYBE void site_pass_time(void)
{
	mono_shift_ns += 61 * LB_NS_PER_S;
	site_work();
}

static void site_start(void)
{
	const struct lb_process_options options = {
		.cache_folder = cache_folder, .cache_bytes_max = site.cache_bytes_max, .seal_bytes_max = 16u << 20};

	assert_int_equal(lb_process_new(&world, &options, &site.p), 0);
	site_configure();
	site_work();
}

/* As a SIGKILL leaves it: what is not durable is gone, what is stays. */
static MAYBE void site_restart(void)
{
	lb_process_free(site.p);
	site_start();
}

static int site_begin(void **state)
{
	static struct lb_store *store;
	static struct lb_vault *owner;

	(void)state;
	/* opening by passphrase is slow on purpose: once for all tests */
	if (owner == NULL &&
	    (lb_store_open(&world, vault_url, true, &store) < 0 ||
	     lb_vault_create(store, PASSPHRASE, &site.vault_id) < 0 || lb_vault_open(store, PASSPHRASE, &owner) < 0))
		return -1;
	site = (struct site){.store = store, .owner = owner, .cache_bytes_max = 64u << 20};
	now_shift_ns = 0;
	disk_full = vault_read_only = fsync_fails = false;
	snprintf(cache_folder, sizeof(cache_folder), "%s/cache%u", folder, n_caches++);
	site.vault_id = *lb_vault_id(site.owner);
	agent_begin(&site.a);
	site_start();
	return 0;
}

static int site_end(void **state)
{
	(void)state;
	lb_process_free(site.p);
	return 0;
}

static struct lb_machine *machine_of(const struct agent *a)
{
	struct lb_machine *m;

	assert_int_equal(lb_machine_find(site.p, &a->id, &m), 0);
	lb_machine_unref(m); /* nobody removes it behind a test's back */
	return m;
}

/* ---- the agent ----------------------------------------------------------------------------------------- */

static MAYBE json_t *epoch_request(const struct agent *a, uint64_t epoch, uint64_t disk_bytes)
{
	char instance[LB_UUID_TEXT_BYTES], prev[2 * LB_DIGEST_BYTES + 1];

	lb_uuid_format(&a->instance, instance);
	lb_hex_encode(a->prev.bytes, LB_DIGEST_BYTES, prev);
	return json_pack("{s:I,s:s,s:s,s:s,s:s,s:I,s:I,s:[{s:i,s:s,s:I}]}", "epoch", (json_int_t)epoch, "instance",
			 instance, "hardware", a->hardware, "reason", "test", "prev_digest", prev, "prev_epoch",
			 (json_int_t)a->epoch, "prev_seq", (json_int_t)a->seq, "disks", "id", 0, "name", "vda",
			 "size_bytes", (json_int_t)disk_bytes);
}

static int try_epoch(struct agent *a, uint64_t epoch)
{
	_cleanup_json_ json_t *request = epoch_request(a, epoch, DISK_BYTES);

	return lb_epoch_begin(machine_of(a), request);
}

static void begin_epoch(struct agent *a)
{
	assert_int_equal(try_epoch(a, a->epoch + 1), 0);
	a->epoch++;
	a->seq = 0;
}

/* The next segment: `fill` over a range of the disk. */
static struct lb_digest make_segment(struct agent *a, uint64_t offset, size_t length, uint8_t fill, struct lb_buf *out)
{
	static uint8_t data[DISK_BYTES];
	_cleanup_(lb_hrl_builder_freep) struct lb_hrl_builder *b = NULL;
	struct lb_hrl_header h = {.vault = site.vault_id,
				  .machine = a->id,
				  .instance = a->instance,
				  .epoch = a->epoch,
				  .seq = a->seq,
				  .ring_cut = 1000 * (a->seq + 1),
				  .scan_cursor = a->seq,
				  .time_first_ns = 1,
				  .time_last_ns = 2,
				  .flags = LB_HRL_POINT,
				  .prev_digest = a->prev};
	uint64_t random = 88172645463325252u + fill;
	struct lb_digest digest;

	/* hardly compressible, and told apart by `fill` */
	for (size_t i = 0; i < length; i++) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		data[i] = (uint8_t)random;
	}
	assert_int_equal(lb_hrl_builder_new(LB_HRL_DATA_BYTES_MAX, &b), 0);
	if (length > 0)
		assert_int_equal(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED, offset, length, data), 0);
	assert_int_equal(lb_hrl_builder_finish(b, &h, out, &digest), 0);
	if (offset + length <= DISK_BYTES)
		memcpy(a->disk + offset, data, length);
	return digest;
}

static int64_t next_cut_ns; /* what the agent says of when it cut; 0: nothing */

static int send_bytes(struct agent *a, const struct lb_buf *plain)
{
	return lb_ingest(machine_of(a), a->epoch, a->seq, next_cut_ns, plain->data, plain->size_bytes);
}

static void acknowledged(struct agent *a, const struct lb_digest *digest)
{
	a->prev = *digest;
	a->seq++;
}

/* Makes and sends the next segment; -errno leaves the agent at it. */
static int try_send(struct agent *a, uint64_t offset, size_t length, uint8_t fill)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_digest digest = make_segment(a, offset, length, fill, &plain);
	int r = send_bytes(a, &plain);

	if (r == 0)
		acknowledged(a, &digest);
	return r;
}

static MAYBE void send(struct agent *a, uint64_t offset, size_t length, uint8_t fill)
{
	assert_int_equal(try_send(a, offset, length, fill), 0);
}

static MAYBE void assert_durable(const struct agent *a, uint64_t epoch, uint64_t next_seq)
{
	const struct lb_machine *m = machine_of(a);

	assert_int_equal(m->state, LB_MACHINE_READY);
	assert_int_equal(m->durable.epoch, epoch);
	assert_int_equal(m->durable.next_seq, next_seq);
}

static MAYBE void assert_in_vault(const struct agent *a, uint64_t epoch, uint64_t seq)
{
	const struct lb_machine *m = machine_of(a);

	assert_int_equal(m->vault.epoch, epoch);
	assert_int_equal(m->vault.seq, seq);
}

static MAYBE int64_t receipt_of(const struct agent *a)
{
	return machine_of(a)->durable.receipt_ns;
}

/* What the vault alone gives back is what the agent wrote. */
static MAYBE void assert_image(const struct agent *a, uint64_t epoch, uint64_t seq)
{
	static uint8_t got[DISK_BYTES];
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	struct lb_position at = {.epoch = epoch, .seq = seq};

	assert_int_equal(lb_image_open(site.owner, &a->id, &at, LB_IMAGE_CACHE_BYTES_DEFAULT, &image), 0);
	assert_int_equal(lb_image_pread(image, 0, got, sizeof(got), 0), 0);
	assert_memory_equal(got, a->disk, sizeof(got));
}

/* A call as the HTTPS server would hand it over. */
static MAYBE int call(const struct agent *a, const char *method, const char *pattern,
		      const struct lb_http_call *template, struct lb_http_reply *reply)
{
	struct lb_http_call c = *template;

	c.peer.role = LB_ROLE_MACHINE;
	c.peer.fingerprint = a->fingerprint;
	lb_uuid_format(&a->id, c.peer.name);
	*reply = (struct lb_http_reply){0};
	for (size_t i = 0; i < lb_process_routes_n; i++)
		if (strcmp(lb_process_routes[i].method, method) == 0 &&
		    strcmp(lb_process_routes[i].pattern, pattern) == 0)
			return lb_process_routes[i].handler(site.p, &c, reply);
	fail_msg("no such route: %s %s", method, pattern);
	return 0;
}
