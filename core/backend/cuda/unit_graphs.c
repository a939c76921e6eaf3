/* unit_graphs.c: see unit_graphs.h. The table `forms` says for each graph which operations it has, on which of a unit's tensors; the table `roles`
 * says what each of those is. cudnn_graph.c says the same to cuDNN. */
#include "core/backend/cuda/unit_graphs.h"

#include <stdio.h>
#include <string.h>

/* --- the convolution --------------------------------------------------------------------------------------------------- */

struct live unit_live(const struct unit *unit)
{
	struct live live = {unit->R, 0, unit->S, 0};
	for (int r = 0; r < unit->R; r++)
		for (int s = 0; s < unit->S; s++)
			if (unit_tap_uses(unit, r, s) > 0) {
				live.r0 = r < live.r0 ? r : live.r0;
				live.r1 = r + 1;
				live.s0 = s < live.s0 ? s : live.s0;
				live.s1 = s >= live.s1 ? s + 1 : live.s1;
			}
	return live;
}

int channels_padded(int C, enum element element)
{
	int vector = element == ELEMENT_FP32 ? 4 : 8;
	return C == 3 ? vector : C;
}

/* Padding behind the last pixel such that the last output has all its taps; there may be pixels that no tap reaches. */
static int padding_behind(int outputs, int stride, int taps, int pad_before, int inputs)
{
	int needed = (outputs - 1) * stride + taps - pad_before - inputs;
	return needed > 0 ? needed : 0;
}

void unit_convolution(const struct unit *unit, enum element element, struct convolution *convolution)
{
	const struct live live = unit_live(unit);
	struct convolution c = {
		.C = channels_padded(unit->C, element), .H = unit->H, .W = unit->W,
		.K = unit->K, .P = unit->P, .Q = unit->Q,
		.R = live.r1 - live.r0, .S = live.s1 - live.s0,
		.stride = unit->stride,
		.pad_top = unit->padding - live.r0, .pad_left = unit->padding - live.s0,
	};
	c.pad_bottom = padding_behind(c.P, c.stride, c.R, c.pad_top, c.H);
	c.pad_right = padding_behind(c.Q, c.stride, c.S, c.pad_left, c.W);
	const bool whole = c.P == 1 && c.Q == 1 && c.R == c.H && c.S == c.W && c.pad_top == 0 && c.pad_left == 0;
	if (whole) {
		c.C *= c.H * c.W;
		c.H = c.W = c.R = c.S = c.stride = 1;
	}
	*convolution = c;
}

/* --- tensors ----------------------------------------------------------------------------------------------------------- */

/* What a tensor of a graph is to its unit. */
enum role { NONE, X, W, Z, DZ, DX, DW, DW_NARROW, DW_SUM, ROLES };

enum shape { INPUT, OUTPUT, FILTER };

#define AT(member) .offset = offsetof(struct unit_memory, member)
static const struct role_facts {
	enum shape shape;
	bool is_fp32; /* else as the activations */
	size_t offset; /* of its pointer in struct unit_memory */
	bool is_virtual;
} roles[ROLES] = {
	[X] = {INPUT, false, AT(x)},
	[W] = {FILTER, false, AT(w)},
	[Z] = {OUTPUT, false, AT(z)},
	[DZ] = {OUTPUT, false, AT(dz)},
	[DX] = {INPUT, false, AT(dx)},
	[DW] = {FILTER, true, AT(dw)},
	[DW_NARROW] = {FILTER, false, AT(dw)},
	[DW_SUM] = {FILTER, true, .is_virtual = true},
};

/* --- graphs ------------------------------------------------------------------------------------------------------------ */

enum form { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, WEIGHT_GRADIENT_WIDENED, WEIGHT_GRADIENT_NARROW };

/* cuDNN has no engines for a weight gradient of 16-bit operands in fp32, but for one that passes on its fp32 sums: compiled at run time, from
 * Turing on. */
enum { WIDENED_CAPABILITY_MIN = 75 };
static const struct form_facts {
	const char *name;
	struct step {
		enum graph_operation_kind kind;
		enum role in[2], out;
	} steps[2];
	int steps_count;
} forms[] = {
	[FORWARD] = {"forward", {{GRAPH_CONVOLUTION, {X, W}, Z}}, 1},
	[INPUT_GRADIENT] = {"input gradient", {{GRAPH_CONVOLUTION_DX, {DZ, W}, DX}}, 1},
	[WEIGHT_GRADIENT] = {"weight gradient", {{GRAPH_CONVOLUTION_DW, {X, DZ}, DW}}, 1},
	[WEIGHT_GRADIENT_WIDENED] = {"weight gradient in fp32", {{GRAPH_CONVOLUTION_DW, {X, DZ}, DW_SUM}, {GRAPH_IDENTITY, {DW_SUM}, DW}}, 2},
	[WEIGHT_GRADIENT_NARROW] = {"narrow weight gradient", {{GRAPH_CONVOLUTION_DW, {X, DZ}, DW_NARROW}}, 1},
};

