/* kernels.cu: our own GPU kernels; what each does is in kernels.h. */
#include "core/backend/cuda/kernels.h"

extern "C" __global__ void __launch_bounds__(KERNEL_THREADS) skip_note(const struct skip_note a)
{
	a.skipped[a.index] = a.control->skip;
}
