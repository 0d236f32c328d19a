/* SPDX-License-Identifier: Apache-2.0 */
/* What /sys tells of block devices, and which of them can't be seen wholly. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "capture/internal.h"

#define SYS_BYTES_MAX 512
#define SECTOR_BYTES 512
#define STAT_FIELDS 17
#define STAT_WRITTEN 6
#define STAT_DISCARDED 13

/* A line of a small file under /sys/block/NAME; "" when it isn't there. */
static void sys_line(const char *name, const char *file, char line[SYS_BYTES_MAX])
{
	char path[PATH_MAX];

	line[0] = '\0';
	snprintf(path, sizeof(path), "/sys/block/%s/%s", name, file);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ssize_t n = read(fd, line, SYS_BYTES_MAX - 1);
	line[n > 0 ? n : 0] = '\0';
	line[strcspn(line, "\n")] = '\0';
}

static uint64_t sys_number(const char *name, const char *file)
{
	char line[SYS_BYTES_MAX];

	sys_line(name, file, line);
	return strtoull(line, NULL, 10);
}

static bool sys_has(const char *name, const char *file)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/block/%s/%s", name, file);
	return access(path, F_OK) == 0;
}

static unsigned int sys_numbers(const char *name, const char *file, uint64_t *values, unsigned int most)
{
	char line[SYS_BYTES_MAX], *at = line, *end;
	unsigned int n = 0;

	sys_line(name, file, line);
	for (; n < most; n++, at = end) {
		values[n] = strtoull(at, &end, 10);
		if (end == at)
			break;
	}
	return n;
}

/* The kernel's name of the block device that a path leads to, whatever made the node. */
static int name_of_path(const char *path, char name[LB_CAPTURE_NAME_BYTES])
{
	char link[64], target[PATH_MAX];
	struct stat st;

	if (stat(path, &st) < 0)
		return lb_fail(-ENOENT, "disk %s: there is no such device; see `lsblk -d`", path);
	if (!S_ISBLK(st.st_mode))
		return lb_fail(-EINVAL, "disk %s: not a block device", path);
	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
	ssize_t n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return lb_fail(-ENOENT, "disk %s: the kernel knows no device %u:%u", path, major(st.st_rdev),
			       minor(st.st_rdev));
	target[n] = '\0';
	const char *slash = strrchr(target, '/');
	const char *base = slash != NULL ? slash + 1 : target;
	if (strlen(base) >= LB_CAPTURE_NAME_BYTES)
		return lb_fail(-ENAMETOOLONG, "disk %s: its name %s is too long", path, base);
	memcpy(name, base, strlen(base) + 1);
	return 0;
}

static int disk_name(const char *disk, char name[LB_CAPTURE_NAME_BYTES])
{
	if (disk[0] == '/')
		return name_of_path(disk, name);
	size_t n = strlen(disk);
	if (n == 0 || n >= LB_CAPTURE_NAME_BYTES || disk[0] == '.' || strchr(disk, '/') != NULL)
		return lb_fail(-EINVAL, "disk %s: not the name of a block device", disk);
	memcpy(name, disk, n + 1);
	return 0;
}

