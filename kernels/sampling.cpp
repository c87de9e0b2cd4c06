// Negative samples: drawing them, and merging those that a mini-batch drew more than once.
#include <algorithm>
#include <new>
#include <vector>

#include "kernels.h"
#include "team.h"

namespace {

// Counter-based: number i of a stream needs no numbers before it, so threads share one stream.
// (SplitMix64; Steele, Lea and Flood, OOPSLA 2014.)
inline uint64_t random_bits(uint64_t seed, uint64_t i) {
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

}  // namespace

extern "C" void gk_draw(uint64_t seed, uint64_t first, long n, long n_items,
                        const uint64_t* threshold, const int32_t* alias, int32_t* ids) {
    constexpr long AT_ONCE = 32;  // draws whose places in a large table are fetched together
    team::run([&](int t, int n_threads) {
        const auto s = team::share(n, t, n_threads, 64);
        unsigned __int128 at[AT_ONCE];
        for (long start = s.begin; start < s.end; start += AT_ONCE) {
            const long length = std::min(AT_ONCE, s.end - start);
            for (long i = 0; i < length; i++) {
                // the integer part of u * n_items, 0 <= u < 1, is a uniform slot, its fraction is
                // uniform inside of the slot
                at[i] = static_cast<unsigned __int128>(random_bits(seed, first + start + i)) * n_items;
                __builtin_prefetch(threshold + static_cast<long>(at[i] >> 64));
                __builtin_prefetch(alias + static_cast<long>(at[i] >> 64));
            }
            for (long i = 0; i < length; i++) {
                // without a branch, which nobody could predict
                const auto slot = static_cast<int32_t>(at[i] >> 64), other = alias[slot];
                const int32_t own = -(static_cast<uint64_t>(at[i]) < threshold[slot]);
                ids[start + i] = (slot & own) | (other & ~own);
            }
        }
    });
}

extern "C" long gk_unique(long n, const int32_t* index, int32_t* distinct, float* counts) try {
    // for every value: its place among the distinct ones, plus 1; all zero between two calls
    static std::vector<int32_t> places;
    int32_t top = -1;
    bool negative = false;
    for (long e = 0; e < n; e++) {
        top = std::max(top, index[e]);
        negative |= index[e] < 0;
    }
    if (negative) return -1;
    if (top >= static_cast<long>(places.size())) places.resize(top + 1L, 0);
    std::fill(counts, counts + n, 0.f);
    int32_t n_distinct = 0;
    for (long e = 0; e < n; e++) {  // without branches, which nobody could predict
        const int32_t id = index[e], place = places[id];
        const int32_t here = place ? place : n_distinct + 1;
        n_distinct += !place;
        places[id] = here;
        distinct[here - 1] = id;
        counts[here - 1] += 1;
    }
    for (long u = 0; u < n_distinct; u++) places[distinct[u]] = 0;
    return n_distinct;
} catch (const std::bad_alloc&) {
    return -2;
}
