/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The database under load of the demo and the tests: a ledger in SQLite behind a TCP port. A transaction is
 * acknowledged when SQLite has it on stable storage, so whoever recovers this disk must bring it back.
 *
 *     ADD <n> <amount>  ->  OK <n>            entry n is durable (sending it again is answered the same way)
 *     SUM               ->  SUM <entries> <sum of amounts>
 *     LIST              ->  <n> <amount> ... one a line, in order of n, then END <entries>
 *     INTEGRITY         ->  INTEGRITY ok | INTEGRITY <what is wrong>
 *     anything else     ->  ERR <why>
 *
 * Each transaction writes two tables (the entry and the totals), so a torn one shows in INTEGRITY.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MAX 16
#define LINE_BYTES_MAX 128
#define SEND_TIMEOUT_S 30

struct client {
	int fd;
	size_t used;
	char line[LINE_BYTES_MAX];
};

struct ledger {
	sqlite3 *db;
	sqlite3_stmt *find, *insert, *total, *list;
	struct client clients[CLIENTS_MAX];
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "ledger: %s: %s\n", what, why);
	exit(1);
}

static void run(struct ledger *l, const char *sql)
{
	char *why = NULL;

	if (sqlite3_exec(l->db, sql, NULL, NULL, &why) != SQLITE_OK)
		die(sql, why);
}

static void prepare(struct ledger *l, sqlite3_stmt **ret, const char *sql)
{
	if (sqlite3_prepare_v3(l->db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL) != SQLITE_OK)
		die(sql, sqlite3_errmsg(l->db));
}

static void open_ledger(struct ledger *l, const char *path, bool wal)
{
	if (sqlite3_open(path, &l->db) != SQLITE_OK)
		die(path, sqlite3_errmsg(l->db));
	/* With a rollback journal FULL leaves the journal's removal unsynced: a power cut could undo what was
	 * acknowledged. EXTRA syncs that too. With a WAL, FULL is enough. */
	run(l, wal ? "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
		   : "PRAGMA journal_mode=DELETE; PRAGMA synchronous=EXTRA;");
	run(l, "CREATE TABLE IF NOT EXISTS entry(n INTEGER PRIMARY KEY, amount INTEGER NOT NULL);"
	       "CREATE TABLE IF NOT EXISTS total(id INTEGER PRIMARY KEY CHECK (id = 1), entries INTEGER NOT NULL,"
	       " amount INTEGER NOT NULL);"
	       "INSERT OR IGNORE INTO total VALUES(1, 0, 0);");
	prepare(l, &l->find, "SELECT amount FROM entry WHERE n = ?1");
	prepare(l, &l->insert, "INSERT INTO entry(n, amount) VALUES(?1, ?2)");
	prepare(l, &l->total, "UPDATE total SET entries = entries + 1, amount = amount + ?1");
	prepare(l, &l->list, "SELECT n, amount FROM entry ORDER BY n");
}

