// What kernels see of CUDA: included before their source. Warps are whole: masks of lanes are not looked at, and all threads of a warp
// come to each shuffle and vote.
#pragma once

#include "thread.h"

#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#ifdef EMULATED_LOOK
#define NOT_LOOKED_AT __attribute__((no_sanitize("thread")))
#else
#define NOT_LOOKED_AT
#endif

namespace emulator {

// The call of a kernel with the addresses of its arguments, and the sizes of its parameters.
template <typename... A, size_t... I>
NOT_LOOKED_AT inline void spread(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*(std::remove_cv_t<std::remove_reference_t<A>>*)args[I]...);
}
template <typename... A>
inline void call(void (*kernel)(A...), void** args) {
    spread(kernel, args, std::index_sequence_for<A...>());
}
template <typename... A>
NOT_LOOKED_AT inline size_t sizes(void (*)(A...), size_t* to) {
    ((*to++ = sizeof(A)), ...);
    return sizeof...(A);
}

// Shows the warp a value; the place of lane 0's.
template <typename T>
inline unsigned char (*show(const T& mine))[16] {
    static_assert(sizeof(T) <= 16 && std::is_trivially_copyable_v<T>, "a value that a lane can show");
    Thread& me = self();
    auto* shown = me.block->shown[me.shows++ & 1];
    memcpy(shown[me.flat], &mine, sizeof(T));
    me.block->wait(Meeting::Warp);
    return shown + me.flat / WARP * WARP;
}
template <typename T>
inline T shuffle(const T& mine, unsigned lane) {
    T theirs;
    memcpy(&theirs, show(mine)[lane % WARP], sizeof(T));
    return theirs;
}
inline unsigned lane() { return self().flat % WARP; }
// How many lanes the warp has: fewer than 32 at the end of some blocks.
inline unsigned lanes() {
    const unsigned first = self().flat / WARP * WARP, rest = self().block->count - first;
    return rest < WARP ? rest : WARP;
}

// How many threads of the block say yes.
inline int votes(bool mine) {
    Thread& me = self();
    int* counts = me.block->votes;
    const unsigned turn = me.votes++;
    counts[turn % 3] += mine;
    counts[(turn + 1) % 3] = 0;
    me.block->wait(Meeting::Block);
    ++me.barriers;
    return counts[turn % 3];
}

template <typename To, typename From>
inline To bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "");
    To y;
    memcpy(&y, &x, sizeof(To));
    return y;
}

}  // namespace emulator

#define threadIdx (emulator::self().index)
#define blockIdx (emulator::self().block->index)
#define blockDim (emulator::self().block->threads)
#define gridDim (emulator::self().block->blocks)
#define warpSize 32

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __restrict__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Launches from several threads of the host run at the same time. (The compiler has replaced `extern __shared__`, within functions.)
#define __shared__ static thread_local

