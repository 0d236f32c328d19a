/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a repair found that it could not mend, or that stays as it is beside what leads over it: `m/<uuid>/r/losses-V`,
 * by the object and the words that verification has for it. Verification tells it apart from damage that came since.
 */
#include "vault/internal.h"

#define LB_LOSSES_MAX 8192 /* of one machine; what is more stays a finding */

struct lb_loss {
	char object[LB_OBJECT_NAME_BYTES];
	struct lb_digest text; /* of its words, without the vault's address */
};

struct lb_losses {
	struct lb_loss *l;
	size_t n;
	uint64_t version; /* 0: none was recorded */
};

/* The newest version that can be read; none at all is an empty list. */
int lb_losses_read(struct lb_vault *v, const struct lb_uuid *machine, struct lb_losses *ret);
void lb_losses_clear(struct lb_losses *losses); /* for _cleanup_() */
/* -ENOSPC when the list is full. */
int lb_losses_add(struct lb_vault *v, struct lb_losses *losses, const char *object, const char *text);
int lb_losses_has(struct lb_vault *v, const struct lb_losses *losses, const char *object, const char *text);
bool lb_losses_equal(const struct lb_losses *a, const struct lb_losses *b);
/* The version after the newest that is there. */
int lb_losses_put(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_losses *losses);
/* Of an object's name: -EINVAL for others. */
int lb_losses_name_parse(const char *object, uint64_t *ret_version);
