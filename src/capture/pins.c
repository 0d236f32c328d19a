/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The privileged half: loads the program, pins it, finds it again, removes it. Everything is pinned in a folder that
 * gets its name by a rename at the end, so that a kill within leaves nothing that looks whole.
 */
#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/bytes.h"
#include "base/env.h"
#include "base/err.h"
#include "base/io.h"
#include "capture/bpf_load.h"
#include "capture/calibrate.h"
#include "capture/internal.h"
#include "capture.skel.h"

#define BPFFS_MAGIC 0xcafe4a11
#define BIOS_IN_FLIGHT_MAX 65536
#define DRAIN_ON_ATTACH_MS 5000
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

/* Dots are not allowed in names there. */
static int pin_path(char path[PATH_MAX], const char *folder, const char *prefix, const char *name)
{
	if (snprintf(path, PATH_MAX, "%s%s%s", folder, prefix, name) >= PATH_MAX)
		return lb_fail(-ENAMETOOLONG, "%s: the name of this folder is too long", folder);
	return 0;
}

struct plan {
	const char *folder;
	struct lb_disk_facts disk[LB_CAPTURE_DISKS_MAX];
	unsigned int disk_count;
	bool any_bio, any_request;
	uint64_t ring_bytes;
	uint64_t bitmap_words, chunk_count;
};

static int ring_bytes_check(uint64_t bytes)
{
	if (bytes < LB_CAPTURE_RING_BYTES_MIN || bytes > LB_CAPTURE_RING_BYTES_MAX || (bytes & (bytes - 1)) != 0)
		return lb_fail(-EINVAL, "ring of %" PRIu64 " bytes: a power of two from 1 MiB to 2 GiB is needed",
			       bytes);
	return 0;
}

static int plan_disk(struct plan *p, const char *disk)
{
	struct lb_disk_facts *f = &p->disk[p->disk_count];
	int r = lb_disk_facts(disk, f);
	if (r < 0)
		return r;
	r = lb_disk_fit(f);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < p->disk_count; i++)
		if (p->disk[i].major == f->major && p->disk[i].minor == f->minor)
			return lb_fail(-EINVAL, "disk %s is named twice", f->name);
	p->any_bio |= f->bio_based;
	p->any_request |= !f->bio_based;
	p->bitmap_words += (lb_granules(f->size_bytes) + 63) / 64;
	p->chunk_count += (f->size_bytes + LB_CAPTURE_CHUNK_BYTES - 1) >> LB_CAPTURE_CHUNK_SHIFT;
	p->disk_count++;
	return 0;
}

static int plan_make(const struct lb_capture_params *params, struct plan *ret_plan)
{
	struct plan p = {.folder = params->pin_folder != NULL ? params->pin_folder : LB_CAPTURE_PIN_FOLDER};
	if (params->disk_count == 0 || params->disk_count > LB_CAPTURE_DISKS_MAX)
		return lb_fail(-EINVAL, "%zu disks: one to %d can be captured together", params->disk_count,
			       LB_CAPTURE_DISKS_MAX);
	int r = ring_bytes_check(params->ring_bytes);
	if (r < 0)
		return r;
	p.ring_bytes = params->ring_bytes;
	for (size_t i = 0; i < params->disk_count; i++) {
		r = plan_disk(&p, params->disks[i]);
		if (r < 0)
			return r;
	}
	if (p.bitmap_words > UINT32_MAX || p.chunk_count > UINT32_MAX)
		return lb_fail(-EFBIG, "the disks are too large to be captured together");
	*ret_plan = p;
	return 0;
}

static void control_disk(struct lb_capture_disk_slot *s, const struct lb_disk_facts *f, uint64_t *word, uint64_t *chunk)
{
	s->size_bytes = f->size_bytes;
	s->diskseq = f->diskseq;
	s->first_word = *word;
	s->first_chunk = *chunk;
	s->device = f->major << 20 | f->minor;
	s->bio_based = f->bio_based;
	s->logical_block_bytes = f->logical_block_bytes;
	memcpy(s->name, f->name, sizeof(s->name) - 1);
	*word += (lb_granules(f->size_bytes) + 63) / 64;
	*chunk += (f->size_bytes + LB_CAPTURE_CHUNK_BYTES - 1) >> LB_CAPTURE_CHUNK_SHIFT;
}

