// One running copy of a model's states.
#pragma once

#include <atomic>
#include <memory>

#include "program.h"

namespace rindle {

// Not thread-safe: model.cc lets one thread in at a time. Sizes and values have been checked by the caller.
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

    // A whole row, node by node, where the model cannot take frames one by one: put every input in and keep it, run, and
    // fetch every output, if that is a sequence, before it is taken. `row` has frames * frame_bytes bytes.
    void keep(std::byte* row, std::size_t frames, std::size_t t) const noexcept;
    void run_row(std::byte* row, std::size_t frames) noexcept;
    void fetch(const std::byte* row, std::size_t frames, std::size_t t) const noexcept;

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

    void run(const Stage& stage) noexcept;
    void average(const Stage& stage, std::int64_t frames) noexcept;
    void look_up(const Stage& stage) noexcept;
    std::size_t run(const Affine& affine) noexcept;
    std::size_t run(const Narrowing& narrowing) noexcept;
    std::size_t run(const Elementwise& elementwise) noexcept;
    std::size_t run(const Clip& clip) noexcept;
    std::size_t run(const TableStep& table) noexcept;
    void accumulate(const Affine::Product& product) noexcept;
    void forget(const Stage& stage) noexcept;

    std::shared_ptr<const Model> model_;
    Buffer memory_;
    std::vector<std::int32_t> entries_;  // of each held path's list of changes, this frame
    std::vector<Activity> activity_;
    std::vector<std::uint64_t> saturations_;
    float input_reciprocal_;             // r of (4)
    bool stale_ = false;                 // kept accumulators do not belong to v-hat: set by restore
};

}  // namespace rindle
