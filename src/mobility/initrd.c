/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/initrd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"

#define HEADER_BYTES 110
#define FIELD_FILE_SIZE 54 /* c_filesize: 8 hex digits */
#define FIELD_NAME_SIZE 94
#define BUFFER_BYTES (64u << 10)
#define TRAILER "TRAILER!!!"

/* Reads on, counts, and can take back what it has looked at. */
struct stream {
	int fd;
	uint64_t offset_bytes; /* of what was consumed */
	uint8_t buffer[BUFFER_BYTES];
	size_t from, to;
};

static int fill(struct stream *s, size_t wanted)
{
	ssize_t n;

	if (s->to - s->from >= wanted)
		return 0;
	memmove(s->buffer, s->buffer + s->from, s->to - s->from);
	s->to -= s->from;
	s->from = 0;
	while (s->to < wanted) {
		n = read(s->fd, s->buffer + s->to, sizeof(s->buffer) - s->to);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return lb_fail(-errno, "the initramfs can't be read: %s", strerror(errno));
		if (n == 0)
			return -ENODATA;
		s->to += (size_t)n;
	}
	return 0;
}

static int skip(struct stream *s, uint64_t bytes)
{
	while (bytes > 0) {
		size_t have;
		int r;

		r = fill(s, 1);
		if (r < 0)
			return r;
		have = (size_t)LB_MIN(bytes, (uint64_t)(s->to - s->from));
		s->from += have;
		s->offset_bytes += have;
		bytes -= have;
	}
	return s->offset_bytes > LB_INITRD_BYTES_MAX ? lb_fail(-EFBIG, "the initramfs is larger than it may be") : 0;
}

static int hex_field(const uint8_t *at, uint32_t *ret_value)
{
	uint32_t value = 0;

	for (int i = 0; i < 8; i++) {
		uint8_t c = at[i];
		uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
				 : c >= 'a' && c <= 'f' ? c - 'a' + 10u
				 : c >= 'A' && c <= 'F' ? c - 'A' + 10u
							: 16u;

		if (digit == 16)
			return lb_fail(-EBADMSG, "the initramfs has a damaged header");
		value = value << 4 | digit;
	}
	*ret_value = value;
	return 0;
}

static uint64_t padding(uint64_t bytes)
{
	return (4 - bytes % 4) % 4;
}

/* One member; 1 at an archive's end. */
static int member(struct stream *s, lb_initrd_name_fn fn, void *arg)
{
	char name[LB_INITRD_NAME_BYTES_MAX];
	uint32_t name_bytes = 0, file_bytes = 0;
	bool end;
	int r;

	r = fill(s, HEADER_BYTES);
	if (r < 0)
		return r;
	r = hex_field(s->buffer + s->from + FIELD_NAME_SIZE, &name_bytes);
	if (r == 0)
		r = hex_field(s->buffer + s->from + FIELD_FILE_SIZE, &file_bytes);
	if (r < 0)
		return r;
	if (name_bytes == 0 || name_bytes > sizeof(name))
		return lb_fail(-EBADMSG, "the initramfs has a name of %u bytes", name_bytes);
	r = skip(s, HEADER_BYTES);
	if (r == 0)
		r = fill(s, name_bytes);
	if (r < 0)
		return r;
	memcpy(name, s->buffer + s->from, name_bytes);
	name[name_bytes - 1] = '\0';
	end = strcmp(name, TRAILER) == 0;
	if (!end)
		fn(arg, name);
	r = skip(s, name_bytes + padding(HEADER_BYTES + name_bytes));
	if (r == 0)
		r = skip(s, file_bytes + padding(file_bytes));
	return r < 0 ? r : end;
}

/* Archives follow one another, with zeroes between. Stops, with 0, at the end or at what is no cpio. */
static int archives(struct stream *s, lb_initrd_name_fn fn, void *arg)
{
	uint32_t files = 0;
	int r;

	for (;;) {
		r = fill(s, 1);
		if (r == 0 && s->buffer[s->from] == 0) {
			r = skip(s, 1);
			if (r < 0)
				return r;
			continue;
		}
		if (r == 0)
			r = fill(s, 6);
		if (r == -ENODATA)
			return 0;
		if (r < 0)
			return r;
		if (memcmp(s->buffer + s->from, "07070", 5) != 0)
			return 0;
		r = member(s, fn, arg);
		if (r == -ENODATA)
			return lb_fail(-EBADMSG, "the initramfs ends within a file");
		if (r < 0)
			return r;
		if (++files > LB_INITRD_FILES_MAX)
			return lb_fail(-EFBIG, "the initramfs has more than %d files", LB_INITRD_FILES_MAX);
	}
}