static int control_fill(const struct plan *p, struct lb_capture_control *k)
{
	_cleanup_free_ uint8_t *boot = NULL;
	struct lb_env *env = lb_env_real();
	uint64_t word = 0, chunk = 0;
	size_t n;
	int r = lb_file_read(env, BOOT_ID, 64, &boot, &n);
	if (r < 0)
		return r;
	n = strcspn((const char *)boot, "\n");
	memcpy(k->boot_id, boot, LB_MIN(n, sizeof(k->boot_id) - 1));
	r = env->ops->random(env, k->instance, sizeof(k->instance));
	if (r < 0)
		return lb_fail(r, "no random bytes for the capture's id: %s", strerror(-r));
	k->instance[6] = (k->instance[6] & 0x0f) | 0x40;
	k->instance[8] = (k->instance[8] & 0x3f) | 0x80;
	for (unsigned int i = 0; i < p->disk_count; i++)
		control_disk(&k->disk[i], &p->disk[i], &word, &chunk);
	k->abi_version = LB_ABI_VERSION;
	k->disk_count = p->disk_count;
	k->ring_bytes = p->ring_bytes;
	k->bitmap_words = p->bitmap_words;
	k->chunk_count = p->chunk_count;
	lb_store(&k->loss_pos, LB_CAPTURE_NO_LOSS);
	lb_store(&k->magic, LB_ABI_MAGIC);
	return 0;
}

static void size_maps(struct capture_bpf *skel, const struct plan *p, const struct lb_direct_map *map)
{
	bpf_map__set_max_entries(skel->maps.ring, (uint32_t)p->ring_bytes);
	bpf_map__set_max_entries(skel->maps.bitmap, (uint32_t)p->bitmap_words);
	bpf_map__set_max_entries(skel->maps.scan, (uint32_t)p->bitmap_words);
	bpf_map__set_max_entries(skel->maps.inflight, (uint32_t)p->chunk_count);
	bpf_map__set_max_entries(skel->maps.bios, p->any_bio ? BIOS_IN_FLIGHT_MAX : 1);
	skel->rodata->lb_direct_base = map->direct_base;
	skel->rodata->lb_vmemmap_base = map->vmemmap_base;
	skel->rodata->lb_page_struct_bytes = map->page_struct_bytes;
	skel->rodata->lb_page_shift = map->page_shift;
	skel->rodata->lb_can_read = 1;
}

/* Programs whose events no protected disk raises would only cost time. */
static void choose_programs(struct capture_bpf *skel, const struct plan *p)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, skel->obj)
	{
		bool bio = strncmp(bpf_program__name(prog), "bio_", 4) == 0;
		bpf_program__set_autoload(prog, bio ? p->any_bio : p->any_request);
	}
}

static int skel_load(const struct plan *p, struct capture_bpf **ret_skel)
{
	struct lb_direct_map map;
	int r = lb_calibrate(&map);
	if (r < 0)
		return r;
	struct capture_bpf *skel = NULL;
	r = lb_bpf_check(capture_bpf__open(), (void **)&skel, "the capture program");
	if (r < 0)
		return r;
	size_maps(skel, p, &map);
	choose_programs(skel, p);
	if (capture_bpf__load(skel) != 0) {
		r = lb_bpf_fail("the capture program");
		capture_bpf__destroy(skel);
		return r;
	}
	*ret_skel = skel;
	return 0;
}

static int control_write(const struct plan *p, struct capture_bpf *skel)
{
	size_t bytes = sizeof(struct lb_capture_control);
	struct lb_capture_control *k =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(skel->maps.control), 0);
	if (k == MAP_FAILED)
		return lb_fail(-errno, "capture: the control page can't be mapped: %s", strerror(errno));
	int r = control_fill(p, k);
	munmap(k, bytes);
	return r;
}

