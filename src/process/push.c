/* SPDX-License-Identifier: Apache-2.0 */
#include "process/push.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/json.h"
#include "process/fitness.h"
#include "process/ssh.h"

#ifndef LB_DEB_ARCHITECTURE
#if defined(__x86_64__)
#define LB_DEB_ARCHITECTURE "amd64"
#elif defined(__aarch64__)
#define LB_DEB_ARCHITECTURE "arm64"
#else
#error "which architecture has Debian's name?"
#endif
#endif

#define FOLDER_BYTES 64
#define SCRIPT_BYTES_MAX 4096
#define ENROL_WAIT_S (LB_PUSH_STEP_S - 30) /* for a configuration server that restarts */

struct work {
	const struct lb_push *push;
	struct lb_ssh *ssh;
	char folder[FOLDER_BYTES]; /* there; empty: none */
	json_t *fitness;
};

static const char *text_of(const struct work *w, const char *member)
{
	return json_string_value(json_object_get(w->push->order, member));
}

static void say(const struct work *w, const char *step, const char *text)
{
	w->push->say(w->push->arg, step, text);
	lb_fault_place("push to %s: %s", text_of(w, "host"), step);
}

static bool only(const char *text, const char *characters)
{
	return text != NULL && *text != '\0' && strspn(text, characters) == strlen(text);
}

/* What goes into scripts is of characters that no shell gives a meaning to. */
static int check_order(const struct work *w)
{
	if (lb_name_check("machine", text_of(w, "name") != NULL ? text_of(w, "name") : "") < 0)
		return -EINVAL;
	if (!only(text_of(w, "ca_fingerprint"), "0123456789abcdef") ||
	    !only(text_of(w, "config_url"), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:/[]-") ||
	    !only(text_of(w, "token"), "0123456789abcdef"))
		return lb_fail(-EINVAL, "the configuration server's order can't be carried out: its texts are unsafe");
	return 0;
}

static int connect_host(struct work *w)
{
	struct lb_ssh_login login = {
		.host = text_of(w, "host"),
		.user = text_of(w, "user"),
		.key_pem = text_of(w, "key"),
		.password = text_of(w, "password"),
		.host_key = text_of(w, "host_key"),
		.accept_new = json_is_true(json_object_get(w->push->order, "accept_new_host_key")),
		.known_hosts = w->push->known_hosts,
	};
	uint32_t port;
	int r;

	r = lb_json_get_u32(w->push->order, "port", UINT16_MAX, &port);
	if (r == 0 && (login.host == NULL || login.user == NULL))
		r = lb_fail(-EINVAL, "an order without host or user");
	if (r < 0)
		return r;
	login.port = (uint16_t)port;
	say(w, "connect", login.host);
	return lb_ssh_open(&login, &w->ssh);
}

static int assess(struct work *w)
{
	_cleanup_buf_ struct lb_buf out = LB_BUF(LB_SSH_OUTPUT_BYTES_MAX);
	const json_t *one;
	size_t i;
	int r;

	say(w, "assess", "");
	r = lb_ssh_run(w->ssh, false, lb_fitness_script, LB_PUSH_STEP_S, &out);
	if (r == 0)
		r = lb_fitness_judge(out.data != NULL ? (const char *)out.data : "", LB_DEB_ARCHITECTURE, time(NULL),
				     &w->fitness);
	if (r < 0)
		return r;
	json_array_foreach(json_object_get(w->fitness, "findings"), i, one)
		say(w, "assess", json_string_value(json_object_get(one, "text")));
	return 0;
}

static int refuse_unfit(const struct work *w)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(w->fitness, "findings"), i, one)
	{
		if (json_is_true(json_object_get(one, "blocks")))
			return lb_fail(-EOPNOTSUPP, "%s can't be protected: %s; %s", text_of(w, "host"),
				       json_string_value(json_object_get(one, "text")),
				       json_string_value(json_object_get(one, "cure")));
	}
	return 0;
}

