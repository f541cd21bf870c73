// The C API's matrix: the kernels' product alone, for callers that have no model.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "api/api.h"

struct rindle_matrix {
    const rindle::Kernel* kernel;
    rindle::Matrix matrix;
    rindle::Buffer by_row;
};

namespace rindle {
namespace {

// The largest sum of a row's |w|.
std::int64_t largest_row(const std::int8_t* weights, std::size_t rows, std::size_t columns) noexcept {
    std::int64_t largest = 0;
    for (std::size_t r = 0; r < rows; ++r) {
        std::int64_t sum = 0;
        for (std::size_t k = 0; k < columns; ++k) sum += std::abs(weights[r * columns + k]);
        largest = std::max(largest, sum);
    }
    return largest;
}

std::int64_t magnitude(int bits) noexcept { return (std::int64_t{1} << (bits - 1)) - 1; }

rindle_status check_weights(const std::int8_t* weights, std::size_t rows, std::size_t columns, int code_bits) noexcept {
    for (std::size_t i = 0; i < rows * columns; ++i)
        if (weights[i] < -127)
            return fail(RINDLE_INVALID_ARGUMENT, "weight [%zu, %zu] is %d, must be -127..127", i / columns, i % columns, weights[i]);
    const std::int64_t largest = largest_row(weights, rows, columns), most = std::int64_t{1} << 31;
    if (largest * magnitude(code_bits) < most) return RINDLE_OK;
    int bits = code_bits;
    while (bits > 2 && largest * magnitude(bits) >= most) --bits;
    return fail(RINDLE_INVALID_ARGUMENT,
                "codes of %d bits could leave int32: the magnitudes of a row's weights sum to %lld; use codes of at most %d bits",
                code_bits, static_cast<long long>(largest), bits);
}

// Sums of n codes with each row, a few vectors at a time.
template <class Code>
rindle_status multiply(const rindle_matrix* of, const Code* x, std::size_t x_count, std::size_t n, std::int32_t* y,
                       std::size_t y_count) noexcept {
    if (!of) return missing("matrix");
    if (!x && n > 0) return missing("x");
    if (!y && n > 0) return missing("y");
    const Matrix& matrix = of->matrix;
    const auto rows = static_cast<std::size_t>(matrix.rows), columns = static_cast<std::size_t>(matrix.columns);
    if (x_count % columns != 0 || x_count / columns != n)
        return fail(RINDLE_INVALID_ARGUMENT, "x has %zu elements, must have %zu vectors of %zu columns", x_count, n, columns);
    if (y_count % rows != 0 || y_count / rows != n)
        return fail(RINDLE_INVALID_ARGUMENT, "y has %zu elements, must have %zu vectors of %zu rows", y_count, n, rows);
    const std::int64_t most = magnitude(matrix.code_bits);
    for (std::size_t i = 0; i < x_count; ++i)
        if (x[i] < -most || x[i] > most)
            return fail(RINDLE_INVALID_ARGUMENT, "x[%zu, %zu] is the code %d, must be %lld..%lld for codes of %d bits", i / columns,
                        i % columns, x[i], static_cast<long long>(-most), static_cast<long long>(most), matrix.code_bits);
    return guarded([&] {
        const std::size_t x_stride = (columns + kPadding - 1) / kPadding * kPadding;
        const std::size_t y_bytes = (rows + kPadding - 1) / kPadding * kPadding * sizeof *y;
        const Buffer codes(kVectors * x_stride * sizeof(std::int16_t)), sums(kVectors * y_bytes),
            scratch(vectors_scratch_bytes(columns));
        for (std::size_t first = 0; first < n; first += kVectors) {
            const std::size_t count = std::min(kVectors, n - first);
            for (std::size_t i = 0; i < count; ++i)
                std::copy_n(x + (first + i) * columns, columns, codes.as<std::int16_t>() + i * x_stride);
            of->kernel->multiply_vectors(matrix, {codes.as<std::int16_t>(), x_stride, sums.data(), y_bytes, count}, scratch.data());
            for (std::size_t i = 0; i < count; ++i)
                std::memcpy(y + (first + i) * rows, sums.data() + i * y_bytes, rows * sizeof *y);
        }
        return RINDLE_OK;
    });
}

}  // namespace
}  // namespace rindle

using namespace rindle;

extern "C" {

rindle_status rindle_matrix_new(const int8_t* weights, size_t weights_count, size_t rows, size_t columns, int code_bits,
                                const char* kernel, rindle_matrix** matrix) {
    if (!matrix) return missing("matrix");
    *matrix = nullptr;
    if (!weights) return missing("weights");
    if (rows < 1 || columns < 1 || rows > INT32_MAX || columns > INT32_MAX)
        return fail(RINDLE_INVALID_ARGUMENT, "the matrix is %zu by %zu, must have 1..2^31-1 rows and columns", rows, columns);
    if (weights_count % columns != 0 || weights_count / columns != rows)
        return fail(RINDLE_INVALID_ARGUMENT, "weights has %zu elements, must have rows %zu * columns %zu", weights_count, rows, columns);
    if (code_bits < 2 || code_bits > 16) return fail(RINDLE_INVALID_ARGUMENT, "code_bits is %d, must be 2..16", code_bits);
    if (const rindle_status status = check_weights(weights, rows, columns, code_bits); status != RINDLE_OK) return status;
    return guarded([&] {
        const Kernel& chosen = choose_kernel(kernel);
        Matrix packed = {static_cast<std::int32_t>(rows), static_cast<std::int32_t>(columns), 8, code_bits, false, nullptr, nullptr};
        Buffer by_row(chosen.row_bytes(packed));
        chosen.pack_rows(packed, {reinterpret_cast<const std::byte*>(weights), columns, integers(8)}, by_row.data());
        packed.by_row = by_row.data();
        *matrix = new rindle_matrix{&chosen, packed, std::move(by_row)};
        return RINDLE_OK;
    });
}

void rindle_matrix_free(rindle_matrix* matrix) { delete matrix; }

rindle_status rindle_matrix_multiply(const rindle_matrix* matrix, const int16_t* x, size_t x_count, size_t n, int32_t* y,
                                     size_t y_count) {
    return multiply(matrix, x, x_count, n, y, y_count);
}

rindle_status rindle_matrix_multiply_bytes(const rindle_matrix* matrix, const int8_t* x, size_t x_count, size_t n, int32_t* y,
                                           size_t y_count) {
    return multiply(matrix, x, x_count, n, y, y_count);
}

}  // extern "C"
