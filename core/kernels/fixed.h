// The arithmetic of docs/numerics.md: the only place in the portable runtime that rounds and saturates. (x86_round.h is the
// same over vectors.) Equations are cited by their numbers there.
#pragma once

#include <cstdint>

namespace rindle {

// (5)
template <class Int>
constexpr Int sat(Int v, Int lo, Int hi) noexcept {
    return v < lo ? lo : v > hi ? hi : v;
}

// R of (6)
template <class Int>
constexpr Int rounding(int s) noexcept {
    return s >= 1 ? Int{1} << (s - 1) : Int{0};
}

// (6) for s >= 0: round half up. C++20 defines >> of a negative number as arithmetic. A negative s is an exact
// left shift, which callers have already given to the terms of v.
template <class Int>
constexpr Int round(Int v, int s) noexcept {
    return (v + rounding<Int>(s)) >> s;
}

// (6) once more, for one row of (7): `products` is the sum of M·acc, and `bias` is b + R, added up at load.
constexpr std::int64_t finish_row(std::int64_t products, std::int64_t bias, int s) noexcept {
    return (products + bias) >> s;
}

// (4) before sat: floor((double)x * (double)r + 0.5), held one step outside [lo, hi], so that the cast is always
// defined and a caller still sees that the value lay outside.
constexpr std::int32_t round_input(float x, float r, std::int32_t lo, std::int32_t hi) noexcept {
    const double v = sat(static_cast<double>(x) * static_cast<double>(r) + 0.5, lo - 1.0, hi + 1.0);
    const auto truncated = static_cast<std::int32_t>(v);
    return truncated - (v < truncated);  // floor without libm
}

constexpr float decode(std::int16_t code, double scale) noexcept { return static_cast<float>(code * scale); }

// (21): floor((2S + T) / (2T)), T >= 1
constexpr std::int64_t mean(std::int64_t sum, std::int64_t frames) noexcept {
    const std::int64_t n = 2 * sum + frames, d = 2 * frames;
    return n / d - (n % d < 0);
}

}  // namespace rindle
