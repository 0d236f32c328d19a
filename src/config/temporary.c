/* SPDX-License-Identifier: Apache-2.0 */
#include "config/temporary.h"

#include <errno.h>
#include <ftw.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/io.h"
#include "config/process_child.h"
#include "config/registry.h"

#define FOLDER "temporary"
#define OPEN_FOLDERS_MAX 16

/* ---- port and room -------------------------------------------------------------------------------------- */

static void addresses_free(struct addrinfo **list)
{
	if (*list != NULL)
		freeaddrinfo(*list);
}

/* Whether `port` (0: any) can be had on this server's address; which it was. */
static int try_port(struct lb_site *site, uint16_t port, uint16_t *ret_port)
{
	const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
	_cleanup_(addresses_free) struct addrinfo *list = NULL;
	_cleanup_close_ int fd = -1;
	struct sockaddr_storage bound;
	socklen_t size = sizeof(bound);
	char text[8], got[8];
	uint64_t value;
	int one = 1;

	snprintf(text, sizeof(text), "%u", port);
	if (getaddrinfo(site->settings.address, text, &hints, &list) != 0)
		return lb_fail(-EINVAL, "address %s can't be listened on", site->settings.address);
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return lb_fail(-errno, "no socket: %s", strerror(errno));
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, 1) < 0)
		return lb_fail(-EADDRINUSE,
			       "port %u of this host is taken: the temporary process server needs it; set another "
			       "temporary_port in config.conf and restart lifeboat-config",
			       port);
	if (getsockname(fd, (struct sockaddr *)&bound, &size) < 0 ||
	    getnameinfo((struct sockaddr *)&bound, size, NULL, 0, got, sizeof(got), NI_NUMERICSERV) != 0 ||
	    lb_u64_parse(got, UINT16_MAX, &value) < 0)
		return lb_fail(-EADDRNOTAVAIL, "no port can be had on %s", site->settings.address);
	*ret_port = (uint16_t)value;
	return 0;
}

static int find(void *arg, const struct lb_reg_process *p)
{
	if (p->temporary)
		*(struct lb_reg_process *)arg = *p;
	return 0;
}

static int folder_of(struct lb_site *site, char folder[PATH_MAX])
{
	return lb_site_path(folder, site->settings.state_folder, FOLDER);
}

int lb_temporary_check_port(struct lb_site *site, uint16_t *ret_port)
{
	struct lb_reg_process p = {.id = ""};
	int r;

	LB_LOCK_SCOPE(&site->temporary_lock);
	r = lb_reg_processes(site->db, find, &p);
	if (r < 0)
		return r;
	*ret_port = p.port;
	if (p.id[0] != '\0' && site->temporary != NULL)
		return 0;
	return try_port(site, p.id[0] != '\0' ? p.port : (uint16_t)site->settings.temporary_port, ret_port);
}

int lb_temporary_check_room(struct lb_site *site, uint64_t *ret_free_bytes)
{
	uint64_t free_bytes, size_bytes;
	char has[LB_SIZE_TEXT_BYTES], needs[LB_SIZE_TEXT_BYTES];
	int r;

	r = site->env->ops->room(site->env, site->settings.state_folder, &free_bytes, &size_bytes);
	if (r < 0)
		return lb_fail(r, "the room in %s can't be told: %s", site->settings.state_folder, strerror(-r));
	*ret_free_bytes = free_bytes;
	if (free_bytes >= LB_TEMPORARY_ROOM_BYTES)
		return 0;
	return lb_fail(-ENOSPC, "%s has %s free and the temporary process server's cache needs %s: make room there",
		       site->settings.state_folder, lb_size_format(free_bytes, has),
		       lb_size_format(LB_TEMPORARY_ROOM_BYTES, needs));
}

/* ---- its life ------------------------------------------------------------------------------------------- */

static int put_hosts(struct lb_site *site, struct lb_reg_process *p)
{
	size_t used = 0;

	for (unsigned int i = 0; i < site->settings.n_hosts && used < sizeof(p->hosts); i++)
		used += (size_t)snprintf(p->hosts + used, sizeof(p->hosts) - used, "%s%s", i > 0 ? "," : "",
					 site->settings.hosts[i]);
	return used < sizeof(p->hosts)
		       ? 0
		       : lb_fail(-EINVAL, "public_host is longer than %zu characters", sizeof(p->hosts) - 1);
}

static int enlist(struct lb_site *site, struct lb_reg_process *p)
{
	int r;

	*p = (struct lb_reg_process){.name = LB_TEMPORARY_NAME, .temporary = true, .created_ns = lb_now_ns(site->env)};
	r = try_port(site, (uint16_t)site->settings.temporary_port, &p->port);
	r = r < 0 ? r : put_hosts(site, p);
	r = r < 0 ? r : lb_site_uuid(site, p->id);
	return r < 0 ? r : lb_reg_process_put(site->db, p);
}