static int not_a_whole_disk(const char *name)
{
	char path[PATH_MAX], parent[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/class/block/%s", name);
	if (realpath(path, parent) == NULL)
		return lb_fail(-ENOENT, "disk %s: there is no such block device; see `lsblk -d`", name);
	char *slash = strrchr(parent, '/');
	if (slash != NULL)
		*slash = '\0';
	slash = strrchr(parent, '/');
	return lb_fail(-EOPNOTSUPP, "%s is a partition; protect the whole disk: %s", name,
		       slash != NULL ? slash + 1 : "see `lsblk`");
}

int lb_disk_facts(const char *disk, struct lb_disk_facts *ret_facts)
{
	struct lb_disk_facts f = {0};
	uint64_t stat[STAT_FIELDS] = {0}, flying[2] = {0};
	char line[SYS_BYTES_MAX];
	int r = disk_name(disk, f.name);
	if (r < 0)
		return r;
	if (!sys_has(f.name, "dev"))
		return not_a_whole_disk(f.name);
	sys_line(f.name, "dev", line);
	if (sscanf(line, "%" SCNu32 ":%" SCNu32, &f.major, &f.minor) != 2)
		return lb_fail(-EIO, "disk %s: /sys tells no device number", f.name);
	sys_numbers(f.name, "stat", stat, STAT_FIELDS);
	sys_numbers(f.name, "inflight", flying, 2);
	f.size_bytes = sys_number(f.name, "size") * SECTOR_BYTES;
	f.diskseq = sys_number(f.name, "diskseq");
	f.written_bytes = stat[STAT_WRITTEN] * SECTOR_BYTES;
	f.discarded_bytes = stat[STAT_DISCARDED] * SECTOR_BYTES;
	f.writes_in_flight = flying[1];
	f.logical_block_bytes = (uint32_t)sys_number(f.name, "queue/logical_block_size");
	f.bio_based = !sys_has(f.name, "mq");
	/* Device mapper counts by itself, whatever the flag says. */
	f.iostats = sys_number(f.name, "queue/iostats") != 0 || (f.bio_based && sys_has(f.name, "dm/name"));
	*ret_facts = f;
	return 0;
}

/* The first device that stands on this one, or "". */
static void holder_of(const char *name, char holder[LB_CAPTURE_NAME_BYTES])
{
	char path[PATH_MAX];
	struct dirent *e;

	holder[0] = '\0';
	snprintf(path, sizeof(path), "/sys/block/%s/holders", name);
	DIR *d = opendir(path);
	if (d == NULL)
		return;
	while (holder[0] == '\0' && (e = readdir(d)) != NULL)
		if (e->d_name[0] != '.' && strlen(e->d_name) < LB_CAPTURE_NAME_BYTES)
			memcpy(holder, e->d_name, strlen(e->d_name) + 1);
	closedir(d);
}

/* A path of a multipath device: writes to it are seen, but another path takes writes to the same disk. */
static int not_a_path(const char *name)
{
	char holder[LB_CAPTURE_NAME_BYTES], line[SYS_BYTES_MAX];

	holder_of(name, holder);
	if (holder[0] == '\0')
		return 0;
	sys_line(holder, "dm/uuid", line);
	if (strncmp(line, "mpath-", 6) == 0)
		return lb_fail(-EOPNOTSUPP, "%s is one path of the multipath device %s; protect %s", name, holder,
			       holder);
	if (sys_has(holder, "bcache"))
		return lb_fail(-EOPNOTSUPP,
			       "%s belongs to the bcache device %s, whose parts change without each other; "
			       "protect the disk through a file system backup, or leave bcache",
			       name, holder);
	return 0;
}

int lb_disk_fit(const struct lb_disk_facts *f)
{
	char line[SYS_BYTES_MAX];

	sys_line(f->name, "queue/zoned", line);
	if (line[0] != '\0' && strcmp(line, "none") != 0)
		return lb_fail(-EOPNOTSUPP,
			       "%s is a zoned disk (%s): its writes have no place before they end; protect a "
			       "conventional disk",
			       f->name, line);
	if (sys_number(f->name, "queue/dax") != 0)
		return lb_fail(-EOPNOTSUPP,
			       "%s is memory that programs map (DAX): stores into it pass the block layer by; use its "
			       "sector mode (ndctl create-namespace -m sector)",
			       f->name);
	if (strncmp(f->name, "zram", 4) == 0)
		return lb_fail(-EOPNOTSUPP, "%s is compressed memory and gone after a reboot; leave it out", f->name);
	if (strncmp(f->name, "bcache", 6) == 0)
		return lb_fail(-EOPNOTSUPP, "%s is a bcache device, which keeps data in two places; leave bcache first",
			       f->name);
	if (sys_number(f->name, "ro") != 0)
		return lb_fail(-EOPNOTSUPP, "%s is read-only: nothing to capture; leave it out", f->name);
	if (f->size_bytes == 0)
		return lb_fail(-EOPNOTSUPP, "%s is empty (no medium?); leave it out", f->name);
	if (sys_number(f->name, "removable") != 0 && strncmp(f->name, "sr", 2) == 0)
		return lb_fail(-EOPNOTSUPP, "%s is an optical drive; leave it out", f->name);
	sys_line(f->name, "md/level", line);
	if (strcmp(line, "raid0") == 0 || strcmp(line, "linear") == 0)
		return lb_fail(
			-EOPNOTSUPP,
			"%s is an md %s set, which passes writes on in place; protect its member disks together: "
			"one ring keeps them consistent",
			f->name, line);
	return not_a_path(f->name);
}

int lb_disk_open(const struct lb_disk_facts *f)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/dev/%s", f->name);
	for (char *p = path; *p != '\0'; p++)
		if (*p == '!')
			*p = '/';
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return lb_fail(-errno, "disk %s can't be opened for reading: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode) || st.st_rdev != makedev(f->major, f->minor))
		return lb_fail(-ENODEV, "%s is not the disk %u:%u", path, f->major, f->minor);
	return lb_steal_fd(fd);
}
