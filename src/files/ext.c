/* SPDX-License-Identifier: Apache-2.0 */
#include "files/ext.h"

#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/err.h"

#define PIECE_BYTES (1u << 20)
#define ENTRIES_MAX (4u << 20) /* of one folder */

struct lb_ext {
	const struct lb_disk_bytes *disk;
	struct lb_volume volume;
	ext2_filsys fs;
	int read_failed; /* of the disk; its text is this thread's */
};

/* ---- the library's way to the bytes ---- */

static __thread struct lb_ext *opening; /* the library hands names alone to open() */

static errcode_t io_open(const char *name, int flags, io_channel *ret_channel);

static errcode_t io_close(io_channel channel)
{
	if (--channel->refcount > 0)
		return 0;
	free(channel->name);
	free(channel);
	return 0;
}

static errcode_t io_set_block_bytes(io_channel channel, int block_bytes)
{
	channel->block_size = block_bytes;
	return 0;
}

/* A negative count is one of bytes. */
static errcode_t io_read(io_channel channel, unsigned long long block, int count, void *buf)
{
	struct lb_ext *e = channel->private_data;
	uint64_t bytes = count < 0 ? (uint64_t) - (int64_t)count : (uint64_t)count * (uint64_t)channel->block_size, at;
	int r;

	if (__builtin_mul_overflow(block, (uint64_t)channel->block_size, &at) || at > e->volume.size_bytes ||
	    bytes > e->volume.size_bytes - at)
		return EXT2_ET_SHORT_READ;
	r = e->disk->pread(e->disk->arg, buf, bytes, e->volume.offset_bytes + at);
	if (r < 0)
		e->read_failed = r;
	return r < 0 ? EXT2_ET_SHORT_READ : 0;
}

static errcode_t io_read_32(io_channel channel, unsigned long block, int count, void *buf)
{
	return io_read(channel, block, count, buf);
}

