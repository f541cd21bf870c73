// rindle-replay FILE...: run each file's golden vector, and say whether the outputs are the file's.
// Exit status: 0 all equal, 1 some differ, 2 a file cannot be loaded or the command line is wrong.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <vector>

#include "rindle.h"

namespace {

struct Free {
    void operator()(rindle_model* model) const { rindle_free(model); }
    void operator()(rindle_stream* stream) const { rindle_stream_free(stream); }
};

struct GoldenVector {
    std::size_t batch, frames;
    const std::int16_t *inputs, *outputs;
    const std::int32_t *lengths, *ids;  // ids in the stead of inputs, or NULL
};

// Both return how many codes differ, or -1 after an error.
long replay_run(const rindle_model* model, rindle_stream* stream, const GoldenVector& golden) {
    const std::size_t in = golden.batch * golden.frames * rindle_input_size(model);
    const std::size_t out =
        golden.batch * (rindle_output_is_sequence(model) ? golden.frames : 1) * rindle_output_size(model);
    std::vector<std::int16_t> y(out);
    if (golden.ids ? rindle_run_ids_codes(stream, golden.ids, in, golden.batch, golden.frames, golden.lengths, y.data(), out)
                   : rindle_run_codes(stream, golden.inputs, in, golden.batch, golden.frames, golden.lengths, y.data(), out))
        return -1;
    long differing = 0;
    for (std::size_t i = 0; i < out; ++i) differing += y[i] != golden.outputs[i];
    return differing;
}

long replay_steps(const rindle_model* model, rindle_stream* stream, const GoldenVector& golden) {
    const std::size_t in = rindle_input_size(model), out = rindle_output_size(model);
    const bool sequence = rindle_output_is_sequence(model);
    std::vector<std::int16_t> y(out);
    long differing = 0;
    for (std::size_t row = 0; row < golden.batch; ++row) {
        if (rindle_reset(stream)) return -1;
        const auto length = static_cast<std::size_t>(golden.lengths[row]);
        for (std::size_t t = 0; t < length; ++t) {
            const std::size_t frame = row * golden.frames + t;
            if (golden.ids ? rindle_step_id_codes(stream, golden.ids[frame], y.data(), out)
                           : rindle_step_codes(stream, golden.inputs + frame * in, in, y.data(), out))
                return -1;
            if (!sequence && t + 1 < length) continue;
            const std::int16_t* expected = golden.outputs + (sequence ? row * golden.frames + t : row) * out;
            for (std::size_t i = 0; i < out; ++i) differing += y[i] != expected[i];
        }
    }
    return differing;
}

int failed(const char* file) {
    std::printf("%s: %s\n", file, rindle_error());
    return 2;
}

int replay(const char* file) {
    rindle_model* loaded = nullptr;
    if (rindle_load_file(file, nullptr, &loaded)) return failed(file);
    const std::unique_ptr<rindle_model, Free> model(loaded);
    rindle_stream* created = nullptr;
    if (rindle_stream_new(loaded, &created)) return failed(file);
    const std::unique_ptr<rindle_stream, Free> stream(created);
    GoldenVector golden{};
    rindle_golden(loaded, &golden.batch, &golden.frames, &golden.inputs, &golden.lengths, &golden.outputs);
    golden.ids = rindle_golden_ids(loaded);

    const bool steps = rindle_can_stream(loaded) == RINDLE_OK;
    const long by_run = replay_run(loaded, created, golden);
    const long by_step = steps ? replay_steps(loaded, created, golden) : 0;
    if (by_run < 0 || by_step < 0) return failed(file);
    const char* how = steps ? "run and step" : "run";
    if (by_run == 0 && by_step == 0) {
        std::printf("%s: equal (%zu rows of up to %zu frames, %s, %s kernel)\n", file, golden.batch, golden.frames, how,
                    rindle_kernel(loaded));
        return 0;
    }
    std::printf("%s: DIFFERS in %ld codes by run, %ld by step (%s kernel)\n", file, by_run, by_step,
                rindle_kernel(loaded));
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: rindle-replay FILE...\n");
        return 2;
    }
    int worst = 0;
    for (int i = 1; i < argc; ++i) worst = std::max(worst, replay(argv[i]));
    return worst;
}
