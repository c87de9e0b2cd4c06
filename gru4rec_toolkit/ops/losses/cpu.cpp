// A loss and its gradient in one pass over the scores, row by row (definitions: losses.py).
//
// LOSS and ACTIVATION say which: each pair is a part of the library, compiled where needed.
#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <vector>

#include "activations.h"
#include "kernels.h"
#include "team.h"

namespace {

constexpr float EPSILON = 1e-24f;

// Calls row(i, d_offsets) for every row and adds up what the calls return and add to d_offsets.
template <class Row>
double sum_over_rows(long m, long n, float* d_offsets, Row row) try {
    const double a_thread = team::NANOSECONDS_A_THREAD + team::NANOSECONDS_A_NUMBER * n;
    const int n_parts = team::size_for_numbers(m * n, a_thread);
    std::vector<double> losses(n_parts, 0);
    std::vector<std::vector<float>> columns(n_parts, std::vector<float>(n, 0.f));
    team::run(n_parts, [&](int t, int) {
        const auto s = team::share(m, t, n_parts);
        for (long i = s.begin; i < s.end; i++) losses[t] += row(i, columns[t].data());
    });
    double loss = 0;
    std::fill(d_offsets, d_offsets + n, 0.f);
    for (int t = 0; t < n_parts; t++) {  // in the threads' order: the same sum every time
        loss += losses[t];
        for (long j = 0; j < n; j++) d_offsets[j] += columns[t][j];
    }
    return loss;
} catch (const std::bad_alloc&) {
    return std::numeric_limits<double>::quiet_NaN();
}

// By value, here and below: what a reference leads to might change with every number written.
//
// One row of the losses: x (n,) its scores, turned into their gradient, added to d_offsets too.
// w: how many equal columns each one stands for; the gradient is that of all of them together.

struct Row {
    int i, n;  // as many bits as a float: they are compared side by side in vectors
    float* x;
    const float *offsets, *w;
    float *d_offsets, scale;
    double n_columns;  // sum of w
};

float largest(const float* x, long n, float start) {
    float top = start;
#pragma omp simd reduction(max : top)
    for (long j = 0; j < n; j++) top = x[j] > top ? x[j] : top;
    return top;
}

// The softmax of x + offsets: e_j = exp(x_j - top), and the weighted sum of them.
float exponentials(Row r) {
    float* __restrict__ x = r.x;
    const float *__restrict__ offsets = r.offsets, *__restrict__ w = r.w;
    float top = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : top)
    for (int j = 0; j < r.n; j++) {
        x[j] += offsets[j];
        top = x[j] > top ? x[j] : top;
    }
    float z = 0;
    for (int j = 0; j < r.n; j++) {
        x[j] = exp_(x[j] - top);
        z += w[j] * x[j];
    }
    return z;
}

double cross_entropy(Row r) {
    const float z = exponentials(r);
    float* __restrict__ x = r.x;
    float* __restrict__ d = r.d_offsets;
    const float* __restrict__ w = r.w;
    const float p = x[r.i] / z;
    const float target = r.scale * (p / (p + EPSILON)), factor = target / z;
    for (int j = 0; j < r.n; j++) {
        x[j] *= w[j] * factor;
        d[j] += x[j];
    }
    x[r.i] -= target;
    d[r.i] -= target;
    return -std::log(p + EPSILON);
}

// With label smoothing, or from the logits: loss = sum_j c_j surprise(p_j), where c is the label
// and surprise -log(p + EPSILON) or -log p. With q_j = -p_j surprise'(p_j), which is
// p_j / (p_j + EPSILON) or 1: d loss / d x_j = p_j sum_k c_k q_k - c_j q_j.
template <bool LOGIT>
double smoothed_cross_entropy(Row r, float smoothing) {
    const float z = exponentials(r), log_z = std::log(z);
    float* __restrict__ x = r.x;
    float* __restrict__ d = r.d_offsets;
    const float* __restrict__ w = r.w;
    const float other = r.n_columns > 1 ? smoothing / (r.n_columns - 1) : 0.f;
    const float target = 1.f - smoothing;
    const float by_z = 1.f / z;
    auto surprise = [&](float e) {
        return LOGIT ? log_z - log_(e) : -log_(e * by_z + EPSILON);
    };
    auto q = [&](float p) { return LOGIT ? 1.f : p / (p + EPSILON); };
    float sum = (target - other) * q(x[r.i] * by_z);
    double loss = (target - other) * surprise(x[r.i]);
    if (smoothing > 0) {
        for (int j = 0; j < r.n; j++) {
            sum += other * w[j] * q(x[j] * by_z);
            loss += other * w[j] * surprise(x[j]);
        }
    }
    for (int j = 0; j < r.n; j++) {
        const float p = x[j] * by_z;
        const float c = j == r.i ? target : other;
        x[j] = r.scale * w[j] * (p * sum - c * q(p));
        d[j] += x[j];
    }
    return loss;
}

