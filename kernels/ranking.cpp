// Ranks of targets among all items, without ever holding all scores.
#include <algorithm>
#include <new>
#include <vector>

#include "activations.h"
#include "kernels.h"
#include "products.h"
#include "team.h"

namespace {

// items scored at a time: a block's rows and scores stay in a core's cache while they are counted
constexpr long BLOCK = 256;

typedef const float* __restrict__ In;

// Adds how many of n scores are above and at the target's, leaving out the target itself.
template <class Act>
void count(long n, In scores, In biases, const int32_t* __restrict__ ids, int32_t target,
           float target_score, Act act, int64_t& better, int64_t& equal) {
    int32_t above = 0, at = 0;
    for (long j = 0; j < n; j++) {
        const float y = act.value(scores[j] + biases[j]);
        const int32_t other = ids[j] != target;
        above += other & (y > target_score);
        at += other & (y == target_score);
    }
    better += above;
    equal += at;
}

}  // namespace

extern "C" int gk_count_ranks(long m, long width, const float* hidden, long n_items,
                              const float* rows, const float* biases, const int32_t* ids,
                              const int32_t* targets, const float* target_scores, gk_act act,
                              int64_t* better, int64_t* equal) try {
    const int n_threads = team::size();
    std::vector<std::vector<int64_t>> counts(n_threads, std::vector<int64_t>(2 * m, 0));
    std::vector<std::vector<float>> scores(n_threads, std::vector<float>(m * BLOCK));
    with_activation(act, [&](auto f) {
        team::run([&](int t, int n) {
            const auto s = team::share(n_items, t, n, BLOCK);
            for (long begin = s.begin; begin < s.end && m && width; begin += BLOCK) {
                const long size = std::min(BLOCK, s.end - begin);
                product_alone(0, 1, m, size, width, hidden, width, rows + begin * width, width,
                              scores[t].data(), size);
                for (long i = 0; i < m; i++)
                    count(size, scores[t].data() + i * size, biases + begin, ids + begin,
                          targets[i], target_scores[i], f, counts[t][2 * i], counts[t][2 * i + 1]);
            }
        });
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
