/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "config/api.h"

/*
 * A double's enrolment as machine `m` (new, or enrolled before), whose hardware and inventory are taken from the body:
 * written, and its certificate issued, within the caller's transaction. -EEXIST: another machine has this hardware.
 */
int lb_enrol_double(struct lb_site *site, const struct lb_http_call *call, const json_t *body, const char *csr_pem,
		    struct lb_reg_machine *m, char **ret_cert_pem);
