// The kernels of docs/numerics.md over vectors, for every x86 instruction set: a translation unit includes its vectors (a
// class Vector) and then this. Everything is in an anonymous namespace, and nothing of the library is used, so that no
// function compiled for one instruction set can be linked into code for another.
//
// Layouts, with B = Vector::kBytes, of which a vector of 32-bit lanes has L = B / 4. A line is B bytes.
//   by row     tiles of up to kTile lines; a line holds, for L rows in order, four columns of 8-bit weights, or two of
//              16 bits. Before the columns of a tile stand its accumulators' first values: L int32 per line.
//              4 bits: a line holds 2L rows, the first L in the low halves of the bytes, the others in the high ones.
//   by column  chunks of a few lines; a line holds one column of B rows (8 bits), 2B rows (4 bits) or B / 2 rows (16 bits),
//              in the order that interleaving the lines of four columns (two, for 16 bits) makes dot products of.
#pragma once

#include "kernels.h"

namespace rindle {
namespace {

using V = Vector;
using i8 = std::int8_t;
using u8 = std::uint8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
using std::size_t;

constexpr size_t B = V::kBytes, L = B / 4, W = B / 2, H = B / 8;  // bytes; 32-bit, 16-bit and 64-bit lanes

constexpr size_t lines_of(size_t n, size_t per_line) { return (n + per_line - 1) / per_line; }
constexpr size_t least(size_t a, size_t b) { return a < b ? a : b; }

// ---- Rounding: the only functions here that do

// (6) and (5) for values in 32-bit lanes; returns how many of n lay outside.
inline int round_and_store(V::I v, V::I half, int shift, V::I lo, V::I hi, i16* out, size_t n) {
    const V::I rounded = V::right32(V::add32(v, half), shift);
    const V::I y = V::min32(V::max32(rounded, lo), hi);
    V::narrow(out, y, n);
    return V::differing(rounded, y, n);
}

// The same for doubles that are v / 2^s + 1/2, exactly: |v| and R stay below 2^52. What lies in [lo, hi + 1) has its floor
// in lo..hi: so the limits come first, the upper one as the last double before hi + 1.
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

inline int round_and_store(V::D low, V::D high, const Bounds& bounds, i16* out, size_t n) {
    const V::D x = V::min(V::max(low, bounds.lo), bounds.hi), y = V::min(V::max(high, bounds.lo), bounds.hi);
    V::narrow(out, V::floors(x, y), n);
    return V::differing(low, x, least(n, H)) + (n > H ? V::differing(high, y, n - H) : 0);
}

// Calls f(first element, number of them) for blocks of Size; only the last one's number is not a constant.
template <size_t Size>
struct Whole {
    constexpr operator size_t() const { return Size; }
};

template <size_t Size, class Function>
inline void for_blocks(size_t size, Function&& f) {
    size_t i = 0;
    for (; i + Size <= size; i += Size) f(i, Whole<Size>());
    if (i < size) f(i, size - i);
}

constexpr double power(int exponent) {  // 2^exponent, -1022..1023
    double result = 1;
    for (; exponent > 0; --exponent) result *= 2;
    for (; exponent < 0; ++exponent) result /= 2;
    return result;
}

// ---- Matrices

// bytes: weights and codes of at most 8 bits. nibbles: weights of at most 4. words: everything else.
enum class Kind { bytes, nibbles, words, portable };

constexpr i32 kMostColumns = 32768;  // no sum of bytes leaves 32 bits, and the scratch memory stays small

inline Kind kind_of(const Matrix& m) {
    if (m.columns > kMostColumns) return Kind::portable;
    if (m.bits > 8 || m.code_bits > 8) return Kind::words;
    return m.bits <= 4 ? Kind::nibbles : Kind::bytes;
}

constexpr size_t kTile = 8;   // lines, and so accumulators
constexpr size_t kGroups = 2; // of columns: their number is made a multiple of this

struct Rows {  // the layout by row
    size_t per_line, columns_per_group, tile, lines, groups;

