// Optimizer steps on whole parameters and on the rows that a mini-batch looked up (rules:
// optimizers.py; the same in numpy: updates/op.py). METHOD is the method in the order of
// updates/op.py's METHODS. Bound by memory: each touched row of the tables is read and written once, its
// gradients are read twice.
//
// One launch does all parameters of a step. EACH_DENSE(X) is X(p) for every whole parameter p, and
// EACH_ROWS(X) for every one of which rows were looked up, in two look-ups, a and b (without b, n_b is
// 0). A row may occur several times; an occurrence's number counts through both.

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

// a parameter of n_rows rows and its states; those that METHOD does not have are not touched
typedef struct {
    ga_size n_rows, width;
    GLOBAL_MEM ga_float *values, *state0, *state1, *time, *velocity;
} tables;

typedef struct {
    ga_float rate, momentum, l2, epsilon, d0, d1;
} rates;

// Element `at` of the tables, in row `row`, before the mini-batch.
WITHIN_KERNEL states read_states(tables of, ga_size at, ga_size row, rates r) {
    states s;
    s.before0 = METHOD >= ADAGRAD ? of.state0[at] : 0.f;
    s.before1 = METHOD >= ADADELTA ? of.state1[at] : 0.f;
    decay(&s, r.d0, r.d1, METHOD == ADAM ? of.time[row] + 1.f : 0.f);
    return s;
}

WITHIN_KERNEL void write_states(tables of, ga_size at, states s) {
    if (METHOD >= ADAGRAD) of.state0[at] = s.after0;
    if (METHOD >= ADADELTA) of.state1[at] = s.after1;
}

// Element `at` of a whole parameter.
WITHIN_KERNEL void step_dense(tables of, GLOBAL_MEM ga_float *gradient, ga_size at, rates r) {
    const ga_float g = gradient[at], value = of.values[at];
    states s = read_states(of, at, at / of.width, r);
    add_share(&s, g, 1.f, r.d0, r.d1);
    ga_float step = -r.rate * (scaled(&s, g, 1.f, r.d0, r.d1, r.epsilon) + r.l2 * value);
    if (MOMENTUM) {
        step += r.momentum * of.velocity[at];
        of.velocity[at] = step;
    }
    write_states(of, at, s);
    of.values[at] = value + step;
}

// One look-up of n rows; without weights, each stands for one.
typedef struct {
    ga_size n;
    GLOBAL_MEM ga_int *ids;
    GLOBAL_MEM ga_float *gradient, *weights;
    ga_int weighted;
} lookup;

#define GRADIENT(e) (e < a.n ? a.gradient[e * of.width + c] : b.gradient[(e - a.n) * of.width + c])
#define WEIGHT(e) \
    (e < a.n ? (a.weighted ? a.weights[e] : 1.f) : (b.weighted ? b.weights[e - a.n] : 1.f))

// Element t of all occurrences' rows; the row's first occurrence does the work for all of them, in
// their order, so the result does not depend on which thread comes first.
WITHIN_KERNEL void step_row(tables of, lookup a, lookup b, GLOBAL_MEM ga_int *owner,
                            GLOBAL_MEM ga_int *next, ga_size t, rates r) {
    const ga_size own = t / of.width, c = t - own * of.width;
    const ga_int row = own < a.n ? a.ids[own] : b.ids[own - a.n];
    if (!owner[own] || row < 0 || (ga_size)row >= of.n_rows) return;
    const ga_size at = row * of.width + c;
    states s = read_states(of, at, row, r);
    for (ga_ssize e = own; e >= 0; e = next[e]) {
        const ga_float w = WEIGHT(e);
        add_share(&s, GRADIENT(e) / w, w, r.d0, r.d1);
    }
    const ga_float value = of.values[at], kept = MOMENTUM ? r.momentum * of.velocity[at] : 0.f;
    ga_float result = value, step = 0.f;
    for (ga_ssize e = own; e >= 0; e = next[e]) {
        const ga_float w = WEIGHT(e), g = GRADIENT(e) / w;
        step = kept - r.rate * (scaled(&s, g, w, r.d0, r.d1, r.epsilon) + r.l2 * value);
        result += w * step;
    }
    if (MOMENTUM) of.velocity[at] = step;
    write_states(of, at, s);
    of.values[at] = result;
}

