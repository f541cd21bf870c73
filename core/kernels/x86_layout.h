// How the x86 kernels lay out weights, and how they walk over blocks of elements and tiles of lines.
//
// Layouts, with B = Vector::kBytes, of which a vector of 32-bit lanes has L = B / 4. A line is B bytes.
//   by row     tiles of up to kTile lines; a line holds, for L rows in order, four columns of 8-bit weights, or two of
//              16 bits. Before the columns of a tile stand its accumulators' first values: L int32 per line.
//              4 bits: a line holds 2L rows, the first L in the low halves of the bytes, the others in the high ones.
//   by column  chunks of a few lines; a line holds one column of B rows (8 bits), 2B rows (4 bits) or B / 2 rows (16 bits),
//              in the order that interleaving the lines of four columns (two, for 16 bits) makes dot products of.
#pragma once

#include "kernels/kernels.h"

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

// Calls f.operator()<Lines>(line) for tiles of `Tile` lines, and for the last, shorter one.
template <size_t Lines, class Function>
[[gnu::always_inline]] inline void last_tile(size_t lines, size_t line, Function&& f) {
    if constexpr (Lines > 0) {
        if (lines == Lines)
            f.template operator()<Lines>(line);
        else
            last_tile<Lines - 1>(lines, line, f);
    }
}

template <size_t Tile, class Function>
[[gnu::always_inline]] inline void for_tiles(size_t lines, Function&& f) {
    size_t line = 0;
    for (; line + Tile <= lines; line += Tile) f.template operator()<Tile>(line);
    last_tile<Tile - 1>(lines - line, line, f);
}

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

}  // namespace
}  // namespace rindle
