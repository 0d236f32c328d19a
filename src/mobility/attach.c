/* SPDX-License-Identifier: Apache-2.0 */
/* From configured disks to a capture of them: taken up where the kernel holds it, else attached anew. */
#include "mobility/session_state.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"

#define ALIGN_BYTES 4096

struct wanted_disks {
	char names[LB_CAPTURE_DISKS_MAX][64];
	const char *list[LB_CAPTURE_DISKS_MAX];
	uint64_t size_bytes[LB_CAPTURE_DISKS_MAX];
	unsigned int n;
};

void lb_attach_close(struct lb_session *s)
{
	s->pending.set = false;
	s->epoch = s->next_seq = 0;
	/* before the capture that it looks at is gone */
	if (s->o.mark != NULL)
		lb_mark_shut(s->o.mark, "the capture is attached anew");
	if (s->builder != NULL)
		lb_hrl_builder_free(s->builder);
	s->builder = NULL;
	if (s->confirm != NULL)
		lb_confirm_free(s->confirm);
	s->confirm = NULL;
	if (s->capture != NULL)
		lb_capture_free(s->capture);
	s->capture = NULL;
	s->skipped_known = false;
}

int lb_attach_end(struct lb_session *s)
{
	int r;

	if (s->capture != NULL)
		r = lb_capture_detach(s->capture);
	else
		r = lb_capture_detach_pinned(s->o.capture_socket);
	lb_attach_close(s);
	return r;
}

int lb_attach_gone(struct lb_session *s)
{
	lb_warning("%s: it is attached anew", lb_err_text());
	lb_attach_close(s);
	lb_session_turn(s, LB_SESSION_ATTACHING, "%s", lb_err_text());
	return LB_TURNED;
}

/* Names move between boots; a serial number doesn't. Sizes must be what protection was set up for. */
static int find_disks(struct lb_session *s, struct wanted_disks *w)
{
	char want[LB_SIZE_TEXT_BYTES], have[LB_SIZE_TEXT_BYTES];
	int r;

	if (s->config.n_disks == 0)
		return lb_fail(-ENODEV, "no disk of this machine was chosen; run `lifeboat machine protect`");
	for (unsigned int i = 0; i < s->config.n_disks; i++) {
		const struct lb_agent_disk *disk = &s->config.disks[i];

		r = s->o.find_disk(s->o.arg, disk, w->names[i], &w->size_bytes[i]);
		if (r < 0)
			return r;
		if (disk->size_bytes != 0 && disk->size_bytes != w->size_bytes[i])
			return lb_fail(-EOVERFLOW,
				       "disk %s (%s) has %s, protection was set up for %s; run `lifeboat machine "
				       "protect` again if "
				       "that is its new size, else connect the right disk",
				       w->names[i], disk->serial[0] != '\0' ? disk->serial : "no serial number",
				       lb_size_format(w->size_bytes[i], have), lb_size_format(disk->size_bytes, want));
		w->list[i] = w->names[i];
	}
	w->n = s->config.n_disks;
	return 0;
}

static uint64_t mix(uint64_t h, const void *data, size_t size_bytes)
{
	for (size_t i = 0; i < size_bytes; i++)
		h = (h ^ ((const uint8_t *)data)[i]) * UINT64_C(0x100000001b3);
	return h;
}

static uint64_t belongs_to(const struct lb_session *s)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	h = mix(h, &s->config.machine, sizeof(s->config.machine));
	h = mix(h, &s->config.vault, sizeof(s->config.vault));
	for (unsigned int i = 0; i < s->config.n_disks; i++)
		h = mix(h, &s->config.disks[i].id, sizeof(s->config.disks[i].id));
	return h != 0 ? h : 1;
}

