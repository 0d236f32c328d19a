/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "fabric/failover_internal.h"
#include "fabric/hook.h"
#include "vault/proof.h"

#define LOOK_AGAIN_MS 250
#define LOGIN_DEFAULT "login:"
#define LOGIN_BYTES_MAX 200
#define SEND_BYTES_MAX 1024
#define SKEW_NS (60 * LB_NS_PER_S) /* between the configuration server's clock and the process server's */

static int no_memory(void)
{
	return lb_fail(-ENOMEM, "out of memory for a check");
}

/* ---- what is asked ------------------------------------------------------------------------------------------ */

static int read_port(const json_t *from, json_t *list)
{
	const char *send_text = "";
	uint32_t port = 0;
	int r = 0;

	if (json_is_integer(from)) {
		if (json_integer_value(from) > 0 && json_integer_value(from) <= UINT16_MAX)
			port = (uint32_t)json_integer_value(from);
	} else {
		r = lb_json_get_u32(from, "port", UINT16_MAX, &port);
		if (r == 0 && json_object_get(from, "send") != NULL)
			r = lb_json_get_str(from, "send", &send_text);
	}
	if (r < 0 || port == 0 || strlen(send_text) > SEND_BYTES_MAX)
		return lb_fail(-EINVAL, "a check's port is 1 to 65535, or {\"port\": N, \"send\": TEXT}");
	return json_array_append_new(list, json_pack("{s:i,s:s}", "port", (int)port, "send", send_text)) < 0
		       ? no_memory()
		       : 0;
}

static int read_ports(const json_t *body, json_t *full)
{
	const json_t *ports = json_object_get(body, "ports"), *one;
	json_t *list = json_array();
	size_t i;
	int r = 0;

	if (list == NULL || json_object_set_new(full, "ports", list) < 0)
		return no_memory();
	if (ports != NULL && (!json_is_array(ports) || json_array_size(ports) > LB_CHECK_PORTS_MAX))
		return lb_fail(-EINVAL, "a check's \"ports\" is a list of at most %d", LB_CHECK_PORTS_MAX);
	json_array_foreach(ports, i, one) r = r < 0 ? r : read_port(one, list);
	return r;
}

static int read_login(const json_t *body, bool nothing_asked, json_t *full)
{
	const json_t *login = json_object_get(body, "login");
	const char *text = json_is_string(login) ? json_string_value(login) : LOGIN_DEFAULT;

	if (login == NULL ? !nothing_asked : json_is_false(login))
		return 0;
	if ((login != NULL && !json_is_true(login) && !json_is_string(login)) || text[0] == '\0' ||
	    strlen(text) > LOGIN_BYTES_MAX)
		return lb_fail(-EINVAL, "a check's \"login\" is true, or the text that its console must show");
	return lb_json_set_str(full, "login", text);
}

int lb_check_read(const json_t *body, json_t **ret_check)
{
	static const char *const known[] = {"nonce", "login", "ports", "script", "timeout_s"};
	_cleanup_json_ json_t *full = json_object();
	const json_t *value, *nonce = json_object_get(body, "nonce");
	bool nothing = body == NULL || (json_object_size(body) == (json_object_get(body, "timeout_s") != NULL));
	uint64_t timeout_s = LB_CHECK_TIMEOUT_S_DEFAULT;
	const char *name, *script = NULL;
	int r = 0;

	if (full == NULL)
		return no_memory();
	if (body != NULL && !json_is_object(body))
		return lb_fail(-EINVAL, "\"check\" is an object");
	json_object_foreach((json_t *)body, name, value)
	{
		size_t i = 0;

		while (i < LB_ARRAY_LEN(known) && strcmp(known[i], name) != 0)
			i++;
		if (i == LB_ARRAY_LEN(known))
			return lb_fail(-EINVAL,
				       "there is no check \"%.40s\", but: nonce, login, ports, script, timeout_s",
				       name);
	}
	if (nonce != NULL && !json_is_boolean(nonce))
		return lb_fail(-EINVAL, "a check's \"nonce\" is true or false");
	r = lb_json_set_bool(full, "nonce", nonce != NULL ? json_is_true(nonce) : nothing);
	r = r < 0 ? r : read_login(body, nothing, full);
	r = r < 0 ? r : read_ports(body, full);
	if (r == 0 && json_object_get(body, "script") != NULL) {
		r = lb_json_get_str(body, "script", &script);
		r = r < 0 ? r : lb_name_check("script", script);
		r = r < 0 ? r : lb_json_set_str(full, "script", script);
	}
	if (r == 0 && json_object_get(body, "timeout_s") != NULL)
		r = lb_json_get_u64(body, "timeout_s", &timeout_s);
	if (r < 0)
		return r == -EBADMSG ? lb_wrap(-EINVAL, "a check") : r;
	if (timeout_s == 0 || timeout_s > LB_CHECK_TIMEOUT_S_MAX)
		return lb_fail(-EINVAL, "a check's \"timeout_s\" is 1 to %d", LB_CHECK_TIMEOUT_S_MAX);
	r = lb_json_set_u64(full, "timeout_s", timeout_s);
	if (r < 0)
		return r;
	*ret_check = lb_steal_ptr(full);
	return 0;
}

