// What works element by element: input, finish, requantize, sums, clip, tables.
#pragma once

#include "kernels/x86_round.h"

namespace rindle {
namespace {

constexpr double power(int exponent) {  // 2^exponent, -1022..1023
    double result = 1;
    for (; exponent > 0; --exponent) result *= 2;
    for (; exponent < 0; ++exponent) result /= 2;
    return result;
}

size_t encode(const float* x, float r, Limits limits, i16* codes, size_t size) noexcept {
    const V::D factor = V::set(static_cast<double>(r)), half = V::set(0.5);
    const Bounds bounds(limits);
    int outside = 0;
    for_blocks<L>(size, [&](size_t i, auto n) {
        const V::D low = V::load_float(x + i, least(n, H));
        const V::D high = n > H ? V::load_float(x + i + H, n - H) : V::set(0);
        outside += round_and_store_double(V::add(V::multiply(low, factor), half), V::add(V::multiply(high, factor), half),
                                          bounds, codes + i, n);
    });
    return static_cast<size_t>(outside);
}

// Eight (or four) rows' accumulators as doubles: exact, for a product with M stays below 2^52.
inline V::D accumulators(const Product& product, size_t row, size_t n) {
    if (product.wide) return V::load_wide(static_cast<const i64*>(product.accumulators) + row, n);
    return V::lower(V::load32(static_cast<const i32*>(product.accumulators) + row, n));
}

// Of `narrow` products, which have 32-bit accumulators, Count is known.
template <int Count>
inline int finish_narrow(const Finish& op) {
    const Bounds bounds(op.limits);
    int outside = 0;
    for_blocks<L>(op.size, [&](size_t r, auto n) {
        const size_t low_n = least(n, H), high_n = n - low_n;
        V::D low = V::load_double(op.offset + r, low_n), high = V::load_double(op.offset + r + low_n, high_n);
#pragma GCC unroll 2
        for (int p = 0; p < Count; ++p) {
            const V::I acc = V::load32(static_cast<const i32*>(op.products[p].accumulators) + r, n);
            const double* ratio = op.products[p].ratio + r;
            low = V::multiply_add(V::lower(acc), V::load_double(ratio, low_n), low);
            high = V::multiply_add(V::upper(acc), V::load_double(ratio + low_n, high_n), high);
        }
        outside += round_and_store_double(low, high, bounds, op.out + r, n);
    });
    return outside;
}

size_t finish(const Finish& op) noexcept {
    int outside = 0;
    if (op.count == 1 && !op.products[0].wide) return static_cast<size_t>(finish_narrow<1>(op));
    if (op.count == 2 && !op.products[0].wide && !op.products[1].wide) return static_cast<size_t>(finish_narrow<2>(op));
    const Bounds bounds(op.limits);
    for_blocks<L>(op.size, [&](size_t r, auto n) {
        const size_t low_n = least(n, H), high_n = n - low_n;
        V::D low = V::load_double(op.offset + r, low_n), high = V::load_double(op.offset + r + low_n, high_n);
        for (int p = 0; p < op.count; ++p) {
            const double* ratio = op.products[p].ratio + r;
            low = V::multiply_add(accumulators(op.products[p], r, low_n), V::load_double(ratio, low_n), low);
            if (high_n)
                high = V::multiply_add(accumulators(op.products[p], r + low_n, high_n), V::load_double(ratio + low_n, high_n), high);
        }
        outside += round_and_store_double(low, high, bounds, op.out + r, n);
    });
    return static_cast<size_t>(outside);
}

size_t requantize(const Requantize& op) noexcept {
    int outside = 0;
    if (op.wide) {
        const V::D factor = V::set(op.multiplier * power(-op.shift)), half = V::set(op.shift ? 0.5 : 0);
        const Bounds bounds(op.limits);
        for_blocks<L>(op.size, [&](size_t i, auto n) {
            const V::I x = V::widen(op.in + i, n);
            outside += round_and_store_double(V::multiply_add(V::lower(x), factor, half), V::multiply_add(V::upper(x), factor, half),
                                              bounds, op.out + i, n);
        });
    } else {
        const V::I factor = V::set32(op.multiplier), half = V::set32(op.shift ? 1 << (op.shift - 1) : 0);
        const V::I lo = V::set32(op.limits.lo), hi = V::set32(op.limits.hi);
        for_blocks<L>(op.size, [&](size_t i, auto n) {
            const V::I v = V::multiply_pairs(V::widen_unsigned(op.in + i, n), factor);
            outside += round_and_store_int32(v, half, op.shift, lo, hi, op.out + i, n);
        });
    }
    return static_cast<size_t>(outside);
}

// Two terms of an element-wise sum, each below 2^31; `whole` is a third, of lerp.
struct Terms {
    V::I first, second, whole;
};

enum class Operation { add, sub, mul, sum_of_products, lerp };

template <Operation operation>
inline Terms terms(const Sum& op, size_t i, size_t n) {
    const auto product = [&](int a, int b) {
        return V::multiply_pairs(V::widen_unsigned(op.in[a] + i, n), V::widen(op.in[b] + i, n));
    };
    const V::I none = V::zero();
    switch (operation) {
        case Operation::add: return {V::widen(op.in[0] + i, n), V::widen(op.in[1] + i, n), none};
        case Operation::sub: return {V::widen(op.in[0] + i, n), V::sub32(none, V::widen(op.in[1] + i, n)), none};
        case Operation::mul: return {product(0, 1), none, none};
        case Operation::sum_of_products: return {product(0, 1), product(2, 3), none};
        case Operation::lerp: break;
    }
    return {product(0, 1), V::sub32(none, product(0, 2)), V::widen(op.in[2] + i, n)};  // z a + (one - z) b
}

template <Operation operation>
size_t sum(const Sum& op) noexcept {
    constexpr bool kTwo = operation != Operation::mul, kLerp = operation == Operation::lerp;
    int outside = 0;
    if (op.wide) {
        const V::D half = V::set(op.shift ? 0.5 : 0);
        const Bounds bounds(op.limits);
        const V::D first = V::set(power(op.left[0] - op.shift)), second = V::set(power(op.left[1] - op.shift));
        const V::D whole = V::set(power(op.one_bits + op.left[1] - op.shift));
        for_blocks<L>(op.size, [&](size_t i, auto n) {
            const Terms t = terms<operation>(op, i, n);
            V::D low = V::multiply_add(V::lower(t.first), first, half), high = V::multiply_add(V::upper(t.first), first, half);
            if constexpr (kTwo) {
                low = V::multiply_add(V::lower(t.second), second, low);
                high = V::multiply_add(V::upper(t.second), second, high);
            }
            if constexpr (kLerp) {
                low = V::multiply_add(V::lower(t.whole), whole, low);
                high = V::multiply_add(V::upper(t.whole), whole, high);
            }
            outside += round_and_store_double(low, high, bounds, op.out + i, n);
        });
    } else {
        const V::I lo = V::set32(op.limits.lo), hi = V::set32(op.limits.hi), half = V::set32(op.shift ? 1 << (op.shift - 1) : 0);
        for_blocks<L>(op.size, [&](size_t i, auto n) {
            Terms t = terms<operation>(op, i, n);
            if constexpr (kLerp) t.second = V::add32(t.second, V::left32(t.whole, op.one_bits));
            V::I v = V::left32(t.first, op.left[0]);
            if constexpr (kTwo) v = V::add32(v, V::left32(t.second, op.left[1]));
            outside += round_and_store_int32(v, half, op.shift, lo, hi, op.out + i, n);
        });
    }
    return static_cast<size_t>(outside);
}

void clip(const i16* in, Limits limits, i16* out, size_t size) noexcept {
    const V::I lo = V::set16(limits.lo), hi = V::set16(limits.hi);
    for_blocks<W>(size, [&](size_t i, auto n) {
        V::store16(out + i, V::min16(V::max16(V::load16(in + i, n), lo), hi), n);
    });
}

// (17)-(19), any table
template <int degree, int symmetry>
void lookup_any(const Lookup& table, const i16* in, i16* out, size_t size) {
    const V::I zero = V::zero(), x0 = V::set32(table.x0), last = V::set32(table.last), part = V::set32((1 << table.p) - 1);
    const V::I half = V::set32(table.q ? 1 << (table.q - 1) : 0), mirror = V::set32(table.mirror);
    const V::I lo = V::set32(table.limits.lo), hi = V::set32(table.limits.hi);
    for_blocks<L>(size, [&](size_t i, auto n) {
        const V::I x = V::widen(in + i, n), negative = V::right32(x, 31);  // all ones or none: (v ^ negative) - negative is -v or v
        const V::I from = symmetry ? V::sub32(V::bit_xor(x, negative), negative) : V::sub32(x, x0);
        const V::I u = V::min32(V::max32(from, zero), last);
        const V::I segment = V::gather32(table.segments, V::right32(u, table.p));  // base, and slope above it
        V::I y = V::right32(V::left32(segment, 16), 16);
        if constexpr (degree == 1) {
            const V::I t = V::left32(V::bit_and(u, part), 16);  // meets the slope
            const V::I rise = round_int32(V::multiply_pairs(segment, t), half, table.q);
            y = V::min32(V::max32(V::add32(y, rise), lo), hi);
        }
        if constexpr (symmetry != 0) {
            y = V::sub32(V::bit_xor(y, negative), negative);
            if constexpr (symmetry == 2) y = V::add32(y, V::bit_and(mirror, negative));
            y = V::min32(V::max32(y, lo), hi);
        }
        V::narrow(out + i, y, n);
    });
}

void lookup(const Lookup& table, const i16* in, i16* out, size_t size) noexcept {
    constexpr void (*kBodies[2][3])(const Lookup&, const i16*, i16*, size_t) = {
        {lookup_any<0, 0>, lookup_any<0, 1>, lookup_any<0, 2>}, {lookup_any<1, 0>, lookup_any<1, 1>, lookup_any<1, 2>}};
    if (!V::lookup(table, in, out, size)) kBodies[table.degree][table.symmetry](table, in, out, size);
}

}  // namespace
}  // namespace rindle
