/* kernels_avx512.c: AVX-512: 32 registers of 16 floats. */
#define LANES 16
#define TILE_ROWS 8
#define TILE_VECTORS 2
#define STRIP_ROWS 12
#define KERNELS kernels_avx512
#define KERNELS_NAME "avx512"
#include "core/kernels/kernels_body.h"
