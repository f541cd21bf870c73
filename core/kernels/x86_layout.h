// How the x86 kernels lay out weights, and how they walk over blocks of elements and tiles of lines.
//
// Layouts, with B = Vector::kBytes, of which a vector of 32-bit lanes has L = B / 4. A line is B bytes, of weights of 4, 8 or 16 bits.
//   by row     tiles of a few lines; a line holds, for L rows in order, four columns of 8-bit weights, or two of 16 bits. 4 bits: it
//              holds 2L rows, the first L in the low halves of the bytes, the others in the high ones. Before the columns of a tile
//              stands a line for each of its lines: the first values of its accumulators, where they have any.
//   by column  chunks of a few lines; a line holds one column of 8 B / bits rows, in the order that interleaving the lines of four
//              columns (two, for 16 bits) makes dot products of.
//
// Dot products of bytes want one side unsigned. That side is stored with an offset: sum of (a + offset) b is sum of a b, plus offset
// times the sum of b, which every accumulator gives back once.
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

constexpr size_t kTile = 8;   // lines, and so accumulators
constexpr size_t kGroups = 2; // of columns: their number is made a multiple of this

struct Width;
using Multiply = void (*)(const Matrix&, const Width&, const Vectors&, size_t first, size_t count, void* scratch) noexcept;

// A width in which weights are stored.
struct Width {
    int weight_bits, code_bits;     // the widest level and code that it serves
    bool wide;                      // 64-bit accumulators
    size_t bits;                    // of a stored weight
    size_t tile, chunk;             // lines, by row and by column
    int row_offset, column_offset;  // of the stored weights
    int code_offset;                // of the codes that rows meet, given back by the first values of the accumulators
    Multiply multiply_one, multiply_some;  // vectors
    void (*add_columns)(const Matrix&, const Width&, const i32* index, const i16* delta, i32 entries, void* accumulators,
                        void* scratch) noexcept;
};

// x86_products.h, for up to so many vectors
template <size_t Most>
void multiply_nibbles(const Matrix&, const Width&, const Vectors&, size_t, size_t, void*) noexcept;
template <size_t Most>
void multiply_bytes(const Matrix&, const Width&, const Vectors&, size_t, size_t, void*) noexcept;
template <size_t Most>
void multiply_words(const Matrix&, const Width&, const Vectors&, size_t, size_t, void*) noexcept;
template <size_t Most>
void multiply_wide(const Matrix&, const Width&, const Vectors&, size_t, size_t, void*) noexcept;
// x86_columns.h
void add_nibbles(const Matrix&, const Width&, const i32*, const i16*, i32, void*, void*) noexcept;
void add_bytes(const Matrix&, const Width&, const i32*, const i16*, i32, void*, void*) noexcept;
void add_words(const Matrix&, const Width&, const i32*, const i16*, i32, void*, void*) noexcept;
void add_wide(const Matrix&, const Width&, const i32*, const i16*, i32, void*, void*) noexcept;

// The first that serves a matrix is taken.
constexpr Width kWidths[] = {
    {4, 8, false, 4, kTile / 2, 1, 8, 8, 0, multiply_nibbles<1>, multiply_nibbles<kVectors>, add_nibbles},
    {8, 8, false, 8, kTile, 2, 0, V::kWeightOffset, V::kCodeOffset, multiply_bytes<1>, multiply_bytes<kVectors>, add_bytes},
    {16, 16, false, 16, kTile, 4, 0, 0, 0, multiply_words<1>, multiply_words<kVectors>, add_words},
    {16, 16, true, 16, kTile / 2, 2, 0, 0, 0, multiply_wide<1>, multiply_wide<kVectors>, add_wide},
};

constexpr i32 kMostColumns = 32768;  // no sum of bytes leaves 32 bits, and the scratch memory stays small

// None where the portable kernel takes the matrix.
inline const Width* stored_width(const Matrix& m) {
    if (m.columns > kMostColumns) return nullptr;
    for (const Width& width : kWidths)
        if (m.bits <= width.weight_bits && m.code_bits <= width.code_bits && m.wide <= width.wide)
            return &width;
    return nullptr;
}

struct Rows {  // the layout by row
    size_t per_line, columns_per_group, tile, lines, groups;

