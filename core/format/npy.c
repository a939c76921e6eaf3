/* npy.c: see npy.h. */
#include "core/format/npy.h"

#include <stdio.h>
#include <string.h>

static const uint8_t magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

bool npy_sniff(const uint8_t *bytes, size_t count)
{
	return count >= sizeof magic && memcmp(bytes, magic, sizeof magic) == 0;
}

/* --- header ---------------------------------------------------------------------------------------------------------- */

/* The header's text, a Python dict, and where we are in it. */
struct header {
	const char *name; /* the file's */
	const char *text;
	size_t count, at;
};

static enum status fail(const struct header *header, const char *why)
{
	return FAIL(ST_DATA, "%s: not a usable npy header: %s (byte %zu of it)", header->name, why, header->at + 1);
}

static void spaces_skip(struct header *header)
{
	while (header->at < header->count && strchr(" \t\r\n", header->text[header->at]) != NULL && header->text[header->at] != '\0')
		header->at++;
}

/* Takes `c` if it is next after spaces. */
static bool take(struct header *header, char c)
{
	spaces_skip(header);
	if (header->at >= header->count || header->text[header->at] != c)
		return false;
	header->at++;
	return true;
}

static bool take_word(struct header *header, const char *word)
{
	size_t length = strlen(word);
	spaces_skip(header);
	if (header->count - header->at < length || memcmp(header->text + header->at, word, length) != 0)
		return false;
	header->at += length;
	return true;
}

/* A quoted string without escapes, shorter than `bytes`. */
static enum status take_string(struct header *header, char *string, size_t bytes)
{
	char quote = take(header, '\'') ? '\'' : take(header, '"') ? '"' : '\0';
	if (quote == '\0')
		return fail(header, "expected a quoted text");
	size_t length = 0;
	for (; header->at + length < header->count && header->text[header->at + length] != quote; length++)
		if (header->text[header->at + length] == '\\' || length + 1 >= bytes)
			return fail(header, "a text that is too long or has an escape");
	if (header->at + length >= header->count)
		return fail(header, "a text without an end");
	memcpy(string, header->text + header->at, length);
	string[length] = '\0';
	header->at += length + 1;
	return ST_OK;
}

static const struct {
	char kind;
	int bytes;
	enum dtype dtype;
} types[] = {{'f', 2, DTYPE_F16}, {'f', 4, DTYPE_F32}, {'f', 8, DTYPE_F64}, {'u', 1, DTYPE_U8}, {'u', 2, DTYPE_U16}, {'u', 4, DTYPE_U32},
	{'u', 8, DTYPE_U64}, {'i', 1, DTYPE_I8}, {'i', 2, DTYPE_I16}, {'i', 4, DTYPE_I32}, {'i', 8, DTYPE_I64}, {'b', 1, DTYPE_BOOL}};

static enum status descr_parse(struct header *header, struct npy *npy)
{
	char descr[16];
	if (header->at < header->count && (take(header, '[') || take(header, '(')))
		return FAIL(ST_DATA, "%s: an array of structures; expected an array of plain numbers", header->name);
	TRY(take_string(header, descr, sizeof descr));
	if (descr[0] != '\0' && strchr("<>|=", descr[0]) != NULL)
		for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
			if (descr[1] != types[i].kind || descr[2] != '0' + types[i].bytes || descr[3] != '\0')
				continue;
			npy->view.dtype = types[i].dtype;
			npy->big_endian = descr[0] == '>' && types[i].bytes > 1;
			return ST_OK;
		}
	return FAIL(ST_DATA, "%s: elements of type \"%s\" are not read%s; expected floats or integers (f2 f4 f8 u1 … u8 i1 … i8 b1)", header->name, descr,
		strchr(descr, 'O') != NULL ? ": pickled objects can hold code" : "");
}

