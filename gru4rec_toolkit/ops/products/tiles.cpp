// Products in which a mini-batch is one of the sizes, some dozens or hundreds: to pack both
// operands, as BLAS does in every call, is a good part of their work. Here at most one is packed.
//
// All three products of a layer consist of tiles: the sums of some rows and two vectors of columns
// are in registers, beside two vectors of neighbours in a row of b and one element of a. For every
// term a tile of R rows does 2 R multiply-adds and R + 2 loads, so that arithmetic is the bound.
//
//   a b     both are read where they lie, unless b has to be packed (see as_they_are)
//   a^T b   the same with b, which is small, packed; neighbours of a are one column of a tile
//   a b^T   is (b a^T)^T: a^T is packed, and results are transposed while they are in L1
#include "tiles.h"

#include "kernels.h"

#include "vectors.h"

#if (defined(__AVX2__) && defined(__FMA__)) || (defined(__aarch64__) && defined(__ARM_NEON))

#include <algorithm>

namespace {

typedef const float* __restrict__ In;
typedef float* __restrict__ Out;

#if defined(__AVX512F__)
#define IN_REGISTER(x) asm("" : "+v"(x))
#elif defined(__aarch64__)
#define IN_REGISTER(x) asm("" : "+w"(x))
#else
#define IN_REGISTER(x) asm("" : "+x"(x))
#endif

// Tall: rows of a tile of two vectors, and of one. Terms: of a sum, so many that they and a tile's
// part of b stay in L1; rows: of a result. Packed: floats at a time, in L2. The limits are those
// beyond which BLAS is as fast, measured on a Zen 3 (Eight) and a Zen 4 (Sixteen); those of Four are
// Eight's, not measured.
#if defined(__AVX512F__)
typedef Sixteen Vector;
typedef Eight Narrow;
constexpr int TALL = 12, NARROW_TALL = 12, TERMS = 256, PACKED = 1 << 16;
constexpr long MOST_ROWS_AB = INT32_MAX, MOST_OF_B = INT64_MAX, MOST_ROWS_ABT = 512;
constexpr long MOST_TERMS_ATB = 1024, PACKING_PAYS = 96;
#else
#if defined(__aarch64__)
typedef Four Vector, Narrow;
constexpr int TALL = 12, NARROW_TALL = 16, TERMS = 256, PACKED = 1 << 15;
#else
typedef Eight Vector, Narrow;
constexpr int TALL = 6, NARROW_TALL = 8, TERMS = 128, PACKED = 1 << 15;
#endif
constexpr long MOST_ROWS_AB = 80, MOST_OF_B = 1 << 17, MOST_ROWS_ABT = 128;
constexpr long MOST_TERMS_ATB = 96, PACKING_PAYS = INT32_MAX;
#endif

constexpr int NARROW = Narrow::WIDTH;
constexpr int WIDTH = Vector::WIDTH, PANEL = 2 * WIDTH;  // floats in a vector, columns of a tile
constexpr int TERMS_ABT = 4096 / PANEL, ROWS = 8 * TALL;
constexpr int FEW_ROWS = 1;  // of a in a b^T: one by one is faster

// one a thread, and not on its stack, which is small on some systems
alignas(64) thread_local float packed[PACKED], result[ROWS * PANEL];

// The matrices of a product. Element (i, p) of a lies at i * lda + p, transposed at i + p * lda.
struct Operands {
    const float *a, *b;
    float* c;
    long lda, ldb, ldc;
    long between = PANEL;  // elements of b from one panel of columns to the next
};

// R rows and N vectors of columns, the last of which may be a part: c = a b, or c += a b.
template <bool TRANSPOSED, class Vector, int R, int N, bool PART>
__attribute__((noinline)) void tile(int columns, long k, const Operands& x, bool add) {
    constexpr int WIDTH = Vector::WIDTH;
    typedef typename Vector::Type Type;
    const typename Vector::Part part(PART ? columns - (N - 1) * WIDTH : WIDTH);
    auto load = [&](const float* from, int v) {
        return PART && v == N - 1 ? part.load(from) : Vector::load(from);
    };
    const float *a = x.a, *b = x.b;
    const long lda = x.lda, ldb = x.ldb, ldc = x.ldc;  // a store could change x
    Type sum[R][N];
    UNROLL for (int i = 0; i < R; i++)
        UNROLL for (int v = 0; v < N; v++) sum[i][v] = Type{};
    for (long p = 0; p < k; p++) {
        Type row[N];
        UNROLL for (int v = 0; v < N; v++) {
            row[v] = load(b + v * WIDTH, v);
            IN_REGISTER(row[v]);  // the compiler would load it R times
        }
        UNROLL for (int i = 0; i < R; i++) {
            Type factor = Vector::all(TRANSPOSED ? a + i : a + i * lda);
            if (N > 1) IN_REGISTER(factor);
            UNROLL for (int v = 0; v < N; v++)
                sum[i][v] = Vector::multiply_add(factor, row[v], sum[i][v]);
        }
        a += TRANSPOSED ? lda : 1;
        asm("" : "+r"(a));  // one pointer: the compiler would move on one for each row
        b += ldb;
    }
    UNROLL for (int i = 0; i < R; i++)
        UNROLL for (int v = 0; v < N; v++) {
            float* to = x.c + i * ldc + v * WIDTH;
            const Type value = add ? sum[i][v] + load(to, v) : sum[i][v];
            if (PART && v == N - 1) {
                part.store(to, value);
            } else {
                Vector::store(to, value);
            }
        }
}

// The tile of `rows` rows, 1 to R.
template <bool TRANSPOSED, class Vector, int R, int N, bool PART>
void tile_of(int rows, int columns, long k, const Operands& x, bool add) {
    if (rows == R) return tile<TRANSPOSED, Vector, R, N, PART>(columns, k, x, add);
    if constexpr (R > 1) tile_of<TRANSPOSED, Vector, R - 1, N, PART>(rows, columns, k, x, add);
}

// All m rows of c, N vectors of columns, in tiles of nearly equal height.
template <bool TRANSPOSED, class Vector, int R, int N, bool PART>
void panel(int columns, long m, long k, Operands x, bool add) {
    const long n_tiles = (m + R - 1) / R, rows_of_all = m / n_tiles, n_higher = m % n_tiles;
    for (long t = 0; t < n_tiles; t++) {
        const long rows = rows_of_all + (t < n_higher);
        tile_of<TRANSPOSED, Vector, R, N, PART>(rows, columns, k, x, add);
        x.a += TRANSPOSED ? rows : rows * x.lda;
        x.c += rows * x.ldc;
    }
}

// All of c, panel by panel.
template <bool TRANSPOSED>
void panels(long m, long n, long k, Operands x, bool add) {
    for (; n >= PANEL; n -= PANEL, x.b += x.between, x.c += PANEL)
        panel<TRANSPOSED, Vector, TALL, 2, false>(PANEL, m, k, x, add);
    if (n > WIDTH) return panel<TRANSPOSED, Vector, TALL, 2, true>(n, m, k, x, add);
    if (n == 0) return;
    // half a vector takes half the time of a whole one on some processors
    if (n <= NARROW) return panel<TRANSPOSED, Narrow, NARROW_TALL, 1, true>(n, m, k, x, add);
    panel<TRANSPOSED, Vector, NARROW_TALL, 1, true>(n, m, k, x, add);
}

// b (k, n) to packed: panels of PANEL columns, each (k, PANEL)
void copy_panels(long n, long k, In b, long ldb, Out packed) {
    for (long p = 0; p < k; p++) {
        long j = 0;
        for (; j + PANEL <= n; j += PANEL)
            for (long v = 0; v < PANEL; v += WIDTH)
                Vector::store(packed + j * k + p * PANEL + v, Vector::load(b + p * ldb + j + v));
        if (j < n) std::copy_n(b + p * ldb + j, n - j, packed + j * k + p * PANEL);
    }
}

// c = a b. To pack b costs little beside many rows, and keeps what lies at multiples of 1 KB from
// being in each other's way in L1.
void as_they_are(long m, long n, long k, Operands x) {
    const bool pack = m >= PACKING_PAYS || x.ldb % 256 == 0;
    const long group = pack ? PACKED / TERMS : n;  // columns of b
    for (long p = 0; p < k; p += TERMS, x.a += TERMS, x.b += TERMS * x.ldb) {
        const long terms = std::min<long>(TERMS, k - p);
        for (long j = 0; j < n; j += group) {
            const long columns = std::min(group, n - j);
            Operands part = {x.a, x.b + j, x.c + j, x.lda, x.ldb, x.ldc};
            if (pack) {
                copy_panels(columns, terms, x.b + j, x.ldb, packed);
                part.b = packed, part.ldb = PANEL, part.between = terms * PANEL;
            }
            panels<false>(m, columns, terms, part, p > 0);
        }
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

// a (rows, k), at most PANEL rows, to packed (k, PANEL); rows that a does not have become zeros.
void pack(long rows, long k, In a, long lda, Out packed) {
    for (long i = 0; i < PANEL; i += NARROW)
        for (long p = 0; p < k; p += NARROW) {
            const Narrow::Part some(std::min<long>(NARROW, k - p));
            Narrow::transpose(
                [&](long r) {
                    return i + r < rows ? some.load(a + (i + r) * lda + p) : Narrow::Type{};
                },
                [&](long q, Narrow::Type column) {
                    if (p + q < k) Narrow::store(packed + (p + q) * PANEL + i, column);
                });
        }
}

// from (n, PANEL) to the first m columns' rows of c
void unpack(long m, long n, In from, Out c, long ldc) {
    for (long i = 0; i < m; i += NARROW)
        for (long j = 0; j < n; j += NARROW) {
            const Narrow::Part some(std::min<long>(NARROW, n - j));
            Narrow::transpose([&](long r) { return Narrow::load(from + (j + r) * PANEL + i); },
                              [&](long q, Narrow::Type row) {
                                  if (i + q < m) some.store(c + (i + q) * ldc + j, row);
                              });
        }
}

// sum += b a^T for one row of a and GROUPS vectors of rows of b, of which there are `rows`, and for
// `terms` terms, at most a vector of them. FULL: there are as many as can be.
template <int GROUPS, bool FULL>
INLINE void add_terms(long rows, long terms, In a, In b, long ldb, Narrow::Type (&sum)[GROUPS]) {
    const Narrow::Part some(terms);
    UNROLL for (long g = 0; g < GROUPS; g++) {
        Narrow::Type column[NARROW];
        Narrow::transpose(
            [&](long r) {
                const long row = g * NARROW + r;
                if (FULL) return Narrow::load(b + row * ldb);
                return row < rows ? some.load(b + row * ldb) : Narrow::Type{};
            },
            [&](long q, Narrow::Type x) { column[q] = x; });
        UNROLL for (long q = 0; q < NARROW; q++)
            if (FULL || q < terms)
                sum[g] = Narrow::multiply_add(Narrow::all(a + q), column[q], sum[g]);
    }
}

// c (n,) = b a^T of one row of a: squares of b are transposed in registers, and the terms of an element
// are added up in the order of the tiles. To pack a and to compute whole vectors of columns takes
// longer.
void one_row(long n, long k, In a, In b, long ldb, Out c) {
    constexpr int GROUPS = 4;  // one sum alone would wait for itself
    constexpr long AT_ONCE = GROUPS * NARROW;
    for (long j = 0; j < n; j += AT_ONCE, b += AT_ONCE * ldb, c += AT_ONCE) {
        const long rows = std::min(AT_ONCE, n - j);
        Narrow::Type total[GROUPS];
        for (long first = 0; first < k; first += TERMS_ABT) {
            const long after = std::min(k, first + TERMS_ABT);
            Narrow::Type sum[GROUPS] = {};
            for (long p = first; p < after; p += NARROW) {
                if (p % 16 == 0)  // the processor does not see so many rows coming
                    UNROLL for (long r = AT_ONCE; r < 2 * AT_ONCE; r++)
                        __builtin_prefetch(b + r * ldb + p);
                if (rows == AT_ONCE && p + NARROW <= after)
                    add_terms<GROUPS, true>(rows, NARROW, a + p, b + p, ldb, sum);
                else
                    add_terms<GROUPS, false>(rows, std::min<long>(NARROW, after - p), a + p, b + p,
                                             ldb, sum);
            }
            UNROLL for (int g = 0; g < GROUPS; g++)
                total[g] = first > 0 ? sum[g] + total[g] : sum[g];
        }
        UNROLL for (int g = 0; g < GROUPS; g++)
            if (rows > g * NARROW)
                Narrow::Part(std::min<long>(NARROW, rows - g * NARROW)).store(c + g * NARROW, total[g]);
    }
}

// c = a b^T, of which a part's transpose is the result; b is read once for every PACKED floats of a
void with_b_transposed(long m, long n, long k, const Operands& x) {
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
                for (long p = 0; p < k; p += TERMS_ABT) {
                    const Operands part = {x.b + j * x.ldb + p, panel + p * PANEL, result,
                                           x.ldb, PANEL, PANEL};
                    panels<false>(columns, (rows + NARROW - 1) / NARROW * NARROW,
                                  std::min<long>(TERMS_ABT, k - p), part, p > 0);
                }
                unpack(rows, columns, result, x.c + i * x.ldc + j, x.ldc);
            }
    }
}

}  // namespace

bool tiled_product(int trans_a, int trans_b, int m, int n, int k, const float* a, int lda,
                   const float* b, int ldb, float* c, int ldc) {
    const Operands x = {a, b, c, lda, ldb, ldc};
    if (trans_a && trans_b) return false;
    if (trans_b) {
        // whatever n is: ranking compares scores of products that differ in it
        if (m > MOST_ROWS_ABT || k > PACKED / PANEL) return false;
        if (m > FEW_ROWS) {
            with_b_transposed(m, n, k, x);
        } else {
            for (int i = 0; i < m; i++) one_row(n, k, a + long(i) * lda, b, ldb, c + long(i) * ldc);
        }
    } else if (trans_a) {
        if (k > MOST_TERMS_ATB) return false;
        with_a_transposed(m, n, k, x);
    } else {
        if (m > MOST_ROWS_AB || 1L * k * n > MOST_OF_B) return false;
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