    explicit Rows(const Matrix& m) {
        const Kind kind = kind_of(m);
        per_line = kind == Kind::nibbles ? 2 * L : L;
        columns_per_group = kind == Kind::words ? 2 : 4;
        tile = kind == Kind::nibbles || m.wide ? kTile / 2 : kTile;
        lines = lines_of(static_cast<size_t>(m.rows), per_line);
        groups = lines_of(static_cast<size_t>(m.columns), columns_per_group * kGroups) * kGroups;
    }
    size_t bytes() const { return lines * (groups + 1) * B; }  // of nibbles, no first values: but a line in their place
};

struct Columns {  // the layout by column
    size_t per_line, chunk, lines;

    explicit Columns(const Matrix& m) {
        const Kind kind = kind_of(m);
        per_line = kind == Kind::nibbles ? 2 * B : kind == Kind::bytes ? B : W;
        chunk = kind == Kind::nibbles ? 1 : kind == Kind::bytes || m.wide ? 2 : 4;
        lines = lines_of(static_cast<size_t>(m.rows), per_line);
    }
    // Line `line` of column k, where the chunk of the line has `of` lines.
    size_t at(size_t columns, size_t line, size_t k) const {
        const size_t first = line / chunk * chunk, of = least(chunk, lines - first);
        return (first * columns + k * of + (line - first)) * B;
    }
};

size_t row_bytes(const Matrix& m) noexcept {
    return kind_of(m) == Kind::portable ? kPortable.row_bytes(m) : Rows(m).bytes();
}

size_t column_bytes(const Matrix& m) noexcept {
    return kind_of(m) == Kind::portable ? kPortable.column_bytes(m)
                                        : Columns(m).lines * static_cast<size_t>(m.columns) * B;
}

void pack_rows(const Matrix& m, const i16* codes, void* by_row) noexcept {
    const Kind kind = kind_of(m);
    if (kind == Kind::portable) return kPortable.pack_rows(m, codes, by_row);
    const Rows layout(m);
    const auto rows = static_cast<size_t>(m.rows), columns = static_cast<size_t>(m.columns);
    for (size_t r = 0; r < layout.lines * layout.per_line; ++r) {
        const size_t line = r / layout.per_line, lane = r % layout.per_line;
        const size_t first = line / layout.tile * layout.tile, of = least(layout.tile, layout.lines - first);
        u8* tile = static_cast<u8*>(by_row) + first * (layout.groups + 1) * B;
        i32 sum = 0;
        for (size_t k = 0; k < layout.groups * layout.columns_per_group; ++k) {
            const i16 w = r < rows && k < columns ? codes[r * columns + k] : i16{0};
            const size_t group = k / layout.columns_per_group, part = k % layout.columns_per_group;
            u8* at = tile + ((1 + group) * of + (line - first)) * B;
            sum += w;
            if (kind == Kind::words)
                __builtin_memcpy(at + 4 * lane + 2 * part, &w, sizeof w);
            else if (kind == Kind::bytes)
                at[4 * lane + part] = static_cast<u8>(w);
            else
                at[4 * (lane % L) + part] |= static_cast<u8>((w + 8) << (lane < L ? 0 : 4));
        }
        const i32 start = -V::kCodeOffset * sum;
        if (kind == Kind::bytes) __builtin_memcpy(tile + (line - first) * B + 4 * lane, &start, sizeof start);
    }
}

void pack_columns(const Matrix& m, const i16* codes, void* by_column) noexcept {
    const Kind kind = kind_of(m);
    if (kind == Kind::portable) return kPortable.pack_columns(m, codes, by_column);
    const Columns layout(m);
    const auto rows = static_cast<size_t>(m.rows), columns = static_cast<size_t>(m.columns);
    for (size_t k = 0; k < columns; ++k)
        for (size_t r = 0; r < layout.lines * layout.per_line; ++r) {
            const i16 w = r < rows ? codes[r * columns + k] : i16{0};
            u8* at = static_cast<u8*>(by_column) + layout.at(columns, r / layout.per_line, k);
            size_t row = r % layout.per_line;
            if (kind == Kind::words) {  // result `part` of interleaving two lines has its lane 4 l + j from word 8 l + 4 part + j
                const size_t part = row / L, lane = row % L;
                __builtin_memcpy(at + 2 * (8 * (lane / 4) + 4 * part + lane % 4), &w, sizeof w);
                continue;
            }
            const bool high = row >= B;
            row %= B;  // result `part` of interleaving four lines has its lane 4 l + j from byte 16 l + 4 part + j
            const size_t part = row / L, lane = row % L, byte = 16 * (lane / 4) + 4 * part + lane % 4;
            if (kind == Kind::bytes)
                at[byte] = static_cast<u8>(w + V::kWeightOffset);
            else
                at[byte] |= static_cast<u8>((w + 8) << (high ? 4 : 0));
        }
}

// ---- W x

// Codes as bytes, `offset` added, with that of a zero behind the end; returns their sum without it.
inline i32 to_bytes(const i16* x, size_t n, size_t padded, int offset, u8* bytes) {
    V::I sum = V::zero();
    const V::I add = V::set16(offset), ones = V::set16(1);
    for (size_t k = 0; k < padded; k += W) {
        const V::I codes = V::load16(x + k, k < n ? least(n - k, W) : 0);
        sum = V::add32(sum, V::multiply_pairs(codes, ones));
        V::store_bytes(bytes + k, V::add16(codes, add));
    }
    return static_cast<i32>(V::sum32(sum));
}

// x = 256 high + low, -128 <= low <= 127
inline void to_halves(const i16* x, size_t n, size_t padded, i16* high, i16* low) {
    for (size_t k = 0; k < padded; k += W) {
        const V::I v = V::load16(x + k, k < n ? least(n - k, W) : 0);
        const V::I bit = V::bit_and(V::right16(v, 7), V::set16(1));
        V::store(high + k, V::add16(V::right16(v, 8), bit));
        V::store(low + k, V::right16(V::left16(v, 8), 8));
    }
}

// Bytes ahead: steadies reading from beyond the second-level cache, and costs a tenth within it.
constexpr size_t kPrefetch = 4096, kFar = 1024 * 1024;

template <bool Far>
inline V::I load_weights(const u8* w) {
    if constexpr (Far) __builtin_prefetch(w + kPrefetch);
    return V::load(w);
}

template <size_t Lines, bool Far>
inline void multiply_bytes(const u8*& w, const u8* x, size_t groups, i32* acc) {
    constexpr size_t kWays = Lines <= kTile / 2 ? 2 : 1;  // enough independent sums to hide a dot product's latency
    V::I sums[kWays][Lines];
#pragma GCC unroll 8
    for (size_t i = 0; i < Lines; ++i) {
        sums[0][i] = V::load(w + i * B);
        if constexpr (kWays == 2) sums[1][i] = V::zero();
    }
    w += Lines * B;
    for (size_t g = 0; g < groups; g += kWays)
#pragma GCC unroll 2
        for (size_t way = 0; way < kWays; ++way) {
            const V::Codes codes = V::broadcast(x + 4 * (g + way));
#pragma GCC unroll 8
            for (size_t i = 0; i < Lines; ++i)
                sums[way][i] = V::dot8(sums[way][i], load_weights<Far>(w + i * B), codes);
            w += Lines * B;
        }
#pragma GCC unroll 8
    for (size_t i = 0; i < Lines; ++i) {
        if constexpr (kWays == 2) sums[0][i] = V::add32(sums[0][i], sums[1][i]);
        V::store(acc + i * L, sums[0][i]);
    }
}

// w = q - 8 for the stored q: acc = sum of q x, minus 8 times the sum of x.
template <size_t Lines, bool Far>
inline void multiply_nibbles(const u8*& w, const u8* x, size_t groups, i32 sum, i32* acc) {
    V::I low[Lines], other[Lines];
#pragma GCC unroll 8
    for (size_t i = 0; i < Lines; ++i) low[i] = other[i] = V::zero();
    w += Lines * B;
    for (size_t g = 0; g < groups; ++g) {
        const V::Codes codes = V::broadcast(x + 4 * g);
#pragma GCC unroll 8
        for (size_t i = 0; i < Lines; ++i) V::dot4(low[i], other[i], load_weights<Far>(w + i * B), codes);
        w += Lines * B;
    }
    const V::I offset = V::set32(8 * sum);
#pragma GCC unroll 8
    for (size_t i = 0; i < Lines; ++i) {
        V::store(acc + 2 * i * L, V::sub32(low[i], offset));
        V::store(acc + (2 * i + 1) * L, V::sub32(V::high_of(low[i], other[i]), offset));
    }
}

template <size_t Lines>
inline void multiply_words(const u8*& w, const i16* x, size_t groups, i32* acc) {
    V::I sums[Lines];
#pragma GCC unroll 8
    for (size_t i = 0; i < Lines; ++i) sums[i] = V::zero();
    w += Lines * B;
    for (size_t g = 0; g < groups; ++g) {
        const V::Codes codes = V::broadcast(x + 2 * g);
#pragma GCC unroll 8
        for (size_t i = 0; i < Lines; ++i) sums[i] = V::dot16(sums[i], V::load(w + i * B), codes);
        w += Lines * B;
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < Lines; ++i) V::store(acc + i * L, sums[i]);
}

// Beyond 32 bits: of codes in two halves, so that 512 columns of any weights stay within them.
constexpr size_t kChunkGroups = 256;

template <size_t Lines>
inline void multiply_wide(const u8*& w, const i16* high, const i16* low, size_t groups, i64* acc) {
    for (size_t i = 0; i < Lines * L; ++i) acc[i] = 0;
    w += Lines * B;
    for (size_t first = 0; first < groups; first += kChunkGroups) {
        V::I sums[2][Lines];
#pragma GCC unroll 8
        for (size_t i = 0; i < Lines; ++i) sums[0][i] = sums[1][i] = V::zero();
        for (size_t g = first; g < least(groups, first + kChunkGroups); ++g) {
            const V::Codes h = V::broadcast(high + 2 * g), l = V::broadcast(low + 2 * g);
#pragma GCC unroll 8
            for (size_t i = 0; i < Lines; ++i) {
                const V::I line = V::load(w + i * B);
                sums[0][i] = V::dot16(sums[0][i], line, h);
                sums[1][i] = V::dot16(sums[1][i], line, l);
            }
            w += Lines * B;
        }
#pragma GCC unroll 8
        for (size_t i = 0; i < Lines; ++i) V::add_wide(acc + i * L, sums[0][i], sums[1][i]);
    }
}

// Calls f.operator()<Lines>(line) for tiles of `Tile` lines, and for the last, shorter one.
template <size_t Lines, class Function>
inline void last_tile(size_t lines, size_t line, Function&& f) {
    if constexpr (Lines > 0) {
        if (lines == Lines)
            f.template operator()<Lines>(line);
        else
            last_tile<Lines - 1>(lines, line, f);
    }
}

template <size_t Tile, class Function>
inline void for_tiles(size_t lines, Function&& f) {
    size_t line = 0;
    for (; line + Tile <= lines; line += Tile) f.template operator()<Tile>(line);
    last_tile<Tile - 1>(lines - line, line, f);
}

void multiply(const Matrix& m, const i16* x, void* accumulators, void* scratch) noexcept {
    const Kind kind = kind_of(m);
    if (kind == Kind::portable) return kPortable.multiply(m, x, accumulators, scratch);
    const Rows layout(m);
    const size_t groups = layout.groups, n = static_cast<size_t>(m.columns), padded = groups * layout.columns_per_group;
    const u8* w = static_cast<const u8*>(m.by_row);
    auto* acc = static_cast<i32*>(accumulators);
    if (kind == Kind::words && m.wide) {
        auto *high = static_cast<i16*>(scratch), *low = high + lines_of(padded, W) * W;
        to_halves(x, n, padded, high, low);
        for_tiles<kTile / 2>(layout.lines, [&]<size_t Lines>(size_t line) {
            multiply_wide<Lines>(w, high, low, groups, static_cast<i64*>(accumulators) + line * L);
        });
    } else if (kind == Kind::words) {
        auto* words = static_cast<i16*>(scratch);
        for (size_t k = 0; k < padded; k += W) V::store(words + k, V::load16(x + k, k < n ? least(n - k, W) : 0));
        for_tiles<kTile>(layout.lines, [&]<size_t Lines>(size_t line) {
            multiply_words<Lines>(w, words, groups, acc + line * L);
        });
    } else if (kind == Kind::nibbles) {
        auto* bytes = static_cast<u8*>(scratch);
        const i32 sum = to_bytes(x, n, padded, 0, bytes);
        const auto tiles = [&]<bool Far>() {
            for_tiles<kTile / 2>(layout.lines, [&]<size_t Lines>(size_t line) {
                multiply_nibbles<Lines, Far>(w, bytes, groups, sum, acc + line * 2 * L);
            });
        };
        layout.bytes() < kFar ? tiles.template operator()<false>() : tiles.template operator()<true>();
    } else {
        auto* bytes = static_cast<u8*>(scratch);
        to_bytes(x, n, padded, V::kCodeOffset, bytes);
        const auto tiles = [&]<bool Far>() {
            for_tiles<kTile>(layout.lines, [&]<size_t Lines>(size_t line) {
                multiply_bytes<Lines, Far>(w, bytes, groups, acc + line * L);
            });
        };
        layout.bytes() < kFar ? tiles.template operator()<false>() : tiles.template operator()<true>();
    }
}

// ---- acc += W delta, for a list of columns

// The accumulators of some rows, as far as they exist: arrays have room up to a multiple of kPadding only.
inline V::I load_rows(const i32* acc, size_t row, size_t rows) {
    return row < rows ? V::load32(acc + row, least(rows - row, L)) : V::zero();
}

inline void store_rows(i32* acc, size_t row, size_t rows, V::I v) {
    static_assert(kPadding % L == 0);
    if (row < rows) V::store(acc + row, v);
}

constexpr i32 kAhead = 8;  // groups of columns that are asked for in advance

template <size_t Lines, size_t Group>
struct Walk {  // through the lines of a chunk's columns, Group of them at a time
    const u8* chunk;
    const i32* index;
    i32 entries;

