// What all kernels share. CLUDA: the same text is CUDA C++ and OpenCL C, by the macros of the header
// cluda.h that libgpuarray brings. An array argument is a buffer and the bytes to skip in it.

#define ARRAY(type, name) GLOBAL_MEM type *name##_buffer, ga_size name##_offset
#define OPEN(type, name) \
    GLOBAL_MEM type *name = \
        (GLOBAL_MEM type *)((GLOBAL_MEM char *)name##_buffer + name##_offset)

// the first and the number of this thread's elements, in a grid of groups along one axis
#define THREAD (GID_0 * (ga_size)LDIM_0 + LID_0)
#define N_THREADS (GDIM_0 * (ga_size)LDIM_0)

#define EPSILON 1e-24f

WITHIN_KERNEL ga_float sigmoid_(ga_float x) { return 1.f / (1.f + exp(-x)); }

// Elementwise activations and their slopes; ACT is the kind in the order of base.ACTIVATIONS,
// ACT_A and ACT_B its constants.
#ifdef ACT
WITHIN_KERNEL ga_float act_value(ga_float x) {
#if ACT == 1
    return x <= 0.f ? 0.f : x;  // NaN stays NaN
#elif ACT == 2
    return tanh(x);
#elif ACT == 3
    return x >= 0.f ? x : ACT_A * x;
#elif ACT == 4
    return x >= 0.f ? ACT_A * x : ACT_A * ACT_B * (exp(x) - 1.f);
#else
    return x;
#endif
}

// The same for scores that are compared. It is not inlined where it rounds: of two copies the compiler
// could make computations that differ in the last bit, and equal scores have to stay equal.
#if ACT == 2 || ACT == 4
WITHIN_KERNEL __attribute__((noinline)) ga_float value_of(ga_float score) {
#else
WITHIN_KERNEL ga_float value_of(ga_float score) {
#endif
    return act_value(score);
}

// the derivative, given the value
WITHIN_KERNEL ga_float act_slope(ga_float y) {
#if ACT == 1
    return y > 0.f ? 1.f : 0.f;
#elif ACT == 2
    return 1.f - y * y;
#elif ACT == 3
    return y >= 0.f ? 1.f : ACT_A;
#elif ACT == 4
    return y >= 0.f ? ACT_A : y + ACT_A * ACT_B;
#else
    return 1.f;
#endif
}
#endif

// The mask of dropout (the Op Dropout): element `at` is multiplied by this. A mask that keeps all is
// one of ones.
#define MASK \
    ga_uint low, ga_uint high, ga_uint keep_below, ga_float scale

WITHIN_KERNEL ga_uint scramble(ga_uint x) {
    x = (x ^ (x >> 16)) * 0x45d9f3bu;
    x = (x ^ (x >> 16)) * 0x45d9f3bu;
    return x ^ (x >> 16);
}

WITHIN_KERNEL ga_float mask_at(ga_uint at, MASK) {
    const ga_uint bits = scramble(scramble(at ^ low) + high);
    return (bits >> 8) < keep_below ? scale : 0.f;
}
#define DROP(at) mask_at((ga_uint)(at), low, high, keep_below, scale)

// Sum and maximum over a group's threads, whose number is a power of two; all of them get the
// result. The order of the additions is fixed. scratch: one float a thread.
#ifdef GROUP_REDUCTIONS
WITHIN_KERNEL ga_float group_sum(LOCAL_MEM_ARG ga_float *scratch, ga_float x) {
    local_barrier();
    scratch[LID_0] = x;
    for (ga_int half_of = LDIM_0 / 2; half_of > 0; half_of /= 2) {
        local_barrier();
        if (LID_0 < half_of) scratch[LID_0] += scratch[LID_0 + half_of];
    }
    local_barrier();
    return scratch[0];
}

WITHIN_KERNEL ga_float group_max(LOCAL_MEM_ARG ga_float *scratch, ga_float x) {
    local_barrier();
    scratch[LID_0] = x;
    for (ga_int half_of = LDIM_0 / 2; half_of > 0; half_of /= 2) {
        local_barrier();
        if (LID_0 < half_of && scratch[LID_0 + half_of] > scratch[LID_0])
            scratch[LID_0] = scratch[LID_0 + half_of];
    }
    local_barrier();
    return scratch[0];
}
#endif
