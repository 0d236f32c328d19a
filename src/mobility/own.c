/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/own.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "mobility/enrol.h"
#include "wire/client.h"
#include "wire/pki.h"
#include "wire/told.h"

#define FIRMWARE_PATH "/sys/firmware/qemu_fw_cfg/by_name/" LB_TOLD_FWCFG "/raw"
#define PATH_BYTES 1024
#define NAME_BYTES 17
#define NEW ".new" /* an identity that is being made */

static int told(struct lb_env *env, const struct lb_agent_settings *settings, struct lb_told *ret_told)
{
	char path[PATH_BYTES];

	if (lb_told_read(env, FIRMWARE_PATH, ret_told) == 0)
		return 0;
	snprintf(path, sizeof(path), "%s/" LB_OWN_COPY_NAME, settings->run_folder);
	return lb_told_read(env, path, ret_told);
}

static int folder_of(const struct lb_agent_settings *settings, const struct lb_told *told, char folder[512])
{
	char digest[LB_TOLD_HEX_BYTES];
	int r;

	r = lb_told_digest(told->secret, digest);
	if (r < 0)
		return r;
	if (snprintf(folder, 512, "%s/" LB_OWN_FOLDER "/%.*s", settings->state_folder, NAME_BYTES - 1, digest) >= 512)
		return lb_fail(-ENAMETOOLONG, "the state folder's name is too long");
	return 0;
}

static bool has_cert(const char *folder)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/cert.pem", folder);
	return access(path, F_OK) == 0;
}

/* ---- removing ------------------------------------------------------------------------------------------- */

struct removal {
	struct lb_env *env;
	const char *folder;
	int error;
};

/* Files only, as we made them. */
static int remove_file(void *arg, const char *name, bool is_dir)
{
	struct removal *removal = arg;
	char path[PATH_BYTES];
	int r;

	snprintf(path, sizeof(path), "%s/%s", removal->folder, name);
	r = is_dir ? -EISDIR : removal->env->ops->unlink(removal->env, path);
	if (r < 0 && r != -ENOENT)
		removal->error = lb_fail(r, "can't remove %s: %s", path, strerror(-r));
	return 0;
}

static int remove_folder(struct lb_env *env, const char *folder)
{
	struct removal removal = {.env = env, .folder = folder};
	int r = env->ops->list(env, folder, remove_file, &removal);

	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = removal.error;
	if (r == 0 && rmdir(folder) < 0)
		r = lb_fail(-errno, "can't remove %s: %s", folder, strerror(errno));
	return r;
}

static int remove_one(void *arg, const char *name, bool is_dir)
{
	struct removal *removal = arg;
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%s", removal->folder, name);
	if (is_dir && remove_folder(removal->env, path) < 0)
		removal->error = -EIO;
	return 0;
}

int lb_own_remove_all(struct lb_env *env, const struct lb_agent_settings *settings)
{
	char folder[PATH_BYTES];
	struct removal removal = {.env = env, .folder = folder};
	int r;

	snprintf(folder, sizeof(folder), "%s/" LB_OWN_FOLDER, settings->state_folder);
	r = env->ops->list(env, folder, remove_one, &removal);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : removal.error < 0 ? removal.error : remove_folder(env, folder);
}

int lb_own_forget(struct lb_env *env, const struct lb_own *own)
{
	return remove_folder(env, own->folder);
}

/* ---- looking -------------------------------------------------------------------------------------------- */

struct search {
	struct lb_env *env;
	const char *folder;
	const struct lb_uuid *machine;
	bool found;
};

static int look_at(void *arg, const char *name, bool is_dir)
{
	struct search *s = arg;
	struct lb_cert_info info;
	struct lb_uuid id;
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%s/cert.pem", s->folder, name);
	if (is_dir && access(path, F_OK) == 0 && lb_cert_read(s->env, path, &info) == 0 &&
	    lb_uuid_parse(info.common_name, &id) == 0 && lb_uuid_equal(&id, s->machine))
		s->found = true;
	return 0;
}

bool lb_own_was(struct lb_env *env, const struct lb_agent_settings *settings, const struct lb_uuid *machine)
{
	char folder[512];
	struct search s = {.env = env, .folder = folder, .machine = machine};

	snprintf(folder, sizeof(folder), "%s/" LB_OWN_FOLDER, settings->state_folder);
	env->ops->list(env, folder, look_at, &s);
	return s.found;
}

/* Killed between two names: the new one is whole when its certificate is there. */
static int take_new(struct lb_env *env, const char *folder)
{
	char new[600];
	int r;

	snprintf(new, sizeof(new), "%s" NEW, folder);
	if (!has_cert(new))
		return 0;
	r = remove_folder(env, folder);
	r = r < 0 ? r : env->ops->rename(env, new, folder);
	return r < 0 ? r : lb_folder_sync(env, folder);
}