    const u8* column(i32 e) const { return chunk + static_cast<size_t>(index[e]) * Lines * B; }
    void prefetch(i32 e) const {
        constexpr auto kStep = static_cast<i32>(Group);
        e += kAhead * kStep;
        if (e + kStep > entries) return;
#pragma GCC unroll 4
        for (i32 j = 0; j < kStep; ++j) {
            const u8* p = column(e + j);
#pragma GCC unroll 8
            for (size_t i = 0; i < Lines; ++i) __builtin_prefetch(p + i * B);
        }
    }
};

struct Quad {
    V::I part[4];
};

// Bytes of four lines, side by side: part k has in its lane 4 l + j the bytes 16 l + 4 k + j of a, b, c and d.
inline Quad interleave(V::I a, V::I b, V::I c, V::I d) {
    const V::I p = V::unpack_low8(a, b), q = V::unpack_high8(a, b), r = V::unpack_low8(c, d), s = V::unpack_high8(c, d);
    return {{V::unpack_low16(p, r), V::unpack_high16(p, r), V::unpack_low16(q, s), V::unpack_high16(q, s)}};
}

template <size_t Lines>
inline void add_bytes(const Walk<Lines, 4>& walk, const u8* deltas, i32 sum, i32* acc, size_t row, size_t rows) {
    V::I sums[Lines][4];
    const V::I offset = V::set32(V::kWeightOffset * sum);
#pragma GCC unroll 2
    for (size_t i = 0; i < Lines; ++i)
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; ++k) sums[i][k] = V::sub32(load_rows(acc, row + i * B + k * L, rows), offset);
    for (i32 e = 0; e < walk.entries; e += 4) {
        const V::Codes delta = V::broadcast(deltas + e);
        const u8 *a = walk.column(e), *b = walk.column(e + 1), *c = walk.column(e + 2), *d = walk.column(e + 3);
        walk.prefetch(e);
#pragma GCC unroll 2
        for (size_t i = 0; i < Lines; ++i) {
            const Quad w = interleave(V::load(a + i * B), V::load(b + i * B), V::load(c + i * B), V::load(d + i * B));
#pragma GCC unroll 4
            for (size_t k = 0; k < 4; ++k) sums[i][k] = V::dot8_column(sums[i][k], w.part[k], delta);
        }
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < Lines; ++i)
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; ++k) store_rows(acc, row + i * B + k * L, rows, sums[i][k]);
}

