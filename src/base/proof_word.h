/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The form of a word of proof (vault/proof.h says what it is): "<wall clock ns>:<32 hex digits>". Pure. */
#include <stdbool.h>
#include <string.h>

#define LB_PROOF_CODE_BYTES 16
#define LB_PROOF_TEXT_BYTES 64
#define LB_PROOF_SAID "lifeboat-proof" /* before the machine's id and the word, on a double's serial ports */

/* Nothing else goes onto a machine's disk and a double's console. */
static inline bool lb_proof_is_text(const char *text)
{
	size_t digits = strspn(text, "0123456789");

	return digits > 0 && digits < 20 && text[digits] == ':' &&
	       strspn(text + digits + 1, "0123456789abcdef") == 2 * (size_t)LB_PROOF_CODE_BYTES &&
	       text[digits + 1 + 2 * LB_PROOF_CODE_BYTES] == '\0';
}
