/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The step that mends a double. Until it is recorded as done the VM was never started, so whatever is in the overlays
 * is of a mender that was killed, or failed: they are made anew. Source and vault are not written to.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/fault.h"
#include "fabric/failover_internal.h"
#include "fabric/mender.h"

#define UNMENDED "it is not mended: "
#define UNMENDED_PART "it is not mended in part: "
#define UNMENDED_ALL "it is not mended" /* how both begin */

int lb_failover_unmend(struct lb_failover *f)
{
	if (!f->mend || f->mend_done)
		return 0;
	for (uint32_t i = 0; i < f->vm.n_disks; i++) {
		int r = f->env->ops->unlink(f->env, f->vm.disks[i].path);

		if (r < 0 && r != -ENOENT)
			return lb_fail(r, "can't remove %s: %s", f->vm.disks[i].path, strerror(-r));
	}
	return 0;
}

static int overlays_anew(struct lb_failover *f)
{
	int r = lb_failover_unmend(f);

	for (uint32_t i = 0; r == 0 && i < f->vm.n_disks; i++)
		r = lb_overlay_make(f->env, f->vm.disks[i].path, f->vm.disks[i].nbd_socket, f->disks[i].size_bytes);
	return r;
}

static int overlays_sync(struct lb_failover *f)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < f->vm.n_disks; i++)
		r = lb_overlay_sync(f->env, f->vm.disks[i].path);
	return r;
}

static int idle(void *arg)
{
	return lb_failover_idle(arg);
}

static int set_text(char **text, const char *before, const char *words)
{
	char *joined;

	if (asprintf(&joined, "%s%s%s", before != NULL ? before : "", before != NULL ? "; " : "", words) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	free(*text);
	*text = joined;
	return 0;
}

/* What an earlier try, from another point, has left: it is the last of the warnings. */
static void forget(struct lb_failover *f)
{
	char *at = f->warning != NULL ? strstr(f->warning, UNMENDED_ALL) : NULL;

	free(f->mended);
	f->mended = NULL;
	if (at == NULL)
		return;
	if (at == f->warning) {
		free(f->warning);
		f->warning = NULL;
	} else {
		at[-2] = '\0'; /* "; " */
	}
}

/* The double is as if nobody had tried. */
static int put_back(struct lb_failover *f, int error)
{
	char text[LB_ERR_TEXT_BYTES_MAX], words[LB_ERR_TEXT_BYTES_MAX + 32];
	int r;

	snprintf(text, sizeof(text), "%s", lb_err_text());
	r = overlays_anew(f);
	if (r < 0)
		return r;
	if (f->mend_required)
		return lb_fail(error, "%s", text);
	snprintf(words, sizeof(words), UNMENDED "%s", text);
	f->vm.bus = f->bus_unmended;
	return set_text(&f->warning, f->warning, words);
}

static int note_result(struct lb_failover *f, const struct lb_mender_result *result)
{
	char words[LB_MENDER_TEXT_BYTES + 32];

	snprintf(words, sizeof(words), UNMENDED_PART "%s", result->left);
	if (result->left[0] != '\0' && set_text(&f->warning, f->warning, words) < 0)
		return -ENOMEM;
	return set_text(&f->mended, NULL, result->done);
}

int lb_failover_mend(struct lb_failover *f)
{
	struct lb_mender_result result = {0};
	int r;

	if (!f->mend || f->mend_done)
		return 0;
	forget(f);
	r = overlays_anew(f);
	if (r < 0)
		return r;
	r = lb_mender_run(f->env, &f->vm, idle, f, &result);
	if (r == 0)
		r = overlays_sync(f);
	lb_fault_place("double %s: the mender has ended, which is not noted", f->vm.name);
	if (r == -ECANCELED || r == -ESHUTDOWN)
		return r;
	r = r < 0 ? put_back(f, r) : note_result(f, &result);
	f->mend_done = r == 0;
	return r;
}
