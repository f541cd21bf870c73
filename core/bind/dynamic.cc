// Layers that are quantized dynamically (run/dynamic.h) for Python. Shapes are checked here, where the arrays are.
#include "bind/dynamic.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "file/error.h"
#include "run/dynamic.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T, int Dimensions>
using In = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
template <int Dimensions>
using Out = nb::ndarray<float, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
using Codes = In<std::int8_t, 2>;
using Floats = In<float, 1>;

constexpr const char* kNotFinite = "the input holds NaN or infinity; give finite values";

void demand(bool condition, const std::string& what) {
    if (!condition) throw nb::value_error(what.c_str());
}

const char* name_of(const std::optional<std::string>& kernel) { return kernel ? kernel->c_str() : nullptr; }

template <class Function>
auto guarded(Function&& function) {
    try {
        return function();
    } catch (const rindle::Error& error) {
        throw nb::value_error(error.what());
    }
}

rindle::DynamicMatrix matrix(const char* kernel, const Codes& codes, const Floats& steps) {
    demand(steps.shape(0) == codes.shape(0), "steps must have an element for every row of the codes");
    demand(std::find(codes.data(), codes.data() + codes.size(), -128) == codes.data() + codes.size(), "a code is -128; the least is -127");
    return rindle::DynamicMatrix(rindle::choose_kernel(kernel), codes.data(), codes.shape(0), codes.shape(1), steps.data());
}

std::vector<float> vector_of(const Floats& values, std::size_t size) {
    demand(values.size() == size, "a bias has " + std::to_string(values.size()) + " elements, must have " + std::to_string(size));
    return {values.data(), values.data() + values.size()};
}

void make_linear(rindle::DynamicLinear* self, Codes codes, Floats steps, Floats bias, std::optional<std::string> kernel) {
    guarded([&] { new (self) rindle::DynamicLinear(name_of(kernel), matrix(name_of(kernel), codes, steps), vector_of(bias, codes.shape(0))); });
}

bool finite(const float* values, std::size_t size) {
    return std::isfinite(rindle::kPortableGates.largest(values, size));
}

void run_linear(const rindle::DynamicLinear& self, In<float, 2> x, Out<2> y) {
    demand(x.shape(1) == self.inputs() && y.shape(0) == x.shape(0) && y.shape(1) == self.outputs(), "x and y do not fit the matrix");
    demand(finite(x.data(), x.size()), kNotFinite);
    nb::gil_scoped_release release;
    self.run(x.data(), x.shape(0), y.data());
}

rindle::DynamicCell cell_of(const std::string& name) {
    if (name == "lstm" || name == "lstm_projection") return rindle::DynamicCell::lstm;
    if (name == "gru") return rindle::DynamicCell::gru;
    if (name == "rnn_tanh") return rindle::DynamicCell::rnn_tanh;
    demand(name == "rnn_relu", "the cell " + name + " is none of lstm, lstm_projection, gru, rnn_tanh, rnn_relu");
    return rindle::DynamicCell::rnn_relu;
}

struct Weight {
    Codes codes;
    Floats steps;
};

Weight pair(nb::handle one) { return {nb::cast<Codes>(one[0], false), nb::cast<Floats>(one[1], false)}; }

void make_layer(rindle::DynamicLayer* self, std::string cell, nb::list weights, Floats bias_input, Floats bias_hidden,
                std::optional<std::string> kernel) {
    const rindle::DynamicCell kind = cell_of(cell);
    const bool projected = cell == "lstm_projection";
    demand(weights.size() == (projected ? 3U : 2U), "the weights are W, U and, of a projection, V");
    const Weight w = pair(weights[0]), u = pair(weights[1]);
    const std::size_t gates = kind == rindle::DynamicCell::lstm ? 4 : kind == rindle::DynamicCell::gru ? 3 : 1;
    const std::size_t rows = w.codes.shape(0), units = rows / gates;
    demand(units > 0 && rows == gates * units && u.codes.shape(0) == rows, "W and U do not have the rows of the cell's gates");
    std::vector<rindle::DynamicMatrix> projection;
    guarded([&] {
        const char* name = name_of(kernel);
        std::size_t outputs = units;
        if (projected) {
            const Weight v = pair(weights[2]);
            outputs = v.codes.shape(0);
            demand(v.codes.shape(1) == units, "V must have a column for every unit");
            projection.push_back(matrix(name, v.codes, v.steps));
        }
        demand(u.codes.shape(1) == outputs, "U must have a column for every element of h");
        new (self) rindle::DynamicLayer(
            name, kind,
            {matrix(name, w.codes, w.steps), matrix(name, u.codes, u.steps), std::move(projection), vector_of(bias_input, rows),
             vector_of(bias_hidden, rows)});
    });
}

void run_layer(const rindle::DynamicLayer& self, In<float, 2> x, In<std::int64_t, 1> rows, bool reverse, Out<2> h,
               std::optional<Out<2>> c, Out<2> y) {
    const std::size_t frames = rows.shape(0);
    std::size_t total = 0, before = frames ? static_cast<std::size_t>(rows(0)) : 0;
    for (std::size_t t = 0; t < frames; ++t) {
        const auto now = static_cast<std::size_t>(rows(t));  // a negative one exceeds what was before
        demand(now <= before, "the rows of a frame must fall");
        total += before = now;
    }
    const std::size_t batch = frames ? static_cast<std::size_t>(rows(0)) : h.shape(0);
    demand(x.shape(0) == total && y.shape(0) == total, "x and y must have a row for every row of every frame");
    demand(x.shape(1) == self.inputs(), "x must have " + std::to_string(self.inputs()) + " columns");
    demand(y.shape(1) == self.outputs() && h.shape(1) == self.outputs() && h.shape(0) == batch, "h and y do not fit the layer");
    demand(c.has_value() == self.has_cell_state(), "c is of an LSTM alone");
    if (c) demand(c->shape(0) == batch && c->shape(1) == self.units(), "c does not fit the layer");
    demand(finite(x.data(), x.size()), kNotFinite);
    demand(finite(h.data(), h.size()) && (!c || finite(c->data(), c->size())),
           "an initial state holds NaN or infinity; give finite values");
    nb::gil_scoped_release release;
    self.run(x.data(), rows.data(), frames, reverse, h.data(), c ? c->data() : nullptr, y.data());
}

}  // namespace

void bind_dynamic(nb::module_& m) {
    nb::class_<rindle::DynamicLinear>(m, "DynamicLinear", "W x + b with int8 weights, and codes of x that are scaled per row.")
        .def("__init__", &make_linear, nb::arg("codes").noconvert(), nb::arg("steps").noconvert(), nb::arg("bias").noconvert(),
             nb::arg("kernel").none() = nb::none())
        .def("run", &run_linear, nb::arg("x").noconvert(), nb::arg("y").noconvert());
    nb::class_<rindle::DynamicLayer>(m, "DynamicLayer", "One direction of one layer: products in integers, the rest in float.")
        .def("__init__", &make_layer, "cell"_a, "weights"_a, nb::arg("bias_input").noconvert(), nb::arg("bias_hidden").noconvert(),
             nb::arg("kernel").none() = nb::none())
        .def("run", &run_layer, nb::arg("x").noconvert(), nb::arg("rows").noconvert(), "reverse"_a, nb::arg("h").noconvert(),
             nb::arg("c").noconvert().none(), nb::arg("y").noconvert(),
             "Frames behind one another in x [sum of rows, I] and y [.., P]; h and c: initial states, then final ones.");
}
