#include "activations.h"

namespace {

template <class Act>
void activate(long n, float* x, Act act) {
    for (long first = 0; first < n; first += GK_LANES)
        for (long lane = first; lane < first + GK_LANES; lane++) x[lane] = act.value(x[lane]);
}

}  // namespace

extern "C" void gk_activate(long n, float* x, gk_act act) {
    with_activation(act, [=](auto f) { activate(n, x, f); });
}
