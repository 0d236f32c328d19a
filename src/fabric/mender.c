/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/mender.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "fabric/backends.h"

#define LINE_BYTES 512
#define PATH_BYTES 1024

static const char *folder(void)
{
	const char *told = getenv("LIFEBOAT_MENDER");

	return told != NULL ? told : LB_MENDER_FOLDER;
}

int lb_mender_check(void)
{
	static const char *const files[] = {"vmlinuz", "initrd.img"};
	char path[PATH_BYTES];

	for (size_t i = 0; i < LB_ARRAY_LEN(files); i++) {
		if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder(), files[i]) >= sizeof(path) ||
		    access(path, R_OK) < 0)
			return lb_fail(-ENOENT,
				       "doubles can't be mended here: there is no mender in %.200s; `lifeboat rescue "
				       "mender` makes it",
				       folder());
	}
	return 0;
}

/* ---- what it says ---------------------------------------------------------------------------------------------------
 */

struct outcome {
	char said[LB_MENDER_TEXT_BYTES], left[LB_MENDER_TEXT_BYTES], warned[LB_MENDER_TEXT_BYTES];
	char end[16];
};

static void note(char text[LB_MENDER_TEXT_BYTES], const char *line)
{
	size_t at = strlen(text);

	snprintf(text + at, LB_MENDER_TEXT_BYTES - at, "%s%s", at > 0 ? "; " : "", line);
}

static void take_line(struct outcome *o, char *line)
{
	for (char *c = line; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || (unsigned char)*c > '~')
			*c = '?';
	if (strncmp(line, "say ", 4) == 0)
		note(o->said, line + 4);
	else if (strncmp(line, "left ", 5) == 0)
		note(o->left, line + 5);
	else if (strncmp(line, "warn ", 5) == 0)
		note(o->warned, line + 5);
	else if (strncmp(line, "end ", 4) == 0)
		snprintf(o->end, sizeof(o->end), "%.15s", line + 4);
}

int lb_mender_outcome(const char *output, size_t size_bytes, struct lb_mender_result *ret_result)
{
	struct outcome o = {0};
	char line[LINE_BYTES];
	size_t n = 0;

	for (size_t i = 0; i < size_bytes; i++) {
		if (output[i] == '\n') {
			line[n] = '\0';
			take_line(&o, line);
			n = 0;
		} else if (output[i] != '\r' && n < sizeof(line) - 1) {
			line[n++] = output[i];
		}
	}
	if (strcmp(o.end, "failed") == 0)
		return lb_fail(-EOPNOTSUPP, "%s", o.warned[0] != '\0' ? o.warned : "the mender failed without a word");
	if (strcmp(o.end, "ok") != 0 && strcmp(o.end, "nothing") != 0)
		return lb_fail(-EIO, "the mender ended before it was done");
	snprintf(ret_result->done, LB_MENDER_TEXT_BYTES, "%s%s",
		 strcmp(o.end, "nothing") == 0 ? "nothing to mend: " : "", o.said);
	memcpy(ret_result->left, o.left, sizeof(o.left));
	return 0;
}

/* ---- running it -----------------------------------------------------------------------------------------------------
 */

static void add_disk(const struct lb_vm_disk *disk, uint32_t n, struct lb_argv *a)
{
	lb_argv_add(a, "-blockdev");
	lb_argv_add(a, "driver=qcow2,node-name=disk%u,file.driver=file,file.filename=%s", n, disk->path);
	lb_argv_add(a, "-device");
	lb_argv_add(a, "scsi-hd,drive=disk%u,bus=scsi0.0,lun=%u", n, n);
}

static void make_argv(struct lb_env *env, const struct lb_vm_spec *vm, struct lb_argv *a)
{
	char mac[LB_MAC_TEXT_BYTES];

	lb_vm_mac(vm, mac);
	lb_argv_add(a, LB_QEMU_PROGRAM);
	lb_argv_add(a, "-name");
	lb_argv_add(a, "mender-%s", vm->name);
	lb_argv_add(a, "-nodefaults");
	lb_argv_add(a, "-no-user-config");
	lb_argv_add(a, "-no-reboot");
	lb_argv_add(a, "-display");
	lb_argv_add(a, "none");
	lb_argv_add(a, "-machine");
	lb_argv_add(a, "q35");
	lb_argv_add_accelerator(env, a);
	lb_argv_add(a, "-m");
	lb_argv_add(a, "%uM", LB_MENDER_MEMORY_MIB);
	lb_argv_add(a, "-sandbox");
	lb_argv_add(a, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	lb_argv_add(a, "-kernel");
	lb_argv_add(a, "%s/vmlinuz", folder());
	lb_argv_add(a, "-initrd");
	lb_argv_add(a, "%s/initrd.img", folder());
	lb_argv_add(a, "-append");
	/* the timer's check ends in a panic where a busy host emulates it too slowly */
	lb_argv_add(a, "console=ttyS0 panic=-1 no_timer_check mend.disks=%u mend.mac=%s", vm->n_disks, mac);
	lb_argv_add(a, "-serial");
	lb_argv_add(a, "file:%s/" LB_MENDER_LOG, vm->folder);
	lb_argv_add(a, "-chardev");
	lb_argv_add(a, "stdio,id=outcome,signal=off");
	lb_argv_add(a, "-serial");
	lb_argv_add(a, "chardev:outcome");
	lb_argv_add(a, "-device");
	lb_argv_add(a, "virtio-scsi-pci,id=scsi0");
	for (uint32_t i = 0; i < vm->n_disks; i++)
		add_disk(&vm->disks[i], i, a);
}

int lb_mender_run(struct lb_env *env, const struct lb_vm_spec *vm, int (*idle)(void *arg), void *arg,
		  struct lb_mender_result *ret_result)
{
	_cleanup_(lb_argv_clear) struct lb_argv a = {0};
	_cleanup_buf_ struct lb_buf output = LB_BUF(LB_PROC_OUTPUT_BYTES_MAX);
	int r;

	r = lb_mender_check();
	if (r < 0)
		return r;
	make_argv(env, vm, &a);
	if (a.error != 0)
		return lb_fail(a.error, "the mender's command line can't be made");
	r = lb_proc_run(env,
			&(struct lb_proc_run){.argv = (const char *const *)a.argv,
					      .keep_fd = -1,
					      .timeout_s = LB_MENDER_WAIT_S,
					      .idle = idle,
					      .arg = arg},
			&output);
	r = r < 0 ? r : lb_mender_outcome((const char *)output.data, output.size_bytes, ret_result);
	return r == -EIO ? lb_fail(r, "%s; its console is in %s/" LB_MENDER_LOG, lb_err_text(), vm->folder) : r;
}
