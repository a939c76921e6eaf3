/* paint.c: see paint.h. A picture is layers, back to front: background, distractors, the object, an occluder; then light and noise. */
#include "test/demo/paint.h"

#include "core/base/random.h"
#include "core/base/status.h"
#include "core/model/labels.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

enum { COLOURS = 4, SHAPES = 5, TEXTURES = 5, SAMPLES = 2 /* a side of the grid of samples in a pixel */ };
enum shape { CIRCLE, SQUARE, TRIANGLE, STAR, CROSS };
enum texture { PLAIN, STRIPED, DOTTED, CHECKED, HOLLOW };

static const char *const colour_names[COLOURS] = {"red", "yellow", "green", "blue"};
static const double colour_hues[COLOURS] = {0, 52, 120, 222}; /* degrees */
static const char *const shape_names[SHAPES] = {"circle", "square", "triangle", "star", "cross"};
static const char *const texture_names[TEXTURES] = {"plain", "striped", "dotted", "checked", "hollow"};

/* How much each difficulty takes. */
static const double hue_jitter_degrees = 16, tilt_degrees = 25, stretch = 0.2, hollow_share = 0.6;
static const double radius_min = 8.5, radius_max = 14, shift_max = 4, period_min = 5.5, period_max = 8, noise_min = 3, noise_max = 16;
static const double occluder_probability = 0.4;
enum { DISTRACTORS_MIN = 1, DISTRACTORS_MAX = 4 };

struct rgb {
	double r, g, b;
};

struct object {
	enum shape shape;
	enum texture texture;
	struct rgb colour, mark; /* mark: the second colour of a texture */
	double x, y;             /* centre, pixels */
	double xx, xy, yx, yy;   /* pixels from the centre → the shape's own coordinates, in which it fills the unit circle */
	double radius, period, phase; /* pixels */
};

_Static_assert((int)PAINT_CLASSES == (int)CIFAR100_CLASSES, "the classes are laid on CIFAR-100's labels");
_Static_assert((int)PAINT_COARSE_CLASSES == COLOURS * SHAPES, "a coarse class is a colour and a shape");

unsigned paint_coarse(unsigned fine)
{
	MUST(fine < PAINT_CLASSES);
	return labels_cifar100_coarse[fine];
}

/* A class's texture is its rank among the members of its coarse class. */
static enum texture texture_of(unsigned fine)
{
	int rank = 0;
	for (unsigned other = 0; other < fine; other++)
		rank += paint_coarse(other) == paint_coarse(fine);
	return (enum texture)rank;
}

void paint_name(unsigned fine, char name[PAINT_NAME_BYTES])
{
	unsigned coarse = paint_coarse(fine);
	snprintf(name, PAINT_NAME_BYTES, "%s_%s_%s", colour_names[coarse / SHAPES], texture_names[texture_of(fine)], shape_names[coarse % SHAPES]);
}

void paint_coarse_name(unsigned coarse, char name[PAINT_NAME_BYTES])
{
	MUST(coarse < PAINT_COARSE_CLASSES);
	snprintf(name, PAINT_NAME_BYTES, "%s_%s", colour_names[coarse / SHAPES], shape_names[coarse % SHAPES]);
}

static double between(struct random_stream *random, double low, double high)
{
	return low + (high - low) * random_unit(random);
}

static struct rgb mix(struct rgb a, struct rgb b, double share)
{
	return (struct rgb){a.r + (b.r - a.r) * share, a.g + (b.g - a.g) * share, a.b + (b.b - a.b) * share};
}

/* Hue in degrees, saturation and value 0 to 1; the usual hexcone. */
static struct rgb hsv(double hue, double saturation, double value)
{
	double part[3];
	for (int i = 0; i < 3; i++) {
		double k = fmod((5 - 2 * i) + hue / 60 + 12, 6);
		part[i] = value - value * saturation * fmax(0, fmin(fmin(k, 4 - k), 1));
	}
	return (struct rgb){part[0], part[1], part[2]};
}

