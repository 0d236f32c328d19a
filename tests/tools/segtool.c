/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent without a machine: what each segment holds follows from (seed, epoch, seq) alone, so that any run of it,
 * before or after a kill, makes the same bytes, and so that the image at any position can be told without having seen
 * it.
 *
 *   segtool vault VAULT --machine UUID...
 *       makes the vault if needed; prints {"vault_id", "keys"}
 *   segtool send --url URL --identity DIR --vault-id UUID --machine UUID --hardware HEX [--acked FILE]
 *       [--patience SECONDS] SHAPE
 *       goes on from where the process server's journal stands until all is acknowledged; waits out lost connections
 * and refusals of 429, 503 and 507; exits with 3, saying LOST, when the journal stands behind what was acknowledged
 *   segtool image VAULT --machine UUID --at E:S --out FILE SHAPE
 *       the disk as the vault has it
 *   segtool oracle --at E:S --out FILE SHAPE
 *       the disk as it must be
 *   segtool digests VAULT --machine UUID
 *       a line "EPOCH SEQ DIGEST" for each segment of the journal in the vault
 *   segtool seal VAULT --machine UUID
 *       takes the journal over, as a failover does
 *
 *   VAULT: --vault URL --passphrase-file F
 *   SHAPE: --seed N --disk-bytes N --epochs N --segments N (per epoch) --data-bytes N (per segment)
 *          --compressible PERCENT
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "hrl/hrl.h"
#include "vault/chain.h"
#include "vault/image.h"
#include "wire/client.h"

#define MACHINES_MAX 16
#define WRITES_MAX 64
#define PASSPHRASE_BYTES_MAX 256
#define EXIT_LOST 3
#define RETRY_NS (50 * LB_NS_PER_MS)
#define TIME_FIRST_NS INT64_C(1767225600000000000)

struct segtool {
	const char *vault_url, *passphrase_file, *url, *identity, *hardware, *acked, *out;
	struct lb_uuid vault_id, machines[MACHINES_MAX];
	unsigned int n_machines;
	uint64_t seed, disk_bytes, epochs, segments, data_bytes, compressible, patience_s, at_epoch, at_seq;
	/* sending */
	struct lb_http_client *client;
	struct lb_hrl_builder *builder;
	uint8_t *data;
	uint64_t epoch, next_seq; /* as the journal told */
	struct lb_digest digest;
	uint64_t acked_epoch, acked_seq; /* the newest acknowledged; epoch 0: none */
	FILE *acked_file;
	int64_t give_up_mono_ns;
	bool lost;
};

/* ---- what a segment holds -------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void fill(const struct segtool *t, uint64_t *random, uint8_t *data, size_t size_bytes)
{
	for (size_t i = 0; i < size_bytes; i += 512) {
		bool dull = next_random(random) % 100 < t->compressible;

		for (size_t j = 0; j < 512; j += 8) {
			uint64_t v = dull ? 0x6c69666562756f79u : next_random(random);

			memcpy(data + i + j, &v, sizeof(v));
		}
	}
}

struct write {
	uint64_t offset_bytes, length_bytes;
	const uint8_t *data; /* NULL: zeroes */
};

/* The writes of one segment in their order, their data in `room`. */
static unsigned int make_writes(const struct segtool *t, uint64_t epoch, uint64_t seq, uint8_t *room,
				struct write writes[WRITES_MAX])
{
	uint64_t random = mix(t->seed) ^ mix(epoch << 32 | seq), left = t->data_bytes;
	unsigned int n = 0;

	while (n < WRITES_MAX && left >= 512) {
		struct write *w = &writes[n];

		w->length_bytes = n + 1 == WRITES_MAX ? left : 512 + next_random(&random) % (t->data_bytes / 8 + 1);
		w->length_bytes = LB_MIN(w->length_bytes, LB_MIN(left, t->disk_bytes)) / 512 * 512;
		w->offset_bytes = next_random(&random) % (t->disk_bytes - w->length_bytes + 1) / 512 * 512;
		w->data = NULL;
		if (next_random(&random) % 8 != 0) {
			fill(t, &random, room, w->length_bytes);
			w->data = room;
			room += w->length_bytes;
		}
		left -= w->length_bytes;
		n++;
	}
	return n;
}

static void instance_of(const struct segtool *t, uint64_t epoch, struct lb_uuid *ret_instance)
{
	uint64_t halves[2] = {mix(t->seed ^ epoch), mix(t->seed ^ epoch ^ 1)};

	memcpy(ret_instance->bytes, halves, sizeof(ret_instance->bytes));
}

