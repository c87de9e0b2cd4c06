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

// What a step looks up, in one launch: rows_in (m, width_in) = table_in[inputs] with the mask of
// dropout; items (m + k,) = targets (m,), negatives (k,), weights, 1 and copies (k,) as in `outputs`;
// rows (m + k, width) = table[items]; offsets (m + k,) = biases[items], as in `log_q` if corrected.
// One thread an element of both kinds of rows.
KERNEL void look_up(ga_size m, ga_size n_rows_in, ga_size width_in, ARRAY(ga_float, table_in),
                    ARRAY(ga_int, inputs), MASK, ga_size k, ga_size n_items, ga_size width,
                    ARRAY(ga_float, table), ARRAY(ga_float, biases), ARRAY(ga_int, targets),
                    ARRAY(ga_int, negatives), ga_int merged, ARRAY(ga_float, copies),
                    ga_int corrected, ARRAY(ga_float, log_support), ga_size n_targets,
                    ga_float of_targets, ga_float of_samples, ARRAY(ga_float, rows_in),
                    ARRAY(ga_float, rows), ARRAY(ga_float, offsets), ARRAY(ga_int, items),
                    ARRAY(ga_float, weights)) {
    OPEN(ga_float, table_in);
    OPEN(ga_int, inputs);
    OPEN(ga_float, table);
    OPEN(ga_float, biases);
    OPEN(ga_int, targets);
    OPEN(ga_int, negatives);
    OPEN(ga_float, copies);
    OPEN(ga_float, log_support);
    OPEN(ga_float, rows_in);
    OPEN(ga_float, rows);
    OPEN(ga_float, offsets);
    OPEN(ga_int, items);
    OPEN(ga_float, weights);
    for (ga_size t = THREAD; t < m * width_in + (m + k) * width; t += N_THREADS) {
        if (t < m * width_in) {
            const ga_size e = t / width_in, c = t - e * width_in;
            const ga_int row = inputs[e];
            const ga_int inside = row >= 0 && (ga_size)row < n_rows_in;
            rows_in[t] = inside ? table_in[row * width_in + c] * DROP(t) : NAN;
            continue;
        }
        const ga_size at = t - m * width_in, e = at / width, c = at - e * width;
        const ga_int item = e < m ? targets[e] : negatives[e - m];
        const ga_int inside = item >= 0 && (ga_size)item < n_items;
        rows[at] = inside ? table[item * width + c] : NAN;
        if (c > 0) continue;
        items[e] = item;
        weights[e] = merged && e >= m ? copies[e - m] : 1.f;
        ga_float offset = inside ? biases[item] : NAN;
        if (corrected && inside)
            offset -= (e < n_targets ? of_targets : of_samples) * log_support[item];
        offsets[e] = offset;
    }
}
