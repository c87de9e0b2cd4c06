// Optimizer steps on whole parameters and on the rows that a mini-batch looked up (rules:
// optimizers.py; the same in numpy: cpu_ops.Update). METHOD is the method in the order of
// cpu_ops.METHODS. Bound by memory: each touched row of the tables is read and written once, its
// gradients are read twice.

#define ADAGRAD 1
#define RMSPROP 2
#define ADADELTA 3
#define ADAM 4

// one element's states before and after the mini-batch; Adam's corrections for their zero start
typedef struct {
    ga_float before0, before1, after0, after1, by0, by1;
} states;

WITHIN_KERNEL void decay(states *s, ga_float d0, ga_float d1, ga_float time) {
#if METHOD == ADAGRAD
    s->after0 = s->before0;
#elif METHOD == RMSPROP
    s->after0 = d0 * s->before0;
#elif METHOD == ADADELTA
    s->after0 = d0 * s->before0;
    s->after1 = d0 * s->before1;
#elif METHOD == ADAM
    s->after0 = d0 * s->before0;
    s->after1 = d1 * s->before1;
    s->by0 = 1.f / (1.f - pow(d0, time));
    s->by1 = 1.f / (1.f - pow(d1, time));
#endif
}

// adds what w copies of the gradient g add to the states
WITHIN_KERNEL void add_share(states *s, ga_float g, ga_float w, ga_float d0, ga_float d1) {
#if METHOD == ADAGRAD
    s->after0 += w * g * g;
#elif METHOD == RMSPROP || METHOD == ADADELTA
    s->after0 += w * (1.f - d0) * g * g;
#elif METHOD == ADAM
    s->after0 += w * (1.f - d0) * g;
    s->after1 += w * (1.f - d1) * g * g;
#endif
}

// the scaled gradient, once all shares have been added
WITHIN_KERNEL ga_float scaled(states *s, ga_float g, ga_float w, ga_float d0, ga_float d1,
                              ga_float epsilon) {
#if METHOD == ADAGRAD
    return g / sqrt(s->before0 + g * g + epsilon);
#elif METHOD == RMSPROP
    return g / sqrt(s->after0 + epsilon);
#elif METHOD == ADADELTA
    const ga_float step = g * sqrt((s->before1 + epsilon) / (s->after0 + epsilon));
    s->after1 += w * (1.f - d0) * step * step;
    return step;
#elif METHOD == ADAM
    const ga_float mean = d0 * s->before0 + (1.f - d0) * g;
    const ga_float variance = d1 * s->before1 + (1.f - d1) * g * g;
    return mean * s->by0 / (sqrt(variance * s->by1) + 1e-8f);
#else
    return g;
#endif
}

// the tables of a parameter; those that METHOD does not have are not touched
#define TABLES \
    ARRAY(ga_float, table), ARRAY(ga_float, state0), ARRAY(ga_float, state1), \
        ARRAY(ga_float, time), ARRAY(ga_float, velocity)
#define OPEN_TABLES \
    OPEN(ga_float, table); \
    OPEN(ga_float, state0); \
    OPEN(ga_float, state1); \
    OPEN(ga_float, time); \
    OPEN(ga_float, velocity)
#define RATES \
    ga_float rate, ga_float momentum, ga_float l2, ga_float epsilon, ga_float d0, ga_float d1

// Element `at` of the tables, in row `row`, before the mini-batch.
#define READ_STATES \
    states s; \
    s.before0 = METHOD >= ADAGRAD ? state0[at] : 0.f; \
    s.before1 = METHOD >= ADADELTA ? state1[at] : 0.f; \
    decay(&s, d0, d1, METHOD == ADAM ? time[row] + 1.f : 0.f)

#define WRITE_STATES \
    if (METHOD >= ADAGRAD) state0[at] = s.after0; \
    if (METHOD >= ADADELTA) state1[at] = s.after1

// A whole parameter of n elements, one thread each; width: elements of a row.
KERNEL void update_dense(ga_size n, ga_size width, TABLES, ARRAY(ga_float, gradient), RATES) {
    OPEN_TABLES;
    OPEN(ga_float, gradient);
    for (ga_size at = THREAD; at < n; at += N_THREADS) {
        const ga_size row = at / width;
        const ga_float g = gradient[at], value = table[at];
        READ_STATES;
        add_share(&s, g, 1.f, d0, d1);
        ga_float step = -rate * (scaled(&s, g, 1.f, d0, d1, epsilon) + l2 * value);
        if (MOMENTUM) {
            step += momentum * velocity[at];
            velocity[at] = step;
        }
        WRITE_STATES;
        table[at] = value + step;
    }
}

