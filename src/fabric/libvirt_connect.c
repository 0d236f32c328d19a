/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections to libvirt, of which none waits for ever. One that is open proves by libvirt's keepalive messages that
 * its libvirtd is there; without an answer it is closed, and the call on it fails. Until it is open nothing of
 * libvirt's limits the wait: it is opened by a thread that is left behind when it takes too long, and a bounded number
 * of those.
 */
#include <errno.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"
#include "fabric/libvirt_internal.h"
#include "fabric/proc.h"

#define LIBVIRT_URI_DEFAULT "qemu:///system"
#define PATIENCE_S 30
#define PATIENCE_S_MIN 5
#define PATIENCE_S_MAX 600
#define PINGS 5
#define LEFT_MAX 8      /* threads that still wait for an answer that nobody waits for any more */
#define LEFT_RETRY_S 60 /* while there is one, the next attempt comes after that */
#define EVENT_PAUSE_MS 100
#define REASON_BYTES 512
#define ADVICE                                                                                                         \
	"restart it (`systemctl restart libvirtd`, or virtqemud; VMs that run go on running), then order it again"

struct opening {
	char *uri;
	virConnectPtr connection;
	char why[REASON_BYTES];
	bool ended, left;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t some_ended;
static unsigned int n_left;
static int64_t left_ns; /* the last of them */

static unsigned int patience_s(void)
{
	const char *text = getenv("LIFEBOAT_LIBVIRT_PATIENCE_S");
	long value = text != NULL ? strtol(text, NULL, 10) : 0;

	return value >= PATIENCE_S_MIN && value <= PATIENCE_S_MAX ? (unsigned int)value : PATIENCE_S;
}

const char *lb_libvirt_reason(void)
{
	static _Thread_local char text[REASON_BYTES];
	const char *said = virGetLastErrorMessage();

	snprintf(text, sizeof(text), "%.300s%s", said != NULL ? said : "without a reason",
		 said != NULL && strstr(said, "keepalive") != NULL ? "; its libvirtd hangs; " ADVICE : "");
	return text;
}

static void quiet(void *arg, virErrorPtr error)
{
	(void)arg;
	(void)error;
}

static void *run_events(void *arg)
{
	for (;;)
		if (virEventRunDefaultImpl() < 0)
			lb_proc_pause(arg, EVENT_PAUSE_MS);
	return NULL;
}

/* Signals are for the threads of the program. */
static int start_thread(void *(*work)(void *), void *arg)
{
	sigset_t all, before;
	pthread_t thread;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	r = -pthread_create(&thread, NULL, work, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0)
		return lb_fail(r, "can't start a thread for libvirt: %s", strerror(-r));
	pthread_detach(thread);
	return 0;
}

static void initialize(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&some_ended, &attr);
	pthread_condattr_destroy(&attr);
	virInitialize();
	/* it would print each error by itself */
	virSetErrorFunc(NULL, quiet);
	/* keepalive messages go by it */
	if (virEventRegisterDefaultImpl() < 0 || start_thread(run_events, lb_env_real()) < 0)
		lb_err_clear();
}

static void opening_free(struct opening *o)
{
	if (o->connection != NULL)
		virConnectClose(o->connection);
	free(o->uri);
	free(o);
}

static void *open_it(void *arg)
{
	struct opening *o = arg;
	unsigned int ping_s = LB_MAX(patience_s() / (PINGS + 1), 1u);
	virConnectPtr connection = virConnectOpen(o->uri);
	bool left;

	if (connection == NULL)
		snprintf(o->why, sizeof(o->why), "%s", lb_libvirt_reason());
	else
		virConnectSetKeepAlive(connection, (int)ping_s, LB_MAX(patience_s() / ping_s, 2u) - 1);
	pthread_mutex_lock(&lock);
	o->connection = connection;
	o->ended = true;
	left = o->left;
	if (left)
		n_left--;
	pthread_cond_broadcast(&some_ended);
	pthread_mutex_unlock(&lock);
	if (left)
		opening_free(o);
	return NULL;
}

static int hangs(const char *uri)
{
	return lb_fail(-ETIMEDOUT,
		       "libvirt at %s accepts connections and has not answered for %u s: its libvirtd hangs; " ADVICE,
		       uri, patience_s());
}

/* -ETIMEDOUT: it goes on without us. */
static int wait_for(struct opening *o)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += patience_s();
	LB_LOCK_SCOPE(&lock);
	while (!o->ended && r == 0)
		r = -pthread_cond_timedwait(&some_ended, &lock, &until);
	if (o->ended)
		return 0;
	o->left = true;
	n_left++;
	left_ns = lb_mono_ns(lb_env_real());
	return -ETIMEDOUT;
}

static bool is_known_to_hang(void)
{
	LB_LOCK_SCOPE(&lock);

	return n_left >= LEFT_MAX || (n_left > 0 && lb_mono_ns(lb_env_real()) - left_ns < LEFT_RETRY_S * LB_NS_PER_S);
}

static int open_within_limit(const char *uri, virConnectPtr *ret_connection)
{
	struct opening *o;
	int r;

	if (is_known_to_hang())
		return hangs(uri);
	o = calloc(1, sizeof(*o));
	if (o == NULL || (o->uri = strdup(uri)) == NULL) {
		free(o);
		return lb_fail(-ENOMEM, "out of memory for a connection to libvirt");
	}
	r = start_thread(open_it, o);
	if (r == 0 && wait_for(o) < 0)
		return hangs(uri); /* its thread frees it */
	if (r == 0 && o->connection == NULL)
		r = lb_fail(-EOPNOTSUPP, "no libvirt answers: %s; start libvirtd, or use --fabric qemu", o->why);
	if (r == 0)
		*ret_connection = lb_steal_ptr(o->connection);
	opening_free(o);
	return r;
}

int lb_libvirt_connect(struct lb_libvirt *l)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const char *uri = getenv("LIBVIRT_DEFAULT_URI");

	if (l->connection != NULL && virConnectIsAlive(l->connection) == 1)
		return 0;
	if (l->connection != NULL)
		virConnectClose(lb_steal_ptr(l->connection));
	pthread_once(&once, initialize);
	return open_within_limit(uri != NULL ? uri : LIBVIRT_URI_DEFAULT, &l->connection);
}