/* In the program's own order: of two on one event the first must be attached first. */
static int attach_programs(struct capture_bpf *skel, const char *folder)
{
	struct bpf_program *prog;
	char path[PATH_MAX];

	bpf_object__for_each_program(prog, skel->obj)
	{
		if (!bpf_program__autoload(prog))
			continue;
		struct bpf_link *link = bpf_program__attach(prog);
		if (link == NULL)
			return lb_bpf_fail(bpf_program__name(prog));
		int r = pin_path(path, folder, "/link_", bpf_program__name(prog));
		if (r == 0)
			r = bpf_link__pin(link, path);
		bpf_link__destroy(link);
		if (r < 0)
			return lb_fail(r, "%s: %s", path, strerror(-r));
	}
	return 0;
}

static int pin_maps(struct capture_bpf *skel, const char *folder)
{
	const struct bpf_map *maps[LB_MAPS] = {skel->maps.ring, skel->maps.control, skel->maps.bitmap, skel->maps.scan,
					       skel->maps.inflight};
	char path[PATH_MAX];

	for (int i = 0; i < LB_MAPS; i++) {
		int r = pin_path(path, folder, "/", lb_capture_map_names[i]);
		if (r < 0)
			return r;
		if (bpf_obj_pin(bpf_map__fd(maps[i]), path) < 0)
			return lb_fail(-errno, "%s: %s", path, strerror(errno));
	}
	return 0;
}

/* Only now do the programs take anything: all copies are in place. */
static int disks_enter(const struct plan *p, struct capture_bpf *skel)
{
	for (uint32_t i = 0; i < p->disk_count; i++) {
		uint32_t device = p->disk[i].major << 20 | p->disk[i].minor;
		if (bpf_map_update_elem(bpf_map__fd(skel->maps.disks), &device, &i, BPF_ANY) < 0)
			return lb_fail(-errno, "capture: disk %s can't be entered: %s", p->disk[i].name,
				       strerror(errno));
	}
	return 0;
}

static int folder_make(const char *folder)
{
	struct statfs fs;
	char parent[PATH_MAX];

	int r = pin_path(parent, folder, "", "");
	if (r < 0)
		return r;
	char *slash = strrchr(parent, '/');
	if (slash == NULL || slash == parent)
		return lb_fail(-EINVAL, "%s: a folder in bpffs is needed, such as %s", folder, LB_CAPTURE_PIN_FOLDER);
	*slash = '\0';
	if (statfs(parent, &fs) < 0 || (uint32_t)fs.f_type != BPFFS_MAGIC)
		return lb_fail(-ENODEV, "%s is not a BPF file system; mount it: mount -t bpf bpf /sys/fs/bpf", parent);
	if (mkdir(folder, 0700) < 0)
		return lb_fail(-errno, "%s: %s", folder, strerror(errno));
	return 0;
}

static int pins_make(const struct plan *p, const char *folder)
{
	_cleanup_(capture_bpf__destroyp) struct capture_bpf *skel = NULL;
	int r = skel_load(p, &skel);
	if (r != 0)
		return r;
	assert(skel != NULL);
	r = control_write(p, skel);
	if (r < 0)
		return r;
	r = pin_maps(skel, folder);
	if (r < 0)
		return r;
	r = attach_programs(skel, folder);
	if (r < 0)
		return r;
	return disks_enter(p, skel);
}

static int attach_new(const struct plan *p)
{
	char fresh[PATH_MAX];

	lb_bpf_quiet();
	int r = pin_path(fresh, p->folder, "_new", "");
	if (r < 0)
		return r;
	r = lb_pins_remove(fresh);
	if (r < 0)
		return r;
	r = folder_make(fresh);
	if (r < 0)
		return r;
	r = pins_make(p, fresh);
	if (r == 0 && rename(fresh, p->folder) < 0)
		r = lb_fail(-errno, "%s: %s", p->folder, strerror(errno));
	if (r < 0)
		lb_pins_remove(fresh);
	return r;
}

/* Writes in flight when the programs came were not seen; after this they have ended. */
static void settle(struct lb_capture_control *k)
{
	for (unsigned int i = 0; i < k->disk_count; i++) {
		lb_disk_drain(k->disk[i].name, DRAIN_ON_ATTACH_MS);
		lb_reconcile_begin(k, i);
	}
}

