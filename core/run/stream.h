// One running copy of a model's states.
#pragma once

#include <atomic>
#include <memory>

#include "run/block.h"

namespace rindle {

// Not thread-safe: api.h lets one thread in at a time. Sizes and values have been checked by the caller.
class Stream {
  public:
    explicit Stream(std::shared_ptr<const Model> model);

    const Model& model() const noexcept { return *model_; }
    void reset() noexcept;

    // One frame: put the input, step, take the output, which is what it would be if the row ended there.
    template <class Value>
    void input(const Value* x) noexcept {
        code(x, 1, at<std::byte>(model_->input));
    }
    void step() noexcept;
    template <class Value>
    void output(Value* y) const noexcept {
        value(at<std::byte>(model_->output), 1, y);
    }

    // A block of frames: put the inputs of each piece, run, take its outputs (none where the row goes on and ends in a vector).
    // Pieces that are not a row's first go on where the row was left.
    template <class Value>
    void input(const Block& block, std::size_t piece, const Value* x) noexcept {
        const Frames frames = block.frames(0, piece);
        code(x, static_cast<std::size_t>(frames.count), frames.first);
    }
    void run(const Block& block) noexcept;
    template <class Value>
    std::size_t output(const Block& block, std::size_t piece, Value* y) const noexcept {  // how many frames
        const Frames frames = block.frames(model_->output_track, piece);
        value(frames.first, static_cast<std::size_t>(frames.count), y);
        return static_cast<std::size_t>(frames.count);
    }

    // int16 values, in the order of a saved state
    void save(std::byte* values) const noexcept;
    bool restore(const std::byte* values) noexcept;  // false, and nothing changed, if one is out of range

    struct Activity {
        std::uint64_t frames = 0, changed = 0;
    };
    const std::vector<Activity>& activity() const noexcept { return activity_; }
    const std::vector<std::uint64_t>& saturations() const noexcept { return saturations_; }
    void reset_counters() noexcept;

  private:
    template <class T>
    T* at(std::size_t offset) const noexcept {
        return reinterpret_cast<T*>(memory_.data() + offset);
    }
    const std::int16_t* at(const Place& place) const noexcept {
        return place.constant ? place.constant : at<std::int16_t>(place.offset);
    }

    // Frames of inputs to codes, or ids; of codes to outputs
    void code(const float* x, std::size_t frames, std::byte* to) noexcept;
    void code(const std::int16_t* codes, std::size_t frames, std::byte* to) noexcept;
    void code(const std::int32_t* ids, std::size_t frames, std::byte* to) noexcept;
    void value(const std::byte* from, std::size_t frames, float* y) const noexcept;
    void value(const std::byte* from, std::size_t frames, std::int16_t* codes) const noexcept;

    // A frame of a node, at its places
    void run(const Stage& stage) noexcept;
    void look_up(const Stage& stage) noexcept;
    void gather(const Stage& stage) noexcept;
    const float* values(const FloatInput& in) noexcept;
    void evaluate(const Stage& stage) noexcept;
    void copy(const Stage& stage) noexcept;
    void forget(const Stage& stage) noexcept;
    void begin(const Stage& stage) noexcept;
    void count(const Step& step, std::size_t outside) noexcept {
        if (step.saturations >= 0) saturations_[static_cast<std::size_t>(step.saturations)] += outside;
    }
    // Nodes that read several frames for one
    void slide(const Stage& stage, const Frames& x, const Frames& y) noexcept;
    void take_first(const Stage& stage, const Frames& x, const Frames& y, bool first) noexcept;
    void average(const Stage& stage, const Frames& x, const Frames& y) noexcept;
    void find_largest(const Stage& stage, const Frames& x, const Frames& y, bool first) noexcept;
    void attend(const Stage& stage, const Frames& scores, const Frames& of_values, const Frames& y) noexcept;
    // A stage over a block
    void run_pieces(const Stage& stage, const Block& block) noexcept;
    void run_frames(const Stage& stage, const Block& block) noexcept;
    void run_steps(const Stage& stage, const Pass& pass) noexcept;
    void multiply(const Pass::Known& known, const Stage& stage, std::size_t count, const Block& block) const noexcept;

    template <bool in_block = false>  // where the known products are there already
    std::size_t run(const Affine& affine) noexcept;
    std::size_t run(const Narrowing& narrowing) noexcept;
    std::size_t run(const Elementwise& elementwise) noexcept;
    std::size_t run(const Clip& clip) noexcept;
    std::size_t run(const TableStep& table) noexcept;
    std::size_t run(const Convolve& convolve) noexcept;
    void multiply_patches(const Convolve& convolve, std::size_t product, std::size_t y, std::size_t x) noexcept;
    std::size_t finish(const Affine& affine, const Affine::Gate& gate, std::int16_t* out) noexcept;
    void accumulate(const Affine::Product& product) noexcept;

    std::shared_ptr<const Model> model_;
    Buffer memory_;
    std::vector<std::int32_t> entries_;  // of each held path's list of changes, this frame
    std::vector<Activity> activity_;
    std::vector<std::uint64_t> saturations_;
    float input_reciprocal_;             // r of (4)
    bool stale_ = false;                 // kept accumulators do not belong to v-hat: set by restore
};

}  // namespace rindle