static int make_segment(struct segtool *t, struct lb_buf *out, struct lb_digest *ret_digest)
{
	struct write writes[WRITES_MAX];
	struct lb_hrl_header h = {.vault = t->vault_id,
				  .machine = t->machines[0],
				  .epoch = t->epoch,
				  .seq = t->next_seq,
				  .ring_cut = (t->next_seq + 1) * t->data_bytes,
				  .time_first_ns = TIME_FIRST_NS + (int64_t)t->next_seq,
				  .time_last_ns = TIME_FIRST_NS + (int64_t)t->next_seq + 1,
				  .flags = LB_HRL_POINT,
				  .prev_digest = t->digest};
	unsigned int n = make_writes(t, t->epoch, t->next_seq, t->data, writes);
	int r = 0;

	instance_of(t, t->epoch, &h.instance);
	for (unsigned int i = 0; r == 0 && i < n; i++)
		r = lb_hrl_builder_add(t->builder, 0, writes[i].data != NULL ? LB_HRL_CAPTURED : LB_HRL_CAPTURED_ZERO,
				       writes[i].offset_bytes, writes[i].length_bytes, writes[i].data);
	return r < 0 ? r : lb_hrl_builder_finish(t->builder, &h, out, ret_digest);
}

/* ---- sending --------------------------------------------------------------------------------------------- */

/* 1: worth another try. */
static int try_again(struct segtool *t, int r)
{
	struct lb_env *env = lb_env_real();

	if (lb_mono_ns(env) > t->give_up_mono_ns)
		return lb_wrap(r, "gave up after %" PRIu64 " s", t->patience_s);
	env->ops->wait_until(env, lb_mono_ns(env) + RETRY_NS, -1);
	return 1;
}

static void had_answer(struct segtool *t)
{
	t->give_up_mono_ns = lb_mono_ns(lb_env_real()) + (int64_t)t->patience_s * LB_NS_PER_S;
}

/* 0 with the answer of 200; 1 after a wait: try again; an error else. */
static int call(struct segtool *t, const struct lb_http_request *request, json_t **ret_reply)
{
	_cleanup_(lb_http_response_free) struct lb_http_response response = {0};
	int r;

	r = lb_http_send(t->client, request, &response);
	if (r < 0)
		return try_again(t, r);
	if (response.status == 429 || response.status == 503 || response.status == 507) {
		lb_fail(-EAGAIN, "status %u: %.300s", response.status, response.body.data);
		return try_again(t, -EAGAIN);
	}
	if (response.status != 200)
		return lb_fail(-EREMOTEIO, "%s %s: status %u: %.500s", request->method, request->url, response.status,
			       response.body.data);
	had_answer(t);
	return lb_json_parse(response.body.data, response.body.size_bytes, 1u << 20, ret_reply);
}

static int take_journal(struct segtool *t, const json_t *reply)
{
	bool known;
	int r;

	r = lb_json_get_bool(reply, "known", &known);
	if (r < 0)
		return r;
	t->epoch = t->next_seq = 0;
	if (known)
		r = lb_json_get_u64(reply, "epoch", &t->epoch);
	if (known && r == 0)
		r = lb_json_get_u64(reply, "next_seq", &t->next_seq);
	if (known && r == 0)
		r = lb_json_get_digest(reply, "digest", &t->digest);
	if (r < 0)
		return r;
	t->lost = t->epoch < t->acked_epoch ||
		  (t->epoch == t->acked_epoch && t->acked_epoch != 0 && t->next_seq <= t->acked_seq);
	return t->lost ? lb_fail(-EIO,
				 "LOST: epoch %" PRIu64 ", segment %" PRIu64
				 " was acknowledged, but the journal stands at %" PRIu64 ", %" PRIu64,
				 t->acked_epoch, t->acked_seq, t->epoch, t->next_seq)
		       : 0;
}

static int read_journal(struct segtool *t)
{
	_cleanup_json_ json_t *reply = NULL;
	char url[512];
	const struct lb_http_request request = {.method = "GET", .url = url, .response_bytes_max = 1u << 20};
	int r;

	snprintf(url, sizeof(url), "%s/v1/journal", t->url);
	r = call(t, &request, &reply);
	return r != 0 ? r : take_journal(t, reply);
}

