// The C API's step and run, for every type of value.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

#include "api/api.h"

namespace rindle {
namespace {

// ---- What a frame may hold. Each returns the index of the first element that may not be there, or `size`.

bool finite(float x) noexcept { return (std::bit_cast<std::uint32_t>(x) & 0x7f800000U) != 0x7f800000U; }

std::size_t first_refused(const Model&, const float* x, std::size_t size) noexcept {
    bool all = true;
    for (std::size_t i = 0; i < size; ++i) all &= finite(x[i]);
    if (all) return size;
    std::size_t i = 0;
    while (finite(x[i])) ++i;
    return i;
}

std::size_t first_refused(const Model& model, const std::int16_t* x, std::size_t size) noexcept {
    const Range range = model.input_range;
    bool all = true;
    for (std::size_t i = 0; i < size; ++i) all &= x[i] >= range.lo && x[i] <= range.hi;
    if (all) return size;
    std::size_t i = 0;
    while (x[i] >= range.lo && x[i] <= range.hi) ++i;
    return i;
}

std::size_t first_refused(const Model& model, const std::int32_t* ids, std::size_t size) noexcept {
    std::size_t i = 0;
    while (i < size && ids[i] >= 0 && ids[i] < model.vocabulary) ++i;
    return i;
}

rindle_status refuse(const Model&, const float* x, std::size_t i, const char* where) noexcept {
    return fail(RINDLE_NOT_FINITE, "input %sfeature %zu is %f: inputs must be finite", where, i,
                static_cast<double>(x[i]));
}

rindle_status refuse(const Model& model, const std::int16_t* x, std::size_t i, const char* where) noexcept {
    return fail(RINDLE_INVALID_ARGUMENT, "input %sfeature %zu is the code %d, must be %d..%d", where, i, x[i],
                model.input_range.lo, model.input_range.hi);
}

rindle_status refuse(const Model& model, const std::int32_t* ids, std::size_t i, const char* where) noexcept {
    return fail(RINDLE_INVALID_ARGUMENT, "input %sis the id %d, must be 0..%d", where, ids[i], model.vocabulary - 1);
}

// Whether the model's input has values of this type.
template <class Value>
bool reads(const Model& model) noexcept {
    return std::is_same_v<Value, std::int32_t> == (model.vocabulary > 0);
}

// Whether its output can be had as such values.
template <class Value>
bool gives(const Model& model) noexcept {
    return std::is_same_v<Value, float> || !model.output_is_float;
}

rindle_status float_output() noexcept {
    return fail(RINDLE_INVALID_ARGUMENT, "the output of this model is float, not codes: use the calls that give floats");
}

rindle_status other_input(const Model& model) noexcept {
    return fail(RINDLE_INVALID_ARGUMENT, model.vocabulary > 0 ? "this model reads ids: use the calls for ids"
                                                              : "this model reads frames of features, not ids");
}

// ---- step and run

template <class In, class Out>
rindle_status step(rindle_stream* handle, const In* x, std::size_t x_count, Out* y, std::size_t y_count) noexcept {
    const Turn turn(handle);
    if (!turn) return turn.refusal();
    Stream& stream = handle->stream;
    const Model& model = stream.model();
    if (!model.not_causal.empty()) return can_stream(model);
    if (!reads<In>(model)) return other_input(model);
    if (!gives<Out>(model)) return float_output();
    if (!x) return missing("x");
    if (!y) return missing("y");
    if (x_count != model.input_size)
        return fail(RINDLE_INVALID_ARGUMENT, "x has %zu elements, a frame of this model has %zu", x_count,
                    model.input_size);
    if (y_count != model.output_size)
        return fail(RINDLE_INVALID_ARGUMENT, "y has %zu elements, an output of this model has %zu", y_count,
                    model.output_size);
    const std::size_t refused = first_refused(model, x, x_count);
    if (refused != x_count) return refuse(model, x, refused, "");
    stream.input(x);
    stream.step();
    stream.output(y);
    return RINDLE_OK;
}

// Whether `count` is the product, which may not fit size_t.
bool is_product(std::size_t count, std::size_t a, std::size_t b, std::size_t c) noexcept {
    if (a == 0 || b == 0 || c == 0) return count == 0;
    return count % c == 0 && count / c % b == 0 && count / c / b == a;
}

// Whether every window has a frame, and none makes too many.
rindle_status check_windows(const Model& model, std::size_t row, std::size_t length) noexcept {
    if (const int clock = too_short(model, length); clock != 0) {
        const Clock& window = model.clocks[static_cast<std::size_t>(clock)];
        return fail(RINDLE_INVALID_ARGUMENT, "row %zu has %zu frames: too short for the window \"%.256s\", which needs at least %lld",
                    row, length, window.node.c_str(), static_cast<long long>(window.least));
    }
    for (std::size_t i = 1; i < model.clocks.size(); ++i) {
        const std::int64_t made = frames_of(model, static_cast<int>(i), static_cast<std::int64_t>(length));
        if (made > INT32_MAX)
            return fail(RINDLE_INVALID_ARGUMENT, "the window \"%.256s\" makes %lld frames of the %zu of row %zu: 2^31 or more",
                        model.clocks[i].node.c_str(), static_cast<long long>(made), length, row);
    }
    return RINDLE_OK;
}

// Rows whose values have been checked, block by block. `made_most`: frames of the output for `frames` of the input.
template <class In, class Out>
rindle_status run_rows(Stream& stream, const In* x, std::size_t batch, std::size_t frames, const std::int32_t* lengths, Out* y,
                       std::size_t made_most, std::size_t longest) {
    const Model& model = stream.model();
    const std::size_t in = model.input_size, out = model.output_size;
    Block block(model);
    Rows rows(model, batch, frames, lengths);
    std::size_t most_bytes = 0;
    while (rows.next(block)) most_bytes = std::max(most_bytes, block.bytes());
    if (!block.reserve(most_bytes))
        return fail(RINDLE_NO_MEMORY, "not enough memory for the values of a row of %zu frames", longest);
    stream.reset();
    rows.rewind();
    std::size_t made = 0;  // frames of the output that the row at hand has so far
    while (rows.next(block)) {
        block.place();
        for (std::size_t i = 0; i < block.pieces().size(); ++i) {
            const Piece& piece = block.pieces()[i];
            stream.input(block, i, x + (piece.row * frames + piece.begin) * in);
        }
        stream.run(block);
        for (std::size_t i = 0; i < block.pieces().size(); ++i) {
            const Piece& piece = block.pieces()[i];
            Out* const row = y + piece.row * made_most * out;
            if (piece.first) made = 0;
            made += stream.output(block, i, row + made * out);
            if (piece.last) std::fill(row + made * out, row + made_most * out, Out{0});
        }
    }
    stream.reset();
    return RINDLE_OK;
}

template <class In, class Out>
rindle_status run(rindle_stream* handle, const In* x, std::size_t x_count, std::size_t batch, std::size_t frames,
                  const std::int32_t* lengths, Out* y, std::size_t y_count) noexcept {
    const Turn turn(handle);
    if (!turn) return turn.refusal();
    Stream& stream = handle->stream;
    const Model& model = stream.model();
    const std::size_t in = model.input_size, out = model.output_size;
    if (!reads<In>(model)) return other_input(model);
    if (!gives<Out>(model)) return float_output();
    if (!is_product(x_count, batch, frames, in))
        return fail(RINDLE_INVALID_ARGUMENT, "x has %zu elements, must have batch %zu * frames %zu * features %zu",
                    x_count, batch, frames, in);
    if (frames > INT32_MAX) return fail(RINDLE_INVALID_ARGUMENT, "%zu frames are 2^31 or more", frames);
    if (batch > 0 && frames == 0) return fail(RINDLE_INVALID_ARGUMENT, "a row must have at least one frame");
    if (batch > 0 && !x) return missing("x");

    const auto length = [&](std::size_t row) { return lengths ? static_cast<std::size_t>(lengths[row]) : frames; };
    const auto made = [&](std::size_t length) {  // frames of the output
        return model.output_is_sequence
                   ? static_cast<std::size_t>(frames_of(model, model.output_clock, static_cast<std::int64_t>(length)))
                   : 1;
    };
    std::size_t longest = 0;
    for (std::size_t row = 0; row < batch; ++row) {
        if (lengths && (lengths[row] < 1 || static_cast<std::size_t>(lengths[row]) > frames))
            return fail(RINDLE_INVALID_ARGUMENT, "lengths[%zu] is %d, must be 1..%zu", row, lengths[row], frames);
        if (const rindle_status status = check_windows(model, row, length(row)); status != RINDLE_OK) return status;
        longest = std::max(longest, length(row));
    }
    const std::size_t made_most = made(frames);
    if (!is_product(y_count, batch, made_most, out))
        return fail(RINDLE_INVALID_ARGUMENT, "y has %zu elements, must have batch %zu * frames %zu * features %zu", y_count,
                    batch, made_most, out);
    if (batch > 0 && !y) return missing("y");
    for (std::size_t row = 0; row < batch; ++row) {
        const In* first = x + row * frames * in;
        const std::size_t refused = first_refused(model, first, length(row) * in);
        if (refused == length(row) * in) continue;
        const std::size_t frame = refused / in;
        char where[64];
        std::snprintf(where, sizeof where, "row %zu, frame %zu, ", row, frame);
        return refuse(model, first + frame * in, refused % in, where);
    }

    return guarded([&] { return run_rows(stream, x, batch, frames, lengths, y, made_most, longest); });
}

}  // namespace
}  // namespace rindle

