// Layers that are quantized dynamically: products in integers, everything else in float. Weights are int8 with a step per row; what
// enters a product (a row of x, of h) becomes 8-bit codes, whose step is its own largest magnitude / 127. So a row of a batch never
// depends on its neighbours. Outside the promise of equal bits to a .rindle file, yet the same on every kernel.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/gates.h"
#include "kernels/kernels.h"
#include "plan/model.h"

namespace rindle {

// W [rows, columns], packed.
class DynamicMatrix {
  public:
    // Throws Error where there are so many columns that a sum might leave 32 bits.
    DynamicMatrix(const Kernel& kernel, const std::int8_t* codes, std::size_t rows, std::size_t columns, const float* steps);

    std::size_t rows() const noexcept { return static_cast<std::size_t>(matrix_.rows); }
    std::size_t columns() const noexcept { return static_cast<std::size_t>(matrix_.columns); }
    const float* steps() const noexcept { return steps_.data(); }

  private:
    friend class DynamicRows;
    const Kernel* kernel_;
    Matrix matrix_;
    Buffer packed_;
    std::vector<float> steps_;
};

// Memory for the products of a block of rows with one matrix, and the codes of these rows.
class DynamicRows {
  public:
    DynamicRows(const DynamicMatrix& matrix, const Gates& gates, std::size_t most);

    // Makes row `row` of the block codes of x [columns]. NaN or infinity makes every product of the row NaN.
    void encode(std::size_t row, const float* x) noexcept;
    void multiply(std::size_t rows) noexcept;  // the first so many of the block
    const std::int32_t* accumulators(std::size_t row) const noexcept { return accumulators_.as<std::int32_t>() + row * stride_; }
    float step(std::size_t row) const noexcept { return step_[row]; }  // of the row's codes

  private:
    const DynamicMatrix& matrix_;
    const Gates& gates_;
    std::size_t stride_, width_;  // elements between rows of accumulators, of codes
    Buffer codes_, accumulators_, scratch_;
    std::vector<float> step_;
};

// y [rows, W's rows] = W x + bias of x [rows, columns]
class DynamicLinear {
  public:
    DynamicLinear(const char* kernel, DynamicMatrix&& weight, std::vector<float> bias);
    void run(const float* x, std::size_t rows, float* y) const;

    std::size_t inputs() const noexcept { return weight_.columns(); }
    std::size_t outputs() const noexcept { return weight_.rows(); }

  private:
    const Gates* gates_;
    DynamicMatrix weight_;
    std::vector<float> bias_;
};

enum class DynamicCell { lstm, gru, rnn_tanh, rnn_relu };

// One direction of one layer.
struct DynamicWeights {
    DynamicMatrix input, hidden;          // W [gates * H, I], U [gates * H, P]
    std::vector<DynamicMatrix> projection;  // one [P, H], or none: then P = H
    std::vector<float> bias_input, bias_hidden;  // [gates * H]
};

class DynamicLayer {
  public:
    DynamicLayer(const char* kernel, DynamicCell cell, DynamicWeights weights);

    // Frames of falling numbers of rows: rows[t] of frame t stand behind one another in x [sum of rows, I], and so in y [.., P]. h
    // [rows[0], P] and, of an LSTM, c [rows[0], H] hold the initial states, and afterwards each row's final ones. reverse: from each
    // row's last frame to its first.
    void run(const float* x, const std::int64_t* rows, std::size_t frames, bool reverse, float* h, float* c, float* y) const;

    std::size_t inputs() const noexcept { return weights_.input.columns(); }
    std::size_t outputs() const noexcept { return weights_.hidden.columns(); }  // P
    std::size_t units() const noexcept { return units_; }                       // H
    bool has_cell_state() const noexcept { return cell_ == DynamicCell::lstm; }

  private:
    struct Block;
    void run_block(Block& block) const;
    void step(Block& block, std::size_t frame, std::size_t count, const float* gates) const;

    const Gates* gates_;
    DynamicCell cell_;
    DynamicWeights weights_;
    std::size_t units_;
    std::vector<float> bias_, bias_n_, zeros_;  // what is added to W x; to n's share of a GRU's U h; to a projection
};

}  // namespace rindle
