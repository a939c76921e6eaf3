/* Goal: a unit's graphs say what the unit is. Method: every convolution of both stems, at several image sizes, is computed twice in whole numbers: as
 * the network table says, with all taps, and as unit_convolution says, on the same bytes with live taps alone; outputs are equal. The graphs' tensors
 * and what is bound to them are held against the list of operands in graph.h. */
#include "core/backend/cuda/unit_graphs.h"
#include "test/unit/readme_section.h"
#include "test/unit/scratch.h"

enum { CHANNELS = 3, FILTERS = 2 }; /* per unit here: the geometry is what is tested */

static int64_t value(uint32_t index)
{
	return (int64_t)(index * 2654435761u >> 24) - 128;
}

/* All taps: x is (H, W, C), the filter (K, R, S, C). */
static int64_t output_by_table(const struct unit *u, int k, int p, int q)
{
	int64_t sum = 0;
	for (int r = 0; r < u->R; r++)
		for (int s = 0; s < u->S; s++) {
			int h = p * u->stride - u->padding + r, w = q * u->stride - u->padding + s;
			for (int c = 0; c < u->C && h >= 0 && h < u->H && w >= 0 && w < u->W; c++)
				sum += value((uint32_t)((h * u->W + w) * u->C + c)) * value((uint32_t)(((k * u->R + r) * u->S + s) * u->C + c) + 77777);
		}
	return sum;
}

/* The same filter as it lies on the device: live taps one after the other, then read as `c` says. */
static int64_t live_filter_value(const struct unit *u, const struct live *live, size_t index)
{
	const int R = live->r1 - live->r0, S = live->s1 - live->s0;
	int channel = (int)(index % (size_t)u->C), s = (int)(index / (size_t)u->C % (size_t)S), r = (int)(index / (size_t)(u->C * S) % (size_t)R);
	int k = (int)(index / (size_t)(u->C * S * R));
	return value((uint32_t)(((k * u->R + r + live->r0) * u->S + s + live->s0) * u->C + channel) + 77777);
}

static int64_t output_on_device(const struct unit *u, const struct convolution *c, int k, int p, int q)
{
	const struct live live = unit_live(u);
	int64_t sum = 0;
	for (int r = 0; r < c->R; r++)
		for (int s = 0; s < c->S; s++) {
			int h = p * c->stride - c->pad_top + r, w = q * c->stride - c->pad_left + s;
			for (int channel = 0; channel < c->C && h >= 0 && h < c->H && w >= 0 && w < c->W; channel++)
				sum += value((uint32_t)((h * c->W + w) * c->C + channel))
					* live_filter_value(u, &live, (size_t)(((k * c->R + r) * c->S + s) * c->C + channel));
		}
	return sum;
}

static void unit_compare(const struct unit *unit)
{
	struct unit small = *unit;
	struct convolution c;
	small.C = CHANNELS + 1; /* 3 would be padded */
	small.K = FILTERS;
	unit_convolution(&small, ELEMENT_FP16, &c);
	if (c.P != unit->P || c.Q != unit->Q || (c.H + c.pad_top + c.pad_bottom - c.R) / c.stride + 1 != c.P || (c.W + c.pad_left + c.pad_right - c.S) / c.stride + 1 != c.Q)
		fail_msg("%s: %d×%d outputs by their sizes, wanted %d×%d", unit->convolution, c.P, c.Q, unit->P, unit->Q);
	assert_true(c.pad_top >= 0 && c.pad_left >= 0);
	for (int k = 0; k < FILTERS; k++)
		for (int p = 0; p < c.P; p++)
			for (int q = 0; q < c.Q; q++) {
				int64_t wanted = output_by_table(&small, k, p, q), found = output_on_device(&small, &c, k, p, q);
				if (wanted != found)
					fail_msg("%s: output %d, (%d, %d) is %lld, wanted %lld", unit->convolution, k, p, q, (long long)found, (long long)wanted);
			}
}

static void test_convolutions_are_exact(void **state)
{
	(void)state;
	static const int sizes[] = {8, 9, 24, 32, 33, 64};
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		for (int stem = STEM_IMAGENET; stem <= STEM_CIFAR; stem++) {
			struct network network;
			OK(network_build(&network, (enum stem)stem, sizes[i], 100));
			for (int u = 0; u < RESNET_UNITS; u++)
				unit_compare(&network.units[u]);
		}
}

static const struct unit *unit_named(const struct network *network, const char *name)
{
	for (int u = 0; u < RESNET_UNITS; u++)
		if (strcmp(network->units[u].convolution, name) == 0)
			return &network->units[u];
	fail_msg("no unit %s", name);
	return NULL;
}

