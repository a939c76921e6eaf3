/* cudart_memory.c: device memory that catches mistakes, and copies.
 *
 * One range of addresses is device memory, never used twice. It is closed (PROT_NONE, or a protection key where the processor has them) but
 * while items run. Without keys closing walks over all pages; then much memory is closed only one time in sixteen, at random. An allocation ends, up to its alignment, at a closed page; the slack on both sides holds a pattern that is checked after
 * every item. New memory is 0xFF: NaN in every floating-point format. */
#define _GNU_SOURCE
#include "test/sim/cudart.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 256, POISON = 0xFF, CANARY = 0xC5, PAGE = 4096, CLOSE_ONE_OF = 16 };
static const size_t much_bytes = (size_t)32 << 20;
static const size_t range_bytes = (size_t)1 << 40;

/* Device memory, or pinned host memory. */
struct allocation {
	char *block, *pages;
	size_t bytes, pages_bytes;
	int device;
	bool live, registered; /* registered: the program's own memory, pinned by cudaHostRegister */
};

static struct {
	char *base, *next;
	int key; /* protection key; −1: mprotect */
	struct allocation *device, *host;
	size_t device_count, host_count, live_bytes;
	int open;
	bool left_open;
	const char *running;
	struct sigaction fault_before;
} memory;

static size_t round_up(size_t bytes, size_t multiple)
{
	return (bytes + multiple - 1) / multiple * multiple;
}

bool memory_is_device(const void *pointer)
{
	return memory.base && (const char *)pointer >= memory.base && (const char *)pointer < memory.base + range_bytes;
}

static const struct allocation *allocation_near(const void *pointer)
{
	for (size_t i = memory.device_count; i-- > 0;)
		if ((const char *)pointer >= memory.device[i].pages - PAGE && (const char *)pointer < memory.device[i].pages + memory.device[i].pages_bytes + PAGE)
			return &memory.device[i];
	return NULL;
}

static void pointer_describe(const void *pointer, char *text, size_t text_bytes)
{
	const struct allocation *a = allocation_near(pointer);
	if (!a)
		snprintf(text, text_bytes, "%p: device memory that was never allocated", pointer);
	else
		snprintf(text, text_bytes, "%p: offset %td of allocation %td (%zu bytes, %s)", pointer, (const char *)pointer - a->block, a - memory.device,
			a->bytes, a->live ? "live" : "freed");
}

/* A fault in device memory gets a sentence; then whoever handled faults before goes on. */
static void fault_handle(int signal_number, siginfo_t *info, void *context)
{
	if (memory_is_device(info->si_addr)) {
		char where[200], line[400];
		pointer_describe(info->si_addr, where, sizeof where);
		int bytes = snprintf(line, sizeof line, "simulated GPU: %s%s touched %s\n", memory.running ? "item " : "host code",
			memory.running ? memory.running : "", where);
		if (write(2, line, (size_t)bytes) < 0)
			_exit(98);
	}
	if (memory.fault_before.sa_flags & SA_SIGINFO)
		memory.fault_before.sa_sigaction(signal_number, info, context);
	else if (memory.fault_before.sa_handler != SIG_DFL && memory.fault_before.sa_handler != SIG_IGN)
		memory.fault_before.sa_handler(signal_number);
	else
		signal(signal_number, SIG_DFL); /* the instruction runs again and ends the program */
}

