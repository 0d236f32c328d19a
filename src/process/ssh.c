/* SPDX-License-Identifier: Apache-2.0 */
#include "process/ssh.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libssh/libssh.h>
#include <libssh/sftp.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/err.h"

#define SUDO_PASSWORD_BYTES_MAX 1024
#define SFTP_PART_BYTES (32u << 10)
#define READ_SLICE_MS 1000
#define LAST_WORDS_BYTES 400

enum root { ROOT_UNKNOWN, ROOT_IS, ROOT_SUDO, ROOT_SUDO_PASSWORD };

struct lb_ssh {
	ssh_session session;
	char host[256];
	char *password;
	enum root root;
	ssh_channel held; /* or NULL */
};

void lb_ssh_free(struct lb_ssh *s)
{
	if (s->session != NULL) {
		if (s->held != NULL)
			ssh_channel_free(s->held);
		if (ssh_is_connected(s->session))
			ssh_disconnect(s->session);
		ssh_free(s->session);
	}
	lb_secret_free(&s->password);
	free(s);
}

static int fail(const struct lb_ssh *s, int code, const char *what)
{
	return lb_fail(code, "%s: %s: %s", s->host, what, ssh_get_error(s->session));
}

/* ---- connecting ------------------------------------------------------------------------------------------ */

static int set_options(struct lb_ssh *s, const struct lb_ssh_login *login)
{
	unsigned int port = login->port;
	long timeout_s = LB_SSH_CONNECT_S;
	int nodelay = 1, process_config = 0;

	if (ssh_options_set(s->session, SSH_OPTIONS_PROCESS_CONFIG, &process_config) < 0 ||
	    ssh_options_set(s->session, SSH_OPTIONS_HOST, login->host) < 0 ||
	    ssh_options_set(s->session, SSH_OPTIONS_USER, login->user) < 0 ||
	    ssh_options_set(s->session, SSH_OPTIONS_PORT, &port) < 0 ||
	    ssh_options_set(s->session, SSH_OPTIONS_TIMEOUT, &timeout_s) < 0 ||
	    ssh_options_set(s->session, SSH_OPTIONS_NODELAY, &nodelay) < 0 ||
	    ssh_options_set(s->session, SSH_OPTIONS_KNOWNHOSTS, login->known_hosts) < 0)
		return fail(s, -EINVAL, "these settings make no SSH connection");
	return 0;
}

/* "SHA256:..." of the host's key, to be freed with ssh_string_free_char(). */
static int fingerprint(struct lb_ssh *s, char **ret_text)
{
	unsigned char *hash = NULL;
	ssh_key key = NULL;
	size_t hash_bytes;
	char *text = NULL;

	if (ssh_get_server_publickey(s->session, &key) == SSH_OK &&
	    ssh_get_publickey_hash(key, SSH_PUBLICKEY_HASH_SHA256, &hash, &hash_bytes) == 0)
		text = ssh_get_fingerprint_hash(SSH_PUBLICKEY_HASH_SHA256, hash, hash_bytes);
	ssh_clean_pubkey_hash(&hash);
	ssh_key_free(key);
	if (text == NULL)
		return fail(s, -EIO, "its host key can't be read");
	*ret_text = text;
	return 0;
}

static int check_new(struct lb_ssh *s, const struct lb_ssh_login *login, const char *text)
{
	if (login->host_key == NULL && !login->accept_new)
		return lb_fail(-EKEYREJECTED,
			       "%s is not known here yet; its host key is %s: compare it with `ssh-keygen -lf "
			       "/etc/ssh/ssh_host_ed25519_key.pub` there, then give it by --host-key",
			       s->host, text);
	if (ssh_session_update_known_hosts(s->session) != SSH_OK)
		return fail(s, -EIO, "its host key can't be remembered");
	return 0;
}

static int check_host(struct lb_ssh *s, const struct lb_ssh_login *login)
{
	char *text = NULL;
	int r;

	r = fingerprint(s, &text);
	if (r < 0)
		return r;
	if (login->host_key != NULL && strcmp(login->host_key, text) != 0)
		r = lb_fail(-EKEYREJECTED, "%s has host key %s, not %s: this is not the host that was meant", s->host,
			    text, login->host_key);
	else
		switch (ssh_session_is_known_server(s->session)) {
		case SSH_KNOWN_HOSTS_OK:
			break;
		case SSH_KNOWN_HOSTS_NOT_FOUND:
		case SSH_KNOWN_HOSTS_UNKNOWN:
			r = check_new(s, login, text);
			break;
		case SSH_KNOWN_HOSTS_CHANGED:
		case SSH_KNOWN_HOSTS_OTHER:
			r = lb_fail(-EKEYREJECTED,
				    "%s has another host key (%s) than before: somebody is in between, or the host was "
				    "made anew; in that case remove its line from %s",
				    s->host, text, login->known_hosts);
			break;
		case SSH_KNOWN_HOSTS_ERROR:
			r = fail(s, -EIO, "known hosts can't be read");
			break;
		}
	ssh_string_free_char(text);
	return r;
}

