// Thresholds: which code paths are held (20), and what of a plan depends on that. A model with other thresholds is a copy of the
// plan that shares every array.
#include <algorithm>
#include <utility>

#include "file/error.h"
#include "file/tensors.h"
#include "plan/compiler.h"

namespace rindle {
namespace {

constexpr std::size_t kIdDigits = 64;

// The levels of a matrix [rows, columns] as a file holds integers of 16 bits, read back by the kernel itself: W times the k-th unit
// vector is column k. So no kernel needs a function that unpacks.
std::vector<std::byte> levels_of(const Kernel& kernel, const Matrix& matrix) {
    const auto rows = static_cast<std::size_t>(matrix.rows), columns = static_cast<std::size_t>(matrix.columns);
    const Buffer x(padded_bytes<std::int16_t>(columns)), scratch(scratch_bytes(columns));
    const Buffer sums(matrix.wide ? padded_bytes<std::int64_t>(rows) : padded_bytes<std::int32_t>(rows));
    std::vector<std::byte> levels(rows * columns * sizeof(std::int16_t));
    for (std::size_t k = 0; k < columns; ++k) {
        x.as<std::int16_t>()[k] = 1;
        kernel.multiply(matrix, x.as<std::int16_t>(), sums.data(), scratch.data());
        x.as<std::int16_t>()[k] = 0;
        for (std::size_t r = 0; r < rows; ++r)
            write_little(levels.data() + (r * columns + k) * sizeof(std::int16_t),
                         static_cast<std::int16_t>(matrix.wide ? sums.as<std::int64_t>()[r] : sums.as<std::int32_t>()[r]));
    }
    return levels;
}

std::string name_of(const Code& code) { return code.node + "/" + code.path; }

[[noreturn]] void refuse(const std::string& what) { throw Error(RINDLE_INVALID_ARGUMENT, what); }

Code& code_of(Model& model, const Threshold& threshold) {
    std::string known;
    for (Code& code : model.codes)
        if (code.node == threshold.node && code.path == threshold.path) return code;
    for (const Code& code : model.codes) known += (known.empty() ? "" : ", ") + name_of(code);
    refuse("no code path \"" + std::string(threshold.node) + "/" + std::string(threshold.path) + "\"; there are " +
           (known.empty() ? "none" : known));
}

Buffer theta_of(const Code& code, std::span<const std::int16_t> given) {
    if (given.empty()) return Buffer();
    if (given.size() != 1 && given.size() != code.size)
        refuse(name_of(code) + ": " + std::to_string(given.size()) + " thresholds, must be 1 or " + std::to_string(code.size));
    for (std::int16_t theta : given)
        if (theta < 0 || theta >= code.limits.hi)
            refuse(name_of(code) + ": the threshold " + std::to_string(theta) + ", must be 0.." +
                   std::to_string(code.limits.hi - 1));
    std::vector<std::int16_t> all(given.begin(), given.end());
    all.resize(code.size, given[0]);
    return buffer_of(all);
}

// hold(), stage by stage: a code is made before it is read, and both by the same program.
class Holder {
  public:
    explicit Holder(Model& model) : model_(model), held_(model.codes.size(), -1) {}

    void operator()(Stage& stage) {
        stage.held.clear();
        model_.state.insert(model_.state.end(), stage.state.begin(), stage.state.end());
        for (Step& step : stage.steps) {
            if (auto* narrowing = std::get_if<Narrowing>(&step.work))
                make(*narrowing, stage);
            else if (auto* affine = std::get_if<Affine>(&step.work))
                read(*affine, stage, true);
            else if (auto* convolve = std::get_if<Convolve>(&step.work))
                read(convolve->affine, stage, false);  // nothing of a convolution is kept from frame to frame
        }
    }

  private:
    void make(Narrowing& narrowing, Stage& stage) {
        narrowing.held = -1;
        if (narrowing.code < 0) return;
        const Code& code = model_.codes[static_cast<std::size_t>(narrowing.code)];
        if (code.theta.size() == 0) return;
        const std::size_t index = model_.held.size();
        held_[static_cast<std::size_t>(narrowing.code)] = narrowing.held = static_cast<int>(index);
        Held held = {code};
        held.held = allocate<std::int16_t>(code.size);
        held.index = allocate<std::int32_t>(2 * code.size);
        held.delta = allocate<std::int16_t>(2 * code.size);
        // A program that runs once per row begins with v-hat = 0 each time: its v-hat is never kept.
        model_.state.push_back({held.held, code.size, stage.sequence ? code.limits : Limits{0, 0}});
        stage.held.push_back({held.held, code.size * sizeof(std::int16_t)});
        model_.held.push_back(std::move(held));
    }

    void read(Affine& affine, Stage& stage, bool by_column) {
        for (Affine::Product& product : affine.products) {
            const auto code = static_cast<std::size_t>(product.code);
            product.held = held_[code];
            product.x = product.held < 0 ? model_.codes[code].now : model_.held[static_cast<std::size_t>(product.held)].held;
            if (product.held < 0 || !by_column) continue;
            product.matrix.by_column = product.by_column->of(*model_.kernel, product.matrix);
            stage.held.push_back({product.accumulators, product.matrix.sums_bytes()});
        }
    }

    template <class T>
    std::size_t allocate(std::size_t count) {
        const std::size_t offset = model_.memory;
        model_.memory += padded_bytes<T>(count);
        return offset;
    }

    Model& model_;
    std::vector<int> held_;  // of each code: index into Model::held, or -1
};

}  // namespace

void Columns::pack(const Kernel& kernel, const Matrix& matrix, const Weights& weights) {
    Buffer packed(kernel.column_bytes(matrix));
    kernel.pack_columns(matrix, weights, packed.data());
    packed_ = std::move(packed);
}

const void* Columns::of(const Kernel& kernel, const Matrix& matrix) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (packed_.size() == 0) {
        const std::vector<std::byte> levels = levels_of(kernel, matrix);
        pack(kernel, matrix, {levels.data(), static_cast<std::size_t>(matrix.columns) * sizeof(std::int16_t), integers(16)});
    }
    return packed_.data();
}

void hold(Model& model) {
    model.held.clear();
    model.state.clear();
    model.memory = model.dense_memory;
    Holder holder(model);
    for (Stage& stage : model.stages) holder(stage);
    plan_passes(model);
    model.state_values = 0;
    for (const Memory& memory : model.state) model.state_values += memory.size;
    if (model.state_values > UINT32_MAX) throw Error(RINDLE_INVALID_FILE, "document: the states have 2^32 values or more");
}

std::unique_ptr<Model> with_thresholds(const Model& model, std::span<const Threshold> thresholds, std::string id) {
    const auto is_digit = [](char c) { return ('0' <= c && c <= '9') || ('a' <= c && c <= 'f'); };
    if (!id.empty() && (id.size() != kIdDigits || !std::all_of(id.begin(), id.end(), is_digit)))
        refuse("the id is \"" + id + "\", must be 64 lower-case hex digits");
    auto made = std::make_unique<Model>(model);
    made->id = std::move(id);
    made->golden = {};
    for (auto threshold = thresholds.begin(); threshold != thresholds.end(); ++threshold) {
        Code& code = code_of(*made, *threshold);
        const auto same = [&](const Threshold& one) { return one.node == threshold->node && one.path == threshold->path; };
        if (std::any_of(thresholds.begin(), threshold, same)) refuse(name_of(code) + " is named twice");
        code.theta = theta_of(code, threshold->theta);
    }
    hold(*made);
    return made;
}

}  // namespace rindle
