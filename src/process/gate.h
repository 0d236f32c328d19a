/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Bounds the bytes that are worked on at once; whoever comes waits for its turn, in order. Thread-safe. */
#include <pthread.h>
#include <stdint.h>

#include "base/cleanup.h"

struct lb_gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t bytes, bytes_max;
	uint64_t ticket_next, ticket_turn;
};

void lb_gate_init(struct lb_gate *g, uint64_t bytes_max);
void lb_gate_destroy(struct lb_gate *g);
/* A single one may exceed the bound when it is alone. */
void lb_gate_enter(struct lb_gate *g, uint64_t bytes);
void lb_gate_leave(struct lb_gate *g, uint64_t bytes);

struct lb_gate_pass {
	struct lb_gate *gate;
	uint64_t bytes;
};
static inline void lb_gate_passp(struct lb_gate_pass *pass)
{
	if (pass->gate != NULL)
		lb_gate_leave(pass->gate, pass->bytes);
}
