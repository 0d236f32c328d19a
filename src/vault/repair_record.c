/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "vault/manifest.h"
#include "vault/repair.h"

#define VERSION_MAX 0xffff
#define SECTORS_MAX (UINT64_C(1) << 54)
#define PIECE_SECTORS (UINT32_C(1) << 31)

void lb_repair_free(struct lb_repair *r)
{
	if (r == NULL)
		return;
	free(r->segments);
	free(r->frames);
	free(r->ranges);
	free(r);
}

static int record_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, const struct lb_place *place,
		       uint64_t version)
{
	return lb_vault_name(name, machine, "r/%08llx-%010llx-%04llx", (unsigned long long)place->epoch,
			     (unsigned long long)place->number, (unsigned long long)version);
}

int lb_repair_name_parse(const char *object, struct lb_place *ret_place, uint64_t *ret_version)
{
	const char *name = strrchr(object, '/') != NULL ? strrchr(object, '/') + 1 : object;
	unsigned long long epoch, number, version;
	char again[64];

	if (sscanf(name, "%8llx-%10llx-%4llx", &epoch, &number, &version) != 3)
		return -EINVAL;
	snprintf(again, sizeof(again), "%08llx-%010llx-%04llx", epoch, number, version);
	if (strcmp(again, name) != 0)
		return -EINVAL;
	*ret_place = (struct lb_place){.epoch = epoch, .number = number};
	*ret_version = version;
	return 0;
}

/* ---- JSON ---------------------------------------------------------------------------------------------- */

static int set_position(json_t *j, const char *member, const struct lb_position *p)
{
	json_t *pair = json_pack("[I,I]", (json_int_t)p->epoch, (json_int_t)p->seq);

	return json_object_set_new(j, member, pair) < 0 ? lb_fail(-ENOMEM, "out of memory for a repair record") : 0;
}

static int set_place(json_t *j, const char *member, const struct lb_place *p)
{
	return set_position(j, member, &(struct lb_position){.epoch = p->epoch, .seq = p->number});
}

/* Numbers of rewritten data have a bit that JSON's have no room for; their epoch says it. */
static int set_folded(json_t *j, const struct lb_repair *r)
{
	return set_place(j, "folded",
			 &(struct lb_place){.epoch = r->folded.epoch, .number = r->folded.number & ~LB_FOLDED_OBJECT});
}

static int get_number(const json_t *j, uint64_t *ret)
{
	if (!json_is_integer(j) || json_integer_value(j) < 0)
		return lb_fail(-EBADMSG, "a number of a repair record is none");
	*ret = (uint64_t)json_integer_value(j);
	return 0;
}

static int get_pair(const json_t *pair, uint64_t *ret_a, uint64_t *ret_b)
{
	int r;

	if (!json_is_array(pair) || json_array_size(pair) < 2)
		return lb_fail(-EBADMSG, "a pair of a repair record is none");
	r = get_number(json_array_get(pair, 0), ret_a);
	return r < 0 ? r : get_number(json_array_get(pair, 1), ret_b);
}

static int get_position(const json_t *j, const char *member, struct lb_position *p)
{
	return get_pair(json_object_get(j, member), &p->epoch, &p->seq);
}

static int get_place(const json_t *j, const char *member, struct lb_place *p)
{
	return get_pair(json_object_get(j, member), &p->epoch, &p->number);
}

static int print_chain(const struct lb_repair *r, json_t *j)
{
	int result;

	if ((result = set_place(j, "last", &r->last)) < 0 ||
	    (result = lb_json_set_digest(j, "last_digest", &r->last_digest)) < 0 ||
	    (result = lb_json_set_bool(j, "last_is_seal", r->last_is_seal)) < 0 ||
	    (result = set_position(j, "position", &r->after.position)) < 0 ||
	    (result = lb_json_set_digest(j, "digest", &r->after.digest)) < 0 ||
	    (result = lb_json_set_uuid(j, "instance", &r->after.instance)) < 0 ||
	    (result = lb_json_set_u64(j, "ring_cut", r->after.ring_cut)) < 0 ||
	    (result = lb_json_set_u64(j, "scan_cursor", r->after.scan_cursor)) < 0 ||
	    (result = lb_json_set_i64(j, "receipt_ns", r->after.receipt_ns)) < 0)
		return result;
	return lb_json_set_u64(j, "flags", r->after.flags);
}