inline void add_nibbles(const Walk<1, 4>& walk, const u8* deltas, i32 sum, i32* acc, size_t row, size_t rows) {
    V::I low[4], other[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) low[k] = other[k] = V::zero();
    for (i32 e = 0; e < walk.entries; e += 4) {
        const V::Codes delta = V::broadcast(deltas + e);
        walk.prefetch(e);
        const Quad w = interleave(V::load(walk.column(e)), V::load(walk.column(e + 1)), V::load(walk.column(e + 2)),
                                  V::load(walk.column(e + 3)));
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; ++k) V::dot4(low[k], other[k], w.part[k], delta);
    }
    const V::I offset = V::set32(8 * sum);
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
        const V::I high = V::high_of(low[k], other[k]);
        const size_t first = row + k * L, second = first + B;
        store_rows(acc, first, rows, V::add32(load_rows(acc, first, rows), V::sub32(low[k], offset)));
        store_rows(acc, second, rows, V::add32(load_rows(acc, second, rows), V::sub32(high, offset)));
    }
}

template <size_t Lines>
inline void add_words(const Walk<Lines, 2>& walk, const i16* deltas, i32* acc, size_t row, size_t rows) {
    V::I sums[Lines][2];
#pragma GCC unroll 4
    for (size_t i = 0; i < Lines; ++i)
#pragma GCC unroll 2
        for (size_t k = 0; k < 2; ++k) sums[i][k] = load_rows(acc, row + i * W + k * L, rows);
    for (i32 e = 0; e < walk.entries; e += 2) {
        const V::Codes delta = V::broadcast(deltas + e);
        const u8 *a = walk.column(e), *b = walk.column(e + 1);
        walk.prefetch(e);
#pragma GCC unroll 4
        for (size_t i = 0; i < Lines; ++i) {
            const V::I p = V::load(a + i * B), q = V::load(b + i * B);
            sums[i][0] = V::dot16(sums[i][0], V::unpack_low16(p, q), delta);
            sums[i][1] = V::dot16(sums[i][1], V::unpack_high16(p, q), delta);
        }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < Lines; ++i)
#pragma GCC unroll 2
        for (size_t k = 0; k < 2; ++k) store_rows(acc, row + i * W + k * L, rows, sums[i][k]);
}