static void range_reserve(void)
{
	memory.base = mmap(NULL, range_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory.base == MAP_FAILED)
		sim_abort("cannot reserve %zu bytes of addresses for device memory: %s", range_bytes, strerror(errno));
	memory.next = memory.base + PAGE;
	const char *keys = getenv("SIM_PKEYS");
	memory.key = keys && !strcmp(keys, "0") ? -1 : pkey_alloc(0, PKEY_DISABLE_ACCESS);
	struct sigaction action = {.sa_sigaction = fault_handle, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
	sigaction(SIGSEGV, &action, &memory.fault_before);
}

/* --- open and closed --------------------------------------------------------------------------------------------------------- */

static void pages_protect(char *pages, size_t bytes, int protection)
{
	if (mprotect(pages, bytes, protection))
		sim_abort("mprotect of %zu bytes of device memory: %s", bytes, strerror(errno));
}

void memory_open(void)
{
	if (memory.open++ || !memory.base)
		return;
	if (memory.left_open)
		memory.left_open = false;
	else if (memory.key >= 0)
		pkey_set(memory.key, 0);
	else
		for (size_t i = 0; i < memory.device_count; i++)
			if (memory.device[i].live)
				pages_protect(memory.device[i].pages, memory.device[i].pages_bytes, PROT_READ | PROT_WRITE);
}

void memory_close(void)
{
	if (--memory.open || !memory.base)
		return;
	if (memory.key >= 0)
		pkey_set(memory.key, PKEY_DISABLE_ACCESS);
	else if (memory.live_bytes > much_bytes && random_below(CLOSE_ONE_OF))
		memory.left_open = true;
	else
		pages_protect(memory.base, (size_t)(memory.next - memory.base), PROT_NONE);
}

void memory_running(const char *name)
{
	memory.running = name;
}

static void allocation_check(const struct allocation *a, const char *last)
{
	for (const char *p = a->pages; p < a->pages + a->pages_bytes; p++) {
		if (p == a->block)
			p += a->bytes;
		if (p < a->pages + a->pages_bytes && (unsigned char)*p != CANARY)
			sim_abort("%s wrote beside device memory: at offset %td of an allocation of %zu bytes", last, p - a->block, a->bytes);
	}
}

void memory_check(const char *last)
{
	for (size_t i = 0; i < memory.device_count; i++)
		if (memory.device[i].live)
			allocation_check(&memory.device[i], last);
}

void memory_leaks(void)
{
	size_t count = 0, bytes = 0;
	for (size_t i = 0; i < memory.device_count; i++)
		count += memory.device[i].live, bytes += memory.device[i].live ? memory.device[i].bytes : 0;
	for (size_t i = 0; i < memory.host_count; i++)
		count += memory.host[i].live, bytes += memory.host[i].live ? memory.host[i].bytes : 0;
	if (!count)
		return;
	fflush(NULL);
	fprintf(stderr, "simulated GPU: %zu allocations of %zu bytes together were not freed\n", count, bytes);
	_exit(97);
}

/* --- device memory --------------------------------------------------------------------------------------------------------------- */

static cudaError_t device_allocate(void **pointer, size_t bytes)
{
	if (!pointer)
		return cudaErrorInvalidValue;
	if (bytes == 0) {
		*pointer = NULL;
		return cudaSuccess;
	}
	struct device *device = device_current();
	size_t rounded = round_up(bytes, ALIGNMENT), pages_bytes = round_up(rounded, PAGE);
	if (bytes > device->memory_bytes || rounded > device->memory_bytes - device->used_bytes)
		return cudaErrorMemoryAllocation;
	if (!memory.base)
		range_reserve();
	if (pages_bytes + PAGE > (size_t)(memory.base + range_bytes - memory.next))
		sim_abort("all addresses for device memory were used: too many allocations in one program");
	struct allocation a = {.pages = memory.next, .pages_bytes = pages_bytes, .bytes = bytes, .device = sim_device(), .live = true};
	a.block = a.pages + pages_bytes - rounded;
	memory.next += pages_bytes + PAGE;

	pages_protect(a.pages, a.pages_bytes, PROT_READ | PROT_WRITE);
	memset(a.pages, CANARY, (size_t)(a.block - a.pages));
	memset(a.block, POISON, bytes);
	memset(a.block + bytes, CANARY, rounded - bytes);
	if (memory.key >= 0) {
		if (pkey_mprotect(a.pages, a.pages_bytes, PROT_READ | PROT_WRITE, memory.key))
			sim_abort("pkey_mprotect: %s", strerror(errno));
	} else if (!memory.open && !memory.left_open) {
		pages_protect(a.pages, a.pages_bytes, PROT_NONE);
	}
	device->used_bytes += rounded;
	memory.live_bytes += pages_bytes;
	memory.device = sim_grow(memory.device, memory.device_count + 1, sizeof *memory.device);
	memory.device[memory.device_count++] = a;
	*pointer = a.block;
	return cudaSuccess;
}

static struct allocation *device_find(const void *pointer, const char *call)
{
	for (size_t i = memory.device_count; i-- > 0;)
		if (memory.device[i].block == pointer && memory.device[i].live)
			return &memory.device[i];
	char where[200];
	pointer_describe(pointer, where, sizeof where);
	sim_abort("%s of what is no live allocation: %s", call, where);
}

/* Memory must be open. The addresses stay reserved, and closed. */
static void allocation_free(struct allocation *a)
{
	allocation_check(a, "something");
	if (mmap(a->pages, a->pages_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		sim_abort("freeing device memory: %s", strerror(errno));
	device_at(a->device)->used_bytes -= round_up(a->bytes, ALIGNMENT);
	memory.live_bytes -= a->pages_bytes;
	a->live = false;
}

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
	CALL_UNSAFE("cudaMalloc", device_allocate(pointer, bytes));
}

/* Waits for the device, as CUDA's does. */
static cudaError_t device_free(void *pointer)
{
	if (!pointer)
		return cudaSuccess;
	int device = device_find(pointer, "cudaFree")->device;
	cudaError_t error = device_wait(device);
	memory_open();
	allocation_free(device_find(pointer, "cudaFree"));
	memory_close();
	return error;
}

cudaError_t cudaFree(void *pointer)
{
	CALL_UNSAFE("cudaFree", device_free(pointer));
}

cudaError_t cudaMallocAsync(void **pointer, size_t bytes, cudaStream_t stream)
{
	CALL_UNSAFE("cudaMallocAsync", (stream_of(stream, "cudaMallocAsync"), device_allocate(pointer, bytes)));
}

static enum sim_progress free_run(void *context)
{
	allocation_free(device_find(*(void **)context, "cudaFreeAsync"));
	return SIM_DONE;
}
static const struct sim_work work_free = {.name = "cudaFreeAsync", .run = free_run};

cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream)
{
	CALL_UNSAFE("cudaFreeAsync", stream_push(stream_of(stream, "cudaFreeAsync"), &work_free, &pointer, sizeof pointer));
}

static void device_check(const void *pointer, size_t bytes, const char *what)
{
	if (!bytes)
		return;
	const struct allocation *a = memory_is_device(pointer) ? allocation_near(pointer) : NULL;
	char where[200];
	pointer_describe(pointer, where, sizeof where);
	if (!memory_is_device(pointer))
		sim_abort("%s: %p is not device memory", what, pointer);
	if (!a || !a->live || (const char *)pointer < a->block || bytes > a->bytes || (size_t)((const char *)pointer - a->block) > a->bytes - bytes)
		sim_abort("%s: %zu bytes that are not inside one live allocation, at %s", what, bytes, where);
	if (a->device != sim_device())
		sim_abort("%s: memory of device %d, used with device %d as the current one", what, a->device, sim_device());
}

void sim_pointer_check(const void *pointer, size_t bytes, const char *what)
{
	lock_take();
	device_check(pointer, bytes, what);
	lock_give();
}

/* --- pinned memory --------------------------------------------------------------------------------------------------------------- */

static cudaError_t host_allocate(void **pointer, size_t bytes)
{
	if (!pointer || bytes == 0)
		return cudaErrorInvalidValue;
	size_t rounded = round_up(bytes, ALIGNMENT), pages_bytes = round_up(rounded, PAGE);
	char *pages = mmap(NULL, pages_bytes + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pages == MAP_FAILED || mprotect(pages, pages_bytes, PROT_READ | PROT_WRITE))
		return cudaErrorMemoryAllocation;
	struct allocation a = {.pages = pages, .pages_bytes = pages_bytes, .block = pages + pages_bytes - rounded, .bytes = bytes, .live = true};
	memset(a.pages, CANARY, pages_bytes);
	memset(a.block, POISON, bytes);
	memory.host = sim_grow(memory.host, memory.host_count + 1, sizeof *memory.host);
	memory.host[memory.host_count++] = a;
	*pointer = a.block;
	return cudaSuccess;
}

static struct allocation *host_find(const void *pointer)
{
	for (size_t i = 0; i < memory.host_count; i++)
		if (memory.host[i].live && (const char *)pointer >= memory.host[i].block && (const char *)pointer < memory.host[i].block + memory.host[i].bytes)
			return &memory.host[i];
	return NULL;
}

bool memory_is_pinned(const void *pointer)
{
	return host_find(pointer);
}

static cudaError_t host_free(void *pointer)
{
	if (!pointer)
		return cudaSuccess;
	struct allocation *a = host_find(pointer);
	if (!a || a->block != pointer || a->registered)
		sim_abort("cudaFreeHost: %p is no live pinned allocation", pointer);
	size_t index = (size_t)(a - memory.host);
	cudaError_t error = cudaSuccess;
	for (int i = 0; i < devices_count() && !error; i++)
		error = device_wait(i);
	a = &memory.host[index];
	allocation_check(a, "something");
	munmap(a->pages, a->pages_bytes + PAGE);
	a->live = false;
	return error;
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes)
{
	CALL_UNSAFE("cudaMallocHost", host_allocate(pointer, bytes));
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags)
{
	(void)flags;
	CALL_UNSAFE("cudaHostAlloc", host_allocate(pointer, bytes));
}

cudaError_t cudaFreeHost(void *pointer)
{
	CALL_UNSAFE("cudaFreeHost", host_free(pointer));
}

static cudaError_t host_register(void *pointer, size_t bytes)
{
	if (!pointer || !bytes)
		return cudaErrorInvalidValue;
	if (host_find(pointer) || host_find((char *)pointer + bytes - 1))
		return cudaErrorHostMemoryAlreadyRegistered;
	memory.host = sim_grow(memory.host, memory.host_count + 1, sizeof *memory.host);
	memory.host[memory.host_count++] = (struct allocation){.block = pointer, .bytes = bytes, .live = true, .registered = true};
	return cudaSuccess;
}

static cudaError_t host_unregister(void *pointer)
{
	struct allocation *a = host_find(pointer);
	if (!a || !a->registered || a->block != pointer)
		return cudaErrorHostMemoryNotRegistered;
	a->live = false;
	return cudaSuccess;
}

cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags)
{
	(void)flags;
	CALL_UNSAFE("cudaHostRegister", host_register(pointer, bytes));
}

