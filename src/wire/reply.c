/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/reply.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"

unsigned int lb_http_status_of(int error)
{
	switch (error) {
	case -ENOENT:
		return 404;
	case -EEXIST:
	case -ESTALE:
	case -EBUSY:
		return 409;
	case -EACCES:
	case -EPERM:
		return 403;
	case -EINVAL:
	case -EBADMSG:
	case -ERANGE:
		return 400;
	case -EMSGSIZE:
		return 413;
	case -EAGAIN:
		return 429;
	case -ENOSPC:
		return 507;
	default:
		return 500;
	}
}

/* Text that goes out may carry keys: it is wiped when it has been sent. */
struct text {
	size_t size_bytes;
	char data[];
};

static void text_free(void *arg)
{
	struct text *text = arg;

	lb_wipe(text->data, text->size_bytes);
	free(text);
}

static struct MHD_Response *json_response(const json_t *json)
{
	size_t size_bytes = json_dumpb(json, NULL, 0, JSON_COMPACT | JSON_PRESERVE_ORDER);
	struct text *text = size_bytes > 0 ? malloc(sizeof(*text) + size_bytes) : NULL;
	struct MHD_Response *response;

	if (text == NULL)
		return NULL;
	text->size_bytes = json_dumpb(json, text->data, size_bytes, JSON_COMPACT | JSON_PRESERVE_ORDER);
	response =
		MHD_create_response_from_buffer_with_free_callback_cls(text->size_bytes, text->data, text_free, text);
	if (response == NULL)
		text_free(text);
	return response;
}

static struct MHD_Response *bytes_response(struct lb_http_reply *reply)
{
	size_t size_bytes = reply->bytes.size_bytes;
	uint8_t *data = lb_buf_steal(&reply->bytes);
	struct MHD_Response *response;

	if (data == NULL)
		return MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
	response = MHD_create_response_from_buffer(size_bytes, data, MHD_RESPMEM_MUST_FREE);
	if (response == NULL)
		free(data);
	return response;
}

enum MHD_Result lb_reply_send(struct MHD_Connection *connection, struct lb_http_reply *reply)
{
	unsigned int status = reply->status > 0 ? reply->status : 200;
	const char *type = reply->json != NULL ? "application/json" : reply->content_type;
	struct MHD_Response *response = reply->json != NULL ? json_response(reply->json) : bytes_response(reply);
	enum MHD_Result result;
	char seconds[16];

	json_decref(reply->json);
	reply->json = NULL;
	lb_buf_free(&reply->bytes);
	if (response == NULL)
		return MHD_NO;
	if (type != NULL)
		MHD_add_response_header(response, "Content-Type", type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	if (reply->retry_after_s > 0) {
		snprintf(seconds, sizeof(seconds), "%u", reply->retry_after_s);
		MHD_add_response_header(response, "Retry-After", seconds);
	}
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

enum MHD_Result lb_reply_error(struct MHD_Connection *connection, unsigned int status, int error,
			       uint32_t retry_after_s)
{
	const char *code = strerrorname_np(-error);
	struct lb_http_reply reply = {.status = status > 0 ? status : lb_http_status_of(error),
				      .retry_after_s = retry_after_s};
	char message[LB_ERR_TEXT_BYTES_MAX];

	/* whatever a message quotes, JSON takes UTF-8 only */
	snprintf(message, sizeof(message), "%s", lb_err_text());
	for (char *p = message; *p != '\0'; p++)
		if ((unsigned char)*p >= 0x80 || (unsigned char)*p < ' ')
			*p = '?';
	reply.json = json_pack("{s:{s:s,s:s}}", "error", "code", code != NULL ? code : "EIO", "message", message);
	return lb_reply_send(connection, &reply);
}
