/* resnet.c: builds the table and does its arithmetic. See resnet.h. */
#include "core/model/resnet.h"

#include "core/base/text.h"

#include <stdio.h>
#include <string.h>

/* The four stages of ResNet34 (He et al., 2015, table 1): output channels, basic blocks, stride of the first block. */
static const struct {
	int K, blocks, stride;
} stages[] = {{64, 3, 1}, {128, 4, 2}, {256, 6, 2}, {512, 3, 2}};

static const char *const stem_names[] = {[STEM_IMAGENET] = "imagenet", [STEM_CIFAR] = "cifar"};

const char *stem_name(enum stem stem)
{
	return stem_names[stem];
}

enum status stem_parse(const char *name, enum stem *stem)
{
	for (int i = 0; i < 2; i++)
		if (strcmp(name, stem_names[i]) == 0) {
			*stem = (enum stem)i;
			return ST_OK;
		}
	return FAIL(ST_SETTINGS, "stem=%s: not one of imagenet, cifar", name);
}

static int output_size(int input, int kernel, int stride, int padding)
{
	return (input + 2 * padding - kernel) / stride + 1;
}

static int tensor_add(struct network *network, int C, int H, int W)
{
	network->tensors[network->tensors_count] = (struct tensor_shape){C, H, W};
	return network->tensors_count++;
}

/* Appends a unit that reads tensor x and returns its number. */
static int unit_add(struct network *network, int count, int x, int K, int kernel, int stride)
{
	struct tensor_shape in = network->tensors[x];
	struct unit *unit = &network->units[count];
	*unit = (struct unit){.C = in.C, .H = in.H, .W = in.W, .K = K, .R = kernel, .S = kernel, .stride = stride, .padding = kernel / 2,
		.x = x, .shortcut = -1, .relu = true, .file_rank = count};
	unit->P = output_size(in.H, kernel, stride, unit->padding);
	unit->Q = output_size(in.W, kernel, stride, unit->padding);
	unit->y = tensor_add(network, K, unit->P, unit->Q);
	return count;
}

static void unit_name(struct unit *unit, int stage, int block, const char *convolution, const char *norm)
{
	snprintf(unit->convolution, sizeof unit->convolution, "layer%d.%d.%s", stage, block, convolution);
	snprintf(unit->norm, sizeof unit->norm, "layer%d.%d.%s", stage, block, norm);
}

enum status network_build(struct network *network, enum stem stem, int image_size, int classes)
{
	if (classes < 2 || classes > RESNET_CLASSES_MAX)
		return FAIL(ST_SETTINGS, "num_classes=%d: must be 2 to %d", classes, RESNET_CLASSES_MAX);
	if (image_size < RESNET_IMAGE_SIZE_MIN || image_size > RESNET_IMAGE_SIZE_MAX)
		return FAIL(ST_SETTINGS, "image_size=%d: must be %d to %d", image_size, RESNET_IMAGE_SIZE_MIN, RESNET_IMAGE_SIZE_MAX);
	*network = (struct network){.stem = stem, .image_size = image_size};
	int count = 0, x = tensor_add(network, 3, image_size, image_size);

	struct unit *first = &network->units[unit_add(network, count, x, 64, stem == STEM_IMAGENET ? 7 : 3, stem == STEM_IMAGENET ? 2 : 1)];
	snprintf(first->convolution, sizeof first->convolution, "conv1");
	snprintf(first->norm, sizeof first->norm, "bn1");
	count++;
	x = first->y;
	if (stem == STEM_IMAGENET) {
		int P = output_size(first->P, 3, 2, 1), Q = output_size(first->Q, 3, 2, 1);
		int y = tensor_add(network, first->K, P, Q);
		network->pool = (struct stem_pool){.present = true, .C = first->K, .H = first->P, .W = first->Q, .P = P, .Q = Q, .x = x, .y = y};
		x = y;
	}

	for (int stage = 0; stage < 4; stage++)
		for (int block = 0; block < stages[stage].blocks; block++) {
			int stride = block == 0 ? stages[stage].stride : 1, K = stages[stage].K, shortcut = x;
			struct unit *conv1 = &network->units[unit_add(network, count, x, K, 3, stride)];
			unit_name(conv1, stage + 1, block, "conv1", "bn1");
			count++;
			bool projected = stride != 1 || network->tensors[x].C != K;
			if (projected) {
				struct unit *downsample = &network->units[unit_add(network, count, x, K, 1, stride)];
				unit_name(downsample, stage + 1, block, "downsample.0", "downsample.1");
				downsample->relu = false;
				downsample->file_rank = count + 1;
				shortcut = downsample->y;
				count++;
			}
			struct unit *conv2 = &network->units[unit_add(network, count, conv1->y, K, 3, 1)];
			unit_name(conv2, stage + 1, block, "conv2", "bn2");
			conv2->shortcut = shortcut;
			if (projected)
				conv2->file_rank = count - 1;
			count++;
			x = conv2->y;
		}
	MUST(count == RESNET_UNITS);
	struct tensor_shape last = network->tensors[x];
	network->head = (struct head){.C = last.C, .H = last.H, .W = last.W, .x = x, .classes = classes};
	return ST_OK;
}

