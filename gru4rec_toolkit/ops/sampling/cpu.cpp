// Negative samples: drawing them, and merging those that a mini-batch drew more than once.
#include <algorithm>
#include <atomic>
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
    team::run(team::size_for_numbers(n), [&](int t, int n_threads) {
        const auto s = team::share(n, t, n_threads, 64);
        unsigned __int128 at[AT_ONCE];
        for (long start = s.begin; start < s.end; start += AT_ONCE) {
            const long length = std::min(AT_ONCE, s.end - start);
            for (long i = 0; i < length; i++) {
                // the integer part of u * n_items, 0 <= u < 1, is a uniform slot, its fraction is
                // uniform inside of the slot
                const unsigned __int128 u = random_bits(seed, first + start + i);
                at[i] = u * n_items;
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

namespace {

constexpr int BITS = 11;  // of a digit
// up to so many times as many numbers as there are draws are quicker counted than sorted
constexpr uint32_t FEW = 8;

// One pass of sorting by digits: puts values in the order of the BITS bits from `shift` on.
void sort_by_digit(long n, int shift, const uint32_t* __restrict__ values,
                   uint32_t* __restrict__ sorted) {
    constexpr uint32_t DIGITS = 1 << BITS;
    uint32_t places[DIGITS] = {}, sum = 0;
    for (long e = 0; e < n; e++) places[values[e] >> shift & (DIGITS - 1)]++;
    for (uint32_t& place : places) {
        const uint32_t count = place;
        place = sum;
        sum += count;
    }
    for (long e = 0; e < n; e++) sorted[places[values[e] >> shift & (DIGITS - 1)]++] = values[e];
}

// Merges equal ones of n numbers, all at most `top`: returns how many different ones there are.
long merge(long n, uint32_t top, int32_t* ids, float* copies) {
    static thread_local std::vector<uint32_t> buffers[2];
    // no branches below that depend on the numbers, since nobody could predict them
    if (top < FEW * n) {  // count all there can be
        std::vector<uint32_t>& found = buffers[0];
        found.assign(top + 1, 0);
        for (long e = 0; e < n; e++) found[ids[e]]++;
        long n_distinct = 0;
        for (uint32_t value = 0; value <= top && n_distinct < n; value++) {
            ids[n_distinct] = value;
            copies[n_distinct] = found[value];
            n_distinct += found[value] > 0;
        }
        return n_distinct;
    }
    for (auto& buffer : buffers) buffer.resize(n);
    uint32_t *sorted = buffers[0].data(), *scratch = buffers[1].data();
    std::copy(ids, ids + n, sorted);
    for (int shift = 0; shift < 32 && top >> shift; shift += BITS) {
        sort_by_digit(n, shift, sorted, scratch);
        std::swap(sorted, scratch);
    }
    uint32_t* ends = scratch;  // of the runs of equal numbers
    long last = -1;
    for (long e = 0; e < n; e++) {
        last += e == 0 || sorted[e] != sorted[e - 1];
        ids[last] = sorted[e];
        ends[last] = e + 1;
    }
    for (long u = 0; u <= last; u++) copies[u] = ends[u] - (u ? ends[u - 1] : 0);
    return last + 1;
}

}  // namespace

extern "C" int gk_merge(long rows, long n, int32_t* ids, float* copies, int64_t* n_distinct) {
    std::atomic<int> problem{0};
    team::run(team::size_for_numbers(rows * n), [&](int t, int n_threads) {
        const auto s = team::share(rows, t, n_threads);
        for (long row = s.begin; row < s.end; row++) {
            int32_t* own = ids + row * n;
            uint32_t top = 0;  // negative numbers are large ones
            for (long e = 0; e < n; e++) top = std::max(top, static_cast<uint32_t>(own[e]));
            if (top > INT32_MAX) {
                problem = 1;
                return;
            }
            try {
                n_distinct[row] = merge(n, top, own, copies + row * n);
            } catch (const std::bad_alloc&) {
                problem = 2;
                return;
            }
        }
    });
    return problem;
}
