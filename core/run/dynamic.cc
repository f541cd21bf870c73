#include "run/dynamic.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "file/error.h"
#include "plan/compiler.h"

namespace rindle {
namespace {

constexpr int kMost = 127;
constexpr std::size_t kRows = 2 * kVectors;  // of a block: accumulators and codes stay in the caches
constexpr std::size_t kMostColumns = ((std::size_t{1} << 31) - 1) / (kMost * kMost);
constexpr float kSmallest = 1e-36f;  // below, 127 / x overflows: such a row is zero

std::size_t padded(std::size_t count) { return (count + kPadding - 1) / kPadding * kPadding; }

}  // namespace

DynamicMatrix::DynamicMatrix(const Kernel& kernel, const std::int8_t* codes, std::size_t rows, std::size_t columns,
                             const float* steps)
    : kernel_(&kernel), steps_(steps, steps + rows) {
    if (columns > kMostColumns)
        throw Error(RINDLE_INVALID_ARGUMENT, "a matrix has " + std::to_string(columns) + " columns; quantized dynamically it may have " +
                                                 std::to_string(kMostColumns) + ", whose sums 32 bits hold");
    matrix_ = {static_cast<std::int32_t>(rows), static_cast<std::int32_t>(columns), 8, 8, false, nullptr, nullptr};
    packed_ = Buffer(kernel.row_bytes(matrix_));
    kernel.pack_rows(matrix_, {reinterpret_cast<const std::byte*>(codes), columns, integers(8)}, packed_.data());
    matrix_.by_row = packed_.data();
}

DynamicRows::DynamicRows(const DynamicMatrix& matrix, const Gates& gates, std::size_t most)
    : matrix_(matrix),
      gates_(gates),
      stride_(padded(matrix.rows())),
      width_(padded(matrix.columns())),
      codes_(most * width_ * sizeof(std::int16_t)),
      accumulators_(most * stride_ * sizeof(std::int32_t)),
      scratch_(vectors_scratch_bytes(matrix.columns())),
      step_(most) {}

void DynamicRows::encode(std::size_t row, const float* x) noexcept {
    auto* codes = codes_.as<std::int16_t>() + row * width_;
    const float largest = gates_.largest(x, matrix_.columns());
    if (std::isfinite(largest) && largest >= kSmallest) {
        step_[row] = largest / kMost;
        gates_.encode(x, kMost / largest, codes, matrix_.columns());
    } else {
        step_[row] = std::isfinite(largest) ? 0 : NAN;
        std::memset(codes, 0, matrix_.columns() * sizeof *codes);
    }
}

void DynamicRows::multiply(std::size_t rows) noexcept {
    const Vectors vectors = {codes_.as<std::int16_t>(), width_, accumulators_.data(), stride_ * sizeof(std::int32_t), rows};
    matrix_.kernel_->multiply_vectors(matrix_.matrix_, vectors, scratch_.data());
}

DynamicLinear::DynamicLinear(const char* kernel, DynamicMatrix&& weight, std::vector<float> bias)
    : gates_(choose_kernel(kernel).gates), weight_(std::move(weight)), bias_(std::move(bias)) {}

void DynamicLinear::run(const float* x, std::size_t rows, float* y) const {
    DynamicRows block(weight_, *gates_, std::min(rows, kRows));
    for (std::size_t first = 0; first < rows; first += kRows) {
        const std::size_t count = std::min(kRows, rows - first);
        for (std::size_t k = 0; k < count; ++k) block.encode(k, x + (first + k) * inputs());
        block.multiply(count);
        for (std::size_t k = 0; k < count; ++k)
            gates_->scale(block.accumulators(k), block.step(k), weight_.steps(), bias_.data(), y + (first + k) * outputs(), outputs());
    }
}

DynamicLayer::DynamicLayer(const char* kernel, DynamicCell cell, DynamicWeights weights)
    : gates_(choose_kernel(kernel).gates),
      cell_(cell),
      weights_(std::move(weights)),
      units_(weights_.input.rows() / (cell == DynamicCell::lstm ? 4 : cell == DynamicCell::gru ? 3 : 1)),
      bias_(weights_.bias_input) {
    const std::size_t joint = cell == DynamicCell::gru ? 2 * units_ : bias_.size();  // n of a GRU keeps its two apart
    for (std::size_t i = 0; i < joint; ++i) bias_[i] += weights_.bias_hidden[i];
    bias_n_.assign(weights_.bias_hidden.begin() + static_cast<std::ptrdiff_t>(joint), weights_.bias_hidden.end());
    if (!weights_.projection.empty()) zeros_.assign(weights_.projection[0].rows(), 0.0f);
}

// Up to kRows rows of a batch, through all frames.
struct DynamicLayer::Block {
    const float* x;
    const std::int64_t* rows;
    const std::size_t* starts;  // of each frame, in x and y
    std::size_t frames, first, most;
    bool reverse;
    float *h, *c, *y;
    DynamicRows *input, *hidden, *projection;
    float *gates, *inner;  // what the gates have of x, for kRows rows; m, of one row of a projection
};

void DynamicLayer::step(Block& block, std::size_t frame, std::size_t count, const float* gates) const {
    const std::size_t n = units_, outputs = this->outputs(), all = weights_.input.rows();
    DynamicRows& hidden = *block.hidden;
    float* h = block.h + block.first * outputs;
    for (std::size_t k = 0; k < count; ++k) hidden.encode(k, h + k * outputs);
    hidden.multiply(count);
    for (std::size_t k = 0; k < count; ++k) {
        const float *x = gates + k * all, *steps = weights_.hidden.steps();
        const std::int32_t* acc = hidden.accumulators(k);
        float* own = h + k * outputs;
        switch (cell_) {
            case DynamicCell::lstm:
                gates_->lstm(x, acc, hidden.step(k), steps, block.c + (block.first + k) * n, block.projection ? block.inner : own, n);
                if (block.projection) block.projection->encode(k, block.inner);
                break;
            case DynamicCell::gru: gates_->gru(x, acc, hidden.step(k), steps, bias_n_.data(), own, n); break;
            case DynamicCell::rnn_tanh: gates_->rnn_tanh(x, acc, hidden.step(k), steps, own, n); break;
            case DynamicCell::rnn_relu: gates_->rnn_relu(x, acc, hidden.step(k), steps, own, n); break;
        }
    }
    if (DynamicRows* projection = block.projection) {
        const DynamicMatrix& matrix = weights_.projection[0];
        projection->multiply(count);
        for (std::size_t k = 0; k < count; ++k)
            gates_->scale(projection->accumulators(k), projection->step(k), matrix.steps(), zeros_.data(), h + k * outputs, outputs);
    }
    std::memcpy(block.y + (block.starts[frame] + block.first) * outputs, h, count * outputs * sizeof *h);
}

void DynamicLayer::run_block(Block& block) const {
    const std::size_t all = weights_.input.rows();
    const auto frame_of = [&](std::size_t t) { return block.reverse ? block.frames - 1 - t : t; };
    const auto count_of = [&](std::size_t frame) {
        const auto rows = static_cast<std::size_t>(block.rows[frame]);
        return rows > block.first ? std::min(rows - block.first, block.most) : 0;
    };
    for (std::size_t t = 0; t < block.frames;) {
        std::size_t count = 0, end = t;  // frames t .. end - 1, whose rows go through W together
        for (; end < block.frames && (end == t || count + count_of(frame_of(end)) <= kRows); ++end) {
            const std::size_t frame = frame_of(end), rows = count_of(frame);
            for (std::size_t k = 0; k < rows; ++k)
                block.input->encode(count++, block.x + (block.starts[frame] + block.first + k) * inputs());
        }
        block.input->multiply(count);
        for (std::size_t k = 0; k < count; ++k)
            gates_->scale(block.input->accumulators(k), block.input->step(k), weights_.input.steps(), bias_.data(),
                          block.gates + k * all, all);
        for (const float* gates = block.gates; t < end; ++t) {
            const std::size_t frame = frame_of(t), rows = count_of(frame);
            if (rows) step(block, frame, rows, gates);
            gates += rows * all;
        }
    }
}

void DynamicLayer::run(const float* x, const std::int64_t* rows, std::size_t frames, bool reverse, float* h, float* c,
                       float* y) const {
    if (frames == 0) return;
    std::vector<std::size_t> starts(frames);
    for (std::size_t t = 1; t < frames; ++t) starts[t] = starts[t - 1] + static_cast<std::size_t>(rows[t - 1]);
    const auto batch = static_cast<std::size_t>(rows[0]);
    const std::size_t total = starts[frames - 1] + static_cast<std::size_t>(rows[frames - 1]);
    const std::size_t most = std::min(kRows, batch), together = std::min(kRows, total);
    if (batch == 0) return;
    DynamicRows input(weights_.input, *gates_, together), hidden(weights_.hidden, *gates_, most);
    std::optional<DynamicRows> projection;
    if (!weights_.projection.empty()) projection.emplace(weights_.projection[0], *gates_, most);
    std::vector<float> gates(together * weights_.input.rows()), inner(units_);
    for (std::size_t first = 0; first < batch; first += kRows) {
        Block block = {x,      rows, starts.data(), frames, first, std::min(kRows, batch - first),
                       reverse, h,   c,             y,      &input, &hidden,
                       projection ? &*projection : nullptr, gates.data(), inner.data()};
        run_block(block);
    }
}

}  // namespace rindle
