// Looking up rows of a large table.
//
// Bound by memory: rows lie scattered, so each is prefetched a few rows ahead.
#include <cstring>

#include "kernels.h"
#include "prefetch.h"
#include "team.h"

extern "C" long gk_gather(const float* table, long n_rows, long width, const int32_t* index, long n,
                          float* out) {
    for (long e = 0; e < n; e++)
        if (index[e] < 0 || index[e] >= n_rows) return e;
    if (width == 1) {
        for (long e = 0; e < n; e++) out[e] = table[index[e]];
        return -1;
    }
    team::run(team::size_for_numbers(n * width), [&](int t, int n_threads) {
        // the same shares as gk_product's of a transposed result: its thread finds them in cache
        const auto s = team::share(n, t, n_threads, 16);
        for (long e = s.begin; e < s.end; e++) {
            if (e + AHEAD < s.end) prefetch(table + index[e + AHEAD] * width, width);
            std::memcpy(out + e * width, table + index[e] * width, width * sizeof(float));
        }
    });
    return -1;
}
