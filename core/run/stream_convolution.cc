// (7c): a convolution is, at every pixel of its result, the product of its matrix with the patch of the image that the kernel
// covers there. So the kernels' products and rounding serve here as they are. Where the image is held, patches are of v-hat.
#include <algorithm>
#include <cstring>

#include "run/stream.h"

namespace rindle {
namespace {

using Index = std::int64_t;

// The patch of one group's channels at pixel (y, x) of the result, [channels, kernel height, kernel width]: zero outside the
// image. Behind it zeros too, up to a multiple of kPadding, which a kernel may read.
void cut_patch(const Convolution& conv, const std::int16_t* channels, Index y, Index x, std::int16_t* patch) noexcept {
    const auto [height, width] = conv.image;
    const auto [rows, columns] = conv.kernel;
    const Index top = y * conv.stride[0] - conv.padding[0], left = x * conv.stride[1] - conv.padding[1];
    const Index step = conv.dilation[1];
    // The columns b of the kernel for which left + b * step lies in 0..width-1
    const Index first = std::min(columns, left < 0 ? (-left + step - 1) / step : 0);
    const Index end = std::max(first, std::min(columns, left < width ? (width - 1 - left) / step + 1 : 0));
    std::int16_t* to = patch;
    for (Index c = 0; c < conv.group_channels; ++c)
        for (Index a = 0; a < rows; ++a, to += columns) {
            const Index i = top + a * conv.dilation[0];
            if (i < 0 || i >= height) {
                std::fill(to, to + columns, std::int16_t{0});
                continue;
            }
            const std::int16_t* from = channels + (c * height + i) * width;
            std::fill(to, to + first, std::int16_t{0});
            for (Index b = first; b < end; ++b) to[b] = from[left + b * step];
            std::fill(to + end, to + columns, std::int16_t{0});
        }
    const std::size_t size = static_cast<std::size_t>(to - patch), padded = (size + kPadding - 1) / kPadding * kPadding;
    std::fill(to, patch + padded, std::int16_t{0});
}

}  // namespace

// A pixel's accumulators of one product, group by group. They are made apart, because a kernel may write behind the last one.
void Stream::multiply_patches(const Convolve& convolve, std::size_t index, std::size_t y, std::size_t x) noexcept {
    const Affine::Product& product = convolve.affine.products[index];
    const Convolution& conv = convolve.shapes[index];
    const std::size_t width = product.matrix.wide ? sizeof(std::int64_t) : sizeof(std::int32_t);
    const std::size_t bytes = static_cast<std::size_t>(product.matrix.rows) * width;
    const auto group_size = static_cast<std::size_t>(conv.group_channels * conv.image[0] * conv.image[1]);
    const std::int16_t* channels = at<std::int16_t>(product.x);
    std::byte* accumulators = at<std::byte>(product.accumulators);
    std::int16_t* patch = at<std::int16_t>(model_->patch);
    Matrix matrix = product.matrix;
    for (std::size_t group = 0; group < static_cast<std::size_t>(conv.groups); ++group) {
        matrix.by_row = product.by_row.data() + group * convolve.group_bytes[index];
        cut_patch(conv, channels + group * group_size, static_cast<Index>(y), static_cast<Index>(x), patch);
        if (conv.groups == 1)
            return model_->kernel->multiply(matrix, patch, accumulators, at<std::byte>(model_->scratch));
        model_->kernel->multiply(matrix, patch, at<std::byte>(model_->group), at<std::byte>(model_->scratch));
        std::memcpy(accumulators + group * bytes, at<std::byte>(model_->group), bytes);
    }
}

std::size_t Stream::run(const Convolve& convolve) noexcept {
    const auto width = static_cast<std::size_t>(convolve.shapes[0].result[1]);
    std::int16_t* result = at<std::int16_t>(model_->pixel);
    std::size_t outside = 0;
    for (std::size_t pixel = 0; pixel < convolve.pixels; ++pixel) {
        for (std::size_t product = 0; product < convolve.shapes.size(); ++product)
            multiply_patches(convolve, product, pixel / width, pixel % width);
        for (const Affine::Gate& gate : convolve.affine.gates) {
            outside += finish(convolve.affine, gate, result);
            std::int16_t* out = at<std::int16_t>(gate.out) + pixel;
            for (std::size_t channel = 0; channel < gate.rows; ++channel) out[channel * convolve.pixels] = result[channel];
        }
    }
    return outside;
}

}  // namespace rindle
