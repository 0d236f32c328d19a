/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/secret.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/io.h"

struct secret_bytes {
	uint8_t *data;
	size_t size_bytes;
};

static void secret_clear(struct secret_bytes *s)
{
	if (s->data != NULL)
		lb_wipe(s->data, s->size_bytes);
	free(s->data);
}

static int secret_read(struct lb_env *env, const char *path, size_t size_bytes_max, struct secret_bytes *ret_secret)
{
	struct stat st;

	if (stat(path, &st) == 0 && (st.st_mode & S_IROTH) != 0)
		return lb_fail(-EACCES, "%s holds a secret and everybody may read it; chmod 600 %s", path, path);
	return lb_file_read(env, path, size_bytes_max, &ret_secret->data, &ret_secret->size_bytes);
}

int lb_passphrase_read(struct lb_env *env, const char *path, char **ret_passphrase)
{
	_cleanup_(secret_clear) struct secret_bytes s = {0};
	size_t n;
	int r;

	r = secret_read(env, path, LB_PASSPHRASE_BYTES_MAX + 2, &s);
	if (r < 0)
		return lb_wrap(r, "the vault's passphrase");
	n = s.size_bytes;
	while (n > 0 && (s.data[n - 1] == '\n' || s.data[n - 1] == '\r'))
		n--;
	if (n == 0)
		return lb_fail(-EINVAL, "%s is empty; the vault's passphrase is expected in it, one line", path);
	if (n > LB_PASSPHRASE_BYTES_MAX || memchr(s.data, '\n', n) != NULL || memchr(s.data, '\0', n) != NULL)
		return lb_fail(-EINVAL, "%s must hold the passphrase in one line of at most %d bytes", path,
			       LB_PASSPHRASE_BYTES_MAX);
	*ret_passphrase = strndup((char *)s.data, n);
	return *ret_passphrase != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
}

int lb_keyring_read(struct lb_env *env, const char *path, struct lb_keyring *ret_ring)
{
	_cleanup_(secret_clear) struct secret_bytes s = {0};
	_cleanup_(lb_key_wipe) struct lb_key one = {0};
	int r;

	r = secret_read(env, path, LB_KEYRING_BYTES_MAX, &s);
	if (r < 0)
		return lb_wrap(r, "the machine's key");
	if (s.size_bytes == 2 * LB_KEY_BYTES + 1 && s.data[s.size_bytes - 1] == '\n')
		s.data[--s.size_bytes] = '\0';
	if (s.size_bytes == 2 * LB_KEY_BYTES && lb_hex_decode((char *)s.data, LB_KEY_BYTES, one.bytes) == 0)
		return lb_keyring_parse(one.bytes, sizeof(one.bytes), ret_ring);
	r = lb_keyring_parse(s.data, s.size_bytes, ret_ring);
	return r < 0 ? lb_fail(-EINVAL,
			       "%s holds no machine key: %d bytes (or as many for each of its keys, oldest first), or "
			       "%d "
			       "hex digits are expected",
			       path, LB_KEY_BYTES, 2 * LB_KEY_BYTES)
		     : 0;
}

static int open_with_passphrase(struct lb_env *env, struct lb_store *store, const char *path,
				struct lb_vault **ret_vault)
{
	_cleanup_(secret_clear) struct secret_bytes s = {0};
	char *passphrase = NULL;
	int r;

	r = lb_passphrase_read(env, path, &passphrase);
	if (r < 0)
		return r;
	s = (struct secret_bytes){.data = (uint8_t *)passphrase, .size_bytes = strlen(passphrase)};
	return lb_vault_open(store, passphrase, ret_vault);
}

static int open_with_key(struct lb_env *env, struct lb_store *store, const char *path, const char *machine_text,
			 struct lb_vault **ret_vault)
{
	_cleanup_(lb_vault_freep) struct lb_vault *vault = NULL;
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	struct lb_uuid machine;
	int r;

	if (machine_text == NULL || lb_uuid_parse(machine_text, &machine) < 0)
		return lb_fail(
			-EINVAL,
			"with a key file the machine must be given by its UUID: a name can't be looked up without "
			"the passphrase");
	r = lb_keyring_read(env, path, &ring);
	if (r == 0)
		r = lb_vault_open_keyless(store, &vault);
	if (r == 0)
		r = lb_vault_machine_key_give(vault, &machine, &ring);
	if (r < 0)
		return r;
	*ret_vault = lb_steal_ptr(vault);
	return 0;
}

int lb_recovery_vault_open(struct lb_env *env, const char *vault_url, const struct lb_vault_secret *secret,
			   const char *machine, struct lb_store **ret_store, struct lb_vault **ret_vault)
{
	_cleanup_(lb_store_freep) struct lb_store *store = NULL;
	int r;

	if ((secret->passphrase_file == NULL) == (secret->key_file == NULL))
		return lb_fail(-EINVAL, "either a passphrase file or a key file must be given, to open vault %s",
			       vault_url);
	r = lb_store_open(env, vault_url, false, &store);
	if (r < 0)
		return r;
	if (secret->passphrase_file != NULL)
		r = open_with_passphrase(env, store, secret->passphrase_file, ret_vault);
	else
		r = open_with_key(env, store, secret->key_file, machine, ret_vault);
	if (r < 0)
		return r;
	*ret_store = lb_steal_ptr(store);
	return 0;
}
