// A whole row, node by node: for graphs with a node that reads it from its end.
#include <cstring>

#include "fixed.h"
#include "stream.h"

namespace rindle {
namespace {

template <class Byte>
Byte* frame_of(Byte* row, const Track& track, std::size_t frames, std::size_t t) noexcept {
    return row + track.begin * frames + track.bytes * t;
}

}  // namespace

void Stream::keep(std::byte* row, std::size_t frames, std::size_t t) const noexcept {
    const Track& track = model_->input_track;
    std::memcpy(frame_of(row, track, frames, t), at<std::byte>(track.place), track.bytes);
}

void Stream::fetch(const std::byte* row, std::size_t frames, std::size_t t) const noexcept {
    const Track& track = model_->output_track;
    std::memcpy(at<std::byte>(track.place), frame_of(row, track, frames, t), track.bytes);
}

void Stream::run_row(std::byte* row, std::size_t frames) noexcept {
    for (const Stage& stage : model_->stages) {
        if (stage.sequence) {
            for (std::size_t i = 0; i < frames; ++i) {
                const std::size_t t = stage.reverse ? frames - 1 - i : i;
                for (const Track& read : stage.reads)
                    std::memcpy(at<std::byte>(read.place), frame_of(row, read, frames, t), read.bytes);
                run(stage);
                std::memcpy(frame_of(row, stage.track, frames, t), at<std::byte>(stage.out), stage.track.bytes);
            }
            continue;
        }
        switch (stage.kind) {
            case NodeKind::last:
            case NodeKind::first: {
                const std::size_t t = stage.kind == NodeKind::last ? frames - 1 : 0;
                const Track& read = stage.reads[0];
                std::memcpy(at<std::byte>(stage.out), frame_of(row, read, frames, t), read.bytes);
                break;
            }
            case NodeKind::mean: {
                const auto* x = reinterpret_cast<const std::int16_t*>(frame_of(row, stage.reads[0], frames, 0));
                std::int64_t* sums = at<std::int64_t>(stage.sums);
                for (std::size_t t = 0; t < frames; ++t, x += stage.size)
                    for (std::size_t i = 0; i < stage.size; ++i) sums[i] += x[i];
                average(stage, static_cast<std::int64_t>(frames));
                break;
            }
            default:  // a program or a concat of vectors
                run(stage);
                forget(stage);
        }
    }
    stale_ = false;
}

// The row's bits are those of the file: little-endian, two's complement.
void Stream::look_up(const Stage& stage) noexcept {
    const int bits = stage.bits;
    const std::size_t row_bytes = (stage.size * static_cast<std::size_t>(bits) + 7) / 8;
    const auto id = static_cast<std::size_t>(*at<std::int32_t>(model_->input));
    const std::byte* from = stage.rows.data() + id * row_bytes;
    std::int16_t* y = at<std::int16_t>(stage.out);
    const std::uint32_t mask = (1U << bits) - 1, sign = 1U << (bits - 1);
    std::uint32_t buffer = 0;
    int held = 0;
    for (std::size_t i = 0; i < stage.size; ++i) {
        for (; held < bits; held += 8) buffer |= std::to_integer<std::uint32_t>(*from++) << held;
        const std::uint32_t code = buffer & mask;
        y[i] = static_cast<std::int16_t>(static_cast<std::int32_t>(code ^ sign) - static_cast<std::int32_t>(sign));
        buffer >>= bits;
        held -= bits;
    }
}

}  // namespace rindle
