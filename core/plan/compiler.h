// From a document to a model: model.cc has the graph, steps.cc what a program node does in a frame; hold.cc then gives it
// thresholds, and passes.cc finds what of it can be done for many frames at once.
#pragma once

#include <cstring>

#include "plan/model.h"

namespace rindle {

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

inline constexpr std::size_t kMostFrames = 60;  // of a block, and in a pass; a long one where no row is cut passes in parts

template <class T>
constexpr std::size_t padded_bytes(std::size_t count) {
    return aligned((count + kPadding - 1) / kPadding * kPadding * sizeof(T));
}

template <class T>
Buffer buffer_of(const std::vector<T>& values) {
    Buffer buffer(padded_bytes<T>(values.size()));
    if (!values.empty()) std::memcpy(buffer.data(), values.data(), values.size() * sizeof(T));
    return buffer;
}

inline Limits limits_of(const Range& range) { return {range.lo, range.hi}; }

class Compiler {
  public:
    Compiler(Document& document, const Kernel& kernel) : document_(document), model_(std::make_unique<Model>()) {
        model_->kernel = &kernel;
    }

    std::unique_ptr<Model> compile();

  private:
    template <class T>
    std::size_t allocate(std::size_t count) {
        const std::size_t offset = model_->memory;
        model_->memory += padded_bytes<T>(count);
        return offset;
    }

    // ---- The graph
    int track(std::size_t place, std::size_t bytes, int clock);
    int clock_of(int node) const;
    int window_clock(const Node& node);
    const Stage& stage_of(int node) const { return model_->stages[static_cast<std::size_t>(node)]; }
    std::size_t out_of(int node) const { return node == kModelInput ? model_->input : stage_of(node).out; }
    std::size_t size_of(int node) const { return node == kModelInput ? model_->input_size : stage_of(node).size; }
    void stage(const Node& node);
    void concat(const Node& node, Stage& stage);
    void window(const Node& node, Stage& stage);
    void floats(const Node& node, Stage& stage);

    // ---- A program
    void program(const Node& node, Stage& stage);
    void results(const Program& program, Stage& stage);
    Step step(const Node& node, const Op& op, std::size_t index);
    Affine affine(const Program& program, const Op& op);
    Affine::Product product(const Program& program, const Term& term, int shift);
    Convolve convolve(const Program& program, const Op& op);
    Narrowing narrowing(const Node& node, const Op& op);
    Elementwise elementwise(const Program& program, const Op& op);
    TableStep table(const Program& program, const Op& op);

    static const Path& path(const Program& program, int index) { return program.paths[static_cast<std::size_t>(index)]; }
    static std::size_t size(const Program& program, int index) {
        return static_cast<std::size_t>(path(program, index).size);
    }
    std::size_t place(int index) const { return places_[static_cast<std::size_t>(index)].offset; }

    // Memory with which a row begins as zero
    template <class T>
    std::size_t remember(Stage& stage, std::size_t count) {
        const std::size_t offset = allocate<T>(count);
        stage.memory.push_back({offset, count * sizeof(T)});
        return offset;
    }

    template <class T>
    const T* constant(const std::vector<T>& values) {
        model_->constants.push_back(buffer_of(values));
        return model_->constants.back().template as<T>();
    }

    Document& document_;
    std::unique_ptr<Model> model_;
    std::vector<Place> places_;  // of the paths of the program at hand
    std::vector<int> codes_;     // its code paths: index into Model::codes, or -1
    std::int32_t most_columns_ = 0;
    std::size_t patch_ = 0, group_ = 0, pixel_ = 0;  // room that convolutions need: columns, bytes, channels
};

// Finds the passes of every stage, once it is known which codes are held.
void plan_passes(Model& model);

}  // namespace rindle
