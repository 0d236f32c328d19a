/* SPDX-License-Identifier: Apache-2.0 */
#include "target/takeback.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/text.h"

/* The entry at the time of the failover: the double has those disks. */
static int paths_of(struct lb_failover *f, const struct lb_catalog_item *item, const char **paths)
{
	for (uint32_t i = 0; i < item->n_disks; i++) {
		paths[i] = lb_failover_disk(f, item->disks[i].id);
		if (paths[i] == NULL)
			return lb_fail(-EINVAL, "the double of %s has no disk %s", item->name, item->disks[i].name);
	}
	return 0;
}

int lb_takeback_run(struct lb_env *env, struct lb_vault *v, struct lb_failover *f, const struct lb_uuid *machine,
		    uint32_t wait_s, int (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes), void *arg,
		    struct lb_takeback *ret_takeback)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	const char *paths[LB_HRL_DISKS_MAX];
	struct lb_failover_report report;
	struct lb_takeback back;
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	lb_failover_report(f, &report);
	r = lb_catalog_get(v, machine != NULL ? machine : &report.machine, item);
	r = r < 0 ? r : paths_of(f, item, paths);
	r = r < 0 ? r : lb_failover_shut(f, wait_s, &back.gracefully);
	r = r < 0 ? r : lb_gather(env, v, item, paths, "failback", progress, arg, &back.point, &back.stats);
	r = r < 0 ? r : lb_failover_taken(f);
	if (r == 0)
		*ret_takeback = back;
	return r;
}
