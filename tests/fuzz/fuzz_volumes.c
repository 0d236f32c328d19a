/* SPDX-License-Identifier: Apache-2.0 */
/* A disk of a machine that may be hostile: its partition tables, and the root folder of an ext filesystem on it. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "files/ext.h"

#define BYTES_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

struct input {
	const uint8_t *data;
	size_t size_bytes;
};

static int read_input(void *arg, void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	const struct input *in = arg;

	if (offset_bytes > in->size_bytes || size_bytes > in->size_bytes - offset_bytes)
		abort(); /* what asks is bounded by the disk's size */
	memcpy(buf, in->data + offset_bytes, size_bytes);
	return 0;
}

static int note_piece(void *arg, const void *data, size_t size_bytes, uint64_t offset_bytes)
{
	(void)arg, (void)data, (void)size_bytes;
	return offset_bytes > BYTES_MAX ? 1 : 0; /* a sparse file may claim any size */
}

static int note_entry(void *arg, const char *name, const struct lb_ext_file *file)
{
	char target[LB_EXT_LINK_BYTES];

	if (strlen(name) >= LB_EXT_NAME_BYTES || strchr(name, '/') != NULL)
		abort();
	if (S_ISLNK(file->mode))
		(void)lb_ext_readlink(arg, file, target);
	else if (S_ISREG(file->mode))
		(void)lb_ext_read(arg, file, note_piece, NULL);
	return 0;
}

static void read_root(const struct lb_disk_bytes *disk, const struct lb_volume *volume)
{
	_cleanup_(lb_ext_closep) struct lb_ext *e = NULL;
	struct lb_ext_file root;

	if (lb_ext_open(disk, volume, &e) == 0 && lb_ext_find(e, "/", &root) == 0 && S_ISDIR(root.mode))
		(void)lb_ext_list(e, &root, note_entry, e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct input in = {data, size_bytes};
	struct lb_disk_bytes disk = {.pread = read_input, .arg = &in, .size_bytes = size_bytes, .sector_bytes = 512};
	struct lb_volumes v;

	if (size_bytes > BYTES_MAX || lb_volumes_find(&disk, &v) < 0)
		return 0;
	for (uint32_t i = 0; i < v.n; i++) {
		if (v.at[i].offset_bytes > size_bytes || v.at[i].size_bytes > size_bytes - v.at[i].offset_bytes)
			abort();
		if (strcmp(v.at[i].kind, LB_VOLUME_EXT) == 0)
			read_root(&disk, &v.at[i]);
	}
	lb_err_clear();
	return 0;
}
