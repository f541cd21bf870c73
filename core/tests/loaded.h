// A small model, loaded; and what tests ask of it.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "check.h"
#include "tools/golden_run.h"
#include "api/rindle.h"
#include "small_model.h"

struct Loaded {
    std::unique_ptr<rindle_model, Free> model;
    std::unique_ptr<rindle_stream, Free> stream;

    explicit Loaded(const SmallModel& small, const char* kernel = nullptr) {
        const std::string file = small.file();
        rindle_model* loaded = nullptr;
        rindle_stream* created = nullptr;
        if (rindle_load(file.data(), file.size(), kernel, &loaded) || rindle_stream_new(loaded, &created)) {
            std::printf("test error: the model does not load: %s\n%s\n", rindle_error(), small.document.c_str());
            std::exit(2);
        }
        model.reset(loaded);
        stream.reset(created);
    }

    // Whole rows [batch, frames, features] of codes
    template <class Value = std::int16_t>
    std::vector<Value> run(const std::vector<std::int16_t>& x, std::size_t batch, const std::vector<std::int32_t>& lengths = {}) {
        const std::size_t frames = x.size() / batch / rindle_input_size(model.get());
        std::vector<Value> y(batch * rindle_output_frames(model.get(), frames) * rindle_output_size(model.get()), Value{99});
        const std::int32_t* of_rows = lengths.empty() ? nullptr : lengths.data();
        if constexpr (sizeof(Value) == sizeof(std::int16_t)) {
            CHECK(rindle_run_codes(stream.get(), x.data(), x.size(), batch, frames, of_rows, y.data(), y.size()) == RINDLE_OK);
        } else {
            std::vector<float> values;
            for (std::int16_t code : x) values.push_back(static_cast<float>(code * rindle_input_scale(model.get())));
            CHECK(rindle_run(stream.get(), values.data(), x.size(), batch, frames, of_rows, y.data(), y.size()) == RINDLE_OK);
        }
        return y;
    }
};

inline bool said(const std::string& text) { return std::string(rindle_error()).find(text) != std::string::npos; }

struct Rule {
    const char *from, *to, *message;
};

// The file is refused, and the message has these words.
inline void refused(const SmallModel& model, const std::string& message) {
    const std::string file = model.file();
    rindle_model* loaded = nullptr;
    const rindle_status status = rindle_load(file.data(), file.size(), "portable", &loaded);
    rindle_free(loaded);
    if (status == RINDLE_INVALID_FILE && said(message)) return;
    std::printf("expected \"%s\", got %d with \"%s\"\n", message.c_str(), status, status ? rindle_error() : "");
    ++failures;
}

template <std::size_t Count>
void refuses_each(const SmallModel& model, const Rule (&rules)[Count]) {
    for (const Rule& rule : rules) {
        SmallModel broken = model;
        broken.document = replaced(model.document, rule.from, rule.to);
        refused(broken, rule.message);
    }
}

// The document of a model of frames of codes with `frac` fraction bits; its golden vector is one row of so many frames.
inline SmallModel sample(const std::string& nodes, const std::string& output, std::size_t features, std::size_t frames, int frac = 0) {
    SmallModel model;
    model.tensors.clear();
    model.document = R"({"version": 3, "id": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
 "input": {"size": )" + std::to_string(features) + R"(, "format": {"bits": 16, "frac": )" + std::to_string(frac) +
                     R"(}}, "output": ")" + output + R"(", "tables": {}, "provenance": {}, "nodes": [)" + nodes + R"(],
 "golden": {"inputs": "golden.inputs", "outputs": "golden.outputs", "lengths": "golden.lengths"}})";
    std::vector<std::int16_t> x;
    for (std::size_t i = 0; i < features * frames; ++i) x.push_back(static_cast<std::int16_t>(37 * i % 101) - 50);
    model.set<std::int16_t>("golden.inputs", "I16", "[1," + std::to_string(frames) + "," + std::to_string(features) + "]", x);
    model.set<std::int32_t>("golden.lengths", "I32", "[1]", {static_cast<std::int32_t>(frames)});
    return model;
}

// Golden outputs of this shape, first zeros, and then what the portable kernel makes of the inputs.
template <class Value = std::int16_t>
SmallModel settled(SmallModel model, const std::string& shape, std::size_t count) {
    const char* dtype = sizeof(Value) == sizeof(float) ? "F32" : "I16";
    model.set<Value>("golden.outputs", dtype, shape, std::vector<Value>(count));
    Loaded loaded(model, "portable");
    const GoldenVector golden(loaded.model.get());
    std::vector<Value> y(golden.output_count());
    if (y.size() != count || golden.run(loaded.stream.get(), y.data())) {
        std::printf("test error: %zu golden outputs, not %zu: %s\n", y.size(), count, rindle_error());
        std::exit(2);
    }
    model.set<Value>("golden.outputs", dtype, shape, y);
    return model;
}

// One model with each kind of node and operation, for the mutants.
SmallModel small_convolution();
std::vector<SmallModel> small_windows();
std::vector<SmallModel> small_floats();
