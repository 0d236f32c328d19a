/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The link to the configuration server: every LB_TARGET_LINK_S the orders are asked for and a report is sent. While it
 * is away the orders that are known go on; one that refuses our certificate ends them. The certificate is renewed in
 * time.
 */
#include "target/service.h"
#include "wire/client.h"

#define LB_TARGET_LINK_S 2
#define LB_TARGET_LINK_TIMEOUT_S 20
#define LB_TARGET_ORDERS_BYTES_MAX (1u << 20)

struct lb_target_link {
	struct lb_target_service *service; /* borrowed */
	struct lb_http_client *client;
	bool down, refused; /* said already */
	bool booted, told;  /* an order `boot` is done; the configuration server knows it */
	int64_t renew_due_ns;
};
int lb_target_link_open(struct lb_target_service *service, struct lb_target_link *ret_link);
/* One round; errors are logged when they begin and when they end. */
void lb_target_link_round(struct lb_target_link *link);
/* What ended with us is still told, if it can be. */
void lb_target_link_last(struct lb_target_link *link);
void lb_target_link_close(struct lb_target_link *link);