static const char *program_of(const uint8_t *magic)
{
	static const struct {
		uint8_t magic[4];
		size_t n;
		const char *program;
	} kinds[] = {
		{{0x1f, 0x8b}, 2, "gzip"},
		{{0x28, 0xb5, 0x2f, 0xfd}, 4, "zstd"},
		{{0xfd, '7', 'z', 'X'}, 4, "xz"},
		{{0x5d, 0x00, 0x00}, 3, "xz"},
		{{0x02, 0x21, 0x4c, 0x18}, 4, "lz4"},
		{{0x04, 0x22, 0x4d, 0x18}, 4, "lz4"},
		{{'B', 'Z', 'h'}, 3, "bzip2"},
	};

	for (size_t i = 0; i < LB_ARRAY_LEN(kinds); i++)
		if (memcmp(magic, kinds[i].magic, kinds[i].n) == 0)
			return kinds[i].program;
	return NULL;
}

/* After a fork of a process with threads: only what is safe there. */
static void become(const char *program, int from, int to)
{
	const struct rlimit cpu = {LB_INITRD_CHILD_CPU_S, LB_INITRD_CHILD_CPU_S},
			    memory = {LB_INITRD_CHILD_MEMORY_BYTES, LB_INITRD_CHILD_MEMORY_BYTES}, none = {0, 0};
	sigset_t mask;

	sigemptyset(&mask);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(from, STDIN_FILENO) < 0 || dup2(to, STDOUT_FILENO) < 0 || setrlimit(RLIMIT_CPU, &cpu) < 0 ||
	    setrlimit(RLIMIT_AS, &memory) < 0 || setrlimit(RLIMIT_CORE, &none) < 0 ||
	    setrlimit(RLIMIT_FSIZE, &none) < 0)
		_exit(126);
	execlp(program, program, "-dcq", (char *)NULL);
	_exit(127);
}

/* What unpacks `fd` from where it stands now. */
static int unpack(const char *program, int fd, lb_initrd_name_fn fn, void *arg)
{
	_cleanup_free_ struct stream *s = calloc(1, sizeof(*s));
	_cleanup_close_ int out = -1;
	int fds[2], status = 0, r;
	pid_t pid;

	if (s == NULL)
		return lb_fail(-ENOMEM, "out of memory for an initramfs");
	if (pipe2(fds, O_CLOEXEC) < 0)
		return lb_fail(-errno, "no pipe: %s", strerror(errno));
	out = fds[0];
	pid = fork();
	if (pid == 0)
		become(program, fd, fds[1]);
	close(fds[1]);
	if (pid < 0)
		return lb_fail(-errno, "can't start %s: %s", program, strerror(errno));
	s->fd = out;
	r = archives(s, fn, arg);
	lb_closep(&out); /* one that writes on is ended by SIGPIPE */
	out = -1;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return lb_fail(-ENOENT, "%s is not installed", program);
	if (r == 0 && s->offset_bytes == 0)
		return lb_fail(-EBADMSG, "%s can't unpack the initramfs", program);
	return r;
}

int lb_initrd_list(int fd, lb_initrd_name_fn fn, void *arg)
{
	_cleanup_free_ struct stream *s = calloc(1, sizeof(*s));
	const char *program;
	int r;

	if (s == NULL)
		return lb_fail(-ENOMEM, "out of memory for an initramfs");
	s->fd = fd;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return lb_fail(-errno, "the initramfs can't be read: %s", strerror(errno));
	r = archives(s, fn, arg);
	if (r < 0)
		return r;
	r = fill(s, 4);
	if (r == -ENODATA)
		return s->offset_bytes > 0 ? 0 : lb_fail(-EBADMSG, "the initramfs is empty");
	program = r == 0 ? program_of(s->buffer + s->from) : NULL;
	if (r == 0 && program == NULL)
		r = lb_fail(-EBADMSG, "the initramfs is packed in a way that isn't known here");
	if (r == 0 && lseek(fd, (off_t)s->offset_bytes, SEEK_SET) < 0)
		r = lb_fail(-errno, "the initramfs can't be read: %s", strerror(errno));
	return r < 0 ? r : unpack(program, fd, fn, arg);
}
