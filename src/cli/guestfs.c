/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guestfish takes its commands from a file. What a command needs of an earlier one's answer, a few lines of shell make
 * of it ("<!"): which filesystem to mount, what kind of file a path is, which names a folder has.
 */
#include "cli/guestfs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/text.h"
#include "fabric/accel.h"
#include "fabric/proc.h"
#include "fabric/serve.h"
#include "files/restore_parts.h"
#include "files/untar.h"

#define PATH_BYTES_MAX 4096
#define LINE_BYTES_MAX (64u << 10)
#define STAT_BYTES_MAX 4096
#define FILESYSTEMS_BYTES_MAX (64u << 10)

static const char *const files[] = {"run",    "commands", "choose", "second", "fs",   "candidates",
				    "chosen", "mounted",  "stat",   "names",  "link", "log"};

/* Only device names that hold nothing a command line would take apart. */
static const char choose[] =
	"grep -E '^/dev/[A-Za-z0-9+_./-]+: ' fs | grep -v -E ': (swap|unknown|crypto_LUKS|BitLocker)$' |\n"
	"        sed 's/: [^:]*$//' > candidates\n"
	"if ! grep -x -F -e \"$LIFEBOAT_WANT\" candidates > chosen; then\n"
	"        case $LIFEBOAT_WANT in /dev/sd*) grep -v '^/dev/sd' candidates > chosen ;; esac\n"
	"fi\n"
	"if [ \"$(wc -l < chosen)\" -eq 1 ]; then\n"
	"        : > mounted\n"
	"        printf 'mount-ro \"%s\" /\\n' \"$(cat chosen)\"\n"
	"fi\n";

/* A record is "@" and the name in hex, then what guestfish prints of it. */
static const char list_second[] =
	"mode=$(sed -n 's/^st_mode: //p' stat)\n"
	"if [ $((mode & 61440)) -ne 16384 ]; then\n"
	"        printf 'echo \"@%s\"\\n-lstatns \"%s\"\\n-readlink \"%s\"\\n' \"$LIFEBOAT_NAME\" \"$LIFEBOAT_PATH\" "
	"\"$LIFEBOAT_PATH\"\n"
	"elif [ -e names ]; then\n"
	"        od -An -v -tx1 names | tr -d '\\n' | sed 's/ 00/\\n/g' | awk 'NF {\n"
	"                name = path = $0\n"
	"                gsub(/ /, \"\", name)\n"
	"                gsub(/ /, \"\\\\x\", path)\n"
	"                path = ENVIRON[\"LIFEBOAT_PATH\"] \"\\\\x2f\" path\n"
	"                printf \"echo \\\"@%s\\\"\\n-lstatns \\\"%s\\\"\\n-readlink \\\"%s\\\"\\n\", name, path, "
	"path\n"
	"        }'\n"
	"fi\n";

static const char get_second[] = "mode=$(sed -n 's/^st_mode: //p' stat)\n"
				 "case $((mode & 61440)) in\n"
				 "16384) printf 'tar-out \"%s\" -\\n' \"$LIFEBOAT_PATH\" ;;\n"
				 "32768) printf 'download \"%s\" -\\n' \"$LIFEBOAT_PATH\" ;;\n"
				 "40960) printf 'readlink \"%s\" | cat > link\\n' \"$LIFEBOAT_PATH\" ;;\n"
				 "esac\n";

struct session {
	const struct guestfs *g;
	char folder[64];
};

static void session_end(struct session *s)
{
	char path[128];

	for (size_t i = 0; i < LB_ARRAY_LEN(files) && s->folder[0] != '\0'; i++) {
		snprintf(path, sizeof(path), "%s/%s", s->folder, files[i]);
		unlink(path);
	}
	if (s->folder[0] != '\0')
		rmdir(s->folder);
}

static int put(const struct session *s, const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", s->folder, name);
	return lb_file_write(s->g->env, path, text, strlen(text), 0600);
}

/* Any byte may be in a path: all are told in hex. */
static int tell_path(const char *path, char text[4 * PATH_BYTES_MAX + 8])
{
	size_t n = 0;

	if (strlen(path) >= PATH_BYTES_MAX)
		return lb_fail(-ENAMETOOLONG, "the path is longer than %d bytes", PATH_BYTES_MAX - 1);
	if (path[0] != '/')
		n += (size_t)snprintf(text, 8, "\\x2f");
	for (const char *p = path; *p != '\0'; p++)
		n += (size_t)snprintf(text + n, 8, "\\x%02x", (unsigned char)*p);
	return 0;
}

