/* costs.c: what each kernel and graph computes and moves. See launches.h.
 *
 * Bytes are those that must be moved when nothing stays on the device's chip from launch to launch; FLOPs of kernels that do a little with each value are
 * counted from their formula in kernels.h, a comparison as one: these kernels wait for memory. */
#include "test/cuda/cost/launches.h"

#include "core/backend/cuda/grids.h"
#include "core/base/status.h"

enum { FLOAT = sizeof(float), DOUBLE = sizeof(double) };

#define COST(name, arguments) void cost_##name(const struct arguments *a, const struct kernel_sizes *sizes, struct launch *launch)
#define T ((double)element_bytes(sizes->element))
#define UNUSED_SIZES ((void)sizes)

static void cost_set(struct launch *launch, double flops, double bytes)
{
	launch->flops = flops;
	launch->bytes = bytes;
}

/* --- the batch -------------------------------------------------------------------------------------------------------- */

COST(gather, gather)
{
	double pixels = (double)a->n * a->size * a->size;
	cost_set(launch, pixels * 3 * 2, pixels * (3 + T * a->C) + a->n * (double)(sizeof *a->samples + sizeof *a->labels + sizeof *a->targets));
}

/* --- batch norm ------------------------------------------------------------------------------------------------------- */

static double values_of(int64_t pixels, int32_t C)
{
	return (double)pixels * C;
}

static double partials_bytes(double rows, int32_t C)
{
	return rows * 2 * C * DOUBLE;
}

COST(norm_sums, norm_sums)
{
	double values = values_of(a->pixels, a->C);
	cost_set(launch, 3 * values, T * values + partials_bytes(a->rows, a->C));
}

COST(norm_fold, norm_fold)
{
	UNUSED_SIZES;
	cost_set(launch, 2.0 * a->rows * a->C, partials_bytes(a->rows + 1, a->C));
}

/* gamma, beta, running statistics in; these, mean, deviation, scale, bias out. */
COST(norm_constants, norm_constants)
{
	UNUSED_SIZES;
	cost_set(launch, (2.0 * a->rows + 20) * a->C, partials_bytes(a->rows, a->C) + (4 + 6) * a->C * FLOAT);
}

COST(norm_constants_running, norm_constants_running)
{
	UNUSED_SIZES;
	cost_set(launch, 5.0 * a->C, (4 + 2) * a->C * FLOAT);
}

COST(norm_apply, norm_apply)
{
	double values = values_of(a->pixels, a->C);
	bool shortcut = a->shortcut != NULL;
	cost_set(launch, (2 + shortcut + !!a->relu) * values, (2 + shortcut) * T * values + 2 * a->C * FLOAT);
}

COST(norm_backward_sums, norm_backward_sums)
{
	double values = values_of(a->pixels, a->C);
	bool relu = a->relu != 0;
	cost_set(launch, (4 + relu) * values, (2 + relu) * T * values + a->C * FLOAT + partials_bytes(a->rows, a->C));
}

/* gamma, mean, deviation in; dgamma, dbeta, three constants out. */
COST(norm_backward_constants, norm_backward_constants)
{
	UNUSED_SIZES;
	double rows = a->own_rows + (a->shared != a->own ? a->shared_rows : 0);
	cost_set(launch, (2 * rows + 15) * a->C, partials_bytes(rows, a->C) + (3 + 5) * a->C * FLOAT);
}

COST(norm_backward_apply, norm_backward_apply)
{
	double values = values_of(a->pixels, a->C);
	bool relu = a->relu != 0, shortcut = a->dshortcut != NULL, adds = shortcut && a->accumulate;
	cost_set(launch, (4 + relu + adds) * values, (3 + relu + shortcut + adds) * T * values + 3 * a->C * FLOAT);
}

COST(add, add)
{
	cost_set(launch, (double)a->count, 3 * T * (double)a->count);
}

/* --- the pool --------------------------------------------------------------------------------------------------------- */

COST(pool_forward, pool_forward)
{
	double inputs = (double)a->n * a->H * a->W * a->C, outputs = (double)a->n * a->P * a->Q * a->C;
	cost_set(launch, 9 * outputs, T * (inputs + outputs) + (a->tap != NULL ? outputs : 0));
}

COST(pool_backward, pool_backward)
{
	double inputs = (double)a->n * a->H * a->W * a->C, outputs = (double)a->n * a->P * a->Q * a->C;
	cost_set(launch, 4 * inputs, T * ((1 + !!a->accumulate) * inputs + outputs) + outputs);
}

/* --- the head --------------------------------------------------------------------------------------------------------- */

static void cost_product(struct launch *launch, double rows, double columns, double depth, double bytes)
{
	launch->product = (struct product){rows, columns, depth};
	cost_set(launch, 2 * rows * columns * depth, bytes);
}

COST(features, features)
{
	double values = (double)a->n * a->pixels_of_image * a->C;
	cost_set(launch, values, T * values + (double)a->n * a->C * FLOAT);
}

static double head_bytes(double n, double C, double classes)
{
	return (n * C + C * classes + n * classes) * FLOAT;
}

