// The host code of the Op in updates/gpu.py, for any number of parameters: Whole and OfRows say what
// the kernels take of each.
#pragma once
#include "gpu_arrays.h"
#include "kernels.h"

namespace gk {

// An input and the output that is the same after the step; {}: the method has no such table.
struct Table {
    PyGpuArrayObject* before;
    PyGpuArrayObject** after;

    bool open(bool in_place) const { return !after || take(*after, before, in_place); }
};

// A parameter, its states and its velocity.
struct Tables {
    Table values, state0, state1, time, velocity;

    bool open(bool in_place) const {
        return values.open(in_place) && state0.open(in_place) && state1.open(in_place) &&
               time.open(in_place) && velocity.open(in_place);
    }
    size_t n_rows() const { return (*values.after)->ga.dimensions[0]; }
    size_t width() const {
        const GpuArray& all = (*values.after)->ga;
        return all.nd > 1 ? all.dimensions[1] : 1;
    }
    // in the place of a table that there is not, and that no kernel touches: the values
    PyGpuArrayObject* get(const Table& table) const {
        return table.after ? *table.after : *values.after;
    }

    auto for_update() const {
        return all_passed(n_rows(), width(), get(values), get(state0), get(state1), get(time),
                          get(velocity));
    }
    auto for_tick() const { return all_passed(n_rows(), get(time)); }
};

// A parameter that is updated as a whole.
struct Whole {
    static constexpr bool OF_ROWS = false;
    Tables tables;
    Plain gradient;

    bool open(bool in_place) const {
        if (!tables.open(in_place) || !gradient.ok()) return false;
        return n_elements() == tables.n_rows() * tables.width() ||
               fail("update: gradient's size");
    }
    size_t n_elements() const { return gradient.size(); }
    size_t n_occurrences() const { return 0; }
    size_t n_ticks() const { return tables.n_rows(); }

    Arguments<0> for_links() const { return {}; }
    auto for_update() const { return all_passed(tables.for_update(), gradient); }
    auto for_tick() const { return tables.for_tick(); }
};

// One set of looked-up rows; weights: nullptr if each row stands for one.
class LookUp {
  public:
    LookUp(PyGpuArrayObject* ids, PyGpuArrayObject* gradient, PyGpuArrayObject* weights)
        : ids(ids), gradient(gradient), weights(weights, &this->ids), weighted(weights) {}

    const Plain ids, gradient, weights;
    const bool weighted;

    bool check(size_t width) const {
        if (!all_ok(ids, gradient, weights)) return false;
        return (gradient.dim(0) == ids.dim(0) && gradient.dim(1) == width) ||
               fail("update: gradient's shape");
    }
};

// A parameter of which rows were looked up, in look-ups a and b; without b it is another a, of which
// nothing counts.
struct OfRows {
    static constexpr bool OF_ROWS = true;
    Tables tables;
    LookUp a, b;
    bool has_b;

    bool open(bool in_place) const {
        return tables.open(in_place) && a.check(tables.width()) && b.check(tables.width());
    }
    size_t n_a() const { return a.ids.dim(0); }
    size_t n_b() const { return has_b ? b.ids.dim(0) : 0; }
    size_t n_elements() const { return n_occurrences() * tables.width(); }
    size_t n_occurrences() const { return n_a() + n_b(); }
    size_t n_ticks() const { return n_occurrences(); }

    auto for_links() const { return all_passed(n_a(), a.ids, n_b(), b.ids); }
    auto for_update() const {
        return all_passed(tables.for_update(), for_links(), a.gradient, b.gradient, a.weighted,
                          b.weighted, a.weights, b.weights);
    }
    auto for_tick() const { return all_passed(tables.for_tick(), for_links()); }
};

// The whole parameters stand first, as the kernels take them.
template <gk_method METHOD, class Node, class... Parameters>
static bool apply_update(Node& node, PyGpuContextObject* context, PyArrayObject* constants,
                         bool in_place, const Parameters&... parameters) {
    if (!(parameters.open(in_place) && ...)) return false;
    const size_t n_elements = (parameters.n_elements() + ...);
    const size_t n_occurrences = (parameters.n_occurrences() + ...);
    const Scratch owner(n_occurrences, GA_INT, context), next(n_occurrences, GA_INT, context);
    if (!all_ok(owner, next)) return false;
    if constexpr ((Parameters::OF_ROWS || ...)) {
        const size_t n_groups = (((parameters.n_occurrences() + COLUMNS - 1) / COLUMNS) + ...);
        if (!launch(GK_KERNEL(node, link_occurrences), n_groups, COLUMNS * PARTS, owner, next,
                    parameters.for_links()...))
            return false;
    }
    const auto c = [&](int i) { return *static_cast<float*>(PyArray_GETPTR1(constants, i)); };
    if (!launch(GK_KERNEL(node, update), groups(n_elements), THREADS, n_elements, c(0), c(1), c(2),
                c(3), c(4), c(5), owner, next, parameters.for_update()...))
        return false;
    if constexpr (METHOD == GK_ADAM) {
        const size_t n_ticks = (parameters.n_ticks() + ...);
        return launch(GK_KERNEL(node, tick), groups(n_ticks), THREADS, n_ticks, owner,
                      parameters.for_tick()...);
    }
    return true;
}

}  // namespace gk
