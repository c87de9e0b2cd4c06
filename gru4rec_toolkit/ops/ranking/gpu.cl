// Ranking: how many items score better than a target, and how many the same.

// activated (n,) gets the values of scores (n,). Bound by memory, 8 n bytes.
KERNEL void activate(ga_size n, ARRAY(ga_float, scores), ARRAY(ga_float, activated)) {
    OPEN(ga_float, scores);
    OPEN(ga_float, activated);
    for (ga_size i = GID_0 * LDIM_0 + LID_0; i < n; i += GDIM_0 * LDIM_0)
        activated[i] = value_of(scores[i]);
}

// One group a target. scores (m, n) are those of n items, before their biases (n,) and activation;
// ids (n,) say which one is the target, which does not count; target_scores (m,) are with biases,
// before the activation. better, equal (m,) get what is found, added to what is there unless it is
// the first block. Bound by memory, 4 m n bytes.
KERNEL void count_ranks(ga_size n, ARRAY(ga_float, scores), ARRAY(ga_float, biases),
                        ARRAY(ga_int, ids), ARRAY(ga_int, targets), ARRAY(ga_float, target_scores),
                        ga_int first, ARRAY(ga_long, better), ARRAY(ga_long, equal)) {
    OPEN(ga_float, scores);
    OPEN(ga_float, biases);
    OPEN(ga_int, ids);
    OPEN(ga_int, targets);
    OPEN(ga_float, target_scores);
    OPEN(ga_long, better);
    OPEN(ga_long, equal);
    LOCAL_MEM ga_int counts[2 * THREADS];
    const ga_size i = GID_0;
    const ga_float target = value_of(target_scores[i]);
    ga_int n_better = 0, n_equal = 0;
    for (ga_size j = LID_0; j < n; j += LDIM_0) {
        if (ids[j] == targets[i]) continue;
        const ga_float x = value_of(scores[i * n + j] + biases[j]);
        n_better += x > target;
        n_equal += x == target;
    }
    counts[LID_0] = n_better;
    counts[THREADS + LID_0] = n_equal;
    for (ga_int half_of = THREADS / 2; half_of > 0; half_of /= 2) {
        local_barrier();
        if (LID_0 < half_of) {
            counts[LID_0] += counts[LID_0 + half_of];
            counts[THREADS + LID_0] += counts[THREADS + LID_0 + half_of];
        }
    }
    if (LID_0 == 0) {
        better[i] = (first ? 0 : better[i]) + counts[0];
        equal[i] = (first ? 0 : equal[i]) + counts[THREADS];
    }
}
