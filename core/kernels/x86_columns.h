// Delta networks: which elements of a held path changed, and acc += W delta for their columns.
#pragma once

#include "kernels/x86_products.h"

namespace rindle {
namespace {

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

// sum: of the deltas, times the offset of the weights; also below
template <size_t Lines>
inline void add_chunk_of_bytes(const Walk<Lines, 4>& walk, const u8* deltas, i32 sum, i32* acc, size_t row, size_t rows) {
    V::I sums[Lines][4];
    const V::I offset = V::set32(sum);
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

inline void add_chunk_of_nibbles(const Walk<1, 4>& walk, const u8* deltas, i32 sum, i32* acc, size_t row, size_t rows) {
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
    const V::I offset = V::set32(sum);
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
        const V::I high = V::high_of(low[k], other[k]);
        const size_t first = row + k * L, second = first + B;
        store_rows(acc, first, rows, V::add32(load_rows(acc, first, rows), V::sub32(low[k], offset)));
        store_rows(acc, second, rows, V::add32(load_rows(acc, second, rows), V::sub32(high, offset)));
    }
}

template <size_t Lines>
inline void add_chunk_of_words(const Walk<Lines, 2>& walk, const i16* deltas, i32* acc, size_t row, size_t rows) {
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
inline void add_chunk_of_wide(Walk<Lines, 2> walk, const i16* high, const i16* low, i64* acc, size_t row, size_t rows) {
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

// The lines of a chunk.
template <size_t Lines, size_t Group>
inline Walk<Lines, Group> walk_of(const Matrix& m, size_t line, const i32* index, i32 entries) {
    return {static_cast<const u8*>(m.by_column) + line * static_cast<size_t>(m.columns) * B, index, entries};
}

void add_nibbles(const Matrix& m, const Width& width, const i32* index, const i16* delta, i32 entries, void* accumulators,
                 void* scratch) noexcept {
    const Columns layout(m, width);
    const auto n = static_cast<size_t>(entries), rows = static_cast<size_t>(m.rows);
    auto* bytes = static_cast<u8*>(scratch);
    const i32 sum = width.column_offset * to_bytes(delta, n, n, 0, bytes);
    for (size_t line = 0; line < layout.lines; ++line)
        add_chunk_of_nibbles(walk_of<1, 4>(m, line, index, entries), bytes, sum, static_cast<i32*>(accumulators), line * 2 * B, rows);
}

void add_bytes(const Matrix& m, const Width& width, const i32* index, const i16* delta, i32 entries, void* accumulators,
               void* scratch) noexcept {
    const Columns layout(m, width);
    const auto n = static_cast<size_t>(entries), rows = static_cast<size_t>(m.rows);
    auto* bytes = static_cast<u8*>(scratch);
    const i32 sum = width.column_offset * to_bytes(delta, n, n, 0, bytes);
    for_tiles<2>(layout.lines, [&]<size_t Lines>(size_t line) {
        add_chunk_of_bytes<Lines>(walk_of<Lines, 4>(m, line, index, entries), bytes, sum, static_cast<i32*>(accumulators), line * B, rows);
    });
}

void add_words(const Matrix& m, const Width& width, const i32* index, const i16* delta, i32 entries, void* accumulators,
               void* scratch) noexcept {
    const Columns layout(m, width);
    const auto n = static_cast<size_t>(entries), rows = static_cast<size_t>(m.rows);
    auto* words = static_cast<i16*>(scratch);
    for (size_t k = 0; k < n; k += W) V::store(words + k, V::load16(delta + k, least(n - k, W)));
    for_tiles<4>(layout.lines, [&]<size_t Lines>(size_t line) {
        add_chunk_of_words<Lines>(walk_of<Lines, 2>(m, line, index, entries), words, static_cast<i32*>(accumulators), line * W, rows);
    });
}

void add_wide(const Matrix& m, const Width& width, const i32* index, const i16* delta, i32 entries, void* accumulators,
              void* scratch) noexcept {
    const Columns layout(m, width);
    const auto n = static_cast<size_t>(entries), rows = static_cast<size_t>(m.rows);
    auto *high = static_cast<i16*>(scratch), *low = high + lines_of(n, W) * W;
    to_halves(delta, n, n, high, low);
    for_tiles<2>(layout.lines, [&]<size_t Lines>(size_t line) {
        add_chunk_of_wide<Lines>(walk_of<Lines, 2>(m, line, index, entries), high, low, static_cast<i64*>(accumulators), line * W, rows);
    });
}

void add_columns(const Matrix& m, const i32* index, const i16* delta, i32 entries, void* accumulators,
                 void* scratch) noexcept {
    const Width* width = stored_width(m);
    if (!width) return kPortable.add_columns(m, index, delta, entries, accumulators, scratch);
    if (entries != 0) width->add_columns(m, *width, index, delta, entries, accumulators, scratch);
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

}  // namespace
}  // namespace rindle
