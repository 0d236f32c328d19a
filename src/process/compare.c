/* SPDX-License-Identifier: Apache-2.0 */
#include "process/compare.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "process/process.h"
#include "process/record.h"
#include "process/schedule.h"

void lb_compare_init(struct lb_compare *c)
{
	*c = (struct lb_compare){0};
	pthread_mutex_init(&c->lock, NULL);
}

/* What it cost, when it is over. */
static void tell_settled(const struct lb_compare_image *slot)
{
	struct lb_settle_stats stats;

	lb_settle_stats(slot->settle, &stats);
	lb_notice("machine %s: for epoch %" PRIu64 " its disks were compared with the vault: %" PRIu64 " of %" PRIu64
		  " frames are the same by their hashes, %" PRIu64 " KiB differ; %" PRIu64
		  " KiB were read from the store",
		  slot->name, slot->settle_epoch, stats.same_frames, stats.asked_frames,
		  stats.sent_units * (LB_BATCH_UNIT_BYTES / 1024), lb_image_bytes_read(slot->image) / 1024);
}

static void settle_end(struct lb_compare_image *slot)
{
	if (slot->settle == NULL)
		return;
	tell_settled(slot);
	lb_settle_free(slot->settle);
	slot->settle = NULL;
}

static void slot_empty(struct lb_compare_image *slot)
{
	settle_end(slot);
	if (slot->image != NULL)
		lb_image_free(slot->image);
	*slot = (struct lb_compare_image){0};
}

void lb_compare_destroy(struct lb_compare *c)
{
	for (size_t i = 0; i < LB_COMPARE_IMAGES_MAX; i++)
		slot_empty(&c->images[i]);
	pthread_mutex_destroy(&c->lock);
}

static bool is_over(const struct lb_compare_image *slot, int64_t now_ns)
{
	struct lb_settle_stats stats = {0};

	if (slot->users > 0 || slot->image == NULL)
		return false;
	if (slot->settle != NULL)
		lb_settle_stats(slot->settle, &stats);
	return now_ns - slot->used_mono_ns >
	       (stats.to_the_end ? LB_COMPARE_SETTLED_IDLE_S : LB_COMPARE_IMAGE_IDLE_S) * LB_NS_PER_S;
}

void lb_compare_sweep(struct lb_process *p)
{
	struct lb_compare *c = &p->compare;
	LB_LOCK_SCOPE(&c->lock);

	for (size_t i = 0; i < LB_COMPARE_IMAGES_MAX; i++)
		if (is_over(&c->images[i], lb_mono_ns(p->env)))
			slot_empty(&c->images[i]);
}

/* ---- images -------------------------------------------------------------------------------------------- */

static bool slot_is(const struct lb_compare_image *slot, const struct lb_machine *m, const struct lb_position *at)
{
	return (slot->image != NULL || slot->opening) && lb_uuid_equal(&slot->machine, &m->id) &&
	       slot->at.epoch == at->epoch && slot->at.seq == at->seq;
}

/* With the lock held: the image's slot, or one to open it in; NULL when all are in use. */
static struct lb_compare_image *choose(struct lb_compare *c, const struct lb_machine *m, const struct lb_position *at)
{
	struct lb_compare_image *oldest = NULL;

	for (size_t i = 0; i < LB_COMPARE_IMAGES_MAX; i++) {
		struct lb_compare_image *slot = &c->images[i];

		if (slot_is(slot, m, at))
			return slot;
		if (slot->users == 0 && !slot->opening && (oldest == NULL || slot->used_mono_ns < oldest->used_mono_ns))
			oldest = slot;
	}
	return oldest;
}

static int reserve(struct lb_machine *m, const struct lb_position *at, struct lb_compare_image **ret_slot,
		   bool *ret_open)
{
	struct lb_process *p = m->process;
	struct lb_compare_image *slot;
	LB_LOCK_SCOPE(&p->compare.lock);

	slot = choose(&p->compare, m, at);
	if (slot == NULL)
		return lb_fail(-EAGAIN, "%d comparisons run already", LB_COMPARE_IMAGES_MAX);
	if (slot->opening)
		return lb_fail(-EAGAIN, "the image of machine %s is being opened", m->id_text);
	*ret_open = !slot_is(slot, m, at);
	if (*ret_open) {
		slot_empty(slot);
		*slot = (struct lb_compare_image){.machine = m->id, .at = *at, .opening = true};
	}
	slot->users++;
	*ret_slot = slot;
	return 0;
}

static void release(struct lb_process *p, struct lb_compare_image *slot)
{
	LB_LOCK_SCOPE(&p->compare.lock);

	slot->users--;
	slot->used_mono_ns = lb_mono_ns(p->env);
}