static int begin_epoch(struct segtool *t)
{
	_cleanup_json_ json_t *reply = NULL, *body = NULL;
	_cleanup_free_ char *text = NULL;
	char url[512], instance[LB_UUID_TEXT_BYTES], digest[2 * LB_DIGEST_BYTES + 1];
	struct lb_http_request request = {.method = "POST", .url = url, .response_bytes_max = 1u << 20};
	struct lb_uuid uuid;
	int r;

	instance_of(t, t->epoch + 1, &uuid);
	lb_uuid_format(&uuid, instance);
	lb_hex_encode(t->digest.bytes, LB_DIGEST_BYTES, digest);
	body = json_pack("{s:I,s:s,s:s,s:s,s:s,s:[{s:i,s:s,s:I}]}", "epoch", (json_int_t)t->epoch + 1, "instance",
			 instance, "hardware", t->hardware, "reason", "segtool", "prev_digest", digest, "disks", "id",
			 0, "name", "vda", "size_bytes", (json_int_t)t->disk_bytes);
	r = lb_json_dump(body, &text);
	if (r < 0)
		return r;
	snprintf(url, sizeof(url), "%s/v1/epoch", t->url);
	request.body = text;
	request.body_bytes = strlen(text);
	r = call(t, &request, &reply);
	return r != 0 ? r : take_journal(t, reply);
}

static int put_segment(struct segtool *t, struct lb_buf *plain)
{
	_cleanup_json_ json_t *reply = NULL;
	char url[512];
	struct lb_http_request request = {.method = "PUT",
					  .url = url,
					  .content_type = "application/octet-stream",
					  .response_bytes_max = 1u << 20};
	struct lb_digest digest;
	int r;

	plain->size_bytes = 0;
	r = make_segment(t, plain, &digest);
	if (r < 0)
		return r;
	snprintf(url, sizeof(url), "%s/v1/journal/%" PRIu64 "/%" PRIu64, t->url, t->epoch, t->next_seq);
	request.body = plain->data;
	request.body_bytes = plain->size_bytes;
	r = call(t, &request, &reply);
	if (r != 0)
		return r;
	t->acked_epoch = t->epoch;
	t->acked_seq = t->next_seq;
	fprintf(t->acked_file, "%" PRIu64 " %" PRIu64 "\n", t->epoch, t->next_seq);
	fflush(t->acked_file);
	t->digest = digest;
	t->next_seq++;
	return 0;
}

static int send_all(struct segtool *t)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	bool ask = true;
	int r;

	had_answer(t);
	for (;;) {
		if (ask)
			r = read_journal(t);
		else if (t->epoch == 0 || t->next_seq == t->segments)
			r = begin_epoch(t);
		else
			r = put_segment(t, &plain);
		if (r < 0)
			return r;
		if (t->epoch == t->epochs && t->next_seq == t->segments)
			return 0;
		/* after a lost answer an agent may send the same again, or ask first: both must do */
		ask = r == 1 && (ask || (t->next_seq & 1) != 0);
	}
}

static int run_send(struct segtool *t)
{
	const struct lb_http_client_options options = {.identity_folder = t->identity, .connect_timeout_s = 2};
	int r;

	t->data = malloc(t->data_bytes);
	t->acked_file = fopen(t->acked != NULL ? t->acked : "/dev/null", "a");
	if (t->data == NULL || t->acked_file == NULL)
		return lb_fail(-ENOMEM, "no memory, or can't open %s", t->acked);
	r = lb_hrl_builder_new(LB_HRL_DATA_BYTES_MAX, &t->builder);
	if (r == 0)
		r = lb_http_client_new(&options, &t->client);
	if (r == 0)
		r = send_all(t);
	if (t->client != NULL)
		lb_http_client_free(t->client);
	if (t->builder != NULL)
		lb_hrl_builder_free(t->builder);
	fclose(t->acked_file);
	free(t->data);
	return r;
}

/* ---- vaults and images ----------------------------------------------------------------------------------- */

static int read_passphrase(const char *path, char passphrase[PASSPHRASE_BYTES_MAX])
{
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes;
	int r;

	r = lb_file_read(lb_env_real(), path, PASSPHRASE_BYTES_MAX - 1, &text, &size_bytes);
	if (r < 0)
		return r;
	snprintf(passphrase, PASSPHRASE_BYTES_MAX, "%.*s", (int)strcspn((char *)text, "\n"), (char *)text);
	return 0;
}

