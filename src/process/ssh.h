/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A login on another host by SSH (libssh): scripts fed to its shell, files by SFTP. Host keys are remembered in a file;
 * an unknown one counts only when its fingerprint was given or the first contact is to be trusted, a changed one never.
 * One thread at a time per login. Errors: -EACCES login or sudo refused, -EKEYREJECTED host key, -EREMOTEIO a script
 * failed (its last words are the text), -ETIMEDOUT, -ENOTCONN.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define LB_SSH_CONNECT_S 20
#define LB_SSH_OUTPUT_BYTES_MAX (256u << 10) /* of one script */

struct lb_ssh_login {
	const char *host, *user;
	uint16_t port;
	const char *key_pem;  /* private key without a passphrase, or NULL */
	const char *password; /* or NULL; also what sudo is given */
	const char *host_key; /* "SHA256:...", or NULL */
	bool accept_new;
	const char *known_hosts; /* a file of ours */
};

struct lb_ssh;
int lb_ssh_open(const struct lb_ssh_login *login, struct lb_ssh **ret_ssh);
void lb_ssh_free(struct lb_ssh *s);
LB_DEFINE_CLEANUP(struct lb_ssh *, lb_ssh_free);

/* Finds how scripts become root there: the login is, or by sudo (without a password, or with the login's). */
int lb_ssh_root(struct lb_ssh *s);
/* Runs a POSIX shell script; standard output and error together go to `out`. `as_root` needs lb_ssh_root() before. */
int lb_ssh_run(struct lb_ssh *s, bool as_root, const char *script, uint32_t limit_s, struct lb_buf *out);
/*
 * Begins a command whose first line that begins with `prefix` comes to `out` (whoever logs in there may have a shell
 * that greets), and which stays until the login ends, however it ends, also by the death of this process: its standard
 * input is closed then. One per login.
 */
int lb_ssh_hold(struct lb_ssh *s, const char *command, const char *prefix, uint32_t limit_s, struct lb_buf *out);
/* A new file there. */
int lb_ssh_put(struct lb_ssh *s, const void *data, size_t size_bytes, const char *path, mode_t mode);
