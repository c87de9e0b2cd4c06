// A loss and its gradient in one pass over the score matrix (equations: losses.py; the same in
// numpy: losses/op.py). LOSS is the loss in the order of losses/op.py's LOSSES, PARAMETER its constant.

#define CROSS_ENTROPY 0
#define XE_LOGIT 1
#define BPR 2
#define BPR_MAX 3
#define TOP1 4
#define TOP1_MAX 5

// One group a row. scores (m, n) in, their gradient out; costs (m,): each row's loss. Each thread
// reads and writes every LDIM_0-th column of the row, a few times; the row stays in the cache. Bound
// by memory, 8 m n bytes.
KERNEL void loss_rows(ga_size n, ARRAY(ga_float, scores), ARRAY(ga_float, offsets),
                      ARRAY(ga_float, weights), ga_float scale, ga_float n_rows,
                      ARRAY(ga_float, costs)) {
    OPEN(ga_float, scores);
    OPEN(ga_float, offsets);
    OPEN(ga_float, weights);
    OPEN(ga_float, costs);
    LOCAL_MEM ga_float scratch[THREADS];
    const ga_size i = GID_0;
    GLOBAL_MEM ga_float *y = scores + i * n;
    // read by the thread that overwrites it: OpenCL's local_barrier does not order global memory
    const ga_int has_target = LID_0 == i % LDIM_0;
    if (has_target) scratch[0] = act_value(y[i] + offsets[i]);
    local_barrier();
    const ga_float target = scratch[0];

    // activated scores; their maximum, over the negatives and a zero where negatives are weighted
    ga_float sum_of_weights = 0.f;
#if LOSS == CROSS_ENTROPY || LOSS == XE_LOGIT
    ga_float top = -INFINITY;
#else
    ga_float top = 0.f;
#endif
    for (ga_size j = LID_0; j < n; j += LDIM_0) {
        const ga_float x = act_value(y[j] + offsets[j]);
        y[j] = x;
        sum_of_weights += weights[j];
#if LOSS == CROSS_ENTROPY || LOSS == XE_LOGIT
        if (x > top) top = x;
#else
        if (x > top && j != i) top = x;
#endif
    }
    top = group_max(scratch, top);
    sum_of_weights = group_sum(scratch, sum_of_weights);

#if LOSS == CROSS_ENTROPY || LOSS == XE_LOGIT
    ga_float z = 0.f;
    for (ga_size j = LID_0; j < n; j += LDIM_0) z += weights[j] * exp(y[j] - top);
    z = group_sum(scratch, z);
    const ga_float by_z = 1.f / z, log_z = log(z);
    const ga_float others = PARAMETER / (sum_of_weights > 2.f ? sum_of_weights - 1.f : 1.f);
    ga_float pull = 0.f, cost = 0.f;  // sums of label q and of label surprise
    for (ga_size j = LID_0; j < n; j += LDIM_0) {
        const ga_float label = j == i ? 1.f - PARAMETER : others * weights[j];
        if (label != 0.f) {
            const ga_float p = exp(y[j] - top) * by_z;
#if LOSS == XE_LOGIT
            pull += label;
            cost += label * (log_z - (y[j] - top));
#else
            pull += label * (p / (p + EPSILON));
            cost -= label * log(p + EPSILON);
#endif
        }
    }
    pull = group_sum(scratch, pull);
    cost = group_sum(scratch, cost);
    for (ga_size j = LID_0; j < n; j += LDIM_0) {
        const ga_float label = j == i ? 1.f - PARAMETER : others * weights[j];
        const ga_float p = exp(y[j] - top) * by_z;
#if LOSS == XE_LOGIT
        const ga_float q = 1.f;
#else
        const ga_float q = p / (p + EPSILON);
#endif
        y[j] = scale * (weights[j] * p * pull - label * q);
    }

#elif LOSS == BPR
    ga_float cost = 0.f, lost_by = 0.f;
    for (ga_size j = LID_0; j < n; j += LDIM_0) {
        const ga_float difference = y[j] - target;  // -log sigmoid(-x) = log(1 + e^x)
        const ga_float g = weights[j] * sigmoid_(difference);
        const ga_float above = difference > 0.f ? difference : 0.f;
        cost += weights[j] * (difference != difference
                                  ? difference
                                  : above + log(1.f + exp(difference - 2.f * above)));
        if (j != i) {
            lost_by += g;
            y[j] = scale * g * act_slope(y[j]);
        }
    }
    cost = group_sum(scratch, cost);
    lost_by = group_sum(scratch, lost_by);
    if (has_target) y[i] = -scale * lost_by * act_slope(target);

#elif LOSS == BPR_MAX
    // with A = sum_j s_j sigmoid(y_i - y_j) and Q = sum_j s_j y_j^2: -log(A + eps) + bpreg Q
    ga_float z = 0.f, a = 0.f, q = 0.f, d = 0.f;
    for (ga_size j = LID_0; j < n; j += LDIM_0) {
        if (j != i) {
            const ga_float e = weights[j] * exp(y[j] - top), won = sigmoid_(target - y[j]);
            z += e;
            a += e * won;
            q += e * y[j] * y[j];
            d += e * won * (1.f - won);
        }
    }
    const ga_float by_z = 1.f / group_sum(scratch, z);
    a = group_sum(scratch, a) * by_z;
    q = group_sum(scratch, q) * by_z;
    d = group_sum(scratch, d) * by_z;
    const ga_float cost = -log(a + EPSILON) + PARAMETER * q;
    for (ga_size j = LID_0; j < n; j += LDIM_0) {
        const ga_float x = y[j];
        if (j == i) {
            y[j] = -scale * d / (a + EPSILON) * act_slope(x);
        } else {
            const ga_float s = weights[j] * exp(x - top) * by_z, won = sigmoid_(target - x);
            y[j] = scale * s * act_slope(x) *
                   ((a - won * won) / (a + EPSILON) + PARAMETER * (2.f * x + x * x - q));
        }
    }

#else
    // sum_j c_j (sigmoid(y_j - y_i) + sigmoid(y_j^2)), c the softmax over the negatives or a mean
#if LOSS == TOP1
    const ga_float by_z = n_rows / sum_of_weights;
#define SHARE(j) (weights[j] * by_z)
#else
    ga_float z = 0.f;
    for (ga_size j = LID_0; j < n; j += LDIM_0)
        if (j != i) z += weights[j] * exp(y[j] - top);
    const ga_float by_z = 1.f / group_sum(scratch, z);
#define SHARE(j) (j == i ? 0.f : weights[j] * exp(y[j] - top) * by_z)
#endif
    ga_float cost = 0.f, d = 0.f;
    for (ga_size j = LID_0; j < n; j += LDIM_0) {
        const ga_float c = SHARE(j), lost = sigmoid_(y[j] - target);
        cost += c * (lost + sigmoid_(y[j] * y[j]));
        d += c * lost * (1.f - lost);
    }
    cost = group_sum(scratch, cost);
    d = group_sum(scratch, d);
    for (ga_size j = LID_0; j < n; j += LDIM_0) {
        const ga_float x = y[j], c = SHARE(j);
        const ga_float lost = sigmoid_(x - target), large = sigmoid_(x * x);
        const ga_float d_large = 2.f * x * large * (1.f - large);
        ga_float g = c * (lost * (1.f - lost) + d_large);
        if (j == i) g -= d;
#if LOSS == TOP1
        if (j == i) g -= by_z * d_large;
#else
        g += c * (lost + large - cost);
#endif
        y[j] = scale * g * act_slope(x);
    }
#if LOSS == TOP1
    cost -= by_z * sigmoid_(target * target);
#endif
#endif
    if (LID_0 == 0) costs[i] = cost;
}