// Beyond 32 bits: of changes in two halves, of which 512 columns stay within them.
constexpr i32 kChunkEntries = 512;

template <size_t Lines>
inline void add_wide(Walk<Lines, 2> walk, const i16* high, const i16* low, i64* acc, size_t row, size_t rows) {
    const i32 all = walk.entries;
    for (i32 first = 0; first < all; first += kChunkEntries) {
        walk.entries = all < first + kChunkEntries ? all : first + kChunkEntries;
        V::I sums[Lines][2][2];
#pragma GCC unroll 2
        for (size_t i = 0; i < Lines; ++i)
#pragma GCC unroll 2
            for (size_t k = 0; k < 2; ++k) sums[i][k][0] = sums[i][k][1] = V::zero();
        for (i32 e = first; e < walk.entries; e += 2) {
            const V::Codes h = V::broadcast(high + e), l = V::broadcast(low + e);
            const u8 *a = walk.column(e), *b = walk.column(e + 1);
            walk.prefetch(e);
#pragma GCC unroll 2
            for (size_t i = 0; i < Lines; ++i) {
                const V::I p = V::load(a + i * B), q = V::load(b + i * B);
                const V::I w0 = V::unpack_low16(p, q), w1 = V::unpack_high16(p, q);
                sums[i][0][0] = V::dot16(sums[i][0][0], w0, h), sums[i][0][1] = V::dot16(sums[i][0][1], w0, l);
                sums[i][1][0] = V::dot16(sums[i][1][0], w1, h), sums[i][1][1] = V::dot16(sums[i][1][1], w1, l);
            }
        }
#pragma GCC unroll 2
        for (size_t i = 0; i < Lines; ++i)
#pragma GCC unroll 2
            for (size_t k = 0; k < 2; ++k)
                if (const size_t at = row + i * W + k * L; at < rows) V::add_wide(acc + at, sums[i][k][0], sums[i][k][1]);
    }
}

