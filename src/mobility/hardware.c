/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/hardware.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "mobility/mounts.h"

#define SYS_TEXT_BYTES_MAX 4096
#define SECTOR_BYTES 512
#define PATH_BYTES 512

/* A file of /sys as text without white space at its ends; -ENOENT and others without changing the text. */
static int sys_text(struct lb_env *env, const char *root, const char *path, char *text, size_t text_bytes)
{
	char whole[PATH_BYTES], data[SYS_TEXT_BYTES_MAX];
	size_t from = 0, to;
	ssize_t n;
	int fd;

	snprintf(whole, sizeof(whole), "%s%s", root, path);
	fd = env->ops->open(env, whole, O_RDONLY, 0);
	if (fd < 0)
		return fd;
	n = env->ops->pread(env, fd, data, sizeof(data) - 1, 0);
	env->ops->close(env, fd);
	if (n < 0)
		return (int)n;
	to = (size_t)n;
	while (to > 0 && (isspace((unsigned char)data[to - 1]) || data[to - 1] == '\0'))
		to--;
	while (from < to && isspace((unsigned char)data[from]))
		from++;
	if (to - from >= text_bytes)
		return -EMSGSIZE;
	memcpy(text, data + from, to - from);
	text[to - from] = '\0';
	return 0;
}

static int sys_u64(struct lb_env *env, const char *root, const char *path, uint64_t *ret_value)
{
	char text[32];
	int r = sys_text(env, root, path, text, sizeof(text));

	return r < 0 ? r : lb_u64_parse(text, UINT64_MAX, ret_value);
}

/* Page 80h of the SCSI vital product data: four bytes of header, then the serial number. */
static int scsi_serial(struct lb_env *env, const char *root, const char *name, char serial[LB_DISK_SERIAL_BYTES])
{
	char path[PATH_BYTES];
	uint8_t page[256];
	ssize_t n;
	size_t length;
	int fd;

	snprintf(path, sizeof(path), "%s/sys/block/%s/device/vpd_pg80", root, name);
	fd = env->ops->open(env, path, O_RDONLY, 0);
	if (fd < 0)
		return fd;
	n = env->ops->pread(env, fd, page, sizeof(page), 0);
	env->ops->close(env, fd);
	if (n < 5)
		return -ENOENT;
	length = LB_MIN((size_t)page[2] << 8 | page[3], (size_t)n - 4);
	length = LB_MIN(length, (size_t)LB_DISK_SERIAL_BYTES - 1);
	for (size_t i = 0; i < length; i++)
		serial[i] = isgraph(page[4 + i]) ? (char)page[4 + i] : ' ';
	while (length > 0 && serial[length - 1] == ' ')
		length--;
	serial[length] = '\0';
	memmove(serial, serial + strspn(serial, " "), strlen(serial + strspn(serial, " ")) + 1);
	return serial[0] != '\0' ? 0 : -ENOENT;
}

static void read_serial(struct lb_env *env, const char *root, const char *name, char serial[LB_DISK_SERIAL_BYTES])
{
	static const char *const places[] = {"serial", "device/serial", "wwid", "device/wwid", "dm/uuid"};
	char path[PATH_BYTES];

	serial[0] = '\0';
	for (size_t i = 0; i < LB_ARRAY_LEN(places); i++) {
		snprintf(path, sizeof(path), "/sys/block/%s/%s", name, places[i]);
		if (sys_text(env, root, path, serial, LB_DISK_SERIAL_BYTES) == 0 && serial[0] != '\0')
			return;
		if (i == 1 && scsi_serial(env, root, name, serial) == 0)
			return;
		serial[0] = '\0';
	}
}