// A mini-batch looks a row up in two look-ups, a and b, of n_a and n_b rows; a row may occur several
// times. An occurrence's number counts through both. owner (n_a + n_b,): whether there is no earlier
// one of the same row; next (n_a + n_b,): the number of the next one, or -1. A group of COLUMNS x
// PARTS threads has so many occurrences and compares each to every PARTS-th one in a thread. Bound
// by the (n_a + n_b)^2 comparisons, a few million.
KERNEL void link_occurrences(ga_size n_a, ARRAY(ga_int, index_a), ga_size n_b,
                             ARRAY(ga_int, index_b), ARRAY(ga_int, owner), ARRAY(ga_int, next)) {
    OPEN(ga_int, index_a);
    OPEN(ga_int, index_b);
    OPEN(ga_int, owner);
    OPEN(ga_int, next);
    LOCAL_MEM ga_int firsts[COLUMNS * PARTS];
    LOCAL_MEM ga_int nexts[COLUMNS * PARTS];
    const ga_int n = n_a + n_b, e = GID_0 * COLUMNS + LID_0 % COLUMNS, part = LID_0 / COLUMNS;
    const ga_int row = e < n_a ? index_a[e] : e < n ? index_b[e - n_a] : -1;
    ga_int first = e, following = n;
    for (ga_int other = part; other < n; other += PARTS) {
        const ga_int same = (other < n_a ? index_a[other] : index_b[other - n_a]) == row;
        if (same && other < first) first = other;
        if (same && other > e && other < following) following = other;
    }
    firsts[LID_0] = first;
    nexts[LID_0] = following;
    local_barrier();
    if (part == 0 && e < n) {
        for (ga_int p = 1; p < PARTS; p++) {
            first = min(first, firsts[p * COLUMNS + LID_0]);
            following = min(following, nexts[p * COLUMNS + LID_0]);
        }
        owner[e] = first == e;
        next[e] = following < n ? following : -1;
    }
}

#define GRADIENT(e) (e < n_a ? gradient_a[e * width + c] : gradient_b[(e - n_a) * width + c])
#define WEIGHT(e) \
    (e < n_a ? (WEIGHTED_A ? weights_a[e] : 1.f) : (WEIGHTED_B ? weights_b[e - n_a] : 1.f))

// One thread an element of an occurrence; the row's first occurrence does the work for all of them,
// in their order, so the result does not depend on which thread comes first.
KERNEL void update_rows(ga_size n_rows, ga_size width, TABLES, ga_size n_a, ARRAY(ga_int, index_a),
                        ARRAY(ga_float, gradient_a), ARRAY(ga_float, weights_a), ga_size n_b,
                        ARRAY(ga_int, index_b), ARRAY(ga_float, gradient_b),
                        ARRAY(ga_float, weights_b), ARRAY(ga_int, owner), ARRAY(ga_int, next),
                        RATES) {
    OPEN_TABLES;
    OPEN(ga_int, index_a);
    OPEN(ga_float, gradient_a);
    OPEN(ga_float, weights_a);
    OPEN(ga_int, index_b);
    OPEN(ga_float, gradient_b);
    OPEN(ga_float, weights_b);
    OPEN(ga_int, owner);
    OPEN(ga_int, next);
    for (ga_size t = THREAD; t < (n_a + n_b) * width; t += N_THREADS) {
        const ga_size own = t / width, c = t - own * width;
        const ga_int row = own < n_a ? index_a[own] : index_b[own - n_a];
        if (!owner[own] || row < 0 || (ga_size)row >= n_rows) continue;
        const ga_size at = row * width + c;
        READ_STATES;
        for (ga_ssize e = own; e >= 0; e = next[e]) {
            const ga_float w = WEIGHT(e);
            add_share(&s, GRADIENT(e) / w, w, d0, d1);
        }
        const ga_float value = table[at], kept = MOMENTUM ? momentum * velocity[at] : 0.f;
        ga_float result = value, step = 0.f;
        for (ga_ssize e = own; e >= 0; e = next[e]) {
            const ga_float w = WEIGHT(e), g = GRADIENT(e) / w;
            step = kept - rate * (scaled(&s, g, w, d0, d1, epsilon) + l2 * value);
            result += w * step;
        }
        if (MOMENTUM) velocity[at] = step;
        WRITE_STATES;
        table[at] = result;
    }
}

// Adam's count of steps, after them: one thread a row, since all threads of a row have read it.
KERNEL void tick_dense(ga_size n_rows, ARRAY(ga_float, time)) {
    OPEN(ga_float, time);
    for (ga_size row = THREAD; row < n_rows; row += N_THREADS) time[row] += 1.f;
}

KERNEL void tick_rows(ga_size n_rows, ARRAY(ga_float, time), ga_size n_a, ARRAY(ga_int, index_a),
                      ga_size n_b, ARRAY(ga_int, index_b), ARRAY(ga_int, owner)) {
    OPEN(ga_float, time);
    OPEN(ga_int, index_a);
    OPEN(ga_int, index_b);
    OPEN(ga_int, owner);
    for (ga_size e = THREAD; e < n_a + n_b; e += N_THREADS) {
        const ga_int row = e < n_a ? index_a[e] : index_b[e - n_a];
        if (owner[e] && row >= 0 && (ga_size)row < n_rows) time[row] += 1.f;
    }
}
