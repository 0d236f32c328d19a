/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests in the vault, and questions to one. */
#include "vault/manifest.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

#include "base/bytes.h"
#include "base/err.h"

#define MAGIC "LBFOLD01"
#define USE "lifeboat manifest 1"
#define PREFIX_BYTES 32
#define READ_ATTEMPTS_MAX 8 /* older versions go while we read */
#define ZSTD_LEVEL 3
#define SEALED_BYTES_MAX (PREFIX_BYTES + ZSTD_COMPRESSBOUND(LB_MANIFEST_BYTES_MAX) + LB_TAG_BYTES)

static const uint8_t nonce_zero[LB_NONCE_BYTES]; /* every salt makes a key of its own, which seals once */

int lb_position_compare(const struct lb_position *a, const struct lb_position *b)
{
	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

/* ---- names ---- */

int lb_manifest_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, uint64_t version)
{
	return lb_vault_name(name, machine, "f/%08llu", (unsigned long long)version);
}

int lb_folded_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, char folder, uint64_t number)
{
	return lb_vault_name(name, machine, "%c/%08llx-%08llx", folder, (unsigned long long)lb_folded_version(number),
			     (unsigned long long)(number & UINT32_MAX));
}

int lb_folded_name_parse(const char *name, char folder, uint64_t *ret_number)
{
	char again[LB_OBJECT_NAME_BYTES], uuid[LB_UUID_TEXT_BYTES], in;
	unsigned long long version, random;
	struct lb_uuid machine;
	size_t length;

	if (sscanf(name, "m/%36[0-9a-f-]/%c/%8llx-%8llx", uuid, &in, &version, &random) != 4 || in != folder ||
	    version > LB_MANIFEST_VERSION_MAX || lb_uuid_parse(uuid, &machine) < 0)
		return lb_fail(-EINVAL, "%s is no name of a folded object", name);
	if (lb_folded_name(again, &machine, folder, version << 32 | random) < 0)
		return lb_fail(-EINVAL, "%s is no name of a folded object", name);
	length = strlen(again);
	if (strncmp(again, name, length) != 0 ||
	    (name[length] != '\0' && (folder != 'd' || strlen(name + length) != strlen("-0123456789abcdef-0001"))))
		return lb_fail(-EINVAL, "%s is no name of a folded object", name);
	*ret_number = version << 32 | random;
	return 0;
}

/* ---- sealing ---- */

struct sealing {
	struct lb_gcm *gcm;
	uint8_t aad[PREFIX_BYTES + 32 + LB_OBJECT_NAME_BYTES];
	size_t aad_bytes;
};

static void sealing_free(struct sealing *s)
{
	if (s->gcm != NULL)
		lb_gcm_free(s->gcm);
}

static int sealing_begin(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_key *key, const char *name,
			 const uint8_t prefix[PREFIX_BYTES], struct sealing *s)
{
	size_t length = strlen(name);

	memcpy(s->aad, prefix, PREFIX_BYTES);
	memcpy(s->aad + PREFIX_BYTES, v->id.bytes, 16);
	memcpy(s->aad + PREFIX_BYTES + 16, machine->bytes, 16);
	memcpy(s->aad + PREFIX_BYTES + 32, name, length);
	s->aad_bytes = PREFIX_BYTES + 32 + length;
	return lb_seal_cipher(key, prefix + 16, USE, &s->gcm);
}

static int seal(struct lb_vault *v, const struct lb_uuid *machine, const char *name, const struct lb_buf *raw,
		struct lb_buf *out)
{
	_cleanup_(sealing_free) struct sealing s = {0};
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	uint8_t prefix[PREFIX_BYTES] = MAGIC, *to;
	size_t n;
	int r;

	r = lb_buf_reserve(out, PREFIX_BYTES + ZSTD_compressBound(raw->size_bytes) + LB_TAG_BYTES);
	if (r < 0)
		return r;
	to = out->data + PREFIX_BYTES;
	n = ZSTD_compress(to, ZSTD_compressBound(raw->size_bytes), raw->data, raw->size_bytes, ZSTD_LEVEL);
	if (ZSTD_isError(n))
		return lb_fail(-EIO, "a manifest can't be compressed: %s", ZSTD_getErrorName(n));
	lb_put_le32(prefix + 8, (uint32_t)n);
	lb_put_le32(prefix + 12, (uint32_t)raw->size_bytes);
	if ((r = lb_vault_key_to_seal(v, machine, prefix + 16, &key)) < 0 ||
	    (r = sealing_begin(v, machine, &key, name, prefix, &s)) < 0)
		return r;
	memcpy(out->data, prefix, PREFIX_BYTES);
	r = lb_gcm_seal(s.gcm, nonce_zero, s.aad, s.aad_bytes, to, n, to);
	if (r < 0)
		return r;
	out->size_bytes = PREFIX_BYTES + n + LB_TAG_BYTES;
	return 0;
}

