/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bank that sends money to the other banks over TCP, for as long as it is told to. What it did is in a ledger of
 * lines, each durable before anything follows from it:
 *
 *     S <bank> <n> <amount>    before transfer n to that bank is sent
 *     R <bank> <n> <amount>    before transfer n of that bank is confirmed
 *
 * To each other bank transfers go one after another, numbered from 1: transfer n + 1 is sent when n was confirmed. So
 * what the last S says is at most on its way, and is sent again after a restart; a bank knows by the number what it has
 * already.
 *
 *     PAY <from> <n> <amount>  ->  OK <n>          it has arrived, durably
 *     WATCH                    ->  DONE <me> <to> <n> <amount> for each transfer from now on that was confirmed
 *     GO, STOP                 ->  OK 0            begin to send (it is stopped at its start); stop, and nothing is on
 * its way LIST                     ->  the ledger's lines, then END <lines>
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BANKS_MAX 16
#define WATCHERS_MAX 8
#define LINE_BYTES_MAX 128
#define AMOUNT_MAX 100
#define SOCKET_TIMEOUT_S 10
#define AGAIN_MS 500

struct peer {
	struct sockaddr_in address; /* family 0: no such bank */
	int64_t sent_n, sent_amount, confirmed_n, received_n;
};

static struct {
	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t changed;
	int ledger_fd;
	int me, pace_ms;
	bool going;
	int on_way;
	struct peer peers[BANKS_MAX];
	FILE *watchers[WATCHERS_MAX];
} bank = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void die(const char *what)
{
	fprintf(stderr, "bank: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void ledger_write(char kind, int peer, int64_t n, int64_t amount)
{
	char line[LINE_BYTES_MAX];
	int length = snprintf(line, sizeof(line), "%c %d %" PRId64 " %" PRId64 "\n", kind, peer, n, amount);

	if (write(bank.ledger_fd, line, (size_t)length) != length || fsync(bank.ledger_fd) < 0)
		die("the ledger");
}

static void ledger_line(const char *line)
{
	int64_t n, amount;
	char kind;
	int peer;

	if (sscanf(line, "%c %d %" SCNd64 " %" SCNd64, &kind, &peer, &n, &amount) != 4 || peer < 0 ||
	    peer >= BANKS_MAX) {
		fprintf(stderr, "bank: the ledger has a line that is none: %s\n", line);
		exit(1);
	}
	if (kind == 'R') {
		bank.peers[peer].received_n = n;
		return;
	}
	bank.peers[peer].sent_n = n;
	bank.peers[peer].sent_amount = amount;
	bank.peers[peer].confirmed_n = n - 1;
}

/* A last line that is not whole was never acted upon. */
static void ledger_open(const char *path)
{
	char line[LINE_BYTES_MAX];
	off_t whole = 0;
	FILE *f;

	bank.ledger_fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (bank.ledger_fd < 0 || (f = fopen(path, "re")) == NULL)
		die(path);
	while (fgets(line, sizeof(line), f) != NULL && strchr(line, '\n') != NULL) {
		ledger_line(line);
		whole = ftello(f);
	}
	fclose(f);
	if (ftruncate(bank.ledger_fd, whole) < 0 || fsync(bank.ledger_fd) < 0)
		die(path);
}

static void pause_ms(int ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static int set_up_socket(int fd)
{
	const struct timeval limit = {.tv_sec = SOCKET_TIMEOUT_S};
	const int one = 1;

	return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
			       setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
			       setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0
		       ? -errno
		       : 0;
}

static FILE *call(const struct peer *peer)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FILE *f = NULL;

	if (fd < 0)
		die("socket");
	if (set_up_socket(fd) == 0 && connect(fd, (const struct sockaddr *)&peer->address, sizeof(peer->address)) == 0)
		f = fdopen(fd, "r+e");
	if (f == NULL)
		close(fd);
	return f;
}

/* Sends what is on its way; true when it was confirmed. */
static bool deliver(FILE *f, int64_t n, int64_t amount)
{
	char line[LINE_BYTES_MAX];
	int64_t confirmed;

	if (fprintf(f, "PAY %d %" PRId64 " %" PRId64 "\n", bank.me, n, amount) < 0 || fflush(f) != 0 ||
	    fgets(line, sizeof(line), f) == NULL)
		return false;
	return sscanf(line, "OK %" SCNd64 "\n", &confirmed) == 1 && confirmed == n;
}

static void tell_watchers(int to, int64_t n, int64_t amount)
{
	for (int i = 0; i < WATCHERS_MAX; i++) {
		FILE *f = bank.watchers[i];

		if (f != NULL && (fprintf(f, "DONE %d %d %" PRId64 " %" PRId64 "\n", bank.me, to, n, amount) < 0 ||
				  fflush(f) != 0)) {
			shutdown(fileno(f), SHUT_RDWR); /* its thread closes it */
			bank.watchers[i] = NULL;
		}
	}
}

/* Waits until there is something to send, and has it in the ledger. */
static void begin(struct peer *peer, int to)
{
	uint32_t chance;

	pthread_mutex_lock(&bank.lock);
	while (!bank.going)
		pthread_cond_wait(&bank.changed, &bank.lock);
	bank.on_way++;
	if (peer->sent_n == peer->confirmed_n) {
		if (getrandom(&chance, sizeof(chance), 0) != sizeof(chance))
			die("random numbers");
		peer->sent_amount = 1 + chance % AMOUNT_MAX;
		ledger_write('S', to, peer->sent_n + 1, peer->sent_amount);
		peer->sent_n++;
	}
	pthread_mutex_unlock(&bank.lock);
}

static void end(struct peer *peer, int to, bool confirmed)
{
	pthread_mutex_lock(&bank.lock);
	if (confirmed) {
		peer->confirmed_n = peer->sent_n;
		tell_watchers(to, peer->sent_n, peer->sent_amount);
	}
	bank.on_way--;
	pthread_cond_broadcast(&bank.changed);
	pthread_mutex_unlock(&bank.lock);
}

static void *pay(void *arg)
{
	struct peer *peer = arg;
	int to = (int)(peer - bank.peers);
	FILE *f = NULL;

	for (;;) {
		bool confirmed;

		begin(peer, to);
		if (f == NULL)
			f = call(peer);
		confirmed = f != NULL && deliver(f, peer->sent_n, peer->sent_amount);
		end(peer, to, confirmed);
		if (!confirmed && f != NULL) {
			fclose(f);
			f = NULL;
		}
		pause_ms(confirmed ? bank.pace_ms : AGAIN_MS);
	}
	return NULL;
}

static void receive(FILE *f, int from, int64_t n, int64_t amount)
{
	bool known;

	pthread_mutex_lock(&bank.lock);
	known = n <= bank.peers[from].received_n;
	if (n == bank.peers[from].received_n + 1) {
		ledger_write('R', from, n, amount);
		bank.peers[from].received_n = n;
		known = true;
	}
	pthread_mutex_unlock(&bank.lock);
	if (known)
		fprintf(f, "OK %" PRId64 "\n", n);
	else
		fprintf(f, "ERR transfer %" PRId64 " of bank %d is not the next one\n", n, from);
}

static void set_going(FILE *f, bool going)
{
	pthread_mutex_lock(&bank.lock);
	bank.going = going;
	pthread_cond_broadcast(&bank.changed);
	while (!bank.going && bank.on_way > 0)
		pthread_cond_wait(&bank.changed, &bank.lock);
	pthread_mutex_unlock(&bank.lock);
	fprintf(f, "OK 0\n");
}

static void list(FILE *f, const char *path)
{
	char line[LINE_BYTES_MAX];
	FILE *ledger = fopen(path, "re");
	int64_t lines = 0;

	if (ledger == NULL)
		die(path);
	for (; fgets(line, sizeof(line), ledger) != NULL && strchr(line, '\n') != NULL; lines++)
		fputs(line, f);
	fclose(ledger);
	fprintf(f, "END %" PRId64 "\n", lines);
}

/* Until the watcher goes, which a read tells. */
static void watch(FILE *f)
{
	const struct timeval no_limit = {0};
	int place = 0;
	char c;

	setsockopt(fileno(f), SOL_SOCKET, SO_RCVTIMEO, &no_limit, sizeof(no_limit));
	pthread_mutex_lock(&bank.lock);
	while (place < WATCHERS_MAX && bank.watchers[place] != NULL)
		place++;
	if (place < WATCHERS_MAX)
		bank.watchers[place] = f;
	pthread_mutex_unlock(&bank.lock);
	if (place == WATCHERS_MAX) {
		fprintf(f, "ERR too many watchers\n");
		return;
	}
	fprintf(f, "OK 0\n");
	fflush(f);
	while (read(fileno(f), &c, 1) > 0)
		;
	pthread_mutex_lock(&bank.lock);
	if (bank.watchers[place] == f)
		bank.watchers[place] = NULL;
	pthread_mutex_unlock(&bank.lock);
}

static const char *ledger_path = "ledger";

static void *serve(void *arg)
{
	FILE *f = arg;
	char line[LINE_BYTES_MAX];

	while (fgets(line, sizeof(line), f) != NULL && strchr(line, '\n') != NULL) {
		int64_t n, amount;
		int from;

		if (sscanf(line, "PAY %d %" SCNd64 " %" SCNd64, &from, &n, &amount) == 3 && from >= 0 &&
		    from < BANKS_MAX)
			receive(f, from, n, amount);
		else if (strcmp(line, "GO\n") == 0 || strcmp(line, "STOP\n") == 0)
			set_going(f, line[0] == 'G');
		else if (strcmp(line, "LIST\n") == 0)
			list(f, ledger_path);
		else if (strcmp(line, "WATCH\n") == 0)
			watch(f);
		else
			fprintf(f, "ERR unknown command; PAY, WATCH, GO, STOP or LIST\n");
		if (fflush(f) != 0)
			break;
	}
	fclose(f);
	return NULL;
}

static void start(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, run, arg);
	if (errno != 0)
		die("a thread");
	pthread_detach(thread);
}

static void listen_for_ever(const char *at, uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (inet_pton(AF_INET, at, &address.sin_addr) != 1)
		die(at);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BANKS_MAX) < 0)
		die("listening");
	printf("bank: ready\n");
	fflush(stdout);
	for (;;) {
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		FILE *f = client >= 0 && set_up_socket(client) == 0 ? fdopen(client, "r+e") : NULL;

		if (f != NULL) {
			/* a peer may keep its connection, idle, for as long as its bank is stopped */
			setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0}, sizeof(struct timeval));
			setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
			start(serve, f);
		} else if (client >= 0) {
			close(client);
		}
	}
}

int main(int argc, char **argv)
{
	if (argc < 7) {
		fprintf(stderr, "usage: bank LEDGER ADDRESS PORT PACE_MS ME BANK=ADDRESS...\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	ledger_path = argv[1];
	uint16_t port = (uint16_t)atoi(argv[3]);
	bank.pace_ms = atoi(argv[4]);
	bank.me = atoi(argv[5]);
	ledger_open(ledger_path);
	for (int i = 6; i < argc; i++) {
		char *address = strchr(argv[i], '=');
		int n = atoi(argv[i]);

		if (address == NULL || n < 0 || n >= BANKS_MAX || n == bank.me)
			die(argv[i]);
		bank.peers[n].address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
		if (inet_pton(AF_INET, address + 1, &bank.peers[n].address.sin_addr) != 1)
			die(argv[i]);
		start(pay, &bank.peers[n]);
	}
	listen_for_ever(argv[2], port);
}
