// The Python extension rindle._core: rindle.h as three classes. No logic here: sizes, codes and states are checked by the
// C API, types and contiguity by the signatures.
#include <nanobind/nanobind.h>
// after Python.h, which nanobind brings in its own way
#define NPY_NO_DEPRECATED_API NPY_1_23_API_VERSION
#define NPY_TARGET_VERSION NPY_1_23_API_VERSION
#include <numpy/arrayobject.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "api/rindle.h"
#include "bind/dynamic.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

bool is_value_error(rindle_status status) noexcept {
    return status == RINDLE_INVALID_FILE || status == RINDLE_NEWER_VERSION || status == RINDLE_INVALID_ARGUMENT ||
           status == RINDLE_NOT_FINITE;
}

void check(rindle_status status) {
    if (status == RINDLE_OK) return;
    if (is_value_error(status)) throw nb::value_error(rindle_error());
    if (status == RINDLE_NO_MEMORY) {
        PyErr_SetString(PyExc_MemoryError, rindle_error());
        throw nb::python_error();
    }
    throw std::runtime_error(rindle_error());
}

template <class T, int Dimensions>
using In = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Lengths = In<std::int32_t, 1>;

// A new one-dimensional NumPy array.
template <class T>
auto numpy(std::vector<T> values) {
    auto* owned = new std::vector<T>(std::move(values));
    nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::ndarray<nb::numpy, T, nb::ndim<1>>(owned->data(), {owned->size()}, owner);
}

using Theta = std::tuple<std::string, std::string, std::optional<In<std::int16_t, 1>>>;

struct Model {
    rindle_model* handle = nullptr;

    Model(nb::bytes bytes, std::optional<std::string> kernel, std::optional<std::string> part) {
        const char* forced = kernel ? kernel->c_str() : nullptr;
        check(part ? rindle_load_part(bytes.data(), bytes.size(), part->c_str(), forced, &handle)
                   : rindle_load(bytes.data(), bytes.size(), forced, &handle));
    }
    // thresholds: of (node, path); None makes a path dense. id: as rindle_with_thresholds has it.
    Model(const Model& of, const std::vector<Theta>& thresholds, std::optional<std::string> id) {
        std::vector<rindle_threshold> given;
        for (const auto& [node, path, theta] : thresholds)
            given.push_back({node.c_str(), path.c_str(), theta ? theta->data() : nullptr, theta ? theta->size() : 0});
        check(rindle_with_thresholds(of.handle, given.data(), given.size(), id ? id->c_str() : nullptr, &handle));
    }
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;
    ~Model() { rindle_free(handle); }

    // float32 [B * T' * O], or None
    nb::object golden_floats() const {
        const float* floats = rindle_golden_floats(handle);
        if (!floats) return nb::none();
        std::size_t batch, frames;
        const std::int16_t *inputs, *outputs;
        const std::int32_t* lengths;
        rindle_golden(handle, &batch, &frames, &inputs, &lengths, &outputs);
        const std::size_t count = batch * rindle_output_frames(handle, frames) * rindle_output_size(handle);
        return nb::cast(numpy(std::vector<float>(floats, floats + count)));
    }

    nb::list held_paths() const {  // [(node, path, size)]
        nb::list list;
        for (std::size_t i = 0; i < rindle_held_count(handle); ++i) {
            const char *node, *path;
            std::size_t size;
            check(rindle_held(handle, i, &node, &path, &size));
            list.append(nb::make_tuple(node, path, size));
        }
        return list;
    }

    nb::list saturation_places() const {  // [(node, operation index, operation, path)]
        nb::list list;
        for (std::size_t i = 0; i < rindle_saturation_count(handle); ++i) {
            const char *node, *operation, *path;
            int index;
            check(rindle_saturation(handle, i, &node, &index, &operation, &path));
            list.append(nb::make_tuple(node, index, operation, path));
        }
        return list;
    }
};

struct Stream {
    rindle_stream* handle = nullptr;
    const rindle_model* model;

