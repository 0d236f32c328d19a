/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/enrol.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "mobility/agent_config.h"
#include "wire/client.h"
#include "wire/pki.h"

#define SERVICE_USER "lifeboat"
#define PATH_BYTES 512
#define RETRY_NS (2 * LB_NS_PER_S)

struct token {
	char text[LB_TOKEN_BYTES_MAX + 1];
};

static void token_wipe(struct token *t)
{
	lb_wipe(t, sizeof(*t));
}

static int token_read(const char *path, struct token *ret_token)
{
	_cleanup_close_ int opened = -1;
	size_t n = 0;
	ssize_t got;
	int fd = STDIN_FILENO;

	if (strcmp(path, "-") != 0) {
		fd = opened = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return lb_fail(-errno, "token file %s: %m", path);
	}
	while (n < LB_TOKEN_BYTES_MAX && (got = read(fd, ret_token->text + n, LB_TOKEN_BYTES_MAX - n)) > 0)
		n += (size_t)got;
	while (n > 0 && isspace((unsigned char)ret_token->text[n - 1]))
		n--;
	ret_token->text[n] = '\0';
	if (n == 0)
		return lb_fail(-EINVAL, "token file %s is empty; make a token with `lifeboat token create`", path);
	return 0;
}

static int request_json(struct lb_env *env, const struct token *token, const char *csr, const char *name,
			const char *hardware, json_t **ret_body)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = lb_hardware_json(env, "", &body);
	if (r < 0)
		return r;
	if (lb_json_set_str(body, "token", token->text) < 0 || lb_json_set_str(body, "csr_pem", csr) < 0 ||
	    lb_json_set_str(body, "kind", "machine") < 0 || lb_json_set_str(body, "name", name) < 0 ||
	    lb_json_set_str(body, "hardware", hardware) < 0)
		return lb_fail(-ENOMEM, "out of memory for the enrolment");
	*ret_body = lb_steal_ptr(body);
	return 0;
}

static bool may_come_back(int r)
{
	return r == -ECONNREFUSED || r == -ECONNRESET || r == -ETIMEDOUT || r == -EHOSTUNREACH || r == -EAGAIN;
}

static int ask_once(const struct lb_enrol *e, const char *folder, const json_t *body, json_t **ret_reply)
{
	const struct lb_http_client_options options = {.identity_folder = folder,
						       .ca_fingerprint_hex = e->ca_fingerprint_hex};
	_cleanup_(lb_http_client_freep) struct lb_http_client *client = NULL;
	char url[PATH_BYTES];
	int r;

	r = lb_http_client_new(&options, &client);
	if (r < 0)
		return r;
	if ((size_t)snprintf(url, sizeof(url), "%s/v1/enrol", e->config_url) >= sizeof(url))
		return lb_fail(-ENAMETOOLONG, "the configuration server's URL is too long: %s", e->config_url);
	return lb_http_json(client, "POST", url, body, ret_reply);
}

/* If the answer is lost, the same key may ask again. */
static int ask(struct lb_env *env, const struct lb_enrol *e, const char *folder, const json_t *body, json_t **ret_reply)
{
	const int64_t until_ns = lb_mono_ns(env) + (int64_t)e->wait_s * LB_NS_PER_S;
	int r;

	while (may_come_back(r = ask_once(e, folder, body, ret_reply)) && lb_mono_ns(env) < until_ns)
		env->ops->wait_until(env, lb_mono_ns(env) + RETRY_NS, -1);
	return r;
}

int lb_hardware_source_keep(struct lb_env *env, const char *folder, enum lb_hardware_source source)
{
	const char *text = source == LB_HARDWARE_FIRMWARE ? "firmware\n" : "machine-id\n";
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/" LB_HARDWARE_SOURCE_NAME, folder);
	return lb_file_write(env, path, text, strlen(text), 0600);
}

int lb_hardware_source_load(struct lb_env *env, const char *identity_folder, enum lb_hardware_source *ret_source)
{
	_cleanup_free_ uint8_t *text = NULL;
	char path[PATH_BYTES];
	size_t size_bytes;
	int r;

	snprintf(path, sizeof(path), "%s/" LB_HARDWARE_SOURCE_NAME, identity_folder);
	r = lb_file_read(env, path, 64, &text, &size_bytes);
	if (r == -ENOENT)
		return lb_fail(r, "this machine is not enrolled (%s is missing); run `lifeboat-mobility enrol`", path);
	if (r < 0)
		return r;
	*ret_source = strncmp((const char *)text, "firmware", 8) == 0 ? LB_HARDWARE_FIRMWARE : LB_HARDWARE_MACHINE_ID;
	return 0;
}