/* (), (3,), (2, 3): numbers may end in Python 2's L. */
static enum status shape_parse(struct header *header, struct npy *npy)
{
	if (!take(header, '('))
		return fail(header, "the shape is no tuple");
	npy->view.rank = 0;
	while (!take(header, ')')) {
		if (npy->view.rank == TENSOR_RANK_MAX)
			return FAIL(ST_DATA, "%s: an array of more than %d dimensions", header->name, TENSOR_RANK_MAX);
		int64_t size = 0;
		spaces_skip(header);
		size_t start = header->at;
		for (; header->at < header->count && header->text[header->at] >= '0' && header->text[header->at] <= '9'; header->at++)
			if (__builtin_mul_overflow(size, 10, &size) || __builtin_add_overflow(size, header->text[header->at] - '0', &size))
				return fail(header, "a dimension that is too large");
		if (header->at == start)
			return fail(header, "a dimension that is negative or no whole number");
		if (header->at < header->count && header->text[header->at] == 'L')
			header->at++;
		npy->view.shape[npy->view.rank++] = size;
		if (take(header, ','))
			continue;
		if (npy->view.rank == 1 || !take(header, ')'))
			return fail(header, "the shape is no tuple");
		break;
	}
	return ST_OK;
}

static enum status order_parse(struct header *header, bool *fortran)
{
	*fortran = take_word(header, "True");
	return *fortran || take_word(header, "False") ? ST_OK : fail(header, "fortran_order is neither True nor False");
}

static enum status header_parse(struct header *header, struct npy *npy, bool *fortran)
{
	enum { DESCR = 1, ORDER = 2, SHAPE = 4 };
	int seen = 0;
	if (!take(header, '{'))
		return fail(header, "expected a dict");
	while (!take(header, '}')) {
		char key[16];
		TRY(take_string(header, key, sizeof key));
		int which = strcmp(key, "descr") == 0 ? DESCR : strcmp(key, "fortran_order") == 0 ? ORDER : strcmp(key, "shape") == 0 ? SHAPE : 0;
		if (which == 0 || (seen & which) != 0)
			return fail(header, "expected the keys descr, fortran_order and shape, once each");
		seen |= which;
		if (!take(header, ':'))
			return fail(header, "expected a colon");
		spaces_skip(header);
		TRY(which == DESCR ? descr_parse(header, npy) : which == ORDER ? order_parse(header, fortran) : shape_parse(header, npy));
		if (take(header, ','))
			continue;
		if (!take(header, '}'))
			return fail(header, "expected a comma or the dict's end");
		break;
	}
	spaces_skip(header);
	if (seen != (DESCR | ORDER | SHAPE))
		return fail(header, "one of the keys descr, fortran_order and shape is missing");
	return header->at == header->count ? ST_OK : fail(header, "text after the dict");
}

/* Index 0 varies fastest. The product of the shape is known to fit. */
static void strides_turn(struct tensor_view *view)
{
	int64_t product = 1;
	for (int k = 0; k < view->rank; k++) {
		view->stride[k] = product;
		product *= view->shape[k] > 1 ? view->shape[k] : 1;
	}
}

enum status npy_read(const char *name, const uint8_t *bytes, size_t count, struct npy *npy)
{
	if (!npy_sniff(bytes, count) || count < 10)
		return FAIL(ST_DATA, "%s: %zu bytes that are no npy file", name, count);
	int version = bytes[6];
	if (version < 1 || version > 3)
		return FAIL(ST_DATA, "%s: npy version %d.%d; 1.0, 2.0 and 3.0 are known", name, version, bytes[7]);
	size_t start = version == 1 ? 10 : 12;
	size_t length = bytes[8] | (size_t)bytes[9] << 8;
	if (version > 1 && count >= start)
		length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
	if (length > NPY_HEADER_BYTES_MAX)
		return FAIL(ST_DATA, "%s: an npy header of %zu bytes; at most %d are read", name, length, NPY_HEADER_BYTES_MAX);
	if (count < start || length > count - start)
		return FAIL(ST_DATA, "%s: cut off inside the npy header", name);
	struct header header = {.name = name, .text = (const char *)bytes + start, .count = length};
	struct npy found = {.big_endian = false};
	bool fortran = false;
	TRY(header_parse(&header, &found, &fortran));
	struct tensor_view view = found.view;
	char shape[200];
	tensor_shape_text(view.rank, view.shape, shape, sizeof shape);
	if (!tensor_count(&view, &found.count))
		return FAIL(ST_DATA, "%s: an array of shape %s is larger than can be", name, shape);
	size_t left = count - start - length, wanted = (size_t)found.count * dtype_bytes(view.dtype);
	if (wanted > left)
		return FAIL(ST_DATA, "%s: an array of shape %s and type %s needs %zu bytes, %zu follow the header", name, shape, dtype_torch_word(view.dtype),
			wanted, left);
	found.view = tensor_view_make(name, view.dtype, view.rank, view.shape, bytes + start + length);
	if (fortran)
		strides_turn(&found.view);
	found.bytes_after = left - wanted;
	*npy = found;
	return ST_OK;
}