// d_offsets (n,): sums over the m rows of d_scores (m, n); cost[at]: scale times the sum of costs
// (m,), by the group after the last. Groups of COLUMNS x PARTS threads, as for gates_gradient. Bound by
// memory, 4 m n bytes.
KERNEL void loss_columns(ga_size m, ga_size n, ARRAY(ga_float, d_scores), ARRAY(ga_float, costs),
                         ga_float scale, ARRAY(ga_float, d_offsets), ARRAY(ga_float, cost),
                         ga_size at) {
    OPEN(ga_float, d_scores);
    OPEN(ga_float, costs);
    OPEN(ga_float, d_offsets);
    OPEN(ga_float, cost);
    LOCAL_MEM ga_float sums[COLUMNS * PARTS];
    const ga_size column = GID_0 * COLUMNS + LID_0 % COLUMNS, part = LID_0 / COLUMNS;
    const ga_int last = GID_0 == GDIM_0 - 1;
    ga_float sum = 0.f;
    if (last) {
        for (ga_size i = LID_0; i < m; i += COLUMNS * PARTS) sum += costs[i];
    } else if (column < n) {
        for (ga_size i = part; i < m; i += PARTS) sum += d_scores[i * n + column];
    }
    sums[LID_0] = sum;
    local_barrier();
    if (last) {
        if (LID_0 == 0) {
            for (ga_int p = 1; p < COLUMNS * PARTS; p++) sum += sums[p];
            cost[at] = scale * sum;
        }
    } else if (part == 0 && column < n) {
        for (ga_int p = 1; p < PARTS; p++) sum += sums[p * COLUMNS + LID_0];
        d_offsets[column] = sum;
    }
}
