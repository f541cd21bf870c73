// One frame of the nodes that have no program: they look up, choose, remember, or compute in floats.
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

// (23), causal: the window's frames are `dilation` apart, and its last one is the frame at hand. The ring holds those before it.
void Stream::slide(const Stage& stage) noexcept {
    const auto frames = static_cast<std::size_t>(stage.window.size), span = static_cast<std::size_t>(stage.window.span());
    const std::size_t size = stage.size / frames, ring_size = span * size;
    const std::size_t step = static_cast<std::size_t>(stage.window.dilation) * size;
    const std::int16_t* x = at<std::int16_t>(stage.in);
    std::int16_t *ring = at<std::int16_t>(stage.ring), *y = at<std::int16_t>(stage.out);
    std::int64_t& oldest = *at<std::int64_t>(stage.oldest);
    std::size_t from = static_cast<std::size_t>(oldest);
    for (std::size_t k = 0; k + 1 < frames; ++k, y += size) {
        std::memcpy(y, ring + from, size * sizeof *y);
        from += step;  // at most one whole ring
        if (from >= ring_size) from -= ring_size;
    }
    std::memcpy(y, x, size * sizeof *y);
    if (span == 0) return;
    std::memcpy(ring + oldest, x, size * sizeof *x);
    oldest += static_cast<std::int64_t>(size);
    if (oldest == static_cast<std::int64_t>(ring_size)) oldest = 0;
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

}  // namespace rindle
