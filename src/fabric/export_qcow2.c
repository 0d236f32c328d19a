/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/export_qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "fabric/serve.h"

struct percent {
	uint64_t data_bytes;
	lb_export_progress_fn progress;
	void *arg;
};

/* qemu-img says "    (12.34/100%)" and a carriage return. */
static int take_percent(void *arg, const char *text, size_t size_bytes)
{
	struct percent *p = arg;
	const char *mark = memrchr(text, '(', size_bytes);
	char number[16];
	double percent;

	if (mark == NULL || p->progress == NULL)
		return 0;
	snprintf(number, sizeof(number), "%.*s", (int)(size_bytes - (size_t)(mark + 1 - text)), mark + 1);
	percent = strtod(number, NULL);
	if (percent >= 0 && percent <= 100)
		p->progress(p->arg, (uint64_t)(percent / 100 * (double)p->data_bytes), p->data_bytes);
	return 0;
}

/* For the shell that nbdkit starts: within single quotes only a single quote means something. */
static int quote(const char *text, struct lb_buf *out)
{
	int r = lb_buf_append(out, "'", 1);

	for (; r == 0 && *text != '\0'; text++)
		r = *text == '\'' ? lb_buf_append(out, "'\\''", 4) : lb_buf_append(out, text, 1);
	return r < 0 ? r : lb_buf_append(out, "'", 1);
}

static int make_durable(struct lb_env *env, const char *path)
{
	int fd = env->ops->open(env, path, O_RDWR, 0), r;

	if (fd < 0)
		return lb_fail(fd, "can't open %s: %s", path, strerror(-fd));
	r = env->ops->fsync(env, fd);
	env->ops->close(env, fd);
	return r < 0 ? lb_fail(r, "can't make %s durable: %s", path, strerror(-r)) : 0;
}

int lb_export_qcow2(struct lb_env *env, struct lb_vault *v, const struct lb_catalog_item *item,
		    const struct lb_position *position, const struct lb_catalog_disk *disk, const char *temporary,
		    uint64_t data_bytes, lb_export_progress_fn progress, void *arg)
{
	_cleanup_buf_ struct lb_buf command = LB_BUF(64u << 10), out = LB_BUF(LB_PROC_OUTPUT_BYTES_MAX);
	struct percent percent = {.data_bytes = data_bytes, .progress = progress, .arg = arg};
	_cleanup_(lb_keyring_wipe) struct lb_keyring keys = {0};
	struct lb_serve serve = {.vault_url = lb_vault_store(v)->url,
				 .machine = item->machine,
				 .position = *position,
				 .disk = disk->id,
				 .keys = &keys};
	int r;

	r = lb_vault_keyring(v, &item->machine, false, &keys);
	if (r < 0)
		return r;
	r = lb_buf_printf(&command, "umask 077; exec qemu-img convert -p -m 4 -f raw -O qcow2 \"$uri\" ");
	r = r < 0 ? r : quote(temporary, &command);
	if (r < 0)
		return lb_fail(r, "the path %s is too long", temporary);
	r = lb_serve_run(env, &serve, (char *)command.data, take_percent, &percent, &out);
	if (r == -EREMOTEIO && out.data != NULL && strstr((char *)out.data, strerror(ENOSPC)) != NULL)
		return lb_fail(-ENOSPC, "no space left for %s", temporary);
	return r < 0 ? r : make_durable(env, temporary);
}
