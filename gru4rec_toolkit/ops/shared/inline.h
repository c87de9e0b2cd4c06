// What the compiler is asked to do with functions and loops.
#pragma once

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")
