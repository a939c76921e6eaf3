/* cifar_files.h: CIFAR files made byte by byte for tests: binary records, and pickles as Python 2, Python 3 and numpy write them. */
#pragma once

#include "core/format/cifar.h"
#include "core/model/labels.h"
#include "test/unit/scratch.h"

/* The test image of a number: no two alike, every channel different. */
static inline void cifar_pixels(unsigned number, uint8_t planes[CIFAR_IMAGE_BYTES])
{
	for (unsigned i = 0; i < CIFAR_IMAGE_BYTES; i++)
		planes[i] = (uint8_t)(i * 31 + i / 1024 * 77 + number * 101 + (number >> 8) * 13);
}

static inline void add_cifar(struct text *to, enum cifar_kind kind, unsigned label, unsigned number)
{
	uint8_t record[2 + CIFAR_IMAGE_BYTES] = {labels_cifar100_coarse[label % 100], (uint8_t)label};
	cifar_pixels(number, record + 2);
	if (kind == CIFAR_100)
		add_bytes(to, record, sizeof record);
	else
		add_bytes(to, record + 1, sizeof record - 1);
}

/* --- pickles --------------------------------------------------------------------------------------------------------- */

enum dialect { PYTHON_2, PROTOCOL_2, PROTOCOL_3, PROTOCOL_4, PROTOCOL_5, DIALECTS };

static inline void add_byte(struct text *to, unsigned byte)
{
	uint8_t one = (uint8_t)byte;
	add_bytes(to, &one, 1);
}

static inline void add_string(struct text *to, enum dialect dialect, const char *string)
{
	size_t length = strlen(string);
	if (dialect == PROTOCOL_2 || dialect == PROTOCOL_3) {
		add_byte(to, 'X');
		add_u32(to, (uint32_t)length);
	} else {
		add_byte(to, dialect == PYTHON_2 ? 'U' : 0x8c);
		add_byte(to, (unsigned)length);
	}
	add_bytes(to, string, length);
}

static inline void add_int(struct text *to, int value)
{
	add_byte(to, 'J');
	add_u32(to, (uint32_t)value);
}

static inline void add_global(struct text *to, enum dialect dialect, const char *module, const char *name)
{
	if (dialect >= PROTOCOL_4) {
		add_string(to, dialect, module);
		add_string(to, dialect, name);
		add_byte(to, 0x93);
	} else {
		OK(text_printf(to, "c%s\n%s\n", module, name));
	}
}

static inline void add_blob(struct text *to, enum dialect dialect, const uint8_t *bytes, size_t count)
{
	if (dialect != PROTOCOL_2) {
		add_byte(to, dialect == PYTHON_2 ? 'T' : 'B');
		add_u32(to, (uint32_t)count);
		add_bytes(to, bytes, count);
		return;
	}
	size_t length = 0;
	for (size_t i = 0; i < count; i++)
		length += bytes[i] < 0x80 ? 1 : 2;
	add_global(to, dialect, "_codecs", "encode");
	add_byte(to, 'X');
	add_u32(to, (uint32_t)length);
	for (size_t i = 0; i < count; i++) {
		if (bytes[i] >= 0x80)
			add_byte(to, 0xc0u | bytes[i] >> 6);
		add_byte(to, bytes[i] < 0x80 ? bytes[i] : 0x80u | (bytes[i] & 0x3fu));
	}
	add_string(to, dialect, "latin1");
	OK(text_add(to, "\x86R"));
}

static inline void add_dtype(struct text *to, enum dialect dialect, const char *code, const char *order)
{
	add_global(to, dialect, "numpy", "dtype");
	add_byte(to, '(');
	add_string(to, dialect, code);
	OK(text_add(to, "\x89\x88tR(K\3"));
	add_string(to, dialect, order);
	OK(text_add(to, "NNN"));
	add_int(to, -1);
	add_int(to, -1);
	add_bytes(to, "K\0tb", 4);
}

struct array_spec {
	const char *code, *order;
	int shape[4], rank;
	bool fortran;
	const uint8_t *bytes;
	size_t count;
};

static inline void add_shape(struct text *to, const struct array_spec *array)
{
	add_byte(to, '(');
	for (int i = 0; i < array->rank; i++)
		add_int(to, array->shape[i]);
	add_byte(to, 't');
}

static inline void add_array(struct text *to, enum dialect dialect, const struct array_spec *array)
{
	if (dialect == PROTOCOL_5) {
		add_global(to, dialect, "numpy._core.numeric", "_frombuffer");
		OK(text_add(to, "(\x96"));
		add_u32(to, (uint32_t)array->count);
		add_u32(to, 0);
		add_bytes(to, array->bytes, array->count);
		add_dtype(to, dialect, array->code, array->order);
		add_shape(to, array);
		add_string(to, dialect, array->fortran ? "F" : "C");
		OK(text_add(to, "tR"));
		return;
	}
	add_global(to, dialect, "numpy.core.multiarray", "_reconstruct");
	add_byte(to, '(');
	add_global(to, dialect, "numpy", "ndarray");
	add_bytes(to, "K\0\x85", 3);
	add_blob(to, dialect, (const uint8_t *)"b", 1);
	OK(text_add(to, "tR(K\1"));
	add_shape(to, array);
	add_dtype(to, dialect, array->code, array->order);
	add_byte(to, array->fortran ? 0x88 : 0x89);
	add_blob(to, dialect, array->bytes, array->count);
	OK(text_add(to, "tb"));
}

static inline void add_pickle_begin(struct text *to, enum dialect dialect)
{
	static const unsigned protocols[DIALECTS] = {2, 2, 3, 4, 5};
	add_byte(to, 0x80);
	add_byte(to, protocols[dialect]);
	OK(text_add(to, "}("));
}

static inline void add_pickle_end(struct text *to)
{
	OK(text_add(to, "u."));
}

static inline void add_list(struct text *to, enum dialect dialect, const char *key, const int *values, int count)
{
	add_string(to, dialect, key);
	OK(text_add(to, "]("));
	for (int i = 0; i < count; i++)
		add_int(to, values[i]);
	add_byte(to, 'e');
}

static inline void add_data(struct text *to, enum dialect dialect, const struct array_spec *array)
{
	add_string(to, dialect, "data");
	add_array(to, dialect, array);
}

/* A python file of `count` ≤ 200 images numbered from `first`, labels[i] for image i; coarse labels for CIFAR-100. */
static inline void add_cifar_pickle(struct text *to, enum dialect dialect, enum cifar_kind kind, const int *labels, int count, unsigned first)
{
	static uint8_t pixels[200 * CIFAR_IMAGE_BYTES];
	int coarse[200];
	for (int i = 0; i < count; i++) {
		cifar_pixels(first + (unsigned)i, pixels + (size_t)i * CIFAR_IMAGE_BYTES);
		coarse[i] = labels_cifar100_coarse[labels[i] % 100];
	}
	struct array_spec data = {.code = "u1", .order = "|", .shape = {count, CIFAR_IMAGE_BYTES}, .rank = 2, .bytes = pixels,
		.count = (size_t)count * CIFAR_IMAGE_BYTES};
	add_pickle_begin(to, dialect);
	add_list(to, dialect, kind == CIFAR_100 ? "fine_labels" : "labels", labels, count);
	if (kind == CIFAR_100)
		add_list(to, dialect, "coarse_labels", coarse, count);
	add_data(to, dialect, &data);
	add_pickle_end(to);
}