static int open_sealed(struct lb_vault *v, const struct lb_uuid *machine, const char *name, struct lb_buf *sealed,
		       struct lb_buf *raw)
{
	_cleanup_(sealing_free) struct sealing s = {0};
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	uint32_t n, raw_bytes;
	size_t got;
	int r;

	if (sealed->size_bytes < PREFIX_BYTES + LB_TAG_BYTES || memcmp(sealed->data, MAGIC, 8) != 0)
		return lb_fail(-EBADMSG, "it does not begin with " MAGIC);
	n = lb_get_le32(sealed->data + 8);
	raw_bytes = lb_get_le32(sealed->data + 12);
	if (sealed->size_bytes != PREFIX_BYTES + (size_t)n + LB_TAG_BYTES || raw_bytes > LB_MANIFEST_BYTES_MAX)
		return lb_fail(-EBADMSG, "its length is not what it says");
	r = lb_vault_key_to_open(v, machine, sealed->data + 16, &key);
	if (r == 0)
		r = sealing_begin(v, machine, &key, name, sealed->data, &s);
	if (r < 0)
		return r;
	r = lb_gcm_open(s.gcm, nonce_zero, s.aad, s.aad_bytes, sealed->data + PREFIX_BYTES, n,
			sealed->data + PREFIX_BYTES);
	if (r == -EBADMSG)
		return lb_fail(r, "it is not authentic: altered, or another object put in its place");
	if (r == 0)
		r = lb_buf_reserve(raw, raw_bytes);
	if (r < 0)
		return r;
	got = ZSTD_decompress(raw->data, raw_bytes, sealed->data + PREFIX_BYTES, n);
	if (ZSTD_isError(got) || got != raw_bytes)
		return lb_fail(-EBADMSG, "it can't be decompressed");
	raw->size_bytes = raw_bytes;
	return 0;
}

/* ---- reading and putting ---- */

static int note_version(void *arg, const char *name, uint64_t size_bytes)
{
	uint64_t *newest = arg, version;

	(void)size_bytes;
	if (lb_u64_parse(strrchr(name, '/') + 1, LB_MANIFEST_VERSION_MAX, &version) == 0 && version > *newest)
		*newest = version;
	return 0;
}

int lb_manifest_get(struct lb_vault *v, const struct lb_uuid *machine, uint64_t version, struct lb_manifest **ret)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(SEALED_BYTES_MAX), raw = LB_BUF(LB_MANIFEST_BYTES_MAX);
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_manifest_name(name, machine, version);
	if (r == 0)
		r = lb_store_get_all(v->store, name, SEALED_BYTES_MAX, &sealed);
	if (r < 0)
		return r;
	r = open_sealed(v, machine, name, &sealed, &raw);
	if (r == 0)
		r = lb_manifest_decode(raw.data, raw.size_bytes, &m);
	if (r == 0 && m->version != version)
		r = lb_fail(-EBADMSG, "it is of another version");
	if (r < 0)
		return r == -EBADMSG ? lb_wrap(r, "%s: manifest %s can't be trusted", v->store->url, name) : r;
	*ret = lb_steal_ptr(m);
	return 0;
}

int lb_manifest_read(struct lb_vault *v, const struct lb_uuid *machine, struct lb_manifest **ret)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	int r = -ENOENT;

	for (int i = 0; i < READ_ATTEMPTS_MAX && r == -ENOENT; i++) {
		uint64_t version = 0;

		r = lb_vault_name(prefix, machine, "f/");
		if (r == 0)
			r = lb_store_list(v->store, prefix, note_version, &version);
		if (r < 0)
			return r;
		if (version == 0) {
			*ret = calloc(1, sizeof(**ret));
			return *ret == NULL ? lb_fail(-ENOMEM, "out of memory for a manifest") : 0;
		}
		r = lb_manifest_get(v, machine, version, ret);
	}
	return r;
}

