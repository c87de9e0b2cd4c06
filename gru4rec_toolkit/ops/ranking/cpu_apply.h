// The host code of the Ops in ranking/op.py.
#pragma once
#include <algorithm>

#include "arrays.h"

namespace gk {

static inline bool apply_activate(const Plain& scores, PyArrayObject*& activated,
                                  gk_act activation) {
    if (!scores.ok() || !allocate(activated, {scores.dim(0), scores.dim(1)})) return false;
    const long n = scores.size(), whole = n / GK_LANES * GK_LANES;
    float* out = data(activated);
    std::copy_n(scores.data(), n, out);
    gk_activate(whole, out, activation);
    float rest[GK_LANES] = {};
    std::copy(out + whole, out + n, rest);
    gk_activate(GK_LANES, rest, activation);
    std::copy_n(rest, n - whole, out + whole);
    return true;
}

static inline bool apply_count_ranks(const Plain& hidden, const Plain& rows, const Plain& biases,
                                     const Plain& ids, const Plain& targets, const Plain& scores,
                                     PyArrayObject*& better, PyArrayObject*& equal,
                                     gk_act activation) {
    if (!all_ok(hidden, rows, biases, ids, targets, scores)) return false;
    const npy_intp m = hidden.dim(0), k = rows.dim(0);
    if (rows.dim(1) != hidden.dim(1) || biases.dim(0) != k || ids.dim(0) != k ||
        targets.dim(0) != m || scores.dim(0) != m)
        return fail(PyExc_ValueError, "ranks: the shapes do not fit");
    if (!allocate(better, {m}, NPY_INT64) || !allocate(equal, {m}, NPY_INT64)) return false;
    const int problem = gk_count_ranks(
        m, hidden.dim(1), hidden.data(), k, rows.data(), biases.data(), ids.ids(), targets.ids(),
        scores.data(), activation, static_cast<int64_t*>(PyArray_DATA(better)),
        static_cast<int64_t*>(PyArray_DATA(equal)));
    return !problem || fail(PyExc_MemoryError, "ranks");
}

}  // namespace gk