/* --- elements -------------------------------------------------------------------------------------------------------- */

bool npy_is_whole(const struct npy *npy)
{
	return npy->view.dtype != DTYPE_F16 && npy->view.dtype != DTYPE_F32 && npy->view.dtype != DTYPE_F64;
}

/* `count` elements from `data` on, `stride` bytes apart. */
static void run_read(const struct npy *npy, const uint8_t *data, size_t stride, size_t count, float *floats)
{
	size_t bytes = dtype_bytes(npy->view.dtype);
	if (npy->view.dtype == DTYPE_U8) { /* pictures: too many bytes for the way round */
		for (size_t i = 0; i < count; i++)
			floats[i] = (float)data[i * stride];
		return;
	}
	for (size_t i = 0; i < count; i++, data += stride) {
		uint64_t bits = 0;
		for (size_t b = 0; b < bytes; b++)
			bits |= (uint64_t)data[b] << 8 * (npy->big_endian ? bytes - 1 - b : b);
		uint32_t half = (uint32_t)bits;
		double wide;
		switch (npy->view.dtype) {
		case DTYPE_F16: floats[i] = float_from_f16((uint16_t)bits); break;
		case DTYPE_F32: memcpy(&floats[i], &half, sizeof half); break;
		case DTYPE_F64:
			memcpy(&wide, &bits, sizeof wide);
			floats[i] = (float)wide;
			break;
		case DTYPE_I8: floats[i] = (float)(int8_t)bits; break;
		case DTYPE_I16: floats[i] = (float)(int16_t)bits; break;
		case DTYPE_I32: floats[i] = (float)(int32_t)bits; break;
		case DTYPE_I64: floats[i] = (float)(int64_t)bits; break;
		case DTYPE_BOOL: floats[i] = bits != 0 ? 1.0f : 0.0f; break;
		default: floats[i] = (float)bits; break;
		}
	}
}

void npy_read_floats(const struct npy *npy, float *floats)
{
	const struct tensor_view *view = &npy->view;
	size_t bytes = dtype_bytes(view->dtype);
	if (npy->count == 0)
		return;
	if (view->dtype == DTYPE_F32 && !npy->big_endian && tensor_is_contiguous(view)) {
		memcpy(floats, view->data, (size_t)npy->count * sizeof *floats);
		return;
	}
	if (tensor_is_contiguous(view)) {
		run_read(npy, view->data, bytes, (size_t)npy->count, floats);
		return;
	}
	/* Row by row of the last dimension; the others count up in C order. */
	int last = view->rank - 1;
	size_t row = (size_t)view->shape[last];
	int64_t index[TENSOR_RANK_MAX] = {0}, place = 0;
	for (size_t done = 0; done < (size_t)npy->count; done += row) {
		run_read(npy, view->data + (size_t)place * bytes, (size_t)view->stride[last] * bytes, row, floats + done);
		for (int k = last - 1; k >= 0; k--) {
			place += view->stride[k];
			if (++index[k] < view->shape[k])
				break;
			place -= index[k] * view->stride[k];
			index[k] = 0;
		}
	}
}

/* --- writing --------------------------------------------------------------------------------------------------------- */

enum status npy_write_header(struct text *text, int rank, const int64_t *shape)
{
	MUST(rank >= 0 && rank <= TENSOR_RANK_MAX);
	char dict[64 + TENSOR_RANK_MAX * 24];
	size_t used = (size_t)snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
	for (int k = 0; k < rank; k++)
		used += (size_t)snprintf(dict + used, sizeof dict - used, k > 0 ? " %lld%s" : "%lld%s", (long long)shape[k], k + 1 < rank || rank == 1 ? "," : "");
	used += (size_t)snprintf(dict + used, sizeof dict - used, "), }");
	size_t length = (10 + used + 1 + 63) / 64 * 64 - 10;
	const uint8_t head[] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)length, (uint8_t)(length >> 8)};
	TRY(text_add_bytes(text, head, sizeof head));
	return text_printf(text, "%-*s\n", (int)length - 1, dict);
}
