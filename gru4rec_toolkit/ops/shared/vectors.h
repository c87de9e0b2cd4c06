// Vectors of floats, one interface for each instruction set. Part: the first `size` elements of one;
// what lies behind them is not touched.
#pragma once
#include <cmath>

#include "inline.h"

// What the compiler can turn into vectors itself.
struct One {
    static constexpr int WIDTH = 1;
    typedef float Type;
    static INLINE Type load(const float* x) { return *x; }
    static INLINE void store(float* x, Type v) { *x = v; }
    static INLINE Type root(Type x) { return std::sqrt(x); }
    static INLINE Type inverse_root(Type x) { return 1.f / std::sqrt(x); }
    struct Part {
        explicit Part(int) {}
        INLINE Type load(const float* x) const { return *x; }
        INLINE void store(float* x, Type v) const { *x = v; }
    };
};

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>

struct Eight {
    static constexpr int WIDTH = 8;
    typedef __m256 Type;
    static INLINE Type load(const float* x) { return _mm256_loadu_ps(x); }
    static INLINE void store(float* x, Type v) { _mm256_storeu_ps(x, v); }
    static INLINE Type all(const float* x) { return _mm256_broadcast_ss(x); }
    static INLINE Type multiply_add(Type x, Type y, Type z) { return _mm256_fmadd_ps(x, y, z); }
    struct Part {
        int size;
        __m256i mask;
        explicit Part(int size) : size(size) {
            const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(size), lanes);
        }
        INLINE Type load(const float* x) const { return _mm256_maskload_ps(x, mask); }
        // masked stores are slow on some processors
        INLINE void store(float* x, Type v) const {
            if (size == WIDTH) return _mm256_storeu_ps(x, v);
            __m128 half = _mm256_castps256_ps128(v);
            if (size & 4) {
                _mm_storeu_ps(x, half);
                half = _mm256_extractf128_ps(v, 1);
                x += 4;
            }
            if (size & 2) {
                _mm_storel_pi(reinterpret_cast<__m64*>(x), half);
                half = _mm_movehl_ps(half, half);
                x += 2;
            }
            if (size & 1) _mm_store_ss(x, half);
        }
    };
    // store(j, column j) for the eight columns of the rows load(0) .. load(7)
    template <class Load, class Store>
    static INLINE void transpose(Load load, Store store) {
        Type x[8], y[8];
        UNROLL for (int i = 0; i < 8; i++) x[i] = load(i);
        UNROLL for (int i = 0; i < 8; i += 2) {
            y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
            y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
        }
        UNROLL for (int i = 0; i < 8; i += 4)
            UNROLL for (int h = 0; h < 2; h++) {
                x[i + 2 * h] = _mm256_shuffle_ps(y[i + h], y[i + h + 2], 0x44);
                x[i + 2 * h + 1] = _mm256_shuffle_ps(y[i + h], y[i + h + 2], 0xee);
            }
        UNROLL for (int j = 0; j < 4; j++) {
            store(j, _mm256_permute2f128_ps(x[j], x[j + 4], 0x20));
            store(j + 4, _mm256_permute2f128_ps(x[j], x[j + 4], 0x31));
        }
    }
};

#endif

#ifdef __AVX512F__

struct Sixteen {
    static constexpr int WIDTH = 16;
    typedef __m512 Type;
    static INLINE Type load(const float* x) { return _mm512_loadu_ps(x); }
    static INLINE void store(float* x, Type v) { _mm512_storeu_ps(x, v); }
    static INLINE Type all(const float* x) { return _mm512_set1_ps(*x); }
    static INLINE Type multiply_add(Type x, Type y, Type z) { return _mm512_fmadd_ps(x, y, z); }
    static INLINE Type root(Type x) { return _mm512_sqrt_ps(x); }
    // of positive normal numbers, by one step of Newton's from 14 bits: relative error below 2e-7
    static INLINE Type inverse_root(Type x) {
        const Type y = _mm512_rsqrt14_ps(x);
        return y + 0.5f * y * (1.f - x * y * y);
    }
    struct Part {
        __mmask16 mask;
        explicit Part(int size) : mask((1u << size) - 1) {}
        INLINE Type load(const float* x) const { return _mm512_maskz_loadu_ps(mask, x); }
        INLINE void store(float* x, Type v) const { _mm512_mask_storeu_ps(x, mask, v); }
    };
};

#endif

#if defined(__aarch64__) && defined(__ARM_NEON)

#include <arm_neon.h>

struct Four {
    static constexpr int WIDTH = 4;
    typedef float32x4_t Type;
    static INLINE Type load(const float* x) { return vld1q_f32(x); }
    static INLINE void store(float* x, Type v) { vst1q_f32(x, v); }
    static INLINE Type all(const float* x) { return vld1q_dup_f32(x); }
    static INLINE Type multiply_add(Type x, Type y, Type z) { return vfmaq_f32(z, x, y); }
    struct Part {
        int size;
        explicit Part(int size) : size(size) {}
        INLINE Type load(const float* x) const {
            if (size >= WIDTH) return Four::load(x);
            Type v = vdupq_n_f32(0);
            if (size > 0) v = vld1q_lane_f32(x, v, 0);
            if (size > 1) v = vld1q_lane_f32(x + 1, v, 1);
            if (size > 2) v = vld1q_lane_f32(x + 2, v, 2);
            return v;
        }
        INLINE void store(float* x, Type v) const {
            if (size >= WIDTH) return Four::store(x, v);
            if (size > 0) vst1q_lane_f32(x, v, 0);
            if (size > 1) vst1q_lane_f32(x + 1, v, 1);
            if (size > 2) vst1q_lane_f32(x + 2, v, 2);
        }
    };
    // store(j, column j) for the four columns of the rows load(0) .. load(3)
    template <class Load, class Store>
    static INLINE void transpose(Load load, Store store) {
        const float32x4x2_t x = vtrnq_f32(load(0), load(1)), y = vtrnq_f32(load(2), load(3));
        UNROLL for (int h = 0; h < 2; h++) {
            store(h, vcombine_f32(vget_low_f32(x.val[h]), vget_low_f32(y.val[h])));
            store(h + 2, vcombine_f32(vget_high_f32(x.val[h]), vget_high_f32(y.val[h])));
        }
    }
};

#endif
