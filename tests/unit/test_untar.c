/* SPDX-License-Identifier: Apache-2.0 */
/* Archives made by tar itself, and such as no tar makes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/err.h"
#include "files/untar.h"

#define BLOCK 512

struct place {
	char folder[64];
	int out_fd;
	struct lb_restore restore;
};

static void shell(const struct place *p, const char *script)
{
	char command[4096];

	snprintf(command, sizeof(command), "cd %s && %s", p->folder, script);
	assert_int_equal(system(command), 0);
}

static void place_new(struct place *p)
{
	char path[128];

	*p = (struct place){.folder = "/tmp/lb-untar.XXXXXX"};
	assert_non_null(mkdtemp(p->folder));
	shell(p, "mkdir tree out");
	snprintf(path, sizeof(path), "%s/out", p->folder);
	p->out_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(p->out_fd >= 0);
}

static void place_end(struct place *p)
{
	close(p->out_fd);
	shell(p, "chmod -R u+rwx . && cd /tmp && rm -r \"$OLDPWD\"");
}

/* Feeds in pieces of changing sizes. */
static int unpack(struct place *p, const uint8_t *data, size_t size_bytes)
{
	_cleanup_(lb_untar_freep) struct lb_untar *t = NULL;
	size_t step = 1;
	int r;

	r = lb_untar_new(p->out_fd, "tree", &p->restore, &t);
	for (size_t at = 0; r == 0 && at < size_bytes; at += step) {
		step = LB_MIN(size_bytes - at, 1 + at * 7 % 3001);
		r = lb_untar_feed(t, data + at, step);
	}
	return r == 0 ? lb_untar_end(t) : r;
}

static int unpack_file(struct place *p, const char *name)
{
	static uint8_t data[8 << 20];
	char path[128];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", p->folder, name);
	f = fopen(path, "re");
	assert_non_null(f);
	n = fread(data, 1, sizeof(data), f);
	fclose(f);
	return unpack(p, data, n);
}

static void what_tar_packs_in_any_of_its_formats_comes_back_as_it_was(void **state)
{
	static const char *const formats[] = {"gnu", "pax", "ustar"};

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(formats); i++) {
		char command[256];
		struct place p;

		place_new(&p);
		shell(&p, "mkdir -p tree/a/b tree/empty && echo hello > tree/a/hello && : > tree/nothing && "
			  "head -c 1000003 /dev/urandom > tree/a/b/big && ln -s ../hello tree/a/b/link && "
			  "printf odd > \"tree/a new\nline\" && truncate -s 3M tree/sparse && "
			  "chmod 640 tree/a/hello && chmod 500 tree/a/b && touch -d @1000000000 tree/a/hello tree/a");
		if (strcmp(formats[i], "ustar") != 0)
			shell(&p, "d=tree; for i in 1 2 3 4; do "
				  "d=$d/a-folder-whose-name-is-long-enough-that-it-does-not-fit-into-a-header-$i; "
				  "done; mkdir -p $d && echo deep > $d/file && ln -s ../$(basename $d)/../$(basename "
				  "$d)/../x$(basename $d)/file $d/link");
		snprintf(command, sizeof(command), "tar --format=%s -cf tar -C tree .", formats[i]);
		shell(&p, command);
		assert_int_equal(unpack_file(&p, "tar"), 0);
		assert_int_equal(p.restore.left_out, 0);
		shell(&p, "diff -r --no-dereference tree out/tree");
		shell(&p,
		      "list() { (cd $1 && find . -printf '%p %m %T@ %l\\n' | sed 's/[.][0-9]\\{10\\} / /' | sort); }; "
		      "list tree > a && list out/tree > b && diff a b");
		shell(&p, "test $(stat -c %b out/tree/sparse) -lt 100"); /* holes are holes */
		place_end(&p);
	}
}

static void hard_links_are_hard_links_and_devices_are_left_out(void **state)
{
	struct place p;

	(void)state;
	place_new(&p);
	shell(&p, "echo x > tree/one && ln tree/one tree/two && mkfifo tree/pipe && chmod 4755 tree/one && tar cf tar "
		  "-C tree .");
	assert_int_equal(unpack_file(&p, "tar"), 0);
	assert_int_equal(p.restore.left_out, 1);
	shell(&p,
	      "test out/tree/one -ef out/tree/two && test ! -e out/tree/pipe && test $(stat -c %a out/tree/one) = 755");
	place_end(&p);
}

