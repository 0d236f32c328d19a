/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/bandwidth.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/text.h"

#define DAYS 7
#define DAY_MIN (24 * 60)
#define MIN_S 60
#define EPOCH_WEEKDAY 3 /* 1970-01-01 was a Thursday */
#define TEXT_BYTES_MAX 2048

static const char *const day_names[DAYS] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};

static int day_parse(const char *text, size_t length, unsigned int *ret_day)
{
	for (unsigned int i = 0; i < DAYS; i++) {
		if (length == 3 && strncasecmp(text, day_names[i], 3) == 0) {
			*ret_day = i;
			return 0;
		}
	}
	return lb_fail(-EINVAL, "\"%.*s\" is no weekday; they are mon, tue, wed, thu, fri, sat, sun",
		       (int)LB_MIN(length, (size_t)20), text);
}

static int digits(const char *text, unsigned int max, unsigned int *ret_value)
{
	if (text[0] < '0' || text[0] > '9' || text[1] < '0' || text[1] > '9')
		return -EINVAL;
	*ret_value = (unsigned int)((text[0] - '0') * 10 + (text[1] - '0'));
	return *ret_value <= max ? 0 : -EINVAL;
}

static int time_parse(const char *text, uint16_t *ret_min)
{
	unsigned int hours, minutes;

	if (strlen(text) != 5 || text[2] != ':' || digits(text, 24, &hours) < 0 || digits(text + 3, 59, &minutes) < 0 ||
	    hours * 60 + minutes > DAY_MIN)
		return lb_fail(-EINVAL, "\"%.20s\" is no time of the day from 00:00 to 24:00", text);
	*ret_min = (uint16_t)(hours * 60 + minutes);
	return 0;
}

static int days_parse(const json_t *list, uint8_t *ret_days)
{
	uint8_t days = 0;
	unsigned int day;
	int r;

	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *text = json_string_value(json_array_get(list, i));

		r = text != NULL ? day_parse(text, strlen(text), &day)
				 : lb_fail(-EINVAL, "\"days\" is not a list of weekdays");
		if (r < 0)
			return r;
		days |= (uint8_t)(1u << day);
	}
	if (days == 0)
		return lb_fail(-EINVAL, "\"days\" names no weekday");
	*ret_days = days;
	return 0;
}

static int window_parse(const json_t *object, struct lb_bandwidth_window *w)
{
	const char *from = "", *to = "";
	int r;

	r = days_parse(json_object_get(object, "days"), &w->days);
	if (r == 0)
		r = lb_json_get_str(object, "from", &from);
	if (r == 0)
		r = lb_json_get_str(object, "to", &to);
	if (r == 0)
		r = lb_json_get_u64(object, "bytes_per_s", &w->bytes_per_s);
	if (r == 0)
		r = time_parse(from, &w->from_min);
	if (r == 0)
		r = time_parse(to, &w->to_min);
	if (r < 0)
		return r;
	if (w->from_min == DAY_MIN || w->from_min == w->to_min || w->to_min == 0)
		return lb_fail(-EINVAL, "from %s to %s is no span of time (the end of a day is 24:00)", from, to);
	if (w->bytes_per_s != 0 && w->bytes_per_s < LB_BANDWIDTH_BYTES_PER_S_MIN)
		return lb_fail(-EINVAL, "bytes_per_s must be 0 (no limit) or at least %d",
			       LB_BANDWIDTH_BYTES_PER_S_MIN);
	return json_object_size(object) == 4
		       ? 0
		       : lb_fail(-EINVAL, "a window has days, from, to, bytes_per_s and nothing else");
}

int lb_bandwidth_windows_parse(const json_t *list, struct lb_bandwidth *ret_bandwidth)
{
	struct lb_bandwidth_window windows[LB_BANDWIDTH_WINDOWS_MAX];
	size_t n = json_array_size(list);
	int r;

	memset(windows, 0, sizeof(windows));
	if (!json_is_array(list) || n > LB_BANDWIDTH_WINDOWS_MAX)
		return lb_fail(-EINVAL, "bandwidth_windows is not a list of at most %d windows",
			       LB_BANDWIDTH_WINDOWS_MAX);
	for (size_t i = 0; i < n; i++) {
		r = window_parse(json_array_get(list, i), &windows[i]);
		if (r < 0)
			return lb_wrap(-EINVAL, "bandwidth window %zu", i + 1);
	}
	memcpy(ret_bandwidth->windows, windows, sizeof(windows));
	ret_bandwidth->n_windows = (uint32_t)n;
	return 0;
}

static json_t *window_print(const struct lb_bandwidth_window *w)
{
	json_t *days = json_array();
	char from[8], to[8];

	for (unsigned int i = 0; i < DAYS; i++) {
		if ((w->days & (1u << i)) != 0 && json_array_append_new(days, json_string(day_names[i])) < 0) {
			json_decref(days);
			return NULL;
		}
	}
	snprintf(from, sizeof(from), "%02u:%02u", w->from_min / 60u % 100, w->from_min % 60u);
	snprintf(to, sizeof(to), "%02u:%02u", w->to_min / 60u % 100, w->to_min % 60u);
	return json_pack("{s:o,s:s,s:s,s:I}", "days", days, "from", from, "to", to, "bytes_per_s",
			 (json_int_t)w->bytes_per_s);
}

int lb_bandwidth_windows_print(const struct lb_bandwidth *bandwidth, json_t **ret_list)
{
	_cleanup_json_ json_t *list = json_array();

	for (uint32_t i = 0; i < bandwidth->n_windows; i++)
		if (json_array_append_new(list, window_print(&bandwidth->windows[i])) < 0)
			return lb_fail(-ENOMEM, "out of memory for bandwidth windows");
	if (list == NULL)
		return lb_fail(-ENOMEM, "out of memory for bandwidth windows");
	*ret_list = lb_steal_ptr(list);
	return 0;
}