int lb_check_forwards(const json_t *check, struct lb_vm_forward *forwards, uint32_t *n)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(check, "ports"), i, one)
	{
		uint16_t port = (uint16_t)json_integer_value(json_object_get(one, "port"));
		bool there = false;

		for (uint32_t k = 0; k < *n; k++)
			there |= forwards[k].guest_port == port;
		if (there)
			continue;
		if (*n == LB_VM_FORWARDS_MAX)
			return lb_fail(-E2BIG, "at most %d ports of a double can be reached", LB_VM_FORWARDS_MAX);
		forwards[(*n)++] = (struct lb_vm_forward){.address = "127.0.0.1", .guest_port = port};
	}
	return 0;
}

/* ---- what is seen ------------------------------------------------------------------------------------------------ */

/* The end of a file that the guest writes; NULs become spaces. Nothing of it yet is no error. */
static int read_tail(struct lb_failover *f, const char *name, char **ret_text)
{
	_cleanup_free_ char *path = lb_vm_path(&f->vm, name), *text = malloc(LB_CONSOLE_TAIL_BYTES + 1);
	uint64_t size_bytes = 0;
	size_t n = 0;
	int fd, r = 0;

	if (path == NULL || text == NULL)
		return no_memory();
	fd = f->env->ops->open(f->env, path, O_RDONLY | O_NOFOLLOW, 0);
	if (fd >= 0) {
		r = f->env->ops->size(f->env, fd, &size_bytes);
		n = (size_t)LB_MIN(size_bytes, (uint64_t)LB_CONSOLE_TAIL_BYTES);
		r = r < 0 ? r : lb_pread_full(f->env, fd, text, n, size_bytes - n);
		f->env->ops->close(f->env, fd);
	}
	if (r < 0)
		return lb_wrap(r, "%s", path);
	for (size_t i = 0; i < n; i++)
		if (text[i] == '\0')
			text[i] = ' ';
	text[n] = '\0';
	*ret_text = lb_steal_ptr(text);
	return 0;
}

