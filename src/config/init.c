/* SPDX-License-Identifier: Apache-2.0 */
#include "config/init.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/io.h"
#include "config/api.h"
#include "config/secrets.h"
#include "config/site.h"
#include "wire/pki.h"

#define CONF_BYTES_MAX (32u << 10)

struct init {
	const char *config, *state_folder, *vault, *passphrase_file, *admin_identity, *admin_name, *public_host,
		*address, *port, *process_port, *fabric;
};

static const struct {
	const char *option, *setting;
	size_t offset;
} written[] = {
	{"address", "address", offsetof(struct init, address)},
	{"port", "port", offsetof(struct init, port)},
	{"public-host", "public_host", offsetof(struct init, public_host)},
	{"process-port", "process_port", offsetof(struct init, process_port)},
	{"vault", "vault", offsetof(struct init, vault)},
	{"passphrase-file", "passphrase_file", offsetof(struct init, passphrase_file)},
	{"fabric", "fabric", offsetof(struct init, fabric)},
};

static int parse(int argc, char **argv, struct init *in)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},         {"state-folder", required_argument, NULL, 's'},
		{"vault", required_argument, NULL, 'v'},          {"passphrase-file", required_argument, NULL, 'p'},
		{"admin-identity", required_argument, NULL, 'a'}, {"admin-name", required_argument, NULL, 'n'},
		{"public-host", required_argument, NULL, 'h'},    {"address", required_argument, NULL, 'l'},
		{"port", required_argument, NULL, 'P'},           {"process-port", required_argument, NULL, 'Q'},
		{"fabric", required_argument, NULL, 'f'},         {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		const char **value = c == 'c'   ? &in->config
				     : c == 's' ? &in->state_folder
				     : c == 'v' ? &in->vault
				     : c == 'p' ? &in->passphrase_file
				     : c == 'a' ? &in->admin_identity
				     : c == 'n' ? &in->admin_name
				     : c == 'h' ? &in->public_host
				     : c == 'l' ? &in->address
				     : c == 'P' ? &in->port
				     : c == 'Q' ? &in->process_port
				     : c == 'f' ? &in->fabric
						: NULL;

		if (value == NULL)
			return -EINVAL;
		if (strpbrk(optarg, "\n\r") != NULL)
			return lb_fail(-EINVAL, "an argument may not have line ends in it");
		*value = optarg;
	}
	if (optind < argc)
		return lb_fail(-EINVAL, "unexpected argument \"%.60s\"", argv[optind]);
	if (in->vault == NULL || in->admin_identity == NULL)
		return lb_fail(-EINVAL, "--vault URL and --admin-identity FOLDER are needed");
	return 0;
}

static int write_conf(struct lb_env *env, const struct init *in)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(CONF_BYTES_MAX);
	_cleanup_free_ uint8_t *there = NULL;
	size_t size_bytes;
	int r;

	if (lb_file_read(env, in->config, CONF_BYTES_MAX, &there, &size_bytes) == 0)
		return 0;
	r = lb_buf_printf(&text, "# lifeboat-config; see docs/operations.md\n");
	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(written); i++) {
		const char *value = *(const char *const *)((const char *)in + written[i].offset);

		if (value != NULL)
			r = lb_buf_printf(&text, "%s = %s\n", written[i].setting, value);
	}
	if (r == 0)
		r = lb_buf_printf(&text,
				  "state_folder = %s/config\nprocess_cache_folder = %s/process\nvm_folder = %s/vm\n",
				  in->state_folder, in->state_folder, in->state_folder);
	return r < 0 ? r : lb_file_write(env, in->config, text.data, text.size_bytes, 0644);
}

/* `lifeboat vault create` may have made it; otherwise it is made here. */
static int make_vault(struct lb_env *env, struct lb_settings *settings)
{
	_cleanup_(lb_secret_free) char *passphrase = NULL;
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	char path[PATH_MAX];
	struct lb_uuid id;
	int r;

	r = lb_passphrase_load(env, settings->passphrase_file, path, &passphrase);
	if (r == 0)
		r = lb_store_open(env, settings->vault, true, &store);
	if (r == 0)
		r = lb_vault_create(store, passphrase, &id);
	return r == -EEXIST ? 0 : r;
}

/* The first administrator's identity, in a folder of theirs; one that is there and still counts stays. */
static int make_admin(struct lb_site *site, const struct init *in)
{
	struct lb_issue issue = {.common_name = in->admin_name,
				 .role = LB_ROLE_ADMIN,
				 .now_ns = lb_now_ns(site->env),
				 .valid_days = LB_CERT_VALID_DAYS_DEFAULT};
	struct lb_cert_info info;
	char path[PATH_MAX];
	int r;

	r = lb_name_check("administrator", in->admin_name);
	if (r == 0)
		r = lb_site_path(path, in->admin_identity, "cert.pem");
	if (r < 0)
		return r;
	if (lb_cert_read(site->env, path, &info) == 0 && info.role == LB_ROLE_ADMIN &&
	    !lb_cert_renewal_due(&info, lb_now_ns(site->env)) &&
	    lb_reg_cert_check(site->db, &info.fingerprint, info.common_name, lb_now_ns(site->env)) == 0)
		return 0;
	r = lb_ca_issue_here(site->env, site->ca_folder, in->admin_identity, &issue);
	if (r == 0)
		r = lb_cert_read(site->env, path, &info);
	return r < 0 ? r : lb_reg_cert_put(site->db, &info, in->admin_name, issue.now_ns);
}

static int make_site(struct lb_env *env, const struct init *in)
{
	_cleanup_(lb_settings_free) struct lb_settings settings = {0};
	_cleanup_(lb_site_freep) struct lb_site *site = NULL;
	bool renewed;
	unsigned int n;
	int r;

	r = lb_settings_read(env, in->config, &settings);
	if (r == 0)
		r = make_vault(env, &settings);
	if (r == 0)
		r = lb_site_open(env, &settings, &site);
	if (r == 0)
		r = lb_vault_copy_restore(site, &n);
	if (r == 0)
		r = lb_reg_policy_init(site->db, lb_now_ns(env));
	if (r == 0)
		r = lb_site_identity_renew(site, &renewed);
	if (r == 0)
		r = make_admin(site, in);
	if (r != 0)
		return r;
	printf("configuration: %s\nauthority fingerprint: %s\nadministrator: %s in %s\n", in->config,
	       site->ca_fingerprint, in->admin_name, in->admin_identity);
	if (n > 0)
		printf("%u machines were found in the vault: they enrol again to go on\n", n);
	return 0;
}

int lb_init_command(struct lb_env *env, int argc, char **argv)
{
	struct init in = {
		.config = LB_SETTINGS_PATH, .state_folder = "/var/lib/lifeboat", .admin_name = "administrator"};
	int r;

	lb_secrets_harden();
	r = parse(argc, argv, &in);
	if (r == 0)
		r = write_conf(env, &in);
	return r < 0 ? r : make_site(env, &in);
}
