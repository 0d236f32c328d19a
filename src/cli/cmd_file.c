/* SPDX-License-Identifier: Apache-2.0 */
/* Single files of a recovery point, read from the vault alone and without a mount. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/guestfs.h"
#include "files/restore.h"
#include "vault/image.h"

#define TEXT_BYTES_MAX 1024

/* An open filesystem of a point, and what it lies on. */
struct place {
	struct lb_catalog_item item;
	const struct lb_catalog_disk *disk;
	struct lb_point point;
	struct lb_image *image;
	struct lb_disk_bytes bytes;
	struct lb_volumes volumes;
	const struct lb_volume *volume;
	struct lb_ext *ext;
	struct guestfs guestfs; /* in place of `ext`, where `want` is set */
};

static void place_close(struct place *p)
{
	if (p->ext != NULL)
		lb_ext_close(p->ext);
	if (p->image != NULL)
		lb_image_free(p->image);
}

static int read_disk(void *arg, void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	struct place *p = arg;

	return lb_image_pread(p->image, p->disk->id, buf, size_bytes, offset_bytes);
}

static int pick_disk(struct cli *c, struct place *p)
{
	const char *name = cli_value(c, "disk");

	if (name != NULL)
		return cli_disk_find(&p->item, name, &p->disk);
	if (p->item.n_disks == 1) {
		p->disk = &p->item.disks[0];
		return 0;
	}
	for (uint32_t i = 0; i < p->item.n_disks; i++)
		if (p->item.disks[i].boot)
			p->disk = &p->item.disks[i];
	return p->disk != NULL ? 0
			       : lb_fail(-EINVAL, "machine %s has %u disks; say which one by --disk", p->item.name,
					 p->item.n_disks);
}

/* "partition 1: FAT (512 MiB), partition 2: ext2/3/4 (20 GiB)" */
static void tell_volumes(const struct lb_volumes *v, char text[TEXT_BYTES_MAX])
{
	size_t at = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < v->n && at + 100 < TEXT_BYTES_MAX; i++) {
		char size[LB_SIZE_TEXT_BYTES], where[32] = "the whole disk";

		if (v->at[i].partition > 0)
			snprintf(where, sizeof(where), "partition %u", v->at[i].partition);
		at += (size_t)snprintf(text + at, TEXT_BYTES_MAX - at, "%s%s: %s (%s)", i > 0 ? ", " : "", where,
				       v->at[i].kind[0] != '\0' ? v->at[i].kind : "unknown",
				       lb_size_format(v->at[i].size_bytes, size));
	}
}

static int cannot_read(const struct place *p, const char *what)
{
	char text[TEXT_BYTES_MAX];

	tell_volumes(&p->volumes, text);
	return lb_fail(-EOPNOTSUPP,
		       "disk %s of %s: %s. It holds %s. The disk can be written to a file by `lifeboat point export`",
		       p->disk->name, p->item.name, what, text);
}

/* What guestfish opens for us; a small FAT beside the rest is the firmware's. */
static bool is_foreign(const struct lb_volume *v, bool asked)
{
	static const char *const kinds[] = {"xfs", "btrfs", "LVM", "NTFS", "Linux software RAID"};

	for (size_t i = 0; i < LB_ARRAY_LEN(kinds); i++)
		if (strcmp(v->kind, kinds[i]) == 0)
			return true;
	return asked && (v->kind[0] == '\0' || strcmp(v->kind, "FAT") == 0);
}

static void want(struct place *p, const struct lb_volume *v)
{
	size_t at = (size_t)snprintf(p->guestfs.want, sizeof(p->guestfs.want), "/dev/sda");

	if (v->partition > 0)
		snprintf(p->guestfs.want + at, sizeof(p->guestfs.want) - at, "%u", v->partition);
}

static int pick_volume(struct cli *c, struct place *p)
{
	const char *name = cli_value(c, "volume");
	const struct lb_volume *found = NULL;
	bool asked = cli_value(c, "partition") != NULL;
	char text[TEXT_BYTES_MAX];
	uint64_t number = 0;
	uint32_t n = 0;
	int r;

	if (name != NULL) {
		if (snprintf(p->guestfs.want, sizeof(p->guestfs.want), "/dev/%s",
			     strncmp(name, "/dev/", 5) == 0 ? name + 5 : name) >= (int)sizeof(p->guestfs.want))
			return lb_fail(-EINVAL, "\"%.60s...\" is no name of a volume", name);
		return 0;
	}
	r = asked ? cli_value_u64(c, "partition", LB_VOLUMES_MAX, &number) : 0;
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < p->volumes.n; i++) {
		const struct lb_volume *v = &p->volumes.at[i];

		if (asked ? v->partition == number : strcmp(v->kind, LB_VOLUME_EXT) == 0 || is_foreign(v, false)) {
			found = v;
			n++;
		}
	}
	if (n > 1) {
		tell_volumes(&p->volumes, text);
		return lb_fail(-EINVAL, "disk %s of %s has several filesystems; say which one by --partition: %s",
			       p->disk->name, p->item.name, text);
	}
	if (found == NULL)
		return cannot_read(p, asked ? "there is no such partition" : "there is no filesystem that can be read");
	p->volume = found;
	if (strcmp(found->kind, LB_VOLUME_EXT) == 0)
		return 0;
	if (!is_foreign(found, asked))
		return cannot_read(p, "that partition can't be read");
	want(p, found);
	return 0;
}