static json_t *verdict(bool passed, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static json_t *verdict(bool passed, const char *fmt, ...)
{
	char text[LB_ERR_TEXT_BYTES_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return json_pack("{s:b,s:s}", "passed", (int)passed, "text", text);
}

static bool has_passed(const json_t *v)
{
	return json_is_true(json_object_get(v, "passed"));
}

/* "lifeboat-proof UUID WORD" in what one of the ports said. */
static bool find_word(const struct lb_failover *f, const char *text, char word[LB_PROOF_TEXT_BYTES])
{
	char id[LB_UUID_TEXT_BYTES], begin[sizeof(LB_PROOF_SAID) + LB_UUID_TEXT_BYTES + 2];
	const char *at;
	size_t length;

	lb_uuid_format(&f->machine, id);
	snprintf(begin, sizeof(begin), LB_PROOF_SAID " %s ", id);
	at = strstr(text, begin);
	if (at == NULL)
		return false;
	at += strlen(begin);
	length = strspn(at, "0123456789abcdef:");
	/* not while it is still being written */
	if (length >= LB_PROOF_TEXT_BYTES || at[length] == '\0')
		return false;
	snprintf(word, LB_PROOF_TEXT_BYTES, "%.*s", (int)length, at);
	return true;
}

static json_t *judge_word(struct lb_failover *f, const char *word)
{
	char when[LB_TIME_TEXT_BYTES], point[LB_TIME_TEXT_BYTES];
	int64_t time_ns = 0;
	json_t *v;
	int r;

	r = lb_failover_vault(f);
	r = r < 0 ? r : lb_proof_check(f->vault, &f->machine, word, &time_ns);
	if (r < 0)
		return verdict(false, "%s", lb_err_text());
	lb_time_format(time_ns, when);
	lb_time_format(f->point.time_ns, point);
	if (time_ns > LB_MAX(f->point.time_ns, f->point.until_ns) + SKEW_NS)
		return verdict(false, "its disk carries the word of %s, which is later than the recovery point of %s",
			       when, point);
	v = verdict(true, "its disk carries the word of %s, %" PRId64 " s before the recovery point", when,
		    LB_MAX((f->point.time_ns - time_ns) / LB_NS_PER_S, (int64_t)0));
	if (v != NULL)
		json_object_set_new(v, "time_ns", json_integer(time_ns));
	return v;
}

static json_t *look_for_word(struct lb_failover *f, const char *console, const char *proof)
{
	char word[LB_PROOF_TEXT_BYTES];

	if (find_word(f, proof, word) || find_word(f, console, word))
		return judge_word(f, word);
	return verdict(false, "it has not shown what its disk carries (its agent's `lifeboat-mobility prove` does)");
}

static json_t *look_for_login(const char *wanted, const char *console, const char *proof)
{
	if (strstr(console, wanted) != NULL || strstr(proof, wanted) != NULL)
		return verdict(true, "its console shows \"%s\"", wanted);
	return verdict(false, "its console has not shown \"%s\"", wanted);
}

static int look_at_ports(struct lb_failover *f, const json_t *check, json_t *result)
{
	json_t *list = json_object_get(result, "ports"), *before;
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(check, "ports"), i, one)
	{
		int port = (int)json_integer_value(json_object_get(one, "port"));
		json_t *v;

		before = json_array_get(list, i);
		if (has_passed(before))
			continue;
		v = lb_failover_answers(f, (uint16_t)port, json_string_value(json_object_get(one, "send")))
			    ? verdict(true, "port %d answers", port)
			    : verdict(false, "port %d has not answered", port);
		if (v == NULL || json_object_set_new(v, "port", json_integer(port)) < 0 ||
		    (before != NULL ? json_array_set_new(list, i, v) : json_array_append_new(list, v)) < 0)
			return no_memory();
	}
	return 0;
}

static int keep(json_t *result, const char *member, json_t *v)
{
	return v == NULL || json_object_set_new(result, member, v) < 0 ? no_memory() : 0;
}

static int look_once(struct lb_failover *f, const json_t *check, json_t *result)
{
	_cleanup_free_ char *console = NULL, *proof = NULL;
	const char *login = json_string_value(json_object_get(check, "login"));
	int r;

	r = read_tail(f, "console.log", &console);
	r = r < 0 ? r : read_tail(f, LB_PROOF_FILE, &proof);
	if (r == 0 && json_is_true(json_object_get(check, "nonce")) && !has_passed(json_object_get(result, "nonce")))
		r = keep(result, "nonce", look_for_word(f, console, proof));
	if (r == 0 && login != NULL && !has_passed(json_object_get(result, "login")))
		r = keep(result, "login", look_for_login(login, console, proof));
	return r < 0 ? r : look_at_ports(f, check, result);
}

static bool all_seen(const json_t *result)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(result, "ports"), i, one) if (!has_passed(one)) return false;
	return (json_object_get(result, "nonce") == NULL || has_passed(json_object_get(result, "nonce"))) &&
	       (json_object_get(result, "login") == NULL || has_passed(json_object_get(result, "login")));
}

/* ---- the script ------------------------------------------------------------------------------------------------- */

