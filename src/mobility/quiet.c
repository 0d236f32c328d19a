/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/quiet.h"

#include <pthread.h>

#include "base/cleanup.h"
#include "base/log.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t written = PTHREAD_COND_INITIALIZER;
static unsigned int writers;
static bool quiet;

void lb_quiet_begin(void)
{
	LB_LOCK_SCOPE(&lock);

	quiet = true;
	while (writers > 0)
		pthread_cond_wait(&written, &lock);
	lb_log_hold();
}

void lb_quiet_end(void)
{
	LB_LOCK_SCOPE(&lock);

	quiet = false;
	lb_log_release();
}

bool lb_write_begin(void)
{
	LB_LOCK_SCOPE(&lock);

	if (!quiet)
		writers++;
	return !quiet;
}

void lb_write_end(void)
{
	LB_LOCK_SCOPE(&lock);

	if (--writers == 0)
		pthread_cond_signal(&written);
}
