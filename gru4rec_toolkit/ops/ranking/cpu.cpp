// Ranks of targets among all items, without ever holding all scores.
#include <algorithm>
#include <new>
#include <vector>

#include "kernels.h"
#include "../products/products.h"
#include "team.h"

namespace {

// items scored at a time: a block's rows and scores stay in a core's cache while they are counted
constexpr long BLOCK = 256;

typedef const float* __restrict__ In;
typedef float* __restrict__ Out;

// Adds how many of n scores are above and at the target's, leaving out the target itself.
template <class Score>
void count(long n, Score score, const int32_t* ids, int32_t target, float target_score,
           int64_t& better, int64_t& equal) {
    int32_t above = 0, at = 0;
    for (long j = 0; j < n; j++) {
        const float y = score(j);
        const int32_t other = ids[j] != target;
        above += other & (y > target_score);
        at += other & (y == target_score);
    }
    better += above;
    equal += at;
}

void add(long n, In x, In y, Out sum) {
    for (long j = 0; j < n; j++) sum[j] = x[j] + y[j];
}

constexpr long whole_groups(long n) { return (n + GK_LANES - 1) / GK_LANES * GK_LANES; }
static_assert(whole_groups(BLOCK) == BLOCK, "a block has no place for the lanes behind its items");

}  // namespace

extern "C" int gk_count_ranks(long m, long width, const float* hidden, long n_items,
                              const float* rows, const float* biases, const int32_t* ids,
                              const int32_t* targets, const float* target_scores, gk_act act,
                              int64_t* better, int64_t* equal) try {
    const int n_threads = team::size_for(team::NANOSECONDS_A_TERM * m * n_items * width);
    std::vector<std::vector<int64_t>> counts(n_threads, std::vector<int64_t>(2 * m, 0));
    std::vector<std::vector<float>> scores(n_threads, std::vector<float>(m * BLOCK));
    std::vector<std::vector<float>> activated(n_threads, std::vector<float>(BLOCK));
    std::vector<float> of_targets(whole_groups(m));
    std::copy_n(target_scores, m, of_targets.data());
    gk_activate(of_targets.size(), of_targets.data(), act);
    team::run(n_threads, [&](int t, int n) {
        const auto s = team::share(n_items, t, n, BLOCK);
        for (long begin = s.begin; begin < s.end && m && width; begin += BLOCK) {
            const long size = std::min(BLOCK, s.end - begin);
            const float *x = scores[t].data(), *b = biases + begin;
            product_alone(0, 1, m, size, width, hidden, width, rows + begin * width, width,
                          scores[t].data(), size);
            for (long i = 0; i < m; i++, x += size) {
                int64_t *above = &counts[t][2 * i], *at = above + 1;
                if (act.kind == GK_LINEAR) {
                    count(size, [=](long j) { return x[j] + b[j]; }, ids + begin, targets[i],
                          of_targets[i], *above, *at);
                } else {
                    float* y = activated[t].data();
                    add(size, x, b, y);
                    gk_activate(whole_groups(size), y, act);
                    count(size, [=](long j) { return y[j]; }, ids + begin, targets[i],
                          of_targets[i], *above, *at);
                }
            }
        }
    });
    for (long i = 0; i < m; i++) {
        better[i] = equal[i] = 0;
        for (const auto& of_thread : counts) {
            better[i] += of_thread[2 * i];
            equal[i] += of_thread[2 * i + 1];
        }
    }
    return 0;
} catch (const std::bad_alloc&) {
    return 1;
}
