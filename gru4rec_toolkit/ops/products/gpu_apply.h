// The host code of the Op in products/gpu.py.
#pragma once
#include "gpu_arrays.h"

namespace gk {

template <class Node>
static bool apply_product_of_columns(Node&, PyGpuContextObject* context, const Plain& x,
                                     const Plain& y, PyArrayObject* start, PyArrayObject* stop,
                                     PyGpuArrayObject*& out) {
    if (!all_ok(x, y)) return false;
    const npy_int64 first = scalar<npy_int64>(start), last = scalar<npy_int64>(stop);
    if (x.dim(0) != y.dim(0) || first < 0 || last < first || last > npy_int64(y.dim(1)))
        return fail("product of columns: the shapes do not fit");
    return allocate(out, {x.dim(1), size_t(last - first)}, context) &&
           product_of_columns(x, y, first, out);
}

}  // namespace gk
