// The C API (rindle.h): arguments are checked here, exceptions end here, and one thread at a time enters a stream.
#include <algorithm>
#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <type_traits>

#include "error.h"
#include "json.h"
#include "stream.h"
#include "tensors.h"

struct rindle_model {
    std::shared_ptr<const rindle::Model> model;
};

struct rindle_stream {
    explicit rindle_stream(std::shared_ptr<const rindle::Model> model) : stream(std::move(model)) {}
    rindle::Stream stream;
    std::atomic_flag busy;
};

namespace rindle {
namespace {

thread_local char error_text[1024] = "";

// Sets the message, cut at a whole UTF-8 character.
[[gnu::format(printf, 2, 3)]] rindle_status fail(rindle_status status, const char* format, ...) noexcept {
    va_list arguments;
    va_start(arguments, format);
    const int length = std::vsnprintf(error_text, sizeof error_text, format, arguments);
    va_end(arguments);
    if (length >= static_cast<int>(sizeof error_text)) {
        std::size_t end = sizeof error_text - 1;
        while (end > 0 && (static_cast<unsigned char>(error_text[end - 1]) & 0xC0) == 0x80) --end;
        if (end > 0 && static_cast<unsigned char>(error_text[end - 1]) >= 0xC0) --end;
        error_text[end] = '\0';
    }
    return status;
}

template <class Function>
rindle_status guarded(Function&& function) noexcept {
    try {
        return function();
    } catch (const Error& error) {
        return fail(error.status, "%s", error.what());
    } catch (const json::Error& error) {
        return fail(RINDLE_INVALID_FILE, "%s", error.what());
    } catch (const std::bad_alloc&) {
        return fail(RINDLE_NO_MEMORY, "not enough memory");
    } catch (const std::length_error&) {
        return fail(RINDLE_NO_MEMORY, "not enough memory");
    } catch (const std::exception& error) {
        return fail(RINDLE_INTERNAL, "internal error: %s", error.what());
    } catch (...) {
        return fail(RINDLE_INTERNAL, "internal error");
    }
}

rindle_status missing(const char* what) noexcept { return fail(RINDLE_INVALID_ARGUMENT, "%s is NULL", what); }

// One thread at a time.
class Turn {
  public:
    explicit Turn(rindle_stream* stream) noexcept
        : stream_(stream), mine_(stream && !stream->busy.test_and_set(std::memory_order_acquire)) {}
    ~Turn() {
        if (mine_) stream_->busy.clear(std::memory_order_release);
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    explicit operator bool() const noexcept { return mine_; }
    rindle_status refusal() const noexcept {
        return stream_ ? fail(RINDLE_BUSY, "the stream is in use by another thread; give each thread its own")
                       : missing("stream");
    }

  private:
    rindle_stream* stream_;
    bool mine_;
};

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

rindle_status can_stream(const Model& model) noexcept {
    if (model.not_causal.empty()) return RINDLE_OK;
    return fail(RINDLE_NOT_CAUSAL, "node \"%.256s\" %s: use run, not step", model.not_causal.c_str(),
                model.why_not_causal);
}

// Whether the model's input has values of this type.
template <class Value>
bool reads(const Model& model) noexcept {
    return std::is_same_v<Value, std::int32_t> == (model.vocabulary > 0);
}

rindle_status other_input(const Model& model) noexcept {
    return fail(RINDLE_INVALID_ARGUMENT, model.vocabulary > 0 ? "this model reads ids: use the calls for ids"
                                                              : "this model reads frames of features, not ids");
}

// ---- step and run, for every type of value

template <class In, class Out>
rindle_status step(rindle_stream* handle, const In* x, std::size_t x_count, Out* y, std::size_t y_count) noexcept {
    const Turn turn(handle);
    if (!turn) return turn.refusal();
    Stream& stream = handle->stream;
    const Model& model = stream.model();
    if (!model.not_causal.empty()) return can_stream(model);
    if (!reads<In>(model)) return other_input(model);
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
    stream.frame();
    stream.finish(1);
    stream.output(y);
    return RINDLE_OK;
}

// Whether `count` is the product, which may not fit size_t.
bool is_product(std::size_t count, std::size_t a, std::size_t b, std::size_t c) noexcept {
    if (a == 0 || b == 0 || c == 0) return count == 0;
    return count % c == 0 && count / c % b == 0 && count / c / b == a;
}

// One row of `length` frames, frame by frame.
template <class In, class Out>
void run_frames(Stream& stream, const In* x, std::size_t length, Out* y) noexcept {
    const Model& model = stream.model();
    for (std::size_t t = 0; t < length; ++t) {
        stream.input(x + t * model.input_size);
        stream.frame();
        if (model.output_is_sequence) stream.output(y + t * model.output_size);
    }
    stream.finish(static_cast<std::int64_t>(length));
    if (!model.output_is_sequence) stream.output(y);
}

// The same, node by node; `row` holds the values of all frames.
template <class In, class Out>
void run_nodes(Stream& stream, const In* x, std::size_t length, Out* y, std::byte* row) noexcept {
    const Model& model = stream.model();
    for (std::size_t t = 0; t < length; ++t) {
        stream.input(x + t * model.input_size);
        stream.keep(row, length, t);
    }
    stream.run_row(row, length);
    if (!model.output_is_sequence) return stream.output(y);
    for (std::size_t t = 0; t < length; ++t) {
        stream.fetch(row, length, t);
        stream.output(y + t * model.output_size);
    }
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
    if (!is_product(x_count, batch, frames, in))
        return fail(RINDLE_INVALID_ARGUMENT, "x has %zu elements, must have batch %zu * frames %zu * features %zu",
                    x_count, batch, frames, in);
    if (!is_product(y_count, batch, model.output_is_sequence ? frames : 1, out))
        return fail(RINDLE_INVALID_ARGUMENT, "y has %zu elements, must have batch %zu%s * features %zu", y_count, batch,
                    model.output_is_sequence ? " * frames" : "", out);
    if (frames > INT32_MAX) return fail(RINDLE_INVALID_ARGUMENT, "%zu frames are 2^31 or more", frames);
    if (batch > 0 && frames == 0) return fail(RINDLE_INVALID_ARGUMENT, "a row must have at least one frame");
    if (batch > 0 && !x) return missing("x");
    if (batch > 0 && !y) return missing("y");

    const auto length = [&](std::size_t row) { return lengths ? static_cast<std::size_t>(lengths[row]) : frames; };
    std::size_t longest = 0;
    for (std::size_t row = 0; row < batch; ++row) {
        if (lengths && (lengths[row] < 1 || static_cast<std::size_t>(lengths[row]) > frames))
            return fail(RINDLE_INVALID_ARGUMENT, "lengths[%zu] is %d, must be 1..%zu", row, lengths[row], frames);
        longest = std::max(longest, length(row));
        const In* first = x + row * frames * in;
        const std::size_t refused = first_refused(model, first, length(row) * in);
        if (refused == length(row) * in) continue;
        const std::size_t frame = refused / in;
        char where[64];
        std::snprintf(where, sizeof where, "row %zu, frame %zu, ", row, frame);
        return refuse(model, first + frame * in, refused % in, where);
    }

    std::unique_ptr<std::byte[]> values;  // of one row, where it is run node by node
    if (model.by_node) {
        if (longest <= PTRDIFF_MAX / model.frame_bytes) values.reset(new (std::nothrow) std::byte[longest * model.frame_bytes]);
        if (!values)
            return fail(RINDLE_NO_MEMORY, "not enough memory for the values of %zu frames, %zu bytes each", longest,
                        model.frame_bytes);
    }
    for (std::size_t row = 0; row < batch; ++row) {
        stream.reset();
        const In* first = x + row * frames * in;
        Out* const result = y + row * (model.output_is_sequence ? frames : 1) * out;
        if (model.by_node)
            run_nodes(stream, first, length(row), result, values.get());
        else
            run_frames(stream, first, length(row), result);
        if (model.output_is_sequence) std::fill(result + length(row) * out, result + frames * out, Out{0});
    }
    stream.reset();
    return RINDLE_OK;
}

// ---- Saved state: magic, id, count, values

constexpr char kMagic[8] = {'R', 'N', 'D', 'L', 'S', 'T', '1', '\0'};
constexpr std::size_t kIdBytes = 32, kStateHeader = sizeof kMagic + kIdBytes + sizeof(std::uint32_t);

std::size_t state_size(const Model& model) noexcept { return kStateHeader + 2 * model.state_values; }

void write_state_header(const Model& model, std::byte* bytes) noexcept {
    const auto digit = [&](std::size_t i) { return model.id[i] <= '9' ? model.id[i] - '0' : model.id[i] - 'a' + 10; };
    std::memcpy(bytes, kMagic, sizeof kMagic);
    for (std::size_t i = 0; i < kIdBytes; ++i)
        bytes[sizeof kMagic + i] = static_cast<std::byte>(digit(2 * i) << 4 | digit(2 * i + 1));
    write_little(bytes + sizeof kMagic + kIdBytes, static_cast<std::uint32_t>(model.state_values));
}

}  // namespace
}  // namespace rindle

using namespace rindle;

extern "C" {

const char* rindle_error(void) { return error_text; }

const char* rindle_available_kernel(size_t index) {
    const KernelList list = available_kernels();
    return index < list.count ? list.kernels[index]->name : nullptr;
}

rindle_status rindle_load(const void* bytes, size_t size, const char* kernel, rindle_model** model) {
    if (!model) return missing("model");
    *model = nullptr;
    if (!bytes) return missing("bytes");
    return guarded([&] {
        const Kernel& chosen = choose_kernel(kernel);
        auto loaded = std::make_unique<rindle_model>();
        loaded->model = compile(read_document({static_cast<const std::byte*>(bytes), size}), chosen);
        if (loaded->model->state_values > UINT32_MAX)
            throw Error(RINDLE_INVALID_FILE, "document: the states have 2^32 values or more");
        *model = loaded.release();
        return RINDLE_OK;
    });
}

rindle_status rindle_load_file(const char* path, const char* kernel, rindle_model** model) {
    if (!model) return missing("model");
    *model = nullptr;
    if (!path) return missing("path");
    return guarded([&] {
        std::ifstream file(path, std::ios::binary | std::ios::ate);
        const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
        if (size < 0) throw Error(RINDLE_INVALID_FILE, std::string(path) + ": cannot be opened");
        std::vector<char> bytes(static_cast<std::size_t>(size));
        file.seekg(0);
        if (!file.read(bytes.data(), size)) throw Error(RINDLE_INVALID_FILE, std::string(path) + ": cannot be read");
        return rindle_load(bytes.empty() ? "" : bytes.data(), bytes.size(), kernel, model);
    });
}

void rindle_free(rindle_model* model) { delete model; }

const char* rindle_kernel(const rindle_model* model) { return model->model->kernel->name; }
const char* rindle_id(const rindle_model* model) { return model->model->id.c_str(); }
size_t rindle_vocabulary(const rindle_model* model) { return static_cast<size_t>(model->model->vocabulary); }
size_t rindle_input_size(const rindle_model* model) { return model->model->input_size; }
size_t rindle_output_size(const rindle_model* model) { return model->model->output_size; }
double rindle_input_scale(const rindle_model* model) { return model->model->input_format.scale; }
double rindle_output_scale(const rindle_model* model) { return model->model->output_format.scale; }
int rindle_output_is_sequence(const rindle_model* model) { return model->model->output_is_sequence; }
rindle_status rindle_can_stream(const rindle_model* model) { return model ? can_stream(*model->model) : missing("model"); }

void rindle_golden(const rindle_model* model, size_t* batch, size_t* frames, const int16_t** inputs,
                   const int32_t** lengths, const int16_t** outputs) {
    const Golden& golden = model->model->golden;
    *batch = static_cast<size_t>(golden.batch);
    *frames = static_cast<size_t>(golden.frames);
    *inputs = model->model->vocabulary ? nullptr : golden.inputs.data();
    *lengths = golden.lengths.data();
    *outputs = golden.outputs.data();
}

const int32_t* rindle_golden_ids(const rindle_model* model) {
    return model->model->vocabulary ? model->model->golden.ids.data() : nullptr;
}

size_t rindle_held_count(const rindle_model* model) { return model->model->held.size(); }

rindle_status rindle_held(const rindle_model* model, size_t index, const char** node, const char** path, size_t* size) {
    if (index >= model->model->held.size())
        return fail(RINDLE_INVALID_ARGUMENT, "held path %zu of %zu", index, model->model->held.size());
    const Held& held = model->model->held[index];
    *node = held.node.c_str();
    *path = held.path.c_str();
    *size = held.size;
    return RINDLE_OK;
}

size_t rindle_saturation_count(const rindle_model* model) { return model->model->saturations.size(); }

rindle_status rindle_saturation(const rindle_model* model, size_t index, const char** node, int* operation_index,
                                const char** operation, const char** path) {
    if (index >= model->model->saturations.size())
        return fail(RINDLE_INVALID_ARGUMENT, "saturation %zu of %zu", index, model->model->saturations.size());
    const Saturation& saturation = model->model->saturations[index];
    *node = saturation.node.c_str();
    *operation_index = saturation.index;
    *operation = saturation.operation;
    *path = saturation.path.c_str();
    return RINDLE_OK;
}

rindle_status rindle_stream_new(const rindle_model* model, rindle_stream** stream) {
    if (!stream) return missing("stream");
    *stream = nullptr;
    if (!model) return missing("model");
    return guarded([&] {
        *stream = new rindle_stream(model->model);
        return RINDLE_OK;
    });
}

void rindle_stream_free(rindle_stream* stream) { delete stream; }

rindle_status rindle_reset(rindle_stream* stream) {
    const Turn turn(stream);
    if (!turn) return turn.refusal();
    stream->stream.reset();
    return RINDLE_OK;
}

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

size_t rindle_state_size(const rindle_model* model) { return state_size(*model->model); }

rindle_status rindle_state_save(rindle_stream* stream, void* bytes, size_t size) {
    const Turn turn(stream);
    if (!turn) return turn.refusal();
    if (!bytes) return missing("bytes");
    const Model& model = stream->stream.model();
    if (size != state_size(model))
        return fail(RINDLE_INVALID_ARGUMENT, "size is %zu, a state of this model has %zu bytes", size, state_size(model));
    write_state_header(model, static_cast<std::byte*>(bytes));
    stream->stream.save(static_cast<std::byte*>(bytes) + kStateHeader);
    return RINDLE_OK;
}

rindle_status rindle_state_restore(rindle_stream* stream, const void* bytes, size_t size) {
    const Turn turn(stream);
    if (!turn) return turn.refusal();
    if (!bytes) return missing("bytes");
    const Model& model = stream->stream.model();
    std::byte header[kStateHeader];
    write_state_header(model, header);
    if (size < kStateHeader || std::memcmp(bytes, kMagic, sizeof kMagic) != 0)
        return fail(RINDLE_INVALID_ARGUMENT, "not a saved state of this version of rindle");
    if (std::memcmp(bytes, header, sizeof kMagic + kIdBytes) != 0)
        return fail(RINDLE_INVALID_ARGUMENT, "the state was saved by another model: its id is not %s", model.id.c_str());
    if (size != state_size(model) || std::memcmp(bytes, header, kStateHeader) != 0)
        return fail(RINDLE_INVALID_ARGUMENT, "the state has %zu bytes or a count that does not fit, must have %zu bytes",
                    size, state_size(model));
    if (!stream->stream.restore(static_cast<const std::byte*>(bytes) + kStateHeader))
        return fail(RINDLE_INVALID_ARGUMENT, "the state has a code outside the range of its path");
    return RINDLE_OK;
}

rindle_status rindle_counters(rindle_stream* stream, uint64_t* frames, uint64_t* changed, uint64_t* saturated) {
    const Turn turn(stream);
    if (!turn) return turn.refusal();
    for (const Stream::Activity& activity : stream->stream.activity()) {
        if (frames) *frames++ = activity.frames;
        if (changed) *changed++ = activity.changed;
    }
    if (saturated)
        for (std::uint64_t count : stream->stream.saturations()) *saturated++ = count;
    return RINDLE_OK;
}

rindle_status rindle_reset_counters(rindle_stream* stream) {
    const Turn turn(stream);
    if (!turn) return turn.refusal();
    stream->stream.reset_counters();
    return RINDLE_OK;
}

}  // extern "C"
