// One running copy of a model's states.
#pragma once

#include <atomic>
#include <memory>

#include "plan/model.h"

namespace rindle {

// Not thread-safe: api.h lets one thread in at a time. Sizes and values have been checked by the caller.
class Stream {
  public:
    explicit Stream(std::shared_ptr<const Model> model);

    const Model& model() const noexcept { return *model_; }
    void reset() noexcept;

    // One frame: put the input, run, take the output.
    void input(const float* x) noexcept;
    void input(const std::int16_t* codes) noexcept;
    void input(const std::int32_t* id) noexcept;
    void frame() noexcept;   // what runs once per frame
    void finish(std::int64_t frames) noexcept;  // what runs once, after the last of this many frames
    void output(float* y) const noexcept;
    void output(std::int16_t* codes) const noexcept;

    // A whole row, node by node, where the model cannot take frames one by one: begin it, put every input in and keep it, run,
    // and fetch every output, if that is a sequence, before it is taken. `row` has the bytes that begin_row returns, or SIZE_MAX
    // where no machine has them; a longer row needs no fewer.
    std::size_t begin_row(std::size_t frames) noexcept;
    void keep(std::byte* row, std::size_t t) const noexcept;
    void run_row(std::byte* row) noexcept;
    void fetch(const std::byte* row, std::size_t t) const noexcept;

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

    void begin() noexcept;  // initial states into memory of zeros
    void run(const Stage& stage) noexcept;
    void average(const Stage& stage, std::int64_t frames) noexcept;
    // Nodes that are neither programs nor joins, one frame of them
    void look_up(const Stage& stage) noexcept;
    void gather(const Stage& stage) noexcept;
    void slide(const Stage& stage) noexcept;
    const float* values(const FloatInput& in) noexcept;
    void evaluate(const Stage& stage) noexcept;
    // The same over a row
    struct Frames;  // of a track
    Frames frames(std::byte* row, int track) const noexcept;
    void run_each(const Stage& stage, std::byte* row) noexcept;
    void slide_over(const Stage& stage, std::byte* row) noexcept;
    void average_over(const Stage& stage, std::byte* row) noexcept;
    void find_largest(const Stage& stage, std::byte* row) noexcept;
    void attend(const Stage& stage, std::byte* row) noexcept;

    std::size_t run(const Affine& affine) noexcept;
    std::size_t run(const Narrowing& narrowing) noexcept;
    std::size_t run(const Elementwise& elementwise) noexcept;
    std::size_t run(const Clip& clip) noexcept;
    std::size_t run(const TableStep& table) noexcept;
    std::size_t run(const Convolve& convolve) noexcept;
    void multiply_patches(const Convolve& convolve, std::size_t product, std::size_t y, std::size_t x) noexcept;
    std::size_t finish(const Affine& affine, const Affine::Gate& gate, std::int16_t* out) noexcept;
    void accumulate(const Affine::Product& product) noexcept;
    void forget(const Stage& stage) noexcept;

    std::shared_ptr<const Model> model_;
    Buffer memory_;
    std::vector<std::int32_t> entries_;  // of each held path's list of changes, this frame
    std::vector<Activity> activity_;
    std::vector<std::uint64_t> saturations_;
    std::vector<std::int64_t> counts_;   // frames of each clock in the row at hand
    std::vector<std::size_t> begins_;    // bytes in front of each track's frames
    float input_reciprocal_;             // r of (4)
    bool stale_ = false;                 // kept accumulators do not belong to v-hat: set by restore
};

}  // namespace rindle
