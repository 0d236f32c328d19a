/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ladder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/text.h"

static const struct unit {
	char letter;
	uint32_t s;
} units[] = {{'d', 24 * 3600}, {'h', 3600}, {'m', 60}, {'s', 1}};

static int duration(const char *text, size_t length, uint32_t *ret_s)
{
	char digits[12];
	uint64_t n;

	for (size_t i = 0; length > 1 && length < sizeof(digits) && i < LB_ARRAY_LEN(units); i++) {
		if (text[length - 1] != units[i].letter)
			continue;
		snprintf(digits, sizeof(digits), "%.*s", (int)length - 1, text);
		if (lb_u64_parse(digits, LB_LADDER_FOR_S_MAX / units[i].s, &n) < 0)
			break;
		*ret_s = (uint32_t)n * units[i].s;
		return 0;
	}
	return lb_fail(-EINVAL, "retention: \"%.*s\" is no time such as 30m, 2h or 15d, of at most 365 days",
		       (int)LB_MIN(length, (size_t)40), text);
}

static int rung(const char *text, size_t length, struct lb_ladder *ladder)
{
	const char *colon = memchr(text, ':', length);
	struct lb_ladder_rung r = {0}, before = {0};
	size_t first;
	int ret;

	if (ladder->n == LB_LADDER_RUNGS_MAX)
		return lb_fail(-EINVAL, "retention: at most %d rungs", LB_LADDER_RUNGS_MAX);
	if (colon == NULL)
		return lb_fail(-EINVAL, "retention: \"%.*s\" is no rung such as all:2h or 1h:1d",
			       (int)LB_MIN(length, (size_t)40), text);
	first = (size_t)(colon - text);
	if (first != 3 || memcmp(text, "all", 3) != 0) {
		ret = duration(text, first, &r.every_s);
		if (ret < 0)
			return ret;
		if (r.every_s == 0)
			return lb_fail(-EINVAL, "retention: say \"all\" for every point");
	}
	ret = duration(colon + 1, length - first - 1, &r.for_s);
	if (ret < 0)
		return ret;
	if (ladder->n > 0)
		before = ladder->rungs[ladder->n - 1];
	if (r.for_s <= before.for_s || (ladder->n > 0 && r.every_s <= before.every_s))
		return lb_fail(-EINVAL, "retention: each rung must reach further back than the one before it, and keep "
					"fewer points");
	ladder->rungs[ladder->n++] = r;
	return 0;
}

int lb_ladder_parse(const char *text, struct lb_ladder *ret_ladder)
{
	struct lb_ladder ladder = {0};
	int r;

	if (strlen(text) >= LB_LADDER_TEXT_BYTES)
		return lb_fail(-EINVAL, "retention: it is longer than %d characters", LB_LADDER_TEXT_BYTES - 1);
	for (const char *p = text + strspn(text, " ,"); *p != '\0'; p += strspn(p, " ,")) {
		size_t length = strcspn(p, " ,");

		r = rung(p, length, &ladder);
		if (r < 0)
			return r;
		p += length;
	}
	if (ladder.n == 0)
		return lb_fail(-EINVAL, "retention: give at least one rung, such as all:2h");
	*ret_ladder = ladder;
	return 0;
}

static void print_duration(char *text, size_t size_bytes, uint32_t s)
{
	for (size_t i = 0; i < LB_ARRAY_LEN(units); i++)
		if (s % units[i].s == 0) {
			snprintf(text, size_bytes, "%" PRIu32 "%c", s / units[i].s, units[i].letter);
			return;
		}
}

const char *lb_ladder_format(const struct lb_ladder *ladder, char text[LB_LADDER_TEXT_BYTES])
{
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < ladder->n; i++) {
		char every[16] = "all", keep[16] = "";

		if (ladder->rungs[i].every_s > 0)
			print_duration(every, sizeof(every), ladder->rungs[i].every_s);
		print_duration(keep, sizeof(keep), ladder->rungs[i].for_s);
		used += (size_t)snprintf(text + used, LB_LADDER_TEXT_BYTES - used, "%s%s:%s", i > 0 ? " " : "", every,
					 keep);
		if (used >= LB_LADDER_TEXT_BYTES)
			break;
	}
	return text;
}