int lb_own_find(struct lb_env *env, const struct lb_agent_settings *settings, struct lb_own *ret_own)
{
	_cleanup_(lb_told_wipe) struct lb_told t = {0};
	struct lb_own own = {.settings = *settings};
	int r;

	r = told(env, settings, &t);
	if (r < 0)
		return r == -ENOENT ? r : lb_wrap(-ENOENT, "what this double is told can't be used");
	r = folder_of(settings, &t, own.folder);
	r = r < 0 ? r : take_new(env, own.folder);
	if (r < 0)
		return r;
	memcpy(own.config_url, t.config_url, sizeof(own.config_url));
	*ret_own = own;
	ret_own->settings.config_url = ret_own->config_url;
	ret_own->settings.identity_folder = ret_own->settings.state_folder = ret_own->folder;
	return has_cert(own.folder) ? 0 : -EAGAIN;
}

/* ---- asking --------------------------------------------------------------------------------------------- */

static int make_body(struct lb_env *env, const struct lb_agent_settings *settings, const struct lb_told *t,
		     const struct lb_uuid *source, const char *new, json_t **ret_body)
{
	_cleanup_free_ char *csr = NULL;
	_cleanup_json_ json_t *body = NULL;
	char hardware[LB_HARDWARE_HEX_BYTES], copy[PATH_BYTES], id[LB_UUID_TEXT_BYTES];
	enum lb_hardware_source from;
	int r;

	snprintf(copy, sizeof(copy), "%s/" LB_UUID_COPY_NAME, settings->run_folder);
	lb_uuid_format(source, id);
	r = lb_hardware_fingerprint(env, "", copy, LB_HARDWARE_ANY, hardware, &from);
	r = r < 0 ? r : lb_pki_request(env, new, "double", &csr);
	r = r < 0 ? r : lb_hardware_source_keep(env, new, from);
	r = r < 0 ? r : lb_hardware_json(env, "", &body);
	if (r < 0)
		return r;
	if (lb_json_set_str(body, "secret", t->secret) < 0 || lb_json_set_str(body, "csr_pem", csr) < 0 ||
	    lb_json_set_str(body, "machine", id) < 0 || lb_json_set_str(body, "hardware", hardware) < 0)
		return lb_fail(-ENOMEM, "out of memory for the enrolment");
	*ret_body = lb_steal_ptr(body);
	return 0;
}

static int send_body(const struct lb_told *t, const char *new, const json_t *body, json_t **ret_reply)
{
	const struct lb_http_client_options options = {.identity_folder = new, .ca_fingerprint_hex = t->ca_fingerprint};
	_cleanup_(lb_http_client_freep) struct lb_http_client *client = NULL;
	char url[PATH_BYTES];
	int r;

	r = lb_http_client_new(&options, &client);
	if (r < 0)
		return r;
	snprintf(url, sizeof(url), "%s/v1/enrol/double", t->config_url);
	return lb_http_json(client, "POST", url, body, ret_reply);
}

static int keep(struct lb_env *env, const struct lb_told *t, const char *new, const json_t *reply)
{
	const char *cert, *ca;
	int r;

	r = lb_json_get_str(reply, "cert_pem", &cert);
	r = r < 0 ? r : lb_json_get_str(reply, "ca_pem", &ca);
	if (r < 0)
		return lb_wrap(r, "answer to a double's enrolment");
	return lb_pki_install(env, new, cert, ca, t->ca_fingerprint);
}

int lb_own_ask(struct lb_env *env, const struct lb_agent_settings *settings, const struct lb_uuid *source,
	       char text[LB_OWN_TEXT_BYTES])
{
	_cleanup_(lb_told_wipe) struct lb_told t = {0};
	_cleanup_json_ json_t *body = NULL, *reply = NULL;
	char folder[512], new[PATH_BYTES];
	const char *wait;
	int r;

	r = told(env, settings, &t);
	r = r < 0 ? r : folder_of(settings, &t, folder);
	if (r < 0)
		return r;
	snprintf(new, sizeof(new), "%s" NEW, folder);
	r = lb_folder_make(env, new, 0700);
	r = r < 0 ? r : make_body(env, settings, &t, source, new, &body);
	r = r < 0 ? r : send_body(&t, new, body, &reply);
	if (r < 0)
		return r == -EAGAIN ? lb_wrap(-EREMOTEIO, "%s", t.config_url) : r;
	if (lb_json_get_str(reply, "wait", &wait) == 0) {
		snprintf(text, LB_OWN_TEXT_BYTES, "%s", wait);
		return -EAGAIN;
	}
	lb_err_clear();
	r = keep(env, &t, new, reply);
	return r < 0 ? r : take_new(env, folder);
}
