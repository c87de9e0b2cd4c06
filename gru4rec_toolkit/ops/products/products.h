// Matrix products inside of one thread's share of some work.
#pragma once

// gk_product, but by the calling thread alone; no size may be 0.
void product_alone(int trans_a, int trans_b, int m, int n, int k, const float* a, int lda,
                   const float* b, int ldb, float* c, int ldc);
