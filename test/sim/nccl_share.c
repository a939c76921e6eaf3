/* nccl_share.c: see nccl_share.h. Values go through in chunks, two slots a rank: a rank writes its chunk, waits for everybody's, and takes what
 * it needs. Sums are in the order of ranks, rounded to the type after each, so every rank has the same bits. */
#define _GNU_SOURCE
#include "test/sim/nccl_share.h"

#include "test/sim/sim.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define MAGIC 0x736d656c744e4343

/* What a rank says of its chunk. */
struct label {
	int kind, type, root;
	uint64_t count, done;
};

struct share {
	uint64_t secret;
	_Atomic int ranks;
	struct {
		pthread_mutex_t life;
		_Atomic int entered, dead, device, parent;
		_Atomic uint64_t posted, taken; /* chunks */
		struct label labels[2];
	} rank[RANKS_MAX];
	_Alignas(4096) char slots[RANKS_MAX][2][SLOT_BYTES];
};

/* --- the memory -------------------------------------------------------------------------------------------------------------------- */

static struct share *share_map(int file)
{
	struct share *share = mmap(NULL, sizeof *share, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	return share == MAP_FAILED ? NULL : share;
}

bool share_make(struct share_id *id)
{
	int file = memfd_create("simulated NCCL", MFD_CLOEXEC);
	if (file < 0 || ftruncate(file, sizeof(struct share)))
		return false;
	struct share *share = share_map(file);
	if (!share || getrandom(&share->secret, sizeof share->secret, 0) != sizeof share->secret)
		return false;
	pthread_mutexattr_t robust;
	pthread_mutexattr_init(&robust);
	pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
	for (int r = 0; r < RANKS_MAX; r++)
		pthread_mutex_init(&share->rank[r].life, &robust);
	pthread_mutexattr_destroy(&robust);
	*id = (struct share_id){.magic = MAGIC, .secret = share->secret, .pid = getpid(), .file = file};
	munmap(share, sizeof *share);
	return true;
}

void share_forget(const struct share_id *id)
{
	if (id->magic == MAGIC && id->pid == getpid())
		close(id->file);
}

struct share *share_open(const struct share_id *id)
{
	char path[64];
	if (id->magic != MAGIC)
		return NULL;
	snprintf(path, sizeof path, "/proc/%d/fd/%d", id->pid, id->file);
	int file = open(path, O_RDWR | O_CLOEXEC);
	if (file < 0)
		return NULL;
	struct share *share = share_map(file);
	close(file);
	if (share && share->secret != id->secret) {
		share_close(share);
		return NULL;
	}
	return share;
}

void share_close(struct share *share)
{
	munmap(share, sizeof *share);
}

/* --- who is there ---------------------------------------------------------------------------------------------------------------------- */

bool share_enter(struct share *share, int rank, int ranks, int device)
{
	int none = 0, parent = (int)getppid();
	if (!atomic_compare_exchange_strong(&share->ranks, &none, ranks) && none != ranks)
		sim_abort("NCCL: rank %d says that there are %d ranks, another one said %d", rank, ranks, none);
	if (atomic_load(&share->rank[rank].entered))
		sim_abort("NCCL: two ranks say that they are rank %d", rank);
	pthread_mutex_lock(&share->rank[rank].life);
	atomic_store(&share->rank[rank].device, device);
	atomic_store(&share->rank[rank].parent, parent);
	atomic_store(&share->rank[rank].entered, 1);
	/* Ranks of one host have the same parent. */
	for (int r = 0; r < ranks; r++)
		if (r != rank && atomic_load(&share->rank[r].entered) && atomic_load(&share->rank[r].parent) == parent && atomic_load(&share->rank[r].device) == device)
			return false;
	return true;
}

bool share_is_full(struct share *share)
{
	int ranks = atomic_load(&share->ranks);
	for (int r = 0; r < ranks; r++)
		if (!atomic_load(&share->rank[r].entered))
			return false;
	return true;
}

void share_leave(struct share *share, int rank)
{
	pthread_mutex_unlock(&share->rank[rank].life);
}

int share_dead(struct share *share, int own_rank)
{
	int ranks = atomic_load(&share->ranks);
	for (int r = 0; r < ranks; r++) {
		if (r == own_rank || !atomic_load(&share->rank[r].entered))
			continue;
		int error = pthread_mutex_trylock(&share->rank[r].life);
		if (error == EOWNERDEAD) {
			atomic_store(&share->rank[r].dead, 1);
			pthread_mutex_consistent(&share->rank[r].life);
		}
		if (error == 0 || error == EOWNERDEAD)
			pthread_mutex_unlock(&share->rank[r].life);
		if (atomic_load(&share->rank[r].dead))
			return r;
	}
	return -1;
}

/* --- half precision ---------------------------------------------------------------------------------------------------------------------- */

static float float_of(uint32_t bits)
{
	float value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

static uint32_t bits_of(float value)
{
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	return bits;
}

static float widen_bf16(uint16_t bits)
{
	return float_of((uint32_t)bits << 16);
}

static uint16_t round_bf16(float value)
{
	uint32_t bits = bits_of(value);
	return isnan(value) ? 0x7FFF : (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static float widen_fp16(uint16_t bits)
{
	uint32_t sign = (uint32_t)(bits & 0x8000) << 16, rest = bits & 0x7FFF;
	if (rest >= 0x7C00)
		return float_of(sign | 0x7F800000 | (rest & 0x3FF) << 13);
	/* As if the exponent were a float's; then the difference of the two biases, 112, is a factor. It makes small ones right, too. */
	return float_of(sign | bits_of(float_of(rest << 13) * 0x1p112F));
}

static uint16_t round_fp16(float value)
{
	uint16_t sign = (uint16_t)(bits_of(value) >> 16 & 0x8000);
	float size = fabsf(value);
	if (isnan(value))
		return 0x7FFF;
	if (size >= 65520)
		return sign | 0x7C00;
	if (size < 0x1p-14F) /* counts of the smallest step, rounded by the addition */
		return sign | (uint16_t)(bits_of(size + 0.5F) - bits_of(0.5F));
	uint32_t bits = bits_of(size) - (112U << 23);
	return sign | (uint16_t)((bits + 0xFFF + (bits >> 13 & 1)) >> 13);
}

size_t type_bytes(ncclDataType_t type)
{
	return type == ncclFloat32 ? 4 : type == ncclFloat64 ? 8 : type == ncclFloat16 || type == ncclBfloat16 ? 2 : 0;
}

static void sum_add(ncclDataType_t type, void *to, const void *from, size_t count)
{
	if (type == ncclFloat32) {
		float *a = to;
		const float *b = from;
		for (size_t i = 0; i < count; i++)
			a[i] += b[i];
	} else if (type == ncclFloat64) {
		double *a = to;
		const double *b = from;
		for (size_t i = 0; i < count; i++)
			a[i] += b[i];
	} else {
		uint16_t *a = to;
		const uint16_t *b = from;
		for (size_t i = 0; i < count; i++)
			a[i] = type == ncclFloat16 ? round_fp16(widen_fp16(a[i]) + widen_fp16(b[i])) : round_bf16(widen_bf16(a[i]) + widen_bf16(b[i]));
	}
}

/* --- operations ------------------------------------------------------------------------------------------------------------------------------ */

static void labels_compare(struct share *share, int rank, int slot)
{
	const struct label *own = &share->rank[rank].labels[slot];
	for (int r = 0; r < atomic_load(&share->ranks); r++) {
		const struct label *other = &share->rank[r].labels[slot];
		if (own->kind != other->kind || own->type != other->type || own->root != other->root || own->count != other->count || own->done != other->done)
			sim_abort("NCCL: ranks %d and %d are not in the same operation: kind %d, %llu values of type %d from %llu on, against kind %d, %llu of type %d "
				"from %llu on", rank, r, own->kind, (unsigned long long)own->count, own->type, (unsigned long long)own->done, other->kind,
				(unsigned long long)other->count, other->type, (unsigned long long)other->done);
	}
}

/* All ranks are at least so far. */
static bool all_reached(struct share *share, uint64_t chunks, bool posted)
{
	for (int r = 0; r < atomic_load(&share->ranks); r++)
		if (atomic_load(posted ? &share->rank[r].posted : &share->rank[r].taken) < chunks)
			return false;
	return true;
}

bool operation_step(struct share *share, int rank, uint64_t *chunk, struct operation *o)
{
	size_t bytes_each = type_bytes(o->type);
	/* An operation on nothing is one chunk, too: the ranks still meet. */
	do {
		size_t left = o->count - o->done, count = left < SLOT_BYTES / bytes_each ? left : SLOT_BYTES / bytes_each, bytes = count * bytes_each;
		int slot = (int)(*chunk % 2), ranks = atomic_load(&share->ranks);
		if (!o->posted) {
			if (*chunk >= 2 && !all_reached(share, *chunk - 1, false))
				return false;
			share->rank[rank].labels[slot] = (struct label){(int)o->kind, (int)o->type, o->root, o->count, o->done};
			if (bytes && (o->kind == OPERATION_SUM || rank == o->root))
				memcpy(share->slots[rank][slot], o->send + o->done * bytes_each, bytes);
			atomic_store(&share->rank[rank].posted, *chunk + 1);
			o->posted = true;
		}
		if (!all_reached(share, *chunk + 1, true))
			return false;
		labels_compare(share, rank, slot);
		char *to = o->receive + o->done * bytes_each;
		if (bytes)
			memcpy(to, share->slots[o->kind == OPERATION_SUM ? 0 : o->root][slot], bytes);
		for (int r = 1; r < ranks && o->kind == OPERATION_SUM; r++)
			sum_add(o->type, to, share->slots[r][slot], count);
		atomic_store(&share->rank[rank].taken, ++*chunk);
		o->posted = false;
		o->done += count;
	} while (o->done < o->count);
	return true;
}
