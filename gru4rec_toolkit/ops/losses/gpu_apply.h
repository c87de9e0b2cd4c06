// The host code of the Op in losses/gpu.py.
#pragma once
#include "gpu_arrays.h"

namespace gk {

// The cost goes to place `place` of `costs`, or, of nothing, is an output of its own.
template <class Node>
static bool apply_loss(Node& node, PyGpuContextObject* context, PyGpuArrayObject* scores,
                       const Plain& offsets, const Plain& weights, PyGpuArrayObject* costs,
                       PyArrayObject* place, PyGpuArrayObject*& cost, PyGpuArrayObject*& d_scores,
                       PyGpuArrayObject*& d_offsets, float scale, bool in_place) {
    if (!all_ok(offsets, weights)) return false;
    const size_t m = scores->ga.dimensions[0], n = scores->ga.dimensions[1];
    const npy_int64 at = place ? scalar<npy_int64>(place) : 0;
    if (m > n || offsets.dim(0) != n || weights.dim(0) != n)
        return fail("loss: expected scores (m, n), n >= m, offsets and weights (n,)");
    const Scratch of_rows(m, GA_FLOAT, context);
    if (!of_rows.ok() || !take(d_scores, scores, in_place) ||
        !allocate(d_offsets, {n}, context) ||
        !(costs ? take(cost, costs, in_place) : allocate(cost, {}, context)))
        return false;
    if (at < 0 || (costs && at >= npy_int64(cost->ga.dimensions[0])))
        return fail("loss: no such place in costs");
    return launch(GK_KERNEL(node, loss_rows), m, THREADS, n, d_scores, offsets, weights, scale, m,
                  of_rows) &&
           launch(GK_KERNEL(node, loss_columns), (n + COLUMNS - 1) / COLUMNS + 1, COLUMNS * PARTS,
                  m, n, d_scores, of_rows, scale, d_offsets, cost, at);
}

}  // namespace gk
