// The loops of gates.h. A translation unit per instruction set includes this and names its table; all is in an anonymous namespace,
// and nothing of the library is used, so that no function compiled for one instruction set can be linked into code for another.
#pragma once

#include "kernels/gates.h"

namespace rindle {
namespace {

#if defined(_MSC_VER)
#define RINDLE_RESTRICT __restrict
#else
#define RINDLE_RESTRICT __restrict__
#endif

using std::size_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using u32 = std::uint32_t;

constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
constexpr u32 kRoundBits = 0x4B400000;

inline u32 bits(float v) { return __builtin_bit_cast(u32, v); }
inline float real(u32 v) { return __builtin_bit_cast(float, v); }

// e^x for |x| <= 87, within 2 units of the last place: 2^n * e^r, |r| <= ln(2) / 2, the polynomial of Cephes (Moshier 1989).
inline float power(float x) {
    const float shifted = x * 1.44269504f + kRound, n = shifted - kRound;
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    return p * real((bits(shifted) << 23) + (127u << 23));
}

inline float clamp(float x, float limit) {  // NaN stays
    x = x < -limit ? -limit : x;
    return x > limit ? limit : x;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + power(clamp(-x, 87.0f))); }

// 1 - 2 / (e^2|x| + 1), and near zero, where that cancels, an odd polynomial (Cephes).
inline float hyperbolic(float x) {
    const float a = real(bits(x) & 0x7FFFFFFF), z = x * x;
    const float far = 1.0f - 2.0f / (power(clamp(2.0f * a, 87.0f)) + 1.0f);
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const float near = p * z * x + x, far_signed = real(bits(far) | (bits(x) & 0x80000000));
    return a < 0.625f ? near : far_signed;
}

inline float value(i32 acc, float step, float own) { return static_cast<float>(acc) * (step * own); }

float largest(const float* x, size_t size) noexcept {
    i32 most = 0;  // the bits of floats without a sign are in their order, infinity and then NaN behind all others
    for (size_t i = 0; i < size; ++i) {
        const i32 v = static_cast<i32>(bits(x[i]) & 0x7FFFFFFF);
        most = v > most ? v : most;
    }
    return real(static_cast<u32>(most));
}

void encode(const float* RINDLE_RESTRICT x, float r, i16* RINDLE_RESTRICT codes, size_t size) noexcept {
    for (size_t i = 0; i < size; ++i)
        codes[i] = static_cast<i16>(static_cast<i32>(bits(x[i] * r + kRound) - kRoundBits));
}

void scale(const i32* RINDLE_RESTRICT acc, float step, const float* RINDLE_RESTRICT steps, const float* RINDLE_RESTRICT bias,
           float* RINDLE_RESTRICT y, size_t size) noexcept {
    for (size_t i = 0; i < size; ++i) y[i] = value(acc[i], step, steps[i]) + bias[i];
}

void lstm(const float* RINDLE_RESTRICT x, const i32* RINDLE_RESTRICT acc, float step, const float* RINDLE_RESTRICT steps,
          float* RINDLE_RESTRICT c, float* RINDLE_RESTRICT h, size_t n) noexcept {
    for (size_t j = 0; j < n; ++j) {
        const float i = sigmoid(x[j] + value(acc[j], step, steps[j]));
        const float f = sigmoid(x[n + j] + value(acc[n + j], step, steps[n + j]));
        const float g = hyperbolic(x[2 * n + j] + value(acc[2 * n + j], step, steps[2 * n + j]));
        const float o = sigmoid(x[3 * n + j] + value(acc[3 * n + j], step, steps[3 * n + j]));
        c[j] = f * c[j] + i * g;
        h[j] = o * hyperbolic(c[j]);
    }
}

void gru(const float* RINDLE_RESTRICT x, const i32* RINDLE_RESTRICT acc, float step, const float* RINDLE_RESTRICT steps,
         const float* RINDLE_RESTRICT bias_n, float* RINDLE_RESTRICT h, size_t n) noexcept {
    for (size_t j = 0; j < n; ++j) {
        const float r = sigmoid(x[j] + value(acc[j], step, steps[j]));
        const float z = sigmoid(x[n + j] + value(acc[n + j], step, steps[n + j]));
        const float hidden = value(acc[2 * n + j], step, steps[2 * n + j]) + bias_n[j];
        const float candidate = hyperbolic(x[2 * n + j] + r * hidden);
        h[j] = (h[j] - candidate) * z + candidate;
    }
}

void rnn_tanh(const float* RINDLE_RESTRICT x, const i32* RINDLE_RESTRICT acc, float step, const float* RINDLE_RESTRICT steps,
              float* RINDLE_RESTRICT h, size_t n) noexcept {
    for (size_t j = 0; j < n; ++j) h[j] = hyperbolic(x[j] + value(acc[j], step, steps[j]));
}

void rnn_relu(const float* RINDLE_RESTRICT x, const i32* RINDLE_RESTRICT acc, float step, const float* RINDLE_RESTRICT steps,
              float* RINDLE_RESTRICT h, size_t n) noexcept {
    for (size_t j = 0; j < n; ++j) {
        const float v = x[j] + value(acc[j], step, steps[j]);
        h[j] = v < 0.0f ? 0.0f : v;  // NaN stays
    }
}

constexpr Gates gates() {
    return {
        .largest = largest,
        .encode = encode,
        .scale = scale,
        .lstm = lstm,
        .gru = gru,
        .rnn_tanh = rnn_tanh,
        .rnn_relu = rnn_relu,
    };
}

}  // namespace
}  // namespace rindle
