// The host code of the Op in products/op.py.
#pragma once
#include "arrays.h"

namespace gk {

static inline bool apply_product(PyArrayObject* x, PyArrayObject* y, PyArrayObject*& out) {
    const npy_intp m = PyArray_DIM(x, 0), k = PyArray_DIM(x, 1), n = PyArray_DIM(y, 1);
    if (k != PyArray_DIM(y, 0)) return fail(PyExc_ValueError, "product: inner sizes differ");
    BlasMatrix a(x), b(y);
    if (!all_ok(a, b) || !allocate(out, {m, n})) return false;
    if (k == 0) {
        PyArray_FILLWBYTE(out, 0);
    } else {
        gk_product(a.transposed, b.transposed, m, n, k, a.data(), a.between, b.data(), b.between,
                   data(out), n > 0 ? n : 1);
    }
    return true;
}

}  // namespace gk
