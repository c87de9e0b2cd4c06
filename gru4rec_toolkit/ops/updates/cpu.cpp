// Optimizer steps on whole parameters and on the rows that a mini-batch looked up (rules:
// optimizers.py).
//
// METHOD and WITH_MOMENTUM say which: each pair is a part of the library, compiled where needed.
//
// A row may come up several times in a mini-batch, and each time stand for several equal copies
// (weights). Every copy has its own step; all copies share the states, which are read as they were
// before the mini-batch or, where the method says so, as all copies together leave them.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "kernels.h"
#include "prefetch.h"
#include "team.h"
#include "vectors.h"

namespace {

// With AVX-512 an inverse root is much cheaper than a root and a division.
#ifdef __AVX512F__
typedef Sixteen Vector;
#else
typedef One Vector;
#endif

// The states of an element, or of a vector of them, before and after the mini-batch.
template <class V>
struct States {
    typename V::Type before0, before1, after0, after1;
};

// Per method: how many states it has, how they decay, what w copies of the gradient g add to them
// (`share`), and the scaled gradient (`scale`), for which all shares have been added.

struct Sgd {
    static constexpr int STATES = 0;
    explicit Sgd(const gk_rule&) {}
    void start(float) {}
    template <class V>
    void decay(States<V>&) const {}
    template <class V>
    void share(States<V>&, typename V::Type, float) const {}
    template <class V>
    typename V::Type scale(States<V>&, typename V::Type g, float) const {
        return g;
    }
};

struct Adagrad {
    static constexpr int STATES = 1;
    float epsilon;
    explicit Adagrad(const gk_rule& r) : epsilon(r.epsilon) {}
    void start(float) {}
    template <class V>
    void decay(States<V>& s) const {
        s.after0 = s.before0;
    }
    template <class V>
    void share(States<V>& s, typename V::Type g, float w) const {
        s.after0 += w * g * g;
    }
    template <class V>
    typename V::Type scale(States<V>& s, typename V::Type g, float) const {
        return g * V::inverse_root(s.before0 + g * g + epsilon);
    }
};

struct Rmsprop {
    static constexpr int STATES = 1;
    float epsilon, d;
    explicit Rmsprop(const gk_rule& r) : epsilon(r.epsilon), d(r.decays[0]) {}
    void start(float) {}
    template <class V>
    void decay(States<V>& s) const {
        s.after0 = d * s.before0;
    }
    template <class V>
    void share(States<V>& s, typename V::Type g, float w) const {
        s.after0 += w * (1 - d) * g * g;
    }
    template <class V>
    typename V::Type scale(States<V>& s, typename V::Type g, float) const {
        return g * V::inverse_root(s.after0 + epsilon);
    }
};

struct Adadelta {
    static constexpr int STATES = 2;
    float epsilon, d;
    explicit Adadelta(const gk_rule& r) : epsilon(r.epsilon), d(r.decays[0]) {}
    void start(float) {}
    template <class V>
    void decay(States<V>& s) const {
        s.after0 = d * s.before0, s.after1 = d * s.before1;
    }
    template <class V>
    void share(States<V>& s, typename V::Type g, float w) const {
        s.after0 += w * (1 - d) * g * g;
    }
    template <class V>
    typename V::Type scale(States<V>& s, typename V::Type g, float w) const {
        const auto scaled = g * V::root((s.before1 + epsilon) / (s.after0 + epsilon));
        s.after1 += w * (1 - d) * scaled * scaled;
        return scaled;
    }
};

struct Adam {
    static constexpr int STATES = 2;
    float d0, d1, by0 = 1, by1 = 1;
    explicit Adam(const gk_rule& r) : d0(r.decays[0]), d1(r.decays[1]) {}
    // step number t of this row
    void start(float t) {
        by0 = 1 / (1 - std::pow(d0, t));
        by1 = 1 / (1 - std::pow(d1, t));
    }
    template <class V>
    void decay(States<V>& s) const {
        s.after0 = d0 * s.before0, s.after1 = d1 * s.before1;
    }
    template <class V>
    void share(States<V>& s, typename V::Type g, float w) const {
        s.after0 += w * (1 - d0) * g, s.after1 += w * (1 - d1) * g * g;
    }
    template <class V>
    typename V::Type scale(States<V>& s, typename V::Type g, float) const {
        const auto mean = d0 * s.before0 + (1 - d0) * g;
        const auto variance = d1 * s.before1 + (1 - d1) * g * g;
        return mean * by0 / (V::root(variance * by1) + 1e-8f);
    }
};

// What does not change from element to element.
struct Rates {
    float learning_rate, momentum, l2;
    explicit Rates(const gk_rule& r)
        : learning_rate(r.learning_rate), momentum(r.momentum), l2(r.l2) {}
};

// An element, or a vector of them, whose gradient is known, all at once: w copies of g = total / w.
template <class Method, bool MOMENTUM, class V, class Type = typename V::Type>
INLINE void update_element(const Rates& r, const Method& method, Type& p, Type& s0, Type& s1,
                           Type& v, Type total, float w, float by_w) {
    const Type g = total * by_w;
    States<V> s = {s0, s1, Type{}, Type{}};
    method.decay(s);
    method.share(s, g, w);
    const Type scaled = method.scale(s, g, w) + r.l2 * p;
    const Type step = MOMENTUM ? r.momentum * v - r.learning_rate * scaled
                               : -r.learning_rate * scaled;
    s0 = s.after0, s1 = s.after1, v = step;
    p += w * step;
}

// The n elements from `at` on.
template <class Method, bool MOMENTUM>
void update_elements(const gk_rule& rule, const Method method, long at, long n,
                     const float* gradient, float w) {
    constexpr bool S0 = Method::STATES > 0, S1 = Method::STATES > 1;
    typedef typename Vector::Type Type;
    const Rates rates(rule);
    float* __restrict__ p = rule.table + at;
    float* __restrict__ s0 = S0 ? rule.states[0] + at : nullptr;
    float* __restrict__ s1 = S1 ? rule.states[1] + at : nullptr;
    float* __restrict__ v = MOMENTUM ? rule.velocity + at : nullptr;
    const float* __restrict__ total = gradient;
    const float by_w = 1 / w;
    auto update = [&](long c, auto some) {
        Type value = some.load(p + c), t = some.load(total + c), state0{}, state1{}, velocity{};
        if (S0) state0 = some.load(s0 + c);
        if (S1) state1 = some.load(s1 + c);
        if (MOMENTUM) velocity = some.load(v + c);
        update_element<Method, MOMENTUM, Vector>(rates, method, value, state0, state1, velocity, t,
                                                 w, by_w);
        some.store(p + c, value);
        if (S0) some.store(s0 + c, state0);
        if (S1) some.store(s1 + c, state1);
        if (MOMENTUM) some.store(v + c, velocity);
    };
    const long whole = n - n % Vector::WIDTH;
    for (long c = 0; c < whole; c += Vector::WIDTH) update(c, Vector());
    if (whole < n) update(whole, typename Vector::Part(n - whole));
}

// Rows of a single number, that come up once, at places once[begin] .. once[end - 1] of a look-up.
template <class Method, bool MOMENTUM>
void update_numbers(const gk_rule& r, const gk_lookup& look, const int32_t* once, long begin,
                    long end) {
    const Rates rates(r);
    Method method(r);
    float *__restrict__ p = r.table, *__restrict__ s0 = r.states[0], *__restrict__ s1 = r.states[1];
    float *__restrict__ v = r.velocity, *__restrict__ time = r.time;
    for (long i = begin; i < end; i++) {
        const long e = once[i], row = look.index[e];
        const float w = look.weights ? look.weights[e] : 1.f;
        if (time) method.start(time[row] += 1);
        float none0 = 0, none1 = 0, none2 = 0;
        update_element<Method, MOMENTUM, One>(
            rates, method, p[row], Method::STATES > 0 ? s0[row] : none0,
            Method::STATES > 1 ? s1[row] : none1, MOMENTUM ? v[row] : none2, look.gradient[e], w,
            1 / w);
    }
}

// One occurrence of a looked-up row.
struct Occurrence {
    long row;
    const float *gradient, *rows;
    float weight;
};

// A row that comes up several times, in the order of the mini-batch.
template <class Method, bool MOMENTUM>
void update_group(const gk_rule& r, const Method& method, const Occurrence* first,
                  const Occurrence* last) {
    constexpr bool S0 = Method::STATES > 0, S1 = Method::STATES > 1;
    static thread_local std::vector<float> buffers[2];  // the states after the mini-batch
    for (auto& buffer : buffers) buffer.resize(r.width);
    const long n = r.width, at = first->row * n;
    const float lr = r.learning_rate, momentum = r.momentum, l2 = r.l2;
    float* __restrict__ p = r.table + at;
    float* __restrict__ v = MOMENTUM ? r.velocity + at : nullptr;
    float* __restrict__ s0 = S0 ? r.states[0] + at : nullptr;
    float* __restrict__ s1 = S1 ? r.states[1] + at : nullptr;
    float *__restrict__ after0 = buffers[0].data(), *__restrict__ after1 = buffers[1].data();
    for (long c = 0; c < n; c++) {
        States<One> s = {S0 ? s0[c] : 0.f, S1 ? s1[c] : 0.f, 0.f, 0.f};
        method.decay(s);
        after0[c] = s.after0, after1[c] = s.after1;
    }
    for (auto o = first; o <= last; ++o) {
        const float* __restrict__ total = o->gradient;
        const float w = o->weight, by_w = 1 / w;
        for (long c = 0; c < n; c++) {
            States<One> s = {0.f, 0.f, after0[c], after1[c]};
            method.share(s, total[c] * by_w, w);
            after0[c] = s.after0, after1[c] = s.after1;
        }
    }
    auto step = [&](const Occurrence& o, auto with_l2, auto is_last) {
        const float* __restrict__ total = o.gradient;
        const float* __restrict__ rows = o.rows;
        const float w = o.weight, by_w = 1 / w;
        for (long c = 0; c < n; c++) {
            States<One> s = {S0 ? s0[c] : 0.f, S1 ? s1[c] : 0.f, after0[c], after1[c]};
            float scaled = method.scale(s, total[c] * by_w, w);
            if (with_l2) scaled += l2 * rows[c];
            const float change = MOMENTUM ? momentum * v[c] - lr * scaled : -lr * scaled;
            if (MOMENTUM && is_last) v[c] = change;  // the others read what was before
            if (S1) after1[c] = s.after1;
            p[c] += w * change;
        }
    };
    for (auto o = first; o <= last; ++o) {
        if (o->rows) {
            o == last ? step(*o, std::true_type(), std::true_type())
                      : step(*o, std::true_type(), std::false_type());
        } else {
            o == last ? step(*o, std::false_type(), std::true_type())
                      : step(*o, std::false_type(), std::false_type());
        }
    }
    for (long c = 0; c < n; c++) {
        if (S0) s0[c] = after0[c];
        if (S1) s1[c] = after1[c];
    }
}

// A mini-batch's occurrences: for each look-up the places of the rows that come up once, and the
// others with each row's together.
struct Sorted {
    std::vector<std::vector<int32_t>> once;  // of which the first n_once are in use
    std::vector<long> n_once;
    std::vector<Occurrence> again;
};

Occurrence occurrence(const gk_rule& rule, const gk_lookup& look, long e) {
    return {look.index[e], look.gradient + e * rule.width,
            look.rows ? look.rows + e * rule.width : nullptr, look.weights ? look.weights[e] : 1.f};
}

void sort_out(const gk_rule& rule, const gk_lookup* lookups, int n_lookups, Sorted& sorted) {
    // how often each row comes up in the mini-batch at hand; all zero between two calls
    static std::vector<int32_t> all_counts;
    if (static_cast<long>(all_counts.size()) < rule.n_rows) all_counts.resize(rule.n_rows, 0);
    int32_t* counts = all_counts.data();
    // never made smaller: parameters with one look-up and with two take turns
    if (static_cast<int>(sorted.once.size()) < n_lookups) sorted.once.resize(n_lookups);
    sorted.n_once.assign(n_lookups, 0);
    sorted.again.clear();
    for (int l = 0; l < n_lookups; l++) {
        const gk_lookup& look = lookups[l];
        if (static_cast<long>(sorted.once[l].size()) < look.n) sorted.once[l].resize(look.n);
        for (long e = 0; e < look.n; e++) counts[look.index[e]]++;
    }
    for (int l = 0; l < n_lookups; l++) {
        const gk_lookup& look = lookups[l];
        int32_t* once = sorted.once[l].data();
        long n_once = 0;
        for (long e = 0; e < look.n; e++) {
            const bool single = counts[look.index[e]] == 1;
            once[n_once] = e;
            n_once += single;
            if (!single) sorted.again.push_back(occurrence(rule, look, e));
        }
        sorted.n_once[l] = n_once;
    }
    for (int l = 0; l < n_lookups; l++)
        for (long e = 0; e < lookups[l].n; e++) counts[lookups[l].index[e]] = 0;
    std::stable_sort(sorted.again.begin(), sorted.again.end(),
                     [](const Occurrence& a, const Occurrence& b) { return a.row < b.row; });
}

// Fetches what an update of a row reads and writes.
INLINE void prefetch_row(const gk_rule& r, long row) {
    for (const float* table : {r.table, r.states[0], r.states[1], r.velocity})
        if (table) prefetch(table + row * r.width, r.width);
}

template <class Method, bool MOMENTUM>
void update_rows(const gk_rule& r, const gk_lookup* lookups, const Sorted& sorted) {
    auto method_of = [&](long row) {
        Method method(r);
        if (r.time) method.start(r.time[row] += 1);
        return method;
    };
    auto work = [&](int t, int n_threads) {
        for (size_t l = 0; l < sorted.n_once.size(); l++) {
            const gk_lookup& look = lookups[l];
            const int32_t* once = sorted.once[l].data();
            const auto s = team::share(sorted.n_once[l], t, n_threads);
            if (r.width == 1) {
                update_numbers<Method, MOMENTUM>(r, look, once, s.begin, s.end);
                continue;
            }
            for (long i = s.begin; i < s.end; i++) {
                if (i + AHEAD < s.end) prefetch_row(r, look.index[once[i + AHEAD]]);
                const long e = once[i], row = look.index[e];
                update_elements<Method, MOMENTUM>(r, method_of(row), row * r.width, r.width,
                                                  look.gradient + e * r.width,
                                                  look.weights ? look.weights[e] : 1.f);
            }
        }
        // all occurrences of a row are one thread's, so the result does not depend on timing
        const Occurrence *o = sorted.again.data(), *end = o + sorted.again.size();
        while (o != end) {
            auto after = o;
            while (after != end && after->row == o->row) ++after;
            if (o->row % n_threads == t)
                update_group<Method, MOMENTUM>(r, method_of(o->row), o, after - 1);
            o = after;
        }
    };
    long n = 0;
    for (size_t l = 0; l < sorted.n_once.size(); l++) n += lookups[l].n;
    team::run(team::size_for_numbers(n * r.width), work);
}

template <class Method, bool MOMENTUM>
void update_dense(const gk_rule& r, long n, const float* gradient) {
    Method method(r);
    if (r.time && r.n_rows) {
        method.start(r.time[0] + 1);
        for (long i = 0; i < r.n_rows; i++) r.time[i] += 1;
    }
    team::run(team::size_for_numbers(n), [&](int t, int n_threads) {
        const auto s = team::share(n, t, n_threads, 16);
        update_elements<Method, MOMENTUM>(r, method, s.begin, s.end - s.begin, gradient + s.begin,
                                          1);
    });
}

template <int>
struct Named {
    typedef Sgd Type;
};
template <>
struct Named<GK_ADAGRAD> {
    typedef Adagrad Type;
};
template <>
struct Named<GK_RMSPROP> {
    typedef Rmsprop Type;
};
template <>
struct Named<GK_ADADELTA> {
    typedef Adadelta Type;
};
template <>
struct Named<GK_ADAM> {
    typedef Adam Type;
};
typedef Named<METHOD>::Type Chosen;

}  // namespace

extern "C" int gk_update_rows(const gk_rule* rule, const gk_lookup* lookups, int n_lookups) try {
    for (int l = 0; l < n_lookups; l++) {
        bool wrong = false;
        for (long e = 0; e < lookups[l].n; e++)
            wrong |= lookups[l].index[e] < 0 || lookups[l].index[e] >= rule->n_rows;
        if (wrong) return 2;
    }
    static Sorted sorted;
    sort_out(*rule, lookups, n_lookups, sorted);
    update_rows<Chosen, WITH_MOMENTUM>(*rule, lookups, sorted);
    return 0;
} catch (const std::bad_alloc&) {
    return 1;
}

extern "C" void gk_update_dense(const gk_rule* rule, long n, const float* gradient) {
    update_dense<Chosen, WITH_MOMENTUM>(*rule, n, gradient);
}
