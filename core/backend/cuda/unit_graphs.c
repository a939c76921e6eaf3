/* unit_graphs.c: see unit_graphs.h. The table `forms` says for each graph which operations it has, on which of a unit's tensors; the table `roles`
 * says what each of those is. */
#include "core/backend/cuda/unit_graphs.h"

#include "core/base/status.h"

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
enum role {
	NONE,
	X, W, Z, DZ, DX, DW, DW_ELEMENT, GIVEN,
	SHORTCUT, Y, DY, G, MASK,
	GAMMA, BETA, MEAN, INVERSE_DEVIATION, RUNNING_MEAN, RUNNING_VAR, RUNNING_MEAN_NEW, RUNNING_VAR_NEW, DGAMMA, DBETA,
	EPSILON, SHARE, ZERO,
	DW_SUM, DX_OWN, NORMED, ADDED, /* between operations */
	ROLES,
};

enum shape { INPUT, OUTPUT, FILTER, CHANNELS, SCALAR };
enum stored { AS_ELEMENT, AS_FP32, AS_BITS };

#define AT(member) .offset = offsetof(struct unit_memory, member)
static const struct role_facts {
	enum shape shape;
	enum stored stored;
	size_t offset; /* of its pointer, or of the value if by value, in struct unit_memory */
	bool is_virtual, by_value;
} roles[ROLES] = {
	[X] = {INPUT, AS_ELEMENT, AT(x)},
	[W] = {FILTER, AS_ELEMENT, AT(w)},
	[Z] = {OUTPUT, AS_ELEMENT, AT(z)},
	[DZ] = {OUTPUT, AS_ELEMENT, AT(dz)},
	[DX] = {INPUT, AS_ELEMENT, AT(dx)},
	[DW] = {FILTER, AS_FP32, AT(dw)},
	[DW_ELEMENT] = {FILTER, AS_ELEMENT, AT(dw)},
	[GIVEN] = {INPUT, AS_ELEMENT, AT(given)},
	[SHORTCUT] = {OUTPUT, AS_ELEMENT, AT(shortcut)},
	[Y] = {OUTPUT, AS_ELEMENT, AT(y)},
	[DY] = {OUTPUT, AS_ELEMENT, AT(dy)},
	[G] = {OUTPUT, AS_ELEMENT, AT(g)},
	[MASK] = {OUTPUT, AS_BITS, AT(mask)},
	[GAMMA] = {CHANNELS, AS_FP32, AT(gamma)},
	[BETA] = {CHANNELS, AS_FP32, AT(beta)},
	[MEAN] = {CHANNELS, AS_FP32, AT(mean)},
	[INVERSE_DEVIATION] = {CHANNELS, AS_FP32, AT(inverse_deviation)},
	[RUNNING_MEAN] = {CHANNELS, AS_FP32, AT(running_mean)},
	[RUNNING_VAR] = {CHANNELS, AS_FP32, AT(running_var)},
	[RUNNING_MEAN_NEW] = {CHANNELS, AS_FP32, AT(running_mean_new)},
	[RUNNING_VAR_NEW] = {CHANNELS, AS_FP32, AT(running_var_new)},
	[DGAMMA] = {CHANNELS, AS_FP32, AT(dgamma)},
	[DBETA] = {CHANNELS, AS_FP32, AT(dbeta)},
	[EPSILON] = {SCALAR, AS_FP32, .by_value = true},
	[ZERO] = {SCALAR, AS_FP32, .by_value = true},
	[SHARE] = {SCALAR, AS_FP32, AT(share), .by_value = true},
	[DW_SUM] = {FILTER, AS_FP32, .is_virtual = true},
	[DX_OWN] = {INPUT, AS_FP32, .is_virtual = true},
	[NORMED] = {OUTPUT, AS_FP32, .is_virtual = true},
	[ADDED] = {OUTPUT, AS_FP32, .is_virtual = true},
};

/* --- graphs ------------------------------------------------------------------------------------------------------------ */

enum form {
	FORWARD, INPUT_GRADIENT, INPUT_GRADIENT_ADD, WEIGHT_GRADIENT_ELEMENT, WEIGHT_GRADIENT_FP32,
	NORM, NORM_RELU, NORM_SHORTCUT_RELU, NORM_BACK, NORM_BACK_RELU,
};