/* Half of what is free, so that this host's other parts have room, too. */
static uint64_t cache_bytes(struct lb_site *site)
{
	uint64_t free_bytes = 0, size_bytes;

	if (site->env->ops->room(site->env, site->settings.state_folder, &free_bytes, &size_bytes) < 0)
		free_bytes = 0;
	return LB_MAX(LB_MIN(free_bytes / 2, site->settings.process_cache_bytes_max),
		      (uint64_t)LB_TEMPORARY_ROOM_BYTES / 2);
}

static int spawn(struct lb_site *site, const struct lb_reg_process *p)
{
	char folder[PATH_MAX], identity[PATH_MAX], cache[PATH_MAX];
	struct lb_child_spec spec = {
		.folder = folder, .cache_folder = cache, .cache_bytes_max = cache_bytes(site), .port = p->port};
	bool renewed;
	int r;

	r = folder_of(site, folder);
	r = r < 0 ? r : lb_site_path(identity, folder, "identity");
	r = r < 0 ? r : lb_site_path(cache, folder, "cache");
	r = r < 0 ? r : lb_folder_make(site->env, folder, 0700);
	r = r < 0 ? r : lb_site_identity_of(site, identity, p->id, &renewed);
	return r < 0 ? r : lb_process_child_start(site, &spec, &site->temporary);
}

int lb_temporary_start(struct lb_site *site, char ret_process[LB_UUID_TEXT_BYTES])
{
	struct lb_reg_process p = {.id = ""};
	bool is_new;
	int r;

	LB_LOCK_SCOPE(&site->temporary_lock);
	r = lb_reg_processes(site->db, find, &p);
	is_new = p.id[0] == '\0';
	if (r == 0 && is_new)
		r = enlist(site, &p);
	lb_fault_place("temporary process server: registered, not started");
	if (r == 0 && site->temporary == NULL)
		r = spawn(site, &p);
	if (r < 0)
		return r;
	if (is_new)
		lb_event(site, "info", LB_TEMPORARY_NAME, "process server for the way back of doubles on port %u",
			 p.port);
	memcpy(ret_process, p.id, sizeof(p.id));
	return 0;
}

int lb_temporary_resume(struct lb_site *site)
{
	struct lb_reg_process p = {.id = ""};
	int r;

	LB_LOCK_SCOPE(&site->temporary_lock);
	r = lb_reg_processes(site->db, find, &p);
	return r < 0 || p.id[0] == '\0' ? r : spawn(site, &p);
}

void lb_temporary_stop(struct lb_site *site)
{
	LB_LOCK_SCOPE(&site->temporary_lock);
	if (site->temporary != NULL)
		lb_process_child_stop(lb_steal_ptr(site->temporary));
}

int lb_temporary_renew(struct lb_site *site)
{
	struct lb_reg_process p = {.id = ""};
	char folder[PATH_MAX], identity[PATH_MAX];
	bool renewed = false;
	int r;

	LB_LOCK_SCOPE(&site->temporary_lock);
	if (site->temporary == NULL)
		return 0;
	r = lb_reg_processes(site->db, find, &p);
	r = r < 0 ? r : folder_of(site, folder);
	r = r < 0 ? r : lb_site_path(identity, folder, "identity");
	r = r < 0 ? r : lb_site_identity_of(site, identity, p.id, &renewed);
	if (r == 0 && renewed)
		lb_process_child_restart(site->temporary);
	return r;
}

static int remove_path(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path) < 0 && errno != ENOENT ? lb_fail(-errno, "can't remove %s: %s", path, strerror(errno)) : 0;
}

static int remove_folder(struct lb_site *site)
{
	char folder[PATH_MAX];
	int r;

	r = folder_of(site, folder);
	if (r < 0 || access(folder, F_OK) < 0)
		return r;
	return nftw(folder, remove_path, OPEN_FOLDERS_MAX, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static int is_needed(struct lb_site *site, const char *process, bool *ret_needed)
{
	int64_t n;
	int r;

	r = lb_db_get_int(site->db, &n,
			  "SELECT (SELECT count(*) FROM reprotect) + (SELECT count(*) FROM machine WHERE process = ?)",
			  "s", process);
	if (r == 0)
		*ret_needed = n > 0;
	return r;
}

int lb_temporary_release(struct lb_site *site)
{
	struct lb_reg_process p = {.id = ""};
	bool needed = false;
	int r;

	LB_LOCK_SCOPE(&site->temporary_lock);
	r = lb_reg_processes(site->db, find, &p);
	r = r < 0 || p.id[0] == '\0' ? r : is_needed(site, p.id, &needed);
	if (r < 0 || needed)
		return r;
	if (site->temporary != NULL)
		lb_process_child_stop(lb_steal_ptr(site->temporary));
	/* its folder first: what is in the registry is tried again */
	r = remove_folder(site);
	if (r < 0 || p.id[0] == '\0')
		return r;
	lb_fault_place("temporary process server: its folder is gone, it is registered");
	r = lb_reg_certs_revoke(site->db, p.id, NULL, "no double needs it any more", lb_now_ns(site->env));
	r = r < 0 ? r : lb_reg_process_remove(site->db, p.id);
	if (r == 0)
		lb_event(site, "info", LB_TEMPORARY_NAME, "process server for the way back of doubles is gone");
	return r;
}
