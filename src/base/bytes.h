/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Little-endian integers in byte arrays, at any alignment; small arithmetic that formats need. */
#include <endian.h>
#include <stdint.h>
#include <string.h>

#define LB_DEFINE_LE(bits)                                                                                             \
	static inline uint##bits##_t lb_get_le##bits(const void *p)                                                    \
	{                                                                                                              \
		uint##bits##_t v;                                                                                      \
		memcpy(&v, p, sizeof(v));                                                                              \
		return le##bits##toh(v);                                                                               \
	}                                                                                                              \
	static inline void lb_put_le##bits(void *p, uint##bits##_t v)                                                  \
	{                                                                                                              \
		v = htole##bits(v);                                                                                    \
		memcpy(p, &v, sizeof(v));                                                                              \
	}                                                                                                              \
	struct lb_swallow_semicolon

LB_DEFINE_LE(16);
LB_DEFINE_LE(32);
LB_DEFINE_LE(64);

#define LB_KIB(n) ((uint64_t)(n) << 10)
#define LB_MIB(n) ((uint64_t)(n) << 20)
#define LB_GIB(n) ((uint64_t)(n) << 30)
#define LB_NS_PER_S INT64_C(1000000000)
#define LB_NS_PER_MS INT64_C(1000000)
#define LB_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define LB_MIN(a, b) ((a) < (b) ? (a) : (b))
#define LB_MAX(a, b) ((a) > (b) ? (a) : (b))
