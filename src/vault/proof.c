/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/proof.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

static int make(const struct lb_key *key, const struct lb_uuid *machine, int64_t time_ns,
		char text[LB_PROOF_TEXT_BYTES])
{
	_cleanup_(lb_key_wipe) struct lb_key own = {0};
	char hex[2 * LB_PROOF_CODE_BYTES + 1], time_text[24];
	struct lb_digest code;
	int r;

	r = lb_hkdf(key, machine->bytes, sizeof(machine->bytes), "lifeboat proof of a double", &own);
	if (r < 0)
		return r;
	snprintf(time_text, sizeof(time_text), "%" PRId64, time_ns);
	r = lb_hmac_sha256(&own, time_text, strlen(time_text), &code);
	if (r < 0)
		return r;
	lb_hex_encode(code.bytes, LB_PROOF_CODE_BYTES, hex);
	snprintf(text, LB_PROOF_TEXT_BYTES, "%s:%s", time_text, hex);
	return 0;
}

int lb_proof_make(struct lb_vault *v, const struct lb_uuid *machine, int64_t time_ns, char text[LB_PROOF_TEXT_BYTES])
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	int r = lb_vault_machine_key(v, machine, false, &key);

	return r < 0 ? r : make(&key, machine, time_ns, text);
}

int lb_proof_check(struct lb_vault *v, const struct lb_uuid *machine, const char *text, int64_t *ret_time_ns)
{
	char time_text[24], right[LB_PROOF_TEXT_BYTES];
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	bool is_right = false;
	uint64_t time_ns;
	int r;

	if (!lb_proof_is_text(text))
		return lb_fail(-EBADMSG, "\"%.40s\" is no word of proof", text);
	snprintf(time_text, sizeof(time_text), "%.*s", (int)strcspn(text, ":"), text);
	r = lb_u64_parse(time_text, INT64_MAX, &time_ns);
	r = r < 0 ? lb_wrap(-EBADMSG, "a word of proof") : lb_vault_keyring(v, machine, false, &ring);
	for (uint32_t i = 0; r == 0 && i < ring.n; i++) { /* it was given under the key of its time */
		r = make(&ring.key[i], machine, (int64_t)time_ns, right);
		is_right = is_right ||
			   (r == 0 && strlen(right) == strlen(text) && lb_equal_ct(right, text, strlen(right)));
	}
	if (r < 0)
		return r;
	if (!is_right)
		return lb_fail(-EBADMSG, "the double shows a word that this machine was never given");
	*ret_time_ns = (int64_t)time_ns;
	return 0;
}
