/* SPDX-License-Identifier: Apache-2.0 */
/* Is this the disk that is meant? A wrong name must not cost somebody's data. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/err.h"
#include "target/internal.h"

#define HEAD_BYTES (64u << 10) /* partition tables, filesystems' and volumes' labels */
#define MBR_ID_AT 440
#define MBR_ID_BYTES 4
#define GPT_AT 512
#define GPT_MAGIC "EFI PART"
#define GPT_ID_AT (GPT_AT + 56)
#define GPT_ID_BYTES 16

static bool is_zero(const uint8_t *p, size_t n)
{
	return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* Whether both have a partition table with the same identity; `ret_any`: whether the first has one. */
static bool same_identity(const uint8_t *a, const uint8_t *b, bool *ret_any)
{
	const size_t magic = strlen(GPT_MAGIC);

	if (memcmp(a + GPT_AT, GPT_MAGIC, magic) == 0) {
		*ret_any = true;
		return memcmp(b + GPT_AT, GPT_MAGIC, magic) == 0 &&
		       memcmp(a + GPT_ID_AT, b + GPT_ID_AT, GPT_ID_BYTES) == 0;
	}
	*ret_any = a[510] == 0x55 && a[511] == 0xaa && !is_zero(a + MBR_ID_AT, MBR_ID_BYTES);
	return *ret_any && memcmp(a + MBR_ID_AT, b + MBR_ID_AT, MBR_ID_BYTES) == 0;
}

struct heads {
	uint8_t disk[HEAD_BYTES], image[HEAD_BYTES], end[HEAD_BYTES];
};

static int read_heads(const struct lb_target *t, uint32_t n, struct lb_image *image, struct heads *h)
{
	struct lb_target_disk *d = (struct lb_target_disk *)&t->disks[n];
	const struct lb_catalog_disk *of = &t->own_item->disks[n];
	size_t size_bytes = LB_MIN(of->size_bytes, (uint64_t)HEAD_BYTES);
	int r;

	memset(h, 0, sizeof(*h));
	r = d->ops->pread(d, h->disk, size_bytes, 0);
	r = r < 0 ? r : d->ops->pread(d, h->end, size_bytes, d->size_bytes - size_bytes);
	return r < 0 ? r : lb_image_pread(image, of->id, h->image, size_bytes, 0);
}

int lb_target_check_disk(const struct lb_target *t, uint32_t n, struct lb_image *image)
{
	const struct lb_target_disk *d = &t->disks[n];
	const struct lb_catalog_disk *of = &t->own_item->disks[n];
	_cleanup_free_ struct heads *h = malloc(sizeof(*h));
	bool any;
	int r;

	if (h == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = read_heads(t, n, image, h);
	if (r < 0 || t->overwrite)
		return r;
	if (is_zero(h->disk, sizeof(h->disk)) && is_zero(h->end, sizeof(h->end)))
		return 0;
	if ((of->serial[0] != '\0' && strcmp(of->serial, d->serial) == 0) || same_identity(h->image, h->disk, &any) ||
	    memcmp(h->image, h->disk, sizeof(h->disk)) == 0)
		return 0;
	return lb_fail(-EPERM,
		       "%s holds something that is not disk %s of %s (%s%s): nothing was written. If it may go, give "
		       "--overwrite",
		       d->path, of->name, t->record.machine_name, d->serial[0] != '\0' ? "serial " : "no serial",
		       d->serial);
}

int lb_target_check_same(const struct lb_target *t, uint32_t n, struct lb_image *image)
{
	const struct lb_target_disk *d = &t->disks[n];
	const struct lb_target_record_disk *recorded = &t->record.disks[n];
	_cleanup_free_ struct heads *h = malloc(sizeof(*h));
	bool any = false;
	int r;

	if (h == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = read_heads(t, n, image, h);
	if (r < 0)
		return r;
	if (strcmp(recorded->serial, d->serial) != 0 || (!same_identity(h->image, h->disk, &any) && any))
		return lb_fail(
			-ESTALE,
			"%s is not the disk that %s was written to before (serial \"%s\" then, \"%s\" now); name "
			"the right one, or remove %s to begin anew",
			d->path, recorded->name, recorded->serial, d->serial, t->folder);
	return 0;
}

/* ---- room ------------------------------------------------------------------------------------------------ */

/* What disk `n` will take of its filesystem beyond what it has; 0 for devices. */
static uint64_t more_bytes(const struct lb_target *t, uint32_t n, const struct lb_delta *delta, dev_t *ret_filesystem)
{
	uint64_t bytes = 0;
	struct stat st;

	if (t->disks[n].kind == LB_TARGET_DEVICE || stat(t->disks[n].path, &st) < 0)
		return 0;
	*ret_filesystem = st.st_dev;
	for (size_t i = 0; i < delta->n_pieces; i++)
		if (delta->pieces[i].disk == t->own_item->disks[n].id)
			bytes += (uint64_t)delta->pieces[i].sectors * LB_HRL_SECTOR_BYTES;
	return bytes > (uint64_t)st.st_blocks * 512 ? bytes - (uint64_t)st.st_blocks * 512 : 0;
}

int lb_target_check_room(const struct lb_target *t, const struct lb_delta *delta)
{
	char need[LB_SIZE_TEXT_BYTES], have[LB_SIZE_TEXT_BYTES];
	uint64_t more[LB_HRL_DISKS_MAX] = {0}, free_bytes, size_bytes;
	dev_t filesystem[LB_HRL_DISKS_MAX] = {0};

	for (uint32_t i = 0; i < t->own_item->n_disks; i++)
		more[i] = more_bytes(t, i, delta, &filesystem[i]);
	for (uint32_t i = 0; i < t->own_item->n_disks; i++) {
		uint64_t sum = 0;

		for (uint32_t k = 0; k < t->own_item->n_disks; k++)
			sum += filesystem[k] == filesystem[i] ? more[k] : 0;
		if (more[i] == 0 || t->env->ops->room(t->env, t->disks[i].path, &free_bytes, &size_bytes) < 0)
			continue;
		if (sum > free_bytes)
			return lb_fail(-ENOSPC, "%s needs %s more, its filesystem has %s free: nothing was written",
				       t->disks[i].path, lb_size_format(sum, need), lb_size_format(free_bytes, have));
	}
	return 0;
}