#define TABLES(p) \
    , ga_size n_rows_##p, ga_size width_##p, ARRAY(ga_float, values_##p), \
        ARRAY(ga_float, state0_##p), ARRAY(ga_float, state1_##p), ARRAY(ga_float, time_##p), \
        ARRAY(ga_float, velocity_##p)
#define DENSE(p) \
    TABLES(p), ARRAY(ga_float, gradient_##p)
#define IDS(p) \
    , ga_size n_a_##p, ARRAY(ga_int, ids_a_##p), ga_size n_b_##p, ARRAY(ga_int, ids_b_##p)
#define ROWS(p) \
    TABLES(p) IDS(p), ARRAY(ga_float, gradient_a_##p), ARRAY(ga_float, gradient_b_##p), \
        ga_int weighted_a_##p, ga_int weighted_b_##p, ARRAY(ga_float, weights_a_##p), \
        ARRAY(ga_float, weights_b_##p)

#define OPEN_TABLES(p) \
    OPEN(ga_float, values_##p); \
    OPEN(ga_float, state0_##p); \
    OPEN(ga_float, state1_##p); \
    OPEN(ga_float, time_##p); \
    OPEN(ga_float, velocity_##p); \
    const tables of_##p = {n_rows_##p,  width_##p,  values_##p,  state0_##p, \
                           state1_##p,  time_##p,   velocity_##p}
#define OPEN_LOOKUP(p, a) \
    OPEN(ga_int, ids_##a##_##p); \
    OPEN(ga_float, gradient_##a##_##p); \
    OPEN(ga_float, weights_##a##_##p); \
    const lookup a = {n_##a##_##p, ids_##a##_##p, gradient_##a##_##p, weights_##a##_##p, \
                      weighted_##a##_##p}

// Does element `left` if it is one of this parameter's, else passes over them.
#define STEP_DENSE(p) \
    const ga_size n_##p = n_rows_##p * width_##p; \
    if (left < n_##p) { \
        OPEN_TABLES(p); \
        OPEN(ga_float, gradient_##p); \
        step_dense(of_##p, gradient_##p, left, r); \
        continue; \
    } \
    left -= n_##p;
#define STEP_ROWS(p) \
    const ga_size n_##p = n_a_##p + n_b_##p; \
    if (left < n_##p * width_##p) { \
        OPEN_TABLES(p); \
        OPEN_LOOKUP(p, a); \
        OPEN_LOOKUP(p, b); \
        step_row(of_##p, a, b, owner + occurrences, next + occurrences, left, r); \
        continue; \
    } \
    left -= n_##p * width_##p; \
    occurrences += n_##p;

// One thread an element; n of all parameters together.
KERNEL void update(ga_size n, ga_float rate, ga_float momentum, ga_float l2, ga_float epsilon,
                   ga_float d0, ga_float d1, ARRAY(ga_int, owner), ARRAY(ga_int, next)
                   EACH_DENSE(DENSE) EACH_ROWS(ROWS)) {
    OPEN(ga_int, owner);
    OPEN(ga_int, next);
    const rates r = {rate, momentum, l2, epsilon, d0, d1};
    for (ga_size at = THREAD; at < n; at += N_THREADS) {
        ga_size left = at, occurrences = 0;
        EACH_DENSE(STEP_DENSE)
        EACH_ROWS(STEP_ROWS)
    }
}

// Chooses this parameter's look-ups if the group is one of its, else passes over them. (Groups must
// not call barriers in branches of their own.)
#define CHOOSE(p) \
    { \
        OPEN(ga_int, ids_a_##p); \
        OPEN(ga_int, ids_b_##p); \
        const ga_int groups = (n_a_##p + n_b_##p + COLUMNS - 1) / COLUMNS; \
        if (group >= 0 && group < groups) { \
            in_part = group; \
            n_a = n_a_##p; \
            n_b = n_b_##p; \
            a = ids_a_##p; \
            b = ids_b_##p; \
            start = occurrences; \
        } \
        group -= groups; \
        occurrences += n_a_##p + n_b_##p; \
    }

// The links of all parameters' occurrences, one parameter after the other. owner (n,): whether there
// is no earlier occurrence of the same row; next (n,): the number of the next one, or -1. A group of
// COLUMNS x PARTS threads has so many occurrences and compares each to every PARTS-th one in a
// thread. Bound by the n^2 comparisons, a few million.
KERNEL void link_occurrences(ARRAY(ga_int, owner), ARRAY(ga_int, next) EACH_ROWS(IDS)) {
    OPEN(ga_int, owner);
    OPEN(ga_int, next);
    LOCAL_MEM ga_int firsts[COLUMNS * PARTS];
    LOCAL_MEM ga_int nexts[COLUMNS * PARTS];
    ga_int group = GID_0, occurrences = 0, in_part = 0, start = 0, n_a = 0, n_b = 0;
    GLOBAL_MEM ga_int *a = owner, *b = owner;
    EACH_ROWS(CHOOSE)
    const ga_int n = n_a + n_b, e = in_part * COLUMNS + LID_0 % COLUMNS, part = LID_0 / COLUMNS;
    const ga_int row = e < n_a ? a[e] : e < n ? b[e - n_a] : -1;
    ga_int first = e, following = n;
    for (ga_int other = part; other < n; other += PARTS) {
        const ga_int same = (other < n_a ? a[other] : b[other - n_a]) == row;
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
        owner[start + e] = first == e;
        next[start + e] = following < n ? following : -1;
    }
}

#define TIMES(p) \
    , ga_size n_rows_##p, ARRAY(ga_float, time_##p)
#define TIMES_OF_ROWS(p) \
    TIMES(p) IDS(p)
#define TICK_DENSE(p) \
    if (left < n_rows_##p) { \
        OPEN(ga_float, time_##p); \
        time_##p[left] += 1.f; \
        continue; \
    } \
    left -= n_rows_##p;
#define TICK_ROWS(p) \
    const ga_size n_##p = n_a_##p + n_b_##p; \
    if (left < n_##p) { \
        OPEN(ga_int, ids_a_##p); \
        OPEN(ga_int, ids_b_##p); \
        OPEN(ga_float, time_##p); \
        const ga_int row = left < n_a_##p ? ids_a_##p[left] : ids_b_##p[left - n_a_##p]; \
        if (owner[occurrences + left] && row >= 0 && (ga_size)row < n_rows_##p) \
            time_##p[row] += 1.f; \
        continue; \
    } \
    left -= n_##p; \
    occurrences += n_##p;

// Adam's count of steps, after them: one thread a row, since all threads of a row have read it.
KERNEL void tick(ga_size n, ARRAY(ga_int, owner)
                 EACH_DENSE(TIMES) EACH_ROWS(TIMES_OF_ROWS)) {
    OPEN(ga_int, owner);
    for (ga_size at = THREAD; at < n; at += N_THREADS) {
        ga_size left = at, occurrences = 0;
        EACH_DENSE(TICK_DENSE)
        EACH_ROWS(TICK_ROWS)
    }
}