static int open_place(struct cli *c, struct place *p)
{
	const char *point = cli_value(c, "point") != NULL ? cli_value(c, "point") : "latest";
	int r;

	r = cli_vault_machine(c, c->args[0], &p->item);
	if (r == 0)
		r = pick_disk(c, p);
	if (r == 0)
		r = lb_point_find(c->vault, &p->item.machine, point, &p->point);
	if (r == 0)
		r = lb_image_open(c->vault, &p->item.machine, &p->point.position, LB_IMAGE_CACHE_BYTES_DEFAULT,
				  &p->image);
	if (r < 0)
		return r;
	p->bytes = (struct lb_disk_bytes){.pread = read_disk,
					  .arg = p,
					  .size_bytes = p->disk->size_bytes,
					  .sector_bytes = p->disk->sector_bytes > 0 ? p->disk->sector_bytes : 512};
	r = lb_volumes_find(&p->bytes, &p->volumes);
	if (r == 0)
		r = pick_volume(c, p);
	if (r == 0 && p->guestfs.want[0] == '\0')
		r = lb_ext_open(&p->bytes, p->volume, &p->ext);
	p->guestfs.env = c->env;
	p->guestfs.vault = c->vault;
	p->guestfs.vault_url = c->vault_url;
	p->guestfs.item = &p->item;
	p->guestfs.disk = p->disk;
	p->guestfs.position = p->point.position;
	return r < 0 ? lb_wrap(r, "disk %s of %s", p->disk->name, p->item.name) : 0;
}

/* guestfish's filesystems have replayed their logs. */
static bool needs_recovery(const struct place *p)
{
	return p->ext != NULL && lb_ext_needs_recovery(p->ext);
}

/* On standard error, so that what is listed stays as it is. */
static void tell_recovery(struct cli *c, const struct place *p)
{
	if (needs_recovery(p) && !c->json)
		fprintf(stderr, "note: the filesystem was in use at this point, and its journal is not replayed: what "
				"was made or "
				"changed in the seconds before may be missing or as it was. An application-consistent "
				"point has "
				"no such gap.\n");
}

/* ---- ls ---- */

struct listing {
	struct cli *c;
	struct lb_ext *ext;
	json_t *list;
};

static const char *kind_of(mode_t mode)
{
	return S_ISDIR(mode) ? "folder" : S_ISREG(mode) ? "file" : S_ISLNK(mode) ? "link" : "other";
}

static void mode_text(mode_t mode, char text[11])
{
	static const char bits[] = "rwxrwxrwx";

	text[0] = S_ISDIR(mode) ? 'd' : S_ISREG(mode) ? '-' : S_ISLNK(mode) ? 'l' : '?';
	for (int i = 0; i < 9; i++)
		text[1 + i] = (mode & (0400 >> i)) != 0 ? bits[i] : '-';
	text[10] = '\0';
}