static int parse_chain(const json_t *j, struct lb_repair *r)
{
	uint64_t flags;
	int result;

	if ((result = get_place(j, "last", &r->last)) < 0 ||
	    (result = lb_json_get_digest(j, "last_digest", &r->last_digest)) < 0 ||
	    (result = lb_json_get_bool(j, "last_is_seal", &r->last_is_seal)) < 0 ||
	    (result = get_position(j, "position", &r->after.position)) < 0 ||
	    (result = lb_json_get_digest(j, "digest", &r->after.digest)) < 0 ||
	    (result = lb_json_get_uuid(j, "instance", &r->after.instance)) < 0 ||
	    (result = lb_json_get_u64(j, "ring_cut", &r->after.ring_cut)) < 0 ||
	    (result = lb_json_get_u64(j, "scan_cursor", &r->after.scan_cursor)) < 0 ||
	    (result = lb_json_get_i64(j, "receipt_ns", &r->after.receipt_ns)) < 0 ||
	    (result = lb_json_get_u64(j, "flags", &flags)) < 0)
		return result;
	r->after.flags = (uint32_t)flags;
	return 0;
}

static int parse_folded(const json_t *j, struct lb_repair *r)
{
	int result = get_place(j, "folded", &r->folded);

	if (result == 0 && r->folded.epoch == 0)
		r->folded.number |= LB_FOLDED_OBJECT;
	return result;
}

static int print_lists(const struct lb_repair *r, json_t *j)
{
	json_t *segments = json_array(), *frames = json_array(), *ranges = json_array();
	int failed = 0;

	for (size_t i = 0; i < r->n_segments; i++)
		failed |= json_array_append_new(segments, json_integer((json_int_t)r->segments[i]));
	for (size_t i = 0; i < r->n_frames; i++)
		failed |= json_array_append_new(
			frames, json_pack("[I,I]", (json_int_t)r->frames[i].seq, (json_int_t)r->frames[i].frame));
	for (size_t i = 0; i < r->n_ranges; i++)
		failed |= json_array_append_new(ranges,
						json_pack("[I,I,i]", (json_int_t)r->ranges[i].start,
							  (json_int_t)r->ranges[i].sectors, (int)r->ranges[i].disk));
	failed |= json_object_set_new(j, "segments", segments);
	failed |= json_object_set_new(j, "frames", frames);
	failed |= json_object_set_new(j, "ranges", ranges);
	return failed < 0 ? lb_fail(-ENOMEM, "out of memory for a repair record") : 0;
}

static int print_record(const struct lb_repair *r, char **ret_text)
{
	_cleanup_json_ json_t *j = json_object();
	int result;

	if (j == NULL)
		return lb_fail(-ENOMEM, "out of memory for a repair record");
	if ((result = set_place(j, "place", &r->place)) < 0 ||
	    (result = lb_json_set_bool(j, "crosses", r->crosses)) < 0 ||
	    (result = set_position(j, "from", &r->from)) < 0 || (result = set_position(j, "until", &r->until)) < 0 ||
	    (result = lb_json_set_bool(j, "is_exact", r->is_exact)) < 0 ||
	    (result = lb_repair_is_of_data(r) ? set_folded(j, r) : 0) < 0 ||
	    (result = r->crosses ? print_chain(r, j) : 0) < 0 || (result = print_lists(r, j)) < 0)
		return result;
	return lb_json_dump(j, ret_text);
}

static int list_of(const json_t *j, const char *member, size_t max, const json_t **ret_list, size_t *ret_n)
{
	*ret_list = json_object_get(j, member);
	if (!json_is_array(*ret_list) || json_array_size(*ret_list) > max)
		return lb_fail(-EBADMSG, "\"%s\" of a repair record is no list or too long", member);
	*ret_n = json_array_size(*ret_list);
	return 0;
}

static int parse_range(const json_t *j, struct lb_lost_range *range)
{
	uint64_t disk = 0;
	int r = get_pair(j, &range->start, &range->sectors);

	if (r == 0)
		r = get_number(json_array_get(j, 2), &disk);
	if (r < 0)
		return r;
	if (disk > UINT16_MAX || range->sectors == 0 || range->start >= SECTORS_MAX ||
	    range->sectors > SECTORS_MAX - range->start)
		return lb_fail(-EBADMSG, "a range of a repair record is out of bounds");
	range->disk = (uint16_t)disk;
	return 0;
}