/* In how many of `outputs` positions kernel offset k falls inside [0, input). */
static int64_t offset_uses(int k, int input, int outputs, int stride, int padding)
{
	int64_t uses = 0;
	for (int p = 0; p < outputs; p++) {
		int h = p * stride - padding + k;
		uses += h >= 0 && h < input;
	}
	return uses;
}

int64_t unit_tap_uses(const struct unit *unit, int r, int s)
{
	return offset_uses(r, unit->H, unit->P, unit->stride, unit->padding) * offset_uses(s, unit->W, unit->Q, unit->stride, unit->padding);
}

int64_t unit_macs(const struct unit *unit)
{
	return (int64_t)unit->K * unit->C * unit->R * unit->S * unit->P * unit->Q;
}

int64_t unit_macs_live(const struct unit *unit)
{
	int64_t uses = 0;
	for (int r = 0; r < unit->R; r++)
		for (int s = 0; s < unit->S; s++)
			uses += unit_tap_uses(unit, r, s);
	return uses * unit->K * unit->C;
}

int unit_taps_live(const struct unit *unit)
{
	int live = 0;
	for (int r = 0; r < unit->R; r++)
		for (int s = 0; s < unit->S; s++)
			live += unit_tap_uses(unit, r, s) > 0;
	return live;
}

enum status network_summary(const struct network *network, struct text *text)
{
	int64_t parameters_all = 0, parameters_live = 0, macs_all = 0, macs_live = 0;
	TRY(text_printf(text, "ResNet34, %s stem, %d classes, images 3x%dx%d\n\n", stem_name(network->stem), network->head.classes,
		network->image_size, network->image_size));
	TRY(text_printf(text, "%-22s %-6s %-14s %-14s %11s %11s %13s %13s\n", "layer", "kernel", "input", "output", "parameters", "live", "MACs", "live MACs"));
	for (int i = 0; i < RESNET_UNITS; i++) {
		const struct unit *u = &network->units[i];
		char kernel[24], input[40], output[40];
		snprintf(kernel, sizeof kernel, "%dx%d/%d", u->R, u->S, u->stride);
		snprintf(input, sizeof input, "%dx%dx%d", u->C, u->H, u->W);
		snprintf(output, sizeof output, "%dx%dx%d", u->K, u->P, u->Q);
		int64_t norm = 2 * (int64_t)u->K, tap = (int64_t)u->K * u->C;
		int64_t all = tap * u->R * u->S + norm, live = tap * unit_taps_live(u) + norm;
		TRY(text_printf(text, "%-22s %-6s %-14s %-14s %11lld %11lld %13lld %13lld\n", u->convolution, kernel, input, output, (long long)all,
			(long long)live, (long long)unit_macs(u), (long long)unit_macs_live(u)));
		parameters_all += all;
		parameters_live += live;
		macs_all += unit_macs(u);
		macs_live += unit_macs_live(u);
		if (i == 0 && network->pool.present) {
			const struct stem_pool *pool = &network->pool;
			snprintf(input, sizeof input, "%dx%dx%d", pool->C, pool->H, pool->W);
			snprintf(output, sizeof output, "%dx%dx%d", pool->C, pool->P, pool->Q);
			TRY(text_printf(text, "%-22s %-6s %-14s %-14s\n", "maxpool", "3x3/2", input, output));
		}
	}
	const struct head *head = &network->head;
	int64_t linear = (int64_t)head->C * head->classes, parameters = linear + head->classes;
	char input[40];
	snprintf(input, sizeof input, "%dx%dx%d", head->C, head->H, head->W);
	TRY(text_printf(text, "%-22s %-6s %-14s %-14d %11lld %11lld %13lld %13lld\n", "avgpool, fc", "", input, head->classes, (long long)parameters,
		(long long)parameters, (long long)linear, (long long)linear));
	TRY(text_printf(text, "%-22s %-6s %-14s %-14s %11lld %11lld %13lld %13lld\n\n", "total", "", "", "", (long long)(parameters_all + parameters),
		(long long)(parameters_live + parameters), (long long)(macs_all + linear), (long long)(macs_live + linear)));
	return text_add(text, "live: without the kernel taps that only ever meet padding at this image size (parameters), and without every\n"
		"single product with padding (MACs, of one image's forward pass).\n");
}