/* What the kernel holds is of these disks, as they are now. */
static bool fits(struct lb_session *s, const struct wanted_disks *w, const char **ret_why)
{
	uint64_t limit;
	bool in_debt;

	lb_capture_info(s->capture, &s->info);
	lb_capture_limit(s->capture, &limit, &in_debt);
	if (in_debt && lb_note(s, LB_NOTE_CHECKING))
		lb_note_set(s, LB_NOTE_SUSPECT, 1);
	lb_note_set(s, LB_NOTE_CHECKING, 1);
	if (s->info.disk_count != w->n)
		return *ret_why = "other disks are protected now", false;
	for (unsigned int i = 0; i < w->n; i++) {
		struct lb_capture_reconciled result;
		struct lb_capture_disk disk;

		if (lb_capture_disk(s->capture, i, &disk) < 0 || strcmp(disk.name, w->names[i]) != 0)
			return *ret_why = "other disks are protected now", false;
		if (disk.size_bytes != w->size_bytes[i])
			return *ret_why = "a disk changed its size", false;
		if (lb_capture_reconcile(s->capture, i, &result) < 0)
			return *ret_why = "a disk can't be compared with the kernel's counters", false;
		if (result.fit == LB_CAPTURE_FIT_GONE || result.fit == LB_CAPTURE_FIT_GROWN)
			return *ret_why = "a disk was replaced or changed its size", false;
		if (result.fit == LB_CAPTURE_FIT_MISSED) {
			lb_note_set(s, LB_NOTE_SUSPECT, 1);
			lb_capture_declare_loss(s->capture, i, 0, 0);
		}
	}
	lb_note_set(s, LB_NOTE_CHECKING, 0);
	if (lb_note(s, LB_NOTE_BELONGS) != 0 && lb_note(s, LB_NOTE_BELONGS) != belongs_to(s))
		return *ret_why = "the machine's identity, vault or disk numbers changed", false;
	return true;
}

static int open_capture(struct lb_session *s, const struct wanted_disks *w)
{
	const struct lb_capture_params params = {
		.disks = w->list,
		.disk_count = w->n,
		.ring_bytes = s->config.policy.ring_bytes,
	};
	const char *why = NULL;
	int r;

	r = lb_capture_open(s->o.capture_socket, &s->capture);
	if (r == 0) {
		if (fits(s, w, &why)) {
			if (s->info.ring_bytes != params.ring_bytes)
				lb_notice("the ring stays at %lu MiB until capture is attached anew; the policy asks "
					  "for %lu MiB",
					  (unsigned long)(s->info.ring_bytes >> 20),
					  (unsigned long)(params.ring_bytes >> 20));
			return 0;
		}
		lb_notice("capture is attached anew: %s", why);
		r = lb_attach_end(s);
		if (r < 0)
			return r;
	}
	r = lb_capture_attach(s->o.capture_socket, &params, &s->capture);
	if (r < 0)
		return r;
	lb_capture_info(s->capture, &s->info);
	return 0;
}

static int open_confirm(struct lb_session *s)
{
	struct lb_confirm_disk disks[LB_CAPTURE_DISKS_MAX];
	int r;

	s->n_disks = s->info.disk_count;
	for (unsigned int i = 0; i < s->n_disks; i++) {
		r = lb_capture_disk(s->capture, i, &s->disks[i]);
		if (r < 0)
			return r;
		s->disk_ids[i] = s->config.disks[i].id;
		disks[i] = (struct lb_confirm_disk){.id = (uint16_t)i, .size_bytes = s->disks[i].size_bytes};
	}
	return lb_confirm_open(s->o.confirm_path, &s->info.instance, disks, s->n_disks, &s->confirm);
}

/* Nothing is attached and nobody answers: the helper isn't there (yet). */
static bool helper_is_away(int error)
{
	return error == -ECONNREFUSED || error == -ENOENT || error == -EPIPE || error == -ECONNRESET ||
	       error == -ETIMEDOUT;
}

int lb_attach(struct lb_session *s)
{
	struct wanted_disks w = {0};
	int r;

	lb_attach_close(s);
	r = find_disks(s, &w);
	if (r < 0)
		return lb_session_refuse(s);
	r = open_capture(s, &w);
	if (r < 0 && helper_is_away(r)) {
		lb_session_turn(s, LB_SESSION_ATTACHING,
				"the capture helper doesn't answer: %s; run `systemctl start lifeboat-capture`",
				lb_err_text());
		lb_session_back_off(s, 0);
		return LB_TURNED;
	}
	if (r < 0)
		return lb_session_refuse(s);
	r = open_confirm(s);
	if (r < 0)
		return lb_session_refuse(s);
	if (s->scan_buffer == NULL &&
	    posix_memalign((void **)&s->scan_buffer, ALIGN_BYTES, LB_SCAN_BUFFER_BYTES) != 0) {
		s->scan_buffer = NULL;
		lb_fail(-ENOMEM, "out of memory for %u MiB of scanned data", LB_SCAN_BUFFER_BYTES >> 20);
		return lb_session_refuse(s);
	}
	lb_note_set(s, LB_NOTE_BELONGS, belongs_to(s));
	lb_notice("%s %u disk(s), ring of %lu MiB", s->info.resumed ? "capture goes on for" : "capture attached to",
		  s->n_disks, (unsigned long)(s->info.ring_bytes >> 20));
	s->backoff_ms = 0;
	s->retry_mono_ns = 0;
	lb_session_turn(s, LB_SESSION_CONNECTING, "%s", "");
	return LB_TURNED;
}
