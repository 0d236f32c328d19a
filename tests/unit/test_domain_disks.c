/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "fabric/domain_disks.h"

static const char domain[] =
	"<domain type='kvm'><name>db1</name><devices><emulator>/usr/bin/q</emulator>"
	"<disk type='file' device='disk'><driver name='qemu'/><source file='/srv/a.qcow2'><x/></source></disk>"
	"<disk type='file' device='cdrom'><source file='/srv/cd.iso'/></disk><controller type='usb'/>"
	"<disk type='block'><source dev='/dev/vg0/db1'/></disk>"
	"<disk type='volume' device='disk'><source pool='p' volume='v'/></disk>"
	"<disk type='block' device='lun'><source dev='/dev/sdq'/></disk></devices></domain>";

static int note(void *arg, const char *path)
{
	char *text = arg;
	size_t at = strlen(text);

	snprintf(text + at, 200 - at, "%s;", path != NULL ? path : "?");
	return 0;
}

static int refuse(void *arg, const char *path)
{
	(void)arg;
	return path != NULL ? -EPERM : 0;
}

static void files_and_devices_are_told_and_what_is_elsewhere_is_told_to_be_there(void **s)
{
	char text[200] = "";

	assert_int_equal(lb_domain_disks(domain, note, text), 0);
	assert_string_equal(text, "/srv/a.qcow2;/dev/vg0/db1;?;/dev/sdq;");
	assert_int_equal(lb_domain_disks(domain, refuse, NULL), -EPERM);
	text[0] = '\0';
	assert_int_equal(lb_domain_disks("<domain><devices/></domain>", note, text), 0);
	assert_int_equal(lb_domain_disks("<domain/>", note, text), 0);
	assert_string_equal(text, "");
	(void)s;
}

static void what_is_no_domain_is_refused(void **s)
{
	static const char *const texts[] = {"", "<domain>", "<network/>",
					    "<!DOCTYPE d [<!ENTITY e \"x\">]><domain>&e;</domain>"};

	for (size_t i = 0; i < LB_ARRAY_LEN(texts); i++)
		assert_int_equal(lb_domain_disks(texts[i], note, NULL), -EBADMSG);
	(void)s;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_and_devices_are_told_and_what_is_elsewhere_is_told_to_be_there),
		cmocka_unit_test(what_is_no_domain_is_refused),
	};

	return cmocka_run_group_tests_name("domain_disks", tests, NULL, NULL);
}