static int keep_settings(struct lb_env *env, const struct lb_enrol *e)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(4096);
	int r;

	if (access(e->config_path, F_OK) == 0)
		return 0;
	r = lb_buf_printf(&text, "# lifeboat-mobility: see lifeboat-mobility(8)\nconfig_url = %s\n", e->config_url);
	if (r < 0)
		return r;
	r = lb_folder_make(env, "/etc/lifeboat", 0755);
	if (r < 0)
		return r;
	return lb_file_write(env, e->config_path, text.data, text.size_bytes, 0644);
}

static int give_one(void *arg, const char *name, bool is_dir)
{
	const struct passwd *user = arg;
	int fd = -1;

	/* relative to the folder that lb_enrol_give() made the current one: no path is followed */
	if (!is_dir)
		fd = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && fchown(fd, user->pw_uid, user->pw_gid) < 0)
		lb_warning("%s can't be given to user %s: %m", name, user->pw_name);
	if (fd >= 0)
		close(fd);
	return 0;
}

/* The service runs without privileges: its identity must be its own. */
static void give_to_service(struct lb_env *env, const char *folder)
{
	struct passwd *user = geteuid() == 0 ? getpwnam(SERVICE_USER) : NULL;

	if (user == NULL || chdir(folder) < 0)
		return;
	env->ops->list(env, ".", give_one, user);
	if (chown(folder, user->pw_uid, user->pw_gid) < 0)
		lb_warning("%s can't be given to user %s: %m", folder, SERVICE_USER);
}

static int install(struct lb_env *env, const struct lb_enrol *e, const char *folder, const json_t *reply)
{
	const char *cert, *ca;
	int r;

	r = lb_json_get_str(reply, "cert_pem", &cert);
	if (r == 0)
		r = lb_json_get_str(reply, "ca_pem", &ca);
	if (r != 0)
		return lb_wrap(r, "answer to the enrolment");
	return lb_pki_install(env, folder, cert, ca, e->ca_fingerprint_hex);
}

static int settings_of(struct lb_env *env, const struct lb_enrol *e, char **ret_folder)
{
	struct lb_agent_settings settings;
	int r;

	if (access(e->config_path, F_OK) < 0) {
		*ret_folder = strdup("/var/lib/lifeboat/mobility");
		return *ret_folder != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
	}
	r = lb_agent_settings_read(env, e->config_path, &settings);
	if (r < 0)
		return r;
	*ret_folder = lb_steal_ptr(settings.identity_folder);
	lb_agent_settings_free(&settings);
	return 0;
}

int lb_enrol(struct lb_env *env, const struct lb_enrol *e)
{
	_cleanup_(token_wipe) struct token token = {0};
	_cleanup_free_ char *folder = NULL, *csr = NULL;
	_cleanup_json_ json_t *body = NULL, *reply = NULL;
	char hardware[LB_HARDWARE_HEX_BYTES], host[65] = "machine";
	enum lb_hardware_source source;
	const char *id;
	int r;

	gethostname(host, sizeof(host) - 1);
	r = settings_of(env, e, &folder);
	if (r < 0)
		return r;
	r = token_read(e->token_file, &token);
	if (r < 0)
		return r;
	r = lb_hardware_fingerprint(env, "", NULL, LB_HARDWARE_ANY, hardware, &source);
	if (r < 0)
		return r;
	r = lb_folder_make(env, folder, 0700);
	if (r < 0)
		return r;
	r = lb_pki_request(env, folder, e->name != NULL ? e->name : host, &csr);
	if (r < 0)
		return r;
	r = request_json(env, &token, csr, e->name != NULL ? e->name : host, hardware, &body);
	if (r < 0)
		return r;
	r = ask(env, e, folder, body, &reply);
	if (r < 0)
		return lb_wrap(r, "enrolment at %s", e->config_url);
	r = lb_json_get_str(reply, "id", &id);
	if (r < 0)
		return lb_wrap(r, "answer to the enrolment");
	r = install(env, e, folder, reply);
	if (r < 0)
		return r;
	r = lb_hardware_source_keep(env, folder, source);
	if (r < 0)
		return r;
	r = keep_settings(env, e);
	if (r < 0)
		return r;
	give_to_service(env, folder);
	printf("enrolled as machine %s; choose its disks with `lifeboat machine protect`\n", id);
	return 0;
}
