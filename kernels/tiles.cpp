// Products in which a mini-batch is one of the sizes, some dozens: to pack both operands, as BLAS
// does in every call, is a good part of their work. Here at most one is packed, the small one.
//
// All three products of a layer consist of tiles of 6 x 16 elements: 12 of the 16 vector registers
// add up, two hold 16 neighbours in a row of b, one an element of a. For every term a tile does 12
// multiply-adds and 8 loads, so that the arithmetic is the bound.
//
//   a b     both are read where they lie
//   a^T b   the same with b, which is small, packed; six neighbours of a are one column of a tile
//   a b^T   is (b a^T)^T: a^T is packed, and results are transposed while they are in L1
#include "tiles.h"

#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)

#include <immintrin.h>

#include <algorithm>

namespace {

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef const float* __restrict__ In;
typedef float* __restrict__ Out;

constexpr int WIDTH = 8;                  // floats in a vector
constexpr int PANEL = 2 * WIDTH;          // columns of a tile
constexpr int TALL = 6, NARROW_TALL = 8;  // rows of a tile of two vectors, and of one
// parts of the work that stay in L1: terms of a sum, rows of a result
constexpr int TERMS = 128, ROWS = 48;
constexpr int PACKED = 1 << 15;  // floats that are packed at a time, in L2

// one a thread, and not on its stack, which is small on some systems
alignas(64) thread_local float packed[PACKED];

// A vector, or the first `size` elements of one; what lies behind them is not touched.
struct Whole {
    explicit Whole(int) {}
    INLINE __m256 load(In x) const { return _mm256_loadu_ps(x); }
    INLINE void store(Out x, __m256 v) const { _mm256_storeu_ps(x, v); }
};

struct Part {
    int size;
    __m256i mask;
    explicit Part(int size) : size(size) {
        const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(size), lanes);
    }
    INLINE __m256 load(In x) const { return _mm256_maskload_ps(x, mask); }
    // masked stores are slow on some processors
    INLINE void store(float* x, __m256 v) const {
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

// The matrices of a product. Element (i, p) of a lies at i * lda + p, transposed at i + p * lda.
struct Operands {
    const float *a, *b;
    float* c;
    long lda, ldb, ldc;
    long between = PANEL;  // elements of b from one panel of columns to the next
};

// R rows and V vectors of columns: c = a b, or c += a b.
template <bool TRANSPOSED, class Vector, int R, int V>
__attribute__((noinline)) void tile(Vector vector, long k, const Operands& x, bool add) {
    const float *a = x.a, *b = x.b;
    float* c = x.c;
    const long lda = x.lda, ldb = x.ldb, ldc = x.ldc;  // a store could change x
    __m256 sum[R][V];
    UNROLL for (int i = 0; i < R; i++)
        UNROLL for (int v = 0; v < V; v++) sum[i][v] = _mm256_setzero_ps();
    for (long p = 0; p < k; p++) {
        __m256 row[V];
        UNROLL for (int v = 0; v < V; v++) {
            row[v] = vector.load(b + v * WIDTH);
            asm("" : "+x"(row[v]));  // in a register: the compiler would load it R times
        }
        UNROLL for (int i = 0; i < R; i++) {
            const __m256 factor = _mm256_broadcast_ss(TRANSPOSED ? a + i : a + i * lda);
            UNROLL for (int v = 0; v < V; v++)
                sum[i][v] = _mm256_fmadd_ps(factor, row[v], sum[i][v]);
        }
        a += TRANSPOSED ? lda : 1;
        b += ldb;
    }
    UNROLL for (int i = 0; i < R; i++)
        UNROLL for (int v = 0; v < V; v++) {
            float* to = c + i * ldc + v * WIDTH;
            vector.store(to, add ? _mm256_add_ps(sum[i][v], vector.load(to)) : sum[i][v]);
        }
}

// The tile of `rows` rows, 1 to R.
template <bool TRANSPOSED, class Vector, int R, int V>
void tile_of(int rows, Vector vector, long k, const Operands& x, bool add) {
    if (rows == R) return tile<TRANSPOSED, Vector, R, V>(vector, k, x, add);
    if constexpr (R > 1) tile_of<TRANSPOSED, Vector, R - 1, V>(rows, vector, k, x, add);
}

// All m rows of c, V vectors of columns, in tiles of nearly equal height.
template <bool TRANSPOSED, class Vector, int R, int V>
void panel(Vector vector, long m, long k, Operands x, bool add) {
    const long n_tiles = (m + R - 1) / R, rows_of_all = m / n_tiles, n_higher = m % n_tiles;
    for (long t = 0; t < n_tiles; t++) {
        const long rows = rows_of_all + (t < n_higher);
        tile_of<TRANSPOSED, Vector, R, V>(rows, vector, k, x, add);
        x.a += TRANSPOSED ? rows : rows * x.lda;
        x.c += rows * x.ldc;
    }
}

template <bool TRANSPOSED>
void panels(long m, long n, long k, Operands x, bool add) {
    for (; n >= PANEL; n -= PANEL, x.b += x.between, x.c += PANEL)
        panel<TRANSPOSED, Whole, TALL, 2>(Whole(WIDTH), m, k, x, add);
    for (; n > 0; n -= WIDTH, x.b += WIDTH, x.c += WIDTH)
        panel<TRANSPOSED, Part, NARROW_TALL, 1>(Part(std::min<long>(n, WIDTH)), m, k, x, add);
}

// c = a b
void as_they_are(long m, long n, long k, Operands x) {
    for (long p = 0; p < k; p += TERMS, x.a += TERMS, x.b += TERMS * x.ldb)
        panels<false>(m, n, std::min<long>(TERMS, k - p), x, p > 0);
}

// b (k, n) to packed: panels of PANEL columns, each (k, PANEL)
void copy_panels(long n, long k, In b, long ldb, Out packed) {
    for (long j = 0; j < n; j += PANEL, packed += k * PANEL)
        for (long p = 0; p < k; p++) {
            if (n - j >= PANEL)
                for (long v = 0; v < PANEL; v += WIDTH)
                    _mm256_storeu_ps(packed + p * PANEL + v, _mm256_loadu_ps(b + p * ldb + j + v));
            else
                std::copy_n(b + p * ldb + j, n - j, packed + p * PANEL);
        }
}

// c = a^T b
void with_a_transposed(long m, long n, long k, const Operands& x) {
    const long group = PACKED / (k * PANEL) * PANEL;  // columns of b
    for (long j = 0; j < n; j += group) {
        const long columns = std::min(group, n - j);
        copy_panels(columns, k, x.b + j, x.ldb, packed);
        for (long i = 0; i < m; i += ROWS)
            for (long p = 0; p < k; p += TERMS) {
                const Operands part = {x.a + p * x.lda + i, packed + p * PANEL,
                                       x.c + i * x.ldc + j, x.lda, PANEL, x.ldc, k * PANEL};
                panels<true>(std::min<long>(ROWS, m - i), columns, std::min<long>(TERMS, k - p),
                             part, p > 0);
            }
    }
}

// store(j, column j) for the eight columns of the rows load(0) .. load(7).
template <class Load, class Store>
INLINE void transpose(Load load, Store store) {
    __m256 x[8], y[8];
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

// a (rows, k), at most PANEL rows, to packed (k, PANEL); rows that a does not have become zeros.
void pack(long rows, long k, In a, long lda, Out packed) {
    for (long i = 0; i < PANEL; i += WIDTH)
        for (long p = 0; p < k; p += WIDTH) {
            const Part some(std::min<long>(WIDTH, k - p));
            transpose(
                [&](long r) {
                    return i + r < rows ? some.load(a + (i + r) * lda + p) : _mm256_setzero_ps();
                },
                [&](long q, __m256 column) {
                    if (p + q < k) _mm256_storeu_ps(packed + (p + q) * PANEL + i, column);
                });
        }
}

// from (n, PANEL) to the first m columns' rows of c
void unpack(long m, long n, In from, Out c, long ldc) {
    for (long i = 0; i < m; i += WIDTH)
        for (long j = 0; j < n; j += WIDTH) {
            const Part some(std::min<long>(WIDTH, n - j));
            transpose([&](long r) { return _mm256_load_ps(from + (j + r) * PANEL + i); },
                      [&](long q, __m256 row) {
                          if (i + q < m) some.store(c + (i + q) * ldc + j, row);
                      });
        }
}

// c = a b^T; b is read once for every PACKED floats of a
void with_b_transposed(long m, long n, long k, const Operands& x) {
    alignas(64) float result[ROWS * PANEL] = {};  // transposed
    const long group = PACKED / (k * PANEL) * PANEL;  // rows of a
    for (long first = 0; first < m; first += group) {
        const long after = std::min(m, first + group);
        for (long i = first; i < after; i += PANEL)
            pack(std::min<long>(PANEL, m - i), k, x.a + i * x.lda, x.lda, packed + (i - first) * k);
        for (long j = 0; j < n; j += ROWS)
            for (long i = first; i < after; i += PANEL) {
                const long rows = std::min<long>(PANEL, m - i);
                const long columns = std::min<long>(ROWS, n - j);
                const float* panel = packed + (i - first) * k;
                for (long p = 0; p < k; p += 2 * TERMS) {
                    const Operands part = {x.b + j * x.ldb + p, panel + p * PANEL, result,
                                           x.ldb, PANEL, PANEL};
                    panels<false>(columns, rows > WIDTH ? PANEL : WIDTH,
                                  std::min<long>(2 * TERMS, k - p), part, p > 0);
                }
                unpack(rows, columns, result, x.c + i * x.ldc + j, x.ldc);
            }
    }
}

}  // namespace

// Beyond the limits BLAS is as fast (on a Zen 3), and so it may be with AVX-512: all is left to it.
bool tiled_product(int trans_a, int trans_b, int m, int n, int k, const float* a, int lda,
                   const float* b, int ldb, float* c, int ldc) {
    const Operands x = {a, b, c, lda, ldb, ldc};
    if (trans_a && trans_b) return false;
    if (trans_b) {
        // whatever n is: ranking compares scores of products that differ in it
        if (m > 128 || k > PACKED / PANEL) return false;
        with_b_transposed(m, n, k, x);
    } else if (trans_a) {
        if (k > 96) return false;
        with_a_transposed(m, n, k, x);
    } else {
        // b is read from L2 again and again, and what lies at multiples of 1 KB is in each other's
        // way in L1
        if (m > 80 || 1L * k * n > 1 << 17 || ldb % 256 == 0) return false;
        as_they_are(m, n, k, x);
    }
    return true;
}

extern "C" int gk_has_tiles(void) { return 1; }

#else

extern "C" int gk_has_tiles(void) { return 0; }

bool tiled_product(int, int, int, int, int, const float*, int, const float*, int, float*, int) {
    return false;
}

#endif
