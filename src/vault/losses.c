/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/losses.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"

#define VERSION_MAX 0xffff

void lb_losses_clear(struct lb_losses *losses)
{
	free(losses->l);
	*losses = (struct lb_losses){0};
}

int lb_losses_name_parse(const char *object, uint64_t *ret_version)
{
	const char *name = strrchr(object, '/') != NULL ? strrchr(object, '/') + 1 : object;
	unsigned int version;
	char again[32];

	if (sscanf(name, "losses-%4x", &version) != 1)
		return -EINVAL;
	snprintf(again, sizeof(again), "losses-%04x", version);
	if (version == 0 || strcmp(again, name) != 0)
		return -EINVAL;
	*ret_version = version;
	return 0;
}

/* A vault that was moved has another address, and the same losses. */
static int digest_of(const struct lb_vault *v, const char *text, struct lb_digest *ret)
{
	size_t url_bytes = strlen(v->store->url), used = 0;
	char plain[LB_ERR_TEXT_BYTES_MAX];

	while (*text != '\0' && used + 1 < sizeof(plain)) {
		if (url_bytes > 0 && strncmp(text, v->store->url, url_bytes) == 0)
			text += url_bytes;
		else
			plain[used++] = *text++;
	}
	return lb_sha256(plain, used, ret);
}

static int add(struct lb_losses *losses, const char *object, const struct lb_digest *text)
{
	struct lb_loss *grown;

	if (losses->n >= LB_LOSSES_MAX)
		return lb_fail(-ENOSPC, "more than %d losses of one machine", LB_LOSSES_MAX);
	if (losses->n % 64 == 0) {
		grown = reallocarray(losses->l, losses->n + 64, sizeof(*grown));
		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for a list of losses");
		losses->l = grown;
	}
	losses->l[losses->n] = (struct lb_loss){.text = *text};
	snprintf(losses->l[losses->n++].object, LB_OBJECT_NAME_BYTES, "%s", object);
	return 0;
}

int lb_losses_add(struct lb_vault *v, struct lb_losses *losses, const char *object, const char *text)
{
	struct lb_digest digest;
	int r = digest_of(v, text, &digest);

	return r < 0 ? r : add(losses, object, &digest);
}

static bool has(const struct lb_losses *losses, const char *object, const struct lb_digest *text)
{
	for (size_t i = 0; i < losses->n; i++)
		if (memcmp(&losses->l[i].text, text, sizeof(*text)) == 0 && strcmp(losses->l[i].object, object) == 0)
			return true;
	return false;
}

int lb_losses_has(struct lb_vault *v, const struct lb_losses *losses, const char *object, const char *text)
{
	struct lb_digest digest;
	int r = losses->n > 0 ? digest_of(v, text, &digest) : 0;

	return r < 0 || losses->n == 0 ? r : has(losses, object, &digest);
}

bool lb_losses_equal(const struct lb_losses *a, const struct lb_losses *b)
{
	bool equal = a->n == b->n;

	for (size_t i = 0; equal && i < a->n; i++)
		equal = has(b, a->l[i].object, &a->l[i].text);
	return equal;
}

/* ---- objects --------------------------------------------------------------------------------------------- */

static int parse(const struct lb_buf *text, struct lb_losses *losses)
{
	_cleanup_json_ json_t *j = NULL;
	const json_t *list, *one;
	struct lb_digest digest;
	const char *object;
	size_t i;
	int r;

	r = lb_json_parse(text->data, text->size_bytes, LB_SMALL_BYTES_MAX, &j);
	if (r < 0)
		return r;
	list = json_object_get(j, "losses");
	if (!json_is_array(list) || json_array_size(list) > LB_LOSSES_MAX)
		return lb_fail(-EBADMSG, "\"losses\" is missing or no list of at most %d", LB_LOSSES_MAX);
	json_array_foreach(list, i, one)
	{
		r = lb_json_get_str(one, "object", &object);
		if (r == 0 && strlen(object) >= LB_OBJECT_NAME_BYTES)
			r = lb_fail(-EBADMSG, "\"object\" is no name");
		if (r == 0)
			r = lb_json_get_digest(one, "text", &digest);
		if (r == 0)
			r = add(losses, object, &digest);
		if (r < 0)
			return r;
	}
	return 0;
}

static int print(const struct lb_losses *losses, char **ret_text)
{
	_cleanup_json_ json_t *j = json_pack("{s:[]}", "losses");
	char hex[2 * LB_DIGEST_BYTES + 1];

	for (size_t i = 0; j != NULL && i < losses->n; i++) {
		lb_hex_encode(losses->l[i].text.bytes, LB_DIGEST_BYTES, hex);
		json_array_append_new(json_object_get(j, "losses"),
				      json_pack("{s:s,s:s}", "object", losses->l[i].object, "text", hex));
	}
	*ret_text = j != NULL ? json_dumps(j, JSON_COMPACT) : NULL;
	return *ret_text != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a list of losses");
}

static int note_version(void *arg, const char *object, uint64_t size_bytes)
{
	uint64_t *newest = arg, version;

	(void)size_bytes;
	if (lb_losses_name_parse(object, &version) == 0 && version > *newest)
		*newest = version;
	return 0;
}

static int newest_version(struct lb_vault *v, const struct lb_uuid *machine, uint64_t *ret_newest)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	int r = lb_vault_name(prefix, machine, "r/losses-");

	*ret_newest = 0;
	return r < 0 ? r : lb_store_list(v->store, prefix, note_version, ret_newest);
}

int lb_losses_read(struct lb_vault *v, const struct lb_uuid *machine, struct lb_losses *ret)
{
	char name[LB_OBJECT_NAME_BYTES];
	uint64_t newest;
	int r = newest_version(v, machine, &newest);

	for (; r == 0 && newest > 0; newest--) {
		_cleanup_buf_ struct lb_buf text = LB_BUF(LB_SMALL_BYTES_MAX);
		_cleanup_(lb_losses_clear) struct lb_losses losses = {.version = newest};

		r = lb_vault_name(name, machine, "r/losses-%04x", (unsigned int)newest);
		if (r == 0)
			r = lb_small_get(v, machine, name, &text);
		if (r == 0)
			r = parse(&text, &losses);
		if (r == 0) {
			*ret = losses;
			losses = (struct lb_losses){0};
			return 0;
		}
		r = r == -EBADMSG || r == -ENOENT ? 0 : r; /* an earlier one knows of less */
	}
	lb_err_clear();
	*ret = (struct lb_losses){0};
	return r;
}

int lb_losses_put(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_losses *losses)
{
	_cleanup_free_ char *text = NULL;
	char name[LB_OBJECT_NAME_BYTES];
	uint64_t newest;
	int r;

	r = newest_version(v, machine, &newest);
	if (r == 0 && newest >= VERSION_MAX)
		r = lb_fail(-EOVERFLOW, "losses were recorded more than %d times", VERSION_MAX);
	if (r == 0)
		r = print(losses, &text);
	if (r == 0)
		r = lb_vault_name(name, machine, "r/losses-%04x", (unsigned int)newest + 1);
	return r < 0 || text == NULL ? r : lb_small_put_new(v, machine, name, text, strlen(text));
}
