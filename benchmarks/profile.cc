// What each part of a step costs, with each kernel of this CPU: rindle-profile FILE... [--frames N] [--density D]
// Inputs walk: a share D of the features changes from frame to frame (1 if not given). Times are of one frame of the input,
// without Python: the least of several slices, in turns between the kernels, and what each kind of kernel function takes of
// it. A graph that needs whole rows is run as one block; what no kernel does (patches of images, windows, floats) is in no column.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "run/stream.h"

namespace {

using namespace rindle;
using Clock = std::chrono::steady_clock;

// A kernel whose functions count their time, by kind. Timing costs some 20 ns a call, so the sum of parts exceeds the whole.
enum Part { multiply, add_columns, hold, encode, finish, requantize, sums, lookup, kParts };
constexpr const char* kPartNames[kParts] = {"W x", "W delta", "hold", "encode", "finish", "requantize", "sums", "tables"};
double nanoseconds[kParts];
const Kernel* timed;

template <Part part, auto Function>
struct Timed;

template <Part part, class Result, class... Arguments, Result (*Kernel::*Function)(Arguments...) noexcept>
struct Timed<part, Function> {
    static Result run(Arguments... arguments) noexcept {
        struct Span {
            Clock::time_point start = Clock::now();
            ~Span() { nanoseconds[part] += std::chrono::duration<double, std::nano>(Clock::now() - start).count(); }
        } span;
        return (timed->*Function)(arguments...);
    }
};

Kernel wrapped(const Kernel& kernel) {
    Kernel result = kernel;
    result.multiply = Timed<multiply, &Kernel::multiply>::run;
    result.multiply_vectors = Timed<multiply, &Kernel::multiply_vectors>::run;
    result.add_columns = Timed<add_columns, &Kernel::add_columns>::run;
    result.hold = Timed<hold, &Kernel::hold>::run;
    result.encode = Timed<encode, &Kernel::encode>::run;
    result.finish = Timed<finish, &Kernel::finish>::run;
    result.requantize = Timed<requantize, &Kernel::requantize>::run;
    result.add = Timed<sums, &Kernel::add>::run;
    result.sub = Timed<sums, &Kernel::sub>::run;
    result.mul = Timed<sums, &Kernel::mul>::run;
    result.sum_of_products = Timed<sums, &Kernel::sum_of_products>::run;
    result.lerp = Timed<sums, &Kernel::lerp>::run;
    result.lookup = Timed<lookup, &Kernel::lookup>::run;
    return result;
}

// A row of frames: float features, or ids.
struct Row {
    std::vector<float> x;
    std::vector<std::int32_t> ids;
    std::size_t frames;
};

struct Runner {
    std::shared_ptr<const Model> model;
    Stream stream;
    Block block;                    // a row, where the model needs it whole
    double best = 1e30;

    explicit Runner(std::shared_ptr<const Model> of) : model(of), stream(of), block(*of) {}

    // Nanoseconds per frame
    double run(const Row& row) {
        const auto values = [&](auto&& use) { model->vocabulary ? use(row.ids.data()) : use(row.x.data()); };
        if (!model->not_causal.empty()) {
            block.clear();
            block.add({0, 0, row.frames, true, true});
            if (!block.reserve(block.bytes())) std::abort();
            block.place();
        }
        const auto start = Clock::now();
        values([&](const auto* x) {
            if (!model->not_causal.empty()) {
                stream.input(block, 0, x);
                stream.run(block);
                return;
            }
            for (std::size_t t = 0; t < row.frames; ++t) {
                stream.input(x + t * model->input_size);
                stream.step();
            }
        });
        return std::chrono::duration<double, std::nano>(Clock::now() - start).count() / static_cast<double>(row.frames);
    }
};

// Features walk: a share of them changes from frame to frame. Ids are drawn.
Row walk(const Model& model, std::size_t frames, double density) {
    std::mt19937 generator(0);
    std::normal_distribution<float> normal;
    std::bernoulli_distribution changes(density);
    Row row{{}, {}, frames};
    if (model.vocabulary) {
        std::uniform_int_distribution<std::int32_t> ids(0, model.vocabulary - 1);
        for (std::size_t t = 0; t < frames; ++t) row.ids.push_back(ids(generator));
        return row;
    }
    row.x.resize(model.input_size * frames);
    for (std::size_t i = 0; i < row.x.size(); ++i)
        row.x[i] = i < model.input_size || changes(generator) ? normal(generator) : row.x[i - model.input_size];
    return row;
}

}  // namespace

int main(int argc, char** argv) {
    std::size_t frames = 256;
    double density = 1;
    std::vector<const char*> files;
    for (int i = 1; i < argc; ++i) {
        if (!std::strcmp(argv[i], "--frames") && i + 1 < argc)
            frames = static_cast<std::size_t>(std::atoll(argv[++i]));
        else if (!std::strcmp(argv[i], "--density") && i + 1 < argc)
            density = std::atof(argv[++i]);
        else
            files.push_back(argv[i]);
    }
    for (const char* path : files) {
        std::ifstream file(path, std::ios::binary);
        const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        const auto read = [&] { return read_document({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}); };
        const KernelList list = available_kernels();
        std::vector<Runner> plain;
        for (std::size_t k = 0; k < list.count; ++k) plain.emplace_back(compile(read(), *list.kernels[k]));
        for (std::size_t clock = 1; clock < plain[0].model->clocks.size(); ++clock)
            frames = std::max(frames, static_cast<std::size_t>(plain[0].model->clocks[clock].least));
        const Row row = walk(*plain[0].model, frames, density);
        for (int slice = 0; slice < 15; ++slice)
            for (Runner& runner : plain) runner.best = std::min(runner.best, runner.run(row));
        std::printf("%s\n%-12s %9s", path, "kernel", "ns/frame");
        for (const char* name : kPartNames) std::printf(" %10s", name);
        std::printf("  changed\n");
        for (std::size_t k = 0; k < list.count; ++k) {
            timed = list.kernels[k];
            const Kernel kernel = wrapped(*timed);
            Runner runner(compile(read(), kernel));
            double least[kParts];
            std::fill(least, least + kParts, 1e30);
            for (int slice = 0; slice < 9; ++slice) {
                std::fill(nanoseconds, nanoseconds + kParts, 0.0);
                runner.run(row);
                for (int p = 0; p < kParts; ++p) least[p] = std::min(least[p], nanoseconds[p] / static_cast<double>(frames));
            }
            std::printf("%-12s %9.0f", timed->name, plain[k].best);
            for (double part : least) std::printf(" %10.0f", part);
            std::uint64_t changed = 0, seen = 0;
            for (std::size_t h = 0; h < runner.model->held.size(); ++h) {
                changed += runner.stream.activity()[h].changed;
                seen += runner.stream.activity()[h].frames * runner.model->held[h].size;
            }
            std::printf("  %.0f %%\n", seen ? 100.0 * static_cast<double>(changed) / static_cast<double>(seen) : 100.0);
        }
    }
}
