// The best items of each session, without ever holding all scores.
#include <algorithm>
#include <limits>
#include <new>
#include <vector>

#include "kernels.h"
#include "../products/products.h"
#include "team.h"

namespace {

// items scored at a time: a block's rows and scores stay in a core's cache while they are looked at
constexpr long BLOCK = 256;

struct Scored {
    float score;
    int32_t item;
};

// Of equal scores the lower item is better.
inline bool better(const Scored& x, const Scored& y) {
    return x.score > y.score || (x.score == y.score && x.item < y.item);
}

// The best of what was added: a heap whose top is the worst of them.
class Best {
  public:
    void keep(long k) {
        k_ = k;
        heap_.reserve(k);
    }
    // whether an item beyond all that were added can come in; most cannot
    bool wants(float score) const {
        return long(heap_.size()) < k_ || (k_ && score > heap_.front().score);
    }
    void add(Scored x) {
        if (long(heap_.size()) == k_) {
            if (!k_ || !better(x, heap_.front())) return;
            std::pop_heap(heap_.begin(), heap_.end(), better);
            heap_.back() = x;
        } else {
            heap_.push_back(x);
        }
        std::push_heap(heap_.begin(), heap_.end(), better);
    }
    void add(const Best& others) {
        for (const Scored& x : others.heap_) add(x);
    }
    const std::vector<Scored>& sorted() {
        std::sort_heap(heap_.begin(), heap_.end(), better);
        return heap_;
    }

  private:
    long k_ = 0;
    std::vector<Scored> heap_;
};

constexpr long whole_groups(long n) { return (n + GK_LANES - 1) / GK_LANES * GK_LANES; }
static_assert(whole_groups(BLOCK) == BLOCK, "a block has no place for the lanes behind its items");

}  // namespace

extern "C" int gk_top_k(long m, long width, const float* hidden, long n_items, const float* rows,
                        const float* biases, const int32_t* starts, const int32_t* left_out,
                        gk_act act, long k, int32_t* items, float* best) try {
    const int n_threads = team::size_for(team::NANOSECONDS_A_TERM * m * n_items * width);
    std::vector<std::vector<Best>> found(n_threads, std::vector<Best>(m));
    for (auto& of_thread : found)
        for (Best& of_session : of_thread) of_session.keep(std::min(k, n_items));
    std::vector<std::vector<float>> scores(n_threads, std::vector<float>(m * BLOCK));
    std::vector<std::vector<float>> activated(n_threads, std::vector<float>(BLOCK));
    team::run(n_threads, [&](int t, int n) {
        const auto s = team::share(n_items, t, n, BLOCK);
        for (long begin = s.begin; begin < s.end && m; begin += BLOCK) {
            const long size = std::min(BLOCK, s.end - begin);
            const float *x = scores[t].data(), *b = biases + begin;
            float* y = activated[t].data();
            product_alone(0, 1, m, size, width, hidden, width, rows + begin * width, width,
                          scores[t].data(), size);
            for (long i = 0; i < m; i++, x += size) {
                for (long j = 0; j < size; j++) y[j] = x[j] + b[j];
                gk_activate(whole_groups(size), y, act);
                Best& of_session = found[t][i];
                const int32_t *first = left_out + starts[i], *last = left_out + starts[i + 1];
                for (long j = 0; j < size; j++) {
                    const int32_t item = begin + j;
                    if (of_session.wants(y[j]) && !std::binary_search(first, last, item))
                        of_session.add({y[j], item});
                }
            }
        }
    });
    for (long i = 0; i < m; i++) {
        for (int t = 1; t < n_threads; t++) found[0][i].add(found[t][i]);
        const auto& sorted = found[0][i].sorted();
        for (long j = 0; j < k; j++) {
            const bool is_there = j < long(sorted.size());
            items[i * k + j] = is_there ? sorted[j].item : -1;
            best[i * k + j] = is_there ? sorted[j].score : -std::numeric_limits<float>::infinity();
        }
    }
    return 0;
} catch (const std::bad_alloc&) {
    return 1;
}