#define NORM_INPUTS {Z, GAMMA, BETA, EPSILON, SHARE, RUNNING_MEAN, RUNNING_VAR}
#define NORM_OUTPUTS(y) {y, MEAN, INVERSE_DEVIATION, RUNNING_MEAN_NEW, RUNNING_VAR_NEW}
#define NORM_BACK_INPUTS(dy) {dy, Z, MEAN, INVERSE_DEVIATION, GAMMA}
#define NORM_BACK_OUTPUTS {DZ, DGAMMA, DBETA}

/* The device has no engines for a weight gradient of 16-bit operands in fp32, but for one that passes on its fp32 sums; and none that
 * takes the mask from anything but the ReLU's stored output, or keeps g to itself. */
static const struct form_facts {
	const char *name;
	int capability_min;
	struct step {
		enum graph_operation_kind kind;
		enum role in[7], out[5];
	} steps[4];
	int steps_count;
} forms[] = {
	[FORWARD] = {"forward", 70, {{GRAPH_CONVOLUTION, {X, W}, {Z}}}, 1},
	[INPUT_GRADIENT] = {"input gradient", 70, {{GRAPH_CONVOLUTION_DX, {DZ, W}, {DX}}}, 1},
	[INPUT_GRADIENT_ADD] = {"input gradient + given", 75, {
		{GRAPH_CONVOLUTION_DX, {DZ, W}, {DX_OWN}},
		{GRAPH_ADD, {DX_OWN, GIVEN}, {DX}}}, 2},
	[WEIGHT_GRADIENT_ELEMENT] = {"weight gradient", 70, {{GRAPH_CONVOLUTION_DW, {X, DZ}, {DW_ELEMENT}}}, 1},
	[WEIGHT_GRADIENT_FP32] = {"weight gradient in fp32", 75, {
		{GRAPH_CONVOLUTION_DW, {X, DZ}, {DW_SUM}},
		{GRAPH_IDENTITY, {DW_SUM}, {DW}}}, 2},
	[NORM] = {"norm", 80, {{GRAPH_NORM_FORWARD, NORM_INPUTS, NORM_OUTPUTS(Y)}}, 1},
	[NORM_RELU] = {"norm, ReLU", 80, {
		{GRAPH_NORM_FORWARD, NORM_INPUTS, NORM_OUTPUTS(NORMED)},
		{GRAPH_RELU, {NORMED}, {Y}},
		{GRAPH_GREATER, {Y, ZERO}, {MASK}}}, 3},
	[NORM_SHORTCUT_RELU] = {"norm + shortcut, ReLU", 80, {
		{GRAPH_NORM_FORWARD, NORM_INPUTS, NORM_OUTPUTS(NORMED)},
		{GRAPH_ADD, {NORMED, SHORTCUT}, {ADDED}},
		{GRAPH_RELU, {ADDED}, {Y}},
		{GRAPH_GREATER, {Y, ZERO}, {MASK}}}, 4},
	[NORM_BACK] = {"norm backward", 80, {{GRAPH_NORM_BACKWARD, NORM_BACK_INPUTS(DY), NORM_BACK_OUTPUTS}}, 1},
	[NORM_BACK_RELU] = {"ReLU, norm backward", 80, {
		{GRAPH_MUL, {DY, MASK}, {G}},
		{GRAPH_NORM_BACKWARD, NORM_BACK_INPUTS(G), NORM_BACK_OUTPUTS}}, 2},
};

static enum form form_of(enum unit_work work, const struct unit *unit, enum element element)
{
	switch (work) {
	case UNIT_FORWARD:
		return FORWARD;
	case UNIT_INPUT_GRADIENT:
		return INPUT_GRADIENT;
	case UNIT_INPUT_GRADIENT_ADD:
		return INPUT_GRADIENT_ADD;
	case UNIT_WEIGHT_GRADIENT:
		return element == ELEMENT_FP32 ? WEIGHT_GRADIENT_ELEMENT : WEIGHT_GRADIENT_FP32;
	case UNIT_WEIGHT_GRADIENT_ELEMENT:
		return WEIGHT_GRADIENT_ELEMENT;
	case UNIT_NORM_FORWARD:
		MUST(unit->relu || unit->shortcut < 0);
		return !unit->relu ? NORM : unit->shortcut < 0 ? NORM_RELU : NORM_SHORTCUT_RELU;
	case UNIT_NORM_BACKWARD:
		return unit->relu ? NORM_BACK_RELU : NORM_BACK;
	case UNIT_WORKS:
		break;
	}
	MUST(!"a unit's work");
	return FORWARD;
}

