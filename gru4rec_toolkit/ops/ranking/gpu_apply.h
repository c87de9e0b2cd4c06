// The host code of the Ops in ranking/gpu.py.
#pragma once
#include <algorithm>

#include "gpu_arrays.h"

namespace gk {

template <class Node>
static bool apply_activate(Node& node, PyGpuContextObject* context, const Plain& scores,
                           PyGpuArrayObject*& activated) {
    if (!scores.ok()) return false;
    const size_t m = scores.dim(0), n = scores.dim(1);
    return allocate(activated, {m, n}, context) &&
           launch(GK_KERNEL(node, activate), groups(m * n), THREADS, m * n, scores, activated);
}

constexpr size_t SCORES_AT_ONCE = 1 << 24;  // in memory

template <class Node>
static bool apply_count_ranks(Node& node, PyGpuContextObject* context, const Plain& hidden,
                              const Plain& rows, const Plain& biases, const Plain& ids,
                              const Plain& targets, const Plain& scores,
                              PyGpuArrayObject*& better, PyGpuArrayObject*& equal) {
    if (!all_ok(hidden, rows, biases, ids, targets, scores)) return false;
    const size_t m = hidden.dim(0), k = rows.dim(0);
    if (rows.dim(1) != hidden.dim(1) || biases.dim(0) != k || ids.dim(0) != k ||
        targets.dim(0) != m || scores.dim(0) != m)
        return fail("ranks: the shapes do not fit");
    if (!allocate(better, {m}, context, GA_LONG) || !allocate(equal, {m}, context, GA_LONG))
        return false;
    const size_t at_once = std::max<size_t>(1, SCORES_AT_ONCE / std::max<size_t>(1, m));
    for (size_t first = 0; first == 0 || first < k; first += at_once) {
        const size_t n = std::min(at_once, k - first);
        const Scratch block(m, n, context);
        if (!block.ok() || !product(hidden, rows, true, block.get(), first, n)) return false;
        const auto from_first = [&](const Plain& array) {  // of four bytes an element
            return passed(array.get()->ga.data, array.get()->ga.offset + 4 * first);
        };
        if (!launch(GK_KERNEL(node, count_ranks), m, THREADS, n, block, from_first(biases),
                    from_first(ids), targets, scores, first == 0, better, equal))
            return false;
    }
    return true;
}

}  // namespace gk