int lb_disk_read(struct lb_env *env, const char *root, const char *name, struct lb_inventory_disk *ret_disk)
{
	struct lb_inventory_disk disk = {.sector_bytes = SECTOR_BYTES};
	uint64_t sectors, removable = 0, sector_bytes;
	char path[PATH_BYTES];

	if (strlen(name) >= sizeof(disk.name) || strchr(name, '/') != NULL)
		return lb_fail(-ENODEV, "%s is not the name of a disk", name);
	snprintf(disk.name, sizeof(disk.name), "%s", name);
	snprintf(path, sizeof(path), "/sys/block/%s/size", name);
	if (sys_u64(env, root, path, &sectors) < 0)
		return lb_fail(-ENODEV, "this machine has no disk %s", name);
	disk.size_bytes = sectors * SECTOR_BYTES;
	snprintf(path, sizeof(path), "/sys/block/%s/queue/logical_block_size", name);
	if (sys_u64(env, root, path, &sector_bytes) == 0)
		disk.sector_bytes = (uint32_t)sector_bytes;
	snprintf(path, sizeof(path), "/sys/block/%s/removable", name);
	(void)sys_u64(env, root, path, &removable);
	read_serial(env, root, name, disk.serial);
	disk.fixed = removable == 0 && strncmp(name, "loop", 4) != 0;
	*ret_disk = disk;
	return 0;
}

static bool is_candidate(struct lb_env *env, const char *root, const char *name)
{
	static const char *const never[] = {"ram", "zram", "fd", "sr", "md", "nbd", "drbd", "bcache", "mtdblock"};
	char path[PATH_BYTES], text[LB_DISK_SERIAL_BYTES];

	for (size_t i = 0; i < LB_ARRAY_LEN(never); i++)
		if (strncmp(name, never[i], strlen(never[i])) == 0 && isdigit((unsigned char)name[strlen(never[i])]))
			return false;
	if (strncmp(name, "dm-", 3) != 0)
		return true;
	snprintf(path, sizeof(path), "/sys/block/%s/dm/uuid", name);
	return sys_text(env, root, path, text, sizeof(text)) == 0 && strncmp(text, "mpath-", 6) == 0;
}

struct read_all {
	struct lb_env *env;
	const char *root;
	struct lb_inventory *inventory;
};

static int read_one(void *arg, const char *name, bool is_dir)
{
	struct read_all *a = arg;
	struct lb_inventory_disk disk;

	(void)is_dir;
	if (!is_candidate(a->env, a->root, name) || lb_disk_read(a->env, a->root, name, &disk) < 0 ||
	    disk.size_bytes == 0)
		return 0;
	if (a->inventory->n == LB_INVENTORY_DISKS_MAX)
		return -E2BIG;
	a->inventory->disks[a->inventory->n++] = disk;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct lb_inventory_disk *x = a, *y = b;
	size_t lx = strlen(x->name), ly = strlen(y->name);

	/* sdb before sdaa */
	return lx != ly ? (lx < ly ? -1 : 1) : strcmp(x->name, y->name);
}

int lb_inventory_read(struct lb_env *env, const char *root, struct lb_inventory *ret_inventory)
{
	_cleanup_free_ struct lb_inventory *inventory = calloc(1, sizeof(*inventory));
	struct read_all all = {.env = env, .root = root, .inventory = inventory};
	char path[PATH_BYTES];
	int r;

	if (inventory == NULL)
		return lb_fail(-ENOMEM, "out of memory for the list of disks");
	snprintf(path, sizeof(path), "%s/sys/block", root);
	r = env->ops->list(env, path, read_one, &all);
	if (r < 0)
		return lb_fail(r, "the disks of this machine can't be listed: %s: %s", path, strerror(-r));
	qsort(inventory->disks, inventory->n, sizeof(inventory->disks[0]), by_name);
	for (unsigned int i = 0; i < inventory->n; i++)
		inventory->disks[i].boot = lb_mounts_on_disk(env, root, inventory->disks[i].name, "/") ||
					   lb_mounts_on_disk(env, root, inventory->disks[i].name, "/boot");
	*ret_inventory = *inventory;
	return 0;
}