static const struct form_facts *form_of(enum unit_work work, enum element element)
{
	static const enum form form[UNIT_WORKS] = {
		[UNIT_FORWARD] = FORWARD,
		[UNIT_INPUT_GRADIENT] = INPUT_GRADIENT,
		[UNIT_WEIGHT_GRADIENT] = WEIGHT_GRADIENT,
		[UNIT_WEIGHT_GRADIENT_NARROW] = WEIGHT_GRADIENT_NARROW,
	};
	return work == UNIT_WEIGHT_GRADIENT && element != ELEMENT_FP32 ? &forms[WEIGHT_GRADIENT_WIDENED] : &forms[form[work]];
}

bool units_alike(const struct unit *a, const struct unit *b)
{
	return a->C == b->C && a->H == b->H && a->W == b->W && a->K == b->K && a->P == b->P && a->Q == b->Q && a->R == b->R && a->S == b->S
		&& a->stride == b->stride && a->padding == b->padding;
}

enum unit_work unit_weight_gradient(enum element element, int capability)
{
	return element == ELEMENT_FP32 || capability >= WIDENED_CAPABILITY_MIN ? UNIT_WEIGHT_GRADIENT : UNIT_WEIGHT_GRADIENT_NARROW;
}

/* Tensors of a graph are numbered in the order in which its steps name them. */
struct numbering {
	enum role roles[GRAPH_TENSORS_MAX];
	int count;
};

static int number_of(struct numbering *numbering, enum role role)
{
	int i = 0;
	while (i < numbering->count && numbering->roles[i] != role)
		i++;
	if (i == numbering->count)
		numbering->roles[numbering->count++] = role;
	return i;
}

static void step_number(struct numbering *numbering, const struct step *step, struct graph_operation *operation)
{
	for (int i = 0; i < 2 && step->in[i] != NONE; i++)
		operation->in[i] = number_of(numbering, step->in[i]);
	operation->out = number_of(numbering, step->out);
}

static void tensor_make(const struct role_facts *facts, const struct convolution *c, int n, enum element element, struct graph_tensor *tensor)
{
	const int64_t dims[][4] = {
		[INPUT] = {n, c->C, c->H, c->W},
		[OUTPUT] = {n, c->K, c->P, c->Q},
		[FILTER] = {c->K, c->C, c->R, c->S},
	};
	*tensor = (struct graph_tensor){.element = facts->is_fp32 ? ELEMENT_FP32 : element, .is_virtual = facts->is_virtual};
	memcpy(tensor->dims, dims[facts->shape], sizeof tensor->dims);
}

void unit_graph(struct graph *graph, enum unit_work work, const struct unit *unit, int n, enum element element)
{
	const struct form_facts *form = form_of(work, element);
	struct convolution c;
	struct numbering numbering = {.count = 0};
	unit_convolution(unit, element, &c);
	*graph = (struct graph){.operations_count = form->steps_count};
	snprintf(graph->name, sizeof graph->name, "%s %s, %d images", unit->convolution, form->name, n);
	for (int i = 0; i < form->steps_count; i++) {
		struct graph_operation *operation = &graph->operations[i];
		operation->kind = form->steps[i].kind;
		step_number(&numbering, &form->steps[i], operation);
		if (operation->kind > GRAPH_CONVOLUTION_DW)
			continue;
		operation->stride = c.stride;
		operation->pad_top = c.pad_top;
		operation->pad_left = c.pad_left;
		operation->pad_bottom = c.pad_bottom;
		operation->pad_right = c.pad_right;
	}
	graph->tensors_count = numbering.count;
	for (int i = 0; i < numbering.count; i++)
		tensor_make(&roles[numbering.roles[i]], &c, n, element, &graph->tensors[i]);
}

void unit_graph_bind(enum unit_work work, enum element element, const struct unit_memory *memory, void *pointers[GRAPH_TENSORS_MAX])
{
	const struct form_facts *form = form_of(work, element);
	struct numbering numbering = {.count = 0};
	struct graph_operation unused;
	for (int i = 0; i < form->steps_count; i++)
		step_number(&numbering, &form->steps[i], &unused);
	for (int i = 0; i < numbering.count; i++) {
		const struct role_facts *facts = &roles[numbering.roles[i]];
		pointers[i] = NULL;
		if (!facts->is_virtual) /* what is only read is const in `memory`, cuDNN takes all alike */
			memcpy(&pointers[i], (const char *)memory + facts->offset, sizeof pointers[i]);
	}
}
