// The host code of the Op in losses/op.py.
#pragma once
#include "arrays.h"

namespace gk {

static inline bool apply_loss(PyArrayObject* scores, const Plain& offsets, const Plain& weights,
                              PyArrayObject*& cost, PyArrayObject*& d_scores,
                              PyArrayObject*& d_offsets, gk_act activation, float scale,
                              float parameter, bool in_place) {
    const npy_intp m = PyArray_DIM(scores, 0), n = PyArray_DIM(scores, 1);
    if (!all_ok(offsets, weights)) return false;
    if (m > n || offsets.dim(0) != n || weights.dim(0) != n)
        return fail(PyExc_ValueError,
                    "loss: expected scores (m, n), n >= m, offsets and weights (n,)");
    if (!take(d_scores, scores, in_place) || !allocate(d_offsets, {n}) || !allocate(cost, {}))
        return false;
    *data(cost) = gk_loss(m, n, data(d_scores), offsets.data(), weights.data(),
                          data(d_offsets), scale, parameter, activation);
    return true;
}

}  // namespace gk
