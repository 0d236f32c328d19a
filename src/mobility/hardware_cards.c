/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's network cards: what its double's card may be like. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "mobility/hardware.h"

#define ROUTES_BYTES_MAX (256u << 10)
#define PATH_BYTES 512

struct cards {
	struct lb_env *env;
	const char *root;
	json_t *list;
	struct ifaddrs *addresses;
	char out[IFNAMSIZ]; /* through which the default route goes */
};

static int read_text(const struct cards *c, const char *path, char **ret_text)
{
	uint8_t *data;
	char full[PATH_BYTES];
	size_t size_bytes;
	int r;

	snprintf(full, sizeof(full), "%s%s", c->root, path);
	r = lb_file_read(c->env, full, ROUTES_BYTES_MAX, &data, &size_bytes);
	if (r < 0)
		return r;
	*ret_text = (char *)data; /* ends with a zero byte */
	return 0;
}

static void find_default(struct cards *c)
{
	_cleanup_free_ char *text = NULL;
	char *rest, *line, name[IFNAMSIZ];
	unsigned int destination;

	if (read_text(c, "/proc/net/route", &text) < 0)
		return;
	rest = text;
	while ((line = strsep(&rest, "\n")) != NULL) {
		if (sscanf(line, "%15s %x", name, &destination) == 2 && destination == 0) {
			memcpy(c->out, name, sizeof(c->out));
			return;
		}
	}
}

static unsigned int prefix_of(const struct sockaddr *mask)
{
	struct sockaddr_in in = {0};

	if (mask != NULL)
		memcpy(&in, mask, sizeof(in));
	return mask == NULL ? 32 : (unsigned int)__builtin_popcount(in.sin_addr.s_addr);
}

static json_t *addresses_of(const struct cards *c, const char *name)
{
	json_t *list = json_array();
	char text[INET_ADDRSTRLEN];
	struct sockaddr_in in;

	for (const struct ifaddrs *a = c->addresses; a != NULL && json_array_size(list) < LB_CARD_ADDRESSES_MAX;
	     a = a->ifa_next) {
		if (a->ifa_addr == NULL || a->ifa_addr->sa_family != AF_INET || strcmp(a->ifa_name, name) != 0)
			continue;
		memcpy(&in, a->ifa_addr, sizeof(in));
		inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
		json_array_append_new(list, json_sprintf("%s/%u", text, prefix_of(a->ifa_netmask)));
	}
	return list;
}

static int take_card(void *arg, const char *name, bool is_dir)
{
	struct cards *c = arg;
	_cleanup_free_ char *text = NULL;
	char path[PATH_BYTES], mac[18] = "";
	uint64_t room, size;
	bool out = strcmp(name, c->out) == 0;
	json_t *card;

	(void)is_dir;
	/* cards have a device below them; bridges, bonds and tunnels have not */
	snprintf(path, sizeof(path), "%s/sys/class/net/%.15s/device", c->root, name);
	if (json_array_size(c->list) == LB_CARDS_MAX || c->env->ops->room(c->env, path, &room, &size) < 0)
		return 0;
	snprintf(path, sizeof(path), "/sys/class/net/%.15s/address", name);
	if (read_text(c, path, &text) < 0 || sscanf(text, "%17[0-9a-f:]", mac) != 1 || strlen(mac) != 17 ||
	    text[17] == ':')
		return 0;
	card = json_pack("{s:s,s:s,s:b,s:o}", "name", name, "mac", mac, "default", (int)out, "addresses",
			 addresses_of(c, name));
	return (out ? json_array_insert_new(c->list, 0, card) : json_array_append_new(c->list, card)) < 0 ? -ENOMEM : 0;
}

int lb_cards_json(struct lb_env *env, const char *root, json_t **ret_list)
{
	struct cards c = {.env = env, .root = root, .list = json_array()};
	char path[PATH_BYTES];
	int r;

	if (c.list == NULL)
		return lb_fail(-ENOMEM, "out of memory for the list of network cards");
	find_default(&c);
	/* of another root it can't be known */
	if (root[0] == '\0' && getifaddrs(&c.addresses) < 0)
		c.addresses = NULL;
	snprintf(path, sizeof(path), "%s/sys/class/net", root);
	r = env->ops->list(env, path, take_card, &c);
	if (c.addresses != NULL)
		freeifaddrs(c.addresses);
	lb_err_clear();
	if (r == -ENOMEM) {
		json_decref(c.list);
		return lb_fail(r, "out of memory for the list of network cards");
	}
	*ret_list = c.list;
	return 0;
}