using namespace rindle;

extern "C" {

rindle_status rindle_step(rindle_stream* stream, const float* x, size_t x_count, float* y, size_t y_count) {
    return step(stream, x, x_count, y, y_count);
}

rindle_status rindle_step_codes(rindle_stream* stream, const int16_t* x, size_t x_count, int16_t* y, size_t y_count) {
    return step(stream, x, x_count, y, y_count);
}

rindle_status rindle_run(rindle_stream* stream, const float* x, size_t x_count, size_t batch, size_t frames,
                         const int32_t* lengths, float* y, size_t y_count) {
    return run(stream, x, x_count, batch, frames, lengths, y, y_count);
}

rindle_status rindle_run_codes(rindle_stream* stream, const int16_t* x, size_t x_count, size_t batch, size_t frames,
                               const int32_t* lengths, int16_t* y, size_t y_count) {
    return run(stream, x, x_count, batch, frames, lengths, y, y_count);
}

rindle_status rindle_step_id(rindle_stream* stream, int32_t id, float* y, size_t y_count) {
    return step(stream, &id, 1, y, y_count);
}

rindle_status rindle_step_id_codes(rindle_stream* stream, int32_t id, int16_t* y, size_t y_count) {
    return step(stream, &id, 1, y, y_count);
}

rindle_status rindle_run_ids(rindle_stream* stream, const int32_t* ids, size_t ids_count, size_t batch, size_t frames,
                             const int32_t* lengths, float* y, size_t y_count) {
    return run(stream, ids, ids_count, batch, frames, lengths, y, y_count);
}

rindle_status rindle_run_ids_codes(rindle_stream* stream, const int32_t* ids, size_t ids_count, size_t batch,
                                   size_t frames, const int32_t* lengths, int16_t* y, size_t y_count) {
    return run(stream, ids, ids_count, batch, frames, lengths, y, y_count);
}

}  // extern "C"
