// What the host code of the GPU's Ops (gpu_apply.h) needs of libgpuarray's arrays.
//
// That code is one function an Op, apply_...: it gets the node, the context, and the Op's inputs,
// outputs and constants, checks them, allocates the outputs and launches the Op's kernels, which are
// members of the node. (Node is a template's parameter: nodes of other Ops lack these kernels.) It
// returns false where it failed and has set a Python error.
#pragma once
#include <Python.h>
#include <numpy/arrayobject.h>

#include <gpuarray/array.h>
#include <gpuarray/blas.h>
#include <gpuarray/buffer_blas.h>
#include <gpuarray/error.h>
#include <gpuarray/kernel.h>
#include <gpuarray_api.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <type_traits>
#include <utility>

namespace gk {

// of a group; of a group that adds up columns, or compares occurrences: the same in gpu_base.py
constexpr size_t THREADS = 256;
constexpr size_t COLUMNS = 32, PARTS = 8;
constexpr size_t MOST_GROUPS = 65535; // of a grid; kernels loop where there are more elements

// Sets a Python error; false, for the caller to return.
inline bool fail(const char* message) {
    PyErr_SetString(PyExc_ValueError, message);
    return false;
}

// A C-contiguous version of an array; of no array: `other`, for an argument that is not looked at.
class Plain {
  public:
    // an argument of this type makes what it is given contiguous
    Plain(PyGpuArrayObject* array, const Plain* other = nullptr) {
        if (!array) array = other->array_;
        if (array && GpuArray_IS_C_CONTIGUOUS(&array->ga)) {
            Py_INCREF(array);
            array_ = array;
        } else if (array) {
            array_ = pygpu_copy(array, GA_C_ORDER);
        }
    }
    struct Owned {};
    Plain(PyGpuArrayObject* array, Owned) : array_(array) {}
    ~Plain() { Py_XDECREF(array_); }
    Plain(const Plain&) = delete;
    Plain& operator=(const Plain&) = delete;

    bool ok() const { return array_ != nullptr; }
    size_t dim(int axis) const { return array_->ga.dimensions[axis]; }
    size_t size() const {
        size_t n = 1;
        for (unsigned axis = 0; axis < array_->ga.nd; axis++) n *= dim(axis);
        return n;
    }
    PyGpuArrayObject* get() const { return array_; }

  private:
    PyGpuArrayObject* array_ = nullptr;
};

// Whether all arrays could be made contiguous.
template <class... Arrays>
bool all_ok(const Arrays&... arrays) {
    return (arrays.ok() && ...);
}

// Memory for the time of a call; libgpuarray keeps it for the next one.
class Scratch : public Plain {
  public:
    Scratch(size_t n, int type, PyGpuContextObject* context) : Scratch(&n, 1, type, context) {}
    Scratch(size_t rows, size_t columns, PyGpuContextObject* context)
        : Scratch(std::initializer_list<size_t>{rows, columns}.begin(), 2, GA_FLOAT, context) {}

  private:
    Scratch(const size_t* sizes, unsigned axes, int type, PyGpuContextObject* context)
        : Plain(pygpu_empty(axes, sizes, type, GA_C_ORDER, context, Py_None), Owned()) {}
};

// Makes `out` a contiguous array of these sizes, the one of the call before where it fits.
inline bool allocate(PyGpuArrayObject*& out, std::initializer_list<size_t> sizes,
                     PyGpuContextObject* context, int type = GA_FLOAT) {
    bool fits = out && GpuArray_IS_C_CONTIGUOUS(&out->ga);
    int axis = 0;
    for (size_t size : sizes) fits = fits && out->ga.dimensions[axis++] == size;
    if (fits) return true;
    Py_XDECREF(out);
    out = pygpu_empty(sizes.size(), sizes.begin(), type, GA_C_ORDER, context, Py_None);
    return out != nullptr;
}

// Makes `out` a copy of `array`, or `array` itself where it may be overwritten.
inline bool take(PyGpuArrayObject*& out, PyGpuArrayObject* array, bool in_place) {
    Py_XDECREF(out);
    if (in_place && GpuArray_IS_C_CONTIGUOUS(&array->ga)) {
        Py_INCREF(array);
        out = array;
    } else {
        out = pygpu_copy(array, GA_C_ORDER);
    }
    return out != nullptr;
}

// Says whether a matrix product went well, else sets a Python error.
inline bool done(int error, gpudata* data) {
    if (error == GA_NO_ERROR) return true;
    PyErr_Format(PyExc_RuntimeError, "matrix product on the GPU: %s",
                 gpucontext_error(gpudata_context(data), error));
    return false;
}

// c (m, n) = a b, or a b^T, or part of such matrices: `rows` of b from `first` on. By cuBLAS or
// CLBlast.
inline bool product(const Plain& a, const Plain& b, bool transpose_b, PyGpuArrayObject* c,
                    size_t first = 0, size_t rows = size_t(-1)) {
    GpuArray part = b.get()->ga;
    size_t sizes[2] = {rows == size_t(-1) ? b.dim(0) : rows, b.dim(1)};
    part.dimensions = sizes;
    part.offset += first * part.strides[0];
    GpuArray_fix_flags(&part);
    if (c->ga.dimensions[0] == 0 || c->ga.dimensions[1] == 0) return true;
    const int error = GpuArray_rgemm(cb_no_trans, transpose_b ? cb_trans : cb_no_trans, 1.,
                                     &a.get()->ga, &part, 0., &c->ga, 0);
    return done(error, c->ga.data);
}

// c (n, columns) = a^T b for a (m, n) and so many columns of b (m, w) from `first` on. (libgpuarray
// would copy these columns first: it only takes whole matrices.)
inline bool product_of_columns(const Plain& a, const Plain& b, size_t first, PyGpuArrayObject* c) {
    const size_t m = a.dim(0), n = a.dim(1), columns = c->ga.dimensions[1];
    if (n == 0 || columns == 0) return true;
    if (m == 0) return done(GpuArray_memset(&c->ga, 0), c->ga.data);
    const GpuArray &of_a = a.get()->ga, &of_b = b.get()->ga;
    const int problem = gpublas_setup(gpudata_context(of_a.data));
    if (problem != GA_NO_ERROR) return done(problem, of_a.data);
    const int error = gpublas_sgemm(cb_row, cb_trans, cb_no_trans, n, columns, m, 1.f, of_a.data,
                                    of_a.offset / 4, n, of_b.data, of_b.offset / 4 + first,
                                    b.dim(1), 0.f, c->ga.data, c->ga.offset / 4, columns);
    return done(error, of_a.data);
}

// the same as in gru/op.py
inline uint32_t scramble(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x45d9f3bu;
    x = (x ^ (x >> 16)) * 0x45d9f3bu;
    return x ^ (x >> 16);
}

template <class Number>
Number scalar(PyArrayObject* array) {
    return *static_cast<Number*>(PyArray_DATA(array));
}

// A mask of dropout (the Op Dropout), as kernels take it; of nothing: one that keeps all.
struct Mask {
    uint32_t low = 0, high = 0, keep_below = 1 << 24;
    float scale = 1.f;

