// Looking rows up, and what goes with it. One thread an element, n width of them. Bound by memory:
// reads 4 (n width + n) bytes, writes as many.

// out (n, width) = table (n_rows, width)[index]. There is no error flag to read back, which would
// make every step wait: an index out of range gives NaN, and NaN is noticed in the loss.
KERNEL void gather(ARRAY(ga_float, table), ga_size n_rows, ga_size width, ARRAY(ga_int, index),
                   ga_size n, ARRAY(ga_float, out)) {
    OPEN(ga_float, table);
    OPEN(ga_int, index);
    OPEN(ga_float, out);
    for (ga_size at = THREAD; at < n * width; at += N_THREADS) {
        const ga_size e = at / width, c = at - e * width;
        const ga_int row = index[e];
        out[at] = row >= 0 && (ga_size)row < n_rows ? table[row * width + c] : NAN;
    }
}

// items (m + k,) = targets (m,), negatives (k,); weights: 1 and copies (k,), if
// these are given, else 1.
KERNEL void outputs(ga_size m, ARRAY(ga_int, targets), ga_size k, ARRAY(ga_int, negatives),
                    ga_int merged, ARRAY(ga_float, copies), ARRAY(ga_int, items), ARRAY(ga_float, weights)) {
    OPEN(ga_int, targets);
    OPEN(ga_int, negatives);
    OPEN(ga_float, copies);
    OPEN(ga_int, items);
    OPEN(ga_float, weights);
    for (ga_size at = THREAD; at < m + k; at += N_THREADS) {
        items[at] = at < m ? targets[at] : negatives[at - m];
        weights[at] = merged && at >= m ? copies[at - m] : 1.f;
    }
}

// offsets (n,) = biases (n,) - of_targets or of_samples times log_support[items], for the first m
// items or the others.
KERNEL void log_q(ga_size n, ga_size m, ARRAY(ga_float, biases), ARRAY(ga_float, log_support),
                  ARRAY(ga_int, items), ga_float of_targets, ga_float of_samples,
                  ARRAY(ga_float, offsets)) {
    OPEN(ga_float, biases);
    OPEN(ga_float, log_support);
    OPEN(ga_int, items);
    OPEN(ga_float, offsets);
    for (ga_size at = THREAD; at < n; at += N_THREADS)
        offsets[at] = biases[at] - (at < m ? of_targets : of_samples) * log_support[items[at]];
}
