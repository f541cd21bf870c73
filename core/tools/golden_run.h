// For the programs beside the library: a model's golden vector, and running it in whatever its input and output are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "api/rindle.h"

struct Free {
    void operator()(rindle_model* model) const { rindle_free(model); }
    void operator()(rindle_stream* stream) const { rindle_stream_free(stream); }
};

struct GoldenVector {
    const rindle_model* model;
    std::size_t batch, frames;
    const std::int16_t *inputs, *outputs;   // codes
    const std::int32_t *lengths, *ids;      // ids in the stead of inputs, or NULL
    const float* floats;                    // in the stead of outputs, or NULL
    std::size_t in, out, made;              // features of a frame; frames of the output
    std::vector<float> decoded;             // inputs, where the output is float

    explicit GoldenVector(const rindle_model* of) : model(of) {
        rindle_golden(model, &batch, &frames, &inputs, &lengths, &outputs);
        ids = rindle_golden_ids(model);
        floats = rindle_golden_floats(model);
        in = rindle_input_size(model);
        out = rindle_output_size(model);
        made = rindle_output_frames(model, frames);
        if (!floats || ids) return;
        const double scale = rindle_input_scale(model);
        for (std::size_t i = 0; i < batch * frames * in; ++i) decoded.push_back(static_cast<float>(inputs[i] * scale));
    }
    std::size_t output_count() const { return batch * made * out; }

    // All rows at once, to y [batch, made, out].
    rindle_status run(rindle_stream* stream, std::int16_t* y) const {
        return ids ? rindle_run_ids_codes(stream, ids, batch * frames, batch, frames, lengths, y, output_count())
                   : rindle_run_codes(stream, inputs, batch * frames * in, batch, frames, lengths, y, output_count());
    }
    rindle_status run(rindle_stream* stream, float* y) const {
        return ids ? rindle_run_ids(stream, ids, batch * frames, batch, frames, lengths, y, output_count())
                   : rindle_run(stream, decoded.data(), decoded.size(), batch, frames, lengths, y, output_count());
    }

    // Frame t of a row, to y [out].
    rindle_status step(rindle_stream* stream, std::size_t row, std::size_t t, std::int16_t* y) const {
        const std::size_t frame = row * frames + t;
        return ids ? rindle_step_id_codes(stream, ids[frame], y, out)
                   : rindle_step_codes(stream, inputs + frame * in, in, y, out);
    }
    rindle_status step(rindle_stream* stream, std::size_t row, std::size_t t, float* y) const {
        const std::size_t frame = row * frames + t;
        return ids ? rindle_step_id(stream, ids[frame], y, out) : rindle_step(stream, decoded.data() + frame * in, in, y, out);
    }
};