    Mask(PyArrayObject* p_of, PyArrayObject* seed, PyArrayObject* counter) {
        if (!p_of) return;
        const float p = scalar<npy_float32>(p_of);
        const uint64_t key = scalar<npy_int64>(seed) +
                             scalar<npy_int64>(counter) * UINT64_C(0x9e3779b97f4a7c15);
        low = scramble(key);
        high = scramble(low ^ (key >> 32));
        keep_below = (1. - p) * (1 << 24);
        scale = 1.f / (1.f - p);
    }
};

// Groups for n elements, one thread each.
inline size_t groups(size_t n, size_t in_group = THREADS) {
    const size_t needed = (n + in_group - 1) / in_group;
    return needed < MOST_GROUPS ? needed : MOST_GROUPS;
}

// One argument of a kernel; it becomes what the parameter in its place is. (Lists of them are arrays,
// since the compiler takes a minute for tuples of the hundreds that an update of many parameters has.)
struct Argument {
    gpudata* buffer = nullptr;
    npy_int64 integer = 0;
    double real = 0;

    template <class Parameter>
    Parameter as() const {
        if constexpr (std::is_pointer_v<Parameter>) return buffer;
        else if constexpr (std::is_floating_point_v<Parameter>) return real;
        else return integer;
    }
};

template <size_t N>
using Arguments = std::array<Argument, N>;

// What a kernel takes for a value: an array is a buffer and the bytes to skip in it.
template <class Number, class = std::enable_if_t<std::is_arithmetic_v<Number>>>
Arguments<1> passed(Number number) {
    if constexpr (std::is_integral_v<Number>) return {{{nullptr, npy_int64(number), double(number)}}};
    else return {{{nullptr, 0, number}}};
}
inline Arguments<2> passed(gpudata* buffer, size_t offset) {
    return {{{buffer}, {nullptr, npy_int64(offset)}}};
}
inline Arguments<2> passed(PyGpuArrayObject* array) {
    return passed(array->ga.data, array->ga.offset);
}
inline Arguments<2> passed(const Plain& array) { return passed(array.get()); }
template <size_t N>
Arguments<N> passed(const Arguments<N>& arguments) {
    return arguments;
}

// All of these, one after the other.
template <class... Values>
auto all_passed(const Values&... values) {
    Arguments<(std::tuple_size_v<decltype(passed(values))> + ... + 0)> all;
    auto end = all.begin();
    const auto add = [&](const auto& some) { end = std::copy(some.begin(), some.end(), end); };
    (add(passed(values)), ...);
    return all;
}

inline Arguments<4> passed(const Mask& mask) {
    return all_passed(mask.low, mask.high, mask.keep_below, mask.scale);
}

// A function of a node that Theano wrote, which launches a kernel.
template <class Node, class... Parameters>
using Call = int (Node::*)(unsigned axes, size_t* groups, size_t* threads, size_t, Parameters...);

template <class Node, class... Parameters, size_t... I>
int call_with(Node& node, Call<Node, Parameters...> call, size_t n_groups, size_t threads,
              const Arguments<sizeof...(I)>& all, std::index_sequence<I...>) {
    return (node.*call)(1, &n_groups, &threads, 0, all[I].template as<Parameters>()...);
}

// Launches a kernel (GK_KERNEL), unless there is nothing to do.
template <class Node, class... Parameters, class... Values>
bool launch(Node& node, GpuKernel& kernel, Call<Node, Parameters...> call, size_t n_groups,
            size_t threads, const Values&... values) {
    if (n_groups == 0) return true;
    const auto all = all_passed(values...);
    static_assert(std::tuple_size_v<decltype(all)> == sizeof...(Parameters));
    const int error = call_with<Node, Parameters...>(node, call, n_groups, threads, all,
                                                     std::index_sequence_for<Parameters...>());
    if (error == GA_NO_ERROR) return true;
    PyErr_Format(PyExc_RuntimeError, "kernel on the GPU: %s", GpuKernel_error(&kernel, error));
    return false;
}

}  // namespace gk

// A kernel of a node by its name in gpu.cl: the members that Theano makes of it.
#define GK_KERNEL(node, name) node, node.k_##name, &Node::name##_call
