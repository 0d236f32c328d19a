/* SPDX-License-Identifier: Apache-2.0 */
/* The 512 bytes in front of every segment. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/err.h"
#include "hrl/layout.h"

#define FLAGS_ALL                                                                                                      \
	(LB_HRL_POINT | LB_HRL_SCANNING | LB_HRL_MARK_APP | LB_HRL_MARK_GROUP | LB_HRL_HEARTBEAT | LB_HRL_LAST)

static bool all_zero(const uint8_t *p, size_t size_bytes)
{
	for (size_t i = 0; i < size_bytes; i++) {
		if (p[i] != 0)
			return false;
	}
	return true;
}

int lb_hrl_header_check(const struct lb_hrl_header *header, uint32_t n_extents)
{
	if (header->epoch == 0)
		return lb_fail(-EINVAL, "a segment's epoch can't be 0: epochs count from 1");
	if ((header->flags & ~(uint32_t)FLAGS_ALL) != 0)
		return lb_fail(-EINVAL, "segment flags 0x%x hold one that this version doesn't know", header->flags);
	if ((header->flags & LB_HRL_HEARTBEAT) && n_extents > 0)
		return lb_fail(-EINVAL, "a heartbeat segment can't hold %u extents", n_extents);
	return 0;
}

void lb_hrl_head_encode(const struct lb_hrl_head *head, uint8_t out[LB_HRL_HEADER_BYTES])
{
	const struct lb_hrl_header *h = &head->header;

	memset(out, 0, LB_HRL_HEADER_BYTES);
	memcpy(out, LB_HRL_MAGIC, LB_HRL_MAGIC_BYTES);
	lb_put_le32(out + LB_HRL_AT_VERSION, LB_HRL_VERSION);
	lb_put_le32(out + LB_HRL_AT_FLAGS, h->flags);
	memcpy(out + LB_HRL_AT_VAULT, h->vault.bytes, sizeof(h->vault.bytes));
	memcpy(out + LB_HRL_AT_MACHINE, h->machine.bytes, sizeof(h->machine.bytes));
	memcpy(out + LB_HRL_AT_INSTANCE, h->instance.bytes, sizeof(h->instance.bytes));
	lb_put_le64(out + LB_HRL_AT_EPOCH, h->epoch);
	lb_put_le64(out + LB_HRL_AT_SEQ, h->seq);
	lb_put_le64(out + LB_HRL_AT_RING_CUT, h->ring_cut);
	lb_put_le64(out + LB_HRL_AT_SCAN_CURSOR, h->scan_cursor);
	lb_put_le64(out + LB_HRL_AT_TIME_FIRST, (uint64_t)h->time_first_ns);
	lb_put_le64(out + LB_HRL_AT_TIME_LAST, (uint64_t)h->time_last_ns);
	memcpy(out + LB_HRL_AT_PREV_DIGEST, h->prev_digest.bytes, LB_DIGEST_BYTES);
	lb_put_le32(out + LB_HRL_AT_EXTENTS, head->n_extents);
	lb_put_le32(out + LB_HRL_AT_FRAMES, head->n_frames);
	lb_put_le64(out + LB_HRL_AT_DATA_BYTES, head->data_bytes);

	out[LB_HRL_AT_FORM] = (uint8_t)head->form;
	out[LB_HRL_AT_INDEX_CODEC] = (uint8_t)head->index_codec;
	lb_put_le32(out + LB_HRL_AT_INDEX_STORED, head->index_stored_bytes);
	lb_put_le64(out + LB_HRL_AT_TOTAL, head->total_bytes);
	if (head->form == LB_HRL_SEALED)
		lb_put_le64(out + LB_HRL_AT_RECEIPT, (uint64_t)h->receipt_ns);
	memcpy(out + LB_HRL_AT_DIGEST, head->digest.bytes, LB_DIGEST_BYTES);
	memcpy(out + LB_HRL_AT_SALT, head->salt, LB_SALT_BYTES);
}

static int check_identity(const uint8_t *in)
{
	uint32_t version = lb_get_le32(in + LB_HRL_AT_VERSION);

	if (memcmp(in, LB_HRL_MAGIC, LB_HRL_MAGIC_BYTES) != 0)
		return lb_fail(-EBADMSG, "these bytes are no .hrl segment: the magic differs");
	if (version != LB_HRL_VERSION)
		return lb_fail(-EBADMSG,
			       "the segment's format version is %u and this program reads %d; upgrade Lifeboat",
			       version, LB_HRL_VERSION);
	if (!all_zero(in + LB_HRL_AT_ZERO_1, LB_HRL_CANONICAL_BYTES - LB_HRL_AT_ZERO_1) ||
	    !all_zero(in + LB_HRL_AT_ZERO_2, LB_HRL_AT_INDEX_STORED - LB_HRL_AT_ZERO_2) ||
	    !all_zero(in + LB_HRL_AT_ZERO_3, LB_HRL_HEADER_BYTES - LB_HRL_AT_ZERO_3))
		return lb_fail(-EBADMSG, "reserved bytes of the segment's header aren't zero");
	return 0;
}

static void decode_header(const uint8_t *in, struct lb_hrl_header *h)
{
	h->flags = lb_get_le32(in + LB_HRL_AT_FLAGS);
	memcpy(h->vault.bytes, in + LB_HRL_AT_VAULT, sizeof(h->vault.bytes));
	memcpy(h->machine.bytes, in + LB_HRL_AT_MACHINE, sizeof(h->machine.bytes));
	memcpy(h->instance.bytes, in + LB_HRL_AT_INSTANCE, sizeof(h->instance.bytes));
	h->epoch = lb_get_le64(in + LB_HRL_AT_EPOCH);
	h->seq = lb_get_le64(in + LB_HRL_AT_SEQ);
	h->ring_cut = lb_get_le64(in + LB_HRL_AT_RING_CUT);
	h->scan_cursor = lb_get_le64(in + LB_HRL_AT_SCAN_CURSOR);
	h->time_first_ns = (int64_t)lb_get_le64(in + LB_HRL_AT_TIME_FIRST);
	h->time_last_ns = (int64_t)lb_get_le64(in + LB_HRL_AT_TIME_LAST);
	h->receipt_ns = (int64_t)lb_get_le64(in + LB_HRL_AT_RECEIPT);
	memcpy(h->prev_digest.bytes, in + LB_HRL_AT_PREV_DIGEST, LB_DIGEST_BYTES);
}

static int check_counts(const struct lb_hrl_head *head)
{
	if (head->n_extents > LB_HRL_EXTENTS_MAX)
		return lb_fail(-EBADMSG, "a segment of %u extents is above the limit of %u", head->n_extents,
			       LB_HRL_EXTENTS_MAX);
	if (head->n_frames > LB_HRL_FRAMES_MAX || head->n_frames > head->n_extents)
		return lb_fail(-EBADMSG, "a segment of %u extents can't have %u frames; the limit is %u",
			       head->n_extents, head->n_frames, LB_HRL_FRAMES_MAX);
	if (head->data_bytes > LB_HRL_DATA_BYTES_MAX ||
	    head->data_bytes < (uint64_t)head->n_frames * LB_HRL_SECTOR_BYTES ||
	    head->data_bytes > (uint64_t)head->n_frames * LB_HRL_FRAME_BYTES_MAX)
		return lb_fail(-EBADMSG, "%u frames can't hold %" PRIu64 " bytes of data", head->n_frames,
			       head->data_bytes);
	return 0;
}

static int check_plain_sizes(const struct lb_hrl_head *head)
{
	uint32_t index_bytes = lb_hrl_index_canonical_bytes(head);
	static const uint8_t no_salt[LB_SALT_BYTES];

	if (head->index_codec != LB_HRL_CODEC_NONE || head->index_stored_bytes != index_bytes ||
	    head->total_bytes != LB_HRL_HEADER_BYTES + (uint64_t)index_bytes + head->data_bytes)
		return lb_fail(-EBADMSG, "the sizes in a plain segment's header contradict one another");
	if (head->header.receipt_ns != 0 || memcmp(head->salt, no_salt, sizeof(no_salt)) != 0)
		return lb_fail(-EBADMSG, "a plain segment can't have a receipt time or a salt");
	return 0;
}

static int check_sealed_sizes(const struct lb_hrl_head *head)
{
	uint64_t index_bytes = lb_hrl_index_sealed_bytes(head), tags_bytes = (uint64_t)head->n_frames * LB_TAG_BYTES;
	uint64_t stored_bytes = head->index_stored_bytes, frames_bytes;

	if (head->index_codec == LB_HRL_CODEC_NONE && stored_bytes != index_bytes + LB_TAG_BYTES)
		return lb_fail(-EBADMSG, "a sealed index of %" PRIu64 " bytes can't rest in %" PRIu64, index_bytes,
			       stored_bytes);
	if (head->index_codec == LB_HRL_CODEC_ZSTD &&
	    (stored_bytes <= LB_TAG_BYTES || stored_bytes >= index_bytes + LB_TAG_BYTES))
		return lb_fail(-EBADMSG, "a compressed index of %" PRIu64 " bytes can't rest in %" PRIu64, index_bytes,
			       stored_bytes);
	if (head->total_bytes < LB_HRL_HEADER_BYTES + stored_bytes || head->total_bytes > LB_HRL_SEGMENT_BYTES_MAX)
		return lb_fail(-EBADMSG,
			       "a sealed segment of %" PRIu64 " bytes is shorter than its head or above the limit",
			       head->total_bytes);
	frames_bytes = head->total_bytes - LB_HRL_HEADER_BYTES - stored_bytes;
	if (frames_bytes < tags_bytes + head->n_frames || frames_bytes > tags_bytes + head->data_bytes)
		return lb_fail(-EBADMSG, "%u sealed frames can't rest in %" PRIu64 " bytes", head->n_frames,
			       frames_bytes);
	return 0;
}

int lb_hrl_head_decode(const uint8_t in[LB_HRL_HEADER_BYTES], struct lb_hrl_head *ret_head)
{
	struct lb_hrl_head head = {};
	int r;

	r = check_identity(in);
	if (r < 0)
		return r;
	decode_header(in, &head.header);
	if (in[LB_HRL_AT_FORM] != LB_HRL_PLAIN && in[LB_HRL_AT_FORM] != LB_HRL_SEALED)
		return lb_fail(-EBADMSG, "a segment is plain (1) or sealed (2), not %u", in[LB_HRL_AT_FORM]);
	if (in[LB_HRL_AT_INDEX_CODEC] > LB_HRL_CODEC_ZSTD)
		return lb_fail(-EBADMSG, "the index's codec %u is unknown", in[LB_HRL_AT_INDEX_CODEC]);
	head.form = in[LB_HRL_AT_FORM];
	head.index_codec = in[LB_HRL_AT_INDEX_CODEC];
	head.n_extents = lb_get_le32(in + LB_HRL_AT_EXTENTS);
	head.n_frames = lb_get_le32(in + LB_HRL_AT_FRAMES);
	head.data_bytes = lb_get_le64(in + LB_HRL_AT_DATA_BYTES);
	head.index_stored_bytes = lb_get_le32(in + LB_HRL_AT_INDEX_STORED);
	head.total_bytes = lb_get_le64(in + LB_HRL_AT_TOTAL);
	memcpy(head.digest.bytes, in + LB_HRL_AT_DIGEST, LB_DIGEST_BYTES);
	memcpy(head.salt, in + LB_HRL_AT_SALT, LB_SALT_BYTES);
	r = check_counts(&head);
	if (r < 0)
		return r;
	if (lb_hrl_header_check(&head.header, head.n_extents) < 0)
		return lb_wrap(-EBADMSG, "the segment's header is wrong");
	r = head.form == LB_HRL_PLAIN ? check_plain_sizes(&head) : check_sealed_sizes(&head);
	if (r < 0)
		return r;
	*ret_head = head;
	return 0;
}
