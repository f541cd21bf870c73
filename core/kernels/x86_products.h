// W x.
#pragma once

#include "kernels/x86_layout.h"

namespace rindle {
namespace {

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
inline void tile_of_bytes(const u8* w, const u8* x, size_t groups, i32* acc) {
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

// The same for some vectors, whose codes stand `room` bytes apart: a line of weights is read once for all of them.
template <size_t Lines, size_t Count>
inline void tile_of_bytes_at_once(const u8* w, const u8* x, size_t room, size_t groups, i32* acc, size_t acc_stride) {
    V::I sums[Count][Lines];
#pragma GCC unroll 8
    for (size_t i = 0; i < Lines; ++i)
#pragma GCC unroll 4
        for (size_t v = 0; v < Count; ++v) sums[v][i] = V::load(w + i * B);
    for (size_t g = 0; g < groups; ++g) {
        w += Lines * B;
        V::Codes codes[Count];
#pragma GCC unroll 4
        for (size_t v = 0; v < Count; ++v) codes[v] = V::broadcast(x + v * room + 4 * g);
#pragma GCC unroll 8
        for (size_t i = 0; i < Lines; ++i) {
            const V::I line = V::load(w + i * B);
#pragma GCC unroll 4
            for (size_t v = 0; v < Count; ++v) sums[v][i] = V::dot8(sums[v][i], line, codes[v]);
        }
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < Count; ++v)
#pragma GCC unroll 8
        for (size_t i = 0; i < Lines; ++i)
            V::store(reinterpret_cast<u8*>(acc + i * L) + v * acc_stride, sums[v][i]);
}

// sum: of x, times the offset of the weights
template <size_t Lines, bool Far>
inline void tile_of_nibbles(const u8* w, const u8* x, size_t groups, i32 sum, i32* acc) {
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
    const V::I offset = V::set32(sum);
#pragma GCC unroll 8
    for (size_t i = 0; i < Lines; ++i) {
        V::store(acc + 2 * i * L, V::sub32(low[i], offset));
        V::store(acc + (2 * i + 1) * L, V::sub32(V::high_of(low[i], other[i]), offset));
    }
}

template <size_t Lines>
inline void tile_of_words(const u8* w, const i16* x, size_t groups, i32* acc) {
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
inline void tile_of_wide(const u8* w, const i16* high, const i16* low, size_t groups, i64* acc) {
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

// Up to `Most` vectors of those that a product is of, from `first` on: the codes of all are put in order before each tile of weights
// meets all of them.
struct Some {
    const Vectors& of;
    size_t first, count;
    u8* scratch;
    size_t room;  // bytes of scratch per vector

    const i16* x(size_t i) const { return of.x + (first + i) * of.x_stride; }
    u8* codes(size_t i) const { return scratch + i * room; }
    i16* words(size_t i) const { return reinterpret_cast<i16*>(codes(i)); }
    i32* acc(size_t i) const {
        return reinterpret_cast<i32*>(static_cast<u8*>(of.accumulators) + (first + i) * of.accumulators_stride);
    }
};

template <size_t Most>
void multiply_nibbles(const Matrix& m, const Width& width, const Vectors& v, size_t first, size_t count, void* scratch) noexcept {
    if constexpr (Most == 1) first = 0, count = 1;
    const Rows layout(m, width);
    const size_t groups = layout.groups, n = static_cast<size_t>(m.columns), padded = 4 * groups, line_stride = (groups + 1) * B;
    const Some some = {v, first, count, static_cast<u8*>(scratch), lines_of(padded, W) * B};
    const u8* w = static_cast<const u8*>(m.by_row);  // of the tile at hand
    i32 sums[Most];
    for (size_t i = 0; i < count; ++i) sums[i] = width.row_offset * to_bytes(some.x(i), n, padded, 0, some.codes(i));
    const auto tiles = [&]<bool Far>() __attribute__((always_inline)) {
        for_tiles<kTile / 2>(layout.lines, [&]<size_t Lines>(size_t line) {
            for (size_t i = 0; i < count; ++i)
                tile_of_nibbles<Lines, Far>(w, some.codes(i), groups, sums[i], some.acc(i) + line * 2 * L);
            w += Lines * line_stride;
        });
    };
    layout.bytes() < kFar ? tiles.template operator()<false>() : tiles.template operator()<true>();
}

template <size_t Most>
void multiply_bytes(const Matrix& m, const Width& width, const Vectors& v, size_t first, size_t count, void* scratch) noexcept {
    if constexpr (Most == 1) first = 0, count = 1;
    const Rows layout(m, width);
    const size_t groups = layout.groups, n = static_cast<size_t>(m.columns), padded = 4 * groups, line_stride = (groups + 1) * B;
    const Some some = {v, first, count, static_cast<u8*>(scratch), lines_of(padded, W) * B};
    const u8* w = static_cast<const u8*>(m.by_row);
    for (size_t i = 0; i < count; ++i) to_bytes(some.x(i), n, padded, width.code_offset, some.codes(i));
    const auto tiles = [&]<bool Far>() __attribute__((always_inline)) {
        for_tiles<kTile>(layout.lines, [&]<size_t Lines>(size_t line) {
            size_t i = 0;
            if constexpr (Most > 1 && V::kAtOnce > 1)
                for (; i + V::kAtOnce <= count; i += V::kAtOnce)
                    tile_of_bytes_at_once<Lines, V::kAtOnce>(w, some.codes(i), some.room, groups, some.acc(i) + line * L,
                                                             v.accumulators_stride);
            for (; i < count; ++i) tile_of_bytes<Lines, Far>(w, some.codes(i), groups, some.acc(i) + line * L);
            w += Lines * line_stride;
        });
    };
    layout.bytes() < kFar ? tiles.template operator()<false>() : tiles.template operator()<true>();
}

template <size_t Most>
void multiply_words(const Matrix& m, const Width& width, const Vectors& v, size_t first, size_t count, void* scratch) noexcept {
    if constexpr (Most == 1) first = 0, count = 1;
    const Rows layout(m, width);
    const size_t groups = layout.groups, n = static_cast<size_t>(m.columns), padded = 2 * groups, line_stride = (groups + 1) * B;
    const Some some = {v, first, count, static_cast<u8*>(scratch), lines_of(padded, W) * B};
    const u8* w = static_cast<const u8*>(m.by_row);
    for (size_t i = 0; i < count; ++i)
        for (size_t k = 0; k < padded; k += W) V::store(some.words(i) + k, V::load16(some.x(i) + k, k < n ? least(n - k, W) : 0));
    for_tiles<kTile>(layout.lines, [&]<size_t Lines>(size_t line) {
        for (size_t i = 0; i < count; ++i) tile_of_words<Lines>(w, some.words(i), groups, some.acc(i) + line * L);
        w += Lines * line_stride;
    });
}

template <size_t Most>
void multiply_wide(const Matrix& m, const Width& width, const Vectors& v, size_t first, size_t count, void* scratch) noexcept {
    if constexpr (Most == 1) first = 0, count = 1;
    const Rows layout(m, width);
    const size_t groups = layout.groups, n = static_cast<size_t>(m.columns), padded = 2 * groups, line_stride = (groups + 1) * B;
    const size_t half = lines_of(padded, W) * W;  // words of a vector's high halves, and of its low ones
    const Some some = {v, first, count, static_cast<u8*>(scratch), 2 * half * sizeof(i16)};
    const u8* w = static_cast<const u8*>(m.by_row);
    for (size_t i = 0; i < count; ++i) to_halves(some.x(i), n, padded, some.words(i), some.words(i) + half);
    for_tiles<kTile / 2>(layout.lines, [&]<size_t Lines>(size_t line) {
        for (size_t i = 0; i < count; ++i)
            tile_of_wide<Lines>(w, some.words(i), some.words(i) + half, groups, reinterpret_cast<i64*>(some.acc(i)) + line * L);
        w += Lines * line_stride;
    });
}

void multiply(const Matrix& m, const i16* x, void* accumulators, void* scratch) noexcept {
    const Width* width = stored_width(m);
    if (!width) return kPortable.multiply(m, x, accumulators, scratch);
    width->multiply_one(m, *width, {x, 0, accumulators, 0, 1}, 0, 1, scratch);
}

void multiply_vectors(const Matrix& m, const Vectors& v, void* scratch) noexcept {
    const Width* width = stored_width(m);
    if (!width) return kPortable.multiply_vectors(m, v, scratch);
    for (size_t first = 0; first < v.count; first += kVectors)
        width->multiply_some(m, *width, v, first, least(kVectors, v.count - first), scratch);
}

}  // namespace
}  // namespace rindle