static int run_script(struct lb_failover *f, const struct lb_check_run *run, const char *script, uint32_t timeout_s,
		      json_t *result)
{
	char texts[6][LB_PATH_BYTES + 40], line[LB_PROC_LAST_LINE_BYTES] = "";
	const char *values[7];
	struct lb_hook hook = {.folder = run->hook_folder,
			       .name = script,
			       .timeout_s = timeout_s,
			       .values = values,
			       .idle = run->idle,
			       .arg = run->arg};
	size_t used;
	int r;

	snprintf(texts[0], sizeof(texts[0]), "LIFEBOAT_MACHINE=%s", f->machine_name);
	snprintf(texts[1], sizeof(texts[1]), "LIFEBOAT_DOUBLE=%s", f->vm.name);
	snprintf(texts[2], sizeof(texts[2]), "LIFEBOAT_KIND=%s", f->kind == LB_FAILOVER_LIVE ? "failover" : "test");
	snprintf(texts[3], sizeof(texts[3]), "LIFEBOAT_CONSOLE=%s/console.log", f->vm.folder);
	snprintf(texts[4], sizeof(texts[4]), "LIFEBOAT_POINT_NS=%" PRId64, f->point.time_ns);
	used = (size_t)snprintf(texts[5], sizeof(texts[5]), "LIFEBOAT_PORTS=");
	for (uint32_t i = 0; i < f->vm.n_forwards && used < sizeof(texts[5]); i++) /* guest=address:port */
		used += (size_t)snprintf(texts[5] + used, sizeof(texts[5]) - used, "%s%u=%s:%u", i > 0 ? " " : "",
					 f->vm.forwards[i].guest_port, f->vm.forwards[i].address,
					 f->vm.forwards[i].host_port);
	for (size_t i = 0; i < 6; i++)
		values[i] = texts[i];
	values[6] = NULL;
	r = lb_hook_run(f->env, &hook, line);
	if (r == -ECANCELED || r == -ESHUTDOWN)
		return r;
	return keep(result, "script", r < 0 ? verdict(false, "%s", lb_err_text()) : verdict(true, "%s", line));
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static int look_until(struct lb_failover *f, const struct lb_check_run *run, int64_t end_ns, json_t *result)
{
	enum lb_vm_state state = LB_VM_ABSENT;
	int r;

	for (;;) {
		r = run->idle != NULL ? run->idle(run->arg) : 0;
		r = r < 0 ? r : look_once(f, run->check, result);
		if (r < 0 || all_seen(result))
			return r;
		r = lb_failover_state(f, &state);
		if (r < 0)
			return r;
		if (state == LB_VM_STOPPED || state == LB_VM_ABSENT)
			return keep(result, "stopped", verdict(false, "the double has stopped by itself"));
		if (lb_mono_ns(f->env) >= end_ns)
			return 0;
		lb_proc_pause(f->env, LOOK_AGAIN_MS);
	}
}

int lb_failover_check(struct lb_failover *f, const struct lb_check_run *run, json_t **ret_result)
{
	_cleanup_json_ json_t *result = json_pack("{s:[]}", "ports");
	const char *script = json_string_value(json_object_get(run->check, "script"));
	json_int_t timeout_s = json_integer_value(json_object_get(run->check, "timeout_s"));
	int64_t left_s, end_ns;
	bool passed;
	int r;

	if (result == NULL)
		return no_memory();
	if (run->limit_s != 0)
		timeout_s = LB_MIN(timeout_s, (json_int_t)run->limit_s);
	end_ns = lb_mono_ns(f->env) + timeout_s * LB_NS_PER_S;
	r = lb_failover_fabric(f);
	r = r < 0 ? r : look_until(f, run, end_ns, result);
	if (r < 0)
		return r;
	passed = all_seen(result) && json_object_get(result, "stopped") == NULL;
	left_s = (end_ns - lb_mono_ns(f->env)) / LB_NS_PER_S;
	if (passed && script != NULL) {
		r = run_script(f, run, script, (uint32_t)LB_MAX(left_s, (int64_t)1), result);
		if (r < 0)
			return r;
		passed = has_passed(json_object_get(result, "script"));
	}
	if (lb_json_set_bool(result, "passed", passed) < 0)
		return no_memory();
	*ret_result = lb_steal_ptr(result);
	return 0;
}

/* ---- pictures ------------------------------------------------------------------------------------------------------
 */

static int keep_console(struct lb_failover *f, const char *folder)
{
	_cleanup_free_ char *console = NULL, *proof = NULL, *path = NULL, *text = NULL;
	int r;

	r = read_tail(f, "console.log", &console);
	r = r < 0 ? r : read_tail(f, LB_PROOF_FILE, &proof);
	if (r < 0)
		return r;
	if (asprintf(&path, "%s/" LB_PICTURE_CONSOLE, folder) < 0)
		return no_memory();
	if (asprintf(&text, "---- first serial port\n%s\n---- second serial port\n%s\n", console, proof) < 0)
		return no_memory();
	return lb_file_write(f->env, path, text, strlen(text), 0600);
}

int lb_failover_picture(struct lb_failover *f, const char *folder, char ret_screen_type[8])
{
	_cleanup_free_ char *made = lb_vm_path(&f->vm, LB_PICTURE_SCREEN), *path = NULL;
	_cleanup_free_ uint8_t *data = NULL;
	size_t size_bytes;
	int r, console;

	if (made == NULL)
		return no_memory();
	ret_screen_type[0] = '\0';
	console = keep_console(f, folder);
	r = lb_failover_fabric(f);
	/* QEMU writes it where it may write; we take it from there */
	r = r < 0 ? r : f->fabric->ops->screenshot(f->fabric, &f->vm, made, ret_screen_type);
	r = r < 0 ? r : lb_file_read(f->env, made, 64u << 20, &data, &size_bytes);
	if (r == 0 && asprintf(&path, "%s/" LB_PICTURE_SCREEN ".%s", folder, ret_screen_type) < 0)
		return no_memory();
	r = r < 0 ? r : lb_file_write(f->env, path, data, size_bytes, 0600);
	if (r < 0)
		ret_screen_type[0] = '\0';
	return r < 0 ? r : console;
}
