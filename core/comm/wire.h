/* wire.h: numbers and bytes in a frame: little-endian, read only as far as bytes remain. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void wire_put_u32(uint8_t bytes[4], uint32_t value)
{
	for (int i = 0; i < 4; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
}

static inline void wire_put_u64(uint8_t bytes[8], uint64_t value)
{
	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
}

/* What is left of some bytes. `short_of` is set for good by the first read that wants more than there is; such reads give 0 or NULL. */
struct wire {
	const uint8_t *bytes;
	size_t count;
	bool short_of;
};

/* `count` bytes in place, or NULL. */
static inline const uint8_t *wire_take(struct wire *wire, size_t count)
{
	if (wire->short_of || count > wire->count) {
		wire->short_of = true;
		return NULL;
	}
	const uint8_t *taken = wire->bytes;
	wire->bytes += count;
	wire->count -= count;
	return taken;
}

static inline uint64_t wire_take_number(struct wire *wire, size_t bytes)
{
	const uint8_t *taken = wire_take(wire, bytes);
	uint64_t value = 0;
	for (size_t i = 0; taken != NULL && i < bytes; i++)
		value |= (uint64_t)taken[i] << 8 * i;
	return value;
}

static inline uint32_t wire_take_u32(struct wire *wire)
{
	return (uint32_t)wire_take_number(wire, 4);
}

static inline uint64_t wire_take_u64(struct wire *wire)
{
	return wire_take_number(wire, 8);
}
