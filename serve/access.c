/* access.c: see access.h. */
#include "serve/access.h"

#include "core/base/log.h"

#include <stdio.h>
#include <string.h>

enum { WORD_BYTES = 200, LINE_BYTES = 1024 };

/* Text that came from outside as one word: what could end or forge a field becomes '_'. */
static const char *word(const char *text, char made[WORD_BYTES])
{
	size_t used = 0;
	for (; text != NULL && text[used] != '\0' && used + 1 < WORD_BYTES; used++)
		made[used] = text[used];
	made[used] = '\0';
	for (char *c = made; *c != '\0'; c++)
		if (*c <= ' ' || *c > '~' || *c == '"' || *c == '=')
			*c = '_';
	return used > 0 ? made : "-";
}

void access_log(const struct request *request, size_t bytes_out, int64_t total_us)
{
	static const char *const stages[] = {
#define X(name, label, help) label,
		STAGE_LIST(X)
#undef X
	};
	char path[WORD_BYTES], id[WORD_BYTES], target[WORD_BYTES], line[LINE_BYTES];
	const struct invocation *invocation = &request->invocation;
	int used = snprintf(line, sizeof line, "access path=%s status=%d id=%s", word(request->path, path), request->reply.status,
		word(request->fields.inference_id, id));
	if (request->fields.target_model != NULL)
		used += snprintf(line + used, sizeof line - (size_t)used, " target=%s", word(request->fields.target_model, target));
	used += snprintf(line + used, sizeof line - (size_t)used, " bytes_in=%zu bytes_out=%zu records=%zu", request->received_bytes, bytes_out,
		invocation->records);
	for (int s = 0; s < STAGE_TOTAL; s++)
		used += snprintf(line + used, sizeof line - (size_t)used, " %s_ms=%.3f", stages[s], (double)invocation->stage_us[s] / 1e3);
	snprintf(line + used, sizeof line - (size_t)used, " total_ms=%.3f", (double)total_us / 1e3);
	log_info("%s", line);
}
