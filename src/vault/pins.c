/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/pins.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "vault/manifest.h"

#define PIN_BYTES_MAX 1024

void lb_pins_free(struct lb_pins *pins)
{
	free(pins->points);
	*pins = (struct lb_pins){0};
}

#define PIN 'p'
#define HOLD 'h'
#define SHARED 'g'

static int pin_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, char folder, const char *pin)
{
	int r = lb_name_check("point name", pin);

	return r < 0 ? r : lb_vault_name(name, machine, "%c/%s", folder, pin);
}

static int pin_parse(const struct lb_buf *text, const char *name, struct lb_point *point)
{
	_cleanup_json_ json_t *object = NULL;
	uint64_t flags;
	int r;

	r = lb_json_parse(text->data, text->size_bytes, PIN_BYTES_MAX, &object);
	if (r < 0)
		return r;
	if ((r = lb_json_get_u64(object, "epoch", &point->position.epoch)) < 0 ||
	    (r = lb_json_get_u64(object, "seq", &point->position.seq)) < 0 ||
	    (r = lb_json_get_i64(object, "time_ns", &point->time_ns)) < 0 ||
	    (r = lb_json_get_i64(object, "until_ns", &point->until_ns)) < 0 ||
	    (r = lb_json_get_u64(object, "flags", &flags)) < 0)
		return r;
	point->flags = (uint32_t)flags;
	snprintf(point->name, sizeof(point->name), "%s", name);
	return 0;
}

static int pin_read(struct lb_vault *v, const struct lb_uuid *machine, char folder, const char *pin,
		    struct lb_point *ret_point)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(PIN_BYTES_MAX);
	char name[LB_OBJECT_NAME_BYTES];
	struct lb_point point = {0};
	int r;

	r = pin_name(name, machine, folder, pin);
	if (r < 0)
		return r;
	r = lb_small_get(v, machine, name, &text);
	if (r < 0)
		return r;
	r = pin_parse(&text, pin, &point);
	if (r < 0)
		return lb_wrap(r, "%s: object %s", v->store->url, name);
	point.held = folder == HOLD;
	*ret_point = point;
	return 0;
}

int lb_pin_read(struct lb_vault *v, const struct lb_uuid *machine, const char *pin, struct lb_point *ret_point)
{
	return pin_read(v, machine, PIN, pin, ret_point);
}

int lb_pin_object_read(struct lb_vault *v, const struct lb_uuid *machine, const char *object,
		       struct lb_point *ret_point)
{
	const char *name = strrchr(object, '/');

	return pin_read(v, machine, name[-1], name + 1, ret_point);
}

int lb_pin_find(struct lb_vault *v, const struct lb_uuid *machine, const char *name, struct lb_point *ret_point)
{
	int r = pin_read(v, machine, PIN, name, ret_point);

	return r == -ENOENT ? pin_read(v, machine, HOLD, name, ret_point) : r;
}

static int add_pin(void *arg, const char *object, uint64_t size_bytes)
{
	struct lb_pins *pins = arg;
	struct lb_point point, *grown;
	int r;

	(void)size_bytes;
	if (pins->n >= LB_PINS_MAX)
		return lb_fail(-EOVERFLOW, "a machine has at most %d named points; remove some", LB_PINS_MAX);
	r = pin_read(pins->v, pins->machine, pins->folder, strrchr(object, '/') + 1, &point);
	if (r == -EBADMSG || r == -ENOENT || r == -EINVAL) {
		pins->n_unreadable += r != -ENOENT;
		lb_warning("passing over a named point: %s", lb_err_text());
		return 0;
	}
	if (r < 0)
		return r;
	grown = reallocarray(pins->points, pins->n + 1, sizeof(*grown));
	if (grown == NULL)
		return lb_fail(-ENOMEM, "out of memory for named points");
	pins->points = grown;
	pins->points[pins->n++] = point;
	return 0;
}

static int read_folders(struct lb_vault *v, const struct lb_uuid *machine, const char *folders,
			struct lb_pins *ret_pins)
{
	struct lb_pins pins = {.v = v, .machine = machine};
	char prefix[LB_OBJECT_NAME_BYTES];
	int r = 0;

	for (; *folders != '\0'; folders++) {
		pins.folder = *folders;
		r = lb_vault_name(prefix, machine, "%c/", pins.folder);
		if (r == 0)
			r = lb_store_list(v->store, prefix, add_pin, &pins);
		if (r < 0)
			break;
	}
	if (r < 0) {
		lb_pins_free(&pins);
		return r;
	}
	*ret_pins = pins;
	return 0;
}

int lb_pins_read(struct lb_vault *v, const struct lb_uuid *machine, struct lb_pins *ret_pins)
{
	return read_folders(v, machine, (const char[]){PIN, HOLD, '\0'}, ret_pins);
}

int lb_pins_read_kept(struct lb_vault *v, const struct lb_uuid *machine, struct lb_pins *ret_pins)
{
	return read_folders(v, machine, (const char[]){PIN, HOLD, SHARED, '\0'}, ret_pins);
}

