/* step.c: the training pass. See step.h. */
#include "train/step.h"

#include <math.h>

/* A step may take many seconds on a small machine, and a stop must not wait for its end. */
static enum status stop_check(const struct machine *machine)
{
	if (machine->shared || machine->stopped == NULL || !machine->stopped())
		return ST_OK;
	TRY(machine->backend->batch_abandon(machine->state));
	return ST_STOPPED;
}

enum status step_forward(const struct machine *machine, const struct images *images, const struct sample *samples, int n, int total,
	float label_smoothing, bool training, enum which which)
{
	const struct backend *backend = machine->backend;
	struct backend_state *state = machine->state;
	TRY(backend->batch_begin(state, n, total, training, which));
	TRY(backend->batch_gather(state, images, samples, label_smoothing));
	for (int u = 0; u < RESNET_UNITS; u++) {
		if (training)
			TRY(stop_check(machine));
		TRY(backend->unit_forward(state, u));
		if (u == 0 && machine->network->pool.present)
			TRY(backend->pool_forward(state));
	}
	return backend->head_forward(state);
}

/* The first gradient that reaches a tensor is written, later ones are added: `reached` remembers which tensors have one. A block's
 * input is reached twice, by its first convolution and by the shortcut. */
enum status step_backward(const struct machine *machine)
{
	const struct backend *backend = machine->backend;
	struct backend_state *state = machine->state;
	const struct network *network = machine->network;
	bool reached[RESNET_TENSORS] = {false};
	TRY(backend->head_backward(state));
	TRY(backend->reduce_start(state, RESNET_UNITS));
	reached[network->head.x] = true;
	for (int u = RESNET_UNITS - 1; u >= 0; u--) {
		const struct unit *unit = &network->units[u];
		TRY(stop_check(machine));
		if (u == 0 && network->pool.present) {
			TRY(backend->pool_backward(state, reached[network->pool.x]));
			reached[network->pool.x] = true;
		}
		MUST(reached[unit->y]);
		bool accumulate_shortcut = unit->shortcut >= 0 && reached[unit->shortcut];
		if (unit->shortcut >= 0)
			reached[unit->shortcut] = true;
		TRY(backend->unit_backward(state, u, reached[unit->x], accumulate_shortcut));
		TRY(backend->reduce_start(state, u));
		reached[unit->x] = true;
	}
	return backend->reduce_finish(state);
}

enum status step_train(const struct machine *machine, const struct images *images, const struct sample *samples, int n, int total,
	float label_smoothing, double gradient_clip_norm, const struct update *update)
{
	TRY(step_forward(machine, images, samples, n, total, label_smoothing, true, WHICH_WEIGHTS));
	TRY(step_backward(machine));
	struct update scaled = *update;
	if (gradient_clip_norm > 0) {
		double norm_squared = 0;
		TRY(machine->backend->gradient_norm_squared(machine->state, &norm_squared));
		double scale = gradient_clip_norm / (sqrt(norm_squared) + 1e-6);
		if (scale < 1)
			scaled.gradient_scale *= (float)scale;
	}
	return machine->backend->optimizer_step(machine->state, &scaled);
}

enum status step_evaluate(const struct machine *machine, const struct images *images, const struct sample *samples, int n, enum which which)
{
	return step_forward(machine, images, samples, n, n, 0, false, which);
}
