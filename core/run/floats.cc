#include "run/floats.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace rindle {
namespace {

// exp(x - max) / sum and its logarithm, (x - max) - log sum: the largest first, so that no power overflows.
void softmax(const float* x, std::size_t n, bool logarithm, float* y) noexcept {
    const double largest = *std::max_element(x, x + n);
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += std::exp(x[i] - largest);
    const double log_sum = std::log(sum);
    for (std::size_t i = 0; i < n; ++i) {
        const double v = x[i] - largest;
        y[i] = static_cast<float>(logarithm ? v - log_sum : std::exp(v) / sum);
    }
}

// (x - mean) / sqrt(variance + epsilon) * weight + bias, with the variance of the features themselves (divided by n).
void layer_norm(const FloatWork& work, const float* x, float* y) noexcept {
    const auto n = static_cast<double>(work.size);
    double mean = 0, variance = 0;
    for (std::size_t i = 0; i < work.size; ++i) mean += x[i];
    mean /= n;
    for (std::size_t i = 0; i < work.size; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const double deviation = std::sqrt(variance / n + work.epsilon);
    const float *weight = work.weight.as<float>(), *bias = work.bias.as<float>();
    for (std::size_t i = 0; i < work.size; ++i)
        y[i] = static_cast<float>((x[i] - mean) / deviation * (weight ? weight[i] : 1.0) + (bias ? bias[i] : 0.0));
}

void linear(const FloatWork& work, const float* x, float* y) noexcept {
    const std::size_t columns = work.in[0].size;
    const float *w = work.weight.as<float>(), *bias = work.bias.as<float>();
    for (std::size_t r = 0; r < work.size; ++r, w += columns) {
        double sum = bias ? bias[r] : 0.0;
        for (std::size_t k = 0; k < columns; ++k) sum += static_cast<double>(w[k]) * x[k];
        y[r] = static_cast<float>(sum);
    }
}

template <class Function>
void each(const FloatWork& work, const float* x, float* y, Function&& f) noexcept {
    for (std::size_t i = 0; i < work.size; ++i) y[i] = static_cast<float>(f(static_cast<double>(x[i])));
}

double gelu(double x) noexcept { return 0.5 * x * (1 + std::erf(x / std::numbers::sqrt2)); }  // x times the normal distribution

double gelu_tanh(double x) noexcept {  // Hendrycks and Gimpel 2016 (arXiv 1606.08415)
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

}  // namespace

void evaluate(const FloatWork& work, const float* a, const float* b, float* y) noexcept {
    switch (work.kind) {
        case FloatKind::softmax:
        case FloatKind::log_softmax: {
            const std::size_t n = work.size / work.groups;
            for (std::size_t i = 0; i < work.size; i += n) softmax(a + i, n, work.kind == FloatKind::log_softmax, y + i);
            break;
        }
        case FloatKind::relu: return each(work, a, y, [](double x) { return x > 0 ? x : 0.0; });
        case FloatKind::sigmoid: return each(work, a, y, [](double x) { return 1 / (1 + std::exp(-x)); });
        case FloatKind::tanh: return each(work, a, y, [](double x) { return std::tanh(x); });
        case FloatKind::gelu: return each(work, a, y, gelu);
        case FloatKind::gelu_tanh: return each(work, a, y, gelu_tanh);
        case FloatKind::layer_norm: return layer_norm(work, a, y);
        case FloatKind::linear: return linear(work, a, y);
        case FloatKind::add:
            for (std::size_t i = 0; i < work.size; ++i) y[i] = static_cast<float>(static_cast<double>(a[i]) + b[i]);
            break;
        case FloatKind::mul:
            for (std::size_t i = 0; i < work.size; ++i) y[i] = static_cast<float>(static_cast<double>(a[i]) * b[i]);
            break;
        case FloatKind::attention: break;  // Stream::attend
    }
}

}  // namespace rindle
