/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/together.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

int lb_point_find_together(struct lb_together *t, struct lb_vault *v, const struct lb_uuid *machine, const char *text,
			   struct lb_point *ret_point)
{
	char shared[LB_POINT_NAME_BYTES];
	int r;

	if (strcmp(text, "latest-multi-vm") != 0)
		return lb_point_find(v, machine, text, ret_point);
	for (unsigned int i = 0; i < t->n; i++) {
		r = lb_point_find(v, machine, t->shared[i], ret_point);
		if (r != -ENOENT)
			return r;
	}
	r = lb_point_shared_text(v, machine, text, shared);
	if (r == 0)
		r = lb_point_find(v, machine, shared, ret_point);
	if (r == 0 && t->n < LB_TOGETHER_GROUPS_MAX)
		memcpy(t->shared[t->n++], shared, sizeof(shared));
	return r;
}