static int parse_lists(const json_t *j, struct lb_repair *r)
{
	const json_t *segments, *frames, *ranges;
	size_t n_segments, n_frames, n_ranges;
	uint64_t frame = 0;
	int result;

	if ((result = list_of(j, "segments", LB_REPAIR_SEGMENTS_MAX, &segments, &n_segments)) < 0 ||
	    (result = list_of(j, "frames", LB_REPAIR_FRAMES_MAX, &frames, &n_frames)) < 0 ||
	    (result = list_of(j, "ranges", LB_REPAIR_RANGES_MAX, &ranges, &n_ranges)) < 0)
		return result;
	r->segments = calloc(n_segments + 1, sizeof(*r->segments));
	r->frames = calloc(n_frames + 1, sizeof(*r->frames));
	r->ranges = calloc(n_ranges + 1, sizeof(*r->ranges));
	if (r->segments == NULL || r->frames == NULL || r->ranges == NULL)
		return lb_fail(-ENOMEM, "out of memory for a repair record");
	for (; result == 0 && r->n_segments < n_segments; r->n_segments++)
		result = get_number(json_array_get(segments, r->n_segments), &r->segments[r->n_segments]);
	for (; result == 0 && r->n_frames < n_frames; r->n_frames++) {
		result = get_pair(json_array_get(frames, r->n_frames), &r->frames[r->n_frames].seq, &frame);
		r->frames[r->n_frames].frame = (uint32_t)frame;
	}
	for (; result == 0 && r->n_ranges < n_ranges; r->n_ranges++)
		result = parse_range(json_array_get(ranges, r->n_ranges), &r->ranges[r->n_ranges]);
	return result;
}

static int parse_record(const struct lb_buf *text, struct lb_repair *r)
{
	_cleanup_json_ json_t *j = NULL;
	int result;

	result = lb_json_parse(text->data, text->size_bytes, LB_SMALL_BYTES_MAX, &j);
	if (result < 0 || (result = get_place(j, "place", &r->place)) < 0 ||
	    (result = lb_json_get_bool(j, "crosses", &r->crosses)) < 0 ||
	    (result = get_position(j, "from", &r->from)) < 0 || (result = get_position(j, "until", &r->until)) < 0 ||
	    (result = lb_json_get_bool(j, "is_exact", &r->is_exact)) < 0 ||
	    (result = json_object_get(j, "folded") != NULL ? parse_folded(j, r) : 0) < 0 ||
	    (result = r->crosses ? parse_chain(j, r) : 0) < 0)
		return result;
	return parse_lists(j, r);
}

/* ---- objects -------------------------------------------------------------------------------------------- */

static int read_version(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_place *place,
			uint64_t version, struct lb_repair **ret)
{
	_cleanup_(lb_repair_freep) struct lb_repair *r = calloc(1, sizeof(*r));
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_SMALL_BYTES_MAX);
	char name[LB_OBJECT_NAME_BYTES];
	int result;

	if (r == NULL)
		return lb_fail(-ENOMEM, "out of memory for a repair record");
	result = record_name(name, machine, place, version);
	if (result == 0)
		result = lb_small_get(v, machine, name, &text);
	if (result < 0)
		return result;
	result = parse_record(&text, r);
	if (result == 0 && (r->place.epoch != place->epoch || r->place.number != place->number))
		result = lb_fail(-EBADMSG, "it is of another place");
	if (result < 0)
		return lb_wrap(result, "%s: object %s", v->store->url, name);
	r->version = version;
	*ret = lb_steal_ptr(r);
	return 0;
}

struct versions {
	uint64_t newest;
	bool any;
};

static int note_version(void *arg, const char *object, uint64_t size_bytes)
{
	struct versions *versions = arg;
	struct lb_place place;
	uint64_t version;

	(void)size_bytes;
	if (lb_repair_name_parse(object, &place, &version) < 0)
		return 0;
	versions->any = true;
	versions->newest = version;
	return 0;
}

