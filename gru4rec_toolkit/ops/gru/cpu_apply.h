// The host code of the Ops in gru/op.py.
#pragma once
#include <vector>

#include "arrays.h"

namespace gk {

static inline bool apply_gru(const Plain& x, const Plain& bias, const Plain& h, const Plain& w_rz,
                             const Plain& w_h, PyArrayObject*& new_state, PyArrayObject*& rz,
                             PyArrayObject*& reset_h, PyArrayObject*& candidate,
                             gk_act activation) {
    if (!all_ok(x, bias, h, w_rz, w_h)) return false;
    const npy_intp m = h.dim(0), n = h.dim(1);
    if (x.dim(0) != m || x.dim(1) != 3 * n || bias.dim(0) != 3 * n || w_rz.dim(0) != n ||
        w_rz.dim(1) != 2 * n || w_h.dim(0) != n || w_h.dim(1) != n)
        return fail(PyExc_ValueError, "GRU: the shapes do not fit");
    if (!allocate(new_state, {m, n}) || !allocate(rz, {m, 2 * n}) || !allocate(reset_h, {m, n}) ||
        !allocate(candidate, {m, n}))
        return false;
    gk_gru(m, n, x.data(), bias.data(), h.data(), w_rz.data(), w_h.data(), activation, data(rz),
           data(reset_h), data(candidate), data(new_state));
    return true;
}

static inline bool apply_gru_gradient(const Plain& d_new, const Plain& h, const Plain& w_h,
                                      const Plain& rz, const Plain& candidate,
                                      PyArrayObject*& d_x, PyArrayObject*& d_bias,
                                      gk_act activation) {
    if (!all_ok(d_new, h, w_h, rz, candidate)) return false;
    const npy_intp m = d_new.dim(0), n = d_new.dim(1);
    if (h.dim(0) != m || h.dim(1) != n || w_h.dim(0) != n || w_h.dim(1) != n || rz.dim(0) != m ||
        rz.dim(1) != 2 * n || candidate.dim(0) != m || candidate.dim(1) != n)
        return fail(PyExc_ValueError, "gradient of GRU: the shapes do not fit");
    if (!allocate(d_x, {m, 3 * n}) || !allocate(d_bias, {3 * n})) return false;
    static std::vector<float> scratch;
    scratch.resize(m * n);
    gk_gru_gradient(m, n, d_new.data(), h.data(), w_h.data(), activation, rz.data(),
                    candidate.data(), scratch.data(), data(d_x), data(d_bias));
    return true;
}

static inline bool apply_dropout(const Plain& x, PyArrayObject* p, PyArrayObject* seed,
                                 PyArrayObject* counter, PyArrayObject*& out) {
    if (!x.ok() || !allocate(out, {x.dim(0), x.dim(1)})) return false;
    gk_dropout(x.size(), x.data(), scalar<npy_float32>(p), scalar<npy_int64>(seed),
               scalar<npy_int64>(counter), data(out));
    return true;
}

}  // namespace gk