static int scripted(struct work *w, bool as_root, uint32_t limit_s, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static int scripted(struct work *w, bool as_root, uint32_t limit_s, const char *fmt, ...)
{
	_cleanup_buf_ struct lb_buf out = LB_BUF(LB_SSH_OUTPUT_BYTES_MAX);
	char script[SCRIPT_BYTES_MAX];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(script, sizeof(script), fmt, ap);
	va_end(ap);
	if (n < 0 || n >= (int)sizeof(script))
		return lb_fail(-EMSGSIZE, "a script is too long");
	return lb_ssh_run(w->ssh, as_root, script, limit_s, &out);
}

/* A folder of the login's own, for the package and the token: it goes with the login, whatever ends that. */
static int make_folder(struct work *w)
{
	static const char prefix[] = "lb:/tmp/lifeboat-";
	_cleanup_buf_ struct lb_buf out = LB_BUF(LB_SSH_OUTPUT_BYTES_MAX);
	const char *at;
	int r;

	r = lb_ssh_hold(w->ssh,
			"exec sh -c 'umask 077; d=$(mktemp -d /tmp/lifeboat-XXXXXXXXXX) || exit 1; echo \"lb:$d\"; "
			"cat >/dev/null; rm -rf \"$d\"' 2>&1",
			prefix, LB_PUSH_STEP_S, &out);
	if (r < 0)
		return lb_wrap(r, "no temporary folder can be made in /tmp");
	at = (const char *)out.data;
	if (strlen(at) - 3 >= FOLDER_BYTES ||
	    !only(at + strlen(prefix), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))
		return lb_fail(-EREMOTEIO, "%s: its temporary folder has an odd name", text_of(w, "host"));
	snprintf(w->folder, sizeof(w->folder), "%s", at + 3);
	return 0;
}

static int send_package(struct work *w)
{
	_cleanup_free_ uint8_t *package = NULL;
	char path[FOLDER_BYTES + 32];
	size_t size_bytes;
	int r;

	say(w, "send the package", w->push->package);
	r = lb_file_read(lb_env_real(), w->push->package, LB_PUSH_PACKAGE_BYTES_MAX, &package, &size_bytes);
	if (r < 0)
		return lb_wrap(r, "the agent's package is not on this process server (agent_package in process.conf)");
	r = make_folder(w);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/lifeboat-mobility.deb", w->folder);
	return lb_ssh_put(w->ssh, package, size_bytes, path, 0600);
}

static int install(struct work *w)
{
	say(w, "install", "");
	return scripted(
		w, true, LB_PUSH_INSTALL_S,
		"set -e\nexport DEBIAN_FRONTEND=noninteractive\n"
		/* of one that was cut off */
		"[ -z \"$(dpkg --audit 2>/dev/null)\" ] || dpkg --force-confold --configure -a || true\n"
		"if command -v apt-get >/dev/null; then\n"
		"  apt-get install -y -q --no-install-recommends -o Dpkg::Options::=--force-confold "
		"%s/lifeboat-mobility.deb || { apt-get update -q && apt-get install -y -q --no-install-recommends "
		"-o Dpkg::Options::=--force-confold %s/lifeboat-mobility.deb; }\n"
		"else dpkg --force-confold -i %s/lifeboat-mobility.deb; fi\n",
		w->folder, w->folder, w->folder);
}

static int enrol(struct work *w)
{
	const char *token = text_of(w, "token");
	char path[FOLDER_BYTES + 32];
	int r;

	say(w, "enrol", text_of(w, "name"));
	snprintf(path, sizeof(path), "%s/token", w->folder);
	r = lb_ssh_put(w->ssh, token, strlen(token), path, 0600);
	if (r < 0)
		return r;
	return scripted(w, true, LB_PUSH_STEP_S,
			"lifeboat-mobility enrol --config-url '%s' --ca-fingerprint %s --token-file %s --name %s "
			"--wait %d\n",
			text_of(w, "config_url"), text_of(w, "ca_fingerprint"), path, text_of(w, "name"), ENROL_WAIT_S);
}

static int start(struct work *w)
{
	const json_t *facts = json_object_get(w->fitness, "facts");
	const char *systemd = json_string_value(json_object_get(facts, "systemd"));

	say(w, "start", "");
	if (systemd == NULL || strcmp(systemd, "yes") != 0)
		return 0; /* a finding said it */
	return scripted(w, true, LB_PUSH_STEP_S,
			"set -e\nsystemctl enable lifeboat-capture lifeboat-mobility\n"
			"systemctl restart lifeboat-capture lifeboat-mobility\n");
}

static int remove_agent(struct work *w)
{
	say(w, "remove", "");
	return scripted(w, true, LB_PUSH_INSTALL_S,
			"export DEBIAN_FRONTEND=noninteractive\ndpkg --purge lifeboat-mobility\n");
}

static int act(struct work *w, const char *action)
{
	int r;

	if (strcmp(action, "assess") == 0)
		return 0;
	r = lb_ssh_root(w->ssh);
	if (r == 0 && strcmp(action, "remove") == 0)
		return remove_agent(w);
	if (r == 0)
		r = refuse_unfit(w);
	if (r == 0)
		r = send_package(w);
	if (r == 0)
		r = install(w);
	if (r == 0 && strcmp(action, "install") == 0)
		r = enrol(w);
	return r == 0 ? start(w) : r;
}

/* Whatever became of it, the token and the package don't stay there. */
static int clean_up(struct work *w, int r)
{
	char text[LB_ERR_TEXT_BYTES_MAX];

	snprintf(text, sizeof(text), "%s", lb_err_text());
	if (w->folder[0] != '\0')
		scripted(w, false, LB_PUSH_STEP_S, "rm -rf %s\n", w->folder);
	if (w->ssh != NULL)
		lb_ssh_free(w->ssh);
	return r < 0 ? lb_fail(r, "%s", text) : 0;
}

int lb_push_run(const struct lb_push *push, json_t **ret_fitness)
{
	struct work w = {.push = push};
	const char *action;
	int r;

	r = lb_json_get_str(push->order, "action", &action);
	if (r == 0 && strcmp(action, "install") == 0)
		r = check_order(&w);
	if (r == 0)
		r = connect_host(&w);
	if (r == 0)
		r = assess(&w);
	if (r == 0)
		r = act(&w, action);
	r = clean_up(&w, r);
	*ret_fitness = w.fitness;
	return r;
}
