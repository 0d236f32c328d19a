/* SPDX-License-Identifier: Apache-2.0 */
/* The maps of a capture in this process's memory. From here on nothing needs a privilege or a bpf() call. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "capture/internal.h"

const char *const lb_capture_map_names[LB_MAPS] = {"ring", "control", "bitmap", "scan", "inflight"};

void lb_fds_close(struct lb_fds *fds)
{
	for (int i = 0; i < LB_MAPS; i++)
		lb_closep(&fds->map[i]);
	for (unsigned int i = 0; i < fds->disk_count; i++)
		lb_closep(&fds->disk[i]);
	*fds = LB_FDS_NONE;
}

static int map_part(struct lb_capture *c, enum lb_capture_map map, int prot, off_t at, size_t size_bytes, void *ret_at)
{
	void *p = mmap(NULL, size_bytes, prot, MAP_SHARED, c->fds.map[map], at);
	if (p == MAP_FAILED)
		return lb_fail(-errno, "capture: %s can't be mapped (%zu bytes): %s", lb_capture_map_names[map],
			       size_bytes, strerror(errno));
	*(void **)ret_at = p;
	return 0;
}

static int control_check(const struct lb_capture_control *k)
{
	if (k->magic != LB_ABI_MAGIC || k->abi_version != LB_ABI_VERSION)
		return lb_fail(
			-EPROTO,
			"the capture in the kernel was attached by another version of Lifeboat (%u, this is %u); "
			"`lifeboat machine resync` after a restart of lifeboat-capture attaches it anew",
			k->abi_version, LB_ABI_VERSION);
	uint64_t ring = k->ring_bytes;
	if (k->disk_count == 0 || k->disk_count > LB_CAPTURE_DISKS_MAX || ring < LB_CAPTURE_RING_BYTES_MIN ||
	    ring > LB_CAPTURE_RING_BYTES_MAX || (ring & (ring - 1)) != 0 || k->bitmap_words > UINT32_MAX ||
	    k->chunk_count > UINT32_MAX)
		return lb_fail(-EUCLEAN,
			       "the capture in the kernel has an impossible shape; detach it and resync this machine");
	return 0;
}

static int map_sets(struct lb_capture *c)
{
	c->bitmap_bytes = c->scan_bytes = c->control->bitmap_words * sizeof(uint64_t);
	c->inflight_bytes = c->control->chunk_count * sizeof(int64_t);
	int r = map_part(c, LB_MAP_BITMAP, PROT_READ | PROT_WRITE, 0, c->bitmap_bytes, &c->bitmap);
	if (r < 0)
		return r;
	r = map_part(c, LB_MAP_SCAN, PROT_READ | PROT_WRITE, 0, c->scan_bytes, &c->scan);
	if (r < 0)
		return r;
	return map_part(c, LB_MAP_INFLIGHT, PROT_READ, 0, c->inflight_bytes, &c->inflight);
}

static int map_ring(struct lb_capture *c)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int r = map_part(c, LB_MAP_RING, PROT_READ | PROT_WRITE, 0, page, &c->consumer);
	if (r < 0)
		return r;
	c->consumer_bytes = page;
	size_t rest = page + 2 * c->control->ring_bytes;
	r = map_part(c, LB_MAP_RING, PROT_READ, (off_t)page, rest, &c->producer);
	if (r < 0)
		return r;
	c->producer_bytes = rest;
	c->ring = (const uint8_t *)c->producer + page;
	return 0;
}

int lb_capture_map(struct lb_fds *fds, bool resumed, struct lb_capture **ret_capture)
{
	_cleanup_capture_ struct lb_capture *c = calloc(1, sizeof(*c));
	if (c == NULL) {
		lb_fds_close(fds);
		return lb_fail(-ENOMEM, "capture: out of memory");
	}
	c->fds = *fds;
	*fds = LB_FDS_NONE;
	c->resumed = resumed;
	int r = map_part(c, LB_MAP_CONTROL, PROT_READ | PROT_WRITE, 0, sizeof(*c->control), &c->control);
	if (r < 0)
		return r;
	c->control_bytes = sizeof(*c->control);
	r = control_check(c->control);
	if (r < 0)
		return r;
	r = map_sets(c);
	if (r < 0)
		return r;
	r = map_ring(c);
	if (r < 0)
		return r;
	*ret_capture = lb_steal_ptr(c);
	return 0;
}

static void unmap(const void *p, size_t size_bytes)
{
	if (p != NULL)
		munmap((void *)p, size_bytes);
}

void lb_capture_free(struct lb_capture *c)
{
	if (c == NULL)
		return;
	unmap(c->producer, c->producer_bytes);
	unmap(c->consumer, c->consumer_bytes);
	unmap(c->inflight, c->inflight_bytes);
	unmap(c->scan, c->scan_bytes);
	unmap(c->bitmap, c->bitmap_bytes);
	unmap(c->control, c->control_bytes);
	lb_fds_close(&c->fds);
	free(c->socket_path);
	free(c->pin_folder);
	free(c);
}

void lb_capture_info(const struct lb_capture *c, struct lb_capture_info *ret_info)
{
	const struct lb_capture_control *k = c->control;
	struct lb_capture_info info = {
		.resumed = c->resumed,
		.generation = lb_capture_generation(c),
		.mode = lb_capture_mode(c),
		.ring_bytes = k->ring_bytes,
		.disk_count = k->disk_count,
	};
	info.epoch_pending = info.generation == 0 || lb_load(&k->epoch_ready) != info.generation;
	memcpy(info.instance.bytes, k->instance, sizeof(info.instance.bytes));
	memcpy(info.boot_id, k->boot_id, sizeof(info.boot_id) - 1);
	*ret_info = info;
}

int lb_capture_disk(const struct lb_capture *c, unsigned int id, struct lb_capture_disk *ret_disk)
{
	const struct lb_capture_disk_slot *s = lb_disk_slot(c, id);
	if (s == NULL)
		return lb_fail(-ENOENT, "capture has no disk %u", id);
	struct lb_capture_disk d = {
		.id = (uint16_t)id,
		.major = s->device >> 20,
		.minor = s->device & 0xfffff,
		.size_bytes = s->size_bytes,
		.diskseq = s->diskseq,
		.logical_block_bytes = s->logical_block_bytes,
		.bio_based = s->bio_based != 0,
	};
	memcpy(d.name, s->name, sizeof(d.name) - 1);
	*ret_disk = d;
	return 0;
}

int lb_capture_disk_fd(const struct lb_capture *c, unsigned int id)
{
	return id < c->fds.disk_count ? c->fds.disk[id] : -1;
}

uint64_t lb_capture_note_get(const struct lb_capture *c, unsigned int slot)
{
	return slot < LB_CAPTURE_NOTES ? lb_load(&c->control->note[slot]) : 0;
}

void lb_capture_note_set(struct lb_capture *c, unsigned int slot, uint64_t value)
{
	if (slot < LB_CAPTURE_NOTES)
		lb_store(&c->control->note[slot], value);
}
