/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What opens a store in the cloud. It comes from, in this order: the file that the address names; the file that
 * LIFEBOAT_STORE_CREDENTIALS names; systemd's credential `store-credentials`; the provider's own environment variables;
 * LB_CREDENTIALS_PATH. A file that has changed is read again at the next request. Thread-safe.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/env.h"

#define LB_CREDENTIALS_PATH "/etc/lifeboat/store.credentials"
#define LB_CREDENTIALS_BYTES_MAX (16u << 10)

struct lb_credentials {
	char *account_key, *sas;                       /* Azure */
	char *access_key, *secret_key, *session_token; /* S3 */
	char *proxy_user, *proxy_password;
};
void lb_credentials_clear(struct lb_credentials *c); /* wipes; for _cleanup_() */

enum lb_provider { LB_PROVIDER_AZURE, LB_PROVIDER_S3 };
struct lb_credentials_source;

/* `file` NULL: as above. -EACCES, with what to write where, when there are none. */
int lb_credentials_open(struct lb_env *env, enum lb_provider provider, const char *file,
			struct lb_credentials_source **ret_source);
void lb_credentials_close(struct lb_credentials_source *s);
LB_DEFINE_CLEANUP(struct lb_credentials_source *, lb_credentials_close);

/*
 * A copy of them as they are now. While a file is being rewritten, or is unreadable, the ones from before stay.
 * `generation` rises when they change; `again` looks into the file even if it seems the same.
 */
int lb_credentials_get(struct lb_credentials_source *s, bool again, struct lb_credentials *ret_credentials,
		       uint64_t *ret_generation);
/* "/etc/lifeboat/store.credentials" or "the environment". */
const char *lb_credentials_where(const struct lb_credentials_source *s);
bool lb_credentials_in_file(const struct lb_credentials_source *s);
/* Whether variables told them, or told where they are: a service has others. */
bool lb_credentials_by_environment(const struct lb_credentials_source *s);