int lb_disk_find(struct lb_env *env, const char *root, const char *serial, const char *name, const char *path,
		 struct lb_inventory_disk *ret_disk)
{
	_cleanup_free_ struct lb_inventory *inventory = calloc(1, sizeof(*inventory));
	const char *base = strncmp(path, "/dev/", 5) == 0 && strchr(path + 5, '/') == NULL ? path + 5 : name;
	struct lb_inventory_disk disk;
	int r;

	if (inventory == NULL)
		return lb_fail(-ENOMEM, "out of memory for the list of disks");
	r = lb_inventory_read(env, root, inventory);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < inventory->n && serial[0] != '\0'; i++) {
		if (strcmp(inventory->disks[i].serial, serial) == 0) {
			*ret_disk = inventory->disks[i];
			return 0;
		}
	}
	if (serial[0] != '\0')
		return lb_fail(-ENODEV,
			       "disk %s with serial number %s is not there; connect it, or, if another took its place "
			       "or it is not needed any more, run `lifeboat machine protect` again",
			       name, serial);
	r = lb_disk_read(env, root, base, &disk);
	if (r < 0 || disk.size_bytes == 0)
		return lb_fail(-ENODEV,
			       "disk %s is not there; connect it, or run `lifeboat machine protect` without it", base);
	*ret_disk = disk;
	return 0;
}

/* ---- the fingerprint -------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int append_serials(struct lb_env *env, const char *root, struct lb_buf *buf)
{
	_cleanup_free_ struct lb_inventory *inventory = calloc(1, sizeof(*inventory));
	const char *serials[LB_INVENTORY_DISKS_MAX];
	unsigned int n = 0;
	int r;

	if (inventory == NULL)
		return lb_fail(-ENOMEM, "out of memory for the list of disks");
	r = lb_inventory_read(env, root, inventory);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < inventory->n; i++)
		if (inventory->disks[i].fixed && inventory->disks[i].serial[0] != '\0')
			serials[n++] = inventory->disks[i].serial;
	qsort(serials, n, sizeof(serials[0]), by_text);
	for (unsigned int i = 0; i < n; i++) {
		r = lb_buf_printf(buf, "%s\n", serials[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int machine_secret(struct lb_env *env, const char *root, const char *uuid_copy, enum lb_hardware_source source,
			  char text[128], enum lb_hardware_source *ret_source)
{
	bool firmware = sys_text(env, root, "/sys/class/dmi/id/product_uuid", text, 128) == 0 && text[0] != '\0';

	if (!firmware && uuid_copy != NULL)
		firmware = sys_text(env, "", uuid_copy, text, 128) == 0 && text[0] != '\0';
	if (firmware && source != LB_HARDWARE_MACHINE_ID) {
		*ret_source = LB_HARDWARE_FIRMWARE;
		return 0;
	}
	if (source == LB_HARDWARE_FIRMWARE)
		return lb_fail(
			-EACCES,
			"this machine was enrolled by its firmware's UUID, which can't be read now: "
			"/sys/class/dmi/id/product_uuid is root's; start the agent by its systemd unit, which hands a "
			"copy over");
	if (sys_text(env, root, "/etc/machine-id", text, 128) < 0 || text[0] == '\0')
		return lb_fail(
			-ENOENT,
			"this machine has neither a firmware UUID nor /etc/machine-id; run systemd-machine-id-setup");
	*ret_source = LB_HARDWARE_MACHINE_ID;
	return 0;
}

int lb_hardware_fingerprint(struct lb_env *env, const char *root, const char *uuid_copy, enum lb_hardware_source source,
			    char ret_hex[LB_HARDWARE_HEX_BYTES], enum lb_hardware_source *ret_source)
{
	_cleanup_buf_ struct lb_buf buf = LB_BUF(64 << 10);
	enum lb_hardware_source used;
	struct lb_digest digest;
	char secret[128];
	int r;

	r = machine_secret(env, root, uuid_copy, source, secret, &used);
	if (r < 0)
		return r;
	r = lb_buf_printf(&buf, "%s\n", secret);
	if (r < 0)
		return r;
	r = append_serials(env, root, &buf);
	if (r < 0)
		return r;
	r = lb_sha256(buf.data, buf.size_bytes, &digest);
	if (r < 0)
		return r;
	lb_hex_encode(&digest, sizeof(digest), ret_hex);
	if (ret_source != NULL)
		*ret_source = used;
	return 0;
}

/* ---- for the configuration server ------------------------------------------------------------------- */

