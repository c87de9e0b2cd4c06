// The host code of the Ops in gru/gpu.py.
#pragma once
#include "gpu_arrays.h"

namespace gk {

// p, seed, counter, goes_on and kept: nullptr for the GRU alone
template <class Node>
static bool apply_gru(Node& node, PyGpuContextObject* context, const Plain& x, const Plain& bias,
                      const Plain& h, const Plain& w_rz, const Plain& w_h, PyArrayObject* p,
                      PyArrayObject* seed, PyArrayObject* counter,
                      PyGpuArrayObject* goes_on_or_none, PyGpuArrayObject*& new_state,
                      PyGpuArrayObject*& rz, PyGpuArrayObject*& reset_h,
                      PyGpuArrayObject*& candidate, PyGpuArrayObject** kept_or_none) {
    const Plain goes_on(goes_on_or_none, &h);
    if (!all_ok(x, bias, h, w_rz, w_h, goes_on)) return false;
    const size_t m = h.dim(0), n = h.dim(1);
    if (x.dim(0) != m || x.dim(1) != 3 * n || bias.dim(0) != 3 * n || w_rz.dim(0) != n ||
        w_rz.dim(1) != 2 * n || w_h.dim(0) != n || w_h.dim(1) != n || goes_on.dim(0) != m)
        return fail("GRU: the shapes do not fit");
    PyGpuArrayObject*& kept = kept_or_none ? *kept_or_none : new_state;
    if (!allocate(new_state, {m, n}, context) || !allocate(rz, {m, 2 * n}, context) ||
        !allocate(reset_h, {m, n}, context) || !allocate(candidate, {m, n}, context) ||
        !allocate(kept, {m, n}, context))
        return false;
    return product(h, w_rz, false, rz) &&
           launch(GK_KERNEL(node, gates), groups(m * n), THREADS, m, n, x, bias, h, rz, reset_h) &&
           product(reset_h, w_h, false, candidate) &&
           launch(GK_KERNEL(node, new_state), groups(m * n), THREADS, m, n, x, bias, h, rz,
                  Mask(p, seed, counter), kept_or_none != nullptr, goes_on, candidate, new_state,
                  kept);
}

// p, seed and counter: nullptr without dropout
template <class Node>
static bool apply_gru_gradient(Node& node, PyGpuContextObject* context, const Plain& d_new,
                               const Plain& h, const Plain& w_h, const Plain& rz,
                               const Plain& candidate, PyArrayObject* p, PyArrayObject* seed,
                               PyArrayObject* counter, PyGpuArrayObject*& d_x,
                               PyGpuArrayObject*& d_bias) {
    if (!all_ok(d_new, h, w_h, rz, candidate)) return false;
    const size_t m = d_new.dim(0), n = d_new.dim(1);
    if (h.dim(0) != m || h.dim(1) != n || w_h.dim(0) != n || w_h.dim(1) != n || rz.dim(0) != m ||
        rz.dim(1) != 2 * n || candidate.dim(0) != m || candidate.dim(1) != n)
        return fail("gradient of GRU: the shapes do not fit");
    const Mask mask(p, seed, counter);
    const Scratch d_candidate(m, n, context), d_reset_h(m, n, context);
    if (!all_ok(d_candidate, d_reset_h) || !allocate(d_x, {m, 3 * n}, context) ||
        !allocate(d_bias, {3 * n}, context))
        return false;
    return launch(GK_KERNEL(node, candidate_gradient), groups(m * n), THREADS, m, n, d_new, mask,
                  rz, candidate, d_candidate) &&
           product(d_candidate, w_h, true, d_reset_h.get()) &&
           launch(GK_KERNEL(node, gates_gradient), (3 * n + COLUMNS - 1) / COLUMNS,
                  COLUMNS * PARTS, m, n, d_new, mask, h, rz, candidate, d_candidate, d_reset_h, d_x,
                  d_bias);
}

template <class Node>
static bool apply_dropout(Node& node, PyGpuContextObject* context, const Plain& x,
                          PyArrayObject* p, PyArrayObject* seed, PyArrayObject* counter,
                          PyGpuArrayObject*& out) {
    if (!x.ok() || !allocate(out, {x.dim(0), x.dim(1)}, context)) return false;
    const size_t n = x.size();
    return launch(GK_KERNEL(node, dropout), groups(n), THREADS, n, x, Mask(p, seed, counter), out);
}

}  // namespace gk
