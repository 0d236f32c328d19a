/* SPDX-License-Identifier: Apache-2.0 */
/* The identities that this host needs of its own authority: the configuration server's, and the process server's here.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "config/ports.h"
#include "config/registry.h"
#include "config/site.h"
#include "config/targets.h"
#include "wire/pki.h"

#define NAMES_MAX (LB_PUBLIC_HOSTS_MAX + 5)
#define LOCAL_PROCESS_NAME "local"
#define LOCAL_TARGET_NAME "local-target"

struct names {
	char text[NAMES_MAX][300];
	const char *list[NAMES_MAX + 1];
	unsigned int n;
};

static void add_name(struct names *names, const char *host)
{
	char text[300];

	snprintf(text, sizeof(text), "%s:%s", lb_host_is_address(host) ? "IP" : "DNS", host);
	for (unsigned int i = 0; i < names->n; i++)
		if (strcmp(names->text[i], text) == 0)
			return;
	if (names->n == NAMES_MAX)
		return;
	memcpy(names->text[names->n], text, sizeof(text));
	names->list[names->n] = names->text[names->n];
	names->n++;
}

/* By which names this host is called: the public ones, and those by which its own parts call it. */
static void host_names(const struct lb_settings *s, struct names *names)
{
	memset(names, 0, sizeof(*names));
	for (unsigned int i = 0; i < s->n_hosts; i++)
		add_name(names, s->hosts[i]);
	add_name(names, lb_double_host(s));
	add_name(names, "localhost");
	add_name(names, "127.0.0.1");
	if (strcmp(s->address, "0.0.0.0") != 0 && strcmp(s->address, "::") != 0)
		add_name(names, s->address);
}

static int join(const struct names *names, struct lb_buf *out)
{
	int r = 0;

	for (unsigned int i = 0; r == 0 && i < names->n; i++)
		r = lb_buf_printf(out, "%s\n", names->text[i]);
	return r;
}

/* Whether the identity that is there does: ours, of these names, not due for renewal, and not revoked. */
static bool still_good(struct lb_site *site, const char *folder, const char *holder, const struct lb_buf *names)
{
	_cleanup_free_ uint8_t *kept = NULL;
	struct lb_cert_info info;
	char path[PATH_MAX];
	size_t size_bytes;

	if (lb_site_path(path, folder, "names") < 0 ||
	    lb_file_read(site->env, path, 64u << 10, &kept, &size_bytes) < 0 || size_bytes != names->size_bytes ||
	    memcmp(kept, names->data, size_bytes) != 0)
		return false;
	if (lb_site_path(path, folder, "cert.pem") < 0 || lb_cert_read(site->env, path, &info) < 0)
		return false;
	return strcmp(info.common_name, holder) == 0 && !lb_cert_renewal_due(&info, lb_now_ns(site->env)) &&
	       lb_reg_cert_check(site->db, &info.fingerprint, holder, lb_now_ns(site->env)) == 0;
}

static int renew(struct lb_site *site, const char *folder, const char *holder, enum lb_role role, bool *ret_renewed)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(64u << 10);
	struct names names;
	struct lb_issue issue = {.common_name = holder,
				 .role = role,
				 .san = names.list,
				 .now_ns = lb_now_ns(site->env),
				 .valid_days = LB_CERT_VALID_DAYS_DEFAULT};
	struct lb_cert_info info;
	char path[PATH_MAX];
	int r;

	host_names(&site->settings, &names);
	*ret_renewed = false;
	r = join(&names, &text);
	if (r < 0 || still_good(site, folder, holder, &text))
		return r;
	r = lb_ca_issue_here(site->env, site->ca_folder, folder, &issue);
	if (r == 0)
		r = lb_site_path(path, folder, "cert.pem");
	if (r == 0)
		r = lb_cert_read(site->env, path, &info);
	if (r == 0)
		r = lb_reg_cert_put(site->db, &info, holder, issue.now_ns);
	if (r == 0)
		r = lb_site_path(path, folder, "names");
	if (r == 0)
		r = lb_file_write(site->env, path, text.data, text.size_bytes, 0644);
	*ret_renewed = r == 0;
	return r;
}

int lb_site_identity_renew(struct lb_site *site, bool *ret_renewed)
{
	return renew(site, site->identity_folder, lb_role_name(LB_ROLE_CONFIG), LB_ROLE_CONFIG, ret_renewed);
}

int lb_site_identity_of(struct lb_site *site, const char *folder, const char *process, bool *ret_renewed)
{
	return renew(site, folder, process, LB_ROLE_PROCESS, ret_renewed);
}

static int find_local(void *arg, const struct lb_reg_process *p)
{
	if (p->local)
		*(struct lb_reg_process *)arg = *p;
	return 0;
}

/* The registry's entry of the process server here, as the settings have it now. */
static int register_local(struct lb_site *site)
{
	struct lb_reg_process p = {.id = ""};
	size_t used = 0;
	int r;

	r = lb_reg_processes(site->db, find_local, &p);
	if (r == 0 && p.id[0] == '\0') {
		p.created_ns = lb_now_ns(site->env);
		p.local = true;
		snprintf(p.name, sizeof(p.name), LOCAL_PROCESS_NAME);
		r = lb_site_uuid(site, p.id);
	}
	if (r < 0)
		return r;
	r = lb_ports_local(site, p.port == 0, &p.port);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < site->settings.n_hosts && used < sizeof(p.hosts); i++)
		used += (size_t)snprintf(p.hosts + used, sizeof(p.hosts) - used, "%s%s", i > 0 ? "," : "",
					 site->settings.hosts[i]);
	if (used >= sizeof(p.hosts))
		return lb_fail(-EINVAL, "public_host is longer than %zu characters", sizeof(p.hosts) - 1);
	memcpy(site->local_process, p.id, sizeof(p.id));
	return lb_reg_process_put(site->db, &p);
}

int lb_site_process_identity_renew(struct lb_site *site, bool *ret_renewed)
{
	char folder[PATH_MAX];
	int r;

	r = site->local_process[0] == '\0' ? register_local(site) : 0;
	if (r == 0)
		r = lb_site_path(folder, site->process_folder, "identity");
	return r < 0 ? r : renew(site, folder, site->local_process, LB_ROLE_PROCESS, ret_renewed);
}

static int find_local_target(void *arg, const struct lb_targets_server *t)
{
	if (t->local)
		memcpy(arg, t->id, sizeof(t->id));
	return 0;
}

int lb_site_target_identity_renew(struct lb_site *site, bool *ret_renewed)
{
	struct lb_targets_server t = {.local = true, .created_ns = lb_now_ns(site->env), .name = LOCAL_TARGET_NAME};
	char folder[PATH_MAX];
	int r;

	r = lb_targets_each(site->db, find_local_target, t.id);
	if (r == 0 && t.id[0] == '\0') {
		r = lb_site_uuid(site, t.id);
		r = r < 0 ? r : lb_targets_put(site->db, &t);
	}
	r = r < 0 ? r : lb_site_path(folder, site->settings.state_folder, "target/identity");
	return r < 0 ? r : renew(site, folder, t.id, LB_ROLE_TARGET, ret_renewed);
}
