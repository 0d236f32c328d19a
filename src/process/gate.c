/* SPDX-License-Identifier: Apache-2.0 */
#include "process/gate.h"

#include <assert.h>

void lb_gate_init(struct lb_gate *g, uint64_t bytes_max)
{
	*g = (struct lb_gate){.bytes_max = bytes_max};
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->changed, NULL);
}

void lb_gate_destroy(struct lb_gate *g)
{
	assert(g->bytes == 0);
	pthread_cond_destroy(&g->changed);
	pthread_mutex_destroy(&g->lock);
}

void lb_gate_enter(struct lb_gate *g, uint64_t bytes)
{
	LB_LOCK_SCOPE(&g->lock);
	uint64_t ticket = g->ticket_next++;

	/* in order, so that small ones can't keep a large one waiting for ever */
	while (g->ticket_turn != ticket || (g->bytes > 0 && g->bytes + bytes > g->bytes_max))
		pthread_cond_wait(&g->changed, &g->lock);
	g->ticket_turn++;
	g->bytes += bytes;
	pthread_cond_broadcast(&g->changed);
}

void lb_gate_leave(struct lb_gate *g, uint64_t bytes)
{
	LB_LOCK_SCOPE(&g->lock);

	assert(g->bytes >= bytes);
	g->bytes -= bytes;
	pthread_cond_broadcast(&g->changed);
}
