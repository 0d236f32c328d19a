/* SPDX-License-Identifier: Apache-2.0 */
/* Listings, a page at a time: no request is open while the caller looks at a page. */
#include "store/cloud.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

#define PAGE_ATTEMPTS_MAX 3
#define EMPTY_PAGES_MAX 10000

static int fetch_page(struct lb_cloud *c, const char *prefix, bool folders, const char *marker,
		      struct lb_listing *ret_page)
{
	_cleanup_buf_ struct lb_buf body = LB_BUF(LB_LISTING_BYTES_MAX);
	_cleanup_(lb_cloud_call_clear) struct lb_cloud_call call = {
		.method = "GET", .out = &body, .doing = "list objects"};
	_cleanup_(lb_cloud_request_clear) struct lb_cloud_request q = {0};
	_cleanup_(lb_answer_clear) struct lb_answer answer = {0};
	bool landed;
	int r;

	r = c->dialect->list_query(&q, prefix, folders, marker);
	if (r < 0)
		return r;
	call.query = q.query;
	q.query.n = 0;
	r = lb_cloud_send(c, &call, &answer, &landed);
	if (r < 0)
		return r;
	if (answer.status != 200)
		return lb_cloud_refused(c, &call, &answer);
	r = lb_listing_parse(c->dialect->listing, body.data, body.size_bytes, ret_page);
	return r < 0 ? lb_wrap(r, "%s: objects %s*", c->shown, prefix) : 0;
}

/* An answer may be damaged on its way: it is asked for again. */
int lb_cloud_list_page(struct lb_cloud *c, const char *prefix, bool folders, const char *marker,
		       struct lb_listing *ret_page)
{
	int r = -EBADMSG;

	for (int i = 0; i < PAGE_ATTEMPTS_MAX && r == -EBADMSG; i++)
		r = fetch_page(c, prefix, folders, marker, ret_page);
	return r == -EBADMSG ? lb_wrap(-EIO, "a listing stays damaged") : r;
}

struct walk {
	struct lb_cloud *c;
	const char *prefix;
	lb_store_list_fn object;
	lb_store_folder_fn folder;
	void *arg;
	char last[LB_STORE_NAME_BYTES_MAX + 2]; /* the order of names is a promise, and no name comes twice */
};

static int check_order(struct walk *w, const char *name)
{
	if (strncmp(name, w->prefix, strlen(w->prefix)) != 0)
		return lb_fail(-EIO, "%s: a listing of %s* has %.80s in it", w->c->shown, w->prefix, name);
	if (w->last[0] != '\0' && strcmp(w->last, name) >= 0)
		return lb_fail(
			-EOPNOTSUPP,
			"%s lists %.80s after %.80s, not in the order of names: use a bucket or an account without "
			"directories of its own (no hierarchical namespace, no directory bucket)",
			w->c->shown, name, w->last);
	snprintf(w->last, sizeof(w->last), "%s", name);
	return 0;
}

/* What others have put beside a vault is not ours to show. */
static bool is_ours(const char *name, bool is_folder)
{
	return strlen(name) <= LB_STORE_NAME_BYTES_MAX && lb_store_name_check(name, is_folder) == 0;
}

static int walk_objects(struct walk *w, const struct lb_listing *page)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < page->n_items; i++) {
		const struct lb_listing_item *item = &page->items[i];

		if (!is_ours(item->name, false))
			continue;
		r = check_order(w, item->name);
		if (r == 0)
			r = w->object(w->arg, item->name, item->size_bytes);
	}
	return r;
}

static int walk_folders(struct walk *w, const struct lb_listing *page)
{
	size_t skip = strlen(w->prefix);
	int r = 0;

	for (size_t i = 0; r == 0 && i < page->n_folders; i++) {
		char name[LB_STORE_NAME_BYTES_MAX + 1];
		size_t length = strlen(page->folders[i]);

		if (!is_ours(page->folders[i], true) || length == 0 || page->folders[i][length - 1] != '/')
			continue;
		r = check_order(w, page->folders[i]);
		if (r < 0 || length <= skip + 1)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)(length - skip - 1), page->folders[i] + skip);
		r = w->folder(w->arg, name);
	}
	return r;
}

static int walk(struct walk *w)
{
	_cleanup_free_ char *marker = NULL;
	unsigned int n_empty = 0;
	int r;

	do {
		_cleanup_(lb_listing_clear) struct lb_listing page = {0};

		r = lb_cloud_list_page(w->c, w->prefix, w->folder != NULL, marker, &page);
		if (r < 0)
			return r;
		n_empty = page.n_items + page.n_folders > 0 ? 0 : n_empty + 1;
		if (n_empty > EMPTY_PAGES_MAX)
			return lb_fail(-EIO, "%s: a listing of %s* has no end", w->c->shown, w->prefix);
		r = w->folder != NULL ? walk_folders(w, &page) : walk_objects(w, &page);
		free(marker);
		marker = lb_steal_ptr(page.next);
	} while (r == 0 && marker != NULL);
	if (r >= 0)
		lb_err_clear(); /* of foreign names */
	return r;
}

int lb_cloud_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg)
{
	struct walk w = {.c = lb_cloud_of(s), .prefix = prefix, .object = fn, .arg = arg};

	return walk(&w);
}

int lb_cloud_list_folders(struct lb_store *s, const char *prefix, lb_store_folder_fn fn, void *arg)
{
	struct walk w = {.c = lb_cloud_of(s), .prefix = prefix, .folder = fn, .arg = arg};

	return walk(&w);
}