static int open_vault(struct segtool *t, bool create, struct lb_store **ret_store, struct lb_vault **ret_vault)
{
	char passphrase[PASSPHRASE_BYTES_MAX];
	struct lb_uuid id;
	int r;

	r = read_passphrase(t->passphrase_file, passphrase);
	if (r == 0)
		r = lb_store_open(lb_env_real(), t->vault_url, create, ret_store);
	if (r == 0 && create) {
		r = lb_vault_create(*ret_store, passphrase, &id);
		r = r == -EEXIST ? 0 : r;
	}
	return r < 0 ? r : lb_vault_open(*ret_store, passphrase, ret_vault);
}

static int run_vault(struct segtool *t)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	_cleanup_(lb_vault_freep) struct lb_vault *vault = NULL;
	char id[LB_UUID_TEXT_BYTES];
	struct lb_key key;
	int r;

	r = open_vault(t, true, &store, &vault);
	if (r < 0)
		return r;
	lb_uuid_format(lb_vault_id(vault), id);
	printf("{\"vault_id\": \"%s\", \"keys\": {", id);
	for (unsigned int i = 0; i < t->n_machines; i++) {
		_cleanup_free_ char *text = NULL;

		r = lb_vault_machine_key(vault, &t->machines[i], true, &key);
		if (r < 0)
			return r;
		text = lb_base64_encode(key.bytes, LB_KEY_BYTES);
		lb_uuid_format(&t->machines[i], id);
		printf("%s\"%s\": \"%s\"", i > 0 ? ", " : "", id, text);
	}
	puts("}}");
	return 0;
}

static int run_image(struct segtool *t)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	_cleanup_(lb_vault_freep) struct lb_vault *vault = NULL;
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	_cleanup_free_ uint8_t *disk = malloc(t->disk_bytes);
	struct lb_position at = {.epoch = t->at_epoch, .seq = t->at_seq};
	int r;

	if (disk == NULL)
		return lb_fail(-ENOMEM, "out of memory for a disk");
	r = open_vault(t, false, &store, &vault);
	if (r == 0)
		r = lb_image_open(vault, &t->machines[0], &at, LB_IMAGE_CACHE_BYTES_DEFAULT, &image);
	if (r == 0)
		r = lb_image_pread(image, 0, disk, t->disk_bytes, 0);
	return r < 0 ? r : lb_file_write(lb_env_real(), t->out, disk, t->disk_bytes, 0600);
}

static void replay(const struct segtool *t, uint64_t epoch, uint64_t seq, uint8_t *room, uint8_t *disk)
{
	struct write writes[WRITES_MAX];
	unsigned int n = make_writes(t, epoch, seq, room, writes);

	for (unsigned int i = 0; i < n; i++) {
		if (writes[i].data != NULL)
			memcpy(disk + writes[i].offset_bytes, writes[i].data, writes[i].length_bytes);
		else
			memset(disk + writes[i].offset_bytes, 0, writes[i].length_bytes);
	}
}

static int run_oracle(struct segtool *t)
{
	_cleanup_free_ uint8_t *disk = calloc(1, t->disk_bytes), *room = malloc(t->data_bytes);

	if (disk == NULL || room == NULL)
		return lb_fail(-ENOMEM, "out of memory for a disk");
	for (uint64_t e = 1; e <= t->at_epoch; e++)
		for (uint64_t s = 0; s < t->segments && (e < t->at_epoch || s <= t->at_seq); s++)
			replay(t, e, s, room, disk);
	return lb_file_write(lb_env_real(), t->out, disk, t->disk_bytes, 0600);
}

static int run_digests(struct segtool *t)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	_cleanup_(lb_vault_freep) struct lb_vault *vault = NULL;
	struct lb_chain chain;
	int r;

	r = open_vault(t, false, &store, &vault);
	if (r == 0)
		r = lb_chain_begin(&chain, vault, &t->machines[0]);
	while (r == 0) {
		_cleanup_(lb_pack_freep) struct lb_pack *pack = NULL;

		r = lb_chain_next(&chain, &pack);
		for (uint32_t i = 0; r == 0 && pack->kind == LB_PACK_SEGMENTS && i < pack->n; i++) {
			char digest[2 * LB_DIGEST_BYTES + 1];

			lb_hex_encode(pack->entries[i].digest.bytes, LB_DIGEST_BYTES, digest);
			printf("%" PRIu64 " %" PRIu64 " %s\n", pack->place.epoch, pack->entries[i].seq, digest);
		}
	}
	return r == -ENOENT ? lb_chain_check_end(&chain) : r;
}

