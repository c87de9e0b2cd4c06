// The host code of the Ops in rows/gpu.py.
#pragma once
#include "gpu_arrays.h"

namespace gk {

template <class Node>
static bool apply_gather(Node& node, PyGpuContextObject* context, const Plain& table,
                         const Plain& index, PyGpuArrayObject*& out) {
    if (!all_ok(table, index)) return false;
    const size_t n = index.dim(0), width = table.dim(1);
    return allocate(out, {n, width}, context) &&
           launch(GK_KERNEL(node, gather), groups(n * width), THREADS, table, table.dim(0), width,
                  index, n, out);
}

template <class Node>
static bool apply_outputs(Node& node, PyGpuContextObject* context, const Plain& targets,
                          const Plain& negatives, PyGpuArrayObject* copies_or_none,
                          PyGpuArrayObject*& items, PyGpuArrayObject*& weights) {
    const Plain copies(copies_or_none, &negatives);
    if (!all_ok(targets, negatives, copies)) return false;
    const size_t m = targets.dim(0), k = negatives.dim(0);
    return allocate(items, {m + k}, context, GA_INT) && allocate(weights, {m + k}, context) &&
           launch(GK_KERNEL(node, outputs), groups(m + k), THREADS, m, targets, k, negatives,
                  copies_or_none != nullptr, copies, items, weights);
}

template <class Node>
static bool apply_log_q(Node& node, PyGpuContextObject* context, const Plain& biases,
                        const Plain& log_support, const Plain& items, PyArrayObject* n_targets,
                        PyGpuArrayObject*& out, float of_targets, float of_samples) {
    if (!all_ok(biases, log_support, items)) return false;
    const size_t n = items.dim(0);
    return allocate(out, {n}, context) &&
           launch(GK_KERNEL(node, log_q), groups(n), THREADS, n, scalar<npy_int64>(n_targets),
                  biases, log_support, items, of_targets, of_samples, out);
}

// log_support and n_targets: nullptr without a correction
template <class Node>
static bool apply_look_ups(Node& node, PyGpuContextObject* context, const Plain& table_in,
                           const Plain& inputs, PyArrayObject* p, PyArrayObject* seed,
                           PyArrayObject* counter, const Plain& table, const Plain& biases,
                           const Plain& targets, const Plain& negatives,
                           PyGpuArrayObject* log_support_or_none, PyArrayObject* n_targets,
                           PyGpuArrayObject* copies_or_none, PyGpuArrayObject*& rows_in,
                           PyGpuArrayObject*& rows, PyGpuArrayObject*& offsets,
                           PyGpuArrayObject*& items, PyGpuArrayObject*& weights, float of_targets,
                           float of_samples) {
    const Plain copies(copies_or_none, &negatives), log_support(log_support_or_none, &biases);
    if (!all_ok(table_in, inputs, table, biases, targets, negatives, copies, log_support))
        return false;
    const size_t m = targets.dim(0), k = negatives.dim(0);
    const size_t width_in = table_in.dim(1), width = table.dim(1);
    if (inputs.dim(0) != m || biases.dim(0) != table.dim(0) || copies.dim(0) != k)
        return fail("look-ups: the shapes do not fit");
    if (!allocate(rows_in, {m, width_in}, context) || !allocate(rows, {m + k, width}, context) ||
        !allocate(offsets, {m + k}, context) || !allocate(items, {m + k}, context, GA_INT) ||
        !allocate(weights, {m + k}, context))
        return false;
    return launch(GK_KERNEL(node, look_up), groups(m * width_in + (m + k) * width), THREADS, m,
                  table_in.dim(0), width_in, table_in, inputs, Mask(p, seed, counter), k,
                  table.dim(0), width, table, biases, targets, negatives,
                  copies_or_none != nullptr, copies, log_support_or_none != nullptr, log_support,
                  n_targets ? scalar<npy_int64>(n_targets) : 0, of_targets, of_samples, rows_in,
                  rows, offsets, items, weights);
}

}  // namespace gk
