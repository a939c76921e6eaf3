/* cudart.c: the simulated runtime's state: devices, errors, handles, random numbers, injected faults. See README.md for the variables. */
#include "test/sim/cudart.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FAULT_COUNTERS = 64, CONTEXT_BYTES = 400 << 20 };

/* Sizes as the data sheets give them. */
static const struct device_model models[] = {
	{"v100", "Tesla V100-SXM2-16GB", 70, 80, 16, 1530, 877, 4096, 6, 96},
	{"t4", "Tesla T4", 75, 40, 15, 1590, 5001, 256, 4, 64},
	{"a100", "NVIDIA A100-SXM4-40GB", 80, 108, 40, 1410, 1215, 5120, 40, 163},
	{"a10g", "NVIDIA A10G", 86, 80, 22, 1710, 6251, 384, 6, 99},
	{"l4", "NVIDIA L4", 89, 58, 22, 2040, 6251, 192, 48, 99},
	{"h100", "NVIDIA H100 80GB HBM3", 90, 132, 79, 1980, 2619, 5120, 50, 227},
	{"b200", "NVIDIA B200", 100, 148, 178, 1965, 3996, 8192, 126, 227},
	{"rtx5090", "NVIDIA GeForce RTX 5090", 120, 170, 31, 2407, 14001, 512, 96, 99},
};

static struct {
	pthread_mutex_t lock;
	bool opened, forked;
	uint64_t seed, random;
	int driver;
	cudaError_t broken; /* no device can be used, because of this */
	struct device devices[DEVICES_MAX];
	int devices_count;
	struct object *objects[OBJECT_KINDS];
	struct { char key[96]; int count; } counters[FAULT_COUNTERS];
	int counters_count;
} sim = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local int current;
static _Thread_local cudaError_t last_error;

/* --- small things --------------------------------------------------------------------------------------------------------- */

void lock_take(void)
{
	if (item_runs)
		sim_abort("a call of the runtime from inside an item (or a host function) that it runs");
	pthread_mutex_lock(&sim.lock);
}

void lock_give(void)
{
	pthread_mutex_unlock(&sim.lock);
}

void lock_pause(void)
{
	lock_give();
	nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	lock_take();
}

