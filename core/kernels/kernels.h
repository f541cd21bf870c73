// What a kernel is: a table of functions over plain arrays, one per kind of work in a frame. Every kernel gives the
// integers of the portable one exactly. To add one: a translation unit with such a table, and its line in kernels.cc.
//
// A translation unit compiled for another instruction set must not instantiate library templates, because the linker
// might give its copy to baseline code: so this header has plain data only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/gates.h"
#include "kernels/levels.h"

namespace rindle {

// Every array of a stream or model begins on such a boundary (bytes), and has room up to a multiple of so many elements.
// A kernel may read on to there. Of accumulators it may also write there; of other arrays that room stays zero.
inline constexpr std::size_t kAlignment = 64;
inline constexpr std::size_t kPadding = 32;
inline constexpr std::size_t kTableRoom = 128;

// Memory that multiply and add_columns may use meanwhile, for the most columns that a matrix has; aligned.
constexpr std::size_t scratch_bytes(std::size_t columns) { return 8 * columns + 1024; }

// The same for multiply_vectors, which takes this many vectors at once: for as long it has the weights at hand.
inline constexpr std::size_t kVectors = 12;
constexpr std::size_t vectors_scratch_bytes(std::size_t columns) { return kVectors * scratch_bytes(columns); }

// One matrix of an affine, packed by the kernel. Accumulators are int32_t, or int64_t where `wide`.
struct Matrix {
    std::int32_t rows, columns;
    int bits, code_bits;     // of a weight's level (width_of), of a code of x
    bool wide;               // int64_t accumulators
    const void* by_row;      // for multiply
    const void* by_column;   // for add_columns; only where the code is held

    std::size_t sums_bytes() const { return static_cast<std::size_t>(rows) * (wide ? sizeof(std::int64_t) : sizeof(std::int32_t)); }
};

// Vectors side by side, and the accumulators of each. Behind an x may stand anything that can be read, up to kPadding.
struct Vectors {
    const std::int16_t* x;
    std::size_t x_stride;    // elements from one x to the next
    void* accumulators;
    std::size_t accumulators_stride;  // bytes from one to the next: at least those of the rows, padded
    std::size_t count;
};

// One matrix' share of an affine's rows.
struct Product {
    const void* accumulators;
    const std::int32_t* multiplier;
    const double* ratio;     // multiplier / 2^s, exactly: a kernel may take either
    bool wide;
};

struct Limits {
    std::int32_t lo, hi;
};

struct Finish {              // (7) for the rows of one gate
    const Product* products;
    int count;
    const std::int64_t* bias;  // b + R
    const double* offset;      // (b + R) / 2^s, exactly
    int shift;
    Limits limits;
    std::int16_t* out;
    std::size_t size;
};

struct Sum {                 // (10)-(14): element-wise, v = sum of term[i] << left[i]
    const std::int16_t* in[4];
    std::int16_t* out;
    std::size_t size;
    int left[2];
    int shift;
    int one_bits;            // lerp: one = 2^one_bits
    Limits limits;
    bool wide;               // |v| + R may need more than 31 bits
};

struct Requantize {          // (9)
    const std::int16_t* in;
    std::int16_t* out;
    std::size_t size;
    std::int32_t multiplier;
    int shift;
    Limits limits;
    bool wide;
};

struct Segment {
    std::int16_t base, slope;
};

struct Lookup {              // (17)-(19)
    const Segment* segments;
    const std::int16_t *base, *slope;  // the same, apart; room for kTableRoom of each
    std::int32_t x0;         // within a step of where it makes no difference
    std::int32_t last;       // n * 2^p - 1
    int p, q;
    int degree;
    int symmetry;            // 0 none, 1 odd, 2 sigmoid
    std::int32_t mirror;     // 2^f(y) of (19), or anything beyond the reach of y where that is larger
    Limits limits;
};

struct Changes {             // of a held path in one frame (20)
    std::int32_t elements;   // how many changed
    std::int32_t entries;    // how many steps the list has: one whose delta is too large for the kernel takes two
};
inline constexpr std::int32_t kNoList = -1;  // as `entries`: so many changed that multiply is faster than add_columns

struct Kernel {
    const char* name;

    // Weights, [rows, columns], from the file's layout into the kernel's own.
    std::size_t (*row_bytes)(const Matrix&) noexcept;
    void (*pack_rows)(const Matrix&, const Weights&, void* by_row) noexcept;
    std::size_t (*column_bytes)(const Matrix&) noexcept;
    void (*pack_columns)(const Matrix&, const Weights&, void* by_column) noexcept;

    // acc = W x
    void (*multiply)(const Matrix&, const std::int16_t* x, void* accumulators, void* scratch) noexcept;
    // The same for many x, with the weights read once for a few of them
    void (*multiply_vectors)(const Matrix&, const Vectors&, void* scratch) noexcept;
    // acc += sum over entries of column[index] * delta
    void (*add_columns)(const Matrix&, const std::int32_t* index, const std::int16_t* delta, std::int32_t entries,
                        void* accumulators, void* scratch) noexcept;
    // (20): updates `held` and lists what changed, if that is worth it, for add_columns; the lists have room for 2 * size
    // entries. code_bits: of v.
    Changes (*hold)(const std::int16_t* v, const std::int16_t* theta, std::int16_t* held, std::int32_t* index,
                    std::int16_t* delta, std::size_t size, int code_bits) noexcept;

    // The functions below return how many values lay outside the limits. They write `size` results and no more.
    // (4); scans nothing: the input is finite
    std::size_t (*encode)(const float* x, float r, Limits, std::int16_t* codes, std::size_t size) noexcept;
    std::size_t (*finish)(const Finish&) noexcept;
    std::size_t (*requantize)(const Requantize&) noexcept;
    std::size_t (*add)(const Sum&) noexcept;
    std::size_t (*sub)(const Sum&) noexcept;
    std::size_t (*mul)(const Sum&) noexcept;
    std::size_t (*sum_of_products)(const Sum&) noexcept;
    std::size_t (*lerp)(const Sum&) noexcept;

    void (*clip)(const std::int16_t* in, Limits, std::int16_t* out, std::size_t size) noexcept;  // (16)
    void (*lookup)(const Lookup&, const std::int16_t* in, std::int16_t* out, std::size_t size) noexcept;

    const Gates* gates;  // float work of layers that are quantized dynamically
};

// The kernel of this name, or where `name` is NULL or empty the one that RINDLE_KERNEL names, or else the fastest that this
// CPU has. Throws Error with the known names.
const Kernel& choose_kernel(const char* name);

struct KernelList {
    const Kernel* kernels[8];
    std::size_t count;
};
KernelList available_kernels() noexcept;  // on this CPU, fastest first

extern const Kernel kPortable;
#ifdef RINDLE_X86
extern const Kernel kAvx2, kAvxVnni, kAvx512Vnni;
#endif

}  // namespace rindle