int lb_manifest_put(struct lb_vault *v, const struct lb_uuid *machine, struct lb_manifest *m)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(SEALED_BYTES_MAX), raw = LB_BUF(LB_MANIFEST_BYTES_MAX);
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	if (m->n_spans > LB_MANIFEST_SPANS_MAX || m->n_kept > LB_MANIFEST_KEPT_MAX ||
	    m->n_live > LB_MANIFEST_OBJECTS_MAX || m->n_garbage > LB_MANIFEST_GARBAGE_MAX ||
	    m->version > LB_MANIFEST_VERSION_MAX)
		return lb_fail(-EOVERFLOW,
			       "a manifest holds at most %d points and %d objects; let the policy keep fewer points",
			       LB_MANIFEST_SPANS_MAX, LB_MANIFEST_OBJECTS_MAX);
	if ((r = lb_manifest_encode(m, &raw)) < 0 || (r = lb_manifest_name(name, machine, m->version)) < 0 ||
	    (r = seal(v, machine, name, &raw, &sealed)) < 0)
		return r;
	r = lb_store_put_new(v->store, name, sealed.data, sealed.size_bytes);
	if (r == 0)
		m->totals.manifest_bytes += sealed.size_bytes;
	return r;
}

/* ---- questions ---- */

bool lb_manifest_is_folded(const struct lb_manifest *m, const struct lb_position *position)
{
	return m->cut.epoch > 0 && lb_position_compare(position, &m->cut_after.position) <= 0;
}

size_t lb_manifest_span(const struct lb_manifest *m, const struct lb_position *position)
{
	size_t lo = 0, hi = m->n_spans;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (lb_position_compare(&m->spans[mid].point.position, position) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool lb_manifest_offers(const struct lb_manifest *m, const struct lb_position *position)
{
	size_t i;

	if (lb_manifest_is_folded(m, position)) {
		i = lb_manifest_span(m, position);
		return i < m->n_spans && lb_position_compare(&m->spans[i].point.position, position) == 0 &&
		       !m->spans[i].doomed && (m->spans[i].point.flags & LB_HRL_POINT) != 0;
	}
	if (m->next.epoch == 0 || lb_position_compare(position, &m->next_end) > 0)
		return true;
	for (i = 0; i < m->n_kept; i++)
		if (lb_position_compare(&m->kept[i].position, position) == 0)
			return true;
	return false;
}

static size_t live_index(const struct lb_manifest *m, uint64_t epoch, uint64_t number)
{
	size_t lo = 0, hi = m->n_live;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct lb_live *o = &m->live[mid];

		if (o->epoch < epoch || (o->epoch == epoch && o->number < number))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct lb_live *lb_manifest_live(struct lb_manifest *m, uint64_t epoch, uint64_t number)
{
	size_t i = live_index(m, epoch, number);

	return i < m->n_live && m->live[i].epoch == epoch && m->live[i].number == number ? &m->live[i] : NULL;
}

/* Room for one more in an array that has no field for its room: powers of two. */
static int grow(void **array, size_t n, size_t size_bytes)
{
	void *grown;

	if (n > 0 && (n & (n - 1)) != 0)
		return 0;
	grown = reallocarray(*array, n > 0 ? 2 * n : 1, size_bytes);
	if (grown == NULL)
		return lb_fail(-ENOMEM, "out of memory for a manifest");
	*array = grown;
	return 0;
}

int lb_manifest_live_add(struct lb_manifest *m, const struct lb_live *live)
{
	size_t i = live_index(m, live->epoch, live->number);
	int r;

	if (m->n_live >= LB_MANIFEST_OBJECTS_MAX)
		return lb_fail(-EOVERFLOW, "a folded journal has at most %d live objects", LB_MANIFEST_OBJECTS_MAX);
	r = grow((void **)&m->live, m->n_live, sizeof(*m->live));
	if (r < 0)
		return r;
	memmove(m->live + i + 1, m->live + i, (m->n_live - i) * sizeof(*m->live));
	m->live[i] = *live;
	m->n_live++;
	return 0;
}

int lb_manifest_garbage_add(struct lb_manifest *m, const struct lb_garbage *g)
{
	int r;

	if (m->n_garbage >= LB_MANIFEST_GARBAGE_MAX)
		return lb_fail(-EOVERFLOW, "more than %d objects wait for deletion: is the store refusing it?",
			       LB_MANIFEST_GARBAGE_MAX);
	r = grow((void **)&m->garbage, m->n_garbage, sizeof(*m->garbage));
	if (r < 0)
		return r;
	m->garbage[m->n_garbage++] = *g;
	return 0;
}