    Rows(const Matrix& m, const Width& width) {
        per_line = width.bits == 4 ? 2 * L : L;
        columns_per_group = width.bits == 16 ? 2 : 4;
        tile = width.tile;
        lines = lines_of(static_cast<size_t>(m.rows), per_line);
        groups = lines_of(static_cast<size_t>(m.columns), columns_per_group * kGroups) * kGroups;
    }
    size_t bytes() const { return lines * (groups + 1) * B; }
};

struct Columns {  // the layout by column
    size_t per_line, chunk, lines;

    Columns(const Matrix& m, const Width& width) {
        per_line = 8 * B / width.bits;
        chunk = width.chunk;
        lines = lines_of(static_cast<size_t>(m.rows), per_line);
    }
    // Line `line` of column k, where the chunk of the line has `of` lines.
    size_t at(size_t columns, size_t line, size_t k) const {
        const size_t first = line / chunk * chunk, of = least(chunk, lines - first);
        return (first * columns + k * of + (line - first)) * B;
    }
};

size_t row_bytes(const Matrix& m) noexcept {
    const Width* width = stored_width(m);
    return width ? Rows(m, *width).bytes() : kPortable.row_bytes(m);
}

size_t column_bytes(const Matrix& m) noexcept {
    const Width* width = stored_width(m);
    return width ? Columns(m, *width).lines * static_cast<size_t>(m.columns) * B : kPortable.column_bytes(m);
}

// A weight at byte `at`, which is zero as yet; of 4 bits in its high half or its low one.
inline void put(const Width& width, u8* at, i32 w, bool high) {
    const auto word = static_cast<i16>(w);
    if (width.bits == 16)
        __builtin_memcpy(at, &word, sizeof word);
    else if (width.bits == 8)
        *at = static_cast<u8>(w);
    else
        *at |= static_cast<u8>(w << (high ? 4 : 0));
}

void pack_rows(const Matrix& m, const Weights& weights, void* by_row) noexcept {
    const Width* width = stored_width(m);
    if (!width) return kPortable.pack_rows(m, weights, by_row);
    const Rows layout(m, *width);
    const auto rows = static_cast<size_t>(m.rows), columns = static_cast<size_t>(m.columns);
    const size_t unit = width->bits == 16 ? 2 : 1;
    for (size_t r = 0; r < layout.lines * layout.per_line; ++r) {
        const size_t line = r / layout.per_line, lane = r % layout.per_line;
        const size_t first = line / layout.tile * layout.tile, of = least(layout.tile, layout.lines - first);
        u8* tile = static_cast<u8*>(by_row) + first * (layout.groups + 1) * B;
        i32 sum = 0;
        for (size_t k = 0; k < layout.groups * layout.columns_per_group; ++k) {
            const i32 w = r < rows && k < columns ? level_at(weights, r, k) : 0;
            const size_t group = k / layout.columns_per_group, part = k % layout.columns_per_group;
            u8* at = tile + ((1 + group) * of + (line - first)) * B;
            sum += w;
            put(*width, at + 4 * (lane % L) + unit * part, w + width->row_offset, lane >= L);
        }
        const i32 start = -width->code_offset * sum;
        if (start != 0) __builtin_memcpy(tile + (line - first) * B + 4 * lane, &start, sizeof start);
    }
}

// Interleaving the lines of four columns of bytes, or of two of words, gives results whose lane 4 l + j of part p comes from the
// weight 16 l + 4 p + j of each line, or 8 l + 4 p + j.
void pack_columns(const Matrix& m, const Weights& weights, void* by_column) noexcept {
    const Width* width = stored_width(m);
    if (!width) return kPortable.pack_columns(m, weights, by_column);
    const Columns layout(m, *width);
    const auto rows = static_cast<size_t>(m.rows), columns = static_cast<size_t>(m.columns);
    const size_t unit = width->bits == 16 ? 2 : 1, of_line = B / unit, apart = 16 / unit;
    for (size_t k = 0; k < columns; ++k)
        for (size_t r = 0; r < layout.lines * layout.per_line; ++r) {
            const i32 w = r < rows ? level_at(weights, r, k) : 0;
            u8* at = static_cast<u8*>(by_column) + layout.at(columns, r / layout.per_line, k);
            const size_t row = r % layout.per_line, in_line = row % of_line, part = in_line / L, lane = in_line % L;
            put(*width, at + unit * (apart * (lane / 4) + 4 * part + lane % 4), w + width->column_offset, row >= of_line);
        }
}

}  // namespace
}  // namespace rindle
