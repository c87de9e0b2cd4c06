// What the host code of the CPU's Ops (cpu_apply.h) needs of NumPy's arrays.
//
// That code is one function an Op, apply_...: it gets the Op's inputs, outputs and constants, checks
// them, allocates the outputs and calls the library. It returns false where it failed and has set a
// Python error.
#pragma once
#include <Python.h>
#include <numpy/arrayobject.h>

#include <initializer_list>

#include "kernels.h"

namespace gk {

// Sets a Python error; false, for the caller to return.
inline bool fail(PyObject* type, const char* message) {
    PyErr_SetString(type, message);
    return false;
}

// A C-contiguous version of an array; of no array: none. `ok` is false if there was no memory.
class Plain {
  public:
    Plain(PyArrayObject* array)  // an argument of this type makes what it is given contiguous
        : array_(array ? PyArray_GETCONTIGUOUS(array) : nullptr), ok_(array_ || !array) {}
    ~Plain() { Py_XDECREF(array_); }
    Plain(const Plain&) = delete;
    Plain& operator=(const Plain&) = delete;

    bool ok() const { return ok_; }
    long dim(int axis) const { return PyArray_DIM(array_, axis); }
    long size() const { return PyArray_SIZE(array_); }
    float* data() const { return array_ ? static_cast<float*>(PyArray_DATA(array_)) : nullptr; }
    int32_t* ids() const { return static_cast<int32_t*>(PyArray_DATA(array_)); }

  private:
    PyArrayObject* array_;
    bool ok_;
};

// Whether all arrays could be made contiguous.
template <class... Arrays>
bool all_ok(const Arrays&... arrays) {
    return (arrays.ok() && ...);
}

inline float* data(PyArrayObject* array) { return static_cast<float*>(PyArray_DATA(array)); }

template <class Number>
Number scalar(PyArrayObject* array) {
    return *static_cast<Number*>(PyArray_DATA(array));
}

// Makes `out` a contiguous array of these sizes, the one of the call before where it fits.
inline bool allocate(PyArrayObject*& out, std::initializer_list<npy_intp> sizes,
                     int type = NPY_FLOAT32) {
    bool fits = out && PyArray_IS_C_CONTIGUOUS(out);
    int axis = 0;
    for (npy_intp size : sizes) fits = fits && PyArray_DIM(out, axis++) == size;
    if (fits) return true;
    Py_XDECREF(out);
    const int n_axes = sizes.size();
    out = (PyArrayObject*)PyArray_EMPTY(n_axes, const_cast<npy_intp*>(sizes.begin()), type, 0);
    return out != nullptr;
}

// Makes `out` a copy of `array`, or `array` itself where it may be overwritten.
inline bool take(PyArrayObject*& out, PyArrayObject* array, bool in_place) {
    Py_XDECREF(out);
    if (in_place && PyArray_IS_C_CONTIGUOUS(array)) {
        Py_INCREF(array);
        out = array;
    } else {
        out = (PyArrayObject*)PyArray_NewCopy(array, NPY_CORDER);
    }
    return out != nullptr;
}

// A matrix as BLAS takes it: contiguous along one of its axes, or a copy that is.
class BlasMatrix {
  public:
    explicit BlasMatrix(PyArrayObject* array) : array_(array) {
        const npy_intp *d = PyArray_DIMS(array), *s = PyArray_STRIDES(array);
        transposed = s[0] == 4 && s[1] % 4 == 0 && s[1] >= 4 * d[0];
        const bool rows = s[1] == 4 && s[0] % 4 == 0 && s[0] >= 4 * d[1];
        if (rows || transposed) {
            Py_INCREF(array);
            transposed = !rows;
            between = s[rows ? 0 : 1] / 4;
        } else {
            array_ = PyArray_GETCONTIGUOUS(array);
            between = d[1];
        }
        if (between < 1) between = 1;
    }
    ~BlasMatrix() { Py_XDECREF(array_); }
    BlasMatrix(const BlasMatrix&) = delete;
    BlasMatrix& operator=(const BlasMatrix&) = delete;

    bool ok() const { return array_ != nullptr; }
    float* data() const { return gk::data(array_); }

    int transposed, between;

  private:
    PyArrayObject* array_;
};

}  // namespace gk