static int newest_version(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_place *place,
			  struct versions *versions)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	int r = lb_vault_name(prefix, machine, "r/%08llx-%010llx-", (unsigned long long)place->epoch,
			      (unsigned long long)place->number);

	return r < 0 ? r : lb_store_list(v->store, prefix, note_version, versions);
}

/* What a dry run would write counts for its own reader. */
static const struct lb_repair *pending(const struct lb_vault *v, const struct lb_place *place)
{
	for (size_t i = 0; v->repairs_pending != NULL && i < v->repairs_pending->n; i++) {
		const struct lb_repair *r = v->repairs_pending->r[i];

		if (r->place.epoch == place->epoch && r->place.number == place->number)
			return r;
	}
	return NULL;
}

static void *copy_of(const void *data, size_t n, size_t each)
{
	void *copy = calloc(n + 1, each);

	if (copy != NULL && n > 0)
		memcpy(copy, data, n * each);
	return copy;
}

static int copy_record(const struct lb_repair *from, struct lb_repair **ret)
{
	_cleanup_(lb_repair_freep) struct lb_repair *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return lb_fail(-ENOMEM, "out of memory for a repair record");
	*r = *from;
	r->segments = copy_of(from->segments, from->n_segments, sizeof(*from->segments));
	r->frames = copy_of(from->frames, from->n_frames, sizeof(*from->frames));
	r->ranges = copy_of(from->ranges, from->n_ranges, sizeof(*from->ranges));
	if (r->segments == NULL || r->frames == NULL || r->ranges == NULL)
		return lb_fail(-ENOMEM, "out of memory for a repair record");
	*ret = lb_steal_ptr(r);
	return 0;
}

int lb_repair_read(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_place *place,
		   struct lb_repair **ret)
{
	struct versions versions = {0};
	const struct lb_repair *planned = pending(v, place);
	int r;

	if (planned != NULL)
		return copy_record(planned, ret);
	r = newest_version(v, machine, place, &versions);
	if (r == 0 && !versions.any)
		return -ENOENT;
	/* one that was damaged itself: an older version still leads over, it only knows less of what became whole */
	for (uint64_t version = versions.newest + 1; r == 0 && version-- > 0;) {
		r = read_version(v, machine, place, version, ret);
		if (r == 0)
			return 0;
		if (r == -EBADMSG || r == -ENOENT)
			r = version > 0 ? 0 : r;
	}
	return r;
}

int lb_repair_put(struct lb_vault *v, const struct lb_uuid *machine, struct lb_repair *r)
{
	struct versions versions = {0};
	_cleanup_free_ char *text = NULL;
	char name[LB_OBJECT_NAME_BYTES];
	int result;

	result = newest_version(v, machine, &r->place, &versions);
	if (result == 0)
		result = print_record(r, &text);
	r->version = versions.any ? versions.newest + 1 : 0;
	if (result == 0 && r->version > VERSION_MAX)
		result = lb_fail(-EOVERFLOW, "a repair record has more than %d versions", VERSION_MAX);
	if (result == 0)
		result = record_name(name, machine, &r->place, r->version);
	if (result < 0 || text == NULL)
		return result;
	return lb_small_put_new(v, machine, name, text, strlen(text));
}

struct reading {
	struct lb_vault *v;
	const struct lb_uuid *machine;
	struct lb_repairs list;
};

static int add_record(void *arg, const char *object, uint64_t size_bytes)
{
	struct reading *reading = arg;
	struct lb_repairs *list = &reading->list;
	const struct lb_repair *newest = list->n > 0 ? list->r[list->n - 1] : NULL;
	struct lb_repair *record = NULL, **grown;
	struct lb_place place;
	uint64_t version;
	int r;

	(void)size_bytes;
	if (lb_repair_name_parse(object, &place, &version) < 0 ||
	    (newest != NULL && newest->place.epoch == place.epoch && newest->place.number == place.number))
		return 0;
	if (list->n >= LB_REPAIRS_MAX)
		return lb_fail(-EOVERFLOW, "more than %d repair records of one machine", LB_REPAIRS_MAX);
	r = lb_repair_read(reading->v, reading->machine, &place, &record);
	if (r == -EBADMSG || r == -ENOENT) {
		lb_err_clear();
		return 0; /* readers that need it say so */
	}
	if (r < 0)
		return r;
	grown = reallocarray(list->r, list->n + 1, sizeof(struct lb_repair *));
	if (grown == NULL) {
		lb_repair_free(record);
		return lb_fail(-ENOMEM, "out of memory for repair records");
	}
	list->r = grown;
	list->r[list->n++] = record;
	return 0;
}