cudaError_t cudaHostUnregister(void *pointer)
{
	CALL_UNSAFE("cudaHostUnregister", host_unregister(pointer));
}

static cudaError_t attributes_fill(struct cudaPointerAttributes *attributes, const void *pointer)
{
	memset(attributes, 0, sizeof *attributes);
	attributes->type = memory_is_device(pointer) ? cudaMemoryTypeDevice : memory_is_pinned(pointer) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
	if (attributes->type == cudaMemoryTypeDevice) {
		const struct allocation *a = allocation_near(pointer);
		attributes->device = a ? a->device : 0;
		attributes->devicePointer = (void *)(uintptr_t)pointer;
	} else if (attributes->type == cudaMemoryTypeHost) {
		attributes->hostPointer = attributes->devicePointer = (void *)(uintptr_t)pointer;
	}
	return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer)
{
	CALL("cudaPointerGetAttributes", attributes_fill(attributes, pointer));
}

/* --- copies ------------------------------------------------------------------------------------------------------------------------ */

struct copy {
	void *to;
	const void *from; /* NULL: a value is set */
	size_t bytes;
	int value, device;
};

/* Memory that was freed since the copy was enqueued is found here. */
static enum sim_progress copy_run(void *context)
{
	const struct copy *copy = context;
	const struct allocation *a;
	for (int side = 0; side < 2; side++) {
		const void *pointer = side ? copy->from : copy->to;
		if (memory_is_device(pointer) && (!(a = allocation_near(pointer)) || !a->live))
			sim_abort("a copy or memset of %zu bytes ran after its device memory %p was freed", copy->bytes, pointer);
	}
	if (copy->from)
		memmove(copy->to, copy->from, copy->bytes);
	else
		memset(copy->to, copy->value, copy->bytes);
	return SIM_DONE;
}
static const struct sim_work work_copy = {.name = "cudaMemcpy", .run = copy_run}, work_set = {.name = "cudaMemset", .run = copy_run};

