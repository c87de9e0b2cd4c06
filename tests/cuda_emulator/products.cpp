// libcublas: the matrix products that libgpuarray calls, by OpenBLAS, with cuBLAS's checks.
// Both count columns first. With beta = 0 the old result is not read, whatever it holds.
#include <cblas.h>

#include <algorithm>

#include "settings.h"

#define API extern "C" __attribute__((visibility("default")))

// of the emulator's libcuda
extern "C" void emulated_count_launch(const char* name);
extern "C" bool emulated_on_device(const void* start, size_t size);

namespace {

enum Result { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum Operation { KEEP = 0, TRANSPOSE = 1, CONJUGATE = 2 };
int pointer_mode;
char the_handle;

CBLAS_TRANSPOSE transposed(int operation) { return operation ? CblasTrans : CblasNoTrans; }

int refused(const char* routine, const char* condition) {
    report("%s: expected %s", routine, condition);
    return INVALID_VALUE;
}
#define EXPECT(condition) \
    if (!(condition)) return refused(routine, #condition)

template <class T>
bool holds_matrix(const T* a, int rows, int columns, int lda) {
    return !rows || !columns ||
           emulated_on_device(a, sizeof(T) * ((size_t)lda * (columns - 1) + rows));
}
template <class T>
bool holds_vector(const T* x, int n, int step) {
    return !n || emulated_on_device(x, sizeof(T) * ((size_t)std::abs(step) * (n - 1) + 1));
}

void product(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, float alpha,
             const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
    scipy_cblas_sgemm(CblasColMajor, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void product(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, double alpha,
             const double* a, int lda, const double* b, int ldb, double beta, double* c, int ldc) {
    scipy_cblas_dgemm(CblasColMajor, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void product(CBLAS_TRANSPOSE t, int m, int n, float alpha, const float* a, int lda, const float* x,
             int incx, float beta, float* y, int incy) {
    scipy_cblas_sgemv(CblasColMajor, t, m, n, alpha, a, lda, x, incx, beta, y, incy);
}
void product(CBLAS_TRANSPOSE t, int m, int n, double alpha, const double* a, int lda,
             const double* x, int incx, double beta, double* y, int incy) {
    scipy_cblas_dgemv(CblasColMajor, t, m, n, alpha, a, lda, x, incx, beta, y, incy);
}
void outer(int m, int n, float alpha, const float* x, int incx, const float* y, int incy, float* a,
           int lda) {
    scipy_cblas_sger(CblasColMajor, m, n, alpha, x, incx, y, incy, a, lda);
}
void outer(int m, int n, double alpha, const double* x, int incx, const double* y, int incy,
           double* a, int lda) {
    scipy_cblas_dger(CblasColMajor, m, n, alpha, x, incx, y, incy, a, lda);
}
float inner(int n, const float* x, int incx, const float* y, int incy) {
    return scipy_cblas_sdot(n, x, incx, y, incy);
}
double inner(int n, const double* x, int incx, const double* y, int incy) {
    return scipy_cblas_ddot(n, x, incx, y, incy);
}

template <class T>
int gemm(const char* routine, int op_a, int op_b, int m, int n, int k, const T* alpha, const T* a,
         int lda, const T* b, int ldb, const T* beta, T* c, int ldc) {
    const int rows_a = op_a ? k : m, columns_a = op_a ? m : k;
    const int rows_b = op_b ? n : k, columns_b = op_b ? k : n;
    EXPECT(op_a >= KEEP && op_a <= CONJUGATE);
    EXPECT(op_b >= KEEP && op_b <= CONJUGATE);
    EXPECT(m >= 0 && n >= 0 && k >= 0);
    EXPECT(lda >= std::max(1, rows_a));
    EXPECT(ldb >= std::max(1, rows_b));
    EXPECT(ldc >= std::max(1, m));
    EXPECT(holds_matrix(a, rows_a, columns_a, lda));
    EXPECT(holds_matrix(b, rows_b, columns_b, ldb));
    EXPECT(holds_matrix(c, m, n, ldc));
    if (!m || !n) return SUCCESS;
    if (*beta == 0)
        for (int j = 0; j < n; j++) std::fill_n(c + (size_t)j * ldc, m, T(0));
    product(transposed(op_a), transposed(op_b), m, n, k, *alpha, a, lda, b, ldb, *beta, c, ldc);
    return SUCCESS;
}

template <class T>
int gemv(const char* routine, int op, int m, int n, const T* alpha, const T* a, int lda, const T* x,
         int incx, const T* beta, T* y, int incy) {
    const int n_in = op ? m : n, n_out = op ? n : m;
    EXPECT(op >= KEEP && op <= CONJUGATE);
    EXPECT(m >= 0 && n >= 0);
    EXPECT(lda >= std::max(1, m));
    EXPECT(incx != 0 && incy != 0);
    if (!m || !n) return SUCCESS;
    EXPECT(holds_matrix(a, m, n, lda));
    EXPECT(holds_vector(x, n_in, incx));
    EXPECT(holds_vector(y, n_out, incy));
    if (*beta == 0)
        for (int i = 0; i < n_out; i++) y[(size_t)i * (size_t)std::abs(incy)] = 0;
    product(transposed(op), m, n, *alpha, a, lda, x, incx, *beta, y, incy);
    return SUCCESS;
}

template <class T>
int ger(const char* routine, int m, int n, const T* alpha, const T* x, int incx, const T* y,
        int incy, T* a, int lda) {
    EXPECT(m >= 0 && n >= 0);
    EXPECT(incx != 0 && incy != 0);
    EXPECT(lda >= std::max(1, m));
    EXPECT(holds_vector(x, m, incx));
    EXPECT(holds_vector(y, n, incy));
    EXPECT(holds_matrix(a, m, n, lda));
    if (m && n) outer(m, n, *alpha, x, incx, y, incy, a, lda);
    return SUCCESS;
}

template <class T>
int dot(const char* routine, int n, const T* x, int incx, const T* y, int incy, T* result) {
    EXPECT(n >= 0);
    EXPECT(holds_vector(x, n, incx));
    EXPECT(holds_vector(y, n, incy));
    // a result on the device would not be in the order of the stream
    EXPECT((pointer_mode == 1) == emulated_on_device(result, sizeof(T)));
    *result = inner(n, x, incx, y, incy);
    return SUCCESS;
}

}  // namespace

API int cublasCreate_v2(void** handle) { return *handle = &the_handle, SUCCESS; }
API int cublasGetProperty(int part, int* value) {
    return *value = part == 0 ? 12 : part == 1 ? 9 : 0, SUCCESS;  // CUDA 12.9's
}
API int cublasDestroy_v2(void*) { return SUCCESS; }
API int cublasSetStream_v2(void*, void*) { return SUCCESS; }
API int cublasSetPointerMode_v2(void*, int mode) { return pointer_mode = mode, SUCCESS; }
API int cublasGetPointerMode_v2(void*, int* mode) { return *mode = pointer_mode, SUCCESS; }
API int cublasSetAtomicsMode(void*, int) { return SUCCESS; }

#define ROUTINES(S, T)                                                                            \
    API int cublas##S##dot_v2(void*, int n, const T* x, int incx, const T* y, int incy,           \
                              T* result) {                                                        \
        emulated_count_launch("(cublas)");                                                        \
        return dot<T>(__func__, n, x, incx, y, incy, result);                                     \
    }                                                                                             \
    API int cublas##S##gemm_v2(void*, int op_a, int op_b, int m, int n, int k, const T* alpha,    \
                               const T* a, int lda, const T* b, int ldb, const T* beta, T* c,     \
                               int ldc) {                                                         \
        emulated_count_launch("(cublas)");                                                        \
        return gemm<T>(__func__, op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);       \
    }                                                                                             \
    API int cublas##S##gemv_v2(void*, int op, int m, int n, const T* alpha, const T* a, int lda,  \
                               const T* x, int incx, const T* beta, T* y, int incy) {             \
        emulated_count_launch("(cublas)");                                                        \
        return gemv<T>(__func__, op, m, n, alpha, a, lda, x, incx, beta, y, incy);                \
    }                                                                                             \
    API int cublas##S##ger_v2(void*, int m, int n, const T* alpha, const T* x, int incx,          \
                              const T* y, int incy, T* a, int lda) {                              \
        emulated_count_launch("(cublas)");                                                        \
        return ger<T>(__func__, m, n, alpha, x, incx, y, incy, a, lda);                           \
    }                                                                                             \
    API int cublas##S##gemmBatched(void*, int, int, int, int, int, const T*, const T**, int,      \
                                   const T**, int, const T*, T**, int, int) {                     \
        report("%s is not emulated", __func__);                                                   \
        return NOT_SUPPORTED;                                                                     \
    }
ROUTINES(S, float)
ROUTINES(D, double)