static int acquire(struct lb_machine *m, const struct lb_position *at, struct lb_compare_image **ret_slot)
{
	struct lb_process *p = m->process;
	struct lb_compare_image *slot;
	struct lb_image *image = NULL;
	bool open;
	int r;

	r = reserve(m, at, &slot, &open);
	if (r < 0)
		return r;
	if (open) {
		r = lb_image_open(p->vault, &m->id, at, LB_COMPARE_IMAGE_CACHE_BYTES, &image);
		pthread_mutex_lock(&p->compare.lock);
		slot->image = image;
		slot->opening = false;
		pthread_mutex_unlock(&p->compare.lock);
	}
	if (r < 0) {
		release(p, slot);
		return lb_wrap(r, "machine %s, image of epoch %" PRIu64 ", segment %" PRIu64, m->id_text, at->epoch,
			       at->seq);
	}
	*ret_slot = slot;
	return 0;
}

/* ---- comparing ----------------------------------------------------------------------------------------- */

static int check_request(const struct lb_machine *m, const struct lb_compare_request *q,
			 const struct lb_process_disk *disk)
{
	uint64_t length = q->n * q->block_bytes;

	if (q->n < 1 || q->n > LB_COMPARE_HASHES_MAX || q->block_bytes < LB_COMPARE_BLOCK_BYTES_MIN ||
	    q->block_bytes > LB_COMPARE_BLOCK_BYTES_MAX || q->block_bytes % LB_HRL_SECTOR_BYTES != 0 ||
	    length > LB_COMPARE_BYTES_MAX)
		return lb_fail(-EINVAL,
			       "a comparison is of 1 to %d blocks of %d to %u bytes, at most %u bytes together",
			       LB_COMPARE_HASHES_MAX, LB_COMPARE_BLOCK_BYTES_MIN, LB_COMPARE_BLOCK_BYTES_MAX,
			       LB_COMPARE_BYTES_MAX);
	if (disk == NULL)
		return lb_fail(-EINVAL, "machine %s has no disk with id %u", m->assigned.name, q->disk);
	if (q->offset_bytes % LB_HRL_SECTOR_BYTES != 0 || q->offset_bytes >= disk->size_bytes ||
	    (q->n - 1) * q->block_bytes >= disk->size_bytes - q->offset_bytes)
		return lb_fail(-EINVAL,
			       "machine %s, disk %s: %zu blocks of %" PRIu64 " bytes at %" PRIu64 " lie past its end",
			       m->assigned.name, disk->name, q->n, q->block_bytes, q->offset_bytes);
	return 0;
}

/* The frozen position that epoch `epoch` began from, and its disks. */
static int look_up(struct lb_machine *m, uint64_t epoch, struct lb_position *ret_at, struct lb_process_disks *ret_disks)
{
	const struct lb_epoch *e;
	LB_LOCK_SCOPE(&m->lock);

	e = m->newest;
	if (e == NULL || e->record.epoch != epoch || m->durable.epoch != epoch)
		return lb_fail(-ESTALE, "machine %s is in epoch %" PRIu64 ", not %" PRIu64, m->assigned.name,
			       m->durable.epoch, epoch);
	if (e->record.lost)
		return lb_fail(-ESTALE,
			       "machine %s: how epoch %" PRIu64 " began was lost with the cache; begin a new epoch",
			       m->assigned.name, epoch);
	if (e->record.prev.epoch > m->vault.epoch ||
	    (e->record.prev.epoch == m->vault.epoch && e->record.prev.epoch != 0 && e->record.prev.seq > m->vault.seq))
		return lb_fail(-EAGAIN,
			       "machine %s: the epochs before %" PRIu64 " are still on their way into the vault",
			       m->assigned.name, epoch);
	*ret_at = e->record.prev;
	*ret_disks = e->record.disks;
	return 0;
}

/* `image` NULL: all zeroes. */
static int compare(struct lb_image *image, const struct lb_compare_request *q, uint64_t disk_bytes, uint8_t *differ)
{
	_cleanup_free_ uint8_t *block = calloc(1, q->block_bytes);
	struct lb_digest digest;
	int r;

	if (block == NULL)
		return lb_fail(-ENOMEM, "out of memory for a block");
	for (size_t i = 0; i < q->n; i++) {
		uint64_t offset = q->offset_bytes + i * q->block_bytes;
		size_t length = LB_MIN(q->block_bytes, disk_bytes - offset);

		r = image != NULL ? lb_image_pread(image, q->disk, block, length, offset) : 0;
		if (r == -EBADMSG) { /* what the vault lost is sent again, and so mended */
			differ[i / 8] |= (uint8_t)(1u << i % 8);
			continue;
		}
		if (r < 0)
			return r;
		r = lb_hmac_sha256(&q->key, block, length, &digest);
		if (r < 0)
			return r;
		if (!lb_equal_ct(&digest, q->hashes + i * LB_DIGEST_BYTES, LB_DIGEST_BYTES))
			differ[i / 8] |= (uint8_t)(1u << i % 8);
	}
	return 0;
}