static int settle_all(const struct lb_fds *fds)
{
	size_t bytes = sizeof(struct lb_capture_control);
	struct lb_capture_control *k =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds->map[LB_MAP_CONTROL], 0);
	if (k == MAP_FAILED)
		return lb_fail(-errno, "capture: the control page can't be mapped: %s", strerror(errno));
	settle(k);
	munmap(k, bytes);
	return 0;
}

static int same_as_pinned(const struct plan *p, const struct lb_capture_control *k)
{
	bool same = k->disk_count == p->disk_count && k->ring_bytes == p->ring_bytes;

	for (unsigned int i = 0; same && i < p->disk_count; i++)
		same = k->disk[i].device == (p->disk[i].major << 20 | p->disk[i].minor) &&
		       k->disk[i].diskseq == p->disk[i].diskseq && k->disk[i].size_bytes == p->disk[i].size_bytes;
	if (!same)
		return lb_fail(-EEXIST,
			       "a capture of other disks (or of another ring size) is attached; detach it first, then "
			       "this machine resyncs");
	return 0;
}

static int check_pinned(const struct plan *p, const struct lb_fds *fds)
{
	size_t bytes = sizeof(struct lb_capture_control);
	const struct lb_capture_control *k = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fds->map[LB_MAP_CONTROL], 0);
	if (k == MAP_FAILED)
		return lb_fail(-errno, "capture: the control page can't be mapped: %s", strerror(errno));
	int r = same_as_pinned(p, k);
	munmap((void *)k, bytes);
	return r;
}

int lb_pins_attach(const struct lb_capture_params *params, struct lb_fds *ret_fds, bool *ret_resumed)
{
	struct plan p;
	int r = plan_make(params, &p);
	if (r < 0)
		return r;
	_cleanup_(lb_fds_close) struct lb_fds fds = LB_FDS_NONE;
	r = lb_pins_open(p.folder, &fds);
	bool resumed = r == 0;
	if (r < 0 && r != -ENOENT)
		return r;
	if (resumed) {
		r = check_pinned(&p, &fds);
	} else {
		r = attach_new(&p);
		if (r == 0)
			r = lb_pins_open(p.folder, &fds);
		if (r == 0)
			r = settle_all(&fds);
	}
	if (r < 0)
		return r;
	*ret_fds = fds;
	fds = LB_FDS_NONE;
	*ret_resumed = resumed;
	return 0;
}

/* A disk that is gone gets no fd: reconciling tells it. */
static int open_disks(struct lb_fds *fds)
{
	size_t bytes = sizeof(struct lb_capture_control);
	const struct lb_capture_control *k = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fds->map[LB_MAP_CONTROL], 0);
	if (k == MAP_FAILED)
		return lb_fail(-errno, "capture: the control page can't be mapped: %s", strerror(errno));
	unsigned int count = LB_MIN(k->disk_count, (uint32_t)LB_CAPTURE_DISKS_MAX);
	for (unsigned int i = 0; i < count; i++) {
		struct lb_disk_facts f;
		int fd = -1;
		if (lb_disk_facts(k->disk[i].name, &f) == 0 && f.diskseq == k->disk[i].diskseq)
			fd = lb_disk_open(&f);
		fds->disk[i] = fd >= 0 ? fd : -1;
		fds->disk_count = i + 1;
	}
	munmap((void *)k, bytes);
	return 0;
}

int lb_pins_open(const char *folder, struct lb_fds *ret_fds)
{
	_cleanup_(lb_fds_close) struct lb_fds fds = LB_FDS_NONE;
	char path[PATH_MAX];

	for (int i = 0; i < LB_MAPS; i++) {
		int r = pin_path(path, folder, "/", lb_capture_map_names[i]);
		if (r < 0)
			return r;
		fds.map[i] = bpf_obj_get(path);
		if (fds.map[i] < 0)
			return lb_fail(-errno, errno == ENOENT ? "%s: no capture is attached" : "%s: can't be opened",
				       path);
	}
	int r = open_disks(&fds);
	if (r < 0)
		return r;
	*ret_fds = fds;
	fds = LB_FDS_NONE;
	return 0;
}

