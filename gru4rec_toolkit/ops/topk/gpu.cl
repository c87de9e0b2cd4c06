// The best items of each session.

// scores (m, n) get their biases (n,) and the activation. Bound by memory, 8 m n bytes.
KERNEL void finish_scores(ga_size m, ga_size n, ARRAY(ga_float, scores), ARRAY(ga_float, biases)) {
    OPEN(ga_float, scores);
    OPEN(ga_float, biases);
    for (ga_size i = THREAD; i < m * n; i += N_THREADS)
        scores[i] = value_of(scores[i] + biases[i % n]);
}

// One group a session: its items that are left out, left_out[starts[i]] and on, get the score
// `none`, which is not a number, where they are among the n items from `first` on.
KERNEL void leave_out(ga_size first, ga_size n, ARRAY(ga_int, starts), ARRAY(ga_int, left_out),
                      ga_float none, ARRAY(ga_float, scores)) {
    OPEN(ga_int, starts);
    OPEN(ga_int, left_out);
    OPEN(ga_float, scores);
    const ga_size i = GID_0;
    for (ga_int at = starts[i] + LID_0; at < starts[i + 1]; at += LDIM_0) {
        const ga_size item = left_out[at];
        if (item >= first && item < first + n) scores[i * n + item - first] = none;
    }
}

// Whether x is the better of two scored items, and whether it is one; -1 stands for none.
#define BETTER(x, item_x, y, item_y) \
    ((item_x) >= 0 && ((item_y) < 0 || (x) > (y) || ((x) == (y) && (item_x) < (item_y))))

// One group a session: items, best (m, k) get the k best of n scored items from `first` on and of
// those that were the best until then, old_items, old_best (m, k) unless there are none. Every round
// finds the best of those that come after what the round before has found. Bound by memory,
// 4 m n k bytes.
KERNEL void top_k(ga_size first, ga_size n, ga_int k, ARRAY(ga_float, scores), ga_int n_old,
                  ARRAY(ga_int, old_items), ARRAY(ga_float, old_best), ga_float worst,
                  ARRAY(ga_int, items), ARRAY(ga_float, best)) {
    OPEN(ga_float, scores);
    OPEN(ga_int, old_items);
    OPEN(ga_float, old_best);
    OPEN(ga_int, items);
    OPEN(ga_float, best);
    LOCAL_MEM ga_float found[THREADS];
    LOCAL_MEM ga_int found_item[THREADS];
    const ga_size i = GID_0;
    ga_float last = 0.f;
    ga_int last_item = -1;
    for (ga_int round = 0; round < k; round++) {
        ga_float x = worst;
        ga_int item_x = -1;
        for (ga_size j = LID_0; j < n + n_old; j += LDIM_0) {
            const ga_size of_old = i * k + j - n;
            const ga_float y = j < n ? scores[i * n + j] : old_best[of_old];
            const ga_int item_y = j < n ? (ga_int)(first + j) : old_items[of_old];
            const ga_int comes_later =
                round == 0 ? y == y : y < last || (y == last && item_y > last_item);
            if (comes_later && BETTER(y, item_y, x, item_x)) {
                x = y;
                item_x = item_y;
            }
        }
        found[LID_0] = x;
        found_item[LID_0] = item_x;
        for (ga_int half_of = THREADS / 2; half_of > 0; half_of /= 2) {
            local_barrier();
            if (LID_0 < half_of && BETTER(found[LID_0 + half_of], found_item[LID_0 + half_of],
                                          found[LID_0], found_item[LID_0])) {
                found[LID_0] = found[LID_0 + half_of];
                found_item[LID_0] = found_item[LID_0 + half_of];
            }
        }
        local_barrier();
        last = found[0];
        last_item = found_item[0];
        if (LID_0 == 0) {
            items[i * k + round] = last_item;
            best[i * k + round] = last;
        }
        local_barrier();  // before the next round writes what this one has read
        if (last_item < 0) {
            for (ga_int rest = round + 1 + LID_0; rest < k; rest += LDIM_0) {
                items[i * k + rest] = -1;
                best[i * k + rest] = worst;
            }
            break;
        }
    }
}
