/* SPDX-License-Identifier: Apache-2.0 */
/* The networks that doubles in libvirt join, and the addresses that those give out. */
#include <arpa/inet.h>
#include <errno.h>
#include <libvirt/virterror.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"
#include "fabric/backends.h"
#include "fabric/dhcp_table.h"
#include "fabric/libvirt_internal.h"
#include "fabric/libvirt_xml.h"
#include "fabric/segment.h"

#define QEMU_STREAM_VERSION 7002000UL /* -netdev stream */
#define DHCP_MARK "dhcp-entry"        /* in the VM's folder: the entry is ours, to take away */
#define HOST_XML_BYTES 128

LB_DEFINE_CLEANUP(virNetworkPtr, virNetworkFree);

/* NULL: there is none of that name. */
static int find(struct lb_libvirt *l, const char *name, virNetworkPtr *ret_network)
{
	int r = lb_libvirt_connect(l);

	if (r < 0)
		return r;
	*ret_network = virNetworkLookupByName(l->connection, name);
	if (*ret_network == NULL && virGetLastErrorCode() != VIR_ERR_NO_NETWORK)
		return lb_fail(-EREMOTEIO, "libvirt can't look network %s up: %s", name, lb_libvirt_reason());
	return 0;
}

static int check_segment(struct lb_libvirt *l)
{
	unsigned long version = 0;
	int r = lb_libvirt_connect(l);

	if (r < 0)
		return r;
	if (virConnectGetVersion(l->connection, &version) == 0 && version < QEMU_STREAM_VERSION)
		return lb_fail(-EOPNOTSUPP,
			       "isolated networks need QEMU 7.2 with libvirt, and this is %lu.%lu: make a network of "
			       "libvirt's (without <forward>) and name it, or use --fabric qemu",
			       version / 1000000, version / 1000 % 1000);
	return lb_segment_check(l->fabric.env);
}

int lb_libvirt_network(struct lb_fabric *f, const char *network)
{
	struct lb_libvirt *l = (struct lb_libvirt *)f;
	_cleanup_(virNetworkFreep) virNetworkPtr found = NULL;
	int r;

	if (lb_network_segment(network) != NULL)
		return check_segment(l);
	if (lb_network_bridge(network) != NULL)
		return lb_bridge_check(lb_network_bridge(network));
	r = find(l, network, &found);
	if (r < 0)
		return r;
	if (found == NULL)
		return lb_fail(
			-ENOENT,
			"libvirt has no network \"%s\" (`virsh net-list --all` shows them); a bridge of this host "
			"is written bridge:NAME",
			network);
	if (virNetworkIsActive(found) != 1)
		return lb_fail(-ENOENT, "libvirt's network %s is not active; `virsh net-start %s` starts it", network,
			       network);
	return 0;
}

/* ---- addresses --------------------------------------------------------------------------------------------- */

struct entry {
	char mac[LB_MAC_TEXT_BYTES], address[INET_ADDRSTRLEN], xml[HOST_XML_BYTES];
	uint32_t value;
};

/* False: it is not for libvirt to give this VM an address. */
static bool entry_of(const struct lb_vm_spec *vm, struct entry *e)
{
	struct in_addr in;

	if (vm->network[0] == '\0' || vm->address[0] == '\0' || lb_network_segment(vm->network) != NULL ||
	    lb_network_bridge(vm->network) != NULL || lb_address_read(vm->address, &e->value, NULL) < 0)
		return false;
	lb_vm_mac(vm, e->mac);
	in.s_addr = htonl(e->value);
	inet_ntop(AF_INET, &in, e->address, sizeof(e->address));
	snprintf(e->xml, sizeof(e->xml), "<host mac='%s' ip='%s'/>", e->mac, e->address);
	return true;
}

static int taken(const char *network, const struct entry *e, const char *why)
{
	return lb_fail(
		-EEXIST,
		"libvirt's network %s can't give address %s to card %s: %s; choose another address, or take that "
		"away there",
		network, e->address, e->mac, why);
}

/* `flags`: of what runs (0), or of what is kept (VIR_NETWORK_XML_INACTIVE). */
static int look(virNetworkPtr network, const struct entry *e, unsigned int flags, struct lb_dhcp_look *ret_look)
{
	_cleanup_free_ char *xml = virNetworkGetXMLDesc(network, flags);
	const char *name = virNetworkGetName(network);
	int r;

	if (xml == NULL)
		return lb_fail(-EREMOTEIO, "libvirt does not describe network %s: %s", name, lb_libvirt_reason());
	r = lb_dhcp_look(xml, e->mac, e->value, ret_look);
	return r == 0 && ret_look->other[0] != '\0' ? taken(name, e, ret_look->other) : r;
}

