// CUDA C++ as NVRTC takes it, for g++: every kernel is compiled after this header.
// One thread runs at a time and gives way at barriers only, so that atomics need no locks.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <type_traits>
#include <utility>

#include "kernel_abi.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
// of one block, since blocks run one after the other; the driver poisons the section before each
#define __shared__ static __attribute__((section("emulated_shared")))
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

typedef EmulatedPlace uint3;
typedef EmulatedPlace dim3;
extern "C" {
extern EmulatedThread emulated;
extern char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));
}
#define threadIdx emulated.thread
#define blockIdx emulated.block
#define blockDim emulated.block_size
#define gridDim emulated.grid_size
#define warpSize 32

// A barrier is told by its number in the source: the optimizer may make two calls of one.
// Whatever memory holds may be another after it.
#define __syncthreads() emulated_barrier(__COUNTER__)
#define __syncwarp(...) emulated_barrier(__COUNTER__)
inline void emulated_barrier(int place) {
    __asm__ volatile("" ::: "memory");
    emulated.barrier(place);
    __asm__ volatile("" ::: "memory");
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- bits

template <class To, class From>
inline To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits of another size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float __int_as_float(int x) { return emulated_bits<float>(x); }
inline int __float_as_int(float x) { return emulated_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return emulated_bits<double>(x); }
inline long long __double_as_longlong(double x) { return emulated_bits<long long>(x); }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const unsigned long long bytes = (unsigned long long)high << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned from = selector >> 4 * i & 7;
        result |= (unsigned)(bytes >> 8 * from & 255) << 8 * i;
    }
    return result;
}

// ---- arithmetic

inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline double rsqrt(double x) { return 1. / sqrt(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
inline long long __mul64hi(long long a, long long b) { return (__int128)a * b >> 64; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
// a NaN gives way to the other number, as in CUDA
template <class A, class B>
inline typename std::common_type<A, B>::type min(A a, B b) {
    typename std::common_type<A, B>::type x = a, y = b;
    return x != x ? y : y < x ? y : x;
}
template <class A, class B>
inline typename std::common_type<A, B>::type max(A a, B b) {
    typename std::common_type<A, B>::type x = a, y = b;
    return x != x ? y : x < y ? y : x;
}

// ---- atomics

template <class T>
struct EmulatedValue {
    typedef T type;  // keeps the second argument out of the deduction of T
};
#define EMULATED_ATOMIC(name, new_value)                                \
    template <class T>                                                  \
    inline T name(T* place, typename EmulatedValue<T>::type value) {    \
        const T old = *place;                                           \
        *place = new_value;                                             \
        return old;                                                     \
    }
EMULATED_ATOMIC(atomicAdd, old + value)
EMULATED_ATOMIC(atomicSub, old - value)
EMULATED_ATOMIC(atomicExch, value)
EMULATED_ATOMIC(atomicMin, value < old ? value : old)
EMULATED_ATOMIC(atomicMax, value > old ? value : old)
EMULATED_ATOMIC(atomicAnd, old & value)
EMULATED_ATOMIC(atomicOr, old | value)
EMULATED_ATOMIC(atomicXor, old ^ value)
#undef EMULATED_ATOMIC
template <class T>
inline T atomicCAS(T* place, typename EmulatedValue<T>::type expected,
                   typename EmulatedValue<T>::type value) {
    const T old = *place;
    if (old == expected) *place = value;
    return old;
}

// ---- what the compiler of the emulator puts in the place of PTX and behind the kernels

inline float emulated_no_half() {
    fprintf(stderr, "emulated CUDA: float16 is not emulated\n");
    abort();
}

template <class... A, size_t... I>
inline void emulated_call(void (*kernel)(A...), void** values, std::index_sequence<I...>) {
    kernel(*(typename std::remove_cv<A>::type*)values[I]...);
}
template <class... A>
inline void emulated_call(void (*kernel)(A...), void** values) {
    emulated_call(kernel, values, std::index_sequence_for<A...>());
}
#define EMULATED_ENTRY(kernel) \
    extern "C" void emulated_entry_##kernel(void** values) { emulated_call(kernel, values); }
#define EMULATED_LIBRARY                                          \
    EmulatedThread emulated;                                      \
    extern "C" void emulated_shared_range(char** start, char** stop) {  \
        *start = __start_emulated_shared;                         \
        *stop = __stop_emulated_shared;                           \
    }
