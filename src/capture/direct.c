/* SPDX-License-Identifier: Apache-2.0 */
/* A capture whose privileged operations are done in this process. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "capture/internal.h"

static int direct_drain(struct lb_capture *c, unsigned int disk, unsigned int timeout_ms)
{
	return lb_drain_now(c, disk, timeout_ms);
}

static int direct_grace(struct lb_capture *c)
{
	(void)c;
	return lb_pins_grace();
}

static int direct_skipped(struct lb_capture *c, uint64_t *ret_skipped)
{
	return lb_pins_skipped(c->pin_folder, ret_skipped);
}

static int direct_detach(struct lb_capture *c)
{
	return lb_pins_remove(c->pin_folder);
}

static const struct lb_capture_ops direct_ops = {
	.drain = direct_drain,
	.grace = direct_grace,
	.skipped = direct_skipped,
	.detach = direct_detach,
};

static int direct_view(struct lb_fds *fds, bool resumed, const char *folder, struct lb_capture **ret_capture)
{
	_cleanup_capture_ struct lb_capture *c = NULL;
	int r = lb_capture_map(fds, resumed, &c);
	if (r < 0)
		return r;
	c->ops = &direct_ops;
	c->pin_folder = strdup(folder);
	if (c->pin_folder == NULL)
		return lb_fail(-ENOMEM, "capture: out of memory");
	*ret_capture = lb_steal_ptr(c);
	return 0;
}

int lb_capture_attach_direct(const struct lb_capture_params *params, struct lb_capture **ret_capture)
{
	const char *folder = params->pin_folder != NULL ? params->pin_folder : LB_CAPTURE_PIN_FOLDER;
	struct lb_fds fds;
	bool resumed;
	int r = lb_pins_attach(params, &fds, &resumed);
	if (r < 0)
		return r;
	return direct_view(&fds, resumed, folder, ret_capture);
}

int lb_capture_open_direct(const char *pin_folder, struct lb_capture **ret_capture)
{
	const char *folder = pin_folder != NULL ? pin_folder : LB_CAPTURE_PIN_FOLDER;
	struct lb_fds fds;
	int r = lb_pins_open(folder, &fds);
	if (r < 0)
		return r;
	return direct_view(&fds, true, folder, ret_capture);
}

int lb_capture_detach_pinned_direct(const char *pin_folder)
{
	return lb_pins_remove(pin_folder != NULL ? pin_folder : LB_CAPTURE_PIN_FOLDER);
}

int lb_capture_detach(struct lb_capture *c)
{
	return c->ops->detach(c);
}

int lb_capture_skipped(struct lb_capture *c, uint64_t *ret_skipped)
{
	return c->ops->skipped(c, ret_skipped);
}
