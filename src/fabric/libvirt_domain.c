/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "fabric/domain.h"
#include "fabric/domain_disks.h"

#define LIST_BYTES 400

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

/* ---- is it the right one? ----------------------------------------------------------------------------------- */

struct search {
	const char *path;
	bool found, unknown;   /* it is among them; some of them can't be told */
	char list[LIST_BYTES]; /* of all, for people */
};

static bool is_same(const char *a, const char *b)
{
	struct stat one, other;

	if (strcmp(a, b) == 0)
		return true;
	if (stat(a, &one) < 0 || stat(b, &other) < 0)
		return false;
	if (S_ISBLK(one.st_mode) && S_ISBLK(other.st_mode))
		return one.st_rdev == other.st_rdev;
	return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

static int compare(void *arg, const char *path)
{
	struct search *s = arg;
	size_t at = strlen(s->list);

	if (path == NULL)
		s->unknown = true;
	else if (is_same(path, s->path))
		s->found = true;
	snprintf(s->list + at, sizeof(s->list) - at, "%s%s", at > 0 ? ", " : "",
		 path != NULL ? path : "one in a pool or on the network");
	return 0;
}

static int check_disk(const char *xml, const char *name, const char *path)
{
	struct search s = {.path = path};
	int r = lb_domain_disks(xml, compare, &s);

	if (r < 0 || s.found || s.unknown)
		return r;
	return lb_fail(-EINVAL,
		       "domain %.80s has not the disk %.200s that is written for it, but %s: name another domain, or "
		       "give it that disk (`virsh edit %.80s`)",
		       name, path, s.list[0] != '\0' ? s.list : "none", name);
}

int lb_domain_look(const char *uri, const char *name, const char *const *paths, size_t n)
{
	_cleanup_(virConnectClosep) virConnectPtr connection = NULL;
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	_cleanup_free_ char *xml = NULL;
	int r = find(uri, name, &connection, &domain);

	if (r < 0)
		return r;
	if (virDomainIsActive(domain) != 0)
		return lb_fail(-EEXIST,
			       "domain %.80s runs: turn it off (`virsh shutdown %.80s`), it is to be started from "
			       "what is written onto its disks",
			       name, name);
	xml = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE);
	if (xml == NULL)
		return lb_fail(-EREMOTEIO, "libvirt at %s does not describe domain %.80s: %s", uri, name, reason());
	for (size_t i = 0; r == 0 && i < n; i++)
		r = check_disk(xml, name, paths[i]);
	return r;
}
