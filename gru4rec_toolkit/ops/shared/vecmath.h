// Elementary functions that the compiler can vectorise. NaN goes in and comes out as NaN.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

// e^x by Cephes' polynomial after reduction to |f| <= ln(2) / 2: relative error below 2e-7. Outside
// [-87, 88] it stays at the value of the nearer end instead of denormals, zero and infinity.
static inline float exp_(float x) {
    x = x > 88.f ? 88.f : x;
    x = x < -87.f ? -87.f : x;
    const float n = std::rint(x * 1.44269504f);
    const float f = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * f + 1.3981999507e-3f;
    y = y * f + 8.3334519073e-3f;
    y = y * f + 4.1665795894e-2f;
    y = y * f + 1.6666665459e-1f;
    y = y * f + 5.0000001201e-1f;
    y = y * f * f + f + 1.f;
    const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return y * power;
}

static inline float sigmoid_(float x) { return 1.f / (1.f + exp_(-x)); }

// Cephes' polynomial near 0, where the formula loses digits: relative error below 2e-7.
static inline float tanh_(float x) {
    const float z = x * x;
    float y = -5.70498872745e-3f;
    y = y * z + 2.06390887954e-2f;
    y = y * z - 5.37397155531e-2f;
    y = y * z + 1.33314422036e-1f;
    y = y * z - 3.33332819422e-1f;
    y = y * z * x + x;
    const float far = 1.f - 2.f / (1.f + exp_(2.f * x));
    return z < 0.390625f ? y : far;  // a NaN is far
}

// log x of positive normal numbers by Cephes' polynomial: absolute error below 1e-7 near 1,
// relative error below 2e-7 elsewhere.
static inline float log_(float x) {
    int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    // x = 2^exponent * f with sqrt(1/2) <= f < sqrt(2)
    const int32_t exponent = (bits - 0x3f3504f3) >> 23;
    bits -= exponent << 23;
    float f;
    std::memcpy(&f, &bits, sizeof f);
    f -= 1.f;
    const float z = f * f, e = static_cast<float>(exponent);
    float y = 7.0376836292e-2f;
    y = y * f - 1.1514610310e-1f;
    y = y * f + 1.1676998740e-1f;
    y = y * f - 1.2420140846e-1f;
    y = y * f + 1.4249322787e-1f;
    y = y * f - 1.6668057665e-1f;
    y = y * f + 2.0000714765e-1f;
    y = y * f - 2.4999993993e-1f;
    y = y * f + 3.3333331174e-1f;
    y = y * f * z - 0.5f * z + f;
    y = y - e * 2.12194440e-4f + e * 0.693359375f;
    return x != x ? x : y;  // the bits of a NaN have no meaning
}
