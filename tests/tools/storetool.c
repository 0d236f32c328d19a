/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An object store by hand: opens one and does what lines on standard input say, with one line of JSON for each:
 * {"r": 0 or a negative errno, "error": "...", ...}.
 *
 *   storetool [--create] [--clock-offset SECONDS] URL
 *     put NAME TEXT | replace NAME ETAG|- TEXT | get NAME OFFSET SIZE | stat NAME | list PREFIX|- | folders PREFIX|-
 *     remove NAME | now | prove
 *     race NAME N         N threads with a store of their own each put; {"winners", "taken", "errors", "whole"}
 *     count NAME N ROUNDS N threads add to a number by replace(); {"errors"}
 *     fill PREFIX N       small objects, 8 at a time
 *     upload PREFIX SIZE N THREADS    {"seconds"}
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/text.h"
#include "store/store.h"

#define THREADS_MAX 64
#define WORDS_MAX 6
#define LINE_BYTES_MAX 4096
#define READ_BYTES_MAX (64u << 20)
#define FILL_THREADS 8

static struct tool {
	const char *url;
	struct lb_store *store;
	struct lb_env env;
	struct lb_env_ops ops;
	int64_t clock_offset_ns;
} tool;

static int64_t shifted_now_ns(struct lb_env *env)
{
	(void)env;
	return lb_env_real()->ops->now_ns(lb_env_real()) + tool.clock_offset_ns;
}