void add_columns(const Matrix& m, const i32* index, const i16* delta, i32 entries, void* accumulators,
                 void* scratch) noexcept {
    const Kind kind = kind_of(m);
    if (kind == Kind::portable) return kPortable.add_columns(m, index, delta, entries, accumulators, scratch);
    if (entries == 0) return;
    const Columns layout(m);
    const auto rows = static_cast<size_t>(m.rows), columns = static_cast<size_t>(m.columns);
    const auto n = static_cast<size_t>(entries), padded = lines_of(n, W) * W;
    const auto* w = static_cast<const u8*>(m.by_column);
    auto* acc = static_cast<i32*>(accumulators);
    const auto chunk = [&]<size_t Lines, size_t Group>(size_t line) {
        return Walk<Lines, Group>{w + line * columns * B, index, entries};
    };
    if (kind == Kind::words && m.wide) {
        auto *high = static_cast<i16*>(scratch), *low = high + padded;
        to_halves(delta, n, n, high, low);
        for_tiles<2>(layout.lines, [&]<size_t Lines>(size_t line) {
            add_wide<Lines>(chunk.template operator()<Lines, 2>(line), high, low, static_cast<i64*>(accumulators), line * W, rows);
        });
    } else if (kind == Kind::words) {
        auto* words = static_cast<i16*>(scratch);
        for (size_t k = 0; k < n; k += W) V::store(words + k, V::load16(delta + k, least(n - k, W)));
        for_tiles<4>(layout.lines, [&]<size_t Lines>(size_t line) {
            add_words<Lines>(chunk.template operator()<Lines, 2>(line), words, acc, line * W, rows);
        });
    } else {
        auto* bytes = static_cast<u8*>(scratch);
        const i32 sum = to_bytes(delta, n, n, 0, bytes);
        if (kind == Kind::nibbles)
            for (size_t line = 0; line < layout.lines; ++line)
                add_nibbles(chunk.template operator()<1, 4>(line), bytes, sum, acc, line * 2 * B, rows);
        else
            for_tiles<2>(layout.lines, [&]<size_t Lines>(size_t line) {
                add_bytes<Lines>(chunk.template operator()<Lines, 4>(line), bytes, sum, acc, line * B, rows);
            });
    }
}

