/* test_params.c: where the tensors lie, and what they start as.
 *
 * Goal: arenas without holes in the order of execution; torchvision's initialisation, the same for the same seed. Method: walk the
 * layout; mean and variance of each tensor against the distribution's, five standard errors allowed (seeds are fixed, so a pass is
 * a pass for ever); exact comparisons for the rest. */
#include "test/golden/golden.h"

struct fixture {
	struct network network;
	struct params_layout layout;
	struct params params, other;
};

static int fixture_open(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	assert_non_null(f);
	OK(network_build(&f->network, STEM_IMAGENET, 32, 100));
	params_layout_build(&f->layout, &f->network);
	OK(params_alloc(&f->params, &f->layout));
	OK(params_alloc(&f->other, &f->layout));
	*state = f;
	return 0;
}

static int fixture_close(void **state)
{
	struct fixture *f = *state;
	params_free(&f->params);
	params_free(&f->other);
	params_free(&f->other); /* an empty one is accepted */
	free(f);
	return 0;
}

static void test_arenas_have_no_holes(void **state)
{
	struct fixture *f = *state;
	size_t weights = 0, buffers = 0;
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct param *all = f->layout.all;
		const struct param *weight = &all[f->layout.unit[u].weight], *gamma = &all[f->layout.unit[u].gamma], *beta = &all[f->layout.unit[u].beta];
		const struct param *mean = &all[f->layout.unit[u].running_mean], *var = &all[f->layout.unit[u].running_var];
		assert_true(weight->unit == u && weight->kind == PARAM_CONVOLUTION && weight->rank == 4 && weight->shape[0] == f->network.units[u].K);
		assert_true(weight->offset == weights && gamma->offset == weights + weight->count && beta->offset == gamma->offset + gamma->count);
		assert_true(mean->offset == buffers && var->offset == buffers + mean->count);
		assert_true(param_is_buffer(mean) && param_is_buffer(var) && !param_is_buffer(beta));
		assert_true(param_decays(weight) && !param_decays(gamma) && !param_decays(beta));
		assert_ptr_equal(params_data(&f->params, gamma), f->params.weights + gamma->offset);
		assert_ptr_equal(params_data(&f->params, var), f->params.buffers + var->offset);
		weights = beta->offset + beta->count;
		buffers = var->offset + var->count;
	}
	const struct param *weight = &f->layout.all[f->layout.head_weight], *bias = &f->layout.all[f->layout.head_bias];
	assert_true(weight->offset == weights && bias->offset == weights + weight->count && bias->unit == -1);
	assert_true(weight->shape[0] == 100 && weight->shape[1] == 512 && param_decays(weight) && !param_decays(bias));
	assert_int_equal(bias->offset + bias->count, f->layout.weights_count);
	assert_int_equal(buffers, f->layout.buffers_count);
	assert_int_equal(params_find(&f->layout, "layer9.0.conv1.weight"), -1);
}

/* Mean and variance of n draws from a distribution with mean 0, this variance and this fourth moment (in variances squared). */
static void draws_check(const char *name, const float *data, size_t n, double variance, double fourth)
{
	double sum = 0, squares = 0;
	for (size_t i = 0; i < n; i++) {
		sum += (double)data[i];
		squares += (double)data[i] * (double)data[i];
	}
	double mean_error = fabs(sum / (double)n) / sqrt(variance / (double)n);
	double variance_error = fabs(squares / (double)n - variance) / (variance * sqrt((fourth - 1) / (double)n));
	if (!(mean_error < 5) || !(variance_error < 5))
		fail_msg("%s: mean off by %.2g standard errors, variance by %.2g", name, mean_error, variance_error);
}

static void test_distributions(void **state)
{
	struct fixture *f = *state;
	params_init(&f->params, &f->network, &f->layout, 42, false);
	for (int i = 0; i < f->layout.count; i++) {
		const struct param *param = &f->layout.all[i];
		const float *data = params_data(&f->params, param);
		double bound = 1 / sqrt(512.0);
		switch (param->kind) {
		case PARAM_CONVOLUTION:
			draws_check(param->name, data, param->count, 2.0 / (double)(param->shape[0] * param->shape[2] * param->shape[3]), 3);
			break;
		case PARAM_HEAD_WEIGHT:
		case PARAM_HEAD_BIAS:
			draws_check(param->name, data, param->count, bound * bound / 3, 1.8);
			for (size_t k = 0; k < param->count; k++)
				assert_true(fabs((double)data[k]) <= (double)(float)bound);
			break;
		case PARAM_NORM_WEIGHT:
		case PARAM_RUNNING_VAR:
			for (size_t k = 0; k < param->count; k++)
				assert_true(data[k] == 1.0f);
			break;
		case PARAM_NORM_BIAS:
		case PARAM_RUNNING_MEAN:
			for (size_t k = 0; k < param->count; k++)
				assert_true(data[k] == 0.0f);
			break;
		}
	}
	assert_int_equal(f->params.batches_tracked, 0);
}

static void test_seed_decides(void **state)
{
	struct fixture *f = *state;
	size_t bytes = f->layout.weights_count * sizeof(float);
	params_init(&f->params, &f->network, &f->layout, 7, false);
	memset(f->other.weights, 0xff, bytes);
	params_init(&f->other, &f->network, &f->layout, 7, false);
	assert_memory_equal(f->params.weights, f->other.weights, bytes);
	params_init(&f->other, &f->network, &f->layout, 8, false);
	size_t same = 0;
	const struct param *weight = &f->layout.all[f->layout.unit[5].weight];
	for (size_t i = 0; i < weight->count; i++)
		same += params_data(&f->params, weight)[i] == params_data(&f->other, weight)[i];
	assert_true(same < 3);
	/* Two tensors of one shape do not share numbers either. */
	const struct param *twin = &f->layout.all[f->layout.unit[6].weight];
	assert_int_equal(twin->count, weight->count);
	same = 0;
	for (size_t i = 0; i < weight->count; i++)
		same += params_data(&f->params, weight)[i] == params_data(&f->params, twin)[i];
	assert_true(same < 3);
}

static void test_zero_gamma(void **state)
{
	struct fixture *f = *state;
	int zeros = 0;
	params_init(&f->params, &f->network, &f->layout, 42, true);
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct param *gamma = &f->layout.all[f->layout.unit[u].gamma];
		bool zero = strstr(gamma->name, "bn2") != NULL; /* the last norm of a block */
		for (size_t i = 0; i < gamma->count; i++)
			assert_true(params_data(&f->params, gamma)[i] == (zero ? 0.0f : 1.0f));
		zeros += zero;
	}
	assert_int_equal(zeros, 16);
}

static void test_head_alone(void **state)
{
	struct fixture *f = *state;
	size_t head = f->layout.all[f->layout.head_weight].offset;
	params_init(&f->params, &f->network, &f->layout, 42, false);
	for (size_t i = 0; i < f->layout.weights_count; i++)
		f->other.weights[i] = 3;
	params_init_head(&f->other, &f->network, &f->layout, 42);
	for (size_t i = 0; i < head; i++)
		assert_true(f->other.weights[i] == 3.0f);
	assert_memory_equal(f->other.weights + head, f->params.weights + head, (f->layout.weights_count - head) * sizeof(float));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arenas_have_no_holes),
		cmocka_unit_test(test_distributions),
		cmocka_unit_test(test_seed_decides),
		cmocka_unit_test(test_zero_gamma),
		cmocka_unit_test(test_head_alone),
	};
	return cmocka_run_group_tests(tests, fixture_open, fixture_close);
}