    explicit Stream(const Model& of) : model(of.handle) { check(rindle_stream_new(model, &handle)); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { rindle_stream_free(handle); }

    // The C API takes `lengths` without its number.
    static const std::int32_t* lengths_of(const std::optional<Lengths>& lengths, std::size_t batch) {
        if (lengths && lengths->size() != batch)
            throw nb::value_error(("lengths has " + std::to_string(lengths->size()) + " elements, must have one for each of " +
                                   std::to_string(batch) + " rows").c_str());
        return lengths ? lengths->data() : nullptr;
    }

    // One of the C API's rindle_run*: x [B, T, I], or ids [B, T]
    template <auto function, class X, int dimensions, class Y>
    void run(In<X, dimensions> x, Out<Y> out, std::optional<Lengths> lengths) {
        const std::int32_t* rows = lengths_of(lengths, x.shape(0));
        rindle_status status;
        {
            nb::gil_scoped_release release;
            status = function(handle, x.data(), x.size(), x.shape(0), x.shape(1), rows, out.data(), out.size());
        }
        check(status);
    }

    nb::bytes save() {
        std::string bytes(rindle_state_size(model), '\0');
        check(rindle_state_save(handle, bytes.data(), bytes.size()));
        return nb::bytes(bytes.data(), bytes.size());
    }

    void restore(nb::bytes state) { check(rindle_state_restore(handle, state.data(), state.size())); }

    // (frames [held], changed [held], saturated [places]), each int64
    nb::tuple counters() {
        std::vector<std::uint64_t> frames(rindle_held_count(model)), changed(frames.size()),
            saturated(rindle_saturation_count(model));
        check(rindle_counters(handle, frames.data(), changed.data(), saturated.data()));
        const auto array = [](const std::vector<std::uint64_t>& counts) {
            return numpy(std::vector<std::int64_t>(counts.begin(), counts.end()));
        };
        return nb::make_tuple(array(frames), array(changed), array(saturated));
    }
};

struct Matrix {
    rindle_matrix* handle = nullptr;
    std::size_t rows, columns;
    int code_bits;

    Matrix(In<std::int8_t, 2> weights, int bits, std::optional<std::string> kernel)
        : rows(weights.shape(0)), columns(weights.shape(1)), code_bits(bits) {
        check(rindle_matrix_new(weights.data(), weights.size(), rows, columns, bits, kernel ? kernel->c_str() : nullptr, &handle));
    }
    Matrix(const Matrix&) = delete;
    Matrix& operator=(const Matrix&) = delete;
    ~Matrix() { rindle_matrix_free(handle); }

