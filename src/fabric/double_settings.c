/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/double_settings.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "fabric/network.h"

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text != NULL ? text : "";
}

int lb_double_mac_check(const char *text)
{
	char mac[LB_MAC_TEXT_BYTES];

	if (strcmp(text, LB_MAC_SOURCE) == 0 || strcmp(text, LB_MAC_OWN) == 0)
		return 0;
	return lb_mac_read(text, mac);
}

static int set_missing(json_t *body, const char *member, const json_t *value)
{
	const json_t *there = json_object_get(body, member);

	if (value == NULL || (there != NULL && !json_is_null(there)))
		return 0;
	return json_object_set(body, member, (json_t *)(uintptr_t)value) < 0
		       ? lb_fail(-ENOMEM, "out of memory for an order")
		       : 0;
}

static bool is_shared(const json_t *body)
{
	const char *network = text_of(body, "network");

	return network[0] != '\0' && lb_network_segment(network) == NULL;
}

static int set_mac(json_t *body, const struct lb_double_source *s, bool live)
{
	const char *wanted = text_of(body, "mac"), *mac = text_of(json_array_get(s->cards, 0), "mac");
	bool shared = is_shared(body), asked = strcmp(wanted, LB_MAC_SOURCE) == 0;
	char text[LB_MAC_TEXT_BYTES];

	if (strcmp(wanted, LB_MAC_OWN) == 0) {
		json_object_del(body, "mac");
		return 0;
	}
	if (!asked && (wanted[0] != '\0' || (!live && shared)))
		return 0;
	if (lb_mac_read(mac, text) < 0) {
		if (asked)
			return lb_fail(-EINVAL,
				       "the MAC address of machine %s is not known: its agent has told of no network "
				       "card; choose one",
				       text_of(body, "machine"));
		lb_err_clear();
		return 0;
	}
	return json_object_set_new(body, "mac", json_string(text)) < 0 ? lb_fail(-ENOMEM, "out of memory for an order")
								       : 0;
}

/* A test where nobody else is has the address of its source, so that its ports can be led to it. */
static int set_address(json_t *body, const struct lb_double_source *s)
{
	const json_t *address = json_array_get(json_object_get(json_array_get(s->cards, 0), "addresses"), 0);

	if (is_shared(body) || !json_is_string(address))
		return 0;
	if (lb_address_read(json_string_value(address), NULL, NULL) < 0) {
		lb_err_clear();
		return 0;
	}
	return set_missing(body, "address", address);
}

static int fill_network(json_t *body, const struct lb_double_source *s, bool live)
{
	const json_t *network = json_object_get(s->target, live ? "network" : "test_network");
	const json_t *wanted = json_object_get(body, "network");
	int r = 0;

	if (!json_is_string(wanted) || json_equal(wanted, network)) {
		r = set_missing(body, "network", network);
		if (r == 0)
			r = set_missing(body, "mac", json_object_get(s->target, live ? "mac" : "test_mac"));
		if (r == 0)
			r = set_missing(body, "address", json_object_get(s->target, live ? "address" : "test_address"));
	}
	/* nobody else is there */
	if (r == 0 && lb_network_segment(text_of(body, "network")) != NULL)
		r = set_missing(body, "address", json_object_get(s->target, live ? "address" : "test_address"));
	if (strcmp(text_of(body, "network"), LB_NETWORK_NONE) == 0)
		json_object_del(body, "network");
	if (r == 0 && !live)
		r = set_address(body, s);
	return r < 0 ? r : set_mac(body, s, live);
}

static bool is_mended(const json_t *body)
{
	return json_is_true(json_object_get(body, "mend")) || json_is_true(json_object_get(body, "mend_required"));
}

int lb_double_fill(json_t *body, const struct lb_double_source *s)
{
	_cleanup_json_ json_t *sata = json_string("sata");
	int r;

	r = set_missing(body, "cpus", json_object_get(s->target, "cpus"));
	if (r == 0)
		r = set_missing(body, "memory_bytes", json_object_get(s->target, "memory_bytes"));
	if (r == 0)
		r = fill_network(body, s, strcmp(text_of(body, "kind"), "live") == 0);
	if (r == 0 && !is_mended(body))
		r = set_missing(body, "mend", json_object_get(s->target, "mend"));
	if (r == 0)
		r = set_missing(body, "bus", json_object_get(s->target, "bus"));
	if (r < 0 || !s->sata || json_object_get(body, "bus") != NULL)
		return r;
	/* a double that is mended has drivers for virtio */
	return set_missing(body, is_mended(body) ? "bus_unmended" : "bus", sata);
}

void lb_double_source_find(const json_t *copy, const char *machine, struct lb_double_source *ret_source)
{
	const json_t *one;
	size_t i;

	*ret_source = (struct lb_double_source){0};
	json_array_foreach(json_object_get(copy, "machines"), i, one)
	{
		if (strcmp(text_of(one, "name"), machine) != 0 && strcmp(text_of(one, "id"), machine) != 0)
			continue;
		*ret_source =
			(struct lb_double_source){.target = json_object_get(one, "target"),
						  .cards = json_object_get(json_object_get(one, "inventory"), "cards"),
						  .sata = json_is_true(json_object_get(one, "sata"))};
		return;
	}
}
