// The portable kernel: plain C++, always compiled, and the oracle of all others. Its loops are written so that a compiler
// makes vectors of them with the instructions that every CPU of the target has.
#include <cstring>

#include "kernels/fixed.h"
#include "kernels/kernels.h"

#if defined(__GNUC__)
#define RINDLE_RESTRICT __restrict__
#else
#define RINDLE_RESTRICT __restrict
#endif

namespace rindle {
namespace {

using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using std::size_t;

// ---- Matrices: lines padded with zeros to a multiple of kBlock, so that no loop has a remainder

constexpr size_t kBlock = 16;

constexpr size_t padded(i32 n) { return (static_cast<size_t>(n) + kBlock - 1) / kBlock * kBlock; }

// 8-bit storage halves what a large matrix moves; a small one stays in the cache anyway, and is faster when its
// weights need no unpacking (24 against 15 GMAC/s with SSE2).
bool stored_as_bytes(const Matrix& m) {
    constexpr size_t kSmall = 256 * 1024;
    return m.bits <= 8 && padded(m.columns) * static_cast<size_t>(m.rows) > kSmall / sizeof(i16);
}

// Where 32-bit accumulators do not suffice they still do for kChunk columns of weights of up to 8 bits:
// 512 * 128 * 32767 < 2^31. A wider weight is therefore stored as two, 256 * high + low, -128 <= low <= 127, in two
// lines per row. (Twice the multiplications of int32, and still three times as fast as adding in int64.)
constexpr size_t kChunk = 512;

bool stored_as_halves(const Matrix& m) { return m.wide && m.bits > 8; }

size_t weight_bytes(const Matrix& m) { return stored_as_bytes(m) ? sizeof(i8) : sizeof(i16); }

size_t row_bytes(const Matrix& m) noexcept {
    return static_cast<size_t>(m.rows) * padded(m.columns) * weight_bytes(m) * (stored_as_halves(m) ? 2 : 1);
}

size_t column_bytes(const Matrix& m) noexcept {
    return static_cast<size_t>(m.columns) * padded(m.rows) * weight_bytes(m);
}

i32 high_half(i32 w) { return (w + 128) >> 8; }

void pack_rows(const Matrix& m, const Weights& weights, void* by_row) noexcept {
    const auto columns = static_cast<size_t>(m.columns);
    const size_t n = padded(m.columns);
    for (size_t r = 0; r < static_cast<size_t>(m.rows); ++r)
        for (size_t k = 0; k < columns; ++k) {
            const auto w = static_cast<i16>(level_at(weights, r, k));
            if (stored_as_halves(m)) {
                static_cast<i16*>(by_row)[2 * r * n + k] = static_cast<i16>(high_half(w));
                static_cast<i16*>(by_row)[(2 * r + 1) * n + k] = static_cast<i16>(w - 256 * high_half(w));
            } else if (stored_as_bytes(m)) {
                static_cast<i8*>(by_row)[r * n + k] = static_cast<i8>(w);
            } else {
                static_cast<i16*>(by_row)[r * n + k] = w;
            }
        }
}

void pack_columns(const Matrix& m, const Weights& weights, void* by_column) noexcept {
    const auto columns = static_cast<size_t>(m.columns);
    for (size_t r = 0; r < static_cast<size_t>(m.rows); ++r)
        for (size_t k = 0; k < columns; ++k) {
            const size_t at = k * padded(m.rows) + r;
            const i32 w = level_at(weights, r, k);
            if (stored_as_bytes(m))
                static_cast<i8*>(by_column)[at] = static_cast<i8>(w);
            else
                static_cast<i16*>(by_column)[at] = static_cast<i16>(w);
        }
}

// sums[i] = line i of w (each `stride` long) times x, over n columns, for one or four lines. Four share each load of x. The
// products are of two int16, which is what makes compilers choose the multiply-and-add-pairs instruction.
template <class Weight>
inline void dot1(const Weight* w, const i16* x, size_t blocks, i32* sums) {
    const size_t n = blocks * kBlock;
    i32 s0 = 0;
    for (size_t k = 0; k < n; ++k) s0 += static_cast<i16>(w[k]) * x[k];
    sums[0] = s0;
}

template <class Weight>
inline void dot4(const Weight* w, size_t stride, const i16* x, size_t blocks, i32* sums) {
    const size_t n = blocks * kBlock;
    const Weight *w0 = w, *w1 = w0 + stride, *w2 = w1 + stride, *w3 = w2 + stride;
    i32 s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (size_t k = 0; k < n; ++k) {
        s0 += static_cast<i16>(w0[k]) * x[k];
        s1 += static_cast<i16>(w1[k]) * x[k];
        s2 += static_cast<i16>(w2[k]) * x[k];
        s3 += static_cast<i16>(w3[k]) * x[k];
    }
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

// No partial sum exceeds A < 2^31.
template <class Weight>
void multiply_narrow(const Matrix& m, const Weight* w, const i16* x, i32* acc) {
    const size_t n = padded(m.columns), rows = static_cast<size_t>(m.rows);
    size_t r = 0;
    for (; r + 4 <= rows; r += 4) dot4(w + r * n, n, x, n / kBlock, acc + r);
    for (; r < rows; ++r) dot1(w + r * n, x, n / kBlock, acc + r);
}

template <class Weight>
void multiply_wide(const Matrix& m, const Weight* w, const i16* x, i64* acc) {
    const size_t n = padded(m.columns), rows = static_cast<size_t>(m.rows);
    for (size_t r = 0; r < rows; ++r) acc[r] = 0;
    for (size_t k = 0; k < n; k += kChunk) {
        const size_t blocks = (n - k < kChunk ? n - k : kChunk) / kBlock;
        i32 sums[4];
        size_t r = 0;
        if (stored_as_halves(m)) {
            for (; r + 2 <= rows; r += 2) {
                dot4(w + 2 * r * n + k, n, x + k, blocks, sums);
                acc[r] += i64{256} * sums[0] + sums[1];
                acc[r + 1] += i64{256} * sums[2] + sums[3];
            }
            for (; r < rows; ++r) {
                dot1(w + 2 * r * n + k, x + k, blocks, sums);
                dot1(w + (2 * r + 1) * n + k, x + k, blocks, sums + 1);
                acc[r] += i64{256} * sums[0] + sums[1];
            }
        } else {
            for (; r < rows; ++r) {
                dot1(w + r * n + k, x + k, blocks, sums);
                acc[r] += sums[0];
            }
        }
    }
}

void multiply(const Matrix& m, const i16* x, void* acc, void*) noexcept {
    if (m.wide && stored_as_bytes(m))
        multiply_wide(m, static_cast<const i8*>(m.by_row), x, static_cast<i64*>(acc));
    else if (m.wide)
        multiply_wide(m, static_cast<const i16*>(m.by_row), x, static_cast<i64*>(acc));
    else if (stored_as_bytes(m))
        multiply_narrow(m, static_cast<const i8*>(m.by_row), x, static_cast<i32*>(acc));
    else
        multiply_narrow(m, static_cast<const i16*>(m.by_row), x, static_cast<i32*>(acc));
}

// Four rows at a time for all vectors, where the accumulators are narrow.
template <class Weight>
void multiply_vectors_narrow(const Matrix& m, const Weight* w, const Vectors& v) {
    const size_t n = padded(m.columns), rows = static_cast<size_t>(m.rows);
    for (size_t r = 0; r < rows; r += 4)
        for (size_t i = 0; i < v.count; ++i) {
            const i16* x = v.x + i * v.x_stride;
            auto* acc = reinterpret_cast<i32*>(static_cast<std::byte*>(v.accumulators) + i * v.accumulators_stride);
            if (r + 4 <= rows) {
                dot4(w + r * n, n, x, n / kBlock, acc + r);
            } else {
                for (size_t last = r; last < rows; ++last) dot1(w + last * n, x, n / kBlock, acc + last);
            }
        }
}

void multiply_vectors(const Matrix& m, const Vectors& v, void* scratch) noexcept {
    if (!m.wide && stored_as_bytes(m)) return multiply_vectors_narrow(m, static_cast<const i8*>(m.by_row), v);
    if (!m.wide) return multiply_vectors_narrow(m, static_cast<const i16*>(m.by_row), v);
    for (size_t i = 0; i < v.count; ++i)
        multiply(m, v.x + i * v.x_stride, static_cast<std::byte*>(v.accumulators) + i * v.accumulators_stride, scratch);
}

// Sums wrap: the parts of an entry that was split, and pairs of columns, may leave int32 on the way to a total
// that does not.
template <class Weight, class Sum, class Wrapping>
void add_columns_as(const Matrix& m, const Weight* w, const i32* index, const i16* delta, i32 entries, Sum* acc_signed) {
    const size_t n = padded(m.rows) / kBlock * kBlock;
    auto* RINDLE_RESTRICT acc = reinterpret_cast<Wrapping*>(acc_signed);
    const auto column = [&](i32 e) { return w + static_cast<size_t>(index[e]) * n; };
    i32 e = 0;
    for (; e + 4 <= entries; e += 4) {
        const Weight *w0 = column(e), *w1 = column(e + 1), *w2 = column(e + 2), *w3 = column(e + 3);
        const i16 d0 = delta[e], d1 = delta[e + 1], d2 = delta[e + 2], d3 = delta[e + 3];
        for (size_t r = 0; r < n; ++r)
            acc[r] += static_cast<Wrapping>(static_cast<i16>(w0[r]) * d0) +
                      static_cast<Wrapping>(static_cast<i16>(w1[r]) * d1) +
                      static_cast<Wrapping>(static_cast<i16>(w2[r]) * d2) +
                      static_cast<Wrapping>(static_cast<i16>(w3[r]) * d3);
    }
    for (; e < entries; ++e) {
        const Weight* w0 = column(e);
        const i16 d0 = delta[e];
        for (size_t r = 0; r < n; ++r) acc[r] += static_cast<Wrapping>(static_cast<i16>(w0[r]) * d0);
    }
}

void add_columns(const Matrix& m, const i32* index, const i16* delta, i32 entries, void* acc, void*) noexcept {
    if (m.wide && stored_as_bytes(m))
        add_columns_as<i8, i64, u64>(m, static_cast<const i8*>(m.by_column), index, delta, entries, static_cast<i64*>(acc));
    else if (m.wide)
        add_columns_as<i16, i64, u64>(m, static_cast<const i16*>(m.by_column), index, delta, entries, static_cast<i64*>(acc));
    else if (stored_as_bytes(m))
        add_columns_as<i8, i32, u32>(m, static_cast<const i8*>(m.by_column), index, delta, entries, static_cast<i32*>(acc));
    else
        add_columns_as<i16, i32, u32>(m, static_cast<const i16*>(m.by_column), index, delta, entries, static_cast<i32*>(acc));
}

// Measured with SSE2: adding a column costs about as much as 2.5 columns of multiply.
constexpr struct {
    size_t changes, of;
} kMostChanges = {2, 5};

bool is_change(i32 d, i16 theta) { return (d < 0 ? -d : d) > theta; }

// Counting and replacing are loops that vectorize; the list is made only where it is short. There every element is written
// to its end, which then moves or does not: no branch to mispredict. A delta beyond int16, possible between codes of 16
// bits only, is entered as two halves.
Changes hold(const i16* v, const i16* theta, i16* RINDLE_RESTRICT held, i32* index, i16* delta, size_t size, int) noexcept {
    i32 elements = 0;
    for (size_t i = 0; i < size; ++i) elements += is_change(v[i] - held[i], theta[i]);
    i32 entries = kNoList;
    if (static_cast<size_t>(elements) * kMostChanges.of <= size * kMostChanges.changes) {
        entries = 0;
        for (size_t i = 0; i < size; ++i) {
            const i32 d = v[i] - held[i];
            index[entries] = static_cast<i32>(i);
            delta[entries] = static_cast<i16>(d);
            if (d != static_cast<i16>(d)) {
                if (!is_change(d, theta[i])) continue;
                delta[entries++] = static_cast<i16>(d / 2);
                index[entries] = static_cast<i32>(i);
                delta[entries] = static_cast<i16>(d - d / 2);
            }
            entries += is_change(d, theta[i]);
        }
    }
    for (size_t i = 0; i < size; ++i) held[i] = is_change(v[i] - held[i], theta[i]) ? v[i] : held[i];
    return {elements, entries};
}

// ---- Rounding and saturating loops

// Stores sat(v) and counts what it changed.
template <class Int>
inline void store(Int v, Limits limits, i16& out, i32& outside) {
    const Int y = sat<Int>(v, limits.lo, limits.hi);
    outside += y != v;
    out = static_cast<i16>(y);
}

size_t encode(const float* x, float r, Limits limits, i16* codes, size_t size) noexcept {
    i32 outside = 0;
    for (size_t i = 0; i < size; ++i)
        store(round_input(x[i], r, limits.lo, limits.hi), limits, codes[i], outside);
    return static_cast<size_t>(outside);
}

size_t finish(const Finish& op) noexcept {
    const Product* products = op.products;
    const i64* bias = op.bias;
    const int count = op.count, shift = op.shift;
    const Limits limits = op.limits;
    i16* RINDLE_RESTRICT out = op.out;
    const size_t size = op.size;
    i32 outside = 0;
    const auto narrow = [&](int p) { return static_cast<const i32*>(products[p].accumulators); };
    if (count == 1 && !products[0].wide) {
        const i32 *a = narrow(0), *ma = products[0].multiplier;
        for (size_t r = 0; r < size; ++r)
            store(finish_row(i64{ma[r]} * a[r], bias[r], shift), limits, out[r], outside);
    } else if (count == 2 && !products[0].wide && !products[1].wide) {
        const i32 *a = narrow(0), *ma = products[0].multiplier, *b = narrow(1), *mb = products[1].multiplier;
        for (size_t r = 0; r < size; ++r)
            store(finish_row(i64{ma[r]} * a[r] + i64{mb[r]} * b[r], bias[r], shift), limits, out[r], outside);
    } else {
        for (size_t r = 0; r < size; ++r) {
            i64 sum = 0;
            for (int p = 0; p < count; ++p)
                sum += products[p].multiplier[r] *
                       (products[p].wide ? static_cast<const i64*>(products[p].accumulators)[r] : i64{narrow(p)[r]});
            store(finish_row(sum, bias[r], shift), limits, out[r], outside);
        }
    }
    return static_cast<size_t>(outside);
}

size_t requantize(const Requantize& op) noexcept {
    const i16* in = op.in;
    i16* RINDLE_RESTRICT out = op.out;
    const Limits limits = op.limits;
    const int shift = op.shift;
    i32 outside = 0;
    if (op.wide) {
        const i64 m = op.multiplier;
        for (size_t i = 0; i < op.size; ++i) store(round(m * in[i], shift), limits, out[i], outside);
    } else {
        const auto m = static_cast<i16>(op.multiplier);
        for (size_t i = 0; i < op.size; ++i) store(round<i32>(m * in[i], shift), limits, out[i], outside);
    }
    return static_cast<size_t>(outside);
}

// The element-wise sums. `term0` and `term1` give one element's terms as unsigned numbers, whose sums may wrap on the way:
// v itself fits, by (15).
template <class Int, class Unsigned, class Term0, class Term1>
inline size_t sum_as(const Sum& op, Term0 term0, Term1 term1) {
    i16* RINDLE_RESTRICT out = op.out;
    const Limits limits = op.limits;
    const int left0 = op.left[0], left1 = op.left[1], shift = op.shift;
    const size_t size = op.size;
    i32 outside = 0;
    for (size_t i = 0; i < size; ++i) {
        const Unsigned v = (term0(i) << left0) + (term1(i) << left1);
        store(round(static_cast<Int>(v), shift), limits, out[i], outside);
    }
    return static_cast<size_t>(outside);
}

// The operations, for 32- and for 64-bit sums. A product of two int16 is exact in int32.
template <class Int, class Unsigned>
struct Sums {
    static Unsigned wrap(i32 v) { return static_cast<Unsigned>(static_cast<Int>(v)); }

    static size_t add(const Sum& op) {
        const i16 *a = op.in[0], *b = op.in[1];
        return sum_as<Int, Unsigned>(op, [=](size_t i) { return wrap(a[i]); }, [=](size_t i) { return wrap(b[i]); });
    }

    static size_t sub(const Sum& op) {
        const i16 *a = op.in[0], *b = op.in[1];
        return sum_as<Int, Unsigned>(op, [=](size_t i) { return wrap(a[i]); }, [=](size_t i) { return wrap(-b[i]); });
    }

    static size_t mul(const Sum& op) {
        const i16 *a = op.in[0], *b = op.in[1];
        return sum_as<Int, Unsigned>(
            op, [=](size_t i) { return wrap(a[i] * b[i]); }, [](size_t) { return Unsigned{0}; });
    }

    static size_t sum_of_products(const Sum& op) {
        const i16 *a = op.in[0], *b = op.in[1], *c = op.in[2], *d = op.in[3];
        return sum_as<Int, Unsigned>(
            op, [=](size_t i) { return wrap(a[i] * b[i]); }, [=](size_t i) { return wrap(c[i] * d[i]); });
    }

    static size_t lerp(const Sum& op) {
        const i16 *z = op.in[0], *a = op.in[1], *b = op.in[2];
        const int one_bits = op.one_bits;
        return sum_as<Int, Unsigned>(
            op, [=](size_t i) { return wrap(z[i] * a[i]); },
            [=](size_t i) { return (wrap(b[i]) << one_bits) - wrap(z[i] * b[i]); });  // (one - z) b
    }
};

template <size_t (*Narrow)(const Sum&), size_t (*Wide)(const Sum&)>
size_t sum(const Sum& op) noexcept {
    return op.wide ? Wide(op) : Narrow(op);
}

using Narrow = Sums<i32, u32>;
using Wide = Sums<i64, u64>;

void clip(const i16* in, Limits limits, i16* out, size_t size) noexcept {
    const auto lo = static_cast<i16>(limits.lo), hi = static_cast<i16>(limits.hi);
    for (size_t i = 0; i < size; ++i) out[i] = sat(in[i], lo, hi);
}

template <int degree, int symmetry>
void lookup_as(const Lookup& table, const i16* in, i16* RINDLE_RESTRICT out, size_t size) {
    const Segment* segments = table.segments;
    const i32 x0 = table.x0, last = table.last, lo = table.limits.lo, hi = table.limits.hi, mirror = table.mirror;
    const int p = table.p, q = table.q;
    for (size_t i = 0; i < size; ++i) {
        const i32 x = in[i], negative = x >> 31;  // all ones or none: (v ^ negative) - negative is -v or v
        const i32 u = sat(symmetry ? (x ^ negative) - negative : x - x0, 0, last);  // (17)
        const Segment segment = segments[u >> p];
        const i32 t = u & ((1 << p) - 1);
        i32 y = segment.base;
        if (degree == 1) y = sat(y + round(segment.slope * t, q), lo, hi);                      // (18)
        if (symmetry == 1) y = sat((y ^ negative) - negative, lo, hi);                          // (19): -y
        if (symmetry == 2) y = sat((y ^ negative) - negative + (mirror & negative), lo, hi);    // 2^f(y) - y
        out[i] = static_cast<i16>(y);
    }
}

void lookup(const Lookup& table, const i16* in, i16* out, size_t size) noexcept {
    constexpr void (*kBodies[2][3])(const Lookup&, const i16*, i16*, size_t) = {
        {lookup_as<0, 0>, lookup_as<0, 1>, lookup_as<0, 2>}, {lookup_as<1, 0>, lookup_as<1, 1>, lookup_as<1, 2>}};
    kBodies[table.degree][table.symmetry](table, in, out, size);
}

}  // namespace

const Kernel kPortable = {
    .name = "portable",
    .row_bytes = row_bytes,
    .pack_rows = pack_rows,
    .column_bytes = column_bytes,
    .pack_columns = pack_columns,
    .multiply = multiply,
    .multiply_vectors = multiply_vectors,
    .add_columns = add_columns,
    .hold = hold,
    .encode = encode,
    .finish = finish,
    .requantize = requantize,
    .add = sum<Narrow::add, Wide::add>,
    .sub = sum<Narrow::sub, Wide::sub>,
    .mul = sum<Narrow::mul, Wide::mul>,
    .sum_of_products = sum<Narrow::sum_of_products, Wide::sum_of_products>,
    .lerp = sum<Narrow::lerp, Wide::lerp>,
    .clip = clip,
    .lookup = lookup,
    .gates = &kPortableGates,
};

}  // namespace rindle
