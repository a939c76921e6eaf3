/* step.c: the training pass. See step.h. */
#include "train/step.h"

/* A step may take many seconds on a small machine, and a stop must not wait for its end. */
static enum status stop_check(const struct machine *machine)
{
	if (machine->shared || machine->stopped == NULL || !machine->stopped())
		return ST_OK;
	TRY(machine->backend->batch_abandon(machine->state));
	return ST_STOPPED;
}

static enum status batch_make_ready(const struct machine *machine, const struct images *images, const struct sample *samples, int n, int total,
	float label_smoothing, bool training, enum which which)
{
	TRY(machine->backend->batch_begin(machine->state, n, total, training, which));
	return machine->backend->batch_gather(machine->state, images, samples, label_smoothing);
}

static enum status pass_forward(const struct machine *machine, bool training)
{
	const struct backend *backend = machine->backend;
	struct backend_state *state = machine->state;
	for (int u = 0; u < RESNET_UNITS; u++) {
		if (training)
			TRY(stop_check(machine));
		TRY(backend->unit_forward(state, u));
		if (u == 0 && machine->network->pool.present)
			TRY(backend->pool_forward(state));
	}
	return backend->head_forward(state);
}

enum status step_forward(const struct machine *machine, const struct images *images, const struct sample *samples, int n, int total,
	float label_smoothing, bool training, enum which which)
{
	TRY(batch_make_ready(machine, images, samples, n, total, label_smoothing, training, which));
	return pass_forward(machine, training);
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

/* Forward, and backward when training, unless the backend has recorded such a pass. */
static enum status pass_run(const struct machine *machine, bool training)
{
	const struct backend *backend = machine->backend;
	bool again = false;
	if (backend->pass_begin != NULL)
		TRY(backend->pass_begin(machine->state, &again));
	if (again)
		return ST_OK;
	TRY(pass_forward(machine, training));
	if (training)
		TRY(step_backward(machine));
	return backend->pass_end != NULL ? backend->pass_end(machine->state) : ST_OK;
}

enum status step_train(const struct machine *machine, const struct images *images, const struct sample *samples, int n, int total,
	float label_smoothing, const struct update *update)
{
	TRY(batch_make_ready(machine, images, samples, n, total, label_smoothing, true, WHICH_WEIGHTS));
	TRY(pass_run(machine, true));
	return machine->backend->optimizer_step(machine->state, update);
}

enum status step_evaluate(const struct machine *machine, const struct images *images, const struct sample *samples, int n, enum which which)
{
	TRY(batch_make_ready(machine, images, samples, n, n, 0, false, which));
	return pass_run(machine, false);
}
