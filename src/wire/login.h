/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Orders of push installs, as both servers have them: which of their members are secrets. */
#include "base/json.h"

static inline void lb_install_order_wipe(json_t *order)
{
	static const char *const secrets[] = {"key", "password", "token", NULL};

	lb_json_wipe(order, secrets);
}
