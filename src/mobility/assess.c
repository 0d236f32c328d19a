/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/assess.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "capture/capture.h"
#include "mobility/hardware.h"
#include "wire/policy.h"

#define DISKSTATS_BYTES_MAX (256u << 10)
#define RECORD_BYTES 48 /* of the ring, beside each write's data */
#define LINK_HEADROOM_PERCENT 125
#define SECTOR_BYTES 512
#define PROBE_BYTES_MAX (256u << 10)

struct counters {
	uint64_t writes, written_bytes, discarded_bytes;
};

struct assessment {
	struct lb_inventory inventory;
	struct counters before[LB_INVENTORY_DISKS_MAX], rate[LB_INVENTORY_DISKS_MAX], total;
	uint64_t ring_bytes, link_bits_per_s;
	int64_t seconds_ns;
};

static void sample_line(const char *line, const struct lb_inventory *inventory, struct counters *out)
{
	unsigned long writes = 0, sectors = 0, discarded = 0;
	char name[64];
	int n;

	n = sscanf(line, "%*u %*u %63s %*u %*u %*u %*u %lu %*u %lu %*u %*u %*u %*u %*u %*u %lu", name, &writes,
		   &sectors, &discarded);
	for (unsigned int i = 0; n >= 3 && i < inventory->n; i++)
		if (strcmp(inventory->disks[i].name, name) == 0)
			out[i] = (struct counters){writes, sectors * SECTOR_BYTES, discarded * SECTOR_BYTES};
}

