/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Resync without reading the image. The agent's disks are held against a frozen image by the hashes that the vault's
 * indexes have of their frames: for each range of a disk that the agent comes to, it is first asked about every frame
 * of every segment that the range shows (batch.h), wherever their pieces lie, and then told of each unit of
 * LB_BATCH_UNIT_BYTES whether it is to be sent, and of its sectors whether they are zeroes in the image (it looks
 * itself) or the same. What is read of the store: the segments' heads, the frames of which a part was overwritten
 * since, and those that are not the same, each once; the latter to send units and not frames. What can't be settled
 * (lost, past a limit) is to be sent.
 *
 * An answer is about the agent's disks at one moment after its epoch's flip. It holds for the whole epoch, since every
 * later write is captured and outranks the scan (DESIGN: rank); hence all that is settled belongs to one `session`, the
 * agent's fresh random number for each flip and each run. Answers to questions of another are no answers.
 *
 * The hashes are XXH3-128 under the index's authentication. Nobody between the vault and us can choose them; by chance
 * two differ. But who may write to the protected disk can make two contents of his own bytes that hash alike, and swap
 * them while nothing captures (between the last acknowledged write and the next attach): then the double keeps the
 * first of his two until that block is written again. He gains nothing over others by it that he could not have by
 * writing the first again; other bytes in the same frame are theirs only if he knows them and their change beforehand.
 * We accept that for not reading terabytes; who can't takes the machine out of protection and in again, which copies
 * all of it.
 *
 * Memory: 17 bytes for each segment of the image, and about 3 MiB. Thread-safe, one question at a time.
 */
#include "process/batch.h"

#define LB_SETTLE_SESSION_BYTES 16
#define LB_SETTLE_RANGE_BYTES_MAX (16u << 20)
#define LB_SETTLE_UNITS_MAX (LB_SETTLE_RANGE_BYTES_MAX / LB_BATCH_UNIT_BYTES)
#define LB_SETTLE_FRAMES_MAX 128         /* of a segment; our builder makes 96 at most; those past it are sent */
#define LB_SETTLE_DIFFER_MAX (64u << 10) /* ranges that are known to differ and not yet behind the agent */
#define LB_SETTLE_STEP_MS 2000           /* after that a question is answered, if only with "ask again" */

struct lb_settle_question {
	uint8_t session[LB_SETTLE_SESSION_BYTES];
	uint16_t disk;
	uint64_t offset_bytes, length_bytes; /* a multiple of LB_BATCH_UNIT_BYTES, unless it ends with the disk */
	uint64_t batch;                      /* of which these are the hashes; 0: of none */
	const uint8_t *hashes;               /* n * LB_HRL_HASH_BYTES; zeroes: could not be read */
	size_t n;
};

struct lb_settle_answer {
	uint64_t batch;        /* the number of a batch, and */
	struct lb_buf entries; /* what it asks (lb_batch_print()); made by the caller, LB_BATCH_ENTRIES_BYTES_MAX */
	bool settled;          /* or else: */
	size_t units;
	/* a bit for each, the lowest of byte 0 first. Neither settled nor a batch: ask again */
	uint8_t send[LB_SETTLE_UNITS_MAX / 8];
	/* a bit for each sector of a unit that isn't sent: zeroes in the image. Other sectors are the same. */
	uint8_t zeroes[LB_SETTLE_UNITS_MAX];
};

struct lb_settle_stats {
	bool to_the_end; /* of every disk: most likely it is over */
	uint64_t asked_frames, same_frames, sent_units;
};

struct lb_settle;
/* The image stays the caller's and outlives it. `differing_max`: ranges that it remembers. */
int lb_settle_new(struct lb_env *env, struct lb_image *image, const struct lb_process_disks *disks,
		  const uint8_t session[LB_SETTLE_SESSION_BYTES], size_t differing_max, struct lb_settle **ret_settle);
void lb_settle_free(struct lb_settle *s);
LB_DEFINE_CLEANUP(struct lb_settle *, lb_settle_free);
bool lb_settle_is_of(const struct lb_settle *s, const uint8_t session[LB_SETTLE_SESSION_BYTES]);

/* -EINVAL a range that makes no sense; otherwise the store's errors, after which it may be asked again. */
int lb_settle_ask(struct lb_settle *s, const struct lb_settle_question *question, struct lb_settle_answer *answer);
void lb_settle_stats(struct lb_settle *s, struct lb_settle_stats *ret_stats);
