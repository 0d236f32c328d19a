/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbdkit's side of it: one disk of a machine at one recovery point, read-only, straight from the vault.
 *
 *     nbdkit lifeboat vault=dir:/srv/vault passphrase-file=/root/p machine=db1 point=latest disk=vda
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/err.h"
#include "nbd/settings.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
/* A request may cover a whole disk; its answer need not. */
#define EXTENTS_PER_ANSWER_MAX 8192
#define BLOCK_BYTES_PREFERRED 4096
#define BLOCK_BYTES_MAX (32u << 20)

static struct lb_nbd_settings settings = {.disk_id = -1, .cache_bytes = LB_IMAGE_CACHE_BYTES_DEFAULT};
static struct lb_nbd_disk disk;

/* The text of the failure, as nbdkit tells it. */
static int told(int error)
{
	nbdkit_set_error(error == -ENOMEM ? ENOMEM : EIO);
	nbdkit_error("%s", lb_err_text());
	return -1;
}

/* Keys will be in memory: no core dump, no reader through /proc. */
static void lifeboat_load(void)
{
	struct rlimit none = {0};

	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
}

static void lifeboat_unload(void)
{
	lb_nbd_disk_close(&disk);
	lb_nbd_settings_clear(&settings);
}

static void lifeboat_dump_plugin(void)
{
	printf("lifeboat_version=%s\n", LB_VERSION);
	printf("lifeboat_store=dir azure s3\n");
}

static int lifeboat_config(const char *key, const char *value)
{
	int r = lb_nbd_setting(&settings, key, value);

	return r < 0 ? told(r) : 0;
}

static int lifeboat_config_complete(void)
{
	int r = lb_nbd_settings_complete(&settings);

	return r < 0 ? told(r) : 0;
}

/* Before nbdkit goes into the background: what is wrong is told where the command was given. */
static int lifeboat_get_ready(void)
{
	char when[LB_TIME_TEXT_BYTES];
	struct lb_image_stats stats;
	int r;

	r = lb_nbd_disk_open(lb_env_real(), &settings, &disk);
	if (r < 0)
		return told(r);
	lb_image_stats(disk.image, &stats);
	nbdkit_debug("machine %s, disk %s, point %" PRIu64 ":%" PRIu64 " of %s, %" PRIu64 " extents%s",
		     disk.machine_name, disk.disk.name, disk.point.position.epoch, disk.point.position.seq,
		     lb_time_format(disk.point.time_ns, when), stats.map_extents,
		     stats.from_checkpoint ? " (checkpoint)" : "");
	return 0;
}

static void *lifeboat_open(int readonly)
{
	(void)readonly;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t lifeboat_get_size(void *handle)
{
	(void)handle;
	return (int64_t)disk.disk.size_bytes;
}

/* All connections see the same bytes for ever. */
static int lifeboat_can_multi_conn(void *handle)
{
	(void)handle;
	return 1;
}

static int lifeboat_can_extents(void *handle)
{
	(void)handle;
	return 1;
}

static int lifeboat_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	(void)handle;
	*minimum = 1;
	*preferred = BLOCK_BYTES_PREFERRED;
	*maximum = BLOCK_BYTES_MAX;
	return 0;
}

static int lifeboat_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	int r;

	(void)handle;
	(void)flags;
	r = lb_image_pread(disk.image, disk.disk.id, buf, count, offset);
	return r < 0 ? told(lb_wrap(r, "machine %s, disk %s, byte %" PRIu64, disk.machine_name, disk.disk.name, offset))
		     : 0;
}

struct answer {
	struct nbdkit_extents *extents;
	uint32_t n, n_max;
};

/* 1 ends the walk: enough has been said. */
static int add_extent(void *arg, const struct lb_image_extent *extent)
{
	struct answer *a = arg;
	uint32_t type = extent->zero ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0;

	if (nbdkit_add_extent(a->extents, extent->offset_bytes, extent->length_bytes, type) < 0)
		return -ENOMEM;
	return ++a->n >= a->n_max ? 1 : 0;
}

static int lifeboat_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
			    struct nbdkit_extents *extents)
{
	struct answer a = {.extents = extents,
			   .n_max = (flags & NBDKIT_FLAG_REQ_ONE) != 0 ? 1 : EXTENTS_PER_ANSWER_MAX};
	int r;

	(void)handle;
	r = lb_image_extents(disk.image, disk.disk.id, offset, count, add_extent, &a);
	return r < 0 ? told(r) : 0;
}

#define CONFIG_HELP                                                                                                    \
	"vault=URL             the vault, for example dir:/srv/vault (required)\n"                                     \
	"machine=NAME|UUID     (required)\n"                                                                           \
	"passphrase-file=FILE  the vault's passphrase, one line; or\n"                                                 \
	"key-file=FILE         the machine's key (machine must then be a UUID)\n"                                      \
	"point=POINT           latest (default), latest-app, a UTC time, epoch:sequence, or a pin's name\n"            \
	"disk=NAME|ID          default: the disk that the machine boots from\n"                                        \
	"cache=SIZE            memory for opened pieces (default 128M)\n"                                              \
	"lost=refuse|zeroes    what a damaged point lost: an error (default), or zeroes"

static struct nbdkit_plugin plugin = {
	.name = "lifeboat",
	.longname = "Lifeboat recovery points",
	.version = LB_VERSION,
	.description = "Serves a protected machine's disk, as it was at a recovery point, from a Lifeboat vault.",
	.load = lifeboat_load,
	.unload = lifeboat_unload,
	.dump_plugin = lifeboat_dump_plugin,
	.config = lifeboat_config,
	.config_complete = lifeboat_config_complete,
	.config_help = CONFIG_HELP,
	.get_ready = lifeboat_get_ready,
	.open = lifeboat_open,
	.get_size = lifeboat_get_size,
	.can_multi_conn = lifeboat_can_multi_conn,
	.can_extents = lifeboat_can_extents,
	.block_size = lifeboat_block_size,
	.pread = lifeboat_pread,
	.extents = lifeboat_extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)
