/* SPDX-License-Identifier: Apache-2.0 */
/* Bridges of this host, and a VM's own tap device on one. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "fabric/backends.h"
#include "fabric/network.h"

#define TUN_DEVICE "/dev/net/tun"
#define BUSY_TRIES_MAX 100 /* the QEMU that had the name is still ending */
#define BUSY_PAUSE_US 20000

static void set_name(struct ifreq *q, const char *name)
{
	*q = (struct ifreq){0};
	snprintf(q->ifr_name, sizeof(q->ifr_name), "%s", name);
}

static bool may_change_networks(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	if (syscall(SYS_capget, &head, data) < 0)
		return false;
	return (data[0].effective & (1u << CAP_NET_ADMIN)) != 0 && access(TUN_DEVICE, R_OK | W_OK) == 0;
}

int lb_bridge_check(const char *bridge)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
	struct ifreq q;

	if (fd < 0)
		return lb_fail(-errno, "can't look at networks: %s", strerror(errno));
	set_name(&q, bridge);
	if (ioctl(fd, SIOCGIFINDEX, &q) < 0)
		return lb_fail(
			-ENOENT,
			"there is no bridge \"%s\" on this host; make it (ip link add %s type bridge), or choose "
			"another network",
			bridge, bridge);
	set_name(&q, bridge);
	q.ifr_data = (void *)&info;
	if (ioctl(fd, SIOCETHTOOL, &q) < 0 || strcmp(info.driver, "bridge") != 0)
		return lb_fail(-EINVAL, "\"%s\" is a network device of this host and no bridge: VMs can't join it",
			       bridge);
	return 0;
}

int lb_bridge_right(const char *bridge)
{
	if (!may_change_networks())
		return lb_fail(
			-EPERM,
			"putting VMs on bridge %s needs the right to change networks (CAP_NET_ADMIN) and " TUN_DEVICE
			"; operations.md tells how to give it, and libvirt does without",
			bridge);
	return 0;
}

void lb_tap_name(const struct lb_vm_spec *vm, char name[LB_TAP_NAME_BYTES])
{
	char hex[2 * 6 + 1];

	lb_hex_encode(vm->uuid.bytes, 6, hex);
	snprintf(name, LB_TAP_NAME_BYTES, "lb%s", hex);
}

static int tap_make(int fd, const char *name)
{
	struct ifreq q;

	for (unsigned int tries = 0; tries < BUSY_TRIES_MAX; tries++) {
		set_name(&q, name);
		/* not persistent: nothing is left of it once nobody has it open */
		q.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
		if (ioctl(fd, TUNSETIFF, &q) == 0)
			return 0;
		if (errno != EBUSY)
			break;
		usleep(BUSY_PAUSE_US);
	}
	return lb_fail(-errno, "can't make the tap device %s: %s", name, strerror(errno));
}

static int tap_join(int fd, const char *name, const char *bridge)
{
	struct ifreq q;
	int mtu, index;

	set_name(&q, bridge);
	if (ioctl(fd, SIOCGIFMTU, &q) < 0)
		return -errno;
	mtu = q.ifr_mtu;
	set_name(&q, name);
	q.ifr_mtu = mtu;
	if (ioctl(fd, SIOCSIFMTU, &q) < 0)
		return -errno;
	set_name(&q, name);
	if (ioctl(fd, SIOCGIFINDEX, &q) < 0)
		return -errno;
	index = q.ifr_ifindex;
	set_name(&q, bridge);
	q.ifr_ifindex = index;
	if (ioctl(fd, SIOCBRADDIF, &q) < 0)
		return -errno;
	set_name(&q, name);
	if (ioctl(fd, SIOCGIFFLAGS, &q) < 0)
		return -errno;
	q.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &q) < 0 ? -errno : 0;
}

int lb_tap_open(const struct lb_vm_spec *vm, const char *bridge, int *ret_fd)
{
	_cleanup_close_ int tap = -1, control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char name[LB_TAP_NAME_BYTES];
	int r;

	if (control < 0)
		return lb_fail(-errno, "can't change networks: %s", strerror(errno));
	r = lb_bridge_check(bridge);
	r = r < 0 ? r : lb_bridge_right(bridge);
	if (r < 0)
		return r;
	tap = open(TUN_DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (tap < 0)
		return lb_fail(-errno, "can't open " TUN_DEVICE ": %s", strerror(errno));
	lb_tap_name(vm, name);
	r = tap_make(tap, name);
	if (r < 0)
		return r;
	r = tap_join(control, name, bridge);
	if (r < 0)
		return lb_fail(r, "can't put the tap device %s on bridge %s: %s", name, bridge, strerror(-r));
	*ret_fd = lb_steal_fd(tap);
	return 0;
}