// ---- Held paths (20)

// A change beyond `most` in size, which an entry of the list does not hold, is entered in two parts.
inline i32 list_changes(const i16* v, const i16* theta, const i16* held, i32* index, i16* delta, size_t size, i32 most) {
    const V::I limit = V::set32(most);
    i32 entries = 0;
    for_blocks<L>(size, [&](size_t i, auto n) {
        const V::I d = V::sub32(V::widen(v + i, n), V::widen(held + i, n));
        const unsigned changed = V::exceeds(d, V::widen(theta + i, n), n);
        if (changed == 0) return;
        if (V::exceeds(d, limit, n) & changed) {
            for (unsigned rest = changed; rest; rest &= rest - 1) {
                const size_t k = i + static_cast<size_t>(__builtin_ctz(rest));
                const i32 whole = v[k] - held[k], part = whole > most ? most : whole < -most ? -most : whole;
                index[entries] = static_cast<i32>(k);
                delta[entries++] = static_cast<i16>(part);
                if (part == whole) continue;
                index[entries] = static_cast<i32>(k);
                delta[entries++] = static_cast<i16>(whole - part);
            }
        } else {
            V::list(index + entries, delta + entries, static_cast<i32>(i), d, changed);
            entries += __builtin_popcount(changed);
        }
    });
    for (i32 e = 0; e < 3; ++e) index[entries + e] = 0;  // add_columns walks by fours; its deltas there are 0
    return entries;
}