bool units_alike(enum unit_work work, const struct unit *a, const struct unit *b)
{
	if (a->K != b->K || a->P != b->P || a->Q != b->Q)
		return false;
	if (work == UNIT_NORM_FORWARD || work == UNIT_NORM_BACKWARD)
		return a->relu == b->relu && (work == UNIT_NORM_BACKWARD || (a->shortcut >= 0) == (b->shortcut >= 0));
	return a->C == b->C && a->H == b->H && a->W == b->W && a->R == b->R && a->S == b->S && a->stride == b->stride && a->padding == b->padding;
}

bool unit_graph_exists(const struct unit *unit, enum unit_work work, enum element element, int capability)
{
	if (unit->x == 0 && (work == UNIT_INPUT_GRADIENT || work == UNIT_INPUT_GRADIENT_ADD))
		return false; /* the image gets none */
	return capability >= (element == ELEMENT_BF16 ? 80 : forms[form_of(work, unit, element)].capability_min);
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
	MUST(i < GRAPH_TENSORS_MAX);
	if (i == numbering->count)
		numbering->roles[numbering->count++] = role;
	return i;
}

static void numbers_of(struct numbering *numbering, const enum role list[], int list_max, int numbers[])
{
	for (int i = 0; i < list_max && list[i] != NONE; i++)
		numbers[i] = number_of(numbering, list[i]);
}

static void step_number(struct numbering *numbering, const struct step *step, struct graph_operation *operation)
{
	numbers_of(numbering, step->in, 7, operation->in);
	numbers_of(numbering, step->out, 5, operation->out);
}

static void tensor_make(const struct role_facts *facts, const struct convolution *c, int n, enum element element, struct graph_tensor *tensor)
{
	const int64_t dims[][4] = {
		[INPUT] = {n, c->C, c->H, c->W},
		[OUTPUT] = {n, c->K, c->P, c->Q},
		[FILTER] = {c->K, c->C, c->R, c->S},
		[CHANNELS] = {1, c->K, 1, 1},
		[SCALAR] = {1, 1, 1, 1},
	};
	*tensor = (struct graph_tensor){
		.element = facts->stored == AS_ELEMENT ? element : facts->stored == AS_FP32 ? ELEMENT_FP32 : ELEMENT_BOOL,
		.is_virtual = facts->is_virtual,
		.by_value = facts->by_value,
	};
	memcpy(tensor->dims, dims[facts->shape], sizeof tensor->dims);
}

void unit_graph(struct graph *graph, enum unit_work work, const struct unit *unit, int n, enum element element)
{
	const struct form_facts *form = &forms[form_of(work, unit, element)];
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

void unit_graph_bind(enum unit_work work, const struct unit *unit, enum element element, const struct unit_memory *memory,
	void *pointers[GRAPH_TENSORS_MAX])
{
	static const float epsilon = (float)NORM_EPSILON, zero = 0;
	const struct form_facts *form = &forms[form_of(work, unit, element)];
	struct numbering numbering = {.count = 0};
	struct graph_operation unused;
	for (int i = 0; i < form->steps_count; i++)
		step_number(&numbering, &form->steps[i], &unused);
	for (int i = 0; i < numbering.count; i++) {
		enum role role = numbering.roles[i];
		const char *at = (const char *)memory + roles[role].offset;
		const void *pointer = NULL;
		if (role == EPSILON)
			pointer = &epsilon;
		else if (role == ZERO)
			pointer = &zero;
		else if (roles[role].by_value)
			pointer = at;
		else if (!roles[role].is_virtual)
			memcpy(&pointer, at, sizeof pointer);
		memcpy(&pointers[i], &pointer, sizeof pointer); /* what is only read is const in `memory`, cuDNN takes all alike */
	}
}
