/* paint.h: small pictures of coloured, textured shapes, made from numbers alone.
 *
 * A hundred classes: 4 colours × 5 shapes × 5 textures, "red_striped_circle". They are laid on CIFAR-100's labels so that a coarse class
 * is a colour and a shape and its five members are the textures. What makes them hard to tell apart: place, size, rotation, stretch, hue,
 * light, noise, small shapes of other classes behind, something in front. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { PAINT_CLASSES = 100, PAINT_COARSE_CLASSES = 20, PAINT_SIZE = 32, PAINT_BYTES = 3 * PAINT_SIZE * PAINT_SIZE, PAINT_NAME_BYTES = 48 };

/* "red_striped_circle" for a fine label, "red_circle" for a coarse one. */
void paint_name(unsigned fine, char name[PAINT_NAME_BYTES]);
void paint_coarse_name(unsigned coarse, char name[PAINT_NAME_BYTES]);
/* The coarse label that belongs to a fine one. */
unsigned paint_coarse(unsigned fine);

/* Paints picture number `index` of class `fine` to planes (3, 32, 32). The bytes depend on (seed, index, fine) alone. */
void paint(uint64_t seed, uint64_t index, unsigned fine, uint8_t planes[PAINT_BYTES]);
