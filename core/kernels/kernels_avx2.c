/* kernels_avx2.c: AVX2 and FMA: 16 registers of 8 floats. */
#define LANES 8
#define TILE_ROWS 4
#define TILE_VECTORS 2
#define STRIP_ROWS 6
#define KERNELS kernels_avx2
#define KERNELS_NAME "avx2"
#include "core/kernels/kernels_body.h"