static int look_for_program(void)
{
	const char *told = getenv("LIFEBOAT_GUESTFISH");
	_cleanup_free_ char *path = NULL;

	if (lb_proc_which(told != NULL ? told : "guestfish", &path) == 0)
		return 0;
	return lb_fail(-EOPNOTSUPP,
		       "this filesystem is read by guestfish, which is not installed here: `apt-get install "
		       "guestfish libguestfs-xfs`, and linux-image-amd64 where /boot has no kernel; or write the disk "
		       "to a file by `lifeboat point export`, and open that elsewhere");
}

static int begin(struct session *s, const char *path, const char *second)
{
	char told[4 * PATH_BYTES_MAX + 8] = "", hex[2 * PATH_BYTES_MAX + 1] = "";
	_cleanup_buf_ struct lb_buf commands = LB_BUF(LB_KIB(256));
	const char *name = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path, *why;
	int r;

	r = look_for_program();
	if (r == 0)
		r = tell_path(path, told);
	if (r < 0)
		return r;
	snprintf(s->folder, sizeof(s->folder), "/tmp/lifeboat-file.XXXXXX");
	if (mkdtemp(s->folder) == NULL) {
		s->folder[0] = '\0';
		return lb_fail(-errno, "can't make a folder in /tmp: %s", strerror(errno));
	}
	lb_hex_encode((const uint8_t *)name, strlen(name), hex);
	if (setenv("LIFEBOAT_FOLDER", s->folder, 1) < 0 || setenv("LIFEBOAT_WANT", s->g->want, 1) < 0 ||
	    setenv("LIFEBOAT_PATH", told, 1) < 0 || setenv("LIFEBOAT_NAME", hex, 1) < 0 ||
	    setenv("LIBGUESTFS_BACKEND", "direct", 0) < 0 ||
	    (!lb_kvm_works(s->g->env, &why) && setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg", 0) < 0))
		return lb_fail(-ENOMEM, "out of memory");
	r = lb_buf_printf(
		&commands,
		"run\nlist-filesystems | cat > fs\n<! sh choose\nlstatns \"%s\" | cat > stat\n%s%s%s<! sh second\n",
		told, second == list_second ? "-ls0 \"" : "", second == list_second ? told : "",
		second == list_second ? "\" names\n" : "");
	if (r == 0)
		r = put(s, "commands", (char *)commands.data);
	if (r == 0)
		r = put(s, "choose", choose);
	if (r == 0)
		r = put(s, "second", second);
	return r == 0 ? put(s, "run",
			    "cd \"$LIFEBOAT_FOLDER\" || exit 1\numask 077\n"
			    "exec \"${LIFEBOAT_GUESTFISH:-guestfish}\" --ro --format=raw -a "
			    "\"nbd:///?socket=$unixsocket\" < commands 2> log\n")
		      : r;
}

static int read_text(const struct session *s, const char *name, size_t size_bytes_max, char **ret_text)
{
	size_t size_bytes;
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", s->folder, name);
	return lb_file_read(s->g->env, path, size_bytes_max, (uint8_t **)ret_text, &size_bytes);
}

/* "/dev/sda1: ext4, /dev/vg/root: xfs" */
static void join_lines(char *text)
{
	size_t n = strlen(text);

	while (n > 0 && text[n - 1] == '\n')
		text[--n] = '\0';
	for (char *p = text; *p != '\0'; p++)
		if (*p == '\n')
			*p = ',';
		else if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
}

/* What went wrong, in guestfish's words, or in ours where they say more. */
static int explain(const struct session *s, int r)
{
	char path[128], line[LB_PROC_LAST_LINE_BYTES], own[LB_ERR_TEXT_BYTES_MAX];
	_cleanup_free_ char *there = NULL;

	snprintf(own, sizeof(own), "%s", lb_err_text());
	snprintf(path, sizeof(path), "%s/mounted", s->folder);
	if (access(path, F_OK) != 0 && read_text(s, "fs", FILESYSTEMS_BYTES_MAX, &there) == 0) {
		join_lines(there);
		return lb_fail(-EINVAL,
			       "%s names no filesystem of disk %s, or several; say which one by --volume: %.300s",
			       s->g->want, s->g->disk->name, there);
	}
	snprintf(path, sizeof(path), "%s/log", s->folder);
	lb_proc_last_line(s->g->env, path, line);
	if (line[0] == '\0')
		return lb_fail(r, "%s", own);
	if (strstr(line, "No such file") != NULL)
		return lb_fail(-ENOENT, "there is no such file: %s", line);
	return lb_fail(r, "guestfish: %s%s", line,
		       there == NULL ? " (it needs a kernel in /boot, or SUPERMIN_KERNEL and SUPERMIN_MODULES; "
				       "`libguestfs-test-tool` tells more)"
				     : "");
}

static int run(struct session *s, int (*output)(void *arg, const char *text, size_t size_bytes), void *arg)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring keys = {0};
	_cleanup_buf_ struct lb_buf out = LB_BUF(LB_PROC_OUTPUT_BYTES_MAX);
	struct lb_serve serve = {.vault_url = s->g->vault_url,
				 .machine = s->g->item->machine,
				 .position = s->g->position,
				 .disk = s->g->disk->id,
				 .keys = &keys};
	int r;

	r = lb_vault_keyring(s->g->vault, &s->g->item->machine, false, &keys);
	if (r < 0)
		return r;
	r = lb_serve_run(s->g->env, &serve, "export unixsocket; exec sh \"$LIFEBOAT_FOLDER/run\"", output, arg, &out);
	return r == -EREMOTEIO || r == -EBADMSG ? explain(s, r) : r;
}

/* ---- what guestfish prints of a file ---- */

/* One line of it; false: it is none. */
static bool take_stat(const char *line, struct lb_ext_file *f)
{
	unsigned long long v;
	char key[32];

	if (sscanf(line, "st_%31[a-z_0-9]: %llu", key, &v) != 2)
		return false;
	if (strcmp(key, "mode") == 0)
		f->mode = (mode_t)v;
	else if (strcmp(key, "uid") == 0)
		f->uid = (uint32_t)v;
	else if (strcmp(key, "gid") == 0)
		f->gid = (uint32_t)v;
	else if (strcmp(key, "size") == 0)
		f->size_bytes = v;
	else if (strcmp(key, "mtime_sec") == 0)
		f->mtime_s = (int64_t)v;
	else if (strcmp(key, "mtime_nsec") == 0)
		f->mtime_ns = (uint32_t)v;
	return true;
}

static int read_stat(const struct session *s, struct lb_ext_file *ret_file)
{
	_cleanup_free_ char *text = NULL;
	char *rest, *line;
	int r;

	r = read_text(s, "stat", STAT_BYTES_MAX, &text);
	if (r < 0)
		return r;
	*ret_file = (struct lb_ext_file){0};
	rest = text;
	while ((line = strsep(&rest, "\n")) != NULL)
		take_stat(line, ret_file);
	return ret_file->mode != 0 ? 0 : lb_fail(-EBADMSG, "guestfish tells nothing of the file");
}

/* ---- ls ---- */

struct listing {
	int (*fn)(void *arg, const char *name, const struct lb_ext_file *file, const char *target);
	void *arg;
	struct lb_buf line, target;
	char name[LB_EXT_NAME_BYTES];
	bool has_name;
	struct lb_ext_file file;
	int r; /* of fn */
};

static int tell_one(struct listing *l)
{
	char *target = (char *)l->target.data;
	bool is_link = S_ISLNK(l->file.mode) && l->target.size_bytes > 1;

	if (!l->has_name || l->file.mode == 0)
		return 0;
	if (is_link)
		target[l->target.size_bytes - 1] = '\0'; /* the line's end */
	l->r = l->fn(l->arg, l->name, &l->file, is_link ? target : NULL);
	return l->r;
}

static int begin_one(struct listing *l, const char *hex)
{
	size_t n = strlen(hex) / 2;
	int r = tell_one(l);

	if (r != 0)
		return r;
	if (n >= sizeof(l->name) || lb_hex_decode(hex, n, (uint8_t *)l->name) < 0)
		return lb_fail(-EBADMSG, "a name is out of bounds");
	l->name[n] = '\0';
	l->has_name = true;
	l->file = (struct lb_ext_file){0};
	l->target.size_bytes = 0;
	return 0;
}

static int take_line(struct listing *l, char *line)
{
	if (line[0] == '@' && strspn(line + 1, "0123456789abcdef") == strlen(line + 1) && strlen(line) % 2 == 1)
		return begin_one(l, line + 1);
	if (l->target.size_bytes == 0 && take_stat(line, &l->file))
		return 0;
	if (lb_buf_append(&l->target, line, strlen(line)) < 0 || lb_buf_append(&l->target, "\n", 1) < 0)
		return lb_fail(-EBADMSG, "a link's target is out of bounds");
	return 0;
}

static int take_lines(void *arg, const char *text, size_t size_bytes)
{
	struct listing *l = arg;
	int r = 0;

	for (size_t i = 0; r == 0 && i < size_bytes; i++) {
		char c = text[i] == '\n' ? '\0' : text[i];

		if (lb_buf_append(&l->line, &c, 1) < 0)
			return lb_fail(-EBADMSG, "a line is out of bounds");
		if (c == '\0') {
			r = take_line(l, (char *)l->line.data);
			l->line.size_bytes = 0;
		}
	}
	return r;
}

int guestfs_list(const struct guestfs *g, const char *path,
		 int (*fn)(void *arg, const char *name, const struct lb_ext_file *file, const char *target), void *arg)
{
	_cleanup_(session_end) struct session s = {.g = g};
	struct listing l = {.fn = fn, .arg = arg, .line = LB_BUF(LINE_BYTES_MAX), .target = LB_BUF(LINE_BYTES_MAX)};
	int r;

	r = begin(&s, path, list_second);
	if (r == 0)
		r = run(&s, take_lines, &l);
	if (r == 0)
		r = tell_one(&l);
	lb_buf_free(&l.line);
	lb_buf_free(&l.target);
	return r;
}

/* ---- get ---- */

struct getting {
	const struct session *s;
	int folder_fd;
	const char *name;
	struct lb_restore *restore;
	bool begun;
	struct lb_ext_file file;
	struct lb_untar *untar; /* of a folder */
	int fd;                 /* of a file */
	uint64_t at;
};

static int get_begin(struct getting *g)
{
	int r;

	if (g->begun)
		return 0;
	r = read_stat(g->s, &g->file);
	if (r == 0 && S_ISDIR(g->file.mode))
		r = lb_untar_new(g->folder_fd, g->name, g->restore, &g->untar);
	else if (r == 0 && S_ISREG(g->file.mode))
		r = lb_restore_file_open(g->folder_fd, g->name, g->restore, &g->fd);
	g->begun = r == 0;
	return r;
}

static int get_piece(void *arg, const char *text, size_t size_bytes)
{
	struct getting *g = arg;
	int r;

	r = get_begin(g);
	if (r < 0)
		return r;
	if (g->untar != NULL)
		return lb_untar_feed(g->untar, text, size_bytes);
	if (g->fd < 0 || size_bytes > g->file.size_bytes - g->at)
		return lb_fail(-EBADMSG, "more came of %s than it holds", g->name);
	r = lb_restore_file_write(g->fd, text, size_bytes, g->at);
	g->at += size_bytes;
	return r;
}

static int get_link(struct getting *g)
{
	_cleanup_free_ char *target = NULL;
	size_t n;
	int r;

	r = read_text(g->s, "link", LB_EXT_LINK_BYTES, &target);
	if (r < 0)
		return r;
	n = strlen(target);
	if (n > 0)
		target[n - 1] = '\0'; /* the line's end */
	return lb_restore_symlink(target, &g->file, g->folder_fd, g->name, g->restore);
}

static int get_end(struct getting *g)
{
	int r = get_begin(g); /* an empty file sends nothing */

	if (r < 0)
		return r;
	if (g->untar != NULL)
		return lb_untar_end(g->untar);
	if (S_ISLNK(g->file.mode))
		return get_link(g);
	if (g->fd < 0) {
		g->restore->left_out++;
		return 0;
	}
	if (g->at != g->file.size_bytes)
		return lb_fail(-EBADMSG, "%s came cut short", g->name);
	return lb_restore_file_finish(g->fd, &g->file, g->folder_fd, g->name, g->restore);
}

int guestfs_get(const struct guestfs *g, const char *path, int folder_fd, const char *name, struct lb_restore *r)
{
	_cleanup_(session_end) struct session s = {.g = g};
	struct getting get = {.s = &s, .folder_fd = folder_fd, .name = name, .restore = r, .fd = -1};
	int code;

	code = begin(&s, path, get_second);
	if (code == 0)
		code = run(&s, get_piece, &get);
	if (code == 0)
		code = get_end(&get);
	if (get.fd >= 0)
		close(get.fd);
	if (get.untar != NULL)
		lb_untar_free(get.untar);
	return code;
}