static void test_dead_taps_are_left_out(void **state)
{
	(void)state;
	struct network network;
	struct convolution c;
	OK(network_build(&network, STEM_IMAGENET, 32, 100));
	unit_convolution(unit_named(&network, "layer4.0.conv1"), ELEMENT_FP16, &c);
	assert_int_equal(c.C, 4 * 256);
	assert_int_equal(c.R * c.S * c.H * c.W * c.stride, 1);
	unit_convolution(unit_named(&network, "layer4.0.conv2"), ELEMENT_FP16, &c);
	assert_int_equal(c.C, 512);
	assert_int_equal(c.R * c.S, 1);
	unit_convolution(unit_named(&network, "layer4.0.downsample.0"), ELEMENT_FP16, &c); /* reads one pixel of four */
	assert_int_equal(c.C, 256);
	assert_int_equal(c.H, 2);
	size_t live = 0, all = 0;
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network.units[u];
		unit_convolution(unit, ELEMENT_FP32, &c);
		live += (size_t)c.K * (size_t)(u == 0 ? 3 : c.C) * (size_t)(c.R * c.S);
		all += (size_t)unit->K * (size_t)unit->C * (size_t)(unit->R * unit->S);
	}
	assert_int_equal(all - live, 11141120);
}

static void test_image_channels_are_padded(void **state)
{
	(void)state;
	assert_int_equal(channels_padded(3, ELEMENT_FP32), 4);
	assert_int_equal(channels_padded(3, ELEMENT_FP16), 8);
	assert_int_equal(channels_padded(3, ELEMENT_BF16), 8);
	assert_int_equal(channels_padded(64, ELEMENT_FP16), 64);
}

/* --- graphs ------------------------------------------------------------------------------------------------------------ */

/* A place for each member of unit_memory, all different. */
static char places[6];
static struct unit_memory memory_of_places(void)
{
	return (struct unit_memory){
		.x = &places[0], .w = &places[1], .z = &places[2], .dz = &places[3], .dx = &places[4], .dw = &places[5],
	};
}

struct made {
	struct graph graph;
	struct unit_memory memory;
	void *pointers[GRAPH_TENSORS_MAX];
};

static void made_by(struct made *made, enum unit_work work, const struct unit *unit, enum element element)
{
	made->memory = memory_of_places();
	unit_graph(&made->graph, work, unit, 16, element);
	unit_graph_bind(work, element, &made->memory, made->pointers);
	assert_in_range(made->graph.tensors_count, 1, GRAPH_TENSORS_MAX);
	assert_in_range(made->graph.operations_count, 1, GRAPH_OPERATIONS_MAX);
	for (int i = 0; i < made->graph.tensors_count; i++)
		assert_int_equal(made->pointers[i] == NULL, made->graph.tensors[i].is_virtual);
}

/* Operand `i` of an operation is bound to `place`, and is of `element` and (n or K, C, H, W). */
static void operand_check(const struct made *made, int number, const void *place, enum element element, int64_t a, int64_t b, int64_t c, int64_t d)
{
	const struct graph_tensor *tensor = &made->graph.tensors[number];
	const int64_t dims[4] = {a, b, c, d};
	assert_ptr_equal(made->pointers[number], place);
	assert_int_equal(tensor->element, element);
	assert_memory_equal(tensor->dims, dims, sizeof dims);
}

static void test_convolution_graphs(void **state)
{
	(void)state;
	struct network network;
	struct made made;
	OK(network_build(&network, STEM_CIFAR, 32, 100));
	const struct unit *unit = unit_named(&network, "layer2.0.conv1"); /* 64 → 128, 32×32 → 16×16, 3×3 */
	const enum element half = ELEMENT_FP16;
	const struct graph_operation *first = &made.graph.operations[0], *second = &made.graph.operations[1];

	made_by(&made, UNIT_FORWARD, unit, half);
	assert_int_equal(first->kind, GRAPH_CONVOLUTION);
	operand_check(&made, first->in[0], made.memory.x, half, 16, 64, 32, 32);
	operand_check(&made, first->in[1], made.memory.w, half, 128, 64, 3, 3);
	operand_check(&made, first->out, made.memory.z, half, 16, 128, 16, 16);
	assert_int_equal(first->stride, 2);
	assert_int_equal(first->pad_top + first->pad_left, 2);
	assert_string_equal(made.graph.name, "layer2.0.conv1 forward, 16 images");

	made_by(&made, UNIT_INPUT_GRADIENT, unit, half);
	assert_int_equal(first->kind, GRAPH_CONVOLUTION_DX);
	operand_check(&made, first->in[0], made.memory.dz, half, 16, 128, 16, 16);
	operand_check(&made, first->in[1], made.memory.w, half, 128, 64, 3, 3);
	operand_check(&made, first->out, made.memory.dx, half, 16, 64, 32, 32);

	made_by(&made, UNIT_WEIGHT_GRADIENT, unit, half);
	assert_int_equal(first->kind, GRAPH_CONVOLUTION_DW);
	assert_int_equal(second->kind, GRAPH_IDENTITY);
	operand_check(&made, first->in[0], made.memory.x, half, 16, 64, 32, 32);
	operand_check(&made, first->in[1], made.memory.dz, half, 16, 128, 16, 16);
	operand_check(&made, second->out, made.memory.dw, ELEMENT_FP32, 128, 64, 3, 3);
	assert_int_equal(second->in[0], first->out);

	made_by(&made, UNIT_WEIGHT_GRADIENT_NARROW, unit, half);
	assert_int_equal(made.graph.operations_count, 1);
	operand_check(&made, first->out, made.memory.dw, half, 128, 64, 3, 3);
	made_by(&made, UNIT_WEIGHT_GRADIENT, unit, ELEMENT_FP32);
	assert_int_equal(made.graph.operations_count, 1);
	operand_check(&made, first->out, made.memory.dw, ELEMENT_FP32, 128, 64, 3, 3);
}

