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

}  // namespace
}  // namespace rindle
