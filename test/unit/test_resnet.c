/* test_resnet.c: the table is torchvision's resnet34.
 *
 * Goal: shapes, wiring, names and their order, numbers of parameters, multiply-accumulates all and live, and the refusals. Method:
 * facts of the real state dict (counts by stage; names in order from the golden file that PyTorch wrote), the definition of a
 * convolution counted tap by tap, and known sizes. */
#include "test/golden/golden.h"

#include "core/base/text.h"

static void network_of(struct network *network, struct params_layout *layout, enum stem stem, int size, int classes)
{
	OK(network_build(network, stem, size, classes));
	params_layout_build(layout, network);
}

/* Floats of the trainable tensors whose names start with `prefix`. */
static size_t trainable_count(const struct params_layout *layout, const char *prefix)
{
	size_t count = 0;
	for (int i = 0; i < layout->count; i++)
		if (!param_is_buffer(&layout->all[i]) && strncmp(layout->all[i].name, prefix, strlen(prefix)) == 0)
			count += layout->all[i].count;
	return count;
}

static void test_counts(void **state)
{
	(void)state;
	struct network network;
	static struct params_layout layout;
	network_of(&network, &layout, STEM_IMAGENET, 32, 100);
	assert_int_equal(layout.count + RESNET_UNITS, 218); /* a state dict also has a counter for each norm */
	assert_int_equal(layout.weights_count, 21335972);
	assert_int_equal(layout.buffers_count, 17024);
	static const struct {
		const char *prefix;
		size_t count;
	} stages[] = {{"conv1.", 9408}, {"bn1.", 128}, {"layer1.", 221952}, {"layer2.", 1116416}, {"layer3.", 6822400}, {"layer4.", 13114368}, {"fc.", 51300}};
	for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++)
		assert_int_equal(trainable_count(&layout, stages[i].prefix), stages[i].count);
	network_of(&network, &layout, STEM_IMAGENET, 224, 1000);
	assert_int_equal(layout.weights_count, 21797672);
	network_of(&network, &layout, STEM_CIFAR, 32, 100);
	assert_int_equal(layout.weights_count, 21335972 - 64 * 3 * (49 - 9));
}

/* The golden file has a line for each tensor of PyTorch's state dict (but the counters), in its order. */
static void names_compare(const char *path, enum stem stem, int size, int classes)
{
	struct network network;
	static struct params_layout layout;
	network_of(&network, &layout, stem, size, classes);
	struct golden golden = golden_open(path);
	int index = 0;
	for (const char *line = golden.text; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, "trained.", 8) != 0)
			continue;
		assert_true(index < layout.count);
		const char *name = line + 8, *wanted = layout.all[index].name;
		if (strncmp(name, wanted, strlen(wanted)) != 0 || name[strlen(wanted)] != ' ')
			fail_msg("tensor %d is %s, PyTorch has %.40s", index, wanted, name);
		assert_int_equal(params_find(&layout, wanted), index);
		index++;
	}
	assert_int_equal(index, layout.count);
	golden_close(&golden);
}

static void test_names_in_order(void **state)
{
	(void)state;
	names_compare("test/golden/resnet34_imagenet_32.txt", STEM_IMAGENET, 32, 100);
	names_compare("test/golden/resnet34_cifar_16.txt", STEM_CIFAR, 16, 10);
}

static const struct unit *unit_named(const struct network *network, const char *convolution)
{
	for (int u = 0; u < RESNET_UNITS; u++)
		if (strcmp(network->units[u].convolution, convolution) == 0)
			return &network->units[u];
	fail_msg("no unit %s", convolution);
	return NULL;
}

static void unit_expect(const struct network *network, const char *convolution, int C, int H, int K, int P, int R, int stride, int padding)
{
	const struct unit *unit = unit_named(network, convolution);
	const int got[] = {unit->C, unit->H, unit->W, unit->K, unit->P, unit->Q, unit->R, unit->S, unit->stride, unit->padding};
	const int want[] = {C, H, H, K, P, P, R, R, stride, padding};
	for (size_t i = 0; i < sizeof got / sizeof got[0]; i++)
		if (got[i] != want[i])
			fail_msg("%s: number %zu of C H W K P Q R S stride padding is %d, expected %d", convolution, i, got[i], want[i]);
}

static void test_shapes(void **state)
{
	(void)state;
	struct network network;
	OK(network_build(&network, STEM_IMAGENET, 32, 100));
	unit_expect(&network, "conv1", 3, 32, 64, 16, 7, 2, 3);
	unit_expect(&network, "layer1.0.conv1", 64, 8, 64, 8, 3, 1, 1);
	unit_expect(&network, "layer2.0.conv1", 64, 8, 128, 4, 3, 2, 1);
	unit_expect(&network, "layer2.0.conv2", 128, 4, 128, 4, 3, 1, 1);
	unit_expect(&network, "layer2.0.downsample.0", 64, 8, 128, 4, 1, 2, 0);
	unit_expect(&network, "layer3.5.conv2", 256, 2, 256, 2, 3, 1, 1);
	unit_expect(&network, "layer4.0.conv1", 256, 2, 512, 1, 3, 2, 1);
	unit_expect(&network, "layer4.2.conv2", 512, 1, 512, 1, 3, 1, 1);
	assert_true(network.pool.present);
	assert_int_equal(network.pool.P, 8);
	assert_int_equal(network.head.C, 512);
	assert_int_equal(network.head.H, 1);
	OK(network_build(&network, STEM_CIFAR, 32, 100));
	unit_expect(&network, "conv1", 3, 32, 64, 32, 3, 1, 1);
	unit_expect(&network, "layer4.2.conv2", 512, 4, 512, 4, 3, 1, 1);
	assert_false(network.pool.present);
	OK(network_build(&network, STEM_IMAGENET, 33, 10)); /* odd maps: 17 9 5 3 2 */
	unit_expect(&network, "conv1", 3, 33, 64, 17, 7, 2, 3);
	unit_expect(&network, "layer4.0.downsample.0", 256, 3, 512, 2, 1, 2, 0);
}

