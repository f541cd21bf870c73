// The nodes that have no program: in a frame they look up, choose, or compute in floats; over frames they remember or reduce.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/fixed.h"
#include "run/floats.h"
#include "run/stream.h"

namespace rindle {

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

void Stream::gather(const Stage& stage) noexcept {
    const std::int16_t* x = at<std::int16_t>(stage.in);
    const auto* index = stage.rows.as<std::int32_t>();
    std::int16_t* y = at<std::int16_t>(stage.out);
    for (std::size_t i = 0; i < stage.size; ++i) y[i] = x[index[i]];
}

const float* Stream::values(const FloatInput& in) noexcept {
    float* values = at<float>(in.values);
    if (in.is_float) return values;
    const std::int16_t* codes = at<std::int16_t>(in.place);
    for (std::size_t i = 0; i < in.size; ++i) values[i] = decode(codes[i], in.scale);
    return values;
}

void Stream::evaluate(const Stage& stage) noexcept {
    const FloatWork& work = stage.floats;
    const float* a = values(work.in[0]);
    const float* b = work.in.size() > 1 ? values(work.in[1]) : nullptr;
    rindle::evaluate(work, a, b, at<float>(stage.out));
}

// ---- Several frames for one

// (23). Of the frames before those at hand a ring keeps the last ones, where rows may be cut; all others outside are zero.
void Stream::slide(const Stage& stage, const Frames& x, const Frames& y) noexcept {
    const Window& window = stage.window;
    std::byte* ring = at<std::byte>(stage.ring);
    const std::size_t ring_bytes = stage.kept * x.bytes;
    const auto kept = static_cast<std::int64_t>(stage.kept);
    std::size_t oldest = kept ? static_cast<std::size_t>(*at<std::int64_t>(stage.oldest)) * sizeof(std::int16_t) : 0;
    for (std::int64_t t = 0; t < y.count; ++t)
        for (std::int64_t k = 0; k < window.size; ++k) {
            const std::int64_t from = window.stride * t + k * window.dilation - window.before;
            std::byte* to = y[t] + static_cast<std::size_t>(k) * x.bytes;
            if (from >= 0 && from < x.count) {
                std::memcpy(to, x[from], x.bytes);
            } else if (from < 0 && from + kept >= 0) {
                const std::size_t behind = oldest + static_cast<std::size_t>(from + kept) * x.bytes;  // below two whole rings
                std::memcpy(to, ring + (behind < ring_bytes ? behind : behind - ring_bytes), x.bytes);
            } else {
                std::memset(to, 0, x.bytes);
            }
        }
    if (kept == 0) return;
    for (std::int64_t t = 0; t < x.count; ++t) {
        std::memcpy(ring + oldest, x[t], x.bytes);
        oldest += x.bytes;
        if (oldest == ring_bytes) oldest = 0;
    }
    *at<std::int64_t>(stage.oldest) = static_cast<std::int64_t>(oldest / sizeof(std::int16_t));
}

void Stream::take_first(const Stage& stage, const Frames& x, const Frames& y, bool first) noexcept {
    if (first) std::memcpy(at<std::byte>(stage.out), x[0], x.bytes);
    if (y.count > 0) std::memcpy(y[0], at<std::byte>(stage.out), y.bytes);
}

void Stream::average(const Stage& stage, const Frames& x, const Frames& y) noexcept {
    std::int64_t *sums = at<std::int64_t>(stage.sums), &seen = *at<std::int64_t>(stage.seen);
    for (std::int64_t t = 0; t < x.count; ++t) {
        const auto* codes = reinterpret_cast<const std::int16_t*>(x[t]);
        for (std::size_t i = 0; i < stage.size; ++i) sums[i] += codes[i];
    }
    seen += x.count;
    if (y.count == 0) return;
    auto* means = reinterpret_cast<std::int16_t*>(y[0]);
    for (std::size_t i = 0; i < stage.size; ++i) means[i] = static_cast<std::int16_t>(mean(sums[i], seen));
}

// (24)
void Stream::find_largest(const Stage& stage, const Frames& x, const Frames& y, bool first) noexcept {
    std::int16_t* largest = at<std::int16_t>(stage.out);
    if (first) std::memcpy(largest, x[0], x.bytes);
    for (std::int64_t t = 0; t < x.count; ++t) {
        const auto* codes = reinterpret_cast<const std::int16_t*>(x[t]);
        for (std::size_t i = 0; i < stage.size; ++i) largest[i] = std::max(largest[i], codes[i]);
    }
    if (y.count > 0) std::memcpy(y[0], largest, y.bytes);
}

// The sum over the row's frames of softmax(scores) times values: the largest score first, so that no power overflows.
void Stream::attend(const Stage& stage, const Frames& scores, const Frames& of_values, const Frames& y) noexcept {
    const FloatInput &score = stage.floats.in[0], &value = stage.floats.in[1];
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
        const float* v = read(value, of_values, t);
        total += weight;
        for (std::size_t i = 0; i < stage.size; ++i) sums[i] += weight * static_cast<double>(v[i]);
    }
    auto* sum = reinterpret_cast<float*>(y[0]);
    for (std::size_t i = 0; i < stage.size; ++i) sum[i] = static_cast<float>(sums[i] / total);
}

}  // namespace rindle
