/* cudnn_descriptors.c: descriptors: made, told attributes, finalised, asked, destroyed.
 *
 * A program holds a handle of a few bytes that is never given back to the allocator, so that the use of a destroyed descriptor is noticed; what
 * the descriptor says is a body that whoever was given it shares. SIM_LEAKS=1: descriptors and handles left at the end are named. */
#include "test/sim/cudnn_sim.h"
#include "test/sim/sim.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char last_sentence[512];

cudnnStatus_t cudnn_refuse(cudnnStatus_t status, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(last_sentence, sizeof last_sentence, format, arguments);
	va_end(arguments);
	return status;
}

void cudnn_misuse(const char *format, ...)
{
	char sentence[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(sentence, sizeof sentence, format, arguments);
	va_end(arguments);
	sim_abort("cuDNN: %s", sentence);
}

void cudnnGetLastErrorString(char *message, size_t max_size)
{
	if (max_size > 0)
		snprintf(message, max_size, "%s", last_sentence);
}

/* --- bodies ------------------------------------------------------------------------------------------------------------ */

static void *allocate(size_t bytes)
{
	void *memory = calloc(1, bytes > 0 ? bytes : 1);
	if (memory == NULL)
		cudnn_misuse("no memory for %zu bytes", bytes);
	return memory;
}

static pthread_mutex_t references_lock = PTHREAD_MUTEX_INITIALIZER;

struct body *body_create(cudnnBackendDescriptorType_t type)
{
	struct body *body = allocate(sizeof *body);
	body->references = 1;
	body->type = type;
	return body;
}

struct body *body_retain(struct body *body)
{
	pthread_mutex_lock(&references_lock);
	body->references++;
	pthread_mutex_unlock(&references_lock);
	return body;
}

static void value_clear(struct value *value)
{
	if (value->type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
		for (int64_t i = 0; i < value->count; i++)
			body_release(((struct body **)value->data)[i]);
	free(value->data);
}

void body_release(struct body *body)
{
	if (body == NULL)
		return;
	pthread_mutex_lock(&references_lock);
	int left = --body->references;
	pthread_mutex_unlock(&references_lock);
	if (left > 0)
		return;
	for (int i = 0; i < body->values_count; i++)
		value_clear(&body->values[i]);
	free(body->made);
	free(body);
}

const struct value *body_value(const struct body *body, cudnnBackendAttributeName_t name)
{
	for (int i = 0; i < body->values_count; i++)
		if (body->values[i].name == (int32_t)name)
			return &body->values[i];
	return NULL;
}

struct body *body_of(const struct body *body, cudnnBackendAttributeName_t name)
{
	const struct value *value = body_value(body, name);
	return value == NULL ? NULL : *(struct body **)value->data;
}

int64_t body_integer(const struct body *body, cudnnBackendAttributeName_t name, int64_t otherwise)
{
	const struct value *value = body_value(body, name);
	if (value == NULL)
		return otherwise;
	return value->type == CUDNN_TYPE_INT64 ? *(int64_t *)value->data : *(int32_t *)value->data;
}

bool body_flag(const struct body *body, cudnnBackendAttributeName_t name)
{
	const struct value *value = body_value(body, name);
	return value != NULL && *(bool *)value->data;
}

void body_store(struct body *body, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void *elements)
{
	size_t bytes = attribute_type_bytes(type) * (size_t)count;
	void *data = allocate(bytes);
	if (bytes > 0)
		memcpy(data, elements, bytes);
	struct value *value = (struct value *)body_value(body, name);
	if (value != NULL) {
		value_clear(value);
	} else {
		if (body->values_count == VALUES_MAX)
			cudnn_misuse("a descriptor with more than %d attributes", VALUES_MAX);
		value = &body->values[body->values_count++];
	}
	*value = (struct value){.name = (int32_t)name, .type = (int32_t)type, .count = count, .data = data};
}

/* --- handles of descriptors -------------------------------------------------------------------------------------------- */

struct descriptor {
	struct descriptor *next;
	struct body *body; /* NULL: destroyed */
};

static pthread_mutex_t descriptors_lock = PTHREAD_MUTEX_INITIALIZER;
static struct descriptor *descriptors;

static void leaks_report(void)
{
	for (const struct descriptor *d = descriptors; d != NULL; d = d->next)
		if (d->body != NULL)
			fprintf(stderr, "simulated cuDNN: left at the end: a descriptor, %s\n", descriptor_name(d->body->type));
}

static void leaks_watch(void)
{
	const char *wanted = getenv("SIM_LEAKS");
	if (wanted != NULL && strcmp(wanted, "1") == 0)
		atexit(leaks_report);
}

static struct body *living(const struct descriptor *descriptor, const char *call)
{
	if (descriptor->body == NULL)
		cudnn_misuse("%s: the descriptor %p was destroyed", call, (const void *)descriptor);
	return descriptor->body;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *descriptor)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, leaks_watch);
	if (descriptor == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "cudnnBackendCreateDescriptor: no place for the descriptor");
	if (descriptor_name(type) == NULL)
		cudnn_misuse("cudnnBackendCreateDescriptor: type %d is not played", (int)type);
	struct descriptor *made = allocate(sizeof *made);
	made->body = body_create(type);
	pthread_mutex_lock(&descriptors_lock);
	made->next = descriptors;
	descriptors = made;
	pthread_mutex_unlock(&descriptors_lock);
	*descriptor = made;
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor)
{
	struct descriptor *d = descriptor;
	if (d == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "cudnnBackendDestroyDescriptor: NULL");
	body_release(living(d, "cudnnBackendDestroyDescriptor"));
	d->body = NULL;
	return CUDNN_STATUS_SUCCESS;
}

