// The host code of the Op in topk/op.py.
#pragma once
#include "arrays.h"

namespace gk {

static inline bool apply_top_k(const Plain& hidden, const Plain& rows, const Plain& biases,
                               const Plain& starts, const Plain& left_out, PyArrayObject* k_of,
                               PyArrayObject*& items, PyArrayObject*& best, gk_act activation) {
    if (!all_ok(hidden, rows, biases, starts, left_out)) return false;
    const npy_intp m = hidden.dim(0), n_items = rows.dim(0), k = scalar<npy_int64>(k_of);
    if (rows.dim(1) != hidden.dim(1) || biases.size() != n_items || starts.dim(0) != m + 1 || k < 0)
        return fail(PyExc_ValueError, "top k: the shapes do not fit");
    for (npy_intp i = 0; i < m; i++)
        if (starts.ids()[i] < 0 || starts.ids()[i] > starts.ids()[i + 1] ||
            starts.ids()[i + 1] > left_out.dim(0))
            return fail(PyExc_ValueError, "top k: what is left out does not fit");
    if (!allocate(items, {m, k}, NPY_INT32) || !allocate(best, {m, k})) return false;
    const int problem = gk_top_k(m, hidden.dim(1), hidden.data(), n_items, rows.data(),
                                 biases.data(), starts.ids(), left_out.ids(), activation, k,
                                 static_cast<int32_t*>(PyArray_DATA(items)), data(best));
    return !problem || fail(PyExc_MemoryError, "top k");
}

}  // namespace gk
