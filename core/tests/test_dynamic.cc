// Layers that are quantized dynamically: every kernel gives the same floats, and a row those that it would have alone.
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "run/dynamic.h"

namespace {

using namespace rindle;
using Floats = std::vector<float>;

std::mt19937 generator(7);

Floats floats(std::size_t size) {
    std::normal_distribution<float> normal;
    Floats values(size);
    for (float& value : values) value = normal(generator);
    return values;
}

struct Plain {  // of one matrix
    std::size_t rows, columns;
    std::vector<std::int8_t> codes;
    Floats steps;

    Plain(std::size_t rows, std::size_t columns) : rows(rows), columns(columns), codes(rows * columns), steps(rows, 0.004f) {
        for (auto& code : codes) code = static_cast<std::int8_t>(std::uniform_int_distribution(-127, 127)(generator));
    }
    DynamicMatrix packed(const char* kernel) const { return {choose_kernel(kernel), codes.data(), rows, columns, steps.data()}; }
};

struct Layer {
    DynamicCell cell;
    std::size_t inputs = 5, units, outputs;
    Plain w, u, v;
    Floats bias_input, bias_hidden;

    Layer(DynamicCell cell, std::size_t gates, std::size_t units, std::size_t projected)
        : cell(cell),
          units(units),
          outputs(projected ? projected : units),
          w(gates * units, inputs),
          u(gates * units, outputs),
          v(projected, units),
          bias_input(floats(gates * units)),
          bias_hidden(floats(gates * units)) {}

    DynamicLayer packed(const char* kernel) const {
        std::vector<DynamicMatrix> projection;
        if (v.rows) projection.push_back(v.packed(kernel));
        return {kernel, cell, {w.packed(kernel), u.packed(kernel), std::move(projection), bias_input, bias_hidden}};
    }
};

struct Result {
    Floats y, h, c;
    bool operator==(const Result&) const = default;
};

Result run(const Layer& layer, const char* kernel, const Floats& x, const std::vector<std::int64_t>& rows, bool reverse, Floats h, Floats c) {
    Floats y(x.size() / layer.inputs * layer.outputs);
    layer.packed(kernel).run(x.data(), rows.data(), rows.size(), reverse, h.data(), c.data(), y.data());
    return {y, h, c};
}

// Rows of falling length, more than a block of them, from their own states: each as it is alone.
void test_layer(const Layer& layer, bool reverse) {
    const std::vector<std::int64_t> rows = {61, 61, 50, 25, 24, 1, 1};
    std::size_t total = 0;
    for (const auto count : rows) total += static_cast<std::size_t>(count);
    const Floats x = floats(total * layer.inputs), h = floats(61 * layer.outputs), c = floats(61 * layer.units);
    const Result all = run(layer, "portable", x, rows, reverse, h, c);
    const KernelList kernels = available_kernels();
    for (std::size_t k = 0; k < kernels.count; ++k) CHECK(run(layer, kernels.kernels[k]->name, x, rows, reverse, h, c) == all);
    for (const std::size_t row : {0U, 23U, 24U, 49U, 60U}) {
        Floats own, wanted;
        std::vector<std::int64_t> frames;
        std::size_t start = 0;
        for (const auto count : rows) {
            if (row < static_cast<std::size_t>(count)) {
                const std::size_t at = start + row;
                own.insert(own.end(), x.data() + at * layer.inputs, x.data() + (at + 1) * layer.inputs);
                wanted.insert(wanted.end(), all.y.data() + at * layer.outputs, all.y.data() + (at + 1) * layer.outputs);
                frames.push_back(1);
            }
            start += static_cast<std::size_t>(count);
        }
        const auto part = [row](const Floats& values, std::size_t size) {
            return Floats(values.data() + row * size, values.data() + (row + 1) * size);
        };
        const Result alone = run(layer, nullptr, own, frames, reverse, part(h, layer.outputs), part(c, layer.units));
        CHECK(alone.y == wanted && alone.h == part(all.h, layer.outputs));
        CHECK(alone.c == part(all.c, layer.units));  // unchanged where the cell has none
    }
}

void test_linear() {
    const Plain w(33, 70);
    const Floats x = floats(50 * w.columns), bias = floats(w.rows);
    const KernelList kernels = available_kernels();
    Floats first;
    for (std::size_t k = 0; k < kernels.count; ++k) {
        const char* name = kernels.kernels[k]->name;
        Floats y(50 * w.rows);
        DynamicLinear(name, w.packed(name), bias).run(x.data(), 50, y.data());
        if (k == 0) first = y;
        CHECK(y == first);
        double worst = 0, largest = 0;
        for (std::size_t n = 0; n < 50; ++n)
            for (std::size_t r = 0; r < w.rows; ++r) {
                double sum = bias[r];
                for (std::size_t i = 0; i < w.columns; ++i)
                    sum += static_cast<double>(w.codes[r * w.columns + i]) * w.steps[r] * x[n * w.columns + i];
                worst = std::max(worst, std::abs(sum - y[n * w.rows + r]));
                largest = std::max(largest, std::abs(sum));
            }
        CHECK(worst < 0.01 * largest && worst > 0);
    }
}

}  // namespace

void test_dynamic() {
    test_linear();
    for (const bool reverse : {false, true}) {
        test_layer(Layer(DynamicCell::lstm, 4, 19, 0), reverse);
        test_layer(Layer(DynamicCell::lstm, 4, 40, 7), reverse);
        test_layer(Layer(DynamicCell::gru, 3, 33, 0), reverse);
        test_layer(Layer(DynamicCell::rnn_tanh, 1, 1, 0), reverse);
        test_layer(Layer(DynamicCell::rnn_relu, 1, 17, 0), reverse);
    }
}
