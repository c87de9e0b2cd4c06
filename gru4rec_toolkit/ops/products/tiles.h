// A matrix product whose operands are read where they lie, for one thread.
#pragma once

// gk_product for those sizes and transpositions where it is faster than BLAS; false elsewhere, and
// nothing is done then. No size may be 0. An element's terms are added up in an order that depends
// on k alone: equal rows have equal results wherever they lie, which BLAS does not promise.
bool tiled_product(int trans_a, int trans_b, int m, int n, int k, const float* a, int lda,
                   const float* b, int ldb, float* c, int ldc);
