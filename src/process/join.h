/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Finds out where a machine's journal durably ends: opens its writer in the vault, reads what the cache holds and
 * joins the two. What the vault has already is dropped from the cache; what does not continue the chain is put aside
 * and said. By the machine's worker; takes `order`.
 */
#include "process/machine.h"

int lb_join(struct lb_machine *m);
/*
 * Takes the writer up anew after a failure whose outcome is unknown: what the vault took after all is dropped from the
 * cache. -EEXIST when the vault holds something else at our position.
 */
int lb_join_again(struct lb_machine *m);
/* The vault holds `e` up to `seq`, or all that came before it when nothing new: forgets and removes it from the cache.
 */
void lb_join_confirmed(struct lb_machine *m, const struct lb_position *at, const struct lb_digest *digest,
		       int64_t point_ns);
/* Removes all that the cache has of a machine whose journal goes on without it. Needs no worker and no key. */
int lb_join_drop(struct lb_machine *m);
/*
 * An operator lets a machine go on: joins anew, and if the journal was taken over meanwhile, drops what the cache had
 * for its old end, which nobody will ever be offered.
 */
int lb_join_resume(struct lb_machine *m);
