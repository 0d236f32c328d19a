/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "fabric/dhcp_table.h"

#define MAC "52:54:00:12:34:56"

static const char network[] =
	"<network><name>lab</name><bridge name='virbr7'/>"
	"<ip family='ipv6' address='fd00::1' prefix='64'><dhcp><host id='x' ip='fd00::9'/></dhcp></ip>"
	"<ip address='192.0.2.1' netmask='255.255.255.0'><dhcp><range start='192.0.2.100' end='192.0.2.200'/>"
	"<host mac='52:54:00:AA:AA:AA' name='mail' ip='192.0.2.20'/><host mac='52:54:00:bb:bb:bb' ip='192.0.2.21'/>"
	"</dhcp></ip><ip address='198.51.100.1' prefix='25'/></network>";

static uint32_t ip(const char *text)
{
	uint32_t address;

	assert_int_equal(lb_address_read(text, &address, NULL), 0);
	return address;
}

static struct lb_dhcp_look looked(const char *mac, const char *address)
{
	struct lb_dhcp_look look;

	assert_int_equal(lb_dhcp_look(network, mac, ip(address), &look), 0);
	return look;
}

static void a_free_address_where_addresses_are_given_out_can_be_had(void **s)
{
	struct lb_dhcp_look look = looked(MAC, "192.0.2.30");

	(void)s;
	assert_true(look.serves);
	assert_false(look.there);
	assert_string_equal(look.other, "");
}

static void an_address_elsewhere_is_not_this_network_s_to_give(void **s)
{
	(void)s;
	assert_false(looked(MAC, "203.0.113.9").serves);
	/* no DHCP in that part */
	assert_false(looked(MAC, "198.51.100.9").serves);
}

static void the_same_card_with_the_same_address_is_there_already(void **s)
{
	struct lb_dhcp_look look = looked("52:54:00:aa:aa:aa", "192.0.2.20");

	(void)s;
	assert_true(look.there);
	assert_string_equal(look.other, "");
}

static void what_is_anothers_is_told_with_its_name(void **s)
{
	(void)s;
	assert_non_null(strstr(looked(MAC, "192.0.2.20").other, "52:54:00:AA:AA:AA (mail)"));
	assert_non_null(strstr(looked(MAC, "192.0.2.21").other, "52:54:00:bb:bb:bb"));
	assert_non_null(strstr(looked("52:54:00:bb:bb:bb", "192.0.2.30").other, "192.0.2.21"));
	assert_non_null(strstr(looked(MAC, "192.0.2.1").other, "itself"));
}

static void what_is_no_network_is_refused(void **s)
{
	static const char *const texts[] = {"", "<network>", "<domain/>",
					    "<!DOCTYPE network [<!ENTITY a 'b'>]><network>&a;</network>"};
	struct lb_dhcp_look look;

	(void)s;
	for (size_t i = 0; i < LB_ARRAY_LEN(texts); i++)
		assert_int_equal(lb_dhcp_look(texts[i], MAC, ip("192.0.2.30"), &look), -EBADMSG);
	assert_int_equal(lb_dhcp_look("<network><ip/><ip address='x' prefix='99'><dhcp><host/></dhcp></ip></network>",
				      MAC, ip("192.0.2.30"), &look),
			 0);
	assert_false(look.serves);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_free_address_where_addresses_are_given_out_can_be_had),
		cmocka_unit_test(an_address_elsewhere_is_not_this_network_s_to_give),
		cmocka_unit_test(the_same_card_with_the_same_address_is_there_already),
		cmocka_unit_test(what_is_anothers_is_told_with_its_name),
		cmocka_unit_test(what_is_no_network_is_refused),
	};

	return cmocka_run_group_tests_name("dhcp_table", tests, NULL, NULL);
}