static int log_in(struct lb_ssh *s, const struct lb_ssh_login *login)
{
	ssh_key key = NULL;
	int r = SSH_AUTH_DENIED;

	if (login->key_pem != NULL) {
		if (ssh_pki_import_privkey_base64(login->key_pem, NULL, NULL, NULL, &key) != SSH_OK)
			return lb_fail(-EINVAL, "%s: the key is no private key without a passphrase", s->host);
		r = ssh_userauth_publickey(s->session, NULL, key);
		ssh_key_free(key);
	}
	if (r != SSH_AUTH_SUCCESS && login->password != NULL)
		r = ssh_userauth_password(s->session, NULL, login->password);
	if (r != SSH_AUTH_SUCCESS)
		return lb_fail(-EACCES, "%s does not let %s in with the %s that was given", s->host, login->user,
			       login->key_pem == NULL    ? "password"
			       : login->password == NULL ? "key"
							 : "key, nor with the password,");
	return 0;
}

int lb_ssh_open(const struct lb_ssh_login *login, struct lb_ssh **ret_ssh)
{
	_cleanup_(lb_ssh_freep) struct lb_ssh *s = calloc(1, sizeof(*s));
	int r;

	if (s == NULL || (s->session = ssh_new()) == NULL)
		return lb_fail(-ENOMEM, "out of memory for an SSH connection");
	snprintf(s->host, sizeof(s->host), "%s", login->host);
	if (login->password != NULL && (s->password = strdup(login->password)) == NULL)
		return lb_fail(-ENOMEM, "out of memory for an SSH connection");
	r = set_options(s, login);
	if (r < 0)
		return r;
	if (ssh_connect(s->session) != SSH_OK)
		return fail(s, -ENOTCONN, "no SSH connection");
	r = check_host(s, login);
	if (r == 0)
		r = log_in(s, login);
	if (r < 0)
		return r;
	*ret_ssh = lb_steal_ptr(s);
	return 0;
}

/* ---- scripts --------------------------------------------------------------------------------------------- */

static int64_t mono_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static int send_script(struct lb_ssh *s, ssh_channel channel, const char *password, const char *script)
{
	size_t length = strlen(script);

	if ((password != NULL && (ssh_channel_write(channel, password, (uint32_t)strlen(password)) < 0 ||
				  ssh_channel_write(channel, "\n", 1) < 0)) ||
	    ssh_channel_write(channel, script, (uint32_t)length) != (int)length ||
	    ssh_channel_send_eof(channel) != SSH_OK)
		return fail(s, -ENOTCONN, "a script can't be sent");
	return 0;
}

