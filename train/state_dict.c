/* state_dict.c: see state_dict.h. */
#include "train/state_dict.h"

#include <stdio.h>
#include <string.h>

void state_dict_counter_name(const struct param *running_var, char *name, size_t bytes)
{
	const char *dot = strrchr(running_var->name, '.');
	MUST(dot != NULL);
	snprintf(name, bytes, "%.*s.num_batches_tracked", (int)(dot - running_var->name), running_var->name);
}

void state_dict_make(struct state_dict *state, const struct params_layout *layout, const struct params *params)
{
	int counters = 0;
	*state = (struct state_dict){.batches_tracked = params->batches_tracked};
	for (int i = 0; i < layout->count; i++) {
		const struct param *param = &layout->all[i];
		state->views[state->count++] = tensor_view_make(param->name, DTYPE_F32, param->rank, param->shape, params_data(params, param));
		if (param->kind != PARAM_RUNNING_VAR)
			continue;
		char *name = state->counter_names[counters++];
		state_dict_counter_name(param, name, sizeof state->counter_names[0]);
		state->views[state->count++] = tensor_view_make(name, DTYPE_I64, 0, NULL, &state->batches_tracked);
	}
}