/* Also one that was made while the machine was idle: such points are listed as one, which holds until the last. */
static bool is_of(const struct lb_point *pin, const struct lb_point *point)
{
	return lb_position_compare(&pin->position, &point->position) == 0 ||
	       (pin->position.epoch == point->position.epoch && pin->position.seq > point->position.seq &&
		pin->time_ns > point->time_ns && pin->time_ns <= point->until_ns);
}

void lb_pins_apply(const struct lb_pins *pins, struct lb_point *point)
{
	point->name[0] = '\0';
	point->held = false;
	for (size_t i = 0; i < pins->n && !point->held; i++) {
		const struct lb_point *pin = &pins->points[i];

		if (!is_of(pin, point) || (point->name[0] != '\0' && !pin->held))
			continue;
		snprintf(point->name, sizeof(point->name), "%s", pin->name);
		point->held = pin->held;
	}
}

/* Puts it, -EEXIST when that name has another point. `ret_fresh`: it was not there before. */
static int put(struct lb_vault *v, const struct lb_uuid *machine, char folder, const struct lb_point *point,
	       const char *pin, bool *ret_fresh)
{
	_cleanup_json_ json_t *object = json_object();
	_cleanup_free_ char *text = NULL;
	char name[LB_OBJECT_NAME_BYTES];
	struct lb_point there;
	int r;

	r = pin_name(name, machine, folder, pin);
	if (r < 0)
		return r;
	if (object == NULL)
		return lb_fail(-ENOMEM, "out of memory for a named point");
	if ((r = lb_json_set_u64(object, "epoch", point->position.epoch)) < 0 ||
	    (r = lb_json_set_u64(object, "seq", point->position.seq)) < 0 ||
	    (r = lb_json_set_i64(object, "time_ns", point->time_ns)) < 0 ||
	    (r = lb_json_set_i64(object, "until_ns", point->until_ns)) < 0 ||
	    (r = lb_json_set_u64(object, "flags", point->flags)) < 0 || (r = lb_json_dump(object, &text)) < 0)
		return r;
	r = lb_small_put_new(v, machine, name, text, strlen(text));
	*ret_fresh = r == 0;
	if (r != -EEXIST)
		return r;
	r = pin_read(v, machine, folder, pin, &there);
	if (r < 0)
		return r;
	if (lb_position_compare(&there.position, &point->position) == 0)
		return 0;
	return lb_fail(-EEXIST, "point %s names %llu:%llu already; choose another name, or %s it first", pin,
		       (unsigned long long)there.position.epoch, (unsigned long long)there.position.seq,
		       folder == HOLD ? "release" : "unpin");
}

static int take_away(struct lb_vault *v, const struct lb_uuid *machine, char folder, const char *pin)
{
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = pin_name(name, machine, folder, pin);
	if (r < 0)
		return r;
	r = lb_store_remove(v->store, name);
	return r == -ENOENT ? lb_fail(r, "there is no %s named %s; see `lifeboat point list`",
				      folder == HOLD ? "hold" : "point", pin)
			    : r;
}

/*
 * Who prunes reads pins after its word that a point is doomed was durable: a point that is not doomed after the pin
 * was put stays for as long as the pin does.
 */
static int keep(struct lb_vault *v, const struct lb_uuid *machine, char folder, const struct lb_point *point,
		const char *pin)
{
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	bool fresh = false;
	int r;

	r = put(v, machine, folder, point, pin, &fresh);
	if (r == 0)
		r = lb_manifest_read(v, machine, &m);
	if (r < 0 || lb_manifest_offers(m, &point->position))
		return r;
	if (fresh)
		take_away(v, machine, folder, pin);
	return lb_fail(-ESTALE,
		       "point %llu:%llu was pruned meanwhile by its retention policy; choose another one, see "
		       "`lifeboat point list`",
		       (unsigned long long)point->position.epoch, (unsigned long long)point->position.seq);
}

int lb_point_pin(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_point *point, const char *pin)
{
	return keep(v, machine, PIN, point, pin);
}

int lb_point_unpin(struct lb_vault *v, const struct lb_uuid *machine, const char *pin)
{
	return take_away(v, machine, PIN, pin);
}

int lb_point_hold(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_point *point, const char *name)
{
	return keep(v, machine, HOLD, point, name);
}

int lb_point_release(struct lb_vault *v, const struct lb_uuid *machine, const char *name)
{
	return take_away(v, machine, HOLD, name);
}

int lb_pin_shared_put(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_point *point, const char *id)
{
	return keep(v, machine, SHARED, point, id);
}

int lb_pin_shared_remove(struct lb_vault *v, const struct lb_uuid *machine, const char *id)
{
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = pin_name(name, machine, SHARED, id);
	if (r == 0)
		r = lb_store_remove(v->store, name);
	if (r != -ENOENT)
		return r;
	lb_err_clear();
	return 0;
}
