/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the networks and addresses that doubles are to have can be had. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/target.h"
#include "fabric/fabric.h"

struct place {
	const char *network, *mac, *address;
};

static const struct place places[] = {{"network", "mac", "address"}, {"test_network", "test_mac", "test_address"}};

int lb_target_network_check(struct lb_site *site, const char *network)
{
	_cleanup_(lb_fabric_freep) struct lb_fabric *f = NULL;
	int r;

	if (network == NULL)
		return 0;
	r = lb_fabric_open(site->env, site->settings.fabric, &f);
	return r < 0 ? r : f->ops->network(f, network);
}

struct other {
	struct lb_site *site;
	const char *machine;
	const json_t *target;
};

/* The same on one network; without a network every double is alone. */
static bool shares(const json_t *a, const json_t *b, const struct place *at_a, const struct place *at_b, bool mac)
{
	const char *network = json_string_value(json_object_get(a, at_a->network));
	const char *other_network = json_string_value(json_object_get(b, at_b->network));
	const char *text = json_string_value(json_object_get(a, mac ? at_a->mac : at_a->address));
	const char *other = json_string_value(json_object_get(b, mac ? at_b->mac : at_b->address));
	uint32_t address = 0, other_address = 0;

	if (network == NULL || other_network == NULL || strcmp(network, other_network) != 0 || text == NULL ||
	    other == NULL)
		return false;
	/* "source" and "own" are nobody else's */
	if (mac)
		return strchr(text, ':') != NULL && strcasecmp(text, other) == 0;
	return lb_address_read(text, &address, NULL) == 0 && lb_address_read(other, &other_address, NULL) == 0 &&
	       address == other_address;
}

static int look_at(void *arg, const struct lb_reg_machine *m)
{
	const struct other *o = arg;
	_cleanup_json_ json_t *theirs = NULL;
	int r;

	if (strcmp(m->id, o->machine) == 0)
		return 0;
	r = lb_target_get(o->site, m->id, &theirs);
	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(places); i++) {
		for (size_t k = 0; r == 0 && k < LB_ARRAY_LEN(places); k++) {
			const struct place *ours = &places[i];
			bool mac = shares(o->target, theirs, ours, &places[k], true);

			if (mac || shares(o->target, theirs, ours, &places[k], false))
				r = lb_fail(
					-EEXIST,
					"%s %s on network %s is that of machine %s (%s) already; two doubles can't "
					"have the same",
					mac ? "MAC address" : "address",
					json_string_value(json_object_get(o->target, mac ? ours->mac : ours->address)),
					json_string_value(json_object_get(o->target, ours->network)), m->name,
					mac ? places[k].mac : places[k].address);
		}
	}
	return r;
}

int lb_target_networks_check(struct lb_site *site, const char *machine, const json_t *target)
{
	struct other o = {site, machine, target};
	int r = 0;

	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(places); i++)
		r = lb_target_network_check(site, json_string_value(json_object_get(target, places[i].network)));
	return r < 0 ? r : lb_reg_machines(site->db, look_at, &o);
}