static int sample(struct lb_env *env, const struct lb_inventory *inventory, struct counters *out)
{
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes;
	char *rest, *line;
	int r;

	r = lb_file_read(env, "/proc/diskstats", DISKSTATS_BYTES_MAX, &text, &size_bytes);
	if (r < 0)
		return r;
	for (line = strtok_r((char *)text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
		sample_line(line, inventory, out);
	return 0;
}

uint64_t lb_assess_ring_bytes(uint64_t written_bytes_per_s, uint64_t writes_per_s)
{
	uint64_t need = (written_bytes_per_s + writes_per_s * RECORD_BYTES) * LB_ASSESS_OUTAGE_S;
	uint64_t ring = LB_POLICY_RING_BYTES_MIN;

	while (ring < need && ring < LB_POLICY_RING_BYTES_MAX)
		ring *= 2;
	return ring;
}

static uint64_t per_second(uint64_t before, uint64_t after, int64_t ns)
{
	return after <= before || ns <= 0 ? 0 : (uint64_t)((double)(after - before) * (double)LB_NS_PER_S / (double)ns);
}

static int measure(struct lb_env *env, unsigned int seconds, struct assessment *a)
{
	struct counters after[LB_INVENTORY_DISKS_MAX] = {0};
	int64_t began = lb_mono_ns(env), until = began + (int64_t)seconds * LB_NS_PER_S;
	int r;

	r = sample(env, &a->inventory, a->before);
	if (r < 0)
		return r;
	while (lb_mono_ns(env) < until)
		env->ops->wait_until(env, until, -1);
	r = sample(env, &a->inventory, after);
	if (r < 0)
		return r;
	a->seconds_ns = lb_mono_ns(env) - began;
	for (unsigned int i = 0; i < a->inventory.n; i++) {
		const struct counters *x = &a->before[i], *y = &after[i];
		struct counters *rate = &a->rate[i];

		rate->writes = per_second(x->writes, y->writes, a->seconds_ns);
		rate->written_bytes = per_second(x->written_bytes, y->written_bytes, a->seconds_ns);
		rate->discarded_bytes = per_second(x->discarded_bytes, y->discarded_bytes, a->seconds_ns);
		if (!a->inventory.disks[i].fixed)
			continue;
		a->total.writes += rate->writes;
		a->total.written_bytes += rate->written_bytes;
		a->total.discarded_bytes += rate->discarded_bytes;
	}
	a->ring_bytes = lb_assess_ring_bytes(a->total.written_bytes, a->total.writes);
	a->link_bits_per_s = a->total.written_bytes * 8 * LINK_HEADROOM_PERCENT / 100;
	return 0;
}

static int disks_json(const struct assessment *a, json_t *list)
{
	for (unsigned int i = 0; i < a->inventory.n; i++) {
		const struct lb_inventory_disk *d = &a->inventory.disks[i];
		const struct counters *r = &a->rate[i];
		json_t *o = json_pack("{s:s,s:I,s:b,s:b,s:I,s:I,s:I}", "name", d->name, "size_bytes",
				      (json_int_t)d->size_bytes, "fixed", d->fixed, "boot", d->boot,
				      "written_bytes_per_s", (json_int_t)r->written_bytes, "writes_per_s",
				      (json_int_t)r->writes, "discarded_bytes_per_s", (json_int_t)r->discarded_bytes);

		if (o == NULL || json_array_append_new(list, o) < 0)
			return lb_fail(-ENOMEM, "out of memory for the assessment");
	}
	return 0;
}

static int print_json(const struct assessment *a, const json_t *probe, json_t *hardware)
{
	_cleanup_json_ json_t *o = json_object();
	_cleanup_free_ char *text = NULL;
	json_t *disks = json_array();
	int r;

	if (o == NULL || disks == NULL || json_object_set_new(o, "disks", disks) < 0)
		return lb_fail(-ENOMEM, "out of memory for the assessment");
	r = disks_json(a, disks);
	if (r < 0)
		return r;
	if (json_object_set(o, "hardware", hardware) < 0 ||
	    json_object_set(o, "capture", (json_t *)(uintptr_t)probe) < 0 ||
	    lb_json_set_u64(o, "seconds", (uint64_t)(a->seconds_ns / LB_NS_PER_S)) < 0 ||
	    lb_json_set_u64(o, "written_bytes_per_s", a->total.written_bytes) < 0 ||
	    lb_json_set_u64(o, "ring_bytes", a->ring_bytes) < 0 ||
	    lb_json_set_u64(o, "link_bits_per_s", a->link_bits_per_s) < 0 ||
	    lb_json_set_bool(o, "fit", json_is_true(json_object_get(probe, "can_capture"))) < 0)
		return lb_fail(-ENOMEM, "out of memory for the assessment");
	r = lb_json_dump(o, &text);
	if (r < 0)
		return r;
	puts(text);
	return 0;
}

static void print_reason(const char *what, const json_t *o)
{
	const char *reason = json_string_value(json_object_get(o, "reason"));
	const char *cure = json_string_value(json_object_get(o, "cure"));

	if (reason != NULL)
		printf("%s: %s%s%s\n", what, reason, cure != NULL ? "\n    " : "", cure != NULL ? cure : "");
}

static void print_text(const struct assessment *a, const json_t *probe)
{
	const json_t *fits = json_object_get(probe, "disks");
	char size[LB_SIZE_TEXT_BYTES], rate[LB_SIZE_TEXT_BYTES];

	printf("%-12s %10s %14s %10s\n", "disk", "size", "written", "writes/s");
	for (unsigned int i = 0; i < a->inventory.n; i++) {
		const struct lb_inventory_disk *d = &a->inventory.disks[i];

		printf("%-12s %10s %12s/s %10lu%s\n", d->name, lb_size_format(d->size_bytes, size),
		       lb_size_format(a->rate[i].written_bytes, rate), (unsigned long)a->rate[i].writes,
		       d->boot ? "  boot" : "");
	}
	printf("\nmeasured over %ld s; a time of heavy use tells more (--seconds)\n",
	       (long)(a->seconds_ns / LB_NS_PER_S));
	printf("link needed   %.1f Mbit/s (%s/s and a quarter more)\n", (double)a->link_bits_per_s / 1e6,
	       lb_size_format(a->total.written_bytes, rate));
	printf("ring needed   %s: rides out %d s without the process server\n", lb_size_format(a->ring_bytes, size),
	       LB_ASSESS_OUTAGE_S);
	printf("capture       %s\n",
	       json_is_true(json_object_get(probe, "can_capture")) ? "possible" : "not possible as things are");
	print_reason("  this kernel", probe);
	for (size_t i = 0; i < json_array_size(fits); i++) {
		const json_t *disk = json_array_get(fits, i);

		if (!json_is_true(json_object_get(disk, "fit")))
			print_reason(json_string_value(json_object_get(disk, "name")), disk);
	}
}

int lb_assess(struct lb_env *env, const struct lb_assess *options)
{
	_cleanup_free_ struct assessment *a = calloc(1, sizeof(*a));
	_cleanup_json_ json_t *probe = NULL, *hardware = NULL;
	_cleanup_free_ char *text = NULL;
	int r;

	if (a == NULL)
		return lb_fail(-ENOMEM, "out of memory for the assessment");
	r = lb_inventory_read(env, "", &a->inventory);
	if (r < 0)
		return r;
	r = lb_hardware_json(env, "", &hardware);
	if (r < 0)
		return r;
	r = options->capture_socket != NULL ? lb_capture_probe(options->capture_socket, &text)
					    : lb_capture_probe_direct(&text);
	if (r < 0)
		return r;
	r = lb_json_parse(text, strlen(text), PROBE_BYTES_MAX, &probe);
	if (r < 0)
		return r;
	r = measure(env, options->seconds, a);
	if (r < 0)
		return r;
	if (options->json)
		return print_json(a, probe, hardware);
	print_text(a, probe);
	return 0;
}