/* Units that are alike have the same graph, and only those. */
static void test_alike_units_have_one_graph(void **state)
{
	(void)state;
	static char texts[RESNET_UNITS][4096];
	for (int stem = STEM_IMAGENET; stem <= STEM_CIFAR; stem++)
		for (int work = 0; work < UNIT_WORKS; work++) {
			struct network network;
			OK(network_build(&network, (enum stem)stem, 32, 100));
			for (int u = 0; u < RESNET_UNITS; u++) {
				struct graph graph;
				struct text text = {0};
				unit_graph(&graph, (enum unit_work)work, &network.units[u], 16, ELEMENT_FP16);
				OK(graph_print(&graph, &text));
				assert_true(text.length < sizeof texts[u]);
				strcpy(texts[u], text_string(&text));
				text_free(&text);
				for (int v = 0; v < u; v++)
					if (units_alike(&network.units[u], &network.units[v]) && strcmp(texts[u], texts[v]) != 0)
						fail_msg("work %d: %s and %s are said to be alike", work, network.units[u].convolution, network.units[v].convolution);
			}
		}
}

static void test_which_weight_gradient(void **state)
{
	(void)state;
	assert_int_equal(unit_weight_gradient(ELEMENT_FP16, 70), UNIT_WEIGHT_GRADIENT_NARROW);
	assert_int_equal(unit_weight_gradient(ELEMENT_FP32, 70), UNIT_WEIGHT_GRADIENT);
	assert_int_equal(unit_weight_gradient(ELEMENT_FP16, 75), UNIT_WEIGHT_GRADIENT);
	assert_int_equal(unit_weight_gradient(ELEMENT_BF16, 80), UNIT_WEIGHT_GRADIENT);
}

/* One unit on its way, for the backend's README. */
static void test_the_readme_is_true(void **state)
{
	(void)state;
	static const char *const works[UNIT_WORKS] = {[UNIT_FORWARD] = "UNIT_FORWARD", [UNIT_INPUT_GRADIENT] = "UNIT_INPUT_GRADIENT",
		[UNIT_WEIGHT_GRADIENT] = "UNIT_WEIGHT_GRADIENT", [UNIT_WEIGHT_GRADIENT_NARROW] = "UNIT_WEIGHT_GRADIENT_NARROW"};
	struct network network;
	struct convolution c;
	struct text text = {0};
	OK(network_build(&network, STEM_IMAGENET, 32, 100));
	const struct unit *u = unit_named(&network, "layer4.0.conv1");
	const struct live live = unit_live(u);
	unit_convolution(u, ELEMENT_FP16, &c);
	OK(text_printf(&text, "```\nnetwork->units, resnet.c      %s: x (%d, %d, %d), %d × %d taps, stride %d, padding %d, y (%d, %d, %d)\n", u->convolution, u->C, u->H, u->W,
		u->R, u->S, u->stride, u->padding, u->K, u->P, u->Q));
	OK(text_printf(&text, "unit_live, resnet.c           rows %d to %d and columns %d to %d of the taps ever meet a pixel\n", live.r0, live.r1 - 1, live.s0, live.s1 - 1));
	OK(text_printf(&text, "unit_convolution              the same bytes as x (%d, %d, %d), %d × %d taps, stride %d, padding %d %d %d %d, y (%d, %d, %d)\n", c.C, c.H, c.W, c.R, c.S,
		c.stride, c.pad_top, c.pad_left, c.pad_bottom, c.pad_right, c.K, c.P, c.Q));
	for (int work = 0; work < UNIT_WORKS; work++) {
		struct graph graph;
		unit_graph(&graph, (enum unit_work)work, u, 128, ELEMENT_FP16);
		OK(text_printf(&text, "unit_graph %s: \"%s\"\n", works[work], graph.name));
		OK(graph_print(&graph, &text));
	}
	OK(text_add(&text, "```\n"));
	readme_section_check("core/backend/cuda/README.md", "a unit", "make graphs", text_string(&text));
	text_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_convolutions_are_exact),
		cmocka_unit_test(test_dead_taps_are_left_out),
		cmocka_unit_test(test_image_channels_are_padded),
		cmocka_unit_test(test_convolution_graphs),
		cmocka_unit_test(test_alike_units_have_one_graph),
		cmocka_unit_test(test_which_weight_gradient),
		cmocka_unit_test(test_the_readme_is_true),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