int lb_compare_blocks(struct lb_machine *m, const struct lb_compare_request *request, uint8_t *differ)
{
	const struct lb_process_disk *disk;
	struct lb_compare_image *slot;
	struct lb_process_disks disks;
	struct lb_position at;
	uint64_t disk_bytes;
	int r;

	r = look_up(m, request->epoch, &at, &disks);
	if (r == -EAGAIN)
		lb_schedule(m, lb_mono_ns(m->process->env));
	if (r < 0)
		return r;
	disk = lb_disks_find(&disks, request->disk);
	r = check_request(m, request, disk);
	if (r < 0)
		return r;
	disk_bytes = disk->size_bytes;
	memset(differ, 0, (request->n + 7) / 8);
	if (at.epoch == 0)
		return compare(NULL, request, disk_bytes, differ);
	r = acquire(m, &at, &slot);
	if (r == -ENOENT) { /* pruned since the epoch began: then everything is sent */
		lb_err_clear();
		memset(differ, 0xff, (request->n + 7) / 8);
		if (request->n % 8 != 0)
			differ[request->n / 8] = (uint8_t)((1u << request->n % 8) - 1);
		return 0;
	}
	if (r < 0)
		return r;
	r = compare(slot->image, request, disk_bytes, differ);
	release(m->process, slot);
	return r;
}

/* ---- settling ------------------------------------------------------------------------------------------ */

/* Without an image: each unit is to be sent, or was zeroes. */
static int answer_all(const struct lb_settle_question *q, bool send, struct lb_settle_answer *answer)
{
	if (q->length_bytes == 0 || q->length_bytes > LB_SETTLE_RANGE_BYTES_MAX)
		return lb_fail(-EINVAL, "a question is about 1 to %u bytes", LB_SETTLE_RANGE_BYTES_MAX);
	answer->batch = 0;
	answer->settled = true;
	answer->units = (q->length_bytes + LB_BATCH_UNIT_BYTES - 1) / LB_BATCH_UNIT_BYTES;
	memset(answer->send, send ? 0xff : 0, sizeof(answer->send));
	memset(answer->zeroes, send ? 0 : 0xff, sizeof(answer->zeroes));
	return 0;
}

/* Of one machine one question at a time comes; what is settled goes when its epoch or the agent's session does. */
static int settle_of(struct lb_machine *m, const char *name, struct lb_compare_image *slot, uint64_t epoch,
		     const struct lb_process_disks *disks, const uint8_t *session)
{
	LB_LOCK_SCOPE(&m->process->compare.lock);

	if (slot->settle != NULL && slot->settle_epoch == epoch && lb_settle_is_of(slot->settle, session))
		return 0;
	if (slot->users > 1)
		return lb_fail(-EAGAIN, "machine %s asks twice at once", m->id_text);
	settle_end(slot);
	slot->settle_epoch = epoch;
	memcpy(slot->name, name, sizeof(slot->name));
	return lb_settle_new(m->process->env, slot->image, disks, session, LB_SETTLE_DIFFER_MAX, &slot->settle);
}

int lb_compare_settle(struct lb_machine *m, uint64_t epoch, const struct lb_settle_question *question,
		      struct lb_settle_answer *answer)
{
	struct lb_compare_image *slot;
	struct lb_process_disks disks;
	char name[LB_PROCESS_NAME_BYTES];
	struct lb_position at;
	int r;

	pthread_mutex_lock(&m->lock);
	memcpy(name, m->assigned.name, sizeof(name));
	pthread_mutex_unlock(&m->lock);
	r = look_up(m, epoch, &at, &disks);
	if (r == -EAGAIN)
		lb_schedule(m, lb_mono_ns(m->process->env));
	if (r < 0)
		return r;
	if (at.epoch == 0)
		return answer_all(question, false, answer);
	r = acquire(m, &at, &slot);
	if (r == -ENOENT) { /* pruned since the epoch began */
		lb_err_clear();
		return answer_all(question, true, answer);
	}
	if (r < 0)
		return r;
	r = settle_of(m, name, slot, epoch, &disks, question->session);
	if (r == 0)
		r = lb_settle_ask(slot->settle, question, answer);
	if (r == 0 && (answer->settled || question->batch != 0))
		lb_fault_server_place("process server, %s, epoch %" PRIu64 ": %s, not told", name, epoch,
				      answer->settled ? "a range is settled" : "hashes were compared");
	release(m->process, slot);
	return r < 0 ? lb_wrap(r, "machine %s", m->id_text) : 0;
}
