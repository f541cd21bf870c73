// (5) and (6) over vectors: the only functions of the x86 kernels that round, one per type of number. A third form stands in
// vector_avx512.h: round_high16, the instruction that is (6) for products in 16-bit lanes.
#pragma once

#include "kernels/x86_layout.h"

namespace rindle {
namespace {

// ---- (6)

// In 32-bit lanes; `half` is R.
inline V::I round_int32(V::I v, V::I half, int shift) { return V::right32(V::add32(v, half), shift); }

// In double, of what has been made v / 2^s + 1/2, exactly: |v| and R stay below 2^52. It has to lie within int32.
inline V::I round_double(V::D low, V::D high) { return V::floors(low, high); }

// ---- (6), then (5); they store n results, and return how many values lay outside

inline int round_and_store_int32(V::I v, V::I half, int shift, V::I lo, V::I hi, i16* out, size_t n) {
    const V::I rounded = round_int32(v, half, shift);
    const V::I y = V::min32(V::max32(rounded, lo), hi);
    V::narrow(out, y, n);
    return V::differing(rounded, y, n);
}

// What lies in [lo, hi + 1) has its floor in lo..hi: so for doubles the limits come first, the upper one as the last double
// before hi + 1.
struct Bounds {
    V::D lo, hi;

    explicit Bounds(Limits limits) : lo(V::set(limits.lo)), hi(V::set(before(limits.hi + 1.0))) {}
    static double before(double positive) {
        i64 bits;
        __builtin_memcpy(&bits, &positive, sizeof bits);
        --bits;
        __builtin_memcpy(&positive, &bits, sizeof bits);
        return positive;
    }
};

inline int round_and_store_double(V::D low, V::D high, const Bounds& bounds, i16* out, size_t n) {
    const V::D x = V::min(V::max(low, bounds.lo), bounds.hi), y = V::min(V::max(high, bounds.lo), bounds.hi);
    V::narrow(out, round_double(x, y), n);
    return V::differing(low, x, least(n, H)) + (n > H ? V::differing(high, y, n - H) : 0);
}

}  // namespace
}  // namespace rindle
