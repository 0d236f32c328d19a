/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A lease: a reader's word that it may still need what versions of the manifest after one dropped. It is put before the
 * manifest is read, and renewed by a thread of its own until it is released. Readers that can't write go on
 * without one and have the delay before deletion only.
 *
 * m/<uuid>/l/<hex>: a small sealed object, {"deletable", "expires_ns"}.
 */
#include "vault/manifest.h"

#define LB_LEASE_S 3600
#define LB_LEASES_MAX 4096

struct lb_lease;
/* Where it can't be put, `ret_lease` stays as it was and that is no failure. */
int lb_lease_take(struct lb_vault *v, const struct lb_uuid *machine, struct lb_lease **ret_lease);
/* NULL is fine. */
void lb_lease_release(struct lb_lease *lease);

/* What may be deleted for all that hold a lease: what versions up to `ret_deletable` dropped. Removes those that
 * expired. One that can't be read counts as one that needs everything, until it is old. */
int lb_leases_read(struct lb_vault *v, const struct lb_uuid *machine, int64_t now_ns, uint64_t *ret_deletable);
