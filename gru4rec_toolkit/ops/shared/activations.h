// Elementwise activations and their slopes.
#pragma once
#include "kernels.h"
#include "vecmath.h"

// With the kind known to the compiler, the switches vanish from the loops.
template <int KIND>
struct Activation {
    float a, b;

    float value(float x) const {
        switch (KIND) {
            case GK_RELU: return x <= 0 ? 0.f : x;  // NaN stays NaN
            case GK_TANH: return tanh_(x);
            case GK_LEAKY: return x >= 0 ? x : a * x;
            case GK_SELU: return x >= 0 ? a * x : a * b * (exp_(x) - 1.f);
            default: return x;
        }
    }

    // derivative, given the value
    float slope(float y) const {
        switch (KIND) {
            case GK_RELU: return y > 0 ? 1.f : 0.f;
            case GK_TANH: return 1.f - y * y;
            case GK_LEAKY: return y >= 0 ? 1.f : a;
            case GK_SELU: return y >= 0 ? a : y + a * b;
            default: return 1.f;
        }
    }
};

// Calls work(activation) with the type that fits; in a part of the library there is but one.
#ifdef ACTIVATION
template <class Work>
auto with_activation(gk_act act, const Work& work) {
    return work(Activation<ACTIVATION>{act.a, act.b});
}
#else
template <class Work>
auto with_activation(gk_act act, const Work& work) {
    switch (act.kind) {
        case GK_RELU: return work(Activation<GK_RELU>{act.a, act.b});
        case GK_TANH: return work(Activation<GK_TANH>{act.a, act.b});
        case GK_LEAKY: return work(Activation<GK_LEAKY>{act.a, act.b});
        case GK_SELU: return work(Activation<GK_SELU>{act.a, act.b});
        default: return work(Activation<GK_LINEAR>{act.a, act.b});
    }
}
#endif
