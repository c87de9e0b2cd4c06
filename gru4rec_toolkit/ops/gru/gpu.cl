// The elementwise parts of a GRU layer's step and of its gradient, and dropout (equations:
// GRU4Rec._gru). Bound by memory, which for these sizes means by the time that a launch takes.

// rz (m, 2n): h w_rz in, the gates out; reset_h (m, n) = h * reset. One thread for both gates.
KERNEL void gates(ga_size m, ga_size n, ARRAY(ga_float, x), ARRAY(ga_float, bias),
                  ARRAY(ga_float, h), ARRAY(ga_float, rz), ARRAY(ga_float, reset_h)) {
    OPEN(ga_float, x);
    OPEN(ga_float, bias);
    OPEN(ga_float, h);
    OPEN(ga_float, rz);
    OPEN(ga_float, reset_h);
    for (ga_size at = THREAD; at < m * n; at += N_THREADS) {
        const ga_size i = at / n, c = at - i * n;
        const ga_size reset = 2 * i * n + c, in_x = (3 * i + 1) * n + c;
        const ga_float r = sigmoid_(rz[reset] + x[in_x] + bias[n + c]);
        rz[reset] = r;
        rz[reset + n] = sigmoid_(rz[reset + n] + x[in_x + n] + bias[2 * n + c]);
        reset_h[at] = h[at] * r;
    }
}

// candidate (m, n): reset_h w_h in, the candidate out; out (m, n): the new state, with the mask of
// dropout; kept (m, n), if resets: the same where goes_on (m,) is 1, 0 where it is 0.
KERNEL void new_state(ga_size m, ga_size n, ARRAY(ga_float, x), ARRAY(ga_float, bias),
                      ARRAY(ga_float, h), ARRAY(ga_float, rz), MASK, ga_int resets,
                      ARRAY(ga_float, goes_on), ARRAY(ga_float, candidate), ARRAY(ga_float, out),
                      ARRAY(ga_float, kept)) {
    OPEN(ga_float, x);
    OPEN(ga_float, bias);
    OPEN(ga_float, h);
    OPEN(ga_float, rz);
    OPEN(ga_float, goes_on);
    OPEN(ga_float, candidate);
    OPEN(ga_float, out);
    OPEN(ga_float, kept);
    for (ga_size at = THREAD; at < m * n; at += N_THREADS) {
        const ga_size i = at / n, c = at - i * n;
        const ga_float z = rz[(2 * i + 1) * n + c];
        const ga_float y = act_value(candidate[at] + x[3 * i * n + c] + bias[c]);
        const ga_float state = ((1.f - z) * h[at] + z * y) * DROP(at);
        candidate[at] = y;
        out[at] = state;
        if (resets) kept[at] = state * goes_on[i];
    }
}

// d_candidate (m, n), the gradient before the candidate's activation, from that of the new state after
// its dropout.
KERNEL void candidate_gradient(ga_size m, ga_size n, ARRAY(ga_float, d_new), MASK,
                               ARRAY(ga_float, rz), ARRAY(ga_float, candidate),
                               ARRAY(ga_float, d_candidate)) {
    OPEN(ga_float, d_new);
    OPEN(ga_float, rz);
    OPEN(ga_float, candidate);
    OPEN(ga_float, d_candidate);
    for (ga_size at = THREAD; at < m * n; at += N_THREADS) {
        const ga_size i = at / n, c = at - i * n;
        d_candidate[at] =
            d_new[at] * DROP(at) * rz[(2 * i + 1) * n + c] * act_slope(candidate[at]);
    }
}

// d_x (m, 3n) and its sum over the rows, d_bias (3n,). d_reset_h (m, n) = d_candidate w_h^T. A group
// of COLUMNS x PARTS threads has so many columns and adds up every PARTS-th row in a thread.
KERNEL void gates_gradient(ga_size m, ga_size n, ARRAY(ga_float, d_new), MASK,
                           ARRAY(ga_float, h), ARRAY(ga_float, rz), ARRAY(ga_float, candidate),
                           ARRAY(ga_float, d_candidate), ARRAY(ga_float, d_reset_h),
                           ARRAY(ga_float, d_x), ARRAY(ga_float, d_bias)) {
    OPEN(ga_float, d_new);
    OPEN(ga_float, h);
    OPEN(ga_float, rz);
    OPEN(ga_float, candidate);
    OPEN(ga_float, d_candidate);
    OPEN(ga_float, d_reset_h);
    OPEN(ga_float, d_x);
    OPEN(ga_float, d_bias);
    LOCAL_MEM ga_float sums[COLUMNS * PARTS];
    const ga_size column = GID_0 * COLUMNS + LID_0 % COLUMNS, part = LID_0 / COLUMNS;
    ga_float sum = 0.f;
    if (column < 3 * n) {
        for (ga_size i = part; i < m; i += PARTS) {
            const ga_size c = column % n, at = i * n + c;
            ga_float d;
            if (column < n) {
                d = d_candidate[at];
            } else if (column < 2 * n) {
                const ga_float r = rz[2 * i * n + c];
                d = d_reset_h[at] * h[at] * r * (1.f - r);
            } else {
                const ga_float z = rz[(2 * i + 1) * n + c];
                d = d_new[at] * DROP(at) * (candidate[at] - h[at]) * z * (1.f - z);
            }
            d_x[3 * i * n + column] = d;
            sum += d;
        }
    }
    sums[LID_0] = sum;
    local_barrier();
    if (part == 0 && column < 3 * n) {
        for (ga_int p = 1; p < PARTS; p++) sum += sums[p * COLUMNS + LID_0];
        d_bias[column] = sum;
    }
}

// out = x with the mask of dropout.
KERNEL void dropout(ga_size n, ARRAY(ga_float, x), MASK, ARRAY(ga_float, out)) {
    OPEN(ga_float, x);
    OPEN(ga_float, out);
    for (ga_size at = THREAD; at < n; at += N_THREADS) out[at] = x[at] * DROP(at);
}
