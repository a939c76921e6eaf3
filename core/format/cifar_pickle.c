/* cifar_pickle.c: the python version of CIFAR; see cifar.h. What numpy's own calls in a pickle mean is said here. */
#include "core/format/cifar.h"

#include "core/format/pickle.h"

#include <stdlib.h>
#include <string.h>

enum { ARRAY_RANK_MAX = 4 };

/* A numpy array of integers as it lies in a pickle. */
struct array {
	const uint8_t *bytes;
	size_t count; /* bytes */
	uint8_t *owned; /* `bytes` when they had to be decoded */
	int item_bytes;
	bool is_signed, big_endian, fortran;
	int rank;
	size_t shape[ARRAY_RANK_MAX];
};

bool cifar_pickle_sniff(const uint8_t *bytes, size_t count)
{
	if (count < 2)
		return false;
	/* Protocols 2 to 5 say so; a dict of protocol 0 starts with a mark and 'd', one of protocol 1 with '}' and a memo. */
	return (bytes[0] == 0x80 && bytes[1] >= 2 && bytes[1] <= 5) || (bytes[0] == '(' && bytes[1] == 'd') || (bytes[0] == '}' && bytes[1] == 'q');
}

/* numpy 2 moved its modules. */
static bool calls_numpy(const struct pickle_node *node, const char *module, const char *module_new, const char *name)
{
	return pickle_calls(node, module, name) || pickle_calls(node, module_new, name);
}

