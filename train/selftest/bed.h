/* bed.h: what the parts of a self-test work on: a network with random weights, images, a backend that trains it. */
#pragma once

#include "train/selftest/siblings.h"
#include "train/step.h"

/* One GPU and what belongs to its test. */
struct tested {
	struct place_among place;
	const struct device_facts *gpu;
	const struct backend *cuda;
	struct threads *threads;
	double until_seconds; /* monotonic clock: then the time is up, and what is left is left out */
};

struct bed {
	struct network network;
	struct params_layout layout;
	struct training_state start;
	struct images images;
	struct sample *samples; /* images.count; each kind of augmentation and mixing in turn */
	uint8_t *pixels;
	uint16_t *labels;
};

/* A network for images of 32 × 32 and 100 classes. Random, by `seed`. ST_MEMORY; bed_close then, too. */
enum status bed_open(struct bed *bed, enum stem stem, size_t images, uint64_t seed);
void bed_close(struct bed *bed);

/* A backend that trains it, with the bed's weights. reduction: NULL: alone. */
enum status bed_machine(const struct bed *bed, const struct tested *tested, const struct backend *backend, enum precision precision, int batch_max,
	bool deterministic, const struct reduction *reduction, struct machine *machine);
void machine_close(struct machine *machine);

/* "fp16" */
const char *precision_name(enum precision precision);