static void answer(int r, json_t *more)
{
	json_t *j = more != NULL ? more : json_object();

	json_object_set_new(j, "r", json_integer(r));
	if (r < 0)
		json_object_set_new(j, "error", json_string(lb_err_text()));
	json_dumpf(j, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(j);
}

static const char *or_empty(const char *word)
{
	return strcmp(word, "-") == 0 ? "" : word;
}

/* ---- one thread ------------------------------------------------------------------------------------------ */

static void do_put(char **w)
{
	answer(lb_store_put_new(tool.store, w[1], w[2], strlen(w[2])), NULL);
}

static void do_replace(char **w)
{
	answer(lb_store_replace(tool.store, w[1], strcmp(w[2], "-") == 0 ? NULL : w[2], w[3], strlen(w[3])), NULL);
}

static void do_get(char **w)
{
	_cleanup_buf_ struct lb_buf b = LB_BUF(READ_BYTES_MAX);
	_cleanup_free_ char *hex = NULL;
	int r = lb_store_get(tool.store, w[1], strtoull(w[2], NULL, 10), strtoull(w[3], NULL, 10), &b);

	hex = calloc(2, b.size_bytes + 1);
	if (r == 0 && b.size_bytes > 0)
		lb_hex_encode(b.data, b.size_bytes, hex);
	answer(r, json_pack("{s:s}", "hex", hex));
}

static void do_stat(char **w)
{
	char etag[LB_STORE_ETAG_BYTES] = "";
	uint64_t size_bytes = 0;
	int r = lb_store_stat(tool.store, w[1], &size_bytes, etag);

	answer(r, json_pack("{s:I,s:s}", "size", (json_int_t)size_bytes, "etag", etag));
}

static int add_object(void *arg, const char *name, uint64_t size_bytes)
{
	return json_array_append_new(arg, json_pack("[s,I]", name, (json_int_t)size_bytes));
}

static int add_folder(void *arg, const char *folder)
{
	return json_array_append_new(arg, json_string(folder));
}

static void do_list(char **w)
{
	json_t *found = json_array();
	int r = lb_store_list(tool.store, or_empty(w[1]), add_object, found);

	answer(r, json_pack("{s:o}", "objects", found));
}

static void do_folders(char **w)
{
	json_t *found = json_array();
	int r = lb_store_list_folders(tool.store, or_empty(w[1]), add_folder, found);

	answer(r, json_pack("{s:o}", "folders", found));
}

static void do_remove(char **w)
{
	answer(lb_store_remove(tool.store, w[1]), NULL);
}

static void do_now(char **w)
{
	int64_t now_ns = 0;
	int r = lb_store_now(tool.store, &now_ns);

	(void)w;
	answer(r, json_pack("{s:f}", "now", (double)now_ns / 1e9));
}

static void do_prove(char **w)
{
	(void)w;
	answer(lb_store_prove(tool.store), NULL);
}

/* ---- many threads ----------------------------------------------------------------------------------------- */

struct crew {
	pthread_barrier_t start;
	const char *name;
	uint8_t *data;
	size_t size_bytes;
	unsigned int rounds;
	atomic_uint next, n_errors;
	unsigned int n;
};

struct hand {
	struct crew *crew;
	struct lb_store *store; /* of its own, or the tool's */
	unsigned int index;
	int r;
	pthread_t thread;
};

static int run_crew(struct crew *crew, struct hand *hands, unsigned int n, bool stores, void *(*work)(void *))
{
	int r = 0;

	pthread_barrier_init(&crew->start, NULL, n);
	for (unsigned int i = 0; i < n; i++) {
		hands[i] = (struct hand){.crew = crew, .index = i, .store = tool.store};
		if (stores && r == 0)
			r = lb_store_open(&tool.env, tool.url, false, &hands[i].store);
	}
	for (unsigned int i = 0; r == 0 && i < n; i++)
		pthread_create(&hands[i].thread, NULL, work, &hands[i]);
	for (unsigned int i = 0; r == 0 && i < n; i++)
		pthread_join(hands[i].thread, NULL);
	for (unsigned int i = 0; stores && i < n; i++)
		if (hands[i].store != tool.store)
			lb_store_free(hands[i].store);
	pthread_barrier_destroy(&crew->start);
	return r;
}

static void *race(void *arg)
{
	struct hand *h = arg;
	char text[16];

	snprintf(text, sizeof(text), "%03u", h->index);
	pthread_barrier_wait(&h->crew->start);
	h->r = lb_store_put_new(h->store, h->crew->name, text, 3);
	if (h->r < 0 && h->r != -EEXIST)
		fprintf(stderr, "racer %u: %s\n", h->index, lb_err_text());
	return NULL;
}

static unsigned int hands_of(const char *word)
{
	unsigned int n = (unsigned int)strtoul(word, NULL, 10);

	return n < 1 ? 1 : LB_MIN(n, (unsigned int)THREADS_MAX);
}

static void do_race(char **w)
{
	struct hand hands[THREADS_MAX];
	struct crew crew = {.name = w[1]};
	unsigned int n = hands_of(w[2]), winners = 0, taken = 0, winner = 0;
	_cleanup_buf_ struct lb_buf b = LB_BUF(16);
	int r = run_crew(&crew, hands, n, true, race);

	for (unsigned int i = 0; r == 0 && i < n; i++) {
		winners += hands[i].r == 0;
		taken += hands[i].r == -EEXIST;
		winner = hands[i].r == 0 ? i : winner;
	}
	if (r == 0)
		r = lb_store_get_all(tool.store, w[1], 16, &b);
	answer(r,
	       json_pack("{s:i,s:i,s:i,s:b}", "winners", (int)winners, "taken", (int)taken, "errors",
			 (int)(n - winners - taken), "whole", r == 0 && strtoul((char *)b.data, NULL, 10) == winner));
}

static void *count(void *arg)
{
	char etag[LB_STORE_ETAG_BYTES], text[16];
	struct hand *h = arg;
	uint64_t size_bytes;

	pthread_barrier_wait(&h->crew->start);
	for (unsigned int done = 0; done < h->crew->rounds;) {
		_cleanup_buf_ struct lb_buf b = LB_BUF(16);

		h->r = lb_store_stat(h->store, h->crew->name, &size_bytes, etag);
		if (h->r == 0)
			h->r = lb_store_get_all(h->store, h->crew->name, 16, &b);
		if (h->r < 0)
			break;
		snprintf(text, sizeof(text), "%lu", strtoul((char *)b.data, NULL, 10) + 1);
		h->r = lb_store_replace(h->store, h->crew->name, etag, text, strlen(text));
		if (h->r == 0)
			done++;
		else if (h->r != -ESTALE)
			break;
	}
	if (h->r < 0)
		fprintf(stderr, "counter %u: %s\n", h->index, lb_err_text());
	return NULL;
}

static void do_count(char **w)
{
	struct hand hands[THREADS_MAX];
	struct crew crew = {.name = w[1], .rounds = (unsigned int)strtoul(w[3], NULL, 10)};
	unsigned int n = hands_of(w[2]), errors = 0;
	int r = run_crew(&crew, hands, n, true, count);

	for (unsigned int i = 0; r == 0 && i < n; i++)
		errors += hands[i].r < 0;
	answer(r, json_pack("{s:i}", "errors", (int)errors));
}

static void *put_many(void *arg)
{
	char name[LB_STORE_NAME_BYTES_MAX];
	struct hand *h = arg;
	unsigned int i;

	pthread_barrier_wait(&h->crew->start);
	while ((i = atomic_fetch_add(&h->crew->next, 1)) < h->crew->n) {
		snprintf(name, sizeof(name), "%s%06u", h->crew->name, i);
		h->r = lb_store_put_new(h->store, name, h->crew->data, h->crew->size_bytes);
		if (h->r < 0) {
			fprintf(stderr, "%s\n", lb_err_text());
			h->crew->n_errors++;
		}
	}
	return NULL;
}

static void put_crew(const char *prefix, size_t size_bytes, unsigned int n, unsigned int threads)
{
	struct hand hands[THREADS_MAX];
	struct crew crew = {.name = prefix, .size_bytes = size_bytes, .n = n};
	int64_t start_ns = lb_mono_ns(lb_env_real());
	int r;

	crew.data = calloc(1, size_bytes + 1);
	if (crew.data == NULL)
		abort();
	lb_env_real()->ops->random(lb_env_real(), crew.data, size_bytes);
	r = run_crew(&crew, hands, threads, false, put_many);
	free(crew.data);
	if (r == 0 && crew.n_errors > 0)
		r = lb_fail(-EIO, "%u puts failed", (unsigned int)crew.n_errors);
	answer(r, json_pack("{s:f}", "seconds", (double)(lb_mono_ns(lb_env_real()) - start_ns) / 1e9));
}

static void do_fill(char **w)
{
	put_crew(w[1], 4, (unsigned int)strtoul(w[2], NULL, 10), FILL_THREADS);
}

static void do_upload(char **w)
{
	put_crew(w[1], strtoull(w[2], NULL, 10), (unsigned int)strtoul(w[3], NULL, 10), hands_of(w[4]));
}

/* ----------------------------------------------------------------------------------------------------------- */

static void do_line(char *line)
{
	static const struct {
		const char *verb;
		int words;
		void (*run)(char **words);
	} verbs[] = {{"put", 3, do_put},       {"replace", 4, do_replace}, {"get", 4, do_get},
		     {"stat", 2, do_stat},     {"list", 2, do_list},       {"folders", 2, do_folders},
		     {"remove", 2, do_remove}, {"now", 1, do_now},         {"prove", 1, do_prove},
		     {"race", 3, do_race},     {"count", 4, do_count},     {"fill", 3, do_fill},
		     {"upload", 5, do_upload}};
	char *words[WORDS_MAX] = {NULL}, *rest = line, *word;
	int n = 0;

	while (n < WORDS_MAX && (word = strsep(&rest, " \n")) != NULL)
		if (word[0] != '\0')
			words[n++] = word;
	lb_err_clear();
	for (size_t i = 0; n > 0 && i < LB_ARRAY_LEN(verbs); i++) {
		if (strcmp(verbs[i].verb, words[0]) == 0 && verbs[i].words == n) {
			verbs[i].run(words);
			return;
		}
	}
	answer(lb_fail(-EINVAL, "no such verb"), NULL);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"create", no_argument, NULL, 'c'}, {"clock-offset", required_argument, NULL, 'o'}, {NULL, 0, NULL, 0}};
	char line[LINE_BYTES_MAX];
	bool create = false;
	int c, r;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'c')
			create = true;
		else if (c == 'o')
			tool.clock_offset_ns = strtoll(optarg, NULL, 10) * LB_NS_PER_S;
		else
			return 2;
	}
	if (optind + 1 != argc)
		return 2;
	tool.url = argv[optind];
	tool.ops = *lb_env_real()->ops;
	tool.ops.now_ns = shifted_now_ns;
	tool.env = (struct lb_env){.ops = &tool.ops, .state = lb_env_real()->state};
	r = lb_store_open(&tool.env, tool.url, create, &tool.store);
	answer(r, NULL);
	if (r < 0)
		return 1;
	while (fgets(line, sizeof(line), stdin) != NULL)
		do_line(line);
	lb_store_free(tool.store);
	return 0;
}
