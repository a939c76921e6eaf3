/* kernels.cu: all our kernels by name. Compiled for each GPU; and for the host, as a table of functions that run a whole grid.
 *
 * The bodies are in kernels_gather.h, kernels_norm.h, kernels_head.h, kernels_update.h; what they do is said in kernels.h, the words that they
 * are written in are in lanes.h. */
#include "core/backend/cuda/kernels_gather.h"
#include "core/backend/cuda/kernels_head.h"
#include "core/backend/cuda/kernels_norm.h"
#include "core/backend/cuda/kernels_update.h"

#ifdef __CUDACC__

#define PLAIN(name, arguments) KERNEL(name, arguments, name##_body)
#define ELEMENT(name, arguments) \
	KERNEL(name##_fp32, arguments, name##_body<fp32>) \
	KERNEL(name##_fp16, arguments, name##_body<fp16>) \
	KERNEL(name##_bf16, arguments, name##_body<bf16>)
KERNELS_PLAIN(PLAIN)
KERNELS_ELEMENT(ELEMENT)

#else

#include "core/backend/cuda/kernels_host.h"

template <typename Arguments, void (*body)(const Arguments &, struct block)>
static void run(const void *arguments, unsigned grid_x, unsigned grid_y, unsigned block_x, const unsigned *block_order)
{
	Arguments a;
	if (block_x != KERNEL_THREADS)
		abort();
	memcpy(&a, arguments, sizeof a);
	for (unsigned i = 0; i < grid_x * grid_y; i++) {
		unsigned at = block_order != NULL ? block_order[i] : i;
		body(a, block{at % grid_x, at / grid_x, (at * 151 + i * 37) % KERNEL_THREADS});
	}
}

#define ENTRY(name, arguments, body) {name, sizeof(struct arguments), run<struct arguments, body>},
#define PLAIN(name, arguments) ENTRY(#name, arguments, name##_body)
#define ELEMENT(name, arguments) \
	ENTRY(#name "_fp32", arguments, name##_body<fp32>) \
	ENTRY(#name "_fp16", arguments, name##_body<fp16>) \
	ENTRY(#name "_bf16", arguments, name##_body<bf16>)
const struct host_kernel host_kernels[] = {KERNELS_PLAIN(PLAIN) KERNELS_ELEMENT(ELEMENT){NULL, 0, NULL}};

#endif