/* (u, v): coordinates in which the shape fills the unit circle. */
static bool shape_covers(enum shape shape, double u, double v)
{
	switch (shape) {
	case CIRCLE:
		return u * u + v * v < 0.9;
	case SQUARE:
		return fmax(fabs(u), fabs(v)) < 0.8;
	case TRIANGLE:
		return fmax(v - 0.2, 0.866 * fabs(u) - 0.5 * v - 0.2) < 0.42;
	case CROSS:
		return fmin(fabs(u), fabs(v)) < 0.33 && fmax(fabs(u), fabs(v)) < 0.98;
	case STAR: {
		/* Fold into one tenth: from a tip at angle 0 to a notch at 36 degrees; inside is below the line between them. */
		const double pi = acos(-1), tenth = pi / 5, tip = 1.12, notch = 0.5;
		double angle = fabs(remainder(atan2(u, -v), 2 * tenth)), r = hypot(u, v), nx = notch * cos(tenth), ny = notch * sin(tenth);
		return (nx - tip) * (r * sin(angle)) - ny * (r * cos(angle) - tip) > 0;
	}
	}
	return false;
}

static bool texture_marks(const struct object *object, double u, double v)
{
	double a = (u * object->radius + object->phase) / object->period, b = (v * object->radius + object->phase) / object->period;
	double da = a - floor(a) - 0.5, db = b - floor(b) - 0.5;
	switch (object->texture) {
	case STRIPED:
		return da < 0;
	case DOTTED:
		return da * da + db * db < 0.085;
	case CHECKED:
		return (da < 0) != (db < 0);
	default:
		return false;
	}
}

/* Lays the object's colour over *under where it covers the point. */
static void object_paint(const struct object *object, double x, double y, struct rgb *under)
{
	double dx = x - object->x, dy = y - object->y;
	double u = object->xx * dx + object->xy * dy, v = object->yx * dx + object->yy * dy;
	if (u * u + v * v > 1.7 || !shape_covers(object->shape, u, v))
		return;
	if (object->texture == HOLLOW && shape_covers(object->shape, u / hollow_share, v / hollow_share))
		return;
	*under = texture_marks(object, u, v) ? object->mark : object->colour;
}

static void object_place(struct object *object, struct random_stream *random, double x, double y, double radius)
{
	double tilt = between(random, -tilt_degrees, tilt_degrees) * acos(-1) / 180, wide = 1 + between(random, -stretch, stretch);
	double flip = random_below(random, 2) == 0 ? 1 : -1;
	object->x = x;
	object->y = y;
	object->radius = radius;
	object->xx = flip * cos(tilt) / (radius * wide);
	object->xy = flip * sin(tilt) / (radius * wide);
	object->yx = -sin(tilt) / radius;
	object->yy = cos(tilt) / radius;
	object->period = between(random, period_min, period_max);
	object->phase = between(random, 0, object->period) + 64 * object->period;
}

static void object_colour(struct object *object, struct random_stream *random, unsigned colour)
{
	double hue = colour_hues[colour] + between(random, -hue_jitter_degrees, hue_jitter_degrees);
	double saturation = between(random, 0.55, 1), value = between(random, 0.55, 1);
	object->colour = hsv(hue, saturation, value);
	object->mark = random_below(random, 2) == 0 ? hsv(hue, saturation, value * 0.3) : hsv(hue, saturation * 0.25, fmin(1, value * 1.3));
}

static struct object object_random(struct random_stream *random, double radius)
{
	struct object object = {.shape = (enum shape)random_below(random, SHAPES), .texture = (enum texture)random_below(random, TEXTURES)};
	object_colour(&object, random, random_below(random, COLOURS));
	double x = between(random, 0, PAINT_SIZE), y = between(random, 0, PAINT_SIZE);
	object_place(&object, random, x, y, radius);
	return object;
}

/* Two colours flowing into each other in one direction, with soft waves. */
struct background {
	struct rgb from, to;
	double ax, ay, wave_x, wave_y, wave_phase, wave;
};

