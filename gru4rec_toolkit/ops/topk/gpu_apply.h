// The host code of the Op in topk/gpu.py.
#pragma once
#include <algorithm>
#include <limits>

#include "gpu_arrays.h"

namespace gk {

constexpr size_t TOP_K_SCORES_AT_ONCE = 1 << 24;  // in memory

template <class Node>
static bool apply_top_k(Node& node, PyGpuContextObject* context, const Plain& hidden,
                        const Plain& rows, const Plain& biases, const Plain& starts,
                        const Plain& left_out, PyArrayObject* k_of, PyGpuArrayObject*& items,
                        PyGpuArrayObject*& best) {
    if (!all_ok(hidden, rows, biases, starts, left_out)) return false;
    const size_t m = hidden.dim(0), n_items = rows.dim(0), k = scalar<npy_int64>(k_of);
    if (rows.dim(1) != hidden.dim(1) || biases.size() != n_items || starts.dim(0) != m + 1)
        return fail("top k: the shapes do not fit");
    const size_t at_once = std::max<size_t>(1, TOP_K_SCORES_AT_ONCE / std::max<size_t>(1, m));
    const size_t n_blocks = std::max<size_t>(1, (n_items + at_once - 1) / at_once);
    const float none = std::numeric_limits<float>::quiet_NaN();
    const float worst = -std::numeric_limits<float>::infinity();
    if (!allocate(items, {m, k}, context, GA_INT) || !allocate(best, {m, k}, context)) return false;
    // what a block has found is old in the next one, which writes to the other pair
    const Scratch other_items(m * k, GA_INT, context), other_best(m * k, GA_FLOAT, context);
    if (!all_ok(other_items, other_best)) return false;
    for (size_t block = 0; block < n_blocks; block++) {
        const size_t first = block * at_once, n = std::min(at_once, n_items - first);
        const Scratch scores(m, n, context);
        if (!scores.ok() || !product(hidden, rows, true, scores.get(), first, n)) return false;
        // the last block writes to the outputs
        const bool to_other = (n_blocks - 1 - block) % 2;
        const auto out_items = to_other ? passed(other_items) : passed(items);
        const auto out_best = to_other ? passed(other_best) : passed(best);
        const auto old_items = to_other ? passed(items) : passed(other_items);
        const auto old_best = to_other ? passed(best) : passed(other_best);
        const auto of_block =
            passed(biases.get()->ga.data, biases.get()->ga.offset + sizeof(float) * first);
        if (!launch(GK_KERNEL(node, finish_scores), groups(m * n), THREADS, m, n, scores,
                    of_block) ||
            !launch(GK_KERNEL(node, leave_out), m, THREADS, first, n, starts, left_out, none,
                    scores) ||
            !launch(GK_KERNEL(node, top_k), m, THREADS, first, n, k, scores, block == 0 ? 0 : k,
                    old_items, old_best, worst, out_items, out_best))
            return false;
    }
    return true;
}

}  // namespace gk
