/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/ready.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "mobility/hardware.h"
#include "mobility/ready_state.h"

#define TEXT_BYTES_MAX 512
#define RING_HEADROOM_PERCENT 125

void lb_ready_note(struct lb_ready *c, const struct lb_finding *f, const char *fmt, ...)
{
	char text[TEXT_BYTES_MAX];
	json_t *one;
	va_list ap;

	if (json_array_size(c->findings) >= LB_READY_FINDINGS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *p = text; *p != '\0'; p++)
		if ((unsigned char)*p >= 0x80 || (unsigned char)*p < ' ')
			*p = '?'; /* what a file holds may be no UTF-8 */
	one = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "check", f->check, "level", f->level, "text", text, "effect",
			f->effect != NULL ? f->effect : "", "cure", f->cure != NULL ? f->cure : "", "mend",
			f->mend != NULL ? f->mend : "");
	if (json_array_append_new(c->findings, one) < 0)
		c->error = -ENOMEM;
}

const char *lb_ready_fatal(const struct lb_ready *c)
{
	return c->boot_disk[0] != '\0' ? "error" : "warning";
}

/* ---- files ---------------------------------------------------------------------------------------------- */

int lb_ready_open(struct lb_ready *c, const char *path)
{
	char full[LB_READY_PATH_BYTES];
	int fd;

	if ((size_t)snprintf(full, sizeof(full), "%s%s", c->o.root, path) >= sizeof(full))
		return -ENAMETOOLONG;
	fd = c->o.env->ops->open(c->o.env, full, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	if ((fd == -EACCES || fd == -EPERM) && c->o.open_privileged != NULL)
		fd = c->o.open_privileged(c->o.arg, full);
	return fd;
}

bool lb_ready_exists(struct lb_ready *c, const char *path)
{
	int fd = lb_ready_open(c, path);

	if (fd >= 0)
		c->o.env->ops->close(c->o.env, fd);
	return fd >= 0;
}

int lb_ready_text(struct lb_ready *c, const char *path, char **ret_text)
{
	struct lb_env *env = c->o.env;
	_cleanup_free_ char *text = NULL;
	size_t size_bytes = 0;
	ssize_t n = 0;
	int fd = lb_ready_open(c, path);

	if (fd < 0)
		return fd;
	text = malloc(LB_READY_FILE_BYTES_MAX + 1);
	/* in steps: files of /proc don't say how large they are */
	while (text != NULL && size_bytes < LB_READY_FILE_BYTES_MAX &&
	       (n = env->ops->pread(env, fd, text + size_bytes, LB_READY_FILE_BYTES_MAX - size_bytes, size_bytes)) > 0)
		size_bytes += (size_t)n;
	env->ops->close(env, fd);
	if (text == NULL)
		return -ENOMEM;
	if (n < 0)
		return (int)n;
	text[size_bytes] = '\0';
	*ret_text = lb_steal_ptr(text);
	return 0;
}

int lb_ready_lines(struct lb_ready *c, const char *path, void (*fn)(struct lb_ready *c, char *line, void *arg),
		   void *arg)
{
	_cleanup_free_ char *text = NULL;
	char *rest, *line;
	int r;

	r = lb_ready_text(c, path, &text);
	if (r < 0)
		return r;
	rest = text;
	while ((line = strsep(&rest, "\n")) != NULL) {
		size_t length;

		line += strspn(line, " \t");
		length = strlen(line);
		while (length > 0 && strchr(" \t\r", line[length - 1]) != NULL)
			line[--length] = '\0';
		if (length > 0 && line[0] != '#')
			fn(c, line, arg);
	}
	return 0;
}

bool lb_ready_unstable_device(const char *spec)
{
	static const char *const kinds[] = {"/dev/sd",     "/dev/hd",     "/dev/xvd",          "/dev/vd",
					    "/dev/nvme",   "/dev/mmcblk", "/dev/disk/by-path", "/dev/disk/by-id",
					    "/dev/cciss/", "/dev/dasd"};

	for (size_t i = 0; i < LB_ARRAY_LEN(kinds); i++)
		if (strncmp(spec, kinds[i], strlen(kinds[i])) == 0)
			return true;
	return false;
}

bool lb_ready_virtual_device(const char *spec)
{
	return strncmp(spec, "/dev/vd", 7) == 0;
}

/* ---- all of it ------------------------------------------------------------------------------------------ */

static void find_boot_disk(struct lb_ready *c)
{
	_cleanup_free_ struct lb_inventory *inventory = calloc(1, sizeof(*inventory));

	if (inventory == NULL || lb_inventory_read(c->o.env, c->o.root, inventory) < 0)
		return;
	for (unsigned int i = 0; i < inventory->n; i++)
		if (inventory->disks[i].boot && c->boot_disk[0] == '\0')
			snprintf(c->boot_disk, sizeof(c->boot_disk), "%s", inventory->disks[i].name);
}

static void check_memory(struct lb_ready *c)
{
	_cleanup_free_ char *text = NULL;
	char ring[LB_SIZE_TEXT_BYTES], available[LB_SIZE_TEXT_BYTES];
	unsigned long available_kib = 0;
	const char *at;

	if (c->o.ring_bytes == 0 || lb_ready_text(c, "/proc/meminfo", &text) < 0)
		return;
	at = strstr(text, "MemAvailable:");
	if (at == NULL || sscanf(at, "MemAvailable: %lu kB", &available_kib) != 1)
		return;
	lb_size_format(c->o.ring_bytes, ring);
	lb_size_format((uint64_t)available_kib << 10, available);
	if (((uint64_t)available_kib << 10) < c->o.ring_bytes / 100 * RING_HEADROOM_PERCENT)
		lb_ready_note(c,
			      &(struct lb_finding){.check = "memory",
						   .level = "warning",
						   .effect = "capture can't begin, or presses the machine's memory",
						   .cure = "a smaller ring: lifeboat policy set POLICY --ring SIZE"},
			      "%s of memory are available; the policy's ring takes %s", available, ring);
	else
		lb_ready_note(c, &(struct lb_finding){.check = "memory", .level = "ok"},
			      "%s of memory are available for a ring of %s", available, ring);
}

int lb_ready_check(const struct lb_ready_options *options, json_t **ret_object)
{
	struct lb_ready c = {.o = *options};
	struct utsname name;
	json_t *object;

	if (options->kernel == NULL && uname(&name) < 0)
		return lb_fail(-errno, "the running kernel is unknown: %s", strerror(errno));
	snprintf(c.kernel, sizeof(c.kernel), "%.127s", options->kernel != NULL ? options->kernel : name.release);
	object = json_pack("{s:I,s:[]}", "checked_ns", (json_int_t)lb_now_ns(options->env), "findings");
	if (object == NULL)
		return lb_fail(-ENOMEM, "out of memory for the readiness");
	c.findings = json_object_get(object, "findings");
	find_boot_disk(&c);
	lb_ready_drivers(&c);
	lb_ready_boot(&c);
	lb_ready_mounts(&c);
	lb_ready_network(&c);
	check_memory(&c);
	if (c.error < 0) {
		json_decref(object);
		return lb_fail(c.error, "out of memory for the readiness");
	}
	*ret_object = object;
	return 0;
}