static int disk_json(const struct lb_inventory_disk *d, json_t *list)
{
	json_t *disk = json_object();
	char path[80];

	if (disk == NULL || json_array_append_new(list, disk) < 0)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/dev/%s", d->name);
	if (lb_json_set_u64(disk, "id", json_array_size(list) - 1) < 0 || lb_json_set_str(disk, "name", d->name) < 0 ||
	    lb_json_set_str(disk, "path", path) < 0 || lb_json_set_str(disk, "serial", d->serial) < 0 ||
	    lb_json_set_u64(disk, "size_bytes", d->size_bytes) < 0 ||
	    lb_json_set_u64(disk, "sector_bytes", d->sector_bytes) < 0 || lb_json_set_bool(disk, "boot", d->boot) < 0 ||
	    lb_json_set_bool(disk, "fixed", d->fixed) < 0)
		return -ENOMEM;
	return 0;
}

static int disks_json(struct lb_env *env, const char *root, json_t *list)
{
	_cleanup_free_ struct lb_inventory *inventory = calloc(1, sizeof(*inventory));
	int r;

	if (inventory == NULL)
		return lb_fail(-ENOMEM, "out of memory for the list of disks");
	r = lb_inventory_read(env, root, inventory);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < inventory->n && json_array_size(list) < LB_CAPTURE_DISKS_MAX; i++)
		if (disk_json(&inventory->disks[i], list) < 0)
			return lb_fail(-ENOMEM, "out of memory for the list of disks");
	return 0;
}

int lb_hardware_json(struct lb_env *env, const char *root, json_t **ret_object)
{
	_cleanup_json_ json_t *object = json_object();
	json_t *disks = json_array(), *cards;
	struct utsname name;
	char path[PATH_BYTES];
	uint64_t free_bytes, size_bytes;
	bool uefi;
	int r;

	if (object == NULL || disks == NULL || json_object_set_new(object, "disks", disks) < 0 || uname(&name) < 0)
		return lb_fail(-ENOMEM, "out of memory for the description of this machine");
	snprintf(path, sizeof(path), "%s/sys/firmware/efi", root);
	uefi = env->ops->room(env, path, &free_bytes, &size_bytes) == 0;
	if (lb_json_set_str(object, "architecture", name.machine) < 0 ||
	    lb_json_set_str(object, "kernel", name.release) < 0 ||
	    lb_json_set_str(object, "firmware", uefi ? "uefi" : "bios") < 0 ||
	    lb_json_set_u64(object, "cpus", (uint64_t)LB_MAX(sysconf(_SC_NPROCESSORS_ONLN), 1)) < 0 ||
	    lb_json_set_u64(object, "memory_bytes",
			    (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE)) < 0)
		return lb_fail(-ENOMEM, "out of memory for the description of this machine");
	if (disks_json(env, root, disks) < 0)
		return lb_wrap(-EIO, "disks of this machine");
	r = lb_cards_json(env, root, &cards);
	if (r < 0)
		return r;
	if (json_object_set_new(object, "cards", cards) < 0)
		return lb_fail(-ENOMEM, "out of memory for the description of this machine");
	*ret_object = lb_steal_ptr(object);
	return 0;
}
