// Matrix products on the team's threads, each computing its part of them: by the tiles of tiles.cpp
// where they are faster, else by single-threaded BLAS.
//
// BLAS's own threads would wait in busy loops beside ours; in pure products the team equals them.
#include "products.h"

#include <algorithm>
#include <new>
#include <vector>

#include "kernels.h"
#include "team.h"
#include "tiles.h"

extern "C" {
void BLAS_SGEMM(const char* trans_a, const char* trans_b, const int* m, const int* n, const int* k,
                const float* alpha, const float* a, const int* lda, const float* b, const int* ldb,
                const float* beta, float* c, const int* ldc);
}

namespace {

// multiply-adds below which waking the other threads costs more than they save
constexpr double WORTH_THREADS = 1e5;
// parts of a result begin at multiples of the micro-kernels' tiles
constexpr long COLUMNS = 16, ROWS = 8;
// times that the inner size is larger than the result's from which it is shared out instead
constexpr int LONG = 6;

bool use_tiles = true;

// A small result of a long sum: each thread adds up its own part of the terms, which for a product
// with looked-up rows it has looked up itself; a small result's tiles cannot be shared out evenly.
// Returns false if there is no memory.
bool share_terms(int trans_a, int trans_b, int m, int n, int k, const float* a, int lda,
                 const float* b, int ldb, float* c, int ldc) try {
    static std::vector<float> parts;
    const long size = static_cast<long>(m) * n;
    const double a_thread = team::NANOSECONDS_A_THREAD + team::NANOSECONDS_A_NUMBER * size;
    const int n_parts = team::size_for(team::NANOSECONDS_A_TERM * size * k, a_thread);
    parts.resize(n_parts * size);
    float* __restrict__ part = parts.data();
    team::run(n_parts, [&](int t, int) {
        const auto s = team::share(k, t, n_parts, COLUMNS);
        float* own = part + t * size;
        if (s.begin == s.end) return std::fill(own, own + size, 0.f);
        product_alone(trans_a, trans_b, m, n, s.end - s.begin,
                      a + (trans_a ? s.begin * lda : s.begin), lda,
                      b + (trans_b ? s.begin : s.begin * ldb), ldb, own, n);
    });
    for (int t = 1; t < n_parts; t++)
        for (long i = 0; i < size; i++) part[i] += part[t * size + i];
    for (int i = 0; i < m; i++) std::copy_n(part + long(i) * n, n, c + long(i) * ldc);
    return true;
} catch (const std::bad_alloc&) {
    return false;
}

}  // namespace

void product_alone(int trans_a, int trans_b, int m, int n, int k, const float* a, int lda,
                   const float* b, int ldb, float* c, int ldc) {
    if (use_tiles && tiled_product(trans_a, trans_b, m, n, k, a, lda, b, ldb, c, ldc)) return;
    const float one = 1, zero = 0;
    // Fortran's matrices are column-major: c^T = op(b)^T op(a)^T
    BLAS_SGEMM(trans_b ? "T" : "N", trans_a ? "T" : "N", &n, &m, &k, &one, b, &ldb, a, &lda, &zero,
               c, &ldc);
}

extern "C" void gk_set_threads(int n_threads) { team::resize(n_threads); }

extern "C" void gk_use_tiles(int use) { use_tiles = use; }

extern "C" int gk_threads(void) { return team::size(); }

extern "C" void gk_simulate_team(int on) { team::simulate(on); }

extern "C" double gk_nanoseconds_saved(void) { return team::nanoseconds_saved(); }

extern "C" void gk_product(int trans_a, int trans_b, int m, int n, int k, const float* a, int lda,
                           const float* b, int ldb, float* c, int ldc) {
    auto part = [&](long row, long rows, long column, long columns) {
        if (!rows || !columns) return;
        product_alone(trans_a, trans_b, rows, columns, k, a + (trans_a ? row : row * lda), lda,
                      b + (trans_b ? column * ldb : column), ldb, c + row * ldc + column, ldc);
    };
    const double terms = 1.0 * m * n * k;
    if (terms < WORTH_THREADS || team::size() == 1) return part(0, m, 0, n);
    // scores are not: ranking compares those of different products, and ties have to stay ties
    if (!trans_b && k / LONG >= std::max(m, n) &&
        share_terms(trans_a, trans_b, m, n, k, a, lda, b, ldb, c, ldc))
        return;
    team::run(team::size_for(team::NANOSECONDS_A_TERM * terms), [&](int t, int n_threads) {
        if (n >= m) {
            const auto s = team::share(n, t, n_threads, COLUMNS);
            part(0, m, s.begin, s.end - s.begin);
        } else {
            const auto s = team::share(m, t, n_threads, ROWS);
            part(s.begin, s.end - s.begin, 0, n);
        }
    });
}