    template <class Code>
    auto multiply(In<Code, 2> x) const {
        if (x.shape(1) != columns)
            throw nb::value_error(("x has " + std::to_string(x.shape(1)) + " columns, the matrix has " + std::to_string(columns)).c_str());
        const std::size_t n = x.shape(0);
        auto* sums = new std::vector<std::int32_t>(n * rows);
        nb::capsule owner(sums, [](void* p) noexcept { delete static_cast<std::vector<std::int32_t>*>(p); });
        rindle_status status;
        {
            nb::gil_scoped_release release;
            if constexpr (std::is_same_v<Code, std::int8_t>)
                status = rindle_matrix_multiply_bytes(handle, x.data(), x.size(), n, sums->data(), sums->size());
            else
                status = rindle_matrix_multiply(handle, x.data(), x.size(), n, sums->data(), sums->size());
        }
        check(status);
        return nb::ndarray<nb::numpy, std::int32_t, nb::ndim<2>>(sums->data(), {n, rows}, owner);
    }
};

// Stream.step(x, out), called once per frame: NumPy's own API takes a tenth of the time that nanobind's general arrays do.
// x: an array, or the id of a token.
PyArrayObject* vector(PyObject* object, int type, bool written) noexcept {
    if (!PyArray_Check(object)) return nullptr;
    auto* array = reinterpret_cast<PyArrayObject*>(object);
    const bool fits = PyArray_TYPE(array) == type && PyArray_NDIM(array) == 1 &&
                      (written ? PyArray_ISCARRAY(array) : PyArray_ISCARRAY_RO(array));
    return fits ? array : nullptr;
}

template <class Value>
rindle_status step(rindle_stream* stream, PyArrayObject* x, std::int32_t id, PyArrayObject* out) noexcept {
    const auto *in = x ? static_cast<const Value*>(PyArray_DATA(x)) : nullptr;
    auto* y = static_cast<Value*>(PyArray_DATA(out));
    const auto x_count = x ? static_cast<std::size_t>(PyArray_DIM(x, 0)) : 0, y_count = static_cast<std::size_t>(PyArray_DIM(out, 0));
    rindle_status status;
    Py_BEGIN_ALLOW_THREADS
    if constexpr (std::is_same_v<Value, float>)
        status = in ? rindle_step(stream, in, x_count, y, y_count) : rindle_step_id(stream, id, y, y_count);
    else
        status = in ? rindle_step_codes(stream, in, x_count, y, y_count) : rindle_step_id_codes(stream, id, y, y_count);
    Py_END_ALLOW_THREADS
    return status;
}

PyObject* stream_step(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    constexpr const char* kWrong = "step takes a one-dimensional contiguous array, or the id of a token, and an array for the output";
    if (count != 2 || !nb::inst_ready(self)) {
        PyErr_SetString(PyExc_TypeError, kWrong);
        return nullptr;
    }
    rindle_stream* stream = nb::inst_ptr<Stream>(self)->handle;
    PyObject* first = arguments[0];
    long id = 0;
    if (PyLong_Check(first)) {
        int overflow;
        id = PyLong_AsLongAndOverflow(first, &overflow);
        if (overflow || id != static_cast<std::int32_t>(id)) id = -1;  // no table has so many rows
    }
    for (const int type : {NPY_FLOAT32, NPY_INT16}) {
        PyArrayObject *x = vector(first, type, false), *out = vector(arguments[1], type, true);
        if (!out || (!x && !PyLong_Check(first))) continue;
        const rindle_status status = type == NPY_FLOAT32 ? step<float>(stream, x, static_cast<std::int32_t>(id), out)
                                                         : step<std::int16_t>(stream, x, static_cast<std::int32_t>(id), out);
        if (status == RINDLE_OK) Py_RETURN_NONE;
        PyErr_SetString(is_value_error(status) ? PyExc_ValueError : PyExc_RuntimeError, rindle_error());
        return nullptr;
    }
    PyErr_SetString(PyExc_TypeError, kWrong);
    return nullptr;
}

PyMethodDef step_method[] = {
    {"step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(stream_step)), METH_FASTCALL,
     "step(x, out): one frame; float32 or int16 [I] -> [O]"},
    {},
};
PyType_Slot stream_slots[] = {{Py_tp_methods, step_method}, {}};

}  // namespace

