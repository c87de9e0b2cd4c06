// The host code of the Ops in rows/op.py.
#pragma once
#include <algorithm>

#include "arrays.h"

namespace gk {

static inline bool apply_gather(const Plain& table, const Plain& index, PyArrayObject*& out) {
    if (!all_ok(table, index) || !allocate(out, {index.dim(0), table.dim(1)})) return false;
    const long bad = gk_gather(table.data(), table.dim(0), table.dim(1), index.ids(), index.dim(0),
                               data(out));
    if (bad < 0) return true;
    PyErr_Format(PyExc_IndexError, "look-up of rows: index %ld is out of range", bad);
    return false;
}

// copies may be of no array
static inline bool apply_outputs(const Plain& targets, const Plain& negatives, const Plain& copies,
                                 PyArrayObject*& items, PyArrayObject*& weights) {
    if (!all_ok(targets, negatives, copies)) return false;
    const long m = targets.dim(0), k = negatives.dim(0);
    if (copies.data() && copies.dim(0) != k) return fail(PyExc_ValueError, "outputs: copies");
    if (!allocate(items, {m + k}, NPY_INT32) || !allocate(weights, {m + k})) return false;
    npy_int32* all = static_cast<npy_int32*>(PyArray_DATA(items));
    float* of_all = data(weights);
    std::copy(targets.ids(), targets.ids() + m, all);
    std::copy(negatives.ids(), negatives.ids() + k, all + m);
    std::fill(of_all, of_all + (copies.data() ? m : m + k), 1.f);
    if (copies.data()) std::copy(copies.data(), copies.data() + k, of_all + m);
    return true;
}

static inline bool apply_log_q(const Plain& biases, const Plain& log_support, const Plain& items,
                               PyArrayObject* n_targets, PyArrayObject*& out, float of_targets,
                               float of_samples) {
    if (!all_ok(biases, log_support, items)) return false;
    const npy_intp n = items.dim(0), n_items = log_support.dim(0);
    const npy_intp m = scalar<npy_int64>(n_targets);
    if (biases.dim(0) != n) return fail(PyExc_ValueError, "logQ: the biases' size");
    if (!allocate(out, {n})) return false;
    for (npy_intp j = 0; j < n; j++) {
        const npy_int32 item = items.ids()[j];
        if (item < 0 || item >= n_items) return fail(PyExc_IndexError, "logQ: not an item index");
        const float factor = j < m ? of_targets : of_samples;
        data(out)[j] = biases.data()[j] - factor * log_support.data()[item];
    }
    return true;
}

}  // namespace gk
