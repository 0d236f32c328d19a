/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine can do: each part is tried for real, not guessed from a version. */
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "capture/bpf_load.h"
#include "capture/calibrate.h"
#include "capture/internal.h"
#include "capture.skel.h"

#define PROBED_DISKS_MAX 256

/* The texts of errors are "reason; cure". */
static int set_reason(json_t *o, const char *text)
{
	char reason[LB_ERR_TEXT_BYTES_MAX];

	snprintf(reason, sizeof(reason), "%s", text);
	char *semicolon = strstr(reason, "; ");
	if (semicolon != NULL)
		*semicolon = '\0';
	int r = lb_json_set_str(o, "reason", reason);
	if (r == 0 && semicolon != NULL)
		r = lb_json_set_str(o, "cure", semicolon + 2);
	return r;
}

static int program_loads(void)
{
	_cleanup_(capture_bpf__destroyp) struct capture_bpf *skel = NULL;
	int r = lb_bpf_check(capture_bpf__open(), (void **)&skel, "the capture program");
	if (r < 0)
		return r;
	if (capture_bpf__load(skel) != 0)
		return lb_bpf_fail("the capture program");
	return 0;
}

static int probe_kernel(json_t *o)
{
	struct lb_direct_map map;
	bool btf = access("/sys/kernel/btf/vmlinux", R_OK) == 0;

	lb_err_clear();
	lb_bpf_quiet();
	bool direct = btf && lb_calibrate(&map) == 0;
	lb_bpf_quiet();
	bool loads = btf && direct && program_loads() == 0;
	int r = lb_json_set_bool(o, "btf", btf);
	if (r == 0)
		r = lb_json_set_bool(o, "bpf", loads);
	if (r == 0)
		r = lb_json_set_bool(o, "ring", loads);
	if (r == 0)
		r = lb_json_set_bool(o, "direct_map", direct);
	if (r == 0)
		r = lb_json_set_bool(o, "can_capture", loads);
	if (r < 0 || loads)
		return r;
	if (geteuid() != 0)
		return set_reason(o,
				  "not tried without privileges; run it as root, or ask the helper lifeboat-capture");
	return set_reason(o, btf ? lb_err_text() : "this kernel has no BTF; boot the distribution's own kernel");
}

static int probe_disk(json_t *list, const char *name)
{
	struct lb_disk_facts f;
	if (lb_disk_facts(name, &f) < 0 || f.size_bytes == 0)
		return 0;
	_cleanup_json_ json_t *o = json_object();
	bool fit = lb_disk_fit(&f) == 0;
	int r = lb_json_set_str(o, "name", f.name);
	if (r == 0)
		r = lb_json_set_u64(o, "size_bytes", f.size_bytes);
	if (r == 0)
		r = lb_json_set_bool(o, "bio_based", f.bio_based);
	if (r == 0)
		r = lb_json_set_bool(o, "fit", fit);
	if (r == 0 && !fit)
		r = set_reason(o, lb_err_text());
	if (r == 0)
		r = lb_json_set_u64(o, "written_bytes", f.written_bytes);
	if (r == 0)
		r = lb_json_set_u64(o, "discarded_bytes", f.discarded_bytes);
	if (r < 0)
		return r;
	return json_array_append(list, o) < 0 ? -ENOMEM : 0;
}

static int probe_disks(json_t *o)
{
	_cleanup_json_ json_t *list = json_array();
	struct dirent *e;
	int r = 0;
	DIR *d = opendir("/sys/block");
	if (d == NULL)
		return lb_fail(-errno, "/sys/block: %s", strerror(errno));
	while (r == 0 && json_array_size(list) < PROBED_DISKS_MAX && (e = readdir(d)) != NULL)
		if (e->d_name[0] != '.')
			r = probe_disk(list, e->d_name);
	closedir(d);
	if (r < 0 || json_object_set(o, "disks", list) < 0)
		return lb_fail(-ENOMEM, "probe: out of memory");
	return 0;
}

int lb_capture_probe_direct(char **ret_json)
{
	_cleanup_json_ json_t *o = json_object();
	int r = probe_kernel(o);
	if (r < 0)
		return r;
	r = probe_disks(o);
	if (r < 0)
		return r;
	return lb_json_dump(o, ret_json);
}