NB_MODULE(_core, m) {
    if (PyArray_ImportNumPyAPI() < 0) throw nb::python_error();
    nb::set_leak_warnings(false);  // a model that a global still holds at exit is the user's business
    m.doc() = "The C++ runtime. Use rindle.load and its Model and Stream instead.";

    m.def("kernels", [] {
        nb::list names;
        for (std::size_t i = 0; const char* name = rindle_available_kernel(i); ++i) names.append(name);
        return names;
    }, "The names of the kernels that this CPU has, the fastest first.");

    nb::class_<Model>(m, "Model")
        .def(nb::init<nb::bytes, std::optional<std::string>, std::optional<std::string>>(), "data"_a,
             nb::arg("kernel").none() = nb::none(), nb::arg("part").none() = nb::none())
        .def(nb::init<const Model&, const std::vector<Theta>&, std::optional<std::string>>(), "model"_a, "thresholds"_a,
             nb::arg("id").none() = nb::none(),
             "The same weights with other thresholds: [(node, code path, int16 [1] or [n], or None for dense)].")
        .def_prop_ro("id", [](const Model& self) { return rindle_id(self.handle); })
        .def_prop_ro("kernel", [](const Model& self) { return rindle_kernel(self.handle); })
        .def_prop_ro("input_size", [](const Model& self) { return rindle_input_size(self.handle); })
        .def_prop_ro("vocabulary", [](const Model& self) { return rindle_vocabulary(self.handle); })
        .def_prop_ro("output_size", [](const Model& self) { return rindle_output_size(self.handle); })
        .def_prop_ro("input_scale", [](const Model& self) { return rindle_input_scale(self.handle); })
        .def_prop_ro("output_scale", [](const Model& self) { return rindle_output_scale(self.handle); })
        .def_prop_ro("output_is_float", [](const Model& self) { return rindle_output_is_float(self.handle) != 0; })
        .def("output_frames", [](const Model& self, std::size_t frames) { return rindle_output_frames(self.handle, frames); },
             "frames"_a, "T': frames of the output for T of the input; 0 where they are too few for a window.")
        .def_prop_ro("golden_floats", &Model::golden_floats, "float32 [B * T' * O], where the output is float; else None")
        .def_prop_ro("output_is_sequence", [](const Model& self) { return rindle_output_is_sequence(self.handle) != 0; })
        .def_prop_ro("state_size", [](const Model& self) { return rindle_state_size(self.handle); })
        .def("check_stream", [](const Model& self) { check(rindle_can_stream(self.handle)); },
             "Raises RuntimeError, with the node, where frames cannot be given one by one.")
        .def_prop_ro("held_paths", &Model::held_paths, "[(node, path, size)]")
        .def_prop_ro("saturation_places", &Model::saturation_places, "[(node, operation index, operation, path)]");

    nb::class_<Stream> stream(m, "Stream", nb::type_slots(stream_slots));
    const auto run = [&](auto method) {
        stream.def("run", method, nb::arg("x").noconvert(), nb::arg("out").noconvert(), nb::arg("lengths").noconvert().none() = nb::none());
    };
    run(&Stream::run<rindle_run, float, 3, float>);
    run(&Stream::run<rindle_run_codes, std::int16_t, 3, std::int16_t>);
    run(&Stream::run<rindle_run_ids, std::int32_t, 2, float>);
    run(&Stream::run<rindle_run_ids_codes, std::int32_t, 2, std::int16_t>);
    stream
        .def(nb::init<const Model&>(), "model"_a, nb::keep_alive<1, 2>())
        .def("reset", [](Stream& self) { check(rindle_reset(self.handle)); })
        .def("save", &Stream::save)
        .def("restore", &Stream::restore, "state"_a)
        .def("counters", &Stream::counters, "(frames, changed) of each held path, saturated of each place")
        .def("reset_counters", [](Stream& self) { check(rindle_reset_counters(self.handle)); });

    nb::class_<Matrix>(m, "Matrix",
                       "Packs int8 weights [rows, columns], each in -127..127, for the kernel's product of many vectors.\n\n"
                       "Matrix(weights, code_bits=8, kernel=None): code_bits, 2..16, is the width of the codes that it will meet, which\n"
                       "lie in -(2**(code_bits - 1) - 1)..2**(code_bits - 1) - 1. kernel: one of kernels(); None takes the fastest.\n"
                       "Raises ValueError where a weight is -128, or where a row's sum could leave int32 (with the code_bits that fit).\n"
                       "A matrix never changes, and any number of threads may multiply with it at once.")
        .def(nb::init<In<std::int8_t, 2>, int, std::optional<std::string>>(), nb::arg("weights").noconvert(), "code_bits"_a = 8,
             nb::arg("kernel").none() = nb::none())
        .def("multiply", &Matrix::multiply<std::int8_t>, nb::arg("x").noconvert(),
             "Multiplies codes, contiguous int8 or int16 [n, columns], by the weights: a new int32 array [n, rows] of exact sums.\n\n"
             "n may be 0. Raises ValueError for a code out of range, or another number of columns.")
        .def("multiply", &Matrix::multiply<std::int16_t>, nb::arg("x").noconvert())
        .def_ro("rows", &Matrix::rows)
        .def_ro("columns", &Matrix::columns)
        .def_ro("code_bits", &Matrix::code_bits);

    bind_dynamic(m);
}