static int run_seal(struct segtool *t)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	_cleanup_(lb_vault_freep) struct lb_vault *vault = NULL;
	int r;

	r = open_vault(t, false, &store, &vault);
	return r < 0 ? r : lb_journal_fence(vault, &t->machines[0], "taken over by a test");
}

/* ---- options --------------------------------------------------------------------------------------------- */

static int parse_at(const char *text, struct segtool *t)
{
	return sscanf(text, "%" SCNu64 ":%" SCNu64, &t->at_epoch, &t->at_seq) == 2
		       ? 0
		       : lb_fail(-EINVAL, "\"%s\" is no E:S", text);
}

static int parse(int argc, char **argv, struct segtool *t)
{
	static const struct option options[] = {{"vault", 1, NULL, 'v'},      {"passphrase-file", 1, NULL, 'p'},
						{"machine", 1, NULL, 'm'},    {"url", 1, NULL, 'u'},
						{"identity", 1, NULL, 'i'},   {"vault-id", 1, NULL, 'V'},
						{"hardware", 1, NULL, 'h'},   {"acked", 1, NULL, 'a'},
						{"out", 1, NULL, 'o'},        {"at", 1, NULL, '@'},
						{"seed", 1, NULL, 's'},       {"disk-bytes", 1, NULL, 'd'},
						{"epochs", 1, NULL, 'e'},     {"segments", 1, NULL, 'n'},
						{"data-bytes", 1, NULL, 'D'}, {"compressible", 1, NULL, 'c'},
						{"patience", 1, NULL, 'P'},   {0}};
	int c, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'v':
			t->vault_url = optarg;
			break;
		case 'p':
			t->passphrase_file = optarg;
			break;
		case 'm':
			r = t->n_machines < MACHINES_MAX ? lb_uuid_parse(optarg, &t->machines[t->n_machines++])
							 : -E2BIG;
			break;
		case 'u':
			t->url = optarg;
			break;
		case 'i':
			t->identity = optarg;
			break;
		case 'V':
			r = lb_uuid_parse(optarg, &t->vault_id);
			break;
		case 'h':
			t->hardware = optarg;
			break;
		case 'a':
			t->acked = optarg;
			break;
		case 'o':
			t->out = optarg;
			break;
		case '@':
			r = parse_at(optarg, t);
			break;
		case 's':
			r = lb_u64_parse(optarg, INT64_MAX, &t->seed);
			break;
		case 'd':
			r = lb_size_parse(optarg, &t->disk_bytes);
			break;
		case 'e':
			r = lb_u64_parse(optarg, INT64_MAX, &t->epochs);
			break;
		case 'n':
			r = lb_u64_parse(optarg, INT64_MAX, &t->segments);
			break;
		case 'D':
			r = lb_size_parse(optarg, &t->data_bytes);
			break;
		case 'c':
			r = lb_u64_parse(optarg, 100, &t->compressible);
			break;
		case 'P':
			r = lb_u64_parse(optarg, 3600, &t->patience_s);
			break;
		default:
			return lb_fail(-EINVAL, "see the head of segtool.c");
		}
	}
	return r;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(struct segtool *t);
	} modes[] = {{"vault", run_vault},   {"send", run_send},       {"image", run_image},
		     {"oracle", run_oracle}, {"digests", run_digests}, {"seal", run_seal}};
	struct segtool t = {.seed = 1,
			    .disk_bytes = 8u << 20,
			    .epochs = 1,
			    .segments = 100,
			    .data_bytes = 64u << 10,
			    .compressible = 30,
			    .patience_s = 30};
	int r = -EINVAL;

	lb_fail(r, "usage: segtool vault|send|image|oracle|digests|seal OPTIONS; see the head of segtool.c");
	for (size_t i = 0; argc > 1 && i < LB_ARRAY_LEN(modes); i++) {
		if (strcmp(argv[1], modes[i].name) != 0)
			continue;
		r = parse(argc - 1, argv + 1, &t);
		if (r == 0)
			r = modes[i].run(&t);
	}
	if (r < 0)
		fprintf(stderr, "segtool: %s\n", lb_err_text());
	return r == 0 ? EXIT_SUCCESS : t.lost ? EXIT_LOST : EXIT_FAILURE;
}
