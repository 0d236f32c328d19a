/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/mend.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"
#include "mobility/ready_state.h"

#define DRIVERS                                                                                                        \
	"virtio_pci virtio_blk virtio_scsi virtio_net sd_mod ahci ata_piix nvme hv_vmbus hv_storvsc hv_netvsc "        \
	"vmw_pvscsi mptspi vmxnet3 e1000e"
#define LINK_BYTES 512

static const char hook[] =
	"#!/bin/sh\n"
	"# Written by lifeboat-mobility mend: drivers of the virtual machines that may stand in for this one.\n"
	"case $1 in prereqs) exit 0 ;; esac\n"
	". /usr/share/initramfs-tools/hook-functions\n"
	"for module in " DRIVERS "; do\n"
	"\tmanual_add_modules \"$module\"\n"
	"done\n";
static const char dracut[] =
	"# Written by lifeboat-mobility mend: drivers of the virtual machines that may stand in for "
	"this one.\nadd_drivers+=\" " DRIVERS " \"\n";

static bool there(struct lb_env *env, const char *root, const char *path)
{
	char full[LB_READY_PATH_BYTES];
	uint64_t room, size;

	snprintf(full, sizeof(full), "%s%s", root, path);
	return env->ops->room(env, full, &room, &size) == 0;
}

int lb_mend_initramfs(struct lb_env *env, const char *root, const char *const **ret_command)
{
	static const char *const debian[] = {"update-initramfs", "-u", "-k", "all", NULL};
	static const char *const redhat[] = {"dracut", "--regenerate-all", "--force", NULL};
	bool tools = there(env, root, "/etc/initramfs-tools");
	char path[LB_READY_PATH_BYTES];
	int r;

	if (!tools && !there(env, root, "/etc/dracut.conf.d"))
		return lb_fail(-EOPNOTSUPP,
			       "this machine makes its initramfs neither by initramfs-tools nor by dracut: add "
			       "the drivers " DRIVERS " to it as its maker says");
	snprintf(path, sizeof(path), "%s%s", root,
		 tools ? "/etc/initramfs-tools/hooks/lifeboat" : "/etc/dracut.conf.d/90-lifeboat.conf");
	if (tools) {
		char folder[LB_READY_PATH_BYTES];

		snprintf(folder, sizeof(folder), "%s/etc/initramfs-tools/hooks", root);
		r = lb_folder_make(env, folder, 0755);
		if (r < 0)
			return r;
	}
	r = lb_file_write(env, path, tools ? hook : dracut, strlen(tools ? hook : dracut), tools ? 0755 : 0644);
	if (r < 0)
		return r;
	*ret_command = tools ? debian : redhat;
	return 0;
}

static bool is_virtual(struct lb_ready *c)
{
	_cleanup_free_ char *text = NULL;

	return lb_ready_text(c, "/proc/cpuinfo", &text) == 0 && strstr(text, " hypervisor") != NULL;
}

int lb_mend_network(struct lb_env *env, const char *root, char *ret_path, size_t path_bytes)
{
	struct lb_ready c = {.o = {.env = env, .root = root}};
	char name[LB_READY_NAME_BYTES], mac[LB_READY_NAME_BYTES], text[LINK_BYTES], folder[LB_READY_PATH_BYTES];
	int r;

	r = lb_ready_named_card(&c, name, mac);
	if (r == -ENOENT)
		return lb_fail(r, "nothing to mend: each card that is configured by name keeps that name in a double");
	if (r < 0)
		return lb_fail(r, "the network configuration can't be read: %s", strerror(-r));
	if (is_virtual(&c))
		snprintf(text, sizeof(text),
			 "# Written by lifeboat-mobility mend: a double with this card's address has its name.\n"
			 "[Match]\nMACAddress=%s\n\n[Link]\nName=%s\n",
			 mac, name);
	else
		snprintf(text, sizeof(text),
			 "# Written by lifeboat-mobility mend: the card of a double, which is a virtual machine, has "
			 "this\n"
			 "# one's name. On this machine it has no effect.\n"
			 "[Match]\nVirtualization=vm\nType=ether\nDriver=virtio_net e1000e e1000 hv_netvsc vmxnet3\n\n"
			 "[Link]\nName=%s\n",
			 name);
	snprintf(folder, sizeof(folder), "%s/etc/systemd/network", root);
	if ((size_t)snprintf(ret_path, path_bytes, "%s/10-lifeboat-%s.link", folder, name) >= path_bytes)
		return lb_fail(-ENAMETOOLONG, "the name of card %s is too long", name);
	r = lb_folder_make(env, folder, 0755);
	return r < 0 ? r : lb_file_write(env, ret_path, text, strlen(text), 0644);
}

int lb_mend_run(const char *const *command)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		execvp(command[0], (char *const *)command);
		fprintf(stderr, "lifeboat-mobility: %s: %s\n", command[0], strerror(errno));
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return lb_fail(-errno, "can't run %s: %s", command[0], strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return lb_fail(-EIO, "%s failed; its message is above", command[0]);
	return 0;
}