template <class Act>
void activate(Row r, Act act) {
    float* __restrict__ y = r.x;
    const float* __restrict__ offsets = r.offsets;
    for (int j = 0; j < r.n; j++) y[j] = act.value(y[j] + offsets[j]);
}

// Turns y into the gradient by x, from that by y_j in g and what the target's score y_i adds to it.
template <class Act>
void finish(Row r, Act act, const float* __restrict__ g, float d_target) {
    float* __restrict__ y = r.x;
    float* __restrict__ d = r.d_offsets;
    const float target = (g[r.i] + d_target) * act.slope(y[r.i]) * r.scale;
    for (int j = 0; j < r.n; j++) {
        y[j] = j == r.i ? target : g[j] * act.slope(y[j]) * r.scale;
        d[j] += y[j];
    }
}

template <class Act>
double bpr(Row r, Act act, float* __restrict__ g) {
    activate(r, act);
    const float* __restrict__ y = r.x;
    const float* __restrict__ w = r.w;
    const float target = y[r.i];
    float sum = 0;
    double loss = 0;
    for (int j = 0; j < r.n; j++) {
        const float difference = y[j] - target;  // -log sigmoid(-x) = log(1 + e^x)
        g[j] = w[j] * sigmoid_(difference);
        sum += g[j];
        loss += w[j] * (std::max(difference, 0.f) + log_(1.f + exp_(-std::fabs(difference))));
    }
    finish(r, act, g, -sum);
    return loss;
}

// The largest score of the negatives, or a zero in the target's place.
float largest_negative(Row r) {
    return std::max(largest(r.x, r.i, 0), largest(r.x + r.i + 1, r.n - r.i - 1, 0));
}

// e_j = w_j exp(y_j - top) of the negatives and 0 for the target: the softmax, but for its sum.
float negatives_exponentials(Row r, float* __restrict__ e) {
    const float* __restrict__ y = r.x;
    const float* __restrict__ w = r.w;
    const float top = largest_negative(r);
    float z = 0;
    for (int j = 0; j < r.n; j++) {
        e[j] = j == r.i ? 0.f : w[j] * exp_(y[j] - top);
        z += e[j];
    }
    return z;
}

// With A = sum_j s_j sigmoid(y_i - y_j) and Q = sum_j s_j y_j^2: loss = -log(A + eps) + bpreg Q.
template <class Act>
double bpr_max(Row r, Act act, float bpreg, float* __restrict__ e, float* __restrict__ won) {
    activate(r, act);
    float* __restrict__ y = r.x;
    float* __restrict__ columns = r.d_offsets;
    const float* __restrict__ w = r.w;
    const float target = y[r.i], target_slope = act.slope(target), top = largest_negative(r);
    // one exponential does for both: sigmoid(y_i - y_j) = 1 / (1 + exp(y_j - top) exp(top - y_i));
    // where it is out of range, s_j is 0
    const float from_top = exp_(top - target);
    float z = 0, a = 0, q = 0, d = 0;
    for (int j = 0; j < r.n; j++) {
        const float x = exp_(y[j] - top), s = 1.f / (1.f + x * from_top);
        const float weight = j == r.i ? 0.f : w[j] * x;
        e[j] = weight;
        won[j] = s;
        z += weight;
        a += weight * s;
        q += weight * y[j] * y[j];
        d += weight * s * (1.f - s);
    }
    const float by_z = 1.f / z;
    a *= by_z, q *= by_z, d *= by_z;
    const float by_a = by_z * r.scale / (a + EPSILON), by_q = by_z * r.scale * bpreg;
    for (int j = 0; j < r.n; j++) {
        const float s = won[j];
        y[j] = e[j] * act.slope(y[j]) *
               (by_a * (a - s * s) + by_q * (2.f * y[j] + y[j] * y[j] - q));
        columns[j] += y[j];
    }
    const float d_target = -d / (a + EPSILON) * target_slope * r.scale;
    y[r.i] = d_target;
    columns[r.i] += d_target;
    return -std::log(a + EPSILON) + bpreg * q;
}