bool descriptor_lives(cudnnBackendDescriptor_t descriptor)
{
	return ((struct descriptor *)descriptor)->body != NULL;
}

cudnnStatus_t descriptor_body(cudnnBackendDescriptor_t descriptor, cudnnBackendDescriptorType_t type, struct body **body)
{
	if (descriptor == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "NULL where a descriptor of a %s belongs", descriptor_name(type));
	struct body *b = living(descriptor, "a call that was given it");
	if (b->type != type)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "a descriptor of a %s where one of a %s belongs",
			descriptor_name(b->type), descriptor_name(type));
	if (!b->finalised)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "the descriptor of a %s is not finalised", descriptor_name(type));
	*body = b;
	return CUDNN_STATUS_SUCCESS;
}

/* --- attributes -------------------------------------------------------------------------------------------------------- */

/* An operation is any of several types. */
static bool is_operation(cudnnBackendDescriptorType_t type)
{
	switch ((int)type) {
	case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
	case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
	case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
	case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: return true;
	default: return false;
	}
}

static cudnnStatus_t descriptors_store(struct body *body, const struct attribute_rule *rule, int64_t count, const void *elements)
{
	struct body *given[PROGRAM_OPERATIONS_MAX];
	for (int64_t i = 0; i < count; i++) {
		const struct descriptor *d = ((struct descriptor *const *)elements)[i];
		if (d == NULL)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "%s of a %s: NULL", rule->text, descriptor_name(body->type));
		given[i] = living(d, rule->text);
		if (rule->of >= 0 ? given[i]->type != (cudnnBackendDescriptorType_t)rule->of : !is_operation(given[i]->type))
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "%s of a %s: a %s does not belong there", rule->text,
				descriptor_name(body->type), descriptor_name(given[i]->type));
		if (!given[i]->finalised)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "%s of a %s: the %s is not finalised", rule->text,
				descriptor_name(body->type), descriptor_name(given[i]->type));
	}
	for (int64_t i = 0; i < count; i++)
		body_retain(given[i]);
	body_store(body, rule->name, rule->type, count, given);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
	int64_t count, const void *elements)
{
	if (descriptor == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "cudnnBackendSetAttribute: NULL descriptor");
	struct body *body = living(descriptor, "cudnnBackendSetAttribute");
	const struct attribute_rule *rule = attribute_find(body->type, name);
	if (rule == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "a %s has no attribute %d (that is played)", descriptor_name(body->type), (int)name);
	if (body->finalised)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "%s: the %s is finalised", rule->text, descriptor_name(body->type));
	if (rule->use == READ_ONLY)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "%s can only be read", rule->text);
	if (type != rule->type)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "%s: type %d, expected %d", rule->text, (int)type, (int)rule->type);
	if (count < 1 || (rule->count_max > 0 && count > rule->count_max))
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "%s: %lld elements, expected 1 to %d", rule->text, (long long)count, rule->count_max);
	if (elements == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "%s: no elements", rule->text);
	if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
		return descriptors_store(body, rule, count, elements);
	body_store(body, name, type, count, elements);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
	int64_t requested, int64_t *count, void *elements)
{
	if (descriptor == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "cudnnBackendGetAttribute: NULL descriptor");
	const struct body *body = living(descriptor, "cudnnBackendGetAttribute");
	const struct attribute_rule *rule = attribute_find(body->type, name);
	if (rule == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "a %s has no attribute %d (that is played)", descriptor_name(body->type), (int)name);
	if (!body->finalised)
		return cudnn_refuse(CUDNN_STATUS_NOT_INITIALIZED, "%s: the %s is not finalised", rule->text, descriptor_name(body->type));
	if (type != rule->type)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "%s: type %d, expected %d", rule->text, (int)type, (int)rule->type);
	const struct value *value = body_value(body, name);
	int64_t have = value == NULL ? 0 : value->count;
	if (requested < 0 || (requested > 0 && elements == NULL))
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "%s: no place for %lld elements", rule->text, (long long)requested);
	int64_t given = requested < have ? requested : have;
	if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR) {
		if (given > 0)
			memcpy(elements, value->data, attribute_type_bytes(type) * (size_t)given);
	} else {
		/* The caller made descriptors of the right type; they are filled. */
		for (int64_t i = 0; i < given; i++) {
			struct descriptor *to = ((struct descriptor **)elements)[i];
			struct body *from = ((struct body **)value->data)[i];
			if (to == NULL || living(to, rule->text)->type != from->type)
				return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "%s: element %lld is no descriptor of a %s", rule->text,
					(long long)i, descriptor_name(from->type));
			if (to->body->values_count > 0)
				return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "%s: element %lld was used before", rule->text, (long long)i);
			body_release(to->body);
			to->body = body_retain(from);
		}
	}
	if (count != NULL)
		*count = type == CUDNN_TYPE_BACKEND_DESCRIPTOR && requested > 0 ? given : have;
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
	if (descriptor == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "cudnnBackendFinalize: NULL descriptor");
	struct body *body = living(descriptor, "cudnnBackendFinalize");
	if (body->finalised)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "the %s is finalised already", descriptor_name(body->type));
	for (const struct attribute_rule *rule = attribute_next(body->type, NULL); rule != NULL; rule = attribute_next(body->type, rule))
		if (rule->use == NEEDED && body_value(body, rule->name) == NULL)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "a %s without %s", descriptor_name(body->type), rule->text);
	CUDNN_TRY(body_finalise(body));
	body->finalised = true;
	return CUDNN_STATUS_SUCCESS;
}
