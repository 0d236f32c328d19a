/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the double finds its network configuration under the name that its card has there. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "mobility/ready_state.h"

#define CARDS_MAX 32
#define NAME_BYTES 32
#define MAC_BYTES 18
#define ADDRESS_BYTES 64

struct card {
	char name[NAME_BYTES], mac[MAC_BYTES];
	bool named, pinned;
	char where[LB_READY_PATH_BYTES];
};

struct network {
	struct lb_ready *c;
	struct card cards[CARDS_MAX];
	size_t n;
	const char *folder, *suffix;
	unsigned int files;
	bool quiet; /* notes nothing */
};

static int take_card(void *arg, const char *name, bool is_dir)
{
	struct network *net = arg;
	_cleanup_free_ char *mac = NULL;
	char path[LB_READY_PATH_BYTES];
	uint64_t room, size;
	struct card *card;

	(void)is_dir;
	/* cards have a device below them; bridges, bonds and tunnels have not */
	snprintf(path, sizeof(path), "%s/sys/class/net/%s/device", net->c->o.root, name);
	if (net->n == CARDS_MAX || strlen(name) >= NAME_BYTES ||
	    net->c->o.env->ops->room(net->c->o.env, path, &room, &size) < 0)
		return 0;
	card = &net->cards[net->n++];
	memset(card, 0, sizeof(*card));
	snprintf(card->name, sizeof(card->name), "%.31s", name);
	snprintf(path, sizeof(path), "/sys/class/net/%s/address", name);
	if (lb_ready_text(net->c, path, &mac) == 0)
		(void)!sscanf(mac, "%17[0-9a-f:]", card->mac);
	return 0;
}

static bool is_word_char(char ch)
{
	return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '_' ||
	       ch == '-' || ch == '.';
}

static bool has_word(const char *text, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = text; (at = strcasestr(at, word)) != NULL; at += length)
		if ((at == text || !is_word_char(at[-1])) && !is_word_char(at[length]))
			return true;
	return false;
}

/* An address with its prefix, or after the word "address". */
static bool address_in(const char *line, char address[ADDRESS_BYTES])
{
	unsigned char raw[16];
	const char *at = line;
	char one[ADDRESS_BYTES];

	while (*at != '\0') {
		size_t n = strspn(at, "0123456789abcdefABCDEF.:");

		if (n >= 7 && n < sizeof(one)) {
			memcpy(one, at, n);
			one[n] = '\0';
			if ((inet_pton(AF_INET, one, raw) == 1 || inet_pton(AF_INET6, one, raw) == 1) &&
			    (at[n] == '/' || strncasecmp(line, "address", 7) == 0)) {
				snprintf(address, ADDRESS_BYTES, "%.*s", (int)(n + strcspn(at + n, " ,]\"'")), at);
				return true;
			}
		}
		at += n > 0 ? n : 1;
	}
	return false;
}

static void find_addresses(struct network *net, const char *path, char *text)
{
	char address[ADDRESS_BYTES], *rest = text, *line;

	while ((line = strsep(&rest, "\n")) != NULL) {
		line += strspn(line, " \t-");
		if (line[0] == '#' || !address_in(line, address))
			continue;
		/* routes and gateways are no addresses of ours */
		if (strncasecmp(line, "to", 2) == 0 || strncasecmp(line, "via", 3) == 0 ||
		    strncasecmp(line, "gateway", 7) == 0 || strncasecmp(line, "destination", 11) == 0 ||
		    strncasecmp(line, "route", 5) == 0)
			continue;
		lb_ready_note(
			net->c,
			&(struct lb_finding){.check = "network",
					     .level = "info",
					     .effect = "the double keeps it: it is reached only in a network of that "
						       "range",
					     .cure = "a network of that range for the double"},
			"static address %s in %s", address, path);
	}
}

static void take_config(struct network *net, const char *path)
{
	_cleanup_free_ char *text = NULL;

	if (lb_ready_text(net->c, path, &text) < 0)
		return;
	net->files++;
	for (size_t i = 0; i < net->n; i++) {
		struct card *card = &net->cards[i];

		if (card->mac[0] != '\0' && has_word(text, card->mac))
			card->pinned = true;
		/* a rule for virtual machines that gives a double's card this name */
		if (strstr(path, ".link") != NULL && strstr(text, "Virtualization=") != NULL &&
		    has_word(text, card->name))
			card->pinned = true;
		if (!card->named && has_word(text, card->name)) {
			card->named = true;
			snprintf(card->where, sizeof(card->where), "%s", path);
		}
	}
	if (!net->quiet && strstr(path, ".link") == NULL && strstr(path, ".rules") == NULL)
		find_addresses(net, path, text);
}

