/* normalization.h: what is done to pixels before the network sees them. */
#pragma once

/* Of red, green and blue: (pixel / 255 − mean) / std. */
struct normalization {
	float mean[3], std[3];
};

/* Mean and deviation of all training pixels, as the usual recipes round them. */
static const struct normalization normalization_cifar100 = {{0.5071f, 0.4865f, 0.4409f}, {0.2673f, 0.2564f, 0.2762f}};
static const struct normalization normalization_cifar10 = {{0.4914f, 0.4822f, 0.4465f}, {0.2470f, 0.2435f, 0.2616f}};
