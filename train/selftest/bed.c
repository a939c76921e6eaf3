/* bed.c: see bed.h. */
#include "train/selftest/bed.h"

#include "core/base/random.h"

#include <stdlib.h>

enum { SIZE = 32, CLASSES = 100, KINDS = 6 };

static struct sample sample_make(uint32_t i, uint32_t count)
{
	struct sample sample = {.image.index = i, .partner.index = (i + 1) % count, .weight = 1};
	switch (i % KINDS) {
	case 1:
		sample.image.flip = true;
		sample.image.shift_x = -3;
		sample.image.shift_y = 4;
		break;
	case 2:
		sample.image.rotation_radians = 0.3f;
		break;
	case 3:
		sample.image.erase_x = sample.image.erase_y = 5;
		sample.image.erase_width = sample.image.erase_height = 9;
		break;
	case 4:
		sample.weight = 0.7f;
		sample.partner.flip = true;
		break;
	case 5:
		sample.weight = 0.75f;
		sample.cut_x = sample.cut_y = 8;
		sample.cut_width = sample.cut_height = SIZE / 2;
		break;
	}
	return sample;
}

enum status bed_open(struct bed *bed, enum stem stem, size_t images, uint64_t seed)
{
	const size_t pixels = images * 3 * SIZE * SIZE;
	struct random_stream stream = random_open(seed, RANDOM_TEST, 0, 0);
	*bed = (struct bed){.pixels = malloc(pixels), .labels = calloc(images, sizeof *bed->labels), .samples = calloc(images, sizeof *bed->samples)};
	if (bed->pixels == NULL || bed->labels == NULL || bed->samples == NULL)
		return FAIL(ST_MEMORY, "no memory for %zu images of a self-test", images);
	TRY(network_build(&bed->network, stem, SIZE, CLASSES));
	params_layout_build(&bed->layout, &bed->network);
	TRY(params_alloc(&bed->start.params, &bed->layout));
	params_init(&bed->start.params, &bed->network, &bed->layout, seed, false);
	/* Not as they begin, where a norm's constants are 1 and 0 and would hide a mistake. */
	for (int i = 0; i < bed->layout.count; i++) {
		const struct param *param = &bed->layout.all[i];
		float *data = params_data(&bed->start.params, param);
		for (size_t j = 0; (param->kind == PARAM_NORM_WEIGHT || param->kind == PARAM_NORM_BIAS) && j < param->count; j++)
			data[j] += (float)random_unit(&stream) - 0.5f;
	}
	for (size_t i = 0; i < pixels; i++)
		bed->pixels[i] = (uint8_t)random_u32(&stream);
	for (size_t i = 0; i < images; i++) {
		bed->labels[i] = (uint16_t)random_below(&stream, CLASSES);
		bed->samples[i] = sample_make((uint32_t)i, (uint32_t)images);
	}
	bed->images = (struct images){bed->pixels, bed->labels, images, SIZE};
	return ST_OK;
}

void bed_close(struct bed *bed)
{
	params_free(&bed->start.params);
	free(bed->samples);
	free(bed->labels);
	free(bed->pixels);
}

enum status bed_machine(const struct bed *bed, const struct tested *tested, const struct backend *backend, enum precision precision, int batch_max,
	bool deterministic, const struct reduction *reduction, struct machine *machine)
{
	const struct backend_config config = {
		.network = &bed->network,
		.layout = &bed->layout,
		.batch_max = batch_max,
		.normalization = normalization_cifar100,
		.padding = PADDING_REFLECT,
		.threads = tested->threads,
		.reduction = reduction,
		.training = true,
		.norm_momentum = 0.1,
		.device = tested->place.rank,
		.precision = backend == tested->cuda ? precision : PRECISION_AUTO,
		.deterministic = deterministic,
	};
	struct machine made = {.backend = backend, .network = &bed->network, .shared = reduction != NULL};
	TRY(backend->open(&config, &made.state));
	enum status status = backend->state_write(made.state, &bed->start);
	if (status != ST_OK) {
		backend->close(made.state);
		return status;
	}
	*machine = made;
	return ST_OK;
}

void machine_close(struct machine *machine)
{
	if (machine->state != NULL)
		machine->backend->close(machine->state);
	machine->state = NULL;
}

const char *precision_name(enum precision precision)
{
	static const char *const names[] = {[PRECISION_AUTO] = "auto", [PRECISION_FP32] = "fp32", [PRECISION_TF32] = "tf32", [PRECISION_BF16] = "bf16",
		[PRECISION_FP16] = "fp16"};
	return names[precision];
}