static int folder_empty(const char *folder, DIR *d)
{
	struct dirent *e;

	while ((e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0) < 0)
			return lb_fail(-errno, "%s/%s can't be removed: %s", folder, e->d_name, strerror(errno));
	}
	return 0;
}

/* The kernel frees unpinned programs a moment later: till then they must take nothing. */
static void switch_off(const char *folder)
{
	char path[PATH_MAX];
	if (pin_path(path, folder, "/", lb_capture_map_names[LB_MAP_CONTROL]) < 0)
		return;
	_cleanup_close_ int fd = bpf_obj_get(path);
	if (fd < 0)
		return;
	size_t bytes = sizeof(struct lb_capture_control);
	struct lb_capture_control *k = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (k == MAP_FAILED)
		return;
	__atomic_fetch_and(&k->word, ~0xffffffffULL, __ATOMIC_SEQ_CST);
	munmap(k, bytes);
}

int lb_pins_remove(const char *folder)
{
	switch_off(folder);
	DIR *d = opendir(folder);
	if (d == NULL && errno == ENOENT)
		return 0;
	if (d == NULL)
		return lb_fail(-errno, "%s: %s", folder, strerror(errno));
	int r = folder_empty(folder, d);
	closedir(d);
	if (r == 0 && rmdir(folder) < 0)
		r = lb_fail(-errno, "%s can't be removed: %s", folder, strerror(errno));
	return r;
}

/* A second copy that was skipped left its event to nobody; what a first copy misses the second takes. */
static int link_skipped(const char *path, uint64_t *ret_skipped)
{
	struct bpf_link_info link = {0};
	struct bpf_prog_info prog = {0};
	uint32_t n = sizeof(link);
	_cleanup_close_ int fd = bpf_obj_get(path);
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &link, &n) < 0)
		return lb_fail(-errno, "%s: %s", path, strerror(errno));
	_cleanup_close_ int prog_fd = bpf_prog_get_fd_by_id(link.prog_id);
	n = sizeof(prog);
	if (prog_fd < 0 || bpf_obj_get_info_by_fd(prog_fd, &prog, &n) < 0)
		return lb_fail(-errno, "%s: its program: %s", path, strerror(errno));
	*ret_skipped = prog.recursion_misses;
	return 0;
}

int lb_pins_skipped(const char *folder, uint64_t *ret_skipped)
{
	uint64_t total = 0;
	char path[PATH_MAX];
	struct dirent *e;
	int r = 0;
	DIR *d = opendir(folder);
	if (d == NULL)
		return errno == ENOENT ? lb_fail(-ENODEV, "%s: no capture is attached any more", folder)
				       : lb_fail(-errno, "%s: %s", folder, strerror(errno));
	while (r == 0 && (e = readdir(d)) != NULL) {
		const char *second = strstr(e->d_name, "_second");
		uint64_t skipped = 0;
		if (strncmp(e->d_name, "link_", 5) != 0 || second == NULL)
			continue;
		r = pin_path(path, folder, "/", e->d_name);
		if (r == 0)
			r = link_skipped(path, &skipped);
		if (r == 0)
			total += skipped;
	}
	closedir(d);
	if (r == 0)
		*ret_skipped = total;
	return r;
}

/* The kernel waits for running programs when a map in a map is replaced. */
int lb_pins_grace(void)
{
	if (lb_grace_membarrier() == 0)
		return 0;
	uint32_t zero = 0;
	_cleanup_close_ int inner = bpf_map_create(BPF_MAP_TYPE_ARRAY, "lb_inner", sizeof(zero), sizeof(zero), 1, NULL);
	LIBBPF_OPTS(bpf_map_create_opts, opts, .inner_map_fd = (uint32_t)inner);
	_cleanup_close_ int outer =
		bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "lb_outer", sizeof(zero), sizeof(zero), 1, &opts);
	if (inner < 0 || outer < 0 || bpf_map_update_elem(outer, &zero, &inner, BPF_ANY) < 0)
		return lb_fail(-errno, "capture: no grace period to be had: %s", strerror(errno));
	return 0;
}