/* Somebody may have the address for a time, without an entry. */
static int check_leases(virNetworkPtr network, const struct entry *e)
{
	virNetworkDHCPLeasePtr *leases = NULL;
	char why[LB_DHCP_WHO_BYTES];
	int n = virNetworkGetDHCPLeases(network, NULL, &leases, 0), r = 0;

	for (int i = 0; i < n; i++) {
		const virNetworkDHCPLease *one = leases[i];

		if (r == 0 && strcmp(one->ipaddr, e->address) == 0 && one->mac != NULL &&
		    strcasecmp(one->mac, e->mac) != 0) {
			snprintf(why, sizeof(why), "%.40s%s%.60s%s has it on lease", one->mac,
				 one->hostname != NULL ? " (" : "", one->hostname != NULL ? one->hostname : "",
				 one->hostname != NULL ? ")" : "");
			r = taken(virNetworkGetName(network), e, why);
		}
		virNetworkDHCPLeaseFree(leases[i]);
	}
	free(leases);
	return r;
}

static int check_all(virNetworkPtr network, const struct entry *e, struct lb_dhcp_look *ret_look)
{
	struct lb_dhcp_look kept;
	int r;

	r = look(network, e, 0, ret_look);
	if (r < 0 || !ret_look->serves)
		return r;
	if (virNetworkIsPersistent(network) == 1)
		r = look(network, e, VIR_NETWORK_XML_INACTIVE, &kept);
	return r < 0 ? r : check_leases(network, e);
}

int lb_libvirt_address(struct lb_fabric *f, const struct lb_vm_spec *vm)
{
	struct lb_libvirt *l = (struct lb_libvirt *)f;
	_cleanup_(virNetworkFreep) virNetworkPtr network = NULL;
	struct lb_dhcp_look ignored;
	struct entry e;
	int r;

	if (!entry_of(vm, &e))
		return 0;
	r = find(l, vm->network, &network);
	return r < 0 || network == NULL ? r : check_all(network, &e, &ignored);
}

/* In what runs and in what is kept, each where it is not as it should be yet. */
static int put(virNetworkPtr network, const struct entry *e, bool there)
{
	static const struct {
		unsigned int look, update;
	} both[] = {{0, VIR_NETWORK_UPDATE_AFFECT_LIVE}, {VIR_NETWORK_XML_INACTIVE, VIR_NETWORK_UPDATE_AFFECT_CONFIG}};
	const bool has[] = {virNetworkIsActive(network) == 1, virNetworkIsPersistent(network) == 1};
	struct lb_dhcp_look now;
	int r = 0;

	for (size_t i = 0; r == 0 && i < 2; i++) {
		if (!has[i])
			continue;
		r = look(network, e, both[i].look, &now);
		if (r == -EEXIST && !there) {
			lb_err_clear(); /* it is another's by now, and not ours to take away */
			r = 0;
			continue;
		}
		if (r < 0 || !now.serves || now.there == there)
			continue;
		if (virNetworkUpdate(network,
				     there ? VIR_NETWORK_UPDATE_COMMAND_ADD_LAST : VIR_NETWORK_UPDATE_COMMAND_DELETE,
				     VIR_NETWORK_SECTION_IP_DHCP_HOST, -1, e->xml, both[i].update) < 0)
			r = lb_fail(-EREMOTEIO, "libvirt's network %s does not %s the entry of %s for %s: %s",
				    virNetworkGetName(network), there ? "take" : "let go of", e->address, e->mac,
				    lb_libvirt_reason());
	}
	return r;
}

static int put_address(struct lb_libvirt *l, const struct lb_vm_spec *vm, const struct entry *e)
{
	_cleanup_(virNetworkFreep) virNetworkPtr network = NULL;
	_cleanup_free_ char *mark = lb_vm_path(vm, DHCP_MARK);
	struct lb_dhcp_look now = {0};
	bool ours;
	int r;

	if (mark == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = find(l, vm->network, &network);
	if (r < 0 || network == NULL)
		return r; /* the start says it */
	r = check_all(network, e, &now);
	ours = access(mark, F_OK) == 0;
	if (r < 0 || !now.serves || (now.there && !ours))
		return r;
	if (!ours)
		r = lb_file_write(l->fabric.env, mark, e->xml, strlen(e->xml), 0600);
	return r < 0 ? r : put(network, e, true);
}

int lb_libvirt_join(struct lb_libvirt *l, const struct lb_vm_spec *vm)
{
	const char *segment = lb_network_segment(vm->network);
	_cleanup_free_ char *path = lb_vm_path(vm, LB_LIBVIRT_SEGMENT_SOCKET);
	struct entry e;

	if (path == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	if (segment != NULL)
		return lb_segment_socket(l->fabric.env, vm, segment, path);
	return entry_of(vm, &e) ? put_address(l, vm, &e) : 0;
}

int lb_libvirt_leave(struct lb_libvirt *l, const struct lb_vm_spec *vm)
{
	_cleanup_(virNetworkFreep) virNetworkPtr network = NULL;
	_cleanup_free_ char *mark = lb_vm_path(vm, DHCP_MARK);
	struct entry e;
	int r;

	if (mark == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	if (access(mark, F_OK) < 0 || !entry_of(vm, &e))
		return 0;
	r = find(l, vm->network, &network);
	if (r == 0 && network != NULL)
		r = put(network, &e, false);
	if (r == 0 && unlink(mark) < 0 && errno != ENOENT)
		r = lb_fail(-errno, "can't remove %s: %s", mark, strerror(errno));
	return r;
}