/* ---- as text -------------------------------------------------------------------------------------------- */

/* "mon-fri" or "sat": appends their names. */
static int days_text(char *text, json_t *days)
{
	char *rest = text, *part, *dash;
	unsigned int first = 0, last;
	int r;

	while ((part = strsep(&rest, ",")) != NULL) {
		dash = strchr(part, '-');
		r = day_parse(part, dash != NULL ? (size_t)(dash - part) : strlen(part), &first);
		last = first;
		if (r == 0 && dash != NULL)
			r = day_parse(dash + 1, strlen(dash + 1), &last);
		if (r < 0)
			return r;
		for (unsigned int day = first;; day = (day + 1) % DAYS) {
			if (json_array_append_new(days, json_string(day_names[day])) < 0)
				return lb_fail(-ENOMEM, "out of memory for bandwidth windows");
			if (day == last)
				break;
		}
	}
	return 0;
}

static int window_text(char *text, json_t *list)
{
	json_t *days = json_array(), *one;
	char *rest = text, *words[4] = {NULL}, *word, *to;
	uint64_t bytes_per_s = 0;
	unsigned int n = 0;
	int r;

	while ((word = strsep(&rest, " \t")) != NULL && n < LB_ARRAY_LEN(words))
		if (*word != '\0')
			words[n++] = word;
	to = n == 3 ? strchr(words[1], '-') : NULL;
	if (to == NULL) {
		json_decref(days);
		return lb_fail(-EINVAL, "a window is written like mon-fri 08:00-18:00 2M");
	}
	*to++ = '\0';
	r = days_text(words[0], days);
	if (r == 0)
		r = lb_size_parse(words[2], &bytes_per_s);
	if (r < 0) {
		json_decref(days);
		return r;
	}
	one = json_pack("{s:o,s:s,s:s,s:I}", "days", days, "from", words[1], "to", to, "bytes_per_s",
			(json_int_t)LB_MIN(bytes_per_s, (uint64_t)INT64_MAX));
	return json_array_append_new(list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for bandwidth windows") : 0;
}

int lb_bandwidth_text_parse(const char *text, json_t **ret_list)
{
	_cleanup_json_ json_t *list = json_array();
	_cleanup_free_ char *copy = NULL;
	struct lb_bandwidth checked;
	char *rest, *one;
	int r = 0;

	if (strlen(text) > TEXT_BYTES_MAX)
		return lb_fail(-EINVAL, "the windows' text is longer than %d bytes", TEXT_BYTES_MAX);
	copy = strdup(text);
	if (list == NULL || copy == NULL)
		return lb_fail(-ENOMEM, "out of memory for bandwidth windows");
	rest = strcmp(text, "none") == 0 ? NULL : copy;
	while (r == 0 && (one = strsep(&rest, ";")) != NULL)
		r = window_text(one, list);
	if (r == 0)
		r = lb_bandwidth_windows_parse(list, &checked);
	if (r < 0)
		return r;
	*ret_list = lb_steal_ptr(list);
	return 0;
}

const char *lb_bandwidth_text(const struct lb_bandwidth_window *w, char text[LB_BANDWIDTH_TEXT_BYTES])
{
	char days[DAYS * 4 + 1] = "", size[LB_SIZE_TEXT_BYTES];

	for (unsigned int i = 0; i < DAYS; i++)
		if ((w->days & (1u << i)) != 0)
			snprintf(days + strlen(days), sizeof(days) - strlen(days), "%s%s", days[0] != '\0' ? "," : "",
				 day_names[i]);
	snprintf(text, LB_BANDWIDTH_TEXT_BYTES, "%s %02u:%02u-%02u:%02u %s", days, w->from_min / 60u, w->from_min % 60u,
		 w->to_min / 60u, w->to_min % 60u,
		 w->bytes_per_s == 0 ? "no limit" : lb_size_format(w->bytes_per_s, size));
	return text;
}

/* ---- the limit that holds ------------------------------------------------------------------------------ */

static bool holds(const struct lb_bandwidth_window *w, unsigned int day, unsigned int minute)
{
	unsigned int before = (day + DAYS - 1) % DAYS;

	if (w->from_min < w->to_min)
		return (w->days & (1u << day)) != 0 && minute >= w->from_min && minute < w->to_min;
	return ((w->days & (1u << day)) != 0 && minute >= w->from_min) ||
	       ((w->days & (1u << before)) != 0 && minute < w->to_min);
}

uint64_t lb_bandwidth_at(const struct lb_bandwidth *bandwidth, uint64_t otherwise, int64_t time_ns)
{
	int64_t time_s = time_ns / LB_NS_PER_S, local_s = time_s + lb_zone_offset_s(&bandwidth->zone, time_s);
	unsigned int minute, day;
	uint64_t limit = 0;
	bool any = false;

	if (local_s < 0)
		return otherwise;
	minute = (unsigned int)(local_s / MIN_S % DAY_MIN);
	day = (unsigned int)((local_s / MIN_S / DAY_MIN + EPOCH_WEEKDAY) % DAYS);
	for (uint32_t i = 0; i < bandwidth->n_windows; i++) {
		const struct lb_bandwidth_window *w = &bandwidth->windows[i];

		if (!holds(w, day, minute))
			continue;
		if (w->bytes_per_s != 0 && (limit == 0 || w->bytes_per_s < limit))
			limit = w->bytes_per_s;
		any = true;
	}
	return any ? limit : otherwise;
}
