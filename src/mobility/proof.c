/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/proof.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/proof_word.h"
#include "mobility/double.h"

/* The second one is the fabric's own; a machine without it says it on its console. */
static const char *const ports[] = {"/dev/ttyS1", "/dev/ttyS0", "/dev/console"};

static int read_word(struct lb_env *env, const struct lb_agent_settings *settings, char word[LB_PROOF_TEXT_BYTES])
{
	_cleanup_json_ json_t *object = NULL;
	_cleanup_free_ uint8_t *text = NULL;
	char path[LB_AGENT_TEXT_BYTES];
	size_t size_bytes;
	int r;

	snprintf(path, sizeof(path), "%s/" LB_AGENT_CONFIG_NAME, settings->state_folder);
	r = lb_file_read(env, path, LB_AGENT_CONFIG_BYTES_MAX, &text, &size_bytes);
	r = r < 0 ? r : lb_json_parse(text, size_bytes, LB_AGENT_CONFIG_BYTES_MAX, &object);
	if (r < 0)
		return r;
	if (json_object_get(object, "proof") == NULL)
		return lb_fail(-ENOENT, "the configuration server gave this machine's source no word of proof");
	r = lb_json_get_text(object, "proof", word, LB_PROOF_TEXT_BYTES);
	if (r == 0 && !lb_proof_is_text(word))
		r = lb_fail(-EBADMSG, "%s: \"proof\" is no word of proof", path);
	return r;
}

static bool say(const char *port, const char *line)
{
	/* a port without hardware behind it would wait for ever */
	_cleanup_close_ int fd = open(port, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	return fd >= 0 && write(fd, line, strlen(line)) == (ssize_t)strlen(line);
}

int lb_proof_tell(struct lb_env *env, const struct lb_agent_settings *settings)
{
	char path[LB_AGENT_TEXT_BYTES], word[LB_PROOF_TEXT_BYTES], id[LB_UUID_TEXT_BYTES], line[256];
	struct lb_uuid source;
	bool said = false;
	int r;

	snprintf(path, sizeof(path), "%s/" LB_SMBIOS_COPY_NAME, settings->run_folder);
	r = lb_double_of(env, "", path, &source);
	if (r == -ENODATA)
		return -ENOENT; /* for all that can be known it is none */
	r = r < 0 ? r : read_word(env, settings, word);
	if (r < 0)
		return r;
	lb_uuid_format(&source, id);
	snprintf(line, sizeof(line), "\r\n" LB_PROOF_SAID " %s %s\r\n", id, word);
	for (size_t i = 0; !said && i < sizeof(ports) / sizeof(ports[0]); i++)
		said = say(ports[i], line);
	return said ? 0
		    : lb_fail(-EACCES,
			      "no serial port can be written to: the double can't show what it was started from");
}
