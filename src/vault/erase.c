/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/erase.h"

#include <errno.h>

#include "base/err.h"
#include "vault/internal.h"

static int remove_one(void *arg, const char *name, uint64_t size_bytes)
{
	struct lb_vault *v = arg;
	int r = lb_store_remove(v->store, name);

	(void)size_bytes;
	return r == -ENOENT ? 0 : r;
}

static int remove_below(struct lb_vault *v, const struct lb_uuid *machine, const char *part)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_vault_name(prefix, machine, "%s", part);
	return r < 0 ? r : lb_store_list(v->store, prefix, remove_one, v);
}

int lb_vault_machine_erase(struct lb_vault *v, const struct lb_uuid *machine)
{
	static const char *const parts[] = {"item/", "key", ""};
	char id[LB_UUID_TEXT_BYTES];
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(parts) / sizeof(parts[0]); i++)
		r = remove_below(v, machine, parts[i]);
	lb_uuid_format(machine, id);
	return r < 0 ? lb_wrap(r, "machine %s can't be taken out of the vault", id) : 0;
}
