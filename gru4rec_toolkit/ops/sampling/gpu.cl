// The store of negative samples, drawn and merged on the device (the same in numpy: sampling.py).

// Number i of a stream (SplitMix64; Steele, Lea and Flood, OOPSLA 2014).
WITHIN_KERNEL ga_ulong random_bits(ga_ulong seed, ga_ulong i) {
    ga_ulong z = seed + (i + 1) * (ga_ulong)0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * (ga_ulong)0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * (ga_ulong)0x94d049bb133111eb;
    return z ^ (z >> 31);
}

// ids (n,): draws number first and on from an alias table (n_items,). One thread a draw. Bound by
// the two scattered reads.
KERNEL void draw(ga_size n, ga_ulong seed, ga_ulong first, ga_ulong n_items,
                 ARRAY(ga_ulong, threshold), ARRAY(ga_int, alias), ARRAY(ga_int, ids)) {
    OPEN(ga_ulong, threshold);
    OPEN(ga_int, alias);
    OPEN(ga_int, ids);
    for (ga_size at = THREAD; at < n; at += N_THREADS) {
        const ga_ulong bits = random_bits(seed, first + at), low_half = 0xffffffff;
        // bits * n_items has 96 bits: the integer part is a slot, the fraction lies inside of it
        const ga_ulong low = (bits & low_half) * n_items;
        const ga_ulong high = (bits >> 32) * n_items + (low >> 32);
        const ga_ulong slot = high >> 32, fraction = (high << 32) | (low & low_half);
        ids[at] = fraction < threshold[slot] ? (ga_int)slot : alias[slot];
    }
}

// One group a mini-batch of n drawn ids (rows, n): distinct (rows, n) and copies (rows, n) get each
// id once, in ascending order, and how often it was drawn; n_distinct (rows,) how many they are.
// Bound by the 2 n^2 comparisons of a row, once for all of the row's uses.
KERNEL void merge(ga_size n, ARRAY(ga_int, ids), ARRAY(ga_int, distinct), ARRAY(ga_float, copies),
                  ARRAY(ga_long, n_distinct), ARRAY(ga_int, is_first)) {
    OPEN(ga_int, ids);
    OPEN(ga_int, distinct);
    OPEN(ga_float, copies);
    OPEN(ga_long, n_distinct);
    OPEN(ga_int, is_first);
    GLOBAL_MEM ga_int *own = ids + GID_0 * n, *firsts = is_first + GID_0 * n;
    LOCAL_MEM ga_int tile[THREADS];
    LOCAL_MEM ga_int counts[THREADS];
    ga_int n_own = 0;
    for (ga_size start = 0; start < n; start += THREADS) {
        const ga_size e = start + LID_0;
        const ga_int id = e < n ? own[e] : -1;
        ga_int earlier = 0;
        for (ga_size from = 0; from < start + THREADS && from < n; from += THREADS) {
            local_barrier();
            tile[LID_0] = from + LID_0 < n ? own[from + LID_0] : -1;
            local_barrier();
            for (ga_int k = 0; k < THREADS; k++) earlier |= from + k < e && tile[k] == id;
        }
        if (e < n) firsts[e] = !earlier;
        n_own += e < n && !earlier;
    }
    for (ga_size start = 0; start < n; start += THREADS) {
        const ga_size e = start + LID_0;
        const ga_int id = e < n ? own[e] : -1, counted = e < n && firsts[e];
        ga_int place = 0, same = 0;
        for (ga_size from = 0; from < n; from += THREADS) {
            // a thread reads what it wrote itself: the same elements, in both loops
            local_barrier();
            tile[LID_0] = from + LID_0 < n ? own[from + LID_0] : -1;
            counts[LID_0] = from + LID_0 < n ? firsts[from + LID_0] : 0;
            local_barrier();
            for (ga_int k = 0; k < THREADS; k++) {
                place += tile[k] < id && counts[k];
                same += tile[k] == id;
            }
        }
        if (counted) {
            distinct[GID_0 * n + place] = id;
            copies[GID_0 * n + place] = same;
        }
    }
    local_barrier();
    counts[LID_0] = n_own;
    for (ga_int half_of = THREADS / 2; half_of > 0; half_of /= 2) {
        local_barrier();
        if (LID_0 < half_of) counts[LID_0] += counts[LID_0 + half_of];
    }
    if (LID_0 == 0) n_distinct[GID_0] = counts[0];
}