/* A name may hold anything but a slash: what a terminal would obey is shown as '?'. */
static void print_name(const char *name)
{
	for (const char *p = name; *p != '\0'; p++)
		putchar((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p);
}

static int list_json(struct listing *l, const char *name, const struct lb_ext_file *f, const char *target)
{
	json_t *o = json_pack("{s:s,s:s,s:i,s:I,s:I,s:I,s:I}", "name", name, "kind", kind_of(f->mode), "mode",
			      (int)(f->mode & 07777), "uid", (json_int_t)f->uid, "gid", (json_int_t)f->gid,
			      "size_bytes", (json_int_t)f->size_bytes, "mtime_s", (json_int_t)f->mtime_s);

	if (o == NULL) { /* a name that is no UTF-8 */
		char hex[2 * LB_EXT_NAME_BYTES + 1];

		lb_hex_encode((const uint8_t *)name, strlen(name), hex);
		o = json_pack("{s:s,s:s,s:i,s:I,s:I,s:I,s:I}", "name_hex", hex, "kind", kind_of(f->mode), "mode",
			      (int)(f->mode & 07777), "uid", (json_int_t)f->uid, "gid", (json_int_t)f->gid,
			      "size_bytes", (json_int_t)f->size_bytes, "mtime_s", (json_int_t)f->mtime_s);
	}
	if (o != NULL && target != NULL)
		json_object_set_new(o, "target", json_string(target)); /* left out when it is no UTF-8 */
	return json_array_append_new(l->list, o) < 0 ? lb_fail(-ENOMEM, "out of memory") : 0;
}

static int tell_file(void *arg, const char *name, const struct lb_ext_file *f, const char *target)
{
	char mode[11], when[LB_TIME_TEXT_BYTES];
	struct listing *l = arg;

	if (l->c->json)
		return list_json(l, name, f, target);
	mode_text(f->mode, mode);
	printf("%s %5u %5u %12llu  %s  ", mode, f->uid, f->gid, (unsigned long long)f->size_bytes,
	       lb_time_format(f->mtime_s * LB_NS_PER_S, when));
	print_name(name);
	if (target != NULL) {
		printf(" -> ");
		print_name(target);
	}
	putchar('\n');
	return 0;
}

static int list_one(void *arg, const char *name, const struct lb_ext_file *f)
{
	char target[LB_EXT_LINK_BYTES];
	struct listing *l = arg;
	bool is_link = S_ISLNK(f->mode) && lb_ext_readlink(l->ext, f, target) == 0;

	return tell_file(l, name, f, is_link ? target : NULL);
}

static const char *last_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

/* Without slashes at its end. */
static int take_path(const char *path, char **ret_path)
{
	char *copy = strdup(path);

	if (copy == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	*ret_path = copy;
	return 0;
}

static int list(struct place *p, const char *path, struct listing *l)
{
	struct lb_ext_file file;
	int r;

	if (p->guestfs.want[0] != '\0')
		return guestfs_list(&p->guestfs, path, tell_file, l);
	l->ext = p->ext;
	r = lb_ext_find(p->ext, path, &file);
	if (r < 0)
		return r;
	tell_recovery(l->c, p);
	return S_ISDIR(file.mode) ? lb_ext_list(p->ext, &file, list_one, l) : list_one(l, last_name(path), &file);
}

int cmd_file_ls(struct cli *c)
{
	_cleanup_json_ json_t *files = json_array();
	struct listing l = {.c = c, .list = files};
	_cleanup_free_ char *path = NULL;
	_cleanup_(place_close) struct place p = {0};
	int r;

	r = take_path(c->n_args > 1 ? c->args[1] : "/", &path);
	if (r == 0)
		r = open_place(c, &p);
	if (r == 0)
		r = list(&p, path, &l);
	if (r < 0 || !c->json)
		return r;
	return cli_print_json("files",
			      json_pack("{s:s,s:s,s:i,s:s?,s:s,s:b,s:O}", "machine", p.item.name, "disk", p.disk->name,
					"partition", p.volume != NULL ? (int)p.volume->partition : 0, "volume",
					cli_value(c, "volume"), "path", path, "needs_recovery", needs_recovery(&p),
					"files", files));
}

/* ---- get ---- */

/* `file`: of an ext filesystem. */
static int put_in(struct cli *c, struct place *p, const char *path, const struct lb_ext_file *file, const char *to)
{
	const char *name = last_name(path)[0] != '\0' ? last_name(path) : "root"; /* "/" as a whole */
	struct lb_restore restore = {.force = cli_value(c, "force") != NULL};
	_cleanup_close_ int fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char size[LB_SIZE_TEXT_BYTES];
	int r;

	if (fd < 0)
		return lb_fail(-errno, "%s: %s; --to takes a folder that is there", to, strerror(errno));
	if (c->dry_run)
		return cli_would(c, "put %s into %s", name, to);
	r = p->ext != NULL ? lb_restore(p->ext, file, fd, name, &restore)
			   : guestfs_get(&p->guestfs, path, fd, name, &restore);
	if (r < 0)
		return lb_wrap(r, "%s", to);
	if (restore.left_out > 0)
		c->degraded = true;
	return cli_did(c, "restored",
		       json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:b}", "machine", p->item.name, "disk",
				 p->disk->name, "path", c->args[1], "to", to, "files", (json_int_t)restore.files,
				 "folders", (json_int_t)restore.folders, "bytes", (json_int_t)restore.bytes, "left_out",
				 (json_int_t)restore.left_out, "needs_recovery", needs_recovery(p)),
		       "%s of %s is in %s: %llu files, %llu folders, %s%s.", c->args[1], p->item.name, to,
		       (unsigned long long)restore.files, (unsigned long long)restore.folders,
		       lb_size_format(restore.bytes, size),
		       restore.left_out > 0 ? "; devices, sockets or pipes were left out" : "");
}

int cmd_file_get(struct cli *c)
{
	const char *to = cli_value(c, "to") != NULL ? cli_value(c, "to") : ".";
	_cleanup_free_ char *path = NULL;
	_cleanup_(place_close) struct place p = {0};
	struct lb_ext_file file = {0};
	int r;

	r = take_path(c->args[1], &path);
	if (r == 0)
		r = open_place(c, &p);
	if (r == 0 && p.ext != NULL)
		r = lb_ext_find(p.ext, path, &file);
	if (r < 0)
		return r;
	tell_recovery(c, &p);
	return put_in(c, &p, path, &file, to);
}
