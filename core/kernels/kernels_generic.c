/* kernels_generic.c: any x86-64: 16 registers of 4 floats. */
#define LANES 4
#define TILE_ROWS 4
#define TILE_VECTORS 2
#define STRIP_ROWS 4
#define KERNELS kernels_generic
#define KERNELS_NAME "generic"
#include "core/kernels/kernels_body.h"
