/* normalization.h: what is done to pixels before the network sees them. */
#pragma once

/* Of red, green and blue: (pixel / 255 − mean) / std. */
struct normalization {
	float mean[3], std[3];
};
