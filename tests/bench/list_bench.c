/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a large vault lists: MACHINES machines, to each of which a store between us and the folder adds OBJECTS objects
 * of its journal, in listings alone. Counted are calls and the names that came back, per operation.
 * usage: list_bench FOLDER [MACHINES] [OBJECTS]. FOLDER is used for a vault that is removed at the end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/text.h"
#include "vault/image.h"
#include "vault/journal.h"

static const struct lb_store_ops *folder_ops;
static struct lb_store_ops counting_ops;
static uint64_t calls, names, objects;

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "list_bench: %s: %s\n", what, lb_err_text());
	exit(1);
}

static int count_get(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes, struct lb_buf *out)
{
	calls++;
	return folder_ops->get(s, name, offset_bytes, size_bytes, out);
}

static int count_stat(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag)
{
	calls++;
	return folder_ops->stat(s, name, ret_size_bytes, ret_etag);
}

struct passing {
	lb_store_list_fn object;
	lb_store_folder_fn folder;
	void *arg;
};

/* Each machine's key stands for the journal that the folder does not have. */
static int pass_object(void *arg, const char *name, uint64_t size_bytes)
{
	const char *end = strrchr(name, '/');
	struct passing *p = arg;

	names += 1 + (end != NULL && strcmp(end, "/key") == 0 ? objects : 0);
	return p->object(p->arg, name, size_bytes);
}

static int pass_folder(void *arg, const char *folder)
{
	struct passing *p = arg;

	names++;
	return p->folder(p->arg, folder);
}

static int count_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg)
{
	struct passing p = {.object = fn, .arg = arg};

	calls++;
	if (strstr(prefix, "/e/") != NULL)
		names += objects;
	return folder_ops->list(s, prefix, pass_object, &p);
}

static int count_list_folders(struct lb_store *s, const char *prefix, lb_store_folder_fn fn, void *arg)
{
	struct passing p = {.folder = fn, .arg = arg};

	calls++;
	return folder_ops->list_folders(s, prefix, pass_folder, &p);
}

static void add_machine(struct lb_vault *v, uint32_t i)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX), sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_catalog_item item = {.cpus = 1, .memory_bytes = LB_GIB(1), .n_disks = 1, .consistency_interval_s = 5};
	struct lb_journal_writer *writer;
	struct lb_hrl_builder *builder;
	struct lb_hrl_segment *segment;
	struct lb_sealed_segment one;
	uint8_t salt[LB_SALT_BYTES] = {1}, data[4096] = {1};
	struct lb_digest digest;
	struct lb_key key;

	lb_put_le32(item.machine.bytes, i + 1);
	snprintf(item.name, sizeof(item.name), "machine-%u", i);
	strcpy(item.firmware, "bios");
	strcpy(item.architecture, "x86_64");
	strcpy(item.policy, "default");
	item.disks[0] = (struct lb_catalog_disk){.name = "vda", .size_bytes = LB_GIB(1), .sector_bytes = 512};
	must(lb_vault_machine_key(v, &item.machine, true, &key), "key");
	must(lb_catalog_put(v, &item), "item");
	must(lb_journal_writer_open(v, &item.machine, &writer), "writer");
	must(lb_journal_epoch_begin(writer, 1), "epoch");
	must(lb_hrl_builder_new(LB_MIB(1), &builder), "builder");
	must(lb_hrl_builder_add(builder, 0, LB_HRL_CAPTURED, 0, sizeof(data), data), "write");
	must(lb_hrl_builder_finish(
		     builder,
		     &(struct lb_hrl_header){
			     .vault = *lb_vault_id(v), .machine = item.machine, .epoch = 1, .flags = LB_HRL_POINT},
		     &plain, &digest),
	     "segment");
	must(lb_hrl_open_plain(plain.data, plain.size_bytes, &segment), "segment");
	must(lb_hrl_seal(segment, &key, LB_NS_PER_S, salt, 1, &sealed), "seal");
	one = (struct lb_sealed_segment){.data = sealed.data, .size_bytes = sealed.size_bytes};
	must(lb_journal_append(writer, &one, 1), "append");
	lb_hrl_segment_free(segment);
	lb_hrl_builder_free(builder);
	lb_journal_writer_free(writer);
}

static int64_t started_ns;

static void begin(void)
{
	calls = names = 0;
	started_ns = lb_mono_ns(lb_env_real());
}

static void end(const char *what)
{
	printf("%s: %llu calls, %llu names, %.0f ms\n", what, (unsigned long long)calls, (unsigned long long)names,
	       (double)(lb_mono_ns(lb_env_real()) - started_ns) / 1e6);
	fflush(stdout);
}

static int note_machine(void *arg, const struct lb_uuid *machine)
{
	(void)machine;
	++*(uint32_t *)arg;
	return 0;
}

static int remove_object(void *arg, const char *name, uint64_t size_bytes)
{
	(void)size_bytes;
	return folder_ops->remove(arg, name);
}

static void measure(struct lb_store *store)
{
	struct lb_catalog_item item;
	struct lb_vault *v;
	struct lb_image *image;
	struct lb_point point;
	uint32_t n = 0;

	begin();
	must(lb_vault_open(store, "a passphrase of the bench", &v), "vault");
	end("open the vault");
	begin();
	must(lb_vault_machines(v, note_machine, &n), "machines");
	end("list its machines");
	begin();
	must(lb_catalog_find(v, "machine-7", &item), "find");
	end("find a machine by name");
	begin();
	must(lb_point_find(v, &item.machine, "latest", &point), "point");
	end("find a machine's newest point");
	begin();
	must(lb_image_open(v, &item.machine, &point.position, LB_IMAGE_CACHE_BYTES_DEFAULT, &image), "image");
	end("open it");
	lb_image_free(image);
	lb_vault_free(v);
}

int main(int argc, char **argv)
{
	uint32_t machines = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1000;
	struct lb_store *store;
	struct lb_vault *v;
	struct lb_uuid id;
	char url[4200];

	objects = argc > 3 ? strtoull(argv[3], NULL, 10) : 10000;
	if (argc < 2) {
		fprintf(stderr, "usage: list_bench FOLDER [MACHINES] [OBJECTS]\n");
		return 2;
	}
	snprintf(url, sizeof(url), "dir:%s/vault-bench", argv[1]);
	must(lb_store_open(lb_env_real(), url, true, &store), "store");
	must(lb_vault_create(store, "a passphrase of the bench", &id), "vault");
	must(lb_vault_open(store, "a passphrase of the bench", &v), "vault");
	for (uint32_t i = 0; i < machines; i++)
		add_machine(v, i);
	lb_vault_free(v);
	folder_ops = store->ops;
	counting_ops = *folder_ops;
	counting_ops.get = count_get;
	counting_ops.stat = count_stat;
	counting_ops.list = count_list;
	counting_ops.list_folders = count_list_folders;
	store->ops = &counting_ops;
	printf("%u machines, %llu objects\n", machines, (unsigned long long)(machines * objects));
	measure(store);
	store->ops = folder_ops;
	must(lb_store_list(store, "", remove_object, store), "cleaning up");
	lb_store_free(store);
	return 0;
}
