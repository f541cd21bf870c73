// The C API (rindle.h), but for step and run (run.cc): arguments are checked here, and exceptions end here.
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "api/api.h"
#include "file/tensors.h"

namespace rindle {
namespace {

thread_local char error_text[1024] = "";

}  // namespace

rindle_status fail(rindle_status status, const char* format, ...) noexcept {
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

namespace {

// ---- Saved state: magic, id, count, values

constexpr char kMagic[8] = {'R', 'N', 'D', 'L', 'S', 'T', '1', '\0'};
constexpr std::size_t kIdBytes = 32, kStateHeader = sizeof kMagic + kIdBytes + sizeof(std::uint32_t);

std::size_t state_size(const Model& model) noexcept { return kStateHeader + 2 * model.state_values; }

rindle_status nameless() noexcept {
    return fail(RINDLE_INVALID_ARGUMENT, "the model has no id, so that no state can be saved or restored: give the id to "
                                         "rindle_with_thresholds");
}

void write_state_header(const Model& model, std::byte* bytes) noexcept {
    const auto digit = [&](std::size_t i) { return model.id[i] <= '9' ? model.id[i] - '0' : model.id[i] - 'a' + 10; };
    std::memcpy(bytes, kMagic, sizeof kMagic);
    for (std::size_t i = 0; i < kIdBytes; ++i)
        bytes[sizeof kMagic + i] = static_cast<std::byte>(digit(2 * i) << 4 | digit(2 * i + 1));
    write_little(bytes + sizeof kMagic + kIdBytes, static_cast<std::uint32_t>(model.state_values));
}

// ---- Loading

// read: () -> Document
template <class Read>
rindle_status load(const char* kernel, rindle_model** model, Read&& read) {
    const Kernel& chosen = choose_kernel(kernel);
    auto loaded = std::make_unique<rindle_model>();
    loaded->model = compile(read(), chosen);
    *model = loaded.release();
    return RINDLE_OK;
}

std::vector<std::byte> read_file(const char* path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
    if (size < 0) throw Error(RINDLE_INVALID_FILE, std::string(path) + ": cannot be opened");
    std::vector<std::byte> bytes(static_cast<std::size_t>(size));
    file.seekg(0);
    if (!file.read(reinterpret_cast<char*>(bytes.data()), size))
        throw Error(RINDLE_INVALID_FILE, std::string(path) + ": cannot be read");
    return bytes;
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
    return guarded([&] { return load(kernel, model, [&] { return read_document({static_cast<const std::byte*>(bytes), size}); }); });
}

rindle_status rindle_load_part(const void* bytes, size_t size, const char* part, const char* kernel, rindle_model** model) {
    if (!model) return missing("model");
    *model = nullptr;
    if (!bytes) return missing("bytes");
    if (!part) return missing("part");
    return guarded(
        [&] { return load(kernel, model, [&] { return read_part({static_cast<const std::byte*>(bytes), size}, part); }); });
}

rindle_status rindle_load_file(const char* path, const char* kernel, rindle_model** model) {
    if (!model) return missing("model");
    *model = nullptr;
    if (!path) return missing("path");
    return guarded([&] { return load(kernel, model, [&] { return read_document(read_file(path)); }); });
}

rindle_status rindle_load_part_file(const char* path, const char* part, const char* kernel, rindle_model** model) {
    if (!model) return missing("model");
    *model = nullptr;
    if (!path) return missing("path");
    if (!part) return missing("part");
    return guarded([&] { return load(kernel, model, [&] { return read_part(read_file(path), part); }); });
}

const char* rindle_part_name(const void* bytes, size_t size, size_t index) {
    thread_local std::string name;
    const char* found = nullptr;
    if (!bytes) {
        missing("bytes");
        return nullptr;
    }
    guarded([&] {
        const auto names = read_part_names({static_cast<const std::byte*>(bytes), size});
        if (index < names.size()) {
            name = names[index];
            found = name.c_str();
        }
        return RINDLE_OK;
    });
    return found;
}

rindle_status rindle_with_thresholds(const rindle_model* model, const rindle_threshold* thresholds, size_t count,
                                     const char* id, rindle_model** made) {
    if (!made) return missing("made");
    *made = nullptr;
    if (!model) return missing("model");
    if (!thresholds && count) return missing("thresholds");
    return guarded([&] {
        std::vector<Threshold> given;
        for (size_t i = 0; i < count; ++i) {
            const rindle_threshold& one = thresholds[i];
            if (!one.node || !one.path) return missing(one.node ? "path" : "node");
            if (one.theta && !one.count) return fail(RINDLE_INVALID_ARGUMENT, "thresholds[%zu] has theta, but a count of 0", i);
            given.push_back({one.node, one.path, {one.theta, one.theta ? one.count : 0}});
        }
        auto changed = std::make_unique<rindle_model>();
        changed->model = with_thresholds(*model->model, given, id ? id : "");
        *made = changed.release();
        return RINDLE_OK;
    });
}

void rindle_free(rindle_model* model) { delete model; }

const char* rindle_kernel(const rindle_model* model) { return model->model->kernel->name; }
const char* rindle_id(const rindle_model* model) { return model->model->id.c_str(); }
size_t rindle_vocabulary(const rindle_model* model) { return static_cast<size_t>(model->model->vocabulary); }
size_t rindle_input_size(const rindle_model* model) { return model->model->input_size; }
size_t rindle_output_size(const rindle_model* model) { return model->model->output_size; }
double rindle_input_scale(const rindle_model* model) { return model->model->input_format.scale; }
double rindle_output_scale(const rindle_model* model) {
    return model->model->output_is_float ? 0 : model->model->output_format.scale;
}
int rindle_output_is_float(const rindle_model* model) { return model->model->output_is_float; }
int rindle_output_is_sequence(const rindle_model* model) { return model->model->output_is_sequence; }
rindle_status rindle_can_stream(const rindle_model* model) { return model ? can_stream(*model->model) : missing("model"); }

size_t rindle_output_frames(const rindle_model* model, size_t frames) {
    const Model& of = *model->model;
    if (frames > INT32_MAX || too_short(of, frames) != 0) return 0;
    return of.output_is_sequence ? static_cast<size_t>(frames_of(of, of.output_clock, static_cast<std::int64_t>(frames))) : 1;
}

void rindle_golden(const rindle_model* model, size_t* batch, size_t* frames, const int16_t** inputs,
                   const int32_t** lengths, const int16_t** outputs) {
    const Golden& golden = model->model->golden;
    *batch = static_cast<size_t>(golden.batch);
    *frames = static_cast<size_t>(golden.frames);
    *inputs = model->model->vocabulary ? nullptr : golden.inputs.data();
    *lengths = golden.lengths.data();
    *outputs = model->model->output_is_float ? nullptr : golden.outputs.data();
}

const float* rindle_golden_floats(const rindle_model* model) {
    return model->model->output_is_float ? model->model->golden.float_outputs.data() : nullptr;
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

size_t rindle_state_size(const rindle_model* model) { return state_size(*model->model); }

rindle_status rindle_state_save(rindle_stream* stream, void* bytes, size_t size) {
    const Turn turn(stream);
    if (!turn) return turn.refusal();
    if (!bytes) return missing("bytes");
    const Model& model = stream->stream.model();
    if (model.id.empty()) return nameless();
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
    if (model.id.empty()) return nameless();
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
