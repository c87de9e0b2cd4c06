// Dropout, whose mask is a function of seed, counter and place.
#include "kernels.h"
#include "team.h"

namespace {

// A 32-bit mixer (Mueller's constants): every input bit changes each output bit in half the cases.
inline uint32_t mix(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x45d9f3bu;
    x = (x ^ (x >> 16)) * 0x45d9f3bu;
    return x ^ (x >> 16);
}

// Elements begin, begin + 1, ... of a mask with the given key.
void drop(int n, const float* __restrict__ x, uint32_t begin, uint32_t low, uint32_t high,
          int32_t keep_below, float scale, float* __restrict__ out) {
    for (int k = 0; k < n; k++) {
        const uint32_t bits = mix(mix((begin + k) ^ low) + high);
        out[k] = x[k] * (static_cast<int32_t>(bits >> 8) < keep_below ? scale : 0.f);
    }
}

}  // namespace

extern "C" void gk_dropout(long n, const float* x, float p, uint64_t seed, uint64_t counter,
                           float* out) {
    const uint64_t key = seed + counter * 0x9e3779b97f4a7c15u;
    const uint32_t low = mix(static_cast<uint32_t>(key)), high = mix(low ^ (key >> 32));
    const auto keep_below = static_cast<int32_t>((1. - p) * (1 << 24));
    team::run_by_rows(n, 1, [&](long first, long after) {
        drop(after - first, x + first, first, low, high, keep_below, 1.f / (1.f - p), out + first);
    });
}
