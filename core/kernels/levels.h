// What a stored code of a weight is worth: numerics (2a). Its twin is LEVELS in src/rindle/numbers/levels.py.
//
// All of it is plain data and functions of this translation unit alone: see kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rindle {

// level = alpha * q + beta, lowest <= q < 2^bits; the file stores q XOR flip, which for integers makes two's complement of q.
struct Levels {
    const char* name;
    int bits;
    std::int32_t alpha, beta;
    std::uint32_t lowest, flip;
};

// What is no integer. A set is a line here and one in its twin.
inline constexpr Levels kLevels[] = {
    {"binary", 1, 2, -1, 0, 0},
    {"uniform2", 2, 2, -3, 0, 0},
};

inline constexpr int kLeastBits = 2, kMostBits = 16;  // of integers, whatever they are codes of

// A matrix [rows, columns] as the file holds it: every row of codes padded to a byte.
struct Weights {
    const std::byte* bytes;
    std::size_t row_bytes;
    Levels levels;
};

namespace {

constexpr Levels integers(int bits) noexcept {
    return {"", bits, 1, -(std::int32_t{1} << (bits - 1)), 1, std::uint32_t{1} << (bits - 1)};
}

constexpr std::int32_t level_of(const Levels& levels, std::uint32_t stored) noexcept {
    return levels.alpha * static_cast<std::int32_t>(stored ^ levels.flip) + levels.beta;
}

// The bits of a two's complement integer that holds every level.
constexpr int width_of(const Levels& levels) noexcept {
    const std::int32_t lo = levels.alpha * static_cast<std::int32_t>(levels.lowest) + levels.beta;
    const std::int32_t hi = levels.alpha * ((std::int32_t{1} << levels.bits) - 1) + levels.beta;
    int bits = 1;
    while (lo < -(std::int32_t{1} << (bits - 1)) || hi >= std::int32_t{1} << (bits - 1)) ++bits;
    return bits;
}

// Code k of a row: bits k * bits .. k * bits + bits - 1, from the least significant of the first byte on.
inline std::uint32_t stored_at(const std::byte* row, int bits, std::size_t k) noexcept {
    const std::size_t first = k * static_cast<std::size_t>(bits);
    const auto skip = static_cast<int>(first % 8);
    const std::byte* at = row + first / 8;
    std::uint32_t code = 0;
    for (int have = 0; have < skip + bits; have += 8) code |= static_cast<std::uint32_t>(*at++) << have;
    return code >> skip & ((std::uint32_t{1} << bits) - 1);
}

inline std::int32_t level_at(const Weights& weights, std::size_t row, std::size_t k) noexcept {
    return level_of(weights.levels, stored_at(weights.bytes + row * weights.row_bytes, weights.levels.bits, k));
}

}  // namespace
}  // namespace rindle