static inline void __syncthreads() {
    emulator::self().block->wait(emulator::Meeting::Block);
    ++emulator::self().barriers;
}
static inline int __syncthreads_count(int mine) { return emulator::votes(mine != 0); }
static inline int __syncthreads_or(int mine) { return emulator::votes(mine != 0) > 0; }
static inline int __syncthreads_and(int mine) { return emulator::votes(mine == 0) == 0; }
// Shuffles and votes of a warp meet as well, but only this orders what its threads do to memory.
static inline void __syncwarp(unsigned = ~0u) {
    emulator::self().block->wait(emulator::Meeting::Warp);
    ++emulator::self().orders;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __trap() { emulator::self().block->trap(); }

template <typename T>
static inline T __shfl_sync(unsigned, T mine, int lane) { return emulator::shuffle(mine, lane); }
template <typename T>
static inline T __shfl_xor_sync(unsigned, T mine, int mask) { return emulator::shuffle(mine, emulator::lane() ^ mask); }
template <typename T>
static inline T __shfl_down_sync(unsigned, T mine, unsigned by) {
    const unsigned lane = emulator::lane();
    return emulator::shuffle(mine, lane + by < 32 ? lane + by : lane);
}
template <typename T>
static inline T __shfl_up_sync(unsigned, T mine, unsigned by) {
    const unsigned lane = emulator::lane();
    return emulator::shuffle(mine, lane >= by ? lane - by : lane);
}
static inline unsigned __ballot_sync(unsigned, int mine) {
    const auto* shown = emulator::show((unsigned char)(mine != 0));
    unsigned all = 0;
    for (unsigned lane = 0; lane < emulator::lanes(); ++lane) all |= (unsigned)shown[lane][0] << lane;
    return all;
}
static inline int __any_sync(unsigned mask, int mine) { return __ballot_sync(mask, mine) != 0; }
static inline int __all_sync(unsigned mask, int mine) { return __ballot_sync(mask, !mine) == 0; }

static inline int atomicAdd(int* at, int by) { return __atomic_fetch_add(at, by, __ATOMIC_RELAXED); }
static inline unsigned atomicAdd(unsigned* at, unsigned by) { return __atomic_fetch_add(at, by, __ATOMIC_RELAXED); }
static inline unsigned long long atomicAdd(unsigned long long* at, unsigned long long by) {
    return __atomic_fetch_add(at, by, __ATOMIC_RELAXED);
}

static inline double __longlong_as_double(long long x) { return emulator::bits<double>(x); }
static inline long long __double_as_longlong(double x) { return emulator::bits<long long>(x); }
static inline float __uint_as_float(unsigned x) { return emulator::bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return emulator::bits<unsigned>(x); }
static inline float __int_as_float(int x) { return emulator::bits<float>(x); }
static inline int __float_as_int(float x) { return emulator::bits<int>(x); }
static inline double __ll2double_rz(long long x) {
    const double y = (double)x;
    if (y >= 9223372036854775808.0) return 9223372036854774784.0;
    return (y > 0 && (long long)y > x) || (y < 0 && (long long)y < x) ? nextafter(y, 0.0) : y;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
template <typename T>
static inline T max(T a, T b) { return a > b ? a : b; }
template <typename T>
static inline T min(T a, T b) { return a < b ? a : b; }
template <typename T>
static inline T __ldg(const T* p) { return *p; }

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };

#ifdef EMULATED_LOOK

// What a compiler calls before each access, where it is asked to look for races (-fsanitize=thread).
#define HOOK_OF(T) extern "C" __attribute__((visibility("hidden"))) NOT_LOOKED_AT inline __attribute__((used)) T
#define HOOK HOOK_OF(void)
#define LOOK(at, bytes, how) emulator::look(at, bytes, how, __builtin_return_address(0))
namespace emulator {
NOT_LOOKED_AT inline __attribute__((always_inline)) void look(const void* at, size_t bytes, int how, const void* from) {
    // What a thread has to itself, and what the machine has.
    if ((uintptr_t)at - first_stack() < STACKS + MOST_THREADS * sizeof(Thread)) return;
    const Thread& me = self();
    if ((uintptr_t)at - (uintptr_t)me.block >= sizeof(Block)) me.block->access(me, at, bytes, how, from);
}
}  // namespace emulator
#define HOOKS(bytes)                                                                                        \
    HOOK __tsan_read##bytes(void* at) { LOOK(at, bytes, 0); }                                               \
    HOOK __tsan_write##bytes(void* at) { LOOK(at, bytes, emulator::WRITES); }                               \
    HOOK __tsan_unaligned_read##bytes(void* at) { LOOK(at, bytes, 0); }                                     \
    HOOK __tsan_unaligned_write##bytes(void* at) { LOOK(at, bytes, emulator::WRITES); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
HOOK __tsan_read_range(void* at, size_t bytes) { LOOK(at, bytes, 0); }
HOOK __tsan_write_range(void* at, size_t bytes) { LOOK(at, bytes, emulator::WRITES); }
#define ATOMIC_HOOK(bits, T)                                                                                \
    HOOK_OF(T) __tsan_atomic##bits##_fetch_add(volatile T* at, T by, int) {                                 \
        LOOK((const void*)at, bits / 8, emulator::WRITES + emulator::ATOMIC);                               \
        T old = *at;                                                                                        \
        *at = old + by;                                                                                     \
        return old;                                                                                         \
    }
ATOMIC_HOOK(32, int)
ATOMIC_HOOK(64, long long)
HOOK __tsan_func_entry(void*) {}
HOOK __tsan_func_exit() {}
HOOK __tsan_init() {}
// And where something does not lie at a multiple of what its type asks for (-fsanitize=alignment).
struct Mismatch {
    struct {
        const char* file;
        unsigned line, column;
    } where;
    const void* type;
    unsigned char log_of_alignment, kind;
};
HOOK __ubsan_handle_type_mismatch_v1(const Mismatch* what, void* at) { LOOK(at, (size_t)1 << what->log_of_alignment, emulator::MISALIGNED); }

#endif