static int take_file(void *arg, const char *name, bool is_dir)
{
	struct network *net = arg;
	size_t length = strlen(name), suffix = strlen(net->suffix);
	char path[LB_READY_PATH_BYTES];

	if (is_dir || length < suffix || strcmp(name + length - suffix, net->suffix) != 0 ||
	    net->files >= LB_READY_FILES_MAX)
		return 0;
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", net->folder, name) < sizeof(path))
		take_config(net, path);
	return 0;
}

static void take_folder(struct network *net, const char *folder, const char *suffix)
{
	char path[LB_READY_PATH_BYTES];

	net->folder = folder;
	net->suffix = suffix;
	snprintf(path, sizeof(path), "%s%s", net->c->o.root, folder);
	(void)net->c->o.env->ops->list(net->c->o.env, path, take_file, net); /* not there: not used */
}

static bool keeps_name(const struct network *net, const struct card *card, bool old_names)
{
	return card->pinned || (old_names && net->n == 1);
}

static void judge(struct network *net, bool old_names)
{
	for (size_t i = 0; i < net->n; i++) {
		const struct card *card = &net->cards[i];

		if (!card->named)
			continue;
		if (keeps_name(net, card, old_names))
			lb_ready_note(net->c, &(struct lb_finding){.check = "network", .level = "ok"},
				      "%s, named in %s, keeps its name%s", card->name, card->where,
				      card->pinned ? " by a rule of its own" : "");
		else
			lb_ready_note(
				net->c,
				&(struct lb_finding){.check = "network",
						     .level = "warning",
						     .effect = "the double's card has another name: it comes up "
							       "without network",
						     .cure = "on the machine, as root: lifeboat-mobility mend network "
							     "(a rule then gives it this name)",
						     .mend = "network"},
				"%s is configured by name in %s", card->name, card->where);
	}
}

static void read_network(struct network *net, bool *ret_old_names)
{
	struct lb_ready *c = net->c;
	_cleanup_free_ char *line = NULL;
	char path[LB_READY_PATH_BYTES];

	snprintf(path, sizeof(path), "%s/sys/class/net", c->o.root);
	(void)c->o.env->ops->list(c->o.env, path, take_card, net);
	*ret_old_names = lb_ready_text(c, "/proc/cmdline", &line) == 0 && has_word(line, "net.ifnames=0");
	/* what pins names first, so that it counts whatever names them */
	take_folder(net, "/etc/systemd/network", ".link");
	take_folder(net, "/etc/udev/rules.d", ".rules");
	for (size_t i = 0; i < net->n; i++)
		net->cards[i].named = false;
	take_config(net, "/etc/network/interfaces");
	take_folder(net, "/etc/network/interfaces.d", "");
	take_folder(net, "/etc/netplan", ".yaml");
	take_folder(net, "/etc/systemd/network", ".network");
	take_folder(net, "/etc/NetworkManager/system-connections", ".nmconnection");
}

int lb_ready_named_card(struct lb_ready *c, char name[LB_READY_NAME_BYTES], char mac[LB_READY_NAME_BYTES])
{
	_cleanup_free_ struct network *net = calloc(1, sizeof(*net));
	bool old_names;

	if (net == NULL)
		return -ENOMEM;
	net->c = c;
	net->quiet = true;
	read_network(net, &old_names);
	for (size_t i = 0; i < net->n; i++) {
		const struct card *card = &net->cards[i];

		if (!card->named || keeps_name(net, card, old_names))
			continue;
		snprintf(name, LB_READY_NAME_BYTES, "%s", card->name);
		snprintf(mac, LB_READY_NAME_BYTES, "%s", card->mac);
		return 0;
	}
	return -ENOENT;
}

void lb_ready_network(struct lb_ready *c)
{
	_cleanup_free_ struct network *net = calloc(1, sizeof(*net));
	bool old_names;

	if (net == NULL)
		return;
	net->c = c;
	read_network(net, &old_names);
	judge(net, old_names);
}
