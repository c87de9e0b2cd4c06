// The host code of the Op in updates/op.py.
#pragma once
#include <vector>

#include "arrays.h"

namespace gk {

// An input and the output that is the same after the step; {}: the method has no such table.
struct Table {
    PyArrayObject* before;
    PyArrayObject** after;

    bool open(bool in_place) const { return !after || take(*after, before, in_place); }
    float* data() const { return after ? gk::data(*after) : nullptr; }
};

// A parameter, its states and its velocity.
struct Tables {
    Table values, state0, state1, time, velocity;
};

// One set of looked-up rows; without weights and rows: nullptr.
struct LookUp {
    Plain index, gradient, weights, rows;
};

// Makes the outputs of the tables and says in the library's words how to update them.
static inline bool open_rule(gk_rule& rule, const Plain& constants, const Tables& tables,
                             bool in_place) {
    const auto& [values, state0, state1, time, velocity] = tables;
    if (!constants.ok() || !values.open(in_place) || !state0.open(in_place) ||
        !state1.open(in_place) || !time.open(in_place) || !velocity.open(in_place))
        return false;
    PyArrayObject* all = *values.after;
    const long width = PyArray_NDIM(all) > 1 ? PyArray_DIM(all, 1) : 1;
    const float* c = constants.data();
    rule = {PyArray_DIM(all, 0), width, values.data(), {state0.data(), state1.data()},
            time.data(), velocity.data(), c[0], c[1], c[2], c[3], {c[4], c[5]}};
    return true;
}

static inline bool apply_update(const Plain& constants, const Tables& tables,
                                const Plain& gradient, bool in_place) {
    gk_rule rule;
    if (!open_rule(rule, constants, tables, in_place) || !gradient.ok()) return false;
    const long n = gradient.size();
    if (n != rule.n_rows * rule.width) return fail(PyExc_ValueError, "update: gradient's size");
    gk_update_dense(&rule, n, gradient.data());
    return true;
}

static inline bool apply_update_of_rows(const Plain& constants, const Tables& tables,
                                        std::initializer_list<LookUp> look_ups, bool in_place) {
    gk_rule rule;
    if (!open_rule(rule, constants, tables, in_place)) return false;
    std::vector<gk_lookup> all;
    for (const auto& [index, gradient, weights, rows] : look_ups) {
        if (!all_ok(index, gradient, weights, rows)) return false;
        if (gradient.dim(0) != index.dim(0) || gradient.dim(1) != rule.width)
            return fail(PyExc_ValueError, "update: gradient's shape");
        all.push_back(
            {index.dim(0), index.ids(), gradient.data(), weights.data(), rows.data()});
    }
    const int problem = gk_update_rows(&rule, all.data(), all.size());
    if (problem == 1) return fail(PyExc_MemoryError, "update of rows");
    if (problem == 2) return fail(PyExc_IndexError, "update of rows: index out of range");
    return true;
}

}  // namespace gk