/* blocking: the host waits, as CUDA documents: always for cudaMemcpy, and for an asynchronous copy from the device to pageable memory.
 * A copy from pageable memory may or may not read it before it returns; here it does not. */
static cudaError_t copy_push(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, struct stream *stream, bool blocking)
{
	bool to_device = memory_is_device(to), from_device = memory_is_device(from);
	if (!bytes)
		return cudaSuccess;
	if (kind != cudaMemcpyDefault && (to_device != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice)
		|| from_device != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice))) {
		fprintf(stderr, "simulated GPU: a copy's pointers %p, %p do not fit its direction %d\n", to, from, (int)kind);
		return cudaErrorInvalidValue;
	}
	if (to_device)
		device_check(to, bytes, "destination of a copy");
	if (from_device)
		device_check(from, bytes, "source of a copy");
	bool pageable = (!to_device && !memory_is_pinned(to)) || (!from_device && !memory_is_pinned(from));
	if (stream->capture && (blocking || pageable))
		return capture_break(stream->capture, cudaErrorStreamCaptureUnsupported);
	blocking |= !to_device && !memory_is_pinned(to);
	struct copy copy = {.to = to, .from = from, .bytes = bytes};
	cudaError_t error = stream_push(stream, &work_copy, &copy, sizeof copy);
	return error || !blocking ? error : item_wait(stream->tail, stream->device);
}

static cudaError_t set_push(void *to, int value, size_t bytes, struct stream *stream)
{
	if (!bytes)
		return cudaSuccess;
	device_check(to, bytes, "memset");
	struct copy copy = {.to = to, .value = value, .bytes = bytes};
	return stream_push(stream, &work_set, &copy, sizeof copy);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
	CALL_UNSAFE("cudaMemcpy", copy_push(to, from, bytes, kind, stream_of(NULL, "cudaMemcpy"), true));
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
	CALL("cudaMemcpyAsync", copy_push(to, from, bytes, kind, stream_of(stream, "cudaMemcpyAsync"), false));
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
	CALL_UNSAFE("cudaMemset", set_push(to, value, bytes, stream_of(NULL, "cudaMemset")));
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
	CALL("cudaMemsetAsync", set_push(to, value, bytes, stream_of(stream, "cudaMemsetAsync")));
}
