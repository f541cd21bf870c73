// rindle-replay FILE...: run each file's golden vector, of every part, and say whether the outputs are the file's: equal, or close where they
// are floats.
// Exit status: 0 all are, 1 some differ, 2 a file cannot be loaded or the command line is wrong.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "tools/golden_run.h"
#include "api/rindle.h"

namespace {

bool agrees(std::int16_t found, std::int16_t wanted) { return found == wanted; }

// Of a float node's output, which is close on every machine, not equal (docs/format.md).
bool agrees(float found, float wanted) {
    return std::abs(static_cast<double>(found) - wanted) <= 1e-5 * std::max(1.0, std::abs(static_cast<double>(wanted)));
}

// Both return how many values differ, or -1 after an error.
template <class Value>
long replay_run(rindle_stream* stream, const GoldenVector& golden, const Value* wanted) {
    std::vector<Value> y(golden.output_count());
    if (golden.run(stream, y.data())) return -1;
    long differing = 0;
    for (std::size_t i = 0; i < y.size(); ++i) differing += !agrees(y[i], wanted[i]);
    return differing;
}

template <class Value>
long replay_steps(rindle_stream* stream, const GoldenVector& golden, const Value* wanted) {
    const bool sequence = rindle_output_is_sequence(golden.model);
    std::vector<Value> y(golden.out);
    long differing = 0;
    for (std::size_t row = 0; row < golden.batch; ++row) {
        if (rindle_reset(stream)) return -1;
        const auto length = static_cast<std::size_t>(golden.lengths[row]);
        for (std::size_t t = 0; t < length; ++t) {
            if (golden.step(stream, row, t, y.data())) return -1;
            if (!sequence && t + 1 < length) continue;
            const Value* expected = wanted + (sequence ? row * golden.frames + t : row) * golden.out;
            for (std::size_t i = 0; i < golden.out; ++i) differing += !agrees(y[i], expected[i]);
        }
    }
    return differing;
}

int failed(const std::string& name) {
    std::printf("%s: %s\n", name.c_str(), rindle_error());
    return 2;
}

// name: of the file, and of its part where it has several.
int replay(const std::string& name, rindle_model* loaded) {
    const std::unique_ptr<rindle_model, Free> model(loaded);
    const char* file = name.c_str();
    rindle_stream* created = nullptr;
    if (rindle_stream_new(loaded, &created)) return failed(file);
    const std::unique_ptr<rindle_stream, Free> stream(created);
    const GoldenVector golden(loaded);

    const bool steps = rindle_can_stream(loaded) == RINDLE_OK;
    long by_run = 0, by_step = 0;
    if (golden.floats) {
        by_run = replay_run(created, golden, golden.floats);
        if (steps) by_step = replay_steps(created, golden, golden.floats);
    } else {
        by_run = replay_run(created, golden, golden.outputs);
        if (steps) by_step = replay_steps(created, golden, golden.outputs);
    }
    if (by_run < 0 || by_step < 0) return failed(file);
    const char* how = steps ? "run and step" : "run";
    if (by_run == 0 && by_step == 0) {
        std::printf("%s: %s (%zu rows of up to %zu frames, %s, %s kernel)\n", file, golden.floats ? "close" : "equal",
                    golden.batch, golden.frames, how,
                    rindle_kernel(loaded));
        return 0;
    }
    std::printf("%s: DIFFERS in %ld values by run, %ld by step (%s kernel)\n", file, by_run, by_step,
                rindle_kernel(loaded));
    return 1;
}

int replay(const char* path) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    rindle_model* model = nullptr;
    if (!rindle_part_name(bytes.data(), bytes.size(), 0))
        return rindle_load_file(path, nullptr, &model) ? failed(path) : replay(path, model);
    int worst = 0;
    for (std::size_t i = 0; const char* found = rindle_part_name(bytes.data(), bytes.size(), i); ++i) {
        const std::string part = found, name = std::string(path) + ", " + part;
        const bool bad = rindle_load_part(bytes.data(), bytes.size(), part.c_str(), nullptr, &model) != RINDLE_OK;
        worst = std::max(worst, bad ? failed(name) : replay(name, model));
    }
    return worst;
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