// Counts first, in 16 bits: the list is made only where it is short. Narrow codes change by bytes, or two.
Changes hold(const i16* v, const i16* theta, i16* held, i32* index, i16* delta, size_t size, int code_bits) noexcept {
    int elements = 0;
    for_blocks<W>(size, [&](size_t i, auto n) { elements += V::count_changes(v + i, held + i, theta + i, n); });
    const bool few = static_cast<size_t>(elements) * 32 <= size * static_cast<size_t>(V::kMostChanges);
    const i32 entries = few ? list_changes(v, theta, held, index, delta, elements ? size : 0, code_bits <= 8 ? 127 : 32767)
                            : kNoList;
    for_blocks<W>(size, [&](size_t i, auto n) { V::replace_changes(v + i, held + i, theta + i, n); });
    return {elements, entries};
}

// ---- Element by element

size_t encode(const float* x, float r, Limits limits, i16* codes, size_t size) noexcept {
    const V::D factor = V::set(static_cast<double>(r)), half = V::set(0.5);
    const Bounds bounds(limits);
    int outside = 0;
    for_blocks<L>(size, [&](size_t i, auto n) {
        const V::D low = V::load_float(x + i, least(n, H));
        const V::D high = n > H ? V::load_float(x + i + H, n - H) : V::set(0);
        outside += round_and_store(V::add(V::multiply(low, factor), half), V::add(V::multiply(high, factor), half), bounds,
                                   codes + i, n);
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
        outside += round_and_store(low, high, bounds, op.out + r, n);
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
        outside += round_and_store(low, high, bounds, op.out + r, n);
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
            outside += round_and_store(V::multiply_add(V::lower(x), factor, half), V::multiply_add(V::upper(x), factor, half),
                                       bounds, op.out + i, n);
        });
    } else {
        const V::I factor = V::set32(op.multiplier), half = V::set32(op.shift ? 1 << (op.shift - 1) : 0);
        const V::I lo = V::set32(op.limits.lo), hi = V::set32(op.limits.hi);
        for_blocks<L>(op.size, [&](size_t i, auto n) {
            const V::I v = V::multiply_pairs(V::widen_unsigned(op.in + i, n), factor);
            outside += round_and_store(v, half, op.shift, lo, hi, op.out + i, n);
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
            outside += round_and_store(low, high, bounds, op.out + i, n);
        });
    } else {
        const V::I lo = V::set32(op.limits.lo), hi = V::set32(op.limits.hi), half = V::set32(op.shift ? 1 << (op.shift - 1) : 0);
        for_blocks<L>(op.size, [&](size_t i, auto n) {
            Terms t = terms<operation>(op, i, n);
            if constexpr (kLerp) t.second = V::add32(t.second, V::left32(t.whole, op.one_bits));
            V::I v = V::left32(t.first, op.left[0]);
            if constexpr (kTwo) v = V::add32(v, V::left32(t.second, op.left[1]));
            outside += round_and_store(v, half, op.shift, lo, hi, op.out + i, n);
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
            const V::I rise = V::right32(V::add32(V::multiply_pairs(segment, t), half), table.q);
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

constexpr Kernel kernel() {
    return {
        .name = V::kName,
        .row_bytes = row_bytes,
        .pack_rows = pack_rows,
        .column_bytes = column_bytes,
        .pack_columns = pack_columns,
        .multiply = multiply,
        .add_columns = add_columns,
        .hold = hold,
        .encode = encode,
        .finish = finish,
        .requantize = requantize,
        .add = sum<Operation::add>,
        .sub = sum<Operation::sub>,
        .mul = sum<Operation::mul>,
        .sum_of_products = sum<Operation::sum_of_products>,
        .lerp = sum<Operation::lerp>,
        .clip = clip,
        .lookup = lookup,
    };
}

}  // namespace
}  // namespace rindle
