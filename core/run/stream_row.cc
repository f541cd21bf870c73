// A whole row, node by node: for graphs with a node that needs more of it than the frames so far.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/fixed.h"
#include "run/floats.h"
#include "run/stream.h"

namespace rindle {

// A track's frames in the row at hand.
struct Stream::Frames {
    std::byte* first;
    std::size_t bytes;  // of one
    std::int64_t count;

    std::byte* operator[](std::int64_t t) const noexcept { return first + static_cast<std::size_t>(t) * bytes; }
};

Stream::Frames Stream::frames(std::byte* row, int track) const noexcept {
    const auto index = static_cast<std::size_t>(track);
    const Track& found = model_->tracks[index];
    return {row + begins_[index], found.bytes, counts_[static_cast<std::size_t>(found.clock)]};
}

std::size_t Stream::begin_row(std::size_t frames) noexcept {
    for (std::size_t i = 0; i < counts_.size(); ++i) {
        const Clock& clock = model_->clocks[i];
        counts_[i] = i == 0 ? static_cast<std::int64_t>(frames) : clock.window.frames(counts_[static_cast<std::size_t>(clock.parent)]);
    }
    constexpr std::size_t kMost = PTRDIFF_MAX;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < begins_.size(); ++i) {
        const Track& track = model_->tracks[i];
        const auto count = static_cast<std::size_t>(counts_[static_cast<std::size_t>(track.clock)]);
        if (count > (kMost - bytes) / track.bytes) return SIZE_MAX;
        begins_[i] = bytes;
        bytes += count * track.bytes;
    }
    return bytes;
}

void Stream::keep(std::byte* row, std::size_t t) const noexcept {
    const Track& track = model_->tracks[0];
    std::memcpy(frames(row, 0)[static_cast<std::int64_t>(t)], at<std::byte>(track.place), track.bytes);
}

void Stream::fetch(const std::byte* row, std::size_t t) const noexcept {
    const auto index = static_cast<std::size_t>(model_->output_track);
    const Track& track = model_->tracks[index];
    std::memcpy(at<std::byte>(track.place), row + begins_[index] + t * track.bytes, track.bytes);
}

void Stream::run_row(std::byte* row) noexcept {
    for (const Stage& stage : model_->stages) {
        switch (stage.kind) {
            case NodeKind::window: slide_over(stage, row); break;
            case NodeKind::last:
            case NodeKind::first: {
                const Frames x = frames(row, stage.reads[0]);
                std::memcpy(at<std::byte>(stage.out), x[stage.kind == NodeKind::last ? x.count - 1 : 0], x.bytes);
                break;
            }
            case NodeKind::mean: average_over(stage, row); break;
            case NodeKind::max: find_largest(stage, row); break;
            default:
                if (stage.sequence) {
                    run_each(stage, row);
                } else if (stage.kind == NodeKind::floating && stage.floats.kind == FloatKind::attention) {
                    attend(stage, row);
                } else {
                    run(stage);
                    forget(stage);
                }
        }
    }
    stale_ = false;
}

void Stream::run_each(const Stage& stage, std::byte* row) noexcept {
    const Frames y = frames(row, stage.track);
    for (std::int64_t i = 0; i < y.count; ++i) {
        const std::int64_t t = stage.reverse ? y.count - 1 - i : i;
        for (const int read : stage.reads) {
            const Frames x = frames(row, read);
            std::memcpy(at<std::byte>(model_->tracks[static_cast<std::size_t>(read)].place), x[t], x.bytes);
        }
        run(stage);
        std::memcpy(y[t], at<std::byte>(stage.out), y.bytes);
    }
}

// (23)
void Stream::slide_over(const Stage& stage, std::byte* row) noexcept {
    const Frames x = frames(row, stage.reads[0]), y = frames(row, stage.track);
    const Window& window = stage.window;
    for (std::int64_t t = 0; t < y.count; ++t)
        for (std::int64_t k = 0; k < window.size; ++k) {
            const std::int64_t from = window.stride * t + k * window.dilation - window.before;
            std::byte* to = y[t] + static_cast<std::size_t>(k) * x.bytes;
            if (from >= 0 && from < x.count)
                std::memcpy(to, x[from], x.bytes);
            else
                std::memset(to, 0, x.bytes);
        }
}

void Stream::average_over(const Stage& stage, std::byte* row) noexcept {
    const Frames x = frames(row, stage.reads[0]);
    std::int64_t* sums = at<std::int64_t>(stage.sums);
    for (std::int64_t t = 0; t < x.count; ++t) {
        const auto* codes = reinterpret_cast<const std::int16_t*>(x[t]);
        for (std::size_t i = 0; i < stage.size; ++i) sums[i] += codes[i];
    }
    average(stage, x.count);
}

// (24)
void Stream::find_largest(const Stage& stage, std::byte* row) noexcept {
    const Frames x = frames(row, stage.reads[0]);
    std::int16_t* y = at<std::int16_t>(stage.out);
    std::memcpy(y, x[0], x.bytes);
    for (std::int64_t t = 1; t < x.count; ++t) {
        const auto* codes = reinterpret_cast<const std::int16_t*>(x[t]);
        for (std::size_t i = 0; i < stage.size; ++i) y[i] = std::max(y[i], codes[i]);
    }
}

// The sum over the row's frames of softmax(scores) times values: the largest score first, so that no power overflows.
void Stream::attend(const Stage& stage, std::byte* row) noexcept {
    const FloatInput &score = stage.floats.in[0], &value = stage.floats.in[1];
    const Frames scores = frames(row, stage.reads[0]), frames_of_values = frames(row, stage.reads[1]);
    const auto read = [&](const FloatInput& in, const Frames& from, std::int64_t t) {
        std::memcpy(at<std::byte>(in.place), from[t], from.bytes);
        return values(in);
    };
    double largest = -HUGE_VAL, total = 0;
    for (std::int64_t t = 0; t < scores.count; ++t)
        largest = std::max(largest, static_cast<double>(*read(score, scores, t)));
    double* sums = at<double>(stage.sums);
    std::fill(sums, sums + stage.size, 0.0);
    for (std::int64_t t = 0; t < scores.count; ++t) {
        const double weight = std::exp(static_cast<double>(*read(score, scores, t)) - largest);
        const float* v = read(value, frames_of_values, t);
        total += weight;
        for (std::size_t i = 0; i < stage.size; ++i) sums[i] += weight * static_cast<double>(v[i]);
    }
    float* y = at<float>(stage.out);
    for (std::size_t i = 0; i < stage.size; ++i) y[i] = static_cast<float>(sums[i] / total);
}

}  // namespace rindle
