// Element-wise work in float of a layer that is quantized dynamically (run/dynamic.h): plain loops, compiled once per instruction
// set. Only + - x / and conversions, without contraction, so every one of them gives the same floats.
//
// acc: a product's int32 accumulators, whose value is acc * (step * steps[row]); steps: of the weights' rows; step: of the codes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rindle {

struct Gates {
    // The largest |x|; infinite or NaN where some x is.
    float (*largest)(const float* x, std::size_t size) noexcept;
    // Codes x * r, rounded to the nearest; |x * r| < 2^15.
    void (*encode)(const float* x, float r, std::int16_t* codes, std::size_t size) noexcept;
    // y = value of acc, + bias
    void (*scale)(const std::int32_t* acc, float step, const float* steps, const float* bias, float* y, std::size_t size) noexcept;

    // One row of a layer of n units. x: what the gates have of the input, both biases included, gate after gate: i, f, g, o of
    // an LSTM; r, z, n of a GRU, n's without bias_n, which is added to U h. Updates c and h; of a projection m, o * tanh(c), stands
    // in the place of h.
    void (*lstm)(const float* x, const std::int32_t* acc, float step, const float* steps, float* c, float* h, std::size_t n) noexcept;
    void (*gru)(const float* x, const std::int32_t* acc, float step, const float* steps, const float* bias_n, float* h,
                std::size_t n) noexcept;
    void (*rnn_tanh)(const float* x, const std::int32_t* acc, float step, const float* steps, float* h, std::size_t n) noexcept;
    void (*rnn_relu)(const float* x, const std::int32_t* acc, float step, const float* steps, float* h, std::size_t n) noexcept;
};

extern const Gates kPortableGates;
#ifdef RINDLE_X86
extern const Gates kAvx2Gates, kAvx512Gates;
#endif

}  // namespace rindle