int lb_repairs_read(struct lb_vault *v, const struct lb_uuid *machine, struct lb_repairs *ret)
{
	struct reading reading = {.v = v, .machine = machine};
	char prefix[LB_OBJECT_NAME_BYTES];
	int r = lb_vault_name(prefix, machine, "r/");

	if (r == 0)
		r = lb_store_list(v->store, prefix, add_record, &reading);
	if (r < 0) {
		lb_repairs_free(&reading.list);
		return r;
	}
	*ret = reading.list;
	return 0;
}

void lb_repairs_free(struct lb_repairs *list)
{
	for (size_t i = 0; i < list->n; i++)
		lb_repair_free(list->r[i]);
	free(list->r);
	*list = (struct lb_repairs){0};
}

/* ---- what a record says ------------------------------------------------------------------------------------ */

static bool is_before(const struct lb_position *a, const struct lb_position *b)
{
	return a->epoch < b->epoch || (a->epoch == b->epoch && a->seq < b->seq);
}

bool lb_repairs_damage(const struct lb_repairs *list, const struct lb_position *position)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct lb_repair *r = list->r[i];

		if (!is_before(position, &r->from) && (r->until.epoch == 0 || is_before(position, &r->until)))
			return true;
	}
	return false;
}

bool lb_repair_has_segment(const struct lb_repair *r, uint64_t seq)
{
	for (size_t i = 0; i < r->n_segments; i++)
		if (r->segments[i] == seq)
			return true;
	return false;
}

/* The rank of what was lost: what it held outranks scans of its epoch and is outranked by what came later. */
static uint64_t rank_epoch(const struct lb_repair *r)
{
	return r->crosses ? r->last.epoch : r->place.epoch;
}

int lb_repair_apply(const struct lb_repair *r, struct lb_map *map)
{
	struct lb_map_segment lost = {.epoch = rank_epoch(r), .seq = r->from.seq, .object = r->place.number};
	uint32_t index;
	int result;

	result = lb_map_segment_add(map, &lost, &index);
	for (size_t i = 0; result == 0 && i < r->n_ranges; i++) {
		uint64_t at = r->ranges[i].start, end = at + r->ranges[i].sectors;

		while (result == 0 && at < end) {
			struct lb_map_extent x = {.start = at,
						  .sectors = (uint32_t)LB_MIN(end - at, (uint64_t)PIECE_SECTORS),
						  .segment = index,
						  .kind = LB_MAP_LOST};

			result = lb_map_insert(map, r->ranges[i].disk, &x);
			at += x.sectors;
		}
	}
	return result;
}

static bool is_between(const struct lb_map_segment *s, const struct lb_place *first, const struct lb_place *last)
{
	bool before = s->epoch < first->epoch || (s->epoch == first->epoch && s->object < first->number);
	bool after = s->epoch > last->epoch || (s->epoch == last->epoch && s->object > last->number);

	return !before && !after;
}

bool lb_repair_concerns(const struct lb_repair *r, const struct lb_map *map, const struct lb_map_extent *x)
{
	const struct lb_map_segment *s = lb_map_segment(map, x->segment);

	if (x->kind == LB_MAP_LOST)
		return s->epoch == rank_epoch(r) && s->object == r->place.number;
	if (!lb_hrl_kind_has_data(x->kind))
		return false;
	if ((r->place.number & LB_REPAIR_FOLDED) != 0)
		return lb_repair_is_of_data(r) && r->folded.number == s->object &&
		       ((s->object & LB_FOLDED_OBJECT) != 0 || r->folded.epoch == s->epoch);
	if (r->crosses)
		return is_between(s, &r->place, &r->last);
	if (!is_between(s, &r->place, &r->place))
		return false;
	for (size_t i = 0; i < r->n_frames; i++)
		if (r->frames[i].seq == s->seq && r->frames[i].frame == x->frame)
			return true;
	return lb_repair_has_segment(r, s->seq);
}
