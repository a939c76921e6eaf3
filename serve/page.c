/* page.c: see page.h. */
#include "serve/page.h"

#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/version.h"
#include "core/format/base64.h"
#include "serve/invoke.h"
#include "serve/png.h"

#include <math.h>
#include <stdlib.h>

enum { PREDICTIONS_MAX = 5 };

/* The page itself lies in the program. The Makefile knows that this object depends on it. */
__asm__(".section .rodata\n"
	"page_html:\n"
	".incbin \"serve/page/page.html\"\n"
	"page_html_end:\n"
	".previous\n");
extern const char page_html[] __attribute__((visibility("hidden")));
extern const char page_html_end[] __attribute__((visibility("hidden")));

enum turn page_begin(struct request *request)
{
	reply_text(request, HTTP_OK, "text/html; charset=utf-8");
	request->reply.constant = page_html;
	request->reply.constant_bytes = (size_t)(page_html_end - page_html);
	return TURN_REPLY;
}

/* The model's card is JSON already; while there is none, null. */
static enum status status_text_write(const struct server *server, struct model *model, struct text *text)
{
	struct recent recent = metrics_recent(&server->metrics);
	struct text figures = {0};
	struct json_writer json = {.text = &figures};
	json_write_object(&json, NULL);
	json_write_string(&json, "state", state_word(state_get(&server->state)));
	json_write_string(&json, "reason", state_get(&server->state) == STATE_FAILED ? server->state.reason : NULL);
	json_write_string(&json, "version", smelt_version());
	json_write_number(&json, "uptime_seconds", recent.uptime_s);
	json_write_number(&json, "requests_per_second", recent.requests_per_s);
	json_write_object(&json, "batch");
	json_write_number(&json, "images_per_second", recent.images_per_s);
	json_write_number(&json, "images_per_batch", recent.batch_images_mean);
	json_write_integer(&json, "images_waiting", atomic_load(&server->metrics.gauges[GAUGE_QUEUE]));
	json_write_end(&json);
	json_write_object(&json, "latency_ms");
	json_write_number(&json, "p50", recent.latency_ms_p50);
	json_write_number(&json, "p90", recent.latency_ms_p90);
	json_write_number(&json, "p99", recent.latency_ms_p99);
	json_write_end(&json);
	json_write_integer(&json, "resident_bytes", (int64_t)metrics_resident_bytes());
	enum status status = json_write_end_all(&json);
	if (status == ST_OK) /* the card goes in front of the other members */
		status = text_printf(text, "{\"model\": %s, %s", model != NULL ? model->card : "null", text_string(&figures) + 1);
	text_free(&figures);
	return status;
}

enum turn page_status_begin(struct request *request)
{
	struct server *server = request->server;
	struct model *model = NULL;
	if (models_acquire(server->models, MODELS_ONLY, &model) != HTTP_OK)
		model = NULL;
	enum status status = status_text_write(server, model, &request->reply.text);
	if (model != NULL)
		models_release(server->models, model);
	if (status == ST_OK)
		reply_text(request, HTTP_OK, "application/json");
	else
		reply_refusal(request, HTTP_INTERNAL);
	return TURN_REPLY;
}

/* --- classify ---------------------------------------------------------------------------------------------------------- */

/* What the network saw, back as pixels: (3, S, S) normalised planes → S × S × RGB → PNG → base64. */
static enum status crop_text(const struct decode_rules *rules, const float *image, struct text *text)
{
	size_t size = (size_t)rules->image_size, plane = size * size;
	struct text png = {0};
	uint8_t *pixels = malloc(3 * plane);
	enum status status = ST_OK;
	if (pixels == NULL)
		return FAIL(ST_MEMORY, "no memory for the picture");
	for (size_t c = 0; c < 3; c++)
		for (size_t i = 0; i < plane; i++) {
			float level = (image[c * plane + i] * rules->normalization.std[c] + rules->normalization.mean[c]) * 255.0f;
			pixels[3 * i + c] = (uint8_t)lrintf(fminf(fmaxf(level, 0.0f), 255.0f));
		}
	TRY_DONE(png_write(pixels, (unsigned)size, (unsigned)size, &png));
	TRY_DONE(base64_encode(png.data, png.length, text));
done:
	free(pixels);
	text_free(&png);
	return status;
}

/* The largest first, with their probabilities (softmax in double). */
static void predictions_write(struct json_writer *json, const struct encode_rules *rules, float *logits)
{
	double sum = 0, most = (double)logits[0];
	for (int k = 1; k < rules->classes; k++)
		most = fmax(most, (double)logits[k]);
	for (int k = 0; k < rules->classes; k++)
		sum += exp((double)logits[k] - most);
	json_write_array(json, "predictions");
	for (int n = 0; n < PREDICTIONS_MAX && n < rules->classes; n++) {
		int best = 0;
		for (int k = 1; k < rules->classes; k++)
			if (logits[k] > logits[best])
				best = k;
		json_write_object(json, NULL);
		json_write_string(json, "label", rules->class_names[best]);
		json_write_integer(json, "index", best);
		json_write_number(json, "probability", exp((double)logits[best] - most) / sum);
		json_write_end(json);
		logits[best] = -INFINITY; /* not again */
	}
	json_write_end(json);
}

void page_classify_finish(struct request *request)
{
	struct invocation *invocation = &request->invocation;
	struct text crop = {0};
	struct json_writer json = {.text = &request->reply.text};
	if (request->reply.status != 0)
		goto done;
	if (crop_text(&invocation->decode, invocation->decoded.images, &crop) != ST_OK) {
		reply_refusal(request, HTTP_INTERNAL);
		goto done;
	}
	json_write_object(&json, NULL);
	json_write_string(&json, "crop", text_string(&crop));
	predictions_write(&json, &invocation->encode, invocation->logits);
	json_write_number(&json, "ms", (double)(clock_us() - request->head_us) / 1e3);
	if (json_write_end_all(&json) == ST_OK)
		reply_text(request, HTTP_OK, "application/json");
	else
		reply_refusal(request, HTTP_INTERNAL);
done:
	text_free(&crop);
	invoke_free(request);
}