COST(logits, logits)
{
	UNUSED_SIZES;
	cost_product(launch, a->n, a->classes, a->C, head_bytes(a->n, a->C, a->classes) + a->classes * FLOAT);
}

COST(loss, loss)
{
	UNUSED_SIZES;
	double values = (double)a->n * a->classes;
	bool gradient = a->dlogits != NULL;
	cost_set(launch, (6 + 3 * gradient) * values, (1 + gradient) * values * FLOAT + a->n * (double)(sizeof *a->targets + 3 * DOUBLE));
}

COST(counters_add, counters_add)
{
	UNUSED_SIZES;
	cost_set(launch, 3.0 * a->n, 3.0 * a->n * DOUBLE + 2 * 4 * DOUBLE);
}

COST(head_weight_gradient, head_weight_gradient)
{
	UNUSED_SIZES;
	cost_product(launch, a->classes, a->C + 1, a->n, head_bytes(a->n, a->C, a->classes) + a->classes * FLOAT);
}

COST(head_input_gradient, head_input_gradient)
{
	double n = a->n, values = n * a->pixels_of_image * a->C;
	cost_product(launch, n, a->C, a->classes, (n + a->C) * a->classes * FLOAT + T * values);
}

/* --- the update ------------------------------------------------------------------------------------------------------- */

COST(squares, squares)
{
	UNUSED_SIZES;
	cost_set(launch, 2 * (double)a->count, (double)a->count * FLOAT + SQUARES_BLOCKS * DOUBLE);
}

COST(update_prepare, update_prepare)
{
	UNUSED_SIZES;
	cost_set(launch, SQUARES_BLOCKS, SQUARES_BLOCKS * DOUBLE + 2.0 * sizeof *a->control);
}

/* The gradient in; weight and momentum, and the average, in and out; the rounded weight out. */
COST(update_live, update_live)
{
	double of_value = (1 + 2 * (2 + (a->ema != NULL))) * FLOAT + (a->half != NULL ? T : 0);
	cost_set(launch, 9 * sizes->weights, of_value * sizes->weights + a->ranges_count * (double)sizeof *a->ranges);
}

COST(update_dead, update_dead)
{
	UNUSED_SIZES;
	cost_set(launch, 6.0 * a->history_count * (double)a->count, 2 * (2 + (a->ema != NULL)) * FLOAT * (double)a->count);
}

COST(skip_note, skip_note)
{
	UNUSED_SIZES;
	cost_set(launch, 0, sizeof a->control->skip + sizeof *a->skipped);
}

COST(average, average)
{
	UNUSED_SIZES;
	cost_set(launch, 3 * (double)a->count, 3 * (double)a->count * FLOAT);
}

/* --- conversions ------------------------------------------------------------------------------------------------------ */

COST(from_float, convert)
{
	cost_set(launch, (double)a->count, (double)a->count * (FLOAT + T));
}

COST(to_float, convert)
{
	cost_from_float(a, sizes, launch);
}

COST(share_out, share)
{
	UNUSED_SIZES;
	cost_set(launch, (double)a->count, (double)a->count * (FLOAT + DOUBLE));
}

COST(share_back, share)
{
	cost_share_out(a, sizes, launch);
}

/* --- graphs ----------------------------------------------------------------------------------------------------------- */

static double values_count(const struct graph_tensor *tensor)
{
	return (double)(tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * tensor->dims[3]);
}

/* The convolution's matrix product: of which tensors it is made depends on what is asked for. */
static void cost_convolution(const struct graph *graph, const struct graph_operation *operation, struct launch *launch)
{
	const struct graph_tensor *first = &graph->tensors[operation->in[0]], *second = &graph->tensors[operation->in[1]];
	const struct graph_tensor *out = &graph->tensors[operation->out];
	const struct graph_tensor *filter = operation->kind == GRAPH_CONVOLUTION_DW ? out : second;
	const struct graph_tensor *y = operation->kind == GRAPH_CONVOLUTION ? out : operation->kind == GRAPH_CONVOLUTION_DX ? first : second;
	const double pixels = (double)(y->dims[0] * y->dims[2] * y->dims[3]), K = (double)filter->dims[0], taps = values_count(filter) / K;
	launch->element = first->element;
	launch->flops += 2 * pixels * K * taps;
	if (operation->kind == GRAPH_CONVOLUTION)
		launch->product = (struct product){pixels, K, taps};
	else if (operation->kind == GRAPH_CONVOLUTION_DW)
		launch->product = (struct product){K, taps, pixels};
	else {
		double C = (double)out->dims[1], inputs = values_count(out) / C;
		launch->product = (struct product){inputs, C, launch->flops / (2 * inputs * C)};
	}
}

void cost_graph(const struct graph *graph, struct launch *launch)
{
	launch->element = ELEMENT_FP32;
	for (int i = 0; i < graph->operations_count; i++) {
		const struct graph_operation *operation = &graph->operations[i];
		if (operation->kind != GRAPH_IDENTITY)
			cost_convolution(graph, operation, launch);
	}
	for (int i = 0; i < graph->tensors_count; i++)
		if (!graph->tensors[i].is_virtual)
			launch->bytes += (double)graph_tensor_bytes(&graph->tensors[i]);
}
