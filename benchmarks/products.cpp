// The matrix products of training steps and nothing else: the limit of a step's speed.
//
// For M sessions, a layer of L units, N output items, row-major: the scores h Wy^T and their two
// gradients; the GRU's products with the input, the state and the reset state, and of each the
// gradients by the weights and by what was multiplied.
#include <time.h>

#include <vector>

extern "C" void gk_product(int trans_a, int trans_b, int m, int n, int k, const float* a, int lda,
                           const float* b, int ldb, float* c, int ldc);
extern "C" void BLAS_SGEMM(const char*, const char*, const int*, const int*, const int*,
                           const float*, const float*, const int*, const float*, const int*,
                           const float*, float*, const int*);

namespace {

void blas(int ta, int tb, int m, int n, int k, const float* a, int lda, const float* b, int ldb,
          float* c, int ldc) {
    const float one = 1, zero = 0;
    BLAS_SGEMM(tb ? "T" : "N", ta ? "T" : "N", &n, &m, &k, &one, b, &ldb, a, &lda, &zero, c, &ldc);
}

}  // namespace

// Seconds for n_steps steps; team: the products of the kernels' team, else BLAS by itself.
extern "C" double time_products(int team, long n_steps, int M, int L, int N) {
    const auto product = team ? gk_product : blas;
    auto random = [](size_t n) {
        std::vector<float> x(n);
        for (size_t i = 0; i < n; i++) x[i] = 0.001f * (i % 1000);
        return x;
    };
    auto rows = random(size_t(N) * L), scores = random(size_t(M) * N), d_rows = random(rows.size());
    auto x = random(M * L), h = random(M * L), d_h = random(M * L), vec = random(3 * M * L);
    auto rz = random(2 * M * L), w_x = random(3 * L * L), w_rz = random(2 * L * L);
    auto w_h = random(L * L), d_w = random(3 * L * L);
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long step = 0; step < n_steps; step++) {
        product(0, 0, M, 3 * L, L, x.data(), L, w_x.data(), 3 * L, vec.data(), 3 * L);
        product(0, 0, M, 2 * L, L, h.data(), L, w_rz.data(), 2 * L, rz.data(), 2 * L);
        product(0, 0, M, L, L, h.data(), L, w_h.data(), L, d_h.data(), L);
        product(0, 1, M, N, L, h.data(), L, rows.data(), L, scores.data(), N);
        product(0, 0, M, L, N, scores.data(), N, rows.data(), L, d_h.data(), L);
        product(1, 0, N, L, M, scores.data(), N, h.data(), L, d_rows.data(), L);
        product(0, 1, M, L, L, d_h.data(), L, w_h.data(), L, h.data(), L);
        product(0, 1, M, L, 2 * L, rz.data(), 2 * L, w_rz.data(), 2 * L, h.data(), L);
        product(0, 1, M, L, 3 * L, vec.data(), 3 * L, w_x.data(), 3 * L, d_h.data(), L);
        product(1, 0, L, 3 * L, M, x.data(), L, vec.data(), 3 * L, d_w.data(), 3 * L);
        product(1, 0, L, 2 * L, M, h.data(), L, rz.data(), 2 * L, d_w.data(), 2 * L);
        product(1, 0, L, L, M, h.data(), L, vec.data(), 3 * L, d_w.data(), L);
        // keep the numbers as they were
        for (float& v : h) v = 0.01f;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return end.tv_sec - start.tv_sec + 1e-9 * (end.tv_nsec - start.tv_nsec);
}
