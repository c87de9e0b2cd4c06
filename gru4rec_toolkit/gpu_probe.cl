#include "cluda.h"

KERNEL void twice(GLOBAL_MEM ga_float *x, ga_size offset) {
  x = (GLOBAL_MEM ga_float *)((GLOBAL_MEM char *)x + offset);
  x[GID_0] = 2 * x[GID_0];
}
