// Fetching rows of a table ahead of their use.
#pragma once
#include <cstdint>

#include "inline.h"

// Rows that are fetched ahead of the one in work, into L2: it waits for more lines at a time than
// L1 does.
constexpr long AHEAD = 8;

// Fetches n floats: all lines that they lie in, wherever the first begins.
//
// Always inline, as must be what calls it: GCC takes a function that does nothing but prefetch for
// one without any effect, and leaves out its calls.
INLINE void prefetch(const float* first, long n) {
    constexpr std::uintptr_t LINE = 64;
    const auto begin = reinterpret_cast<std::uintptr_t>(first);
    const auto end = reinterpret_cast<std::uintptr_t>(first + n);
    for (auto line = begin & ~(LINE - 1); line < end; line += LINE)
        __builtin_prefetch(reinterpret_cast<const void*>(line), 0, 2);
}
