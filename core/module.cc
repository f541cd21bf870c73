// The Python extension rindle._core: rindle.h as two classes. No logic here: sizes, codes and states are checked by the
// C API, types and contiguity by the signatures.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "rindle.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

void check(rindle_status status) {
    switch (status) {
        case RINDLE_OK: return;
        case RINDLE_INVALID_FILE:
        case RINDLE_NEWER_VERSION:
        case RINDLE_INVALID_ARGUMENT:
        case RINDLE_NOT_FINITE: throw nb::value_error(rindle_error());
        case RINDLE_NO_MEMORY: PyErr_SetString(PyExc_MemoryError, rindle_error()); throw nb::python_error();
        default: throw std::runtime_error(rindle_error());
    }
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

struct Model {
    rindle_model* handle = nullptr;

    Model(nb::bytes bytes, std::optional<std::string> kernel) {
        check(rindle_load(bytes.data(), bytes.size(), kernel ? kernel->c_str() : nullptr, &handle));
    }
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;
    ~Model() { rindle_free(handle); }

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

    void step(In<float, 1> x, Out<float> out) {
        rindle_status status;
        {
            nb::gil_scoped_release release;
            status = rindle_step(handle, x.data(), x.size(), out.data(), out.size());
        }
        check(status);
    }

    void step_codes(In<std::int16_t, 1> x, Out<std::int16_t> out) {
        rindle_status status;
        {
            nb::gil_scoped_release release;
            status = rindle_step_codes(handle, x.data(), x.size(), out.data(), out.size());
        }
        check(status);
    }

    void step_id(std::int32_t id, Out<float> out) {
        rindle_status status;
        {
            nb::gil_scoped_release release;
            status = rindle_step_id(handle, id, out.data(), out.size());
        }
        check(status);
    }

    void step_id_codes(std::int32_t id, Out<std::int16_t> out) {
        rindle_status status;
        {
            nb::gil_scoped_release release;
            status = rindle_step_id_codes(handle, id, out.data(), out.size());
        }
        check(status);
    }

    // The C API takes `lengths` without its number.
    static const std::int32_t* lengths_of(const std::optional<Lengths>& lengths, std::size_t batch) {
        if (lengths && lengths->size() != batch)
            throw nb::value_error(("lengths has " + std::to_string(lengths->size()) + " elements, must have one for each of " +
                                   std::to_string(batch) + " rows").c_str());
        return lengths ? lengths->data() : nullptr;
    }

    void run(In<float, 3> x, Out<float> out, std::optional<Lengths> lengths) {
        const std::int32_t* rows = lengths_of(lengths, x.shape(0));
        rindle_status status;
        {
            nb::gil_scoped_release release;
            status = rindle_run(handle, x.data(), x.size(), x.shape(0), x.shape(1), rows, out.data(), out.size());
        }
        check(status);
    }

    void run_codes(In<std::int16_t, 3> x, Out<std::int16_t> out, std::optional<Lengths> lengths) {
        const std::int32_t* rows = lengths_of(lengths, x.shape(0));
        rindle_status status;
        {
            nb::gil_scoped_release release;
            status = rindle_run_codes(handle, x.data(), x.size(), x.shape(0), x.shape(1), rows, out.data(), out.size());
        }
        check(status);
    }

    void run_ids(In<std::int32_t, 2> ids, Out<float> out, std::optional<Lengths> lengths) {
        const std::int32_t* rows = lengths_of(lengths, ids.shape(0));
        rindle_status status;
        {
            nb::gil_scoped_release release;
            status = rindle_run_ids(handle, ids.data(), ids.size(), ids.shape(0), ids.shape(1), rows, out.data(), out.size());
        }
        check(status);
    }

    void run_ids_codes(In<std::int32_t, 2> ids, Out<std::int16_t> out, std::optional<Lengths> lengths) {
        const std::int32_t* rows = lengths_of(lengths, ids.shape(0));
        rindle_status status;
        {
            nb::gil_scoped_release release;
            status = rindle_run_ids_codes(handle, ids.data(), ids.size(), ids.shape(0), ids.shape(1), rows, out.data(),
                                          out.size());
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

}  // namespace

NB_MODULE(_core, m) {
    nb::set_leak_warnings(false);  // a model that a global still holds at exit is the user's business
    m.doc() = "The C++ runtime. Use rindle.load and its Model and Stream instead.";

    nb::class_<Model>(m, "Model")
        .def(nb::init<nb::bytes, std::optional<std::string>>(), "data"_a, nb::arg("kernel").none() = nb::none())
        .def_prop_ro("id", [](const Model& self) { return rindle_id(self.handle); })
        .def_prop_ro("kernel", [](const Model& self) { return rindle_kernel(self.handle); })
        .def_prop_ro("input_size", [](const Model& self) { return rindle_input_size(self.handle); })
        .def_prop_ro("vocabulary", [](const Model& self) { return rindle_vocabulary(self.handle); })
        .def_prop_ro("output_size", [](const Model& self) { return rindle_output_size(self.handle); })
        .def_prop_ro("input_scale", [](const Model& self) { return rindle_input_scale(self.handle); })
        .def_prop_ro("output_scale", [](const Model& self) { return rindle_output_scale(self.handle); })
        .def_prop_ro("output_is_sequence", [](const Model& self) { return rindle_output_is_sequence(self.handle) != 0; })
        .def_prop_ro("state_size", [](const Model& self) { return rindle_state_size(self.handle); })
        .def("check_stream", [](const Model& self) { check(rindle_can_stream(self.handle)); },
             "Raises RuntimeError, with the node, where frames cannot be given one by one.")
        .def_prop_ro("held_paths", &Model::held_paths, "[(node, path, size)]")
        .def_prop_ro("saturation_places", &Model::saturation_places, "[(node, operation index, operation, path)]");

    nb::class_<Stream>(m, "Stream")
        .def(nb::init<const Model&>(), "model"_a, nb::keep_alive<1, 2>())
        .def("reset", [](Stream& self) { check(rindle_reset(self.handle)); })
        .def("step", &Stream::step, nb::arg("x").noconvert(), nb::arg("out").noconvert())
        .def("step", &Stream::step_codes, nb::arg("x").noconvert(), nb::arg("out").noconvert())
        .def("step", &Stream::step_id, nb::arg("x").noconvert(), nb::arg("out").noconvert())
        .def("step", &Stream::step_id_codes, nb::arg("x").noconvert(), nb::arg("out").noconvert())
        .def("run", &Stream::run, nb::arg("x").noconvert(), nb::arg("out").noconvert(),
             nb::arg("lengths").noconvert().none() = nb::none())
        .def("run", &Stream::run_codes, nb::arg("x").noconvert(), nb::arg("out").noconvert(),
             nb::arg("lengths").noconvert().none() = nb::none())
        .def("run", &Stream::run_ids, nb::arg("x").noconvert(), nb::arg("out").noconvert(),
             nb::arg("lengths").noconvert().none() = nb::none())
        .def("run", &Stream::run_ids_codes, nb::arg("x").noconvert(), nb::arg("out").noconvert(),
             nb::arg("lengths").noconvert().none() = nb::none())
        .def("save", &Stream::save)
        .def("restore", &Stream::restore, "state"_a)
        .def("counters", &Stream::counters, "(frames, changed) of each held path, saturated of each place")
        .def("reset_counters", [](Stream& self) { check(rindle_reset_counters(self.handle)); });
}