static errcode_t io_write(io_channel channel, unsigned long block, int count, const void *data)
{
	(void)channel, (void)block, (void)count, (void)data;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t io_flush(io_channel channel)
{
	(void)channel;
	return 0;
}

static struct struct_io_manager disk_manager = {.magic = EXT2_ET_MAGIC_IO_MANAGER,
						.name = "lifeboat",
						.open = io_open,
						.close = io_close,
						.set_blksize = io_set_block_bytes,
						.read_blk = io_read_32,
						.write_blk = io_write,
						.flush = io_flush,
						.read_blk64 = io_read};

static errcode_t io_open(const char *name, int flags, io_channel *ret_channel)
{
	io_channel channel = calloc(1, sizeof(*channel));

	(void)flags;
	if (channel == NULL || (channel->name = strdup(name)) == NULL) {
		free(channel);
		return EXT2_ET_NO_MEMORY;
	}
	channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	channel->manager = &disk_manager;
	channel->block_size = 1024;
	channel->refcount = 1;
	channel->private_data = opening;
	*ret_channel = channel;
	return 0;
}

/* What a failure of the library means: the disk's own words when reading failed. */
static int told(struct lb_ext *e, errcode_t error, const char *what)
{
	int r = e->read_failed;

	if (r < 0) {
		e->read_failed = 0;
		return lb_wrap(r, "%s", what);
	}
	switch (error) {
	case EXT2_ET_NO_MEMORY:
		return lb_fail(-ENOMEM, "out of memory");
	case EXT2_ET_FILE_NOT_FOUND:
		return lb_fail(-ENOENT, "%s: there is no such file", what);
	case EXT2_ET_NO_DIRECTORY:
		return lb_fail(-ENOTDIR, "%s: part of it is no folder", what);
	case EXT2_ET_SYMLINK_LOOP:
		return lb_fail(-ELOOP, "%s: links lead in a circle", what);
	case EXT2_ET_UNSUPP_FEATURE:
	case EXT2_ET_RO_UNSUPP_FEATURE:
		return lb_fail(-EOPNOTSUPP, "%s: it uses a feature that this libext2fs does not know", what);
	default:
		return lb_fail(-EBADMSG, "%s: the filesystem is damaged there (error %ld of libext2fs)", what,
			       (long)error);
	}
}

int lb_ext_open(const struct lb_disk_bytes *disk, const struct lb_volume *volume, struct lb_ext **ret_ext)
{
	struct lb_ext *e = calloc(1, sizeof(*e));
	errcode_t error;
	int r;

	if (e == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	e->disk = disk;
	e->volume = *volume;
	opening = e;
	error = ext2fs_open2("disk", NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0, 0, &disk_manager, &e->fs);
	opening = NULL;
	if (error != 0) {
		r = told(e, error, "the filesystem can't be opened");
		free(e);
		return r;
	}
	*ret_ext = e;
	return 0;
}

void lb_ext_close(struct lb_ext *e)
{
	ext2fs_free(e->fs); /* which closes the channel and writes nothing */
	free(e);
}

bool lb_ext_needs_recovery(const struct lb_ext *e)
{
	return ext2fs_has_feature_journal_needs_recovery(e->fs->super);
}

int lb_ext_stat(struct lb_ext *e, uint32_t inode, struct lb_ext_file *ret_file)
{
	struct ext2_inode_large in = {0};
	errcode_t error = ext2fs_read_inode_full(e->fs, inode, (struct ext2_inode *)&in, sizeof(in));
	char what[40];

	if (error != 0) {
		snprintf(what, sizeof(what), "inode %u", inode);
		return told(e, error, what);
	}
	*ret_file = (struct lb_ext_file){.inode = inode,
					 .mode = in.i_mode,
					 .uid = in.i_uid | (uint32_t)in.osd2.linux2.l_i_uid_high << 16,
					 .gid = in.i_gid | (uint32_t)in.osd2.linux2.l_i_gid_high << 16,
					 .size_bytes = EXT2_I_SIZE((struct ext2_inode *)&in),
					 .mtime_s = (int32_t)in.i_mtime};
	if (e->fs->super->s_inode_size > EXT2_GOOD_OLD_INODE_SIZE && in.i_extra_isize >= 12) {
		ret_file->mtime_ns = LB_MIN(in.i_mtime_extra >> 2, 999999999u);
		ret_file->mtime_s += (int64_t)(in.i_mtime_extra & 3) << 32;
	}
	return 0;
}

int lb_ext_find(struct lb_ext *e, const char *path, struct lb_ext_file *ret_file)
{
	errcode_t error;
	ext2_ino_t inode;

	error = ext2fs_namei(e->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &inode);
	return error != 0 ? told(e, error, path) : lb_ext_stat(e, inode, ret_file);
}

static int take_link(void *arg, const void *data, size_t size_bytes, uint64_t offset_bytes)
{
	memcpy((char *)arg + offset_bytes, data, size_bytes);
	return 0;
}

int lb_ext_readlink(struct lb_ext *e, const struct lb_ext_file *file, char target[LB_EXT_LINK_BYTES])
{
	struct ext2_inode in;
	errcode_t error = ext2fs_read_inode(e->fs, file->inode, &in);
	int r = 0;

	if (error != 0)
		return told(e, error, "a link");
	if (!S_ISLNK(file->mode) || file->size_bytes == 0 || file->size_bytes >= LB_EXT_LINK_BYTES)
		return lb_fail(-EBADMSG, "inode %u is no link of a sound length", file->inode);
	memset(target, 0, LB_EXT_LINK_BYTES);
	if (ext2fs_is_fast_symlink(&in))
		memcpy(target, in.i_block, LB_MIN(file->size_bytes, (uint64_t)sizeof(in.i_block)));
	else
		r = lb_ext_read(e, file, take_link, target);
	if (r == 0 && target[0] == '\0')
		return lb_fail(-EBADMSG, "inode %u is a link to nothing", file->inode);
	return r;
}

struct listing {
	struct lb_ext *e;
	int (*fn)(void *arg, const char *name, const struct lb_ext_file *file);
	void *arg;
	uint32_t n;
	int r;
};

static int list_entry(struct ext2_dir_entry *entry, int offset, int block_bytes, char *buf, void *arg)
{
	int length = ext2fs_dirent_name_len(entry);
	struct listing *l = arg;
	char name[LB_EXT_NAME_BYTES];
	struct lb_ext_file file;

	(void)offset, (void)block_bytes, (void)buf;
	memcpy(name, entry->name, (size_t)length);
	name[length] = '\0';
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return 0;
	if (length == 0 || strlen(name) != (size_t)length || strchr(name, '/') != NULL)
		l->r = lb_fail(-EBADMSG,
			       "the folder has an entry whose name is none: the filesystem is damaged or hostile");
	else if (++l->n > ENTRIES_MAX)
		l->r = lb_fail(-EOVERFLOW, "the folder has more than %u entries", ENTRIES_MAX);
	else
		l->r = lb_ext_stat(l->e, entry->inode, &file);
	if (l->r == 0)
		l->r = l->fn(l->arg, name, &file);
	return l->r != 0 ? DIRENT_ABORT : 0;
}

int lb_ext_list(struct lb_ext *e, const struct lb_ext_file *folder,
		int (*fn)(void *arg, const char *name, const struct lb_ext_file *file), void *arg)
{
	struct listing l = {.e = e, .fn = fn, .arg = arg};
	errcode_t error = ext2fs_dir_iterate(e->fs, folder->inode, 0, NULL, list_entry, &l);

	return l.r != 0 || error == 0 ? l.r : told(e, error, "a folder");
}

static int check_readable(struct lb_ext *e, const struct lb_ext_file *file)
{
	struct ext2_inode in;
	errcode_t error = ext2fs_read_inode(e->fs, file->inode, &in);

	if (error != 0)
		return told(e, error, "a file");
	return (in.i_flags & EXT4_ENCRYPT_FL) == 0
		       ? 0
		       : lb_fail(-EOPNOTSUPP, "the file is encrypted on the machine (fscrypt); its key is not here");
}

int lb_ext_read(struct lb_ext *e, const struct lb_ext_file *file,
		int (*fn)(void *arg, const void *data, size_t size_bytes, uint64_t offset_bytes), void *arg)
{
	_cleanup_free_ uint8_t *piece = malloc(PIECE_BYTES);
	errcode_t error;
	ext2_file_t f;
	int r;

	if (piece == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = check_readable(e, file);
	if (r < 0)
		return r;
	error = ext2fs_file_open(e->fs, file->inode, 0, &f);
	if (error != 0)
		return told(e, error, "a file");
	for (uint64_t at = 0; r == 0 && at < file->size_bytes;) {
		unsigned int want = (unsigned int)LB_MIN(file->size_bytes - at, (uint64_t)PIECE_BYTES), got = 0;

		error = ext2fs_file_read(f, piece, want, &got);
		if (error != 0 || got == 0) {
			r = told(e, error, "a file");
			break;
		}
		r = fn(arg, piece, got, at);
		at += got;
	}
	ext2fs_file_close(f);
	return r;
}
