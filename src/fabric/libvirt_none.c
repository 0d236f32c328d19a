/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for libvirt.c where libvirt's headers were not there at build time. */
#include <errno.h>

#include "base/err.h"
#include "fabric/backends.h"
#include "fabric/domain.h"

int lb_fabric_libvirt(struct lb_env *env, struct lb_fabric **ret_fabric)
{
	(void)env;
	(void)ret_fabric;
	return lb_fail(-EOPNOTSUPP,
		       "this Lifeboat was built without libvirt; install libvirt-dev and build it again, or use "
		       "--fabric qemu");
}

int lb_domain_start(const char *uri, const char *name)
{
	return lb_fail(-EOPNOTSUPP,
		       "domain %.80s at %s can't be started: this Lifeboat was built without libvirt; install "
		       "libvirt-dev and build it again, or start it by a hook",
		       name, uri);
}

int lb_domain_halt(const char *uri, const char *name)
{
	return lb_fail(-EOPNOTSUPP,
		       "domain %.80s at %s can't be turned off: this Lifeboat was built without libvirt; install "
		       "libvirt-dev and build it again, or do it by a hook",
		       name, uri);
}

int lb_domain_look(const char *uri, const char *name, const char *const *paths, size_t n)
{
	(void)paths;
	(void)n;
	return lb_domain_start(uri, name);
}
