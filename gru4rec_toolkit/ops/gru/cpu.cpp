// One step of a GRU layer and its gradient (equations: GRU4Rec._gru in gru4rec.py).
#include "activations.h"
#include "kernels.h"
#include "team.h"

namespace {

// The loops are functions of their own, so that the compiler sees that nothing they write changes
// what they read.

typedef float* __restrict__ Out;
typedef const float* __restrict__ In;

void gates(long n, In x, In bias, In h, Out rz, Out reset_h) {
    for (long c = 0; c < 2 * n; c++) rz[c] = sigmoid_(rz[c] + x[c] + bias[c]);
    for (long c = 0; c < n; c++) reset_h[c] = h[c] * rz[c];
}

template <class Act>
void new_state(long n, In x, In bias, In h, In update, Act f, Out candidate, Out out) {
    for (long c = 0; c < n; c++) {
        const float y = f.value(candidate[c] + x[c] + bias[c]);
        candidate[c] = y;
        out[c] = (1.f - update[c]) * h[c] + update[c] * y;
    }
}

template <class Act>
void gradient_of_new_state(long n, In d_out, In h, In update, In candidate, Act f, Out d_candidate,
                           Out d_update) {
    for (long c = 0; c < n; c++) {
        const float z = update[c], y = candidate[c];
        d_candidate[c] = d_out[c] * z * f.slope(y);
        d_update[c] = d_out[c] * (y - h[c]) * z * (1.f - z);
    }
}

void gradient_of_reset(long n, In d_reset_h, In h, In reset, Out d_reset) {
    for (long c = 0; c < n; c++) d_reset[c] = d_reset_h[c] * h[c] * reset[c] * (1.f - reset[c]);
}

void add(long n, In x, Out sum) {
    for (long c = 0; c < n; c++) sum[c] += x[c];
}

}  // namespace

extern "C" void gk_gru(long m, long n, const float* x, const float* bias, const float* h,
                       const float* w_rz, const float* w_h, gk_act act, float* rz, float* reset_h,
                       float* candidate, float* out) {
    gk_product(0, 0, m, 2 * n, n, h, n, w_rz, 2 * n, rz, 2 * n);
    team::run_by_rows(m, 3 * n, [&](long first, long after) {
        for (long i = first; i < after; i++)
            gates(n, x + (3 * i + 1) * n, bias + n, h + i * n, rz + 2 * i * n, reset_h + i * n);
    });
    gk_product(0, 0, m, n, n, reset_h, n, w_h, n, candidate, n);
    with_activation(act, [&](auto f) {
        team::run_by_rows(m, 3 * n, [&](long first, long after) {
            for (long i = first; i < after; i++)
                new_state(n, x + 3 * i * n, bias, h + i * n, rz + (2 * i + 1) * n, f,
                          candidate + i * n, out + i * n);
        });
    });
}

extern "C" void gk_gru_gradient(long m, long n, const float* d_out, const float* h,
                                const float* w_h, gk_act act, const float* rz,
                                const float* candidate, float* scratch, float* d_x, float* d_bias) {
    with_activation(act, [&](auto f) {
        team::run_by_rows(m, 3 * n, [&](long first, long after) {
            for (long i = first; i < after; i++)
                gradient_of_new_state(n, d_out + i * n, h + i * n, rz + (2 * i + 1) * n,
                                      candidate + i * n, f, d_x + 3 * i * n,
                                      d_x + (3 * i + 2) * n);
        });
    });
    gk_product(0, 1, m, n, n, d_x, 3 * n, w_h, n, scratch, n);  // by h * reset
    team::run_by_rows(m, n, [&](long first, long after) {
        for (long i = first; i < after; i++)
            gradient_of_reset(n, scratch + i * n, h + i * n, rz + 2 * i * n, d_x + (3 * i + 1) * n);
    });
    for (long c = 0; c < 3 * n; c++) d_bias[c] = 0;
    for (long i = 0; i < m; i++) add(3 * n, d_x + 3 * i * n, d_bias);
}
