/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fabric/domain.h"

LB_DEFINE_CLEANUP(virDomainPtr, virDomainFree);
LB_DEFINE_CLEANUP(virConnectPtr, virConnectClose);

static void quiet(void *arg, virErrorPtr error)
{
	(void)arg;
	(void)error;
}

static const char *reason(void)
{
	const char *text = virGetLastErrorMessage();

	return text != NULL ? text : "without a reason";
}

static int find(const char *uri, const char *name, virConnectPtr *ret_connection, virDomainPtr *ret_domain)
{
	_cleanup_(virConnectClosep) virConnectPtr connection = NULL;
	virDomainPtr domain;

	virSetErrorFunc(NULL, quiet);
	connection = virConnectOpen(uri);
	if (connection == NULL)
		return lb_fail(-EOPNOTSUPP, "libvirt at %s does not answer: %s", uri, reason());
	domain = virDomainLookupByName(connection, name);
	if (domain == NULL && virGetLastErrorCode() == VIR_ERR_NO_DOMAIN)
		return lb_fail(-ENOENT, "libvirt at %s knows no domain \"%.80s\"; `virsh list --all` shows them", uri,
			       name);
	if (domain == NULL)
		return lb_fail(-EREMOTEIO, "libvirt at %s can't look domain %.80s up: %s", uri, name, reason());
	*ret_connection = lb_steal_ptr(connection);
	*ret_domain = domain;
	return 0;
}

int lb_domain_halt(const char *uri, const char *name)
{
	_cleanup_(virConnectClosep) virConnectPtr connection = NULL;
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	int r = find(uri, name, &connection, &domain);

	if (r < 0)
		return r;
	if (virDomainIsActive(domain) != 0 && virDomainDestroy(domain) < 0 && virDomainIsActive(domain) != 0)
		return lb_fail(-EREMOTEIO, "libvirt at %s can't turn domain %.80s off: %s", uri, name, reason());
	return 0;
}

int lb_domain_start(const char *uri, const char *name)
{
	_cleanup_(virConnectClosep) virConnectPtr connection = NULL;
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	int r = find(uri, name, &connection, &domain);

	if (r < 0)
		return r;
	/* a second start loses the race against nobody's but our own first one */
	if (virDomainIsActive(domain) != 1 && virDomainCreate(domain) < 0 && virDomainIsActive(domain) != 1)
		return lb_fail(-EREMOTEIO, "libvirt at %s can't start domain %.80s: %s", uri, name, reason());
	return 0;
}