/* Every unit reads a tensor that was made before it, of the shape that it says; every tensor is read; shortcuts fit. */
static void test_wiring(void **state)
{
	(void)state;
	for (int stem = 0; stem < 2; stem++) {
		struct network network;
		bool made[RESNET_TENSORS] = {true}, read[RESNET_TENSORS] = {false};
		int shortcuts = 0, linear = 0;
		OK(network_build(&network, (enum stem)stem, 32, 100));
		for (int u = 0; u < RESNET_UNITS; u++) {
			const struct unit *unit = &network.units[u];
			const struct tensor_shape *x = &network.tensors[unit->x], *y = &network.tensors[unit->y];
			assert_true(made[unit->x]);
			assert_false(made[unit->y]);
			made[unit->y] = read[unit->x] = true;
			assert_true(x->C == unit->C && x->H == unit->H && x->W == unit->W);
			assert_true(y->C == unit->K && y->H == unit->P && y->W == unit->Q);
			linear += !unit->relu;
			if (unit->shortcut >= 0) {
				const struct tensor_shape *shortcut = &network.tensors[unit->shortcut];
				assert_true(made[unit->shortcut] && unit->relu);
				read[unit->shortcut] = true;
				assert_true(shortcut->C == unit->K && shortcut->H == unit->P && shortcut->W == unit->Q);
				shortcuts++;
			}
			if (u == 0 && network.pool.present) {
				assert_int_equal(network.pool.x, unit->y);
				made[network.pool.y] = read[network.pool.x] = true;
			}
		}
		read[network.head.x] = true;
		assert_int_equal(shortcuts, 16);
		assert_int_equal(linear, 3);
		for (int t = 0; t < network.tensors_count; t++)
			assert_true(made[t] && read[t]);
	}
}

/* Products of one image, counted one by one as the definition of a convolution has them. */
static int64_t products_count(const struct unit *unit)
{
	int64_t products = 0;
	for (int p = 0; p < unit->P; p++)
		for (int q = 0; q < unit->Q; q++)
			for (int r = 0; r < unit->R; r++)
				for (int s = 0; s < unit->S; s++) {
					int h = p * unit->stride + r - unit->padding, w = q * unit->stride + s - unit->padding;
					products += h >= 0 && h < unit->H && w >= 0 && w < unit->W;
				}
	return products * unit->C * unit->K;
}

static void test_macs(void **state)
{
	(void)state;
	struct network network;
	int64_t all = 0, live = 0;
	OK(network_build(&network, STEM_IMAGENET, 32, 100));
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network.units[u];
		assert_int_equal(unit_macs_live(unit), products_count(unit));
		all += unit_macs(unit);
		live += unit_macs_live(unit);
	}
	int64_t head = (int64_t)network.head.C * network.head.classes;
	assert_int_equal((all + head + 50000) / 100000, 748);  /* 74.8 million */
	assert_int_equal((live + head + 50000) / 100000, 411); /* 41.1 million */
	/* In a 1x1 map only the centre of a 3x3 kernel meets a pixel; the first unit there reads a 2x2 map through four taps. */
	const struct unit *last = unit_named(&network, "layer4.2.conv2"), *first = unit_named(&network, "layer4.0.conv1");
	assert_int_equal(unit_taps_live(last), 1);
	assert_int_equal(unit_tap_uses(last, 1, 1), 1);
	assert_int_equal(unit_tap_uses(last, 0, 1), 0);
	assert_int_equal(unit_taps_live(first), 4);
}

static void test_refusals(void **state)
{
	(void)state;
	struct network network = {.image_size = 77};
	enum stem stem = STEM_CIFAR;
	assert_int_equal(network_build(&network, STEM_CIFAR, 32, 1), ST_SETTINGS);
	assert_int_equal(network_build(&network, STEM_CIFAR, 32, 65536), ST_SETTINGS);
	assert_int_equal(network_build(&network, STEM_CIFAR, 7, 10), ST_SETTINGS);
	assert_int_equal(network_build(&network, STEM_CIFAR, 513, 10), ST_SETTINGS);
	assert_int_equal(network.image_size, 77);
	assert_int_equal(stem_parse("vgg", &stem), ST_SETTINGS);
	assert_int_equal(stem, STEM_CIFAR);
	OK(stem_parse("imagenet", &stem));
	assert_int_equal(stem, STEM_IMAGENET);
	OK(stem_parse(stem_name(STEM_CIFAR), &stem));
	assert_int_equal(stem, STEM_CIFAR);
	for (int size = RESNET_IMAGE_SIZE_MIN; size < 40; size++)
		for (int i = 0; i < 2; i++)
			OK(network_build(&network, (enum stem)i, size, 2));
}

static void test_summary(void **state)
{
	(void)state;
	struct network network;
	struct text text = {0};
	OK(network_build(&network, STEM_IMAGENET, 32, 100));
	OK(network_summary(&network, &text));
	assert_non_null(strstr(text_string(&text), "21335972"));
	assert_non_null(strstr(text_string(&text), "layer3.5.conv2"));
	assert_non_null(strstr(text_string(&text), "maxpool"));
	text_free(&text);
	struct text full = {.length_max = 100};
	assert_int_equal(network_summary(&network, &full), ST_MEMORY);
	text_free(&full);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_names_in_order),
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_wiring),
		cmocka_unit_test(test_macs),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_summary),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