static int read_output(struct lb_ssh *s, ssh_channel channel, uint32_t limit_s, struct lb_buf *out)
{
	int64_t until_s = mono_s() + limit_s;
	char part[4096];
	int n, r;

	while (!ssh_channel_is_eof(channel) || ssh_channel_poll(channel, 0) > 0) {
		n = ssh_channel_read_timeout(channel, part, sizeof(part), 0, READ_SLICE_MS);
		if (n < 0 && n != SSH_AGAIN)
			return fail(s, -ENOTCONN, "the connection broke");
		if (mono_s() > until_s)
			return lb_fail(-ETIMEDOUT, "%s: a step has not ended within %u s", s->host, limit_s);
		r = n > 0 ? lb_buf_append(out, part, (size_t)n) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* The command writes nothing to standard error: what isn't read there would hold the end back. */
static int talk(struct lb_ssh *s, ssh_channel channel, const char *command, const char *password, const char *script,
		uint32_t limit_s, struct lb_buf *out)
{
	int r, status;

	if (ssh_channel_open_session(channel) != SSH_OK || ssh_channel_request_exec(channel, command) != SSH_OK)
		return fail(s, -ENOTCONN, "no shell");
	r = send_script(s, channel, password, script);
	if (r == 0)
		r = read_output(s, channel, limit_s, out);
	if (r < 0)
		return r;
	status = ssh_channel_get_exit_status(channel);
	if (status != 0) {
		size_t n = LB_MIN(out->size_bytes, (size_t)LAST_WORDS_BYTES);

		return lb_fail(-EREMOTEIO, "%s: a step ended with %d: %.*s", s->host, status, (int)n,
			       (const char *)out->data + out->size_bytes - n);
	}
	return 0;
}

static int run(struct lb_ssh *s, const char *command, const char *password, const char *script, uint32_t limit_s,
	       struct lb_buf *out)
{
	ssh_channel channel = ssh_channel_new(s->session);
	int r;

	if (channel == NULL)
		return lb_fail(-ENOMEM, "out of memory for an SSH channel");
	r = talk(s, channel, command, password, script, limit_s, out);
	ssh_channel_close(channel);
	ssh_channel_free(channel);
	return r;
}

int lb_ssh_run(struct lb_ssh *s, bool as_root, const char *script, uint32_t limit_s, struct lb_buf *out)
{
	if (!as_root || s->root == ROOT_IS)
		return run(s, "sh -s 2>&1", NULL, script, limit_s, out);
	if (s->root == ROOT_SUDO)
		return run(s, "sudo -n sh -s 2>&1", NULL, script, limit_s, out);
	/* -k: it asks in any case, so that the first line is taken for the password and never for a command */
	return run(s, "sudo -k -S -p '' sh -s 2>&1", s->password, script, limit_s, out);
}

/* A line of the held command; -EREMOTEIO when it says no more. */
static int read_line(struct lb_ssh *s, int64_t until_s, struct lb_buf *out)
{
	char c;
	int n, r;

	for (out->size_bytes = 0; !ssh_channel_is_eof(s->held) && mono_s() <= until_s;) {
		n = ssh_channel_read_timeout(s->held, &c, 1, 0, READ_SLICE_MS);
		if (n < 0 && n != SSH_AGAIN)
			return fail(s, -ENOTCONN, "the connection broke");
		if (n != 1)
			continue;
		r = lb_buf_append(out, c != '\n' ? &c : "", 1);
		if (r < 0 || c == '\n')
			return r;
	}
	return lb_fail(-EREMOTEIO, "%s: a command that should stay says nothing", s->host);
}

int lb_ssh_hold(struct lb_ssh *s, const char *command, const char *prefix, uint32_t limit_s, struct lb_buf *out)
{
	int64_t until_s = mono_s() + limit_s;
	int r;

	s->held = ssh_channel_new(s->session);
	if (s->held == NULL)
		return lb_fail(-ENOMEM, "out of memory for an SSH channel");
	if (ssh_channel_open_session(s->held) != SSH_OK || ssh_channel_request_exec(s->held, command) != SSH_OK)
		return fail(s, -ENOTCONN, "no shell");
	do
		r = read_line(s, until_s, out);
	while (r == 0 && strncmp((const char *)out->data, prefix, strlen(prefix)) != 0);
	return r;
}

static bool works(struct lb_ssh *s, const char *command, const char *password)
{
	_cleanup_buf_ struct lb_buf out = LB_BUF(LB_SSH_OUTPUT_BYTES_MAX);

	return run(s, command, password, "", LB_SSH_CONNECT_S, &out) == 0;
}

int lb_ssh_root(struct lb_ssh *s)
{
	if (works(s, "test \"$(id -u)\" = 0 2>/dev/null", NULL))
		s->root = ROOT_IS;
	else if (works(s, "sudo -n true 2>/dev/null", NULL))
		s->root = ROOT_SUDO;
	else if (s->password != NULL && works(s, "sudo -k -S -p '' true 2>/dev/null", s->password))
		s->root = ROOT_SUDO_PASSWORD;
	else
		return lb_fail(-EACCES,
			       "%s: the login is not root and sudo does not let it be: log in as root, or as somebody "
			       "in group "
			       "sudo (with a password by --password-file)",
			       s->host);
	lb_err_clear();
	return 0;
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static int sftp_fail(struct lb_ssh *s, sftp_session sftp, const char *path)
{
	return lb_fail(-EIO, "%s: %s can't be written: SFTP error %d, %s", s->host, path, sftp_get_error(sftp),
		       ssh_get_error(s->session));
}

static int put(struct lb_ssh *s, sftp_session sftp, const uint8_t *data, size_t size_bytes, const char *path,
	       mode_t mode)
{
	sftp_file file = sftp_open(sftp, path, O_WRONLY | O_CREAT | O_EXCL, mode);
	int r = 0;

	if (file == NULL)
		return sftp_fail(s, sftp, path);
	for (size_t at = 0; r == 0 && at < size_bytes;) {
		size_t part = LB_MIN(size_bytes - at, (size_t)SFTP_PART_BYTES);
		ssize_t n = sftp_write(file, data + at, part);

		if (n <= 0)
			r = sftp_fail(s, sftp, path);
		else
			at += (size_t)n;
	}
	if (sftp_close(file) != SSH_NO_ERROR && r == 0)
		r = sftp_fail(s, sftp, path);
	return r;
}

int lb_ssh_put(struct lb_ssh *s, const void *data, size_t size_bytes, const char *path, mode_t mode)
{
	sftp_session sftp = sftp_new(s->session);
	int r;

	if (sftp == NULL)
		return fail(s, -EIO, "no SFTP");
	if (sftp_init(sftp) != SSH_OK)
		r = fail(s, -EIO, "its SSH server offers no SFTP; switch the sftp subsystem on in sshd_config");
	else
		r = put(s, sftp, data, size_bytes, path, mode);
	sftp_free(sftp);
	return r;
}