/* A client that doesn't read its answer is cut off after SEND_TIMEOUT_S. */
static int answer(int fd, const char *text)
{
	size_t left = strlen(text);

	while (left > 0) {
		ssize_t n = send(fd, text, left, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		text += n;
		left -= (size_t)n;
	}
	return 0;
}

static int insert_entry(struct ledger *l, int64_t n, int64_t amount)
{
	sqlite3_bind_int64(l->insert, 1, n);
	sqlite3_bind_int64(l->insert, 2, amount);
	sqlite3_bind_int64(l->total, 1, amount);
	if (sqlite3_exec(l->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
		return -1;
	int r1 = sqlite3_step(l->insert), r2 = sqlite3_step(l->total);
	sqlite3_reset(l->insert);
	sqlite3_reset(l->total);
	if (r1 == SQLITE_DONE && r2 == SQLITE_DONE && sqlite3_exec(l->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
	return -1;
}

static int do_add(struct ledger *l, int fd, int64_t n, int64_t amount)
{
	char text[LINE_BYTES_MAX];
	bool known, same;

	sqlite3_bind_int64(l->find, 1, n);
	known = sqlite3_step(l->find) == SQLITE_ROW;
	same = known && sqlite3_column_int64(l->find, 0) == amount;
	sqlite3_reset(l->find);
	if (known && !same)
		return answer(fd, "ERR this entry has another amount\n");
	if (!known && insert_entry(l, n, amount) < 0) {
		fprintf(stderr, "ledger: entry %" PRId64 ": %s\n", n, sqlite3_errmsg(l->db));
		return answer(fd, "ERR the database refused it\n");
	}
	snprintf(text, sizeof text, "OK %" PRId64 "\n", n);
	return answer(fd, text);
}

static int do_sum(struct ledger *l, int fd)
{
	char text[LINE_BYTES_MAX] = "ERR no sum\n";
	sqlite3_stmt *sum = NULL;

	prepare(l, &sum, "SELECT count(*), coalesce(sum(amount), 0) FROM entry");
	if (sqlite3_step(sum) == SQLITE_ROW)
		snprintf(text, sizeof text, "SUM %lld %lld\n", sqlite3_column_int64(sum, 0),
			 sqlite3_column_int64(sum, 1));
	sqlite3_finalize(sum);
	return answer(fd, text);
}

static int do_list(struct ledger *l, int fd)
{
	char text[LINE_BYTES_MAX];
	int64_t entries = 0;
	int r, sent = 0;

	while ((r = sqlite3_step(l->list)) == SQLITE_ROW && sent == 0) {
		snprintf(text, sizeof text, "%lld %lld\n", sqlite3_column_int64(l->list, 0),
			 sqlite3_column_int64(l->list, 1));
		sent = answer(fd, text);
		entries++;
	}
	sqlite3_reset(l->list);
	if (sent < 0)
		return sent;
	if (r != SQLITE_DONE)
		return answer(fd, "ERR the list broke off\n");
	snprintf(text, sizeof text, "END %" PRId64 "\n", entries);
	return answer(fd, text);
}

static int do_integrity(struct ledger *l, int fd)
{
	char text[LINE_BYTES_MAX] = "INTEGRITY the check did not run\n";
	sqlite3_stmt *check = NULL, *totals = NULL;
	bool sound = false;

	prepare(l, &check, "PRAGMA integrity_check(1)");
	if (sqlite3_step(check) == SQLITE_ROW) {
		const char *said = (const char *)sqlite3_column_text(check, 0);

		sound = said != NULL && strcmp(said, "ok") == 0;
		snprintf(text, sizeof text, "INTEGRITY %.100s\n", said != NULL ? said : "out of memory");
	}
	sqlite3_finalize(check);
	if (!sound)
		return answer(fd, text);
	prepare(l, &totals,
		"SELECT t.entries = (SELECT count(*) FROM entry) AND t.amount = "
		"(SELECT coalesce(sum(amount), 0) FROM entry) FROM total t");
	sound = sqlite3_step(totals) == SQLITE_ROW && sqlite3_column_int(totals, 0) == 1;
	sqlite3_finalize(totals);
	return answer(fd, sound ? "INTEGRITY ok\n" : "INTEGRITY a transaction is torn: totals and entries differ\n");
}

static int do_line(struct ledger *l, int fd, const char *line)
{
	int64_t n, amount;
	int end = 0;

	if (sscanf(line, "ADD %" SCNd64 " %" SCNd64 "%n", &n, &amount, &end) == 2 && line[end] == '\0')
		return do_add(l, fd, n, amount);
	if (strcmp(line, "SUM") == 0)
		return do_sum(l, fd);
	if (strcmp(line, "LIST") == 0)
		return do_list(l, fd);
	if (strcmp(line, "INTEGRITY") == 0)
		return do_integrity(l, fd);
	return answer(fd, "ERR unknown command; ADD n amount, SUM, LIST or INTEGRITY\n");
}

/* Takes what arrived and does every whole line of it; -1 when the client is to be dropped. */
static int do_client(struct ledger *l, struct client *c)
{
	ssize_t n = recv(c->fd, c->line + c->used, sizeof c->line - c->used, 0);
	char *end;

	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return -1;
	c->used += (size_t)n;
	while ((end = memchr(c->line, '\n', c->used)) != NULL) {
		size_t length = (size_t)(end - c->line) + 1;

		*end = '\0';
		if (do_line(l, c->fd, c->line) < 0)
			return -1;
		memmove(c->line, c->line + length, c->used - length);
		c->used -= length;
	}
	return c->used < sizeof c->line ? 0 : -1;
}

static void accept_client(struct ledger *l, int listener)
{
	struct timeval timeout = {.tv_sec = SEND_TIMEOUT_S};
	int fd = accept(listener, NULL, NULL), one = 1;

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
	for (int i = 0; i < CLIENTS_MAX; i++) {
		if (l->clients[i].fd < 0) {
			l->clients[i] = (struct client){.fd = fd};
			return;
		}
	}
	answer(fd, "ERR too many clients\n");
	close(fd);
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0)
		die("socket", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, CLIENTS_MAX) < 0)
		die("listening", strerror(errno));
	return fd;
}

static void serve(struct ledger *l, int listener)
{
	struct pollfd fds[CLIENTS_MAX + 1];

	for (;;) {
		fds[CLIENTS_MAX] = (struct pollfd){.fd = listener, .events = POLLIN};
		for (int i = 0; i < CLIENTS_MAX; i++)
			fds[i] = (struct pollfd){.fd = l->clients[i].fd, .events = POLLIN};
		if (poll(fds, CLIENTS_MAX + 1, -1) < 0 && errno != EINTR)
			die("poll", strerror(errno));
		for (int i = 0; i < CLIENTS_MAX; i++) {
			if (fds[i].fd >= 0 && fds[i].revents != 0 && do_client(l, &l->clients[i]) < 0) {
				close(l->clients[i].fd);
				l->clients[i].fd = -1;
			}
		}
		if (fds[CLIENTS_MAX].revents != 0)
			accept_client(l, listener);
	}
}

static void usage(void)
{
	fprintf(stderr, "usage: ledger [--port PORT] [--db FILE] [--rollback-journal]\n"
			"without --rollback-journal SQLite writes ahead (a WAL)\n");
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"port", required_argument, NULL, 'p'},
						{"db", required_argument, NULL, 'd'},
						{"rollback-journal", no_argument, NULL, 'j'},
						{0}};
	static struct ledger ledger;
	const char *path = "ledger.db";
	bool wal = true;
	int port = 7000, option;

	while ((option = getopt_long(argc, argv, "p:d:j", options, NULL)) != -1) {
		if (option == 'p')
			port = atoi(optarg);
		else if (option == 'd')
			path = optarg;
		else if (option == 'j')
			wal = false;
		else
			usage();
	}
	if (port < 1 || port > 65535 || optind < argc)
		usage();
	for (int i = 0; i < CLIENTS_MAX; i++)
		ledger.clients[i].fd = -1;
	open_ledger(&ledger, path, wal);
	int listener = listen_on((uint16_t)port);
	printf("ledger: ready on port %d with %s\n", port, path);
	fflush(stdout);
	serve(&ledger, listener);
}