/* Bytes, or what Python 3 writes for them in protocols 0 to 2: _codecs.encode(text, 'latin1'). *owned is set in that case. */
static enum status blob_read(const struct pickle_node *node, const char *name, const uint8_t **bytes, size_t *count, uint8_t **owned)
{
	*owned = NULL;
	if (pickle_kind(node) == PICKLE_BYTES && pickle_string(node, bytes, count))
		return ST_OK;
	const struct pickle_node *arguments = pickle_arguments(node);
	const uint8_t *text;
	size_t length;
	if (!pickle_calls(node, "_codecs", "encode") || pickle_kind(pickle_item(arguments, 0)) != PICKLE_TEXT ||
		!pickle_string_is(pickle_item(arguments, 1), "latin1") || !pickle_string(pickle_item(arguments, 0), &text, &length)) {
		char found[64];
		pickle_describe(node, found, sizeof found);
		return FAIL(ST_DATA, "%s: %s where an array's bytes are expected", name, found);
	}
	uint8_t *decoded = malloc(length + 1);
	if (decoded == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for %zu bytes", name, length);
	size_t n = 0;
	for (size_t i = 0; i < length; i++) {
		uint8_t byte = text[i];
		if (byte >= 0x80) {
			if ((byte != 0xc2 && byte != 0xc3) || length - i < 2 || (text[i + 1] & 0xc0) != 0x80) {
				free(decoded);
				return FAIL(ST_DATA, "%s: byte %zu of an array is no latin-1 character", name, i);
			}
			byte = (uint8_t)((byte & 3) << 6 | (text[++i] & 0x3f));
		}
		decoded[n++] = byte;
	}
	*bytes = *owned = decoded;
	*count = n;
	return ST_OK;
}

/* numpy.dtype('u1', …) with the state (3, '|', …): kind, size and byte order. */
static enum status dtype_read(const struct pickle_node *node, const char *name, struct array *array)
{
	const uint8_t *code, *order;
	size_t code_count, order_count;
	const struct pickle_node *state = pickle_state(node);
	if (!pickle_calls(node, "numpy", "dtype") || !pickle_string(pickle_item(pickle_arguments(node), 0), &code, &code_count) || code_count != 2 ||
		(code[0] != 'u' && code[0] != 'i') || memchr("1248", code[1], 4) == NULL ||
		(state != NULL && (!pickle_string(pickle_item(state, 1), &order, &order_count) || order_count != 1 || memchr("|<>=", order[0], 4) == NULL))) {
		char found[64];
		pickle_describe(node, found, sizeof found);
		return FAIL(ST_DATA, "%s: an array of type %s, expected integers", name, found);
	}
	array->item_bytes = code[1] - '0';
	array->is_signed = code[0] == 'i';
	array->big_endian = state != NULL && order[0] == '>';
	return ST_OK;
}

static enum status shape_read(const struct pickle_node *node, const char *name, struct array *array)
{
	size_t bytes = (size_t)array->item_bytes;
	array->rank = (int)pickle_count(node);
	bool good = pickle_kind(node) == PICKLE_TUPLE && pickle_count(node) >= 1 && pickle_count(node) <= ARRAY_RANK_MAX;
	for (int i = 0; good && i < array->rank; i++) {
		int64_t side;
		good = pickle_int(pickle_item(node, (size_t)i), &side) && side >= 0 && !__builtin_mul_overflow(bytes, (size_t)side, &bytes);
		if (good)
			array->shape[i] = (size_t)side;
	}
	if (!good)
		return FAIL(ST_DATA, "%s: an array with a shape that is none", name);
	if (bytes != array->count)
		return FAIL(ST_DATA, "%s: an array of %zu bytes whose shape and type need %zu", name, array->count, bytes);
	return ST_OK;
}

/* An ndarray as protocols 0 to 4 hold it (_reconstruct and a state) and as protocol 5 does (_frombuffer). On failure nothing is
 * owned; else the caller frees array->owned. */
static enum status array_read(const struct pickle_node *node, const char *name, struct array *array)
{
	enum status status = ST_OK;
	const struct pickle_node *shape, *dtype, *raw;
	*array = (struct array){0};
	if (calls_numpy(node, "numpy.core.multiarray", "numpy._core.multiarray", "_reconstruct") && pickle_count(pickle_state(node)) == 5) {
		const struct pickle_node *state = pickle_state(node);
		shape = pickle_item(state, 1);
		dtype = pickle_item(state, 2);
		raw = pickle_item(state, 4);
		int64_t flag; /* protocols 0 and 1 write a bool as the integer 0 or 1, some as a bool */
		if (!pickle_bool(pickle_item(state, 3), &array->fortran)) {
			if (!pickle_int(pickle_item(state, 3), &flag))
				return FAIL(ST_DATA, "%s: an array without its order", name);
			array->fortran = flag != 0;
		}
	} else if (calls_numpy(node, "numpy.core.numeric", "numpy._core.numeric", "_frombuffer") && pickle_count(pickle_arguments(node)) == 4) {
		const struct pickle_node *arguments = pickle_arguments(node);
		raw = pickle_item(arguments, 0);
		dtype = pickle_item(arguments, 1);
		shape = pickle_item(arguments, 2);
		array->fortran = !pickle_string_is(pickle_item(arguments, 3), "C");
	} else {
		char found[64];
		pickle_describe(node, found, sizeof found);
		return FAIL(ST_DATA, "%s: %s where a numpy array is expected", name, found);
	}
	TRY(dtype_read(dtype, name, array));
	TRY(blob_read(raw, name, &array->bytes, &array->count, &array->owned));
	TRY_DONE(shape_read(shape, name, array));
done:
	if (status != ST_OK) {
		free(array->owned);
		array->owned = NULL;
	}
	return status;
}

/* Item i of an array as an integer; what an unsigned 64-bit item has above INT64_MAX comes out negative, which no label is. */
static int64_t array_item(const struct array *array, size_t i)
{
	uint64_t value = 0;
	int n = array->item_bytes;
	for (int k = 0; k < n; k++)
		value |= (uint64_t)array->bytes[i * (size_t)n + (size_t)(array->big_endian ? n - 1 - k : k)] << (8 * k);
	if (array->is_signed && n < 8 && value >> (8 * n - 1) != 0)
		return (int64_t)value - ((int64_t)1 << (8 * n));
	int64_t result;
	memcpy(&result, &value, sizeof result);
	return result;
}

/* One label of a list: an int or numpy's scalar(dtype, bytes). */
static enum status label_read(const struct pickle_node *node, const char *name, int64_t *value)
{
	struct array one = {0};
	if (pickle_int(node, value))
		return ST_OK;
	const struct pickle_node *arguments = pickle_arguments(node);
	if (!calls_numpy(node, "numpy.core.multiarray", "numpy._core.multiarray", "scalar")) {
		char found[64];
		pickle_describe(node, found, sizeof found);
		return FAIL(ST_DATA, "%s: %s where a label is expected", name, found);
	}
	TRY(dtype_read(pickle_item(arguments, 0), name, &one));
	TRY(blob_read(pickle_item(arguments, 1), name, &one.bytes, &one.count, &one.owned));
	enum status status = ST_OK;
	if (one.count == (size_t)one.item_bytes)
		*value = array_item(&one, 0);
	else
		status = FAIL(ST_DATA, "%s: a scalar of %zu bytes, expected %d", name, one.count, one.item_bytes);
	free(one.owned);
	return status;
}

/* A list, tuple or array of exactly `count` labels. The caller frees *labels. */
static enum status labels_read(const struct pickle_node *node, const char *key, const char *name, size_t count, int64_t **labels)
{
	enum status status = ST_OK;
	struct array array = {0};
	bool listed = pickle_kind(node) == PICKLE_LIST || pickle_kind(node) == PICKLE_TUPLE;
	if (!listed)
		TRY(array_read(node, name, &array));
	size_t found = listed ? pickle_count(node) : array.shape[0];
	/* calloc's own check of the product suffices; count was bounded by the pixels present. */
	int64_t *values = calloc(count + 1, sizeof *values);
	if (found != count || (!listed && array.rank != 1)) {
		status = FAIL(ST_DATA, "%s: %zu %s for %zu images", name, found, key, count);
		goto done;
	}
	if (values == NULL) {
		status = FAIL(ST_MEMORY, "%s: no memory for %zu labels", name, count);
		goto done;
	}
	for (size_t i = 0; i < count; i++) {
		if (listed)
			TRY_DONE(label_read(pickle_item(node, i), name, &values[i]));
		else
			values[i] = array_item(&array, i);
	}
	*labels = values;
	values = NULL;
done:
	free(values);
	free(array.owned);
	return status;
}

/* (n, 3072) or (n, 3, 32, 32), planar; (n, 32, 32, 3), which is not. */
static enum status pixels_check(const struct array *data, const char *name, bool *planar)
{
	const size_t *s = data->shape;
	bool flat = data->rank == 2 && s[1] == CIFAR_IMAGE_BYTES;
	bool planes = data->rank == 4 && s[1] == 3 && s[2] == CIFAR_SIZE && s[3] == CIFAR_SIZE;
	bool mixed = data->rank == 4 && s[1] == CIFAR_SIZE && s[2] == CIFAR_SIZE && s[3] == 3;
	if (data->item_bytes != 1 || data->is_signed || data->fortran || (!flat && !planes && !mixed))
		return FAIL(ST_DATA, "%s: `data` must be uint8 of shape (n, 3072), (n, 3, 32, 32) or (n, 32, 32, 3) in C order", name);
	*planar = !mixed;
	return ST_OK;
}

static enum status images_give(const struct array *data, bool planar, const int64_t *labels, cifar_take *take, void *context)
{
	for (size_t i = 0; i < data->shape[0]; i++) {
		const uint8_t *pixels = data->bytes + i * CIFAR_IMAGE_BYTES;
		uint8_t planes[CIFAR_IMAGE_BYTES];
		if (!planar) {
			for (size_t at = 0; at < CIFAR_IMAGE_BYTES; at++)
				planes[at % 3 * (CIFAR_SIZE * CIFAR_SIZE) + at / 3] = pixels[at];
			pixels = planes;
		}
		TRY(take(context, (unsigned)labels[i], pixels));
	}
	return ST_OK;
}

static enum status labels_check(const int64_t *labels, const int64_t *coarse, size_t count, const char *name, const uint8_t *coarse_of_fine,
	int classes)
{
	for (size_t i = 0; i < count; i++) {
		if (labels[i] < 0 || labels[i] >= classes)
			return FAIL(ST_DATA, "%s: image %zu has label %lld; a CIFAR-%d label is 0 to %d", name, i, (long long)labels[i], classes, classes - 1);
		if (coarse != NULL && coarse[i] != coarse_of_fine[labels[i]])
			return FAIL(ST_DATA, "%s: image %zu has coarse label %lld with fine label %lld, which CIFAR-100 puts under %u", name, i,
				(long long)coarse[i], (long long)labels[i], coarse_of_fine[labels[i]]);
	}
	return ST_OK;
}

enum status cifar_pickle_read(const uint8_t *bytes, size_t count, const char *name, const uint8_t *coarse_of_fine, enum cifar_kind *kind,
	cifar_take *take, void *context)
{
	enum status status = ST_OK;
	struct pickle *pickle = NULL;
	struct array data = {0};
	int64_t *labels = NULL, *coarse = NULL;
	TRY(pickle_parse(name, bytes, count, &pickle, NULL));
	const struct pickle_node *root = pickle_root(pickle), *fine_node = pickle_find(root, "fine_labels"), *coarse_node = NULL;
	const char *key = fine_node != NULL ? "fine_labels" : "labels";
	const struct pickle_node *labels_node = pickle_find(root, key), *data_node = pickle_find(root, "data");
	if (labels_node == NULL || data_node == NULL) {
		status = FAIL(ST_DATA, "%s: a pickle without `%s`; CIFAR's python files hold a dict with `data` and `fine_labels` or `labels`", name,
			data_node == NULL ? "data" : "fine_labels");
		goto done;
	}
	bool planar;
	TRY_DONE(array_read(data_node, name, &data));
	TRY_DONE(pixels_check(&data, name, &planar));
	size_t images = data.shape[0];
	TRY_DONE(labels_read(labels_node, key, name, images, &labels));
	if (fine_node != NULL)
		coarse_node = pickle_find(root, "coarse_labels");
	if (coarse_node != NULL)
		TRY_DONE(labels_read(coarse_node, "coarse_labels", name, images, &coarse));
	enum cifar_kind found = fine_node != NULL ? CIFAR_100 : CIFAR_10;
	for (size_t i = 0; i < images; i++)
		if (labels[i] >= CIFAR_10)
			found = CIFAR_100; /* a re-packed file may call fine labels `labels` */
	TRY_DONE(labels_check(labels, coarse, images, name, coarse_of_fine, (int)found));
	*kind = found;
	status = images_give(&data, planar, labels, take, context);
done:
	free(coarse);
	free(labels);
	free(data.owned);
	pickle_free(pickle);
	return status;
}

enum status cifar_names_unpickle(const uint8_t *bytes, size_t count, const char *name, struct cifar_names *names)
{
	enum status status = ST_OK;
	struct pickle *pickle = NULL;
	struct cifar_names found = {0};
	TRY(pickle_parse(name, bytes, count, &pickle, NULL));
	const struct pickle_node *list = pickle_find(pickle_root(pickle), "fine_label_names");
	if (list == NULL)
		list = pickle_find(pickle_root(pickle), "label_names");
	for (size_t i = 0; i < pickle_count(list); i++) {
		const uint8_t *text;
		size_t length;
		if (!pickle_string(pickle_item(list, i), &text, &length)) {
			status = FAIL(ST_DATA, "%s: class name %zu is not a string", name, i);
			goto done;
		}
		TRY_DONE(cifar_names_add(&found, text, length, name));
	}
	if (found.count > 0) {
		cifar_names_free(names);
		*names = found;
		found = (struct cifar_names){0};
	}
done:
	cifar_names_free(&found);
	pickle_free(pickle);
	return status;
}