// sum_j c_j (sigmoid(y_j - y_i) + sigmoid(y_j^2)) and, in e, its gradient by y_j with c held fixed;
// d_target: that by y_i inside of the first sigmoid. c comes in e; terms: (n,), what c multiplies.
double top1_sum(Row r, float* __restrict__ e, float* __restrict__ terms, float& d_target) {
    const float* __restrict__ y = r.x;
    const float target = y[r.i];
    float loss = 0, d = 0;
    for (int j = 0; j < r.n; j++) {
        const float lost = sigmoid_(y[j] - target), large = sigmoid_(y[j] * y[j]);
        const float c = e[j], d_lost = c * lost * (1.f - lost);
        terms[j] = lost + large;
        loss += c * terms[j];
        d += d_lost;
        e[j] = d_lost + c * 2.f * y[j] * large * (1.f - large);
    }
    d_target = -d;
    return loss;
}

template <class Act>
double top1(Row r, Act act, long m, float* __restrict__ e, float* __restrict__ terms) {
    activate(r, act);
    const float factor = m / r.n_columns;
    for (int j = 0; j < r.n; j++) e[j] = factor * r.w[j];
    float d_target;
    const double loss = top1_sum(r, e, terms, d_target);
    const float y = r.x[r.i], large = sigmoid_(y * y);
    d_target -= factor * 2.f * y * large * (1.f - large);
    finish(r, act, e, d_target);
    return loss - factor * large;
}

template <class Act>
double top1_max(Row r, Act act, float* __restrict__ e, float* __restrict__ terms,
                float* __restrict__ s) {
    activate(r, act);
    const float by_z = 1.f / negatives_exponentials(r, e);
    for (int j = 0; j < r.n; j++) s[j] = e[j] *= by_z;
    float d_target;
    const double loss = top1_sum(r, e, terms, d_target);
    const float mean = loss;
    for (int j = 0; j < r.n; j++) e[j] += s[j] * (terms[j] - mean);  // through the softmax
    finish(r, act, e, d_target);
    return loss;
}

}  // namespace

extern "C" double gk_loss(long m, long n, float* scores, const float* offsets,
                          const float* weights, float* d_offsets, float scale, float parameter,
                          gk_act act) {
    double n_columns = 0;
    for (long j = 0; j < n; j++) n_columns += weights[j];
    return scale * with_activation(act, [&](auto f) {
        return sum_over_rows(m, n, d_offsets, [&](long i, float* columns) -> double {
            static thread_local std::vector<float> buffers[3];
            for (auto& buffer : buffers) buffer.resize(n);
            float *a = buffers[0].data(), *b = buffers[1].data(), *c = buffers[2].data();
            const Row row = {static_cast<int>(i), static_cast<int>(n), scores + i * n, offsets,
                             weights,             columns,             scale,          n_columns};
            if constexpr (LOSS == GK_CROSS_ENTROPY) {
                return parameter > 0 ? smoothed_cross_entropy<false>(row, parameter)
                                     : cross_entropy(row);
            } else if constexpr (LOSS == GK_XE_LOGIT) {
                return smoothed_cross_entropy<true>(row, parameter);
            } else if constexpr (LOSS == GK_BPR) {
                return bpr(row, f, a);
            } else if constexpr (LOSS == GK_BPR_MAX) {
                return bpr_max(row, f, parameter, a, b);
            } else if constexpr (LOSS == GK_TOP1) {
                return top1(row, f, m, a, b);
            } else {
                return top1_max(row, f, a, b, c);
            }
        });
    });
}