void sim_abort(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fflush(stdout);
	fprintf(stderr, "simulated GPU: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, " (SIM_SEED=%llu)\n", (unsigned long long)sim.seed);
	va_end(arguments);
	abort();
}

void *sim_allocate(size_t count, size_t bytes)
{
	void *memory = calloc(count ? count : 1, bytes ? bytes : 1);
	if (!memory)
		sim_abort("the simulator itself is out of memory");
	return memory;
}

void *sim_grow(void *array, size_t count, size_t bytes)
{
	/* It had count - 1, and was full if that is a power of two. */
	size_t had = count - 1, room = 1;
	if (had & (had - 1))
		return array;
	while (room < count)
		room *= 2;
	void *grown = realloc(array, room * bytes);
	if (!grown)
		sim_abort("the simulator itself is out of memory");
	return grown;
}

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
uint64_t sim_random(void)
{
	uint64_t z = __atomic_add_fetch(&sim.random, 0x9e3779b97f4a7c15, __ATOMIC_RELAXED);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

uint64_t random_below(uint64_t bound)
{
	return sim_random() % bound;
}

/* --- opening ------------------------------------------------------------------------------------------------------------------ */

static long variable_number(const char *name, long otherwise, long min, long max)
{
	const char *text = getenv(name);
	if (!text || !*text)
		return otherwise;
	char *end;
	long value = strtol(text, &end, 10);
	if (*end || value < min || value > max)
		sim_abort("%s=%s, expected a whole number from %ld to %ld", name, text, min, max);
	return value;
}

static const struct device_model *model_find(const char *key, size_t bytes)
{
	for (size_t i = 0; i < sizeof models / sizeof *models; i++)
		if (strlen(models[i].key) == bytes && !memcmp(models[i].key, key, bytes))
			return &models[i];
	sim_abort("SIM_GPU names \"%.*s\", which is not in the table of cudart.c", (int)bytes, key);
}

/* CUDA's state does not survive a fork. */
static void forked(void)
{
	pthread_mutex_init(&sim.lock, NULL);
	sim.forked = sim.opened;
}

static void leaks_report(void)
{
	if (!sim.opened || sim.forked || variable_number("SIM_LEAKS", 0, 0, 1) == 0)
		return;
	static const char *const kinds[] = {"streams", "events", "graphs", "instantiated graphs", "libraries"};
	size_t live = 0;
	for (int kind = 0; kind <= OBJECT_LIBRARY; kind++) {
		size_t count = 0;
		for (struct object *o = sim.objects[kind]; o; o = o->next)
			count += !o->destroyed;
		if (count)
			fprintf(stderr, "simulated GPU: %zu %s were not destroyed\n", count, kinds[kind]);
		live += count;
	}
	memory_leaks();
	streams_leaks();
	if (live) {
		fflush(NULL);
		_exit(97);
	}
}

static void sim_open(void)
{
	sim.opened = true;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	uint64_t seed = (uint64_t)now.tv_sec * 1000003 + (uint64_t)now.tv_nsec + (uint64_t)getpid();
	sim.seed = sim.random = (uint64_t)variable_number("SIM_SEED", (long)(seed % 1000000007), 0, 1L << 62);
	sim.driver = (int)variable_number("SIM_DRIVER", CUDART_VERSION, 0, 99990);
	sim.devices_count = (int)variable_number("SIM_DEVICES", 1, 0, DEVICES_MAX);
	long memory_mb = variable_number("SIM_MEMORY_MB", 0, 0, 1 << 20);
	const char *keys = getenv("SIM_GPU");
	if (!keys || !*keys)
		keys = "a100";
	for (int i = 0; i < sim.devices_count; i++) {
		/* A list of types; the last one stands for the rest. */
		size_t bytes = strcspn(keys, ",");
		struct device *device = &sim.devices[i];
		device->model = model_find(keys, bytes);
		device->memory_bytes = memory_mb ? (size_t)memory_mb << 20 : (size_t)device->model->memory_gb << 30;
		device->used_bytes = memory_mb ? 0 : CONTEXT_BYTES;
		keys += keys[bytes] == ',' ? bytes + 1 : 0;
	}
	/* A driver serves runtimes of its own major version and of older ones. */
	sim.broken = sim.driver / 1000 < CUDART_VERSION / 1000 ? cudaErrorInsufficientDriver : sim.devices_count == 0 ? cudaErrorNoDevice : cudaSuccess;
	pthread_atfork(NULL, NULL, forked);
	atexit(leaks_report);
}

/* --- faults --------------------------------------------------------------------------------------------------------------------- */

bool fault_strikes(const char *variable, const char *name)
{
	const char *rules = getenv(variable);
	if (!rules || !*rules)
		return false;
	size_t name_bytes = strlen(name);
	int count = 0;
	bool failed = false;
	for (const char *rule = rules; *rule; rule += strcspn(rule, ","), rule += *rule == ',') {
		if (strncmp(rule, name, name_bytes) || rule[name_bytes] != ':')
			continue;
		char *end;
		long k = strtol(rule + name_bytes + 1, &end, 10);
		if (*end == '@' && strtol(end + 1, &end, 10) != current)
			continue;
		if (k < 1 || (*end && *end != ','))
			sim_abort("%s=%s: a rule is NAME:K or NAME:K@DEVICE, K from 1", variable, rules);
		if (!count) {
			int i = 0;
			char key[sizeof sim.counters[0].key];
			snprintf(key, sizeof key, "%s %s", variable, name);
			while (i < sim.counters_count && strcmp(sim.counters[i].key, key))
				i++;
			if (i == FAULT_COUNTERS)
				sim_abort("more than %d names in rules of faults", FAULT_COUNTERS);
			if (i == sim.counters_count) {
				snprintf(sim.counters[i].key, sizeof key, "%s", key);
				sim.counters_count++;
			}
			count = ++sim.counters[i].count;
		}
		failed |= count == k;
	}
	return failed;
}

bool sim_fault(const char *variable, const char *name)
{
	lock_take();
	bool strikes = fault_strikes(variable, name);
	lock_give();
	return strikes;
}

/* What a call of that name gives when it is rigged to fail. */
static cudaError_t fault_error(const char *call)
{
	return strstr(call, "Malloc") || strstr(call, "HostAlloc") ? cudaErrorMemoryAllocation :
		strstr(call, "Launch") ? cudaErrorLaunchOutOfResources : cudaErrorUnknown;
}

/* --- calls ------------------------------------------------------------------------------------------------------------------------ */

cudaError_t call_begin(const char *name)
{
	lock_take();
	if (!sim.opened)
		sim_open();
	if (sim.forked)
		return cudaErrorInitializationError;
	if (sim.broken)
		return sim.broken;
	if (sim.devices[current].error)
		return sim.devices[current].error;
	return fault_strikes("SIM_FAIL", name) ? fault_error(name) : cudaSuccess;
}

cudaError_t call_begin_unsafe(const char *name)
{
	cudaError_t error = call_begin(name);
	if (!error && capture_forbids_unsafe())
		error = cudaErrorStreamCaptureUnsupported;
	return error;
}

cudaError_t call_end(cudaError_t error)
{
	/* cudaErrorNotReady is an answer, but it is kept as the last error all the same. */
	if (error)
		last_error = error;
	lock_give();
	return error;
}

struct device *device_at(int index)
{
	return &sim.devices[index];
}

struct device *device_current(void)
{
	return &sim.devices[current];
}

int devices_count(void)
{
	return sim.devices_count;
}

void device_kill(struct device *device, cudaError_t error)
{
	device->error = error;
}

int sim_device(void)
{
	return current;
}

void sim_device_info(struct sim_device_info *info)
{
	const struct device *device = device_current();
	if (!device->model)
		sim_abort("no device is there, but its properties were asked for");
	snprintf(info->name, sizeof info->name, "%s", device->model->name);
	info->sm = device->model->sm;
	info->multiprocessors = device->model->multiprocessors;
	info->memory_bytes = device->memory_bytes;
}

/* --- handles ------------------------------------------------------------------------------------------------------------------------ */

static const char *const object_names[] = {"stream", "event", "graph", "instantiated graph", "library", "kernel"};

static uint64_t object_magic(enum object_kind kind)
{
	return 0x736d656c74000000 + kind;
}

void *object_make(enum object_kind kind, size_t bytes)
{
	struct object *object = sim_allocate(1, bytes);
	object->magic = object_magic(kind);
	object->next = sim.objects[kind];
	sim.objects[kind] = object;
	return object;
}

void object_check(const void *handle, enum object_kind kind, const char *call)
{
	const struct object *object = handle;
	if (!object || object->magic != object_magic(kind))
		sim_abort("%s: %p is no %s", call, handle, object_names[kind]);
	if (object->destroyed)
		sim_abort("%s: the %s %p was destroyed before", call, object_names[kind], handle);
}

void object_destroy(void *handle, enum object_kind kind, const char *call)
{
	object_check(handle, kind, call);
	((struct object *)handle)->destroyed = true;
}

/* --- the API: devices ----------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count)
{
	cudaError_t error = call_begin("cudaGetDeviceCount");
	*count = error ? 0 : sim.devices_count;
	return call_end(error);
}

static cudaError_t device_set(int device)
{
	if (device < 0 || device >= sim.devices_count)
		return cudaErrorInvalidDevice;
	current = device;
	return sim.devices[device].error;
}

cudaError_t cudaSetDevice(int device)
{
	CALL("cudaSetDevice", device_set(device));
}

cudaError_t cudaGetDevice(int *device)
{
	CALL("cudaGetDevice", (*device = current, cudaSuccess));
}

cudaError_t cudaInitDevice(int device, unsigned device_flags, unsigned flags)
{
	(void)device_flags, (void)flags;
	CALL("cudaInitDevice", device < 0 || device >= sim.devices_count ? cudaErrorInvalidDevice : cudaSuccess);
}

cudaError_t cudaSetDeviceFlags(unsigned flags)
{
	(void)flags;
	CALL("cudaSetDeviceFlags", cudaSuccess);
}

static cudaError_t properties_fill(struct cudaDeviceProp *p, int index)
{
	if (index < 0 || index >= sim.devices_count)
		return cudaErrorInvalidDevice;
	const struct device *device = &sim.devices[index];
	const struct device_model *model = device->model;
	memset(p, 0, sizeof *p);
	snprintf(p->name, sizeof p->name, "%s", model->name);
	memset(p->uuid.bytes, index + 1, sizeof p->uuid.bytes);
	p->totalGlobalMem = device->memory_bytes;
	p->sharedMemPerBlock = 48 << 10;
	p->sharedMemPerBlockOptin = (size_t)model->shared_optin_kb << 10;
	p->sharedMemPerMultiprocessor = p->sharedMemPerBlockOptin + 1024;
	p->regsPerBlock = p->regsPerMultiprocessor = 65536;
	p->warpSize = 32;
	p->maxThreadsPerBlock = 1024;
	p->maxThreadsPerMultiProcessor = model->sm == 75 ? 1024 : model->sm == 86 || model->sm == 89 || model->sm == 120 ? 1536 : 2048;
	p->maxBlocksPerMultiProcessor = 16;
	p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
	p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
	p->major = model->sm / 10, p->minor = model->sm % 10;
	p->multiProcessorCount = model->multiprocessors;
	p->memoryBusWidth = model->bus_bits;
	p->l2CacheSize = model->l2_mb << 20;
	p->pciBusID = 0x17 + index, p->pciDeviceID = 0;
	p->asyncEngineCount = 3;
	p->unifiedAddressing = p->concurrentKernels = p->canMapHostMemory = p->ECCEnabled = p->streamPrioritiesSupported = 1;
	p->memoryPoolsSupported = p->hostRegisterSupported = p->cooperativeLaunch = 1;
	return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
	CALL("cudaGetDeviceProperties", properties_fill(properties, device));
}

static cudaError_t attribute_get(int *value, enum cudaDeviceAttr attribute, int index)
{
	struct cudaDeviceProp p;
	cudaError_t error = properties_fill(&p, index);
	if (error)
		return error;
	const struct device_model *model = sim.devices[index].model;
	switch (attribute) {
	case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
	case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
	case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
	case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
	case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
	case cudaDevAttrMaxBlocksPerMultiprocessor: *value = p.maxBlocksPerMultiProcessor; break;
	case cudaDevAttrMaxGridDimX: *value = p.maxGridSize[0]; break;
	case cudaDevAttrMaxGridDimY: *value = p.maxGridSize[1]; break;
	case cudaDevAttrMaxGridDimZ: *value = p.maxGridSize[2]; break;
	case cudaDevAttrWarpSize: *value = p.warpSize; break;
	case cudaDevAttrClockRate: *value = model->clock_mhz * 1000; break;
	case cudaDevAttrMemoryClockRate: *value = model->memory_clock_mhz * 1000; break;
	case cudaDevAttrGlobalMemoryBusWidth: *value = p.memoryBusWidth; break;
	case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
	case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)p.sharedMemPerBlock; break;
	case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
	case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)p.sharedMemPerMultiprocessor; break;
	case cudaDevAttrReservedSharedMemoryPerBlock: *value = 1024; break;
	case cudaDevAttrMaxRegistersPerBlock: *value = p.regsPerBlock; break;
	case cudaDevAttrMaxRegistersPerMultiprocessor: *value = p.regsPerMultiprocessor; break;
	case cudaDevAttrPciBusId: *value = p.pciBusID; break;
	case cudaDevAttrPciDeviceId: *value = p.pciDeviceID; break;
	case cudaDevAttrPciDomainId: *value = 0; break;
	case cudaDevAttrAsyncEngineCount: *value = p.asyncEngineCount; break;
	case cudaDevAttrEccEnabled: *value = 1; break;
	case cudaDevAttrIntegrated:
	case cudaDevAttrTccDriver:
	case cudaDevAttrComputeMode:
	case cudaDevAttrKernelExecTimeout: *value = 0; break;
	case cudaDevAttrConcurrentKernels:
	case cudaDevAttrUnifiedAddressing:
	case cudaDevAttrCanMapHostMemory:
	case cudaDevAttrMemoryPoolsSupported:
	case cudaDevAttrHostRegisterSupported:
	case cudaDevAttrStreamPrioritiesSupported:
	case cudaDevAttrCooperativeLaunch: *value = 1; break;
	default: sim_abort("cudaDeviceGetAttribute: attribute %d is not in the table of cudart.c", (int)attribute);
	}
	return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
	CALL("cudaDeviceGetAttribute", attribute_get(value, attribute, device));
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int device)
{
	CALL("cudaDeviceGetPCIBusId", device < 0 || device >= sim.devices_count ? cudaErrorInvalidDevice :
		snprintf(text, (size_t)bytes, "0000:%02X:00.0", 0x17 + device) < bytes ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
	CALL("cudaMemGetInfo", (*total_bytes = device_current()->memory_bytes,
		*free_bytes = device_current()->memory_bytes - device_current()->used_bytes, cudaSuccess));
}

/* Both answer without a device, and without a driver. */
cudaError_t cudaDriverGetVersion(int *version)
{
	call_begin("cudaDriverGetVersion");
	*version = sim.driver;
	return call_end(cudaSuccess);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
	*version = CUDART_VERSION;
	return cudaSuccess;
}

/* --- the API: errors -------------------------------------------------------------------------------------------------------------------- */

/* Clears it, but for a dead device's, which stays for good. */
cudaError_t cudaGetLastError(void)
{
	lock_take();
	cudaError_t error = device_current()->error ? device_current()->error : last_error;
	last_error = cudaSuccess;
	lock_give();
	return error;
}

cudaError_t cudaPeekAtLastError(void)
{
	lock_take();
	cudaError_t error = device_current()->error ? device_current()->error : last_error;
	lock_give();
	return error;
}

#define ERRORS(X) \
	X(cudaSuccess, "no error") \
	X(cudaErrorInvalidValue, "invalid argument") \
	X(cudaErrorMemoryAllocation, "out of memory") \
	X(cudaErrorInitializationError, "initialization error") \
	X(cudaErrorInvalidConfiguration, "invalid configuration argument") \
	X(cudaErrorInvalidSymbol, "invalid device symbol") \
	X(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy") \
	X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version") \
	X(cudaErrorNoDevice, "no CUDA-capable device is detected") \
	X(cudaErrorInvalidDevice, "invalid device ordinal") \
	X(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered") \
	X(cudaErrorInvalidResourceHandle, "invalid resource handle") \
	X(cudaErrorSymbolNotFound, "named symbol not found") \
	X(cudaErrorNotReady, "device not ready") \
	X(cudaErrorIllegalAddress, "an illegal memory access was encountered") \
	X(cudaErrorLaunchOutOfResources, "too many resources requested for launch") \
	X(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped") \
	X(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region") \
	X(cudaErrorNotSupported, "operation not supported") \
	X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing") \
	X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture") \
	X(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences") \
	X(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began") \
	X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work") \
	X(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream") \
	X(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream") \
	X(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream") \
	X(cudaErrorStreamCaptureWrongThread, "attempt to terminate a thread-local capture sequence from another thread") \
	X(cudaErrorUnknown, "unknown error")

const char *cudaGetErrorName(cudaError_t error)
{
	switch (error) {
#define NAME(code, text) case code: return #code;
	ERRORS(NAME)
#undef NAME
	default: return "unrecognized error code";
	}
}

const char *cudaGetErrorString(cudaError_t error)
{
	switch (error) {
#define TEXT(code, text) case code: return text;
	ERRORS(TEXT)
#undef TEXT
	default: return "unrecognized error code";
	}
}