static struct background background_random(struct random_stream *random)
{
	const double turn = 2 * acos(-1);
	double angle = between(random, 0, turn), wave_angle = between(random, 0, turn), wave_length = between(random, 5, 16);
	struct background back = {.from = hsv(between(random, 0, 360), between(random, 0, 0.7), between(random, 0.15, 0.95))};
	back.to = hsv(between(random, 0, 360), between(random, 0, 0.7), between(random, 0.15, 0.95));
	back.ax = cos(angle) / PAINT_SIZE;
	back.ay = sin(angle) / PAINT_SIZE;
	back.wave_x = cos(wave_angle) * turn / wave_length;
	back.wave_y = sin(wave_angle) * turn / wave_length;
	back.wave_phase = between(random, 0, turn);
	back.wave = between(random, 0, 0.3);
	return back;
}

static struct rgb background_colour(const struct background *back, double x, double y)
{
	double cx = x - PAINT_SIZE / 2.0, cy = y - PAINT_SIZE / 2.0;
	double share = 0.5 + back->ax * cx + back->ay * cy + back->wave * sin(back->wave_x * x + back->wave_y * y + back->wave_phase);
	return mix(back->from, back->to, fmax(0, fmin(1, share)));
}

void paint(uint64_t seed, uint64_t index, unsigned fine, uint8_t planes[PAINT_BYTES])
{
	struct random_stream random = random_open(seed, RANDOM_DEMO, fine, index);
	struct object objects[DISTRACTORS_MAX + 2]; /* back to front */
	int count = 0;
	unsigned coarse = paint_coarse(fine), distractors = DISTRACTORS_MIN + random_below(&random, DISTRACTORS_MAX - DISTRACTORS_MIN + 1);
	const struct background back = background_random(&random);
	for (unsigned i = 0; i < distractors; i++)
		objects[count++] = object_random(&random, between(&random, 2, 5));
	struct object *object = &objects[count++];
	*object = (struct object){.shape = (enum shape)(coarse % SHAPES), .texture = texture_of(fine)};
	object_colour(object, &random, coarse / SHAPES);
	double x = PAINT_SIZE / 2.0 + between(&random, -shift_max, shift_max), y = PAINT_SIZE / 2.0 + between(&random, -shift_max, shift_max);
	object_place(object, &random, x, y, between(&random, radius_min, radius_max));
	if (random_unit(&random) < occluder_probability) {
		objects[count] = object_random(&random, between(&random, 2.5, 4.5));
		objects[count++].texture = PLAIN;
	}
	/* Light falls from one side and is a little coloured. */
	double light_angle = between(&random, 0, 2 * acos(-1)), light = between(&random, 0.65, 1.15), slope = between(&random, 0, 0.35);
	double tint[3] = {between(&random, 0.85, 1.15), between(&random, 0.85, 1.15), between(&random, 0.85, 1.15)};
	double noise = between(&random, noise_min, noise_max);
	for (int py = 0; py < PAINT_SIZE; py++)
		for (int px = 0; px < PAINT_SIZE; px++) {
			double sum[3] = {0};
			for (int i = 0; i < SAMPLES * SAMPLES; i++) {
				double sx = px + (i % SAMPLES + 0.5) / SAMPLES, sy = py + (i / SAMPLES + 0.5) / SAMPLES;
				struct rgb colour = background_colour(&back, sx, sy);
				for (int k = 0; k < count; k++)
					object_paint(&objects[k], sx, sy, &colour);
				sum[0] += colour.r;
				sum[1] += colour.g;
				sum[2] += colour.b;
			}
			double lit = light + slope * ((px - PAINT_SIZE / 2) * cos(light_angle) + (py - PAINT_SIZE / 2) * sin(light_angle)) / (PAINT_SIZE / 2);
			for (int c = 0; c < 3; c++) {
				double value = 255 * lit * tint[c] * sum[c] / (SAMPLES * SAMPLES) + noise * random_normal(&random);
				planes[c * PAINT_SIZE * PAINT_SIZE + py * PAINT_SIZE + px] = (uint8_t)fmax(0, fmin(255, value + 0.5));
			}
		}
}