static void nothing_is_overwritten_without_force(void **state)
{
	struct place p;

	(void)state;
	place_new(&p);
	shell(&p, "echo new > tree/file && ln -s new tree/link && tar cf tar -C tree . && mkdir out/tree && echo old > "
		  "out/tree/file");
	assert_int_equal(unpack_file(&p, "tar"), -EEXIST);
	shell(&p, "test $(cat out/tree/file) = old");
	p.restore.force = true;
	assert_int_equal(unpack_file(&p, "tar"), 0);
	shell(&p, "test $(cat out/tree/file) = new && test $(readlink out/tree/link) = new");
	place_end(&p);
}

static void an_archive_that_is_cut_short_is_named(void **state)
{
	struct place p;

	(void)state;
	place_new(&p);
	shell(&p, "head -c 5000 /dev/urandom > tree/file && tar cf whole -C tree . && head -c 3000 whole > tar");
	assert_int_equal(unpack_file(&p, "tar"), -EBADMSG);
	shell(&p, "test ! -e out/tree/file"); /* whole or not at all */
	place_end(&p);
}

/* ---- what no tar makes ---- */

static size_t entry(uint8_t *to, const char *name, char type, const char *target, const char *data)
{
	uint64_t sum = 0;
	size_t n = strlen(data);

	memset(to, 0, 2 * BLOCK);
	snprintf((char *)to, 100, "%s", name);
	snprintf((char *)to + 100, 8, "%07o", 0644);
	snprintf((char *)to + 108, 8, "%07o", 0);
	snprintf((char *)to + 116, 8, "%07o", 0);
	snprintf((char *)to + 124, 12, "%011o", (unsigned int)n & 0777);
	snprintf((char *)to + 136, 12, "%011o", 1);
	to[156] = (uint8_t)type;
	snprintf((char *)to + 157, 100, "%s", target);
	memcpy(to + 257, "ustar", 6);
	memset(to + 148, ' ', 8);
	for (size_t i = 0; i < BLOCK; i++)
		sum += to[i];
	snprintf((char *)to + 148, 8, "%06o", (unsigned int)sum & 0777777);
	memcpy(to + BLOCK, data, n);
	return n > 0 ? 2 * BLOCK : BLOCK;
}

static void nothing_hostile_reaches_outside_its_folder(void **state)
{
	static const struct {
		const char *name, *target;
		char type;
	} hostile[] = {
		{"../escape", "", '0'}, {"a/../../escape", "", '0'}, {"/../escape", "", '5'},   {"way/escape", "", '0'},
		{"..", "", '5'},        {"hard", "way/secret", '1'}, {"hard", "../secret", '1'}};

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(hostile); i++) {
		uint8_t data[16 * BLOCK] = {0};
		struct place p;
		size_t n;

		place_new(&p);
		shell(&p, "mkdir outside && echo secret > outside/secret && echo secret > secret");
		n = entry(data, "./", '5', "", "");
		n += entry(data + n, "way", '2', "../../outside", "");
		n += entry(data + n, hostile[i].name, hostile[i].type, hostile[i].target,
			   hostile[i].type == '0' ? "x" : "");
		assert_true(unpack(&p, data, n + 2 * BLOCK) < 0);
		shell(&p, "test ! -e escape && test ! -e outside/escape && test ! -e out/escape && test ! -e "
			  "out/tree/hard");
		place_end(&p);
	}
}

static void damaged_headers_are_refused(void **state)
{
	uint8_t good[4 * BLOCK] = {0};
	size_t n = entry(good, "file", '0', "", "data");

	(void)state;
	for (size_t at = 0; at < BLOCK; at += 3) {
		uint8_t bad[4 * BLOCK];
		struct place p;

		memcpy(bad, good, sizeof(bad));
		bad[at] ^= 0x11;
		place_new(&p);
		assert_int_equal(unpack(&p, bad, n + 2 * BLOCK), -EBADMSG);
		place_end(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_tar_packs_in_any_of_its_formats_comes_back_as_it_was),
		cmocka_unit_test(hard_links_are_hard_links_and_devices_are_left_out),
		cmocka_unit_test(nothing_is_overwritten_without_force),
		cmocka_unit_test(an_archive_that_is_cut_short_is_named),
		cmocka_unit_test(nothing_hostile_reaches_outside_its_folder),
		cmocka_unit_test(damaged_headers_are_refused),
	};

	return cmocka_run_group_tests_name("untar", tests, NULL, NULL);
}
